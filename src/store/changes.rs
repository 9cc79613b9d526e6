//! A feed: all records of a store, and then its changes one by one. A program keeps a mirror of the store with it.
//!
//! For each region the feed knows the `seq` of each record as it was last told. At first it knows none.
//!
//! 1. The feed notes the region's progress, and passes over the region's index. Changed are: ids that it does not know with this
//!    `seq`, and known ids that the index does not have.
//! 2. The feed reads each changed record anew, tells its state, and knows it with the `seq` that was read.
//! 3. A region is compared again when its progress is beyond the noted one, by number, count or shape. (A rebuild changes the
//!    shape.) A change that becomes visible after step 1 is beyond the noted progress, so no change is left out.
//! 4. By the clock, even in a busy store, the feed heals the regions of dead owners. It also compares a region again if its lock is
//!    held, or if a record in it could not be told: an owner that was stopped or died after it made a change visible has not woken
//!    the feed.
//! 5. When all regions have been compared once, the feed has caught up.
//!
//! The feed does not wait for a lock of a living process. If the index can't be read beside a stopped owner, the feed goes on with
//! the other regions.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::file::seat;
use crate::format::slot::{Address, Header};
use crate::record::Version;
use crate::region::read::{Look, look, look_at_every_slot};
use crate::store::Store;
use crate::store::iter::{gather, gather_beside_owner};
use crate::store::read::{Looked, look_again};
use crate::store::watch::{LOOK_EVERY, RegionState, heal_all, wait_in_store};
use crate::sys::atomic::Ordering;

/// An item of a feed: see [`Store::changes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The record is there, with this version: it was written, or was there when the feed began.
    Written {
        /// The record's id.
        id: u64,
        /// Its version when the feed looked at it. Earlier versions may have been passed over.
        version: Version,
    },
    /// A record that was told is not there any more.
    Deleted {
        /// The record's id.
        id: u64,
    },
    /// All records that were there when the feed began have been told. Comes once.
    CaughtUp,
}

/// A blocking iterator of changes: see [`Store::changes`].
#[derive(Debug)]
pub struct Changes<'a> {
    store: &'a Store,
    /// Whether the told records are found by ids or by keys.
    address: Address,
    regions: Vec<Followed>,
    /// The region that is looked at first: each region gets its turn, even if others are busy.
    turn: usize,
    ready: VecDeque<Result<Change>>,
    looked: Instant,
    has_caught_up: bool,
    is_forked: bool,
}

/// The state of a region, as the feed knows it.
#[derive(Debug, Default)]
struct Followed {
    /// Its progress before it was last compared; `None`: it never was.
    last: Option<RegionState>,
    /// Not all changes could be told then: it is compared again by the clock.
    is_open: bool,
    /// The `seq` of each record as it was last told. `false`: a record of the other kind (by key, or by id), which is not told.
    known: HashMap<u64, (u64, bool)>,
}

/// The state of a record now.
enum Now {
    Is(Header),
    Gone,
    /// Damaged: it is told when it is written anew.
    Damaged,
    /// Not known: the owner of its region is in the middle of a change.
    Unknown,
}

