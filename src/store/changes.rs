//! A feed: all records of a store, and then its changes one by one. A program keeps a mirror of the store with it.
//!
//! For each region the feed knows the `seq` of each record as it was last told. At first it knows none.
//!
//! 1. The feed follows the trail of the region, on which writers tell what they changed (see `protocol::trail` and `region::watch`). It
//!    takes the entries behind its position, and tells the last state of each record in them. An entry with a `seq` that is not above the
//!    known one is no news.
//! 2. While the feed has no position in the trail, it *compares* the region: at first, when it is behind, and as long as the store has no
//!    trails. It notes the region's progress, gets a position, and passes over the region's index. Changed are: ids that it does not know
//!    with this `seq`, and known ids that the index does not have. The feed reads each changed record anew, tells its state, and knows it
//!    with the `seq` that was read. A change that becomes visible after the progress was noted is beyond it, and behind the position.
//! 3. By the clock, even in a busy store, the feed heals the regions of dead owners. It also compares a region if its lock has been held
//!    since the last look by the clock, or if a record in it could not be told: an owner that was stopped or died after it made a change
//!    visible has not told it. (The healer of a dead owner's region lets the trail jump.)
//! 4. When all regions have been compared once, the feed has caught up.
//! 5. A feed from now on has a position from the beginning, and knows no records. It notes the `seq` from which on all versions are told. A
//!    comparison tells the versions from there on. It can't tell deletions, so it says that the feed was behind. What a comparison told is
//!    known until the feed has taken all entries that there were at its end.
//!
//! The feed does not wait for a lock of a living process. If the index can't be read beside a stopped owner, the feed goes on with
//! the other regions. Under load it looks at the trails a few thousand times a second, and sleeps between: a writer that wakes a feed
//! for each change would be slow.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::file::seat;
use crate::format::board::Board;
use crate::format::hash::hash;
use crate::format::slot::{Address, Header, PRESENT};
use crate::protocol::lock;
use crate::protocol::trail::TrailEntry;
use crate::record::Version;
use crate::region::read::{Look, look, look_at_every_slot};
use crate::region::watch::{Changed, follow};
use crate::store::Store;
use crate::store::iter::{gather, gather_beside_owner};
use crate::store::read::{Looked, look_again};
use crate::store::watch::{LOOK_EVERY, RegionState, heal_all, make_board, wait_in_store};
use crate::sys::atomic::Ordering;
use crate::sys::deadline::Deadline;

/// A feed that found at least `BUSY` entries on the trails looks at them again after this time, and not before.
const PACE: Duration = Duration::from_micros(250);
const BUSY: usize = 8;
/// A feed whose changes are not yet taken looks at the trails after this time all the same, so that it is not left behind,
const KEEP_UP_EVERY: Duration = Duration::from_millis(1);
/// at each so-manieth change that is taken, and at each so-manieth record that is compared.
const KEEP_UP_STEP: usize = 64;
/// Entries that a feed keeps. If its user takes changes more slowly than writers make them, it falls behind.
const WAITING_MAX: usize = 1 << 17;
/// The time to wait for the lock of a region, to know that no writer is in it.
const PATIENCE: Duration = Duration::from_millis(1);

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
    /// All records that were there when the feed began have been told. Comes once, and not from [`Store::changes_from_now`].
    CaughtUp,
    /// Only from [`Store::changes_from_now`]: deletions may have been passed over. Everything that was written since the feed began is
    /// told all the same. A program that keeps a copy looks for records that are not in the store any more.
    Behind,
}

/// A blocking iterator of changes: see [`Store::changes`].
#[derive(Debug)]
pub struct Changes<'a> {
    store: &'a Store,
    /// Whether the told records are found by ids or by keys.
    address: Address,
    /// The feed is one from now on.
    from_now: bool,
    regions: Vec<Followed>,
    /// For each region.
    taken: Vec<Taken>,
    /// The place of the trails at the last look.
    trails: Option<u64>,
    /// The region that is looked at first: each region gets its turn, even if others are busy.
    turn: usize,
    ready: VecDeque<Result<Change>>,
    looked: Instant,
    /// When the feed last looked at the trails, and whether it found many entries.
    took: Instant,
    is_busy: bool,
    /// Changes that were given away.
    given: usize,
    has_caught_up: bool,
    is_forked: bool,
}

/// The state of a region, as the feed knows it.
#[derive(Debug)]
struct Followed {
    /// Its progress before it was last compared; `None`: it never was.
    last: Option<RegionState>,
    /// Not all changes could be told then: it is compared again by the clock.
    is_open: bool,
    /// Its progress at the last look by the clock, if its lock was held then.
    held: Option<RegionState>,
    /// The records as they were last told.
    known: HashMap<u64, AsTold, IdHash>,
    /// Of a feed from now on: all versions before this `seq` are told, or were there when it began.
    noted: u64,
    /// Of a feed from now on: the records are known for entries before this one.
    known_before: u64,
}

