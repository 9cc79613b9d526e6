//! Waiting for changes, across processes, without polling. The protocol is in `region::watch`.

use std::time::{Duration, Instant};

#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::format::board::Board;
use crate::format::control::Mark;
use crate::format::region::Intent;
use crate::protocol::lock;
use crate::record::Version;
use crate::recovery::recover::leave_clean;
use crate::region::watch::{BELLS, REGION, STORE};
use crate::store::Store;
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::futex;

/// A sleeper looks this often whether a writer died, or was stopped, before it could wake watchers; even while others wake it.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The change of a watched record: see [`Watch::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was written, and now has this version. Earlier versions may have been passed over.
    Written(Version),
    /// It was deleted.
    Deleted,
    /// No change came within the time.
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
    /// For each region: its progress when it was last told, and its progress when it was last told by the clock.
    last: Vec<(RegionState, Option<RegionState>)>,
    looked: Instant,
}

/// Waiting for changes.
impl Store {
    /// Watches a record, which may be absent, from now on.
    ///
    /// ```
    /// # use recstore::{Event, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut watch = store.watch(1)?;
    /// store.put(1, b"one")?; // by any process
    /// assert!(matches!(watch.wait(None)?, Event::Written(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ReadOnly`]: a watcher sets a mark in the file; as [`get`](Self::get).
    pub fn watch(&self, id: u64) -> Result<Watch<'_>> {
        self.handle.check_writable()?;
        Ok(Watch { store: self, id, last: self.version(id)? })
    }

    /// Watches all records from now on: tells that some record has changed. [`changes`](Self::changes) tells which.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut watch = store.watch_all()?;
    /// store.put(1, b"one")?; // by any process
    /// assert!(watch.wait(None)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_all(&self) -> Result<WatchAll<'_>> {
        self.handle.check_writable()?;
        let regions = 0..self.handle.arena.geo.regions;
        let last = regions.map(|region| (RegionState::of(self, region), None)).collect();
        Ok(WatchAll { store: self, last, looked: Instant::now() })
    }
}

/// Sleeps until `look` gives a result, or the time is over. `arm` sets the mark by which writers see that a watcher sleeps, and returns
/// the word to sleep on with the count that it has. `heal` heals the regions of dead writers, which could not wake it. It is called by the clock: a busy store wakes a
/// sleeper all the time.
fn sleep_until<'a, T>(
    timeout: Option<Duration>,
    arm: impl Fn() -> (&'a AtomicU64, u32),
    mut look: impl FnMut() -> Result<Option<T>>,
    heal: impl Fn() -> Result<()>,
) -> Result<Option<T>> {
    let started = Instant::now();
    let mut healed = started;
    loop {
        let (word, count) = arm();
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
        futex::wait(word, count, left);
        if healed.elapsed() >= LOOK_EVERY {
            heal()?;
            healed = Instant::now();
        }
    }
}

/// Sleeps until `look` gives a result, or the time is over. Every change of the record that becomes visible wakes it. If the store has
/// no bells, every change in the record's region does.
pub(super) fn wait_for_record<T>(
    store: &Store,
    id: u64,
    timeout: Option<Duration>,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    store.handle.check()?; // A forked child has no mapping to sleep on.
    if let Some(found) = look()? {
        return Ok(Some(found));
    }
    if timeout == Some(Duration::ZERO) {
        return Ok(None);
    }
    let arena = &store.handle.arena;
    make_board(store, Board::Bells);
    let hash = arena.geo.hash(id);
    let region = arena.geo.region_of(hash);
    let head = arena.head(region);
    let arm = || match arena.bells().filter(|_| is_in_use(store)) {
        Some(bells) => {
            let count = bells.arm(hash);
            head.watched().fetch_or(BELLS, Ordering::SeqCst);
            (bells.of_record(hash), count)
        }
        None => {
            let count = head.changes().load(Ordering::SeqCst);
            head.watched().fetch_or(REGION, Ordering::SeqCst);
            (head.changes(), count as u32)
        }
    };
    sleep_until(timeout, arm, look, || store.handle.heal(region))
}

/// Makes a board, if the store has none. Watches and feeds work without: nothing is wrong if there is no room, or if another process
/// keeps the growth lock.
pub(super) fn make_board(store: &Store, board: Board) {
    if is_in_use(store) {
        let _ = store.handle.arena.ensure_board(board);
    }
}

/// Whether the store is noted as in use, from now on if not before: a clean one is not written to, and may lack blocks.
fn is_in_use(store: &Store) -> bool {
    let arena = &store.handle.arena;
    arena.control().mark().load(Ordering::SeqCst) == Some(Mark::InUse)
        || store.handle.is_writable() && leave_clean(arena).is_ok()
}

impl<'a> Watch<'a> {
    /// A watch whose last look found this version.
    pub(super) fn since(store: &'a Store, id: u64, last: Option<Version>) -> Self {
        Self { store, id, last }
    }
}

