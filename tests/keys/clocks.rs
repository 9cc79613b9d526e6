//! Clocks that the tests of deadlines set, and a store whose values end by them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use recstore::testing::set_clocks;
use recstore::{Options, Space, Store, Ttl};

use crate::common;

pub(crate) const SECOND: u64 = 1000;
pub(crate) const HOUR: u64 = 3600 * SECOND;
pub(crate) const DAY: u64 = 24 * HOUR;
pub(crate) const BEGIN: u64 = 20_000 * DAY;

/// The clocks of the process, for one test at a time. They stand still unless they are set.
pub(crate) struct Clocks {
    pub(crate) boot: u64,
    pub(crate) up: AtomicU64,
    /// The wall clock is this far ahead of what is right; it is right at the boot.
    wrong: i64,
    _alone: MutexGuard<'static, ()>,
}

impl Clocks {
    pub(crate) fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let clocks = Self { boot: 1, up: AtomicU64::new(HOUR), wrong: 0, _alone: alone };
        clocks.set();
        clocks
    }

    pub(crate) fn set(&self) {
        let up = self.up.load(Ordering::SeqCst);
        let wall = (BEGIN + up).saturating_add_signed(self.wrong);
        set_clocks(Some(([self.boot, 9], up, wall)));
    }

    pub(crate) fn pass(&self, ms: u64) {
        self.up.fetch_add(ms, Ordering::SeqCst);
        self.set();
    }

    pub(crate) fn jump(&mut self, by: i64) {
        self.wrong += by;
        self.set();
    }

    /// Another boot, in which the wall clock shows this.
    pub(crate) fn boot(&mut self, wall: u64) {
        self.boot += 1;
        self.up = AtomicU64::new(10 * SECOND);
        self.wrong = wall as i64 - (BEGIN + 10 * SECOND) as i64;
        self.set();
    }
}

impl Drop for Clocks {
    fn drop(&mut self) {
        set_clocks(None);
    }
}

pub(crate) fn small() -> Options {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| recstore::testing::shorten_key_hash(8));
    Options::new().record_size(512).regions(3).slots_per_extent(16)
}

pub(crate) fn new_store() -> (tempfile::TempDir, Store) {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    (dir, store)
}

pub(crate) fn secs(seconds: u64) -> Ttl {
    Ttl::after(Duration::from_secs(seconds))
}

pub(crate) fn get(space: &Space<'_>, key: &str) -> Option<Vec<u8>> {
    space.get(key).unwrap().map(|record| record.into_data())
}

pub(crate) fn end(space: &Space<'_>, key: &str) -> Option<u64> {
    let at = space.expires_at(key).unwrap()?;
    Some(at.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 - BEGIN)
}

pub(crate) fn sweep_all(store: &Store) -> u64 {
    let mut freed = 0;
    loop {
        let swept = store.sweep(7).unwrap();
        freed += swept.freed;
        if swept.is_round_over {
            return freed;
        }
    }
}