/// Following changes.
impl Store {
    /// All records of the store, then [`Change::CaughtUp`], and then the changes as they come, deletions too. A program that starts
    /// empty and follows them has a mirror of the store:
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// use std::collections::HashMap;
    /// use std::time::Duration;
    /// use recstore::{Change, Store};
    ///
    /// # let path = std::env::temp_dir().join(format!("recstore-changes-{}.rec", std::process::id()));
    /// let store = Store::open_or_create(&path)?;
    /// store.put(1, b"there before")?;
    /// let mut mirror = HashMap::new();
    /// let mut changes = store.changes()?;
    /// # let mut writes = 0;
    /// while let Some(change) = changes.next_timeout(Duration::from_millis(10))? {
    ///     match change {
    ///         // If it is gone by now, that is told next.
    ///         Change::Written { id, .. } => _ = store.get(id)?.map(|record| mirror.insert(id, record)),
    ///         Change::Deleted { id } => _ = mirror.remove(&id),
    ///         Change::CaughtUp => {
    ///             assert_eq!(mirror.len(), 1);
    ///             store.put(2, b"written since")?;
    ///             store.delete(1)?;
    ///         }
    ///         _ => {}
    ///     }
    /// }
    /// assert!(!mirror.contains_key(&1));
    /// assert_eq!(mirror[&2].data(), b"written since");
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// If a record changes several times before the feed looks at it, it comes once: with its newest version, or as deleted. A record
    /// that was written and deleted again may not come at all. The versions of one record never go back, even if processes die or
    /// the store is [repaired](Self::repair). Changes of one region come in the order of their versions, deletions first. Changes of
    /// several regions, and so the parts of a [batch](Self::batch), come in any order. A damaged record is told when it is written
    /// anew, or when a repair gives it up.
    ///
    /// If a process was killed or stopped before it could wake the feed, its change comes within about a second. The feed does not
    /// wait for a stopped process; only the change that this process is making comes later.
    ///
    /// The feed keeps the id and the version of every record, some 40 bytes each: without them it could not tell deletions. Each
    /// wake-up costs a pass over the index of the regions that changed, and a look at the header of each of their records.
    /// [`watch`](Self::watch), for one record, has none of these costs.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]: a watcher sets a mark in the file; [`Error::Forked`].
    pub fn changes(&self) -> Result<Changes<'_>> {
        self.changes_of(Address::Id)
    }

    /// The same, of the records that are found by `address`.
    pub(super) fn changes_of(&self, address: Address) -> Result<Changes<'_>> {
        self.handle.check_writable()?;
        Ok(Changes {
            store: self,
            address,
            regions: (0..self.handle.arena.geo.regions).map(|_| Followed::default()).collect(),
            turn: 0,
            ready: VecDeque::new(),
            looked: Instant::now(),
            has_caught_up: false,
            is_forked: false,
        })
    }
}

impl Changes<'_> {
    /// The next change, or `None` if none comes within the time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{Change, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut changes = store.changes()?;
    /// assert_eq!(changes.next_timeout(Duration::ZERO)?, Some(Change::CaughtUp));
    /// store.put(1, b"one")?;
    /// assert!(matches!(changes.next_timeout(Duration::from_secs(9))?, Some(Change::Written { id: 1, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`], and the errors of healing a region. The feed goes on after an error: it looks again at the records that it
    /// could not read. Only [`Error::Forked`] is final: every later call gives it too.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Change>> {
        self.wait(Some(timeout))
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<Change>> {
        let store = self.store;
        store.handle.check()?;
        if let Some(change) = self.ready.pop_front() {
            return change.map(Some);
        }
        wait_in_store(store, timeout, || self.look().transpose())
    }

    /// The next change, if there is one: compares regions until there is a change to tell.
    fn look(&mut self) -> Option<Result<Change>> {
        if let Err(error) = self.store.handle.check() {
            return Some(Err(error));
        }
        let by_clock = self.looked.elapsed() >= LOOK_EVERY;
        if by_clock {
            self.looked = Instant::now();
            if let Err(error) = heal_all(self.store) {
                self.ready.push_back(Err(error));
            }
        }
        let count = self.regions.len();
        for n in 0..count {
            let region = (self.turn + n) % count;
            let now = RegionState::of(self.store, region as u32);
            let followed = &mut self.regions[region];
            let is_due = match &followed.last {
                None => !followed.is_open || by_clock,
                Some(last) => now.is_beyond(last) || by_clock && (followed.is_open || now.is_held),
            };
            if !is_due {
                continue;
            }
            match self.compare(region as u32, now) {
                Ok(()) => {}
                Err(error) => {
                    self.regions[region].is_open = true;
                    self.ready.push_back(Err(error));
                }
            }
            if !self.ready.is_empty() && !by_clock {
                self.turn = (region + 1) % count;
                break;
            }
        }
        if self.ready.is_empty() && !self.has_caught_up && self.regions.iter().all(|r| r.last.is_some()) {
            self.has_caught_up = true;
            return Some(Ok(Change::CaughtUp));
        }
        self.ready.pop_front()
    }

    /// Steps 1 and 2.
    fn compare(&mut self, region: u32, progress: RegionState) -> Result<()> {
        let (store, address) = (self.store, self.address);
        let Some(Followed { last, is_open, known }) = self.regions.get_mut(region as usize) else {
            return Ok(());
        };
        *is_open = true;
        let Some(now) = index_of(store, region)? else { return Ok(()) };
        *last = Some(last.as_ref().map_or(progress, |last| progress.after(last)));
        *is_open = false;
        let is_there = |id: &u64| now.binary_search_by_key(id, |(id, _)| *id).is_ok();
        let gone = known.keys().filter(|id| !is_there(id)).copied();
        let is_known = |id: &u64, seq: &u64| known.get(id).is_some_and(|(known, _)| known == seq);
        let written = now.iter().filter(|(id, seq)| !is_known(id, seq)).map(|(id, _)| *id);
        let changed: Vec<u64> = gone.chain(written).collect();
        let mut told = Vec::new();
        let mut data = Vec::new();
        let mut outcome = Ok(());
        for id in changed {
            match look_at(store, region, id, &mut data) {
                Ok(Now::Is(header)) => {
                    let is_told = header.address() == address;
                    let before = known.insert(id, (header.seq(), is_told));
                    if is_told && before != Some((header.seq(), true)) {
                        told.push((Some(Version(header.version())), id));
                    } else if !is_told && before.is_some_and(|(_, was_told)| was_told) {
                        told.push((None, id));
                    }
                }
                Ok(Now::Gone) => {
                    if known.remove(&id).is_some_and(|(_, was_told)| was_told) {
                        told.push((None, id));
                    }
                }
                Ok(Now::Damaged) => {}
                Ok(Now::Unknown) => *is_open = true,
                Err(error) => {
                    *is_open = true;
                    outcome = Err(error);
                    break;
                }
            }
        }
        told.sort_unstable();
        self.ready.extend(told.into_iter().map(|(version, id)| {
            Ok(version.map_or(Change::Deleted { id }, |version| Change::Written { id, version }))
        }));
        outcome
    }
}

