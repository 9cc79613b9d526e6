//! Waiting for changes, across processes, without polling. The protocol is in `region::watch`.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::format::control;
use crate::format::region::word;
use crate::protocol::lock;
use crate::record::Version;
use crate::region::watch::{REGION, STORE};
use crate::store::Store;
use crate::store::iter::gather;
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::futex;

/// A sleeper looks this often whether a writer died, or was stopped, before it could wake anybody; also while others wake it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What has happened to a watched record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was written, and now has this version. Versions in between may have been passed over.
    Written(Version),
    /// It was deleted.
    Deleted,
    /// Nothing, within the time.
    TimedOut,
}

/// Waits for changes of one record: see [`Store::watch`].
#[derive(Debug)]
pub struct Watch<'a> {
    store: &'a Store,
    id: u64,
    last: Option<Version>,
}

/// Waits for changes of any record: see [`Store::watch_all`].
#[derive(Debug)]
pub struct WatchAll<'a> {
    store: &'a Store,
    last: Vec<Progress>,
}

/// What has happened to a record: see [`WatchAll::changes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The record's id.
    pub id: u64,
    /// [`Event::Written`] or [`Event::Deleted`].
    pub event: Event,
}

/// A blocking iterator of changes: see [`WatchAll::changes`].
#[derive(Debug)]
pub struct Changes<'a> {
    watch: WatchAll<'a>,
    /// Per region: the `seq` of each record, as it was last told or was there at first.
    known: Vec<HashMap<u64, u64>>,
    ready: VecDeque<Change>,
    error: Option<Error>,
    failed: bool,
}

impl Store {
    /// Watches a record, which may be absent, from now on.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]: a sleeper has to leave a mark in the file; as
    /// [`get`](Self::get).
    pub fn watch(&self, id: u64) -> Result<Watch<'_>> {
        self.handle.check_writable()?;
        Ok(Watch { store: self, id, last: self.version(id)? })
    }

    /// Watches all records from now on.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_all(&self) -> Result<WatchAll<'_>> {
        self.handle.check_writable()?;
        Ok(WatchAll { store: self, last: WatchAll::now(self) })
    }
}

/// Sleeps on `changes` until `look` gives something, or the time is over. `arm` leaves the mark by
/// which writers see that somebody sleeps; `heal` tells what dead writers could not, and is called by the clock, since a busy
/// store wakes a sleeper all the time.
fn sleep_until<T>(
    timeout: Option<Duration>,
    changes: &AtomicU64,
    arm: impl Fn(),
    mut look: impl FnMut() -> Result<Option<T>>,
    heal: impl Fn() -> Result<()>,
) -> Result<Option<T>> {
    let started = Instant::now();
    let mut healed = started;
    loop {
        let count = changes.load(Ordering::SeqCst);
        arm();
        fence(Ordering::SeqCst); // The look comes after the mark.
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        let left = match timeout {
            None => LOOK_EVERY,
            Some(timeout) => match timeout.checked_sub(started.elapsed()) {
                Some(left) if !left.is_zero() => left.min(LOOK_EVERY),
                _ => return Ok(None),
            },
        };
        futex::wait(changes, count as u32, left);
        if healed.elapsed() >= LOOK_EVERY {
            heal()?;
            healed = Instant::now();
        }
    }
}

/// Sleeps until `look` gives something, or the time is over. Whatever becomes visible in the region wakes it.
pub(super) fn wait_in_region<T>(
    store: &Store,
    region: u32,
    timeout: Option<Duration>,
    look: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let head = store.handle.arena.head(region);
    let arm = || _ = head[word::WATCHED].fetch_or(REGION, Ordering::SeqCst);
    sleep_until(timeout, &head[word::CHANGES], arm, look, || store.handle.heal(region))
}

impl Watch<'_> {
    /// Waits until the record has another version than when it was last looked at; `None`: as long as
    /// it takes.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Event> {
        let (store, id, last) = (self.store, self.id, self.last);
        let changed = wait_in_region(store, store.region_of(id), timeout, || {
            Ok(Some(store.version(id)?).filter(|now| *now != last))
        })?;
        Ok(match changed {
            None => Event::TimedOut,
            Some(now) => {
                self.last = now;
                now.map_or(Event::Deleted, Event::Written)
            }
        })
    }

    /// The version that was there when the record was last looked at.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.last
    }
}

/// How far a region has come.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// All versions before this `seq` are visible.
    cut: u64,
    /// Its count of records, as it is stored.
    live: u64,
}

impl Progress {
    fn of(store: &Store, region: u32) -> Self {
        let head = store.handle.arena.head(region);
        let next = head[word::NEXT_SEQ].load(Ordering::SeqCst);
        let live = head[word::LIVE].load(Ordering::SeqCst);
        // While the lock is held, the last version may not be visible yet.
        let free = lock::is_free(&head[word::LOCK]);
        Self { cut: if free { next } else { next.wrapping_sub(1) }, live }
    }

    fn is_beyond(&self, earlier: &Self) -> bool {
        self.cut > earlier.cut || self.live != earlier.live
    }
}

