//! The bridge from the futex of a store to tasks: one thread waits for all of them.
//!
//! 1. A task notes that it waits for a region, and then looks at its record. So it sees a change that came before, and is told of one that
//!    comes later.
//! 2. The thread sleeps as a watch of the whole store does. When it wakes, it tells the tasks of each region that has changed since it
//!    looked last; and all tasks, as often as a sleeping watch looks by the clock.
//! 3. The thread has the handle. It ends when the bridge is dropped, which is when the last watch of a task is. Nobody waits for its end.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::error::Result;
use crate::handle::Handle;
use crate::store::Store;
use crate::store::watch::{LOOK_EVERY, RegionState, heal_all, wait_in_store};
use crate::sys::futex;

/// The bridge of a handle, if it has one.
#[derive(Debug, Default)]
pub(crate) struct BridgeSlot(Mutex<Weak<Bridge>>);

/// A thread that tells tasks of changes, until this is dropped.
pub(super) struct Bridge {
    handle: Arc<Handle>,
    tasks: Arc<Tasks>,
}

/// Between the thread and the tasks.
#[derive(Debug)]
struct Tasks {
    stop: AtomicBool,
    /// For each region.
    changed: Box<[Notify]>,
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("tasks", &self.tasks).finish_non_exhaustive()
    }
}

impl Bridge {
    /// The bridge of a store; starts it if there is none.
    pub(super) fn of(store: &Store) -> Result<Arc<Self>> {
        let mut slot = store.bridge.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bridge) = slot.upgrade() {
            return Ok(bridge);
        }
        let regions = 0..store.handle.arena.geo.regions;
        // Before the first task looks: what it does not see is beyond this.
        let seen: Vec<RegionState> = regions.clone().map(|region| RegionState::of(store, region)).collect();
        let changed = regions.map(|_| Notify::new()).collect();
        let tasks = Arc::new(Tasks { stop: AtomicBool::new(false), changed });
        let (handle, theirs) = (Arc::clone(&store.handle), Arc::clone(&tasks));
        std::thread::Builder::new()
            .name("recstore watch".into())
            .spawn(move || tell(handle, &theirs, seen))
            .map_err(store.handle.arena.io("starting a thread"))?;
        let bridge = Arc::new(Self { handle: Arc::clone(&store.handle), tasks });
        *slot = Arc::downgrade(&bridge);
        Ok(bridge)
    }

    /// Is ready when the region may have changed since it was enabled.
    pub(super) fn told(&self, region: u32) -> Notified<'_> {
        self.tasks.changed[region as usize].notified()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.tasks.stop.store(true, Ordering::SeqCst);
        let arena = &self.handle.arena;
        // A forked child has neither the thread nor the mapping.
        if arena.file.is_surely_ours() {
            let changes = arena.control().changes();
            changes.fetch_add(1, Ordering::SeqCst); // If the thread is about to sleep, it does not.
            futex::wake(changes, i32::MAX as u32);
        }
    }
}

/// The work of the thread.
fn tell(handle: Arc<Handle>, tasks: &Tasks, mut seen: Vec<RegionState>) {
    let store = Store {
        handle,
        opened: Default::default(),
        clock: Default::default(),
        broom: Default::default(),
        bridge: BridgeSlot::default(),
    };
    let mut looked = Instant::now();
    // The look gives no error, and the process is the one that started the thread.
    let _ = wait_in_store(&store, None, || {
        if tasks.stop.load(Ordering::SeqCst) {
            return Ok(Some(()));
        }
        let by_clock = looked.elapsed() >= LOOK_EVERY;
        if by_clock {
            looked = Instant::now();
            // A handle that closes waits for the end of a round, and lets no other one begin.
            let Some(_round) = store.handle.rounds.begin() else { return Ok(Some(())) };
            // Each task looks too, and gives the error of its region.
            let _ = heal_all(&store);
        }
        for (region, seen) in (0..).zip(&mut seen) {
            let now = RegionState::of(&store, region);
            let is_beyond = now.is_beyond(seen);
            if is_beyond {
                *seen = now.after(seen);
            }
            if is_beyond || by_clock {
                tasks.changed[region as usize].notify_waiters();
            }
        }
        Ok(None)
    });
}