/// The part of a trail that a feed has taken.
#[derive(Debug, Default)]
struct Taken {
    /// The next entry; `None`: the region is to be compared.
    position: Option<u64>,
    /// Entries that are not told yet.
    waiting: Vec<TrailEntry>,
}

/// The `seq` of a record as it was last told. Without the bit `PRESENT`: a record of the other kind (by key, or by id), which is not told.
#[derive(Clone, Copy, Debug)]
struct AsTold(u64);

impl AsTold {
    fn new(seq: u64, is_told: bool) -> Self {
        Self(if is_told { seq | PRESENT } else { seq & !PRESENT })
    }

    fn version(self) -> u64 {
        self.0 & !PRESENT
    }

    fn is_told(self) -> bool {
        self.0 & PRESENT != 0
    }
}

/// Hashes ids, with the store's secret.
#[derive(Clone, Copy, Debug)]
struct IdHash(u64);

impl BuildHasher for IdHash {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for IdHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = hash(id, self.0);
    }
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
    /// # Cost
    /// The feed keeps the id and the version of every record, 16 bytes each and the room that a hash map leaves free: without them it could
    /// not tell deletions that it has missed. [`changes_from_now`](Self::changes_from_now) keeps none, and opens at once.
    ///
    /// Writers leave what they changed on a trail of each region: 4,096 changes (fewer if the store has more than some 80 regions, or may
    /// not grow), 24 bytes each, in the file from the first feed on. To follow costs what changed, some 100 ns a change. A feed that is more than these changes behind
    /// in a region, or whose region was rebuilt, passes over all records of the region. [`watch`](Self::watch), for one record, has none of
    /// these costs.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]: a feed sets a mark in the file; [`Error::Forked`].
    pub fn changes(&self) -> Result<Changes<'_>> {
        self.changes_of(Address::Id)
    }

    /// The changes from now on, without the records that are there. It opens at once and keeps no records, however many there are.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{Change, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"was there")?;
    /// let mut changes = store.changes_from_now()?;
    /// let version = store.put(2, b"new")?; // by any process
    /// store.delete(1)?;
    /// let mut told = Vec::new();
    /// while let Some(change) = changes.next_timeout(Duration::from_millis(10))? {
    ///     told.push(change);
    /// }
    /// told.sort_by_key(|change| matches!(change, Change::Deleted { .. }));
    /// assert_eq!(told, [Change::Written { id: 2, version }, Change::Deleted { id: 1 }]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// All rules of [`changes`](Self::changes) hold, but for these:
    ///
    /// * A deletion is told even if the record's last version was not.
    /// * If the feed is so far behind that a region must be compared, or if a region was rebuilt because a process died or was damaged, then
    ///   [`Change::Behind`] comes: the deletions since the last look are not known. All writes are told.
    /// * In a store that has no room for trails (they take at most a sixteenth of [`max_size`](crate::Options::max_size)), each change makes
    ///   the feed compare the region. Then `Behind` comes with each.
    ///
    /// # Errors
    /// As [`changes`](Self::changes), and the errors of healing a region.
    pub fn changes_from_now(&self) -> Result<Changes<'_>> {
        let mut feed = self.changes_of(Address::Id)?;
        (feed.from_now, feed.has_caught_up) = (true, true);
        for region in 0..self.handle.arena.geo.regions {
            let now = RegionState::of(self, region);
            let position = feed.begin(region)?;
            let followed = &mut feed.regions[region as usize];
            (followed.noted, followed.last) = (now.cut(), Some(now));
            followed.is_open = position.is_none() && feed.trails.is_some();
            feed.taken[region as usize].position = position;
        }
        Ok(feed)
    }

    /// The feed of all records that are found by `address`.
    pub(super) fn changes_of(&self, address: Address) -> Result<Changes<'_>> {
        self.handle.check_writable()?;
        let arena = &self.handle.arena;
        make_board(self, Board::Trails);
        let followed = |_| Followed {
            last: None,
            is_open: false,
            held: None,
            known: HashMap::with_hasher(IdHash(!arena.geo.hash_key)),
            noted: 0,
            known_before: 0,
        };
        Ok(Changes {
            store: self,
            address,
            from_now: false,
            regions: (0..arena.geo.regions).map(followed).collect(),
            taken: (0..arena.geo.regions).map(|_| Taken::default()).collect(),
            trails: arena.trails_are_at(),
            turn: 0,
            ready: VecDeque::new(),
            looked: Instant::now(),
            took: Instant::now(),
            is_busy: false,
            given: 0,
            has_caught_up: false,
            is_forked: false,
        })
    }
}