impl<'a> WatchAll<'a> {
    fn now(store: &Store) -> Vec<Progress> {
        (0..store.handle.arena.geo.regions).map(|region| Progress::of(store, region)).collect()
    }

    /// Waits until anything was written or deleted since it was last looked; whether it was.
    ///
    /// # Errors
    /// [`Error::Forked`], and what healing a region gives.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        Ok(!self.wait_for(timeout)?.is_empty())
    }

    /// The regions that changed.
    fn wait_for(&mut self, timeout: Option<Duration>) -> Result<Vec<u32>> {
        let store = self.store;
        let handle = &store.handle;
        let regions = 0..handle.arena.geo.regions;
        let arm = || {
            for region in regions.clone() {
                handle.arena.head(region)[word::WATCHED].fetch_or(STORE, Ordering::SeqCst);
            }
        };
        let last = &self.last;
        let look = || {
            handle.check()?;
            let now = Self::now(store);
            Ok(Some(now).filter(|now| now.iter().zip(last).any(|(now, last)| now.is_beyond(last))))
        };
        let heal = || regions.clone().try_for_each(|region| handle.heal(region));
        let changed = sleep_until(timeout, handle.arena.word(control::CHANGES), arm, look, heal)?;
        let mut beyond = Vec::new();
        for ((region, last), now) in (0..).zip(&mut self.last).zip(changed.unwrap_or_default()) {
            if now.is_beyond(last) {
                beyond.push(region);
                *last = Progress { cut: now.cut.max(last.cut), live: now.live };
            }
        }
        Ok(beyond)
    }

    /// The changes one by one, as they come: of each region that changed, first the records that are gone, then
    /// those that were written, in the order of their versions. A record that changes several times before it
    /// is looked at comes once, as it is then: with its newest version, or as deleted; one that was written and
    /// deleted again need not come. Deletions are told from this call on, writes since the last
    /// [`wait`](Self::wait). The iterator waits, and has no end but an error.
    ///
    /// It keeps the id and the version of every record, some 40 bytes each, for nothing else would tell what is
    /// gone; this call reads them, in O(records). Each wake-up costs a pass over the index of the regions that
    /// changed, and a look at the header of each of their records. [`Store::watch`], for one record, costs
    /// nothing of this.
    #[must_use]
    pub fn changes(self) -> Changes<'a> {
        let (known, ready) = (Vec::new(), VecDeque::new());
        let mut changes = Changes { watch: self, known, ready, error: None, failed: false };
        changes.error = changes.begin().err();
        changes
    }
}

impl Changes<'_> {
    /// Notes what is there; what was written since the last wait is told at once.
    fn begin(&mut self) -> Result<()> {
        let store = self.watch.store;
        store.handle.check()?;
        for (region, last) in (0..).zip(&self.watch.last) {
            let mut there: HashMap<u64, u64> = gather(&store.handle, region)?.into_iter().collect();
            // What a damaged slot says is no record. What was written since is told, whatever it is by then.
            there.retain(|id, _| matches!(store.read(*id, None), Ok(Some(_))));
            there.values_mut().filter(|seq| **seq >= last.cut).for_each(|seq| *seq = 0);
            self.known.push(there);
        }
        (0..store.handle.arena.geo.regions).try_for_each(|region| self.compare(region))
    }

    fn gather(&mut self) -> Result<()> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        while self.ready.is_empty() {
            for region in self.watch.wait_for(None)? {
                self.compare(region)?;
            }
        }
        Ok(())
    }

    /// Compares the records of a region with what is known of them. What happens to one meanwhile is told now,
    /// or the next time.
    fn compare(&mut self, region: u32) -> Result<()> {
        let Some(known) = self.known.get_mut(region as usize) else { return Ok(()) };
        let store = self.watch.store;
        let now = gather(&store.handle, region)?;
        let is_there = |id: &u64| now.binary_search_by_key(id, |(id, _)| *id).is_ok();
        let gone = known.keys().filter(|id| !is_there(id)).copied();
        let written = now.iter().filter(|(id, seq)| known.get(id) != Some(seq)).map(|(id, _)| *id);
        let changed: Vec<u64> = gone.chain(written).collect();
        let mut told = Vec::new();
        let mut data = Vec::new();
        for id in changed {
            // The record itself has the last word; one that is damaged is told when it is written anew.
            let event = match store.read(id, Some(&mut data)) {
                Ok(Some((header, _))) if known.insert(id, header.seq) == Some(header.seq) => continue,
                Ok(Some((header, _))) => Event::Written(Version(header.version())),
                Ok(None) if known.remove(&id).is_some() => Event::Deleted,
                Ok(None) | Err(Error::Corrupt { .. }) => continue,
                Err(error) => return Err(error),
            };
            told.push(Change { id, event });
        }
        told.sort_by_key(|change| match change.event {
            Event::Written(version) => Some(version),
            _ => None,
        });
        self.ready.extend(told);
        Ok(())
    }
}

impl Iterator for Changes<'_> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if let Err(error) = self.gather() {
            self.failed = true;
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}