impl Watch<'_> {
    /// Waits until the record has another version than at the last look. `None`: as long as it takes.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{Event, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut watch = store.watch(1)?;
    /// assert_eq!(watch.wait(Some(Duration::ZERO))?, Event::TimedOut);
    /// let version = store.put(1, b"one")?;
    /// assert_eq!(watch.wait(None)?, Event::Written(version));
    /// store.delete(1)?;
    /// assert_eq!(watch.wait(None)?, Event::Deleted);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Event> {
        let (store, id, last) = (self.store, self.id, self.last);
        let changed =
            wait_for_record(store, id, timeout, || Ok(Some(store.version(id)?).filter(|now| *now != last)))?;
        Ok(match changed {
            None => Event::TimedOut,
            Some(now) => {
                self.last = now;
                now.map_or(Event::Deleted, Event::Written)
            }
        })
    }

    /// Waits until `ready` returns a value for the record's bytes (`None`: there is no record). Returns that value, or `None` if the
    /// time is over. `ready` gets the record as it is at first, and then after each change. It runs under no lock.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut watch = store.watch(1)?;
    /// store.put(1, b"done: 42")?; // by any process
    /// let answer = watch.wait_until(Some(Duration::from_secs(9)), |data| {
    ///     data?.strip_prefix(b"done: ").map(<[u8]>::to_vec)
    /// })?;
    /// assert_eq!(answer.as_deref(), Some(&b"42"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn wait_until<T>(
        &mut self,
        timeout: Option<Duration>,
        mut ready: impl FnMut(Option<&[u8]>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Self { store, id, last } = self;
        let (mut data, mut is_seen) = (Vec::new(), false);
        wait_for_record(store, *id, timeout, || {
            if is_seen && store.version(*id)? == *last {
                return Ok(None);
            }
            *last = store.get_into(*id, &mut data)?;
            is_seen = true;
            Ok(ready(last.map(|_| &data[..])))
        })
    }

    /// The record's version at the last look.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let version = store.put(1, b"one")?;
    /// assert_eq!(store.watch(1)?.version(), Some(version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.last
    }
}

/// Sleeps until `look` gives a result, or the time is over. Every change that becomes visible in the store wakes it.
pub(super) fn wait_in_store<T>(
    store: &Store,
    timeout: Option<Duration>,
    look: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    store.handle.check()?;
    let arena = &store.handle.arena;
    let changes = arena.control().changes();
    let arm = || {
        let count = changes.load(Ordering::SeqCst);
        for region in 0..arena.geo.regions {
            arena.head(region).watched().fetch_or(STORE, Ordering::SeqCst);
        }
        (changes, count as u32)
    };
    sleep_until(timeout, arm, look, || Ok(()))
}

/// Heals the regions of dead owners. Tries all regions, and returns the first error.
pub(super) fn heal_all(store: &Store) -> Result<()> {
    let mut healed = Ok(());
    for region in 0..store.handle.arena.geo.regions {
        let this = store.handle.heal(region);
        healed = healed.and(this);
    }
    healed
}

/// The progress of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegionState {
    /// All versions before this `seq` are visible.
    cut: u64,
    /// Its count of records, if it is undamaged.
    live: Option<u64>,
    /// Its shape: a rebuild changes it, and can change the rest without a number or a count.
    shape: u64,
    /// The lock is held: a change that its owner has made visible may not be counted yet.
    pub(super) is_held: bool,
}

impl RegionState {
    pub(super) fn of(store: &Store, region: u32) -> Self {
        let head = store.handle.arena.head(region);
        // If a bit of one of them was flipped, no version between the two is taken to be visible.
        let next = head.said_seqs().into_iter().min().unwrap_or(0);
        let live = head.live().load(Ordering::SeqCst);
        let shape = head.shape().bits(Ordering::SeqCst);
        // While the lock is held, the last version may not be visible yet; of a batch, its members.
        let is_held = !lock::is_free(head.lock());
        let is_noted = head.intent().load(Ordering::SeqCst).is_some_and(|n| n != Intent::Unnoted.with(0));
        let members =
            if is_noted { 1 } else { head.members().load(Ordering::SeqCst).unwrap_or(u64::MAX).max(1) };
        let cut = if is_held { next.saturating_sub(members) } else { next };
        Self { cut, live, shape, is_held }
    }

    /// All versions before this `seq` are visible.
    pub(super) fn cut(&self) -> u64 {
        self.cut
    }

    /// Whether a change may have become visible since.
    pub(super) fn is_beyond(&self, earlier: &Self) -> bool {
        self.cut > earlier.cut || self.live != earlier.live || self.shape != earlier.shape
    }

    /// This progress, which is later, to compare with from now on.
    pub(super) fn after(self, earlier: &Self) -> Self {
        let cut = if self.shape == earlier.shape { self.cut.max(earlier.cut) } else { self.cut };
        Self { cut, ..self }
    }
}

impl WatchAll<'_> {
    /// Waits until a record was written or deleted since the last look. Returns whether one was. If the writer was stopped or died
    /// before it could wake the watcher, the change is told half a second late, and may be told a second time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut watch = store.watch_all()?;
    /// store.put(1, b"one")?;
    /// assert!(watch.wait(None)?);
    /// assert!(!watch.wait(Some(Duration::ZERO))?); // nothing since
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Forked`], and the errors of healing a region.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let Self { store, last, looked } = self;
        let store = *store;
        let changed = wait_in_store(store, timeout, || {
            store.handle.check()?;
            let by_clock = looked.elapsed() >= LOOK_EVERY;
            if by_clock {
                *looked = Instant::now();
                heal_all(store)?;
            }
            let mut changed = false;
            for (region, (last, told)) in (0..).zip(last.iter_mut()) {
                let now = RegionState::of(store, region);
                if now.is_beyond(last) {
                    *last = now.after(last);
                    changed = true;
                } else if by_clock && now.is_held && *told != Some(now) {
                    *told = Some(now);
                    changed = true;
                }
            }
            Ok(changed.then_some(()))
        })?;
        Ok(changed.is_some())
    }
}