impl Taken {
    /// Takes the entries behind the position. If the trail does not have all of them, there is no position any more.
    fn take(&mut self, store: &Store, region: u32) {
        let Some(position) = self.position.take() else { return };
        let arena = &store.handle.arena;
        let Some(trail) = arena.trail(region) else { return };
        let Some(count) =
            follow(trail, arena.head(region)).filter(|&count| !trail.is_behind(position, count))
        else {
            return;
        };
        if self.waiting.len() + (count - position) as usize > WAITING_MAX {
            return;
        }
        for number in position..count {
            let Some(entry) = trail.read(number) else { return };
            self.waiting.push(entry);
        }
        self.position = Some(count);
    }
}

/// Takes the entries of all regions.
fn take_all(store: &Store, taken: &mut [Taken]) {
    (0..).zip(taken).for_each(|(region, taken)| taken.take(store, region));
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
        self.keep_up();
        if let Some(change) = self.ready.pop_front() {
            return change.map(Some);
        }
        let started = Instant::now();
        if self.is_busy
            && timeout != Some(Duration::ZERO)
            && let Some(rest) = PACE.checked_sub(self.took.elapsed())
        {
            std::thread::sleep(timeout.map_or(rest, |timeout| rest.min(timeout)));
        }
        // Before any mark is set by which the next writer wakes the feed.
        if let Some(change) = self.look() {
            return change.map(Some);
        }
        let left = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        if left == Some(Duration::ZERO) {
            return Ok(None);
        }
        wait_in_store(store, left, || self.look().transpose())
    }

    /// Takes entries while changes wait for the user.
    fn keep_up(&mut self) {
        self.given = self.given.wrapping_add(1);
        if self.given.is_multiple_of(KEEP_UP_STEP)
            && self.took.elapsed() >= KEEP_UP_EVERY
            && !self.ready.is_empty()
        {
            self.took = Instant::now();
            take_all(self.store, &mut self.taken);
        }
    }

    /// The next change, if there is one: takes what the trails tell, and compares regions until there is a change to tell.
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
            if self.trails.is_none() {
                make_board(self.store, Board::Trails);
            }
        }
        let trails = self.store.handle.arena.trails_are_at();
        if trails != self.trails {
            self.trails = trails;
            self.taken.iter_mut().for_each(|taken| taken.position = None);
        }
        let count = self.regions.len();
        self.took = Instant::now();
        take_all(self.store, &mut self.taken);
        self.is_busy = self.taken.iter().map(|taken| taken.waiting.len()).sum::<usize>() >= BUSY;
        (0..count).for_each(|region| self.tell_taken(region));
        for n in 0..count {
            let region = (self.turn + n) % count;
            if !self.is_due(region, by_clock) {
                continue;
            }
            if let Err(error) = self.compare(region as u32) {
                self.regions[region].is_open = true;
                self.ready.push_back(Err(error));
            }
            self.tell_taken(region);
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

    /// Whether a region is to be compared now.
    fn is_due(&mut self, region: usize, by_clock: bool) -> bool {
        let has_position = self.taken[region].position.is_some();
        if has_position && !by_clock {
            return false;
        }
        let now = RegionState::of(self.store, region as u32);
        let Followed { last, is_open, held, .. } = &mut self.regions[region];
        let is_stuck = by_clock && now.is_held && *held == Some(now);
        if by_clock {
            *held = now.is_held.then_some(now);
        }
        if has_position {
            return is_stuck || *is_open;
        }
        match last {
            None => !*is_open || by_clock,
            Some(last) => {
                let is_behind = self.trails.is_some() && !*is_open;
                is_behind || now.is_beyond(last) || by_clock && (*is_open || now.is_held)
            }
        }
    }

    /// Gets a position in the trail of a region, from which on all changes are told. `None`: the store has no trails, or a process that
    /// is in the region did not know of the feed.
    fn begin(&self, region: u32) -> Result<Option<u64>> {
        let handle = &self.store.handle;
        let Some(trail) = handle.arena.trail(region) else { return Ok(None) };
        let head = handle.arena.head(region);
        let Some(position) = follow(trail, head) else { return Ok(None) };
        if lock::is_free(head.lock()) {
            return Ok(Some(position));
        }
        match handle.lock_by(region, Some(&Deadline::after(Some(PATIENCE)))) {
            Ok(mut locked) => {
                locked.will_change(Changed::None);
                Ok(Some(position))
            }
            Err(Error::Busy { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Step 1.
    fn tell_taken(&mut self, region: usize) {
        let Self { regions, taken, ready, address, from_now, .. } = self;
        let (followed, taken) = (&mut regions[region], &mut taken[region]);
        if taken.waiting.is_empty() {
            return;
        }
        let mut told = Vec::new();
        taken.waiting.sort_by_key(|entry| entry.id); // Stable: the entries of an id stay in their order.
        for entries in taken.waiting.chunk_by(|a, b| a.id == b.id) {
            let Some(&TrailEntry { id, seq, is_deleted, is_keyed }) = entries.last() else { continue };
            let version = seq & !PRESENT;
            let is_told = is_keyed == (*address == Address::Key);
            followed.noted = followed.noted.max(seq.saturating_add(1));
            let known = followed.known.get(&id).copied();
            if is_deleted {
                let is_known = known.is_some_and(|known| known.is_told());
                let is_news = known.is_none_or(|known| known.version() <= version);
                if is_news {
                    followed.known.remove(&id);
                    if is_known || *from_now && is_told {
                        told.push((None, id));
                    }
                }
            } else if known.is_none_or(|known| known.version() < version) {
                if !*from_now || known.is_some() {
                    followed.known.insert(id, AsTold::new(seq, is_told));
                }
                if is_told {
                    told.push((Some(Version(version)), id));
                } else if known.is_some_and(|known| known.is_told()) {
                    told.push((None, id));
                }
            }
        }
        taken.waiting.clear();
        if *from_now && taken.position.is_some_and(|position| position >= followed.known_before) {
            followed.known = HashMap::with_hasher(*followed.known.hasher());
        }
        ready_in_order(ready, told);
    }

    /// Step 2.
    fn compare(&mut self, region: u32) -> Result<()> {
        let store = self.store;
        let had_position = self.taken[region as usize].position.is_some();
        let position = if had_position { None } else { self.begin(region)? };
        let progress = RegionState::of(store, region);
        let Self { regions, taken, ready, address, from_now, trails, .. } = self;
        let (address, from_now) = (*address, *from_now);
        let Followed { last, is_open, known, noted, known_before, .. } = &mut regions[region as usize];
        *is_open = true;
        if !had_position {
            taken[region as usize].position = position;
        }
        let Some(now) = index_of(store, region)? else {
            if !had_position {
                taken[region as usize].position = None;
            }
            return Ok(());
        };
        if from_now && !had_position {
            ready.push_back(Ok(Change::Behind));
        }
        *last = Some(last.as_ref().map_or(progress, |last| progress.after(last)));
        // Without a position some other change may be on its way.
        *is_open = trails.is_some() && !had_position && position.is_none();
        let told_before = if from_now { *noted } else { 0 };
        let is_there = |id: &u64| now.binary_search_by_key(id, |(id, _)| *id).is_ok();
        let gone = known.keys().filter(|id| !from_now && !is_there(id)).copied();
        let is_known = |id: &u64, seq: &u64| {
            *seq < told_before || known.get(id).is_some_and(|known| known.version() == seq & !PRESENT)
        };
        let written = now.iter().filter(|(id, seq)| !is_known(id, seq)).map(|(id, _)| *id);
        let changed: Vec<u64> = gone.chain(written).collect();
        let mut told = Vec::new();
        let mut data = Vec::new();
        let mut outcome = Ok(());
        for (n, id) in changed.into_iter().enumerate() {
            if n.is_multiple_of(KEEP_UP_STEP) {
                take_all(store, taken);
            }
            match look_at(store, region, id, &mut data) {
                Ok(Now::Is(header)) => {
                    let is_told = header.address() == address;
                    let before = known.insert(id, AsTold::new(header.seq(), is_told));
                    let was_told = before.is_some_and(AsTold::is_told);
                    if is_told && !(was_told && before.is_some_and(|b| b.version() == header.version())) {
                        told.push((Some(Version(header.version())), id));
                    } else if !is_told && was_told {
                        told.push((None, id));
                    }
                }
                Ok(Now::Gone) => {
                    if known.remove(&id).is_some_and(AsTold::is_told) {
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
        if from_now {
            // What is told now may be in the trail as well, up to here.
            *known_before =
                store.handle.arena.trail(region).and_then(|trail| trail.count()).unwrap_or(u64::MAX);
            if !*is_open {
                *noted = progress.cut().max(*noted);
            }
        }
        ready_in_order(ready, told);
        outcome
    }
}

/// Changes of one region: deletions first, and then in the order of versions.
fn ready_in_order(ready: &mut VecDeque<Result<Change>>, mut told: Vec<(Option<Version>, u64)>) {
    told.sort_unstable();
    ready.extend(told.into_iter().map(|(version, id)| {
        Ok(version.map_or(Change::Deleted { id }, |version| Change::Written { id, version }))
    }));
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