impl Iterator for Changes<'_> {
    type Item = Result<Change>;

    /// Waits for the next change, as long as it takes. Only the error [`Error::Forked`] ends the iterator.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_forked {
            return None;
        }
        let change = self.wait(None).transpose();
        self.is_forked = matches!(change, Some(Err(Error::Forked { .. })));
        change
    }
}

/// Whether a living process holds the lock of a region.
fn is_held_by_the_living(store: &Store, region: u32) -> Result<bool> {
    let arena = &store.handle.arena;
    Ok(seat::living_owner(arena, arena.head(region).lock().load(Ordering::SeqCst))?.is_some())
}

/// All records of a region now, each id with its `seq`, in the order of ids. `None`: the owner of the region is in the middle
/// of moving its index.
fn index_of(store: &Store, region: u32) -> Result<Option<Vec<(u64, u64)>>> {
    let handle = &store.handle;
    let found = match gather_beside_owner(handle, region) {
        Some(found) => Some(found),
        None if is_held_by_the_living(store, region)? => None,
        None => Some(gather(handle, region)?),
    };
    // The id in a damaged slot may be any.
    let geo = &handle.arena.geo;
    Ok(found.map(|mut found| {
        found.retain(|&(id, _)| geo.region_of(geo.hash(id)) == region);
        found
    }))
}

/// A record as it is now, its checksum included.
fn look_at(store: &Store, region: u32, id: u64, data: &mut Vec<u8>) -> Result<Now> {
    let handle = &store.handle;
    let hash = handle.arena.geo.hash(id);
    let now = look_again(|_| {
        Ok(match look(&handle.arena, hash, id, handle.verify_reads, Some(data)) {
            Look::Hit(header, _) => Looked::Done(Now::Is(header)),
            Look::Miss => Looked::Done(Now::Gone),
            Look::Damaged { .. } => Looked::Done(Now::Damaged),
            Look::Moved => Looked::Moved,
            Look::Broken(_) => Looked::Stuck,
        })
    })?;
    if let Some(now) = now {
        return Ok(now);
    }
    if is_held_by_the_living(store, region)? {
        // The answer of the slots, if they give one.
        return Ok(match look_at_every_slot(&handle.arena, hash, id, Some(data))? {
            Look::Hit(header, _) => Now::Is(header),
            Look::Miss => Now::Gone,
            Look::Damaged { .. } => Now::Damaged,
            Look::Moved | Look::Broken(_) => Now::Unknown,
        });
    }
    match store.read_either(id, Some(data)) {
        Ok(Some((header, _))) => Ok(Now::Is(header)),
        Ok(None) => Ok(Now::Gone),
        Err(Error::Corrupt { .. }) => Ok(Now::Damaged),
        Err(error) => Err(error),
    }
}
