//! Waiting for changes, across processes, without polling. The protocol is in `region::watch`.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::format::control;
use crate::format::region::word;
use crate::protocol::lock;
use crate::protocol::slot::{Seen, read_any};
use crate::record::Version;
use crate::region::watch::{REGION, STORE};
use crate::store::Store;
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::futex;

/// A sleeper looks this often whether a writer died before it could wake anybody.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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

/// A blocking iterator of changes: see [`WatchAll::changes`].
#[derive(Debug)]
pub struct Changes<'a> {
    watch: WatchAll<'a>,
    ready: VecDeque<(u64, Version)>,
    failed: bool,
}

impl Store {
    /// Watches a record, which may be absent, from now on.
    ///
    /// # Errors
    /// [`Error::ReadOnly`](crate::Error::ReadOnly): a sleeper has to leave a mark in the file; as
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
/// which writers see that somebody sleeps; `heal` tells what dead writers could not.
fn sleep_until<T>(
    timeout: Option<Duration>,
    changes: &AtomicU64,
    arm: impl Fn(),
    mut look: impl FnMut() -> Result<Option<T>>,
    heal: impl Fn() -> Result<()>,
) -> Result<Option<T>> {
    let started = Instant::now();
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
        if changes.load(Ordering::SeqCst) == count {
            heal()?;
        }
    }
}

impl Watch<'_> {
    /// Waits until the record has another version than when it was last looked at; `None`: as long as
    /// it takes.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Event> {
        let (handle, number) = (&self.store.handle, self.store.region_of(self.id));
        let head = handle.arena.head(number);
        let last = self.last;
        let changed = sleep_until(
            timeout,
            &head[word::CHANGES],
            || _ = head[word::WATCHED].fetch_or(REGION, Ordering::SeqCst),
            || Ok(Some(self.store.version(self.id)?).filter(|now| *now != last)),
            || handle.heal(number),
        )?;
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
    /// [`Error::Forked`](crate::Error::Forked), and what healing a region gives.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        Ok(!self.wait_for(timeout)?.is_empty())
    }

    /// The regions that changed, each with the `seq`s that are new.
    fn wait_for(&mut self, timeout: Option<Duration>) -> Result<Vec<(u32, Range<u64>)>> {
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
                let cut = now.cut.max(last.cut);
                beyond.push((region, last.cut..cut));
                *last = Progress { cut, live: now.live };
            }
        }
        Ok(beyond)
    }

    /// The changes one by one, as they come, in the order of their versions within a region. A record
    /// that changes several times before it is looked at comes once, with its newest version; a
    /// deletion is not among them ([`Store::watch`] tells it). The iterator waits and has no end but an
    /// error. Each wake-up costs a pass over the slots of the regions that changed.
    #[must_use]
    pub fn changes(self) -> Changes<'a> {
        Changes { watch: self, ready: VecDeque::new(), failed: false }
    }

    /// The records of a region whose versions are among `seqs`. One that was overwritten since is told
    /// the next time.
    fn written(&self, region: u32, seqs: &Range<u64>) -> Result<Vec<(u64, Version)>> {
        let arena = &self.store.handle.arena;
        let mut found = Vec::new();
        let mut data = Vec::new();
        for extent in arena.data_extents(region)? {
            for slot in arena.slots_of(extent) {
                let Some(words) = arena.slot(slot) else { continue };
                if !seqs.contains(&words[0].load(Ordering::Relaxed)) {
                    continue;
                }
                if let Seen::Whole(header) = read_any(words, arena.geo.record_size as usize, true, &mut data)
                {
                    let version = Version(header.version());
                    if seqs.contains(&header.seq) && self.store.version(header.id)? == Some(version) {
                        found.push((header.id, version));
                    }
                }
            }
        }
        found.sort_unstable_by_key(|&(_, version)| version);
        Ok(found)
    }
}

impl Changes<'_> {
    fn gather(&mut self) -> Result<()> {
        while self.ready.is_empty() {
            for (region, seqs) in self.watch.wait_for(None)? {
                self.ready.extend(self.watch.written(region, &seqs)?);
            }
        }
        Ok(())
    }
}

impl Iterator for Changes<'_> {
    type Item = Result<(u64, Version)>;

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
