//! The kernel, as far as the protocol asks it: file locks that go with their holder, and the futex.
//!
//! Nobody's time is measured. A sleep has no limit, so that a wake-up which is lost is a deadlock, and loom
//! reports that; but what nobody is told of (a death, a seat that changes hands) ends, as time would, every
//! sleep of one who had judged the owner before.
//!
//! Every call is a critical section of one mutex, as a call of the kernel is one of some lock of its;
//! so what a process did before it died happens before whatever is done by one that the kernel told
//! of the death. That, and no more, orders a dead owner's stores before those of its successor.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use loom::sync::{Condvar, Mutex};

use crate::sys::atomic::{AtomicU64, Ordering};

/// What the kernel knows.
#[derive(Default)]
struct State {
    /// Byte and holder of every lock.
    locks: Vec<(u64, u32)>,
    /// Rises with what sleepers are not told.
    news: u32,
}

/// A handle's open file description.
#[derive(Clone)]
pub(crate) struct Kernel {
    shared: Arc<Shared>,
    handle: u32,
}

thread_local! {
    /// The kernel of the model that runs.
    static RUNNING: RefCell<Weak<Shared>> = const { RefCell::new(Weak::new()) };
}

type Shared = (Mutex<State>, Condvar);

/// Wakes sleepers of a word. A model's sleepers all sleep on the same one.
pub(crate) fn wake(_word: &AtomicU64, count: u32) {
    if let Some(shared) = RUNNING.with_borrow(Weak::upgrade) {
        Kernel { shared, handle: 0 }.futex_wake(count);
    }
}

impl Kernel {
    pub(crate) fn new() -> Self {
        let kernel = Self { shared: Arc::new((Mutex::new(State::default()), Condvar::new())), handle: 0 };
        RUNNING.set(Arc::downgrade(&kernel.shared));
        kernel
    }

    /// The file as another handle has it.
    pub(crate) fn opened_by(&self, handle: u32) -> Self {
        Self { shared: Arc::clone(&self.shared), handle }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.shared.0.lock().unwrap())
    }

    /// The handle's process dies.
    pub(crate) fn die(&self) {
        self.with(|state| state.locks.retain(|lock| lock.1 != self.handle));
        self.time_passes();
    }

    /// Every sleep ends that was begun on what was known before.
    pub(crate) fn time_passes(&self) {
        self.with(|state| state.news += 1);
        self.shared.1.notify_all();
    }

    /// What is known now.
    pub(crate) fn news(&self) -> u32 {
        self.with(|state| state.news)
    }

    /// Sleeps until woken, if the low half of `word` is `expected`. `judged` is what was known when the
    /// owner was judged.
    pub(crate) fn futex_wait(&self, word: &AtomicU64, expected: u32, judged: u32) {
        let (mutex, woken) = &*self.shared;
        let state = mutex.lock().unwrap();
        if state.news == judged && word.load(Ordering::Relaxed) as u32 == expected {
            drop(woken.wait(state));
        }
    }

    /// Wakes one sleeper, or all.
    pub(crate) fn futex_wake(&self, count: u32) {
        let _state = self.shared.0.lock().unwrap();
        if count == 1 { self.shared.1.notify_one() } else { self.shared.1.notify_all() }
    }
}

pub(crate) fn try_lock(file: &Kernel, byte: u64) -> std::io::Result<bool> {
    Ok(file.with(|state| {
        let taken = state.locks.iter().find(|lock| lock.0 == byte).map(|lock| lock.1);
        if taken.is_none() {
            state.locks.push((byte, file.handle));
        }
        taken.is_none_or(|holder| holder == file.handle)
    }))
}

pub(crate) fn unlock(file: &Kernel, byte: u64) -> std::io::Result<()> {
    file.with(|state| state.locks.retain(|&lock| lock != (byte, file.handle)));
    Ok(())
}

pub(crate) fn is_locked_by_other(file: &Kernel, byte: u64) -> std::io::Result<bool> {
    Ok(first_locked_by_other(file, byte, 1)?.is_some())
}

/// No lock of the model is of another kind.
pub(crate) fn foreign_holder(_file: &Kernel, _byte: u64) -> Option<u32> {
    None
}

pub(crate) fn first_locked_by_other(file: &Kernel, byte: u64, bytes: u64) -> std::io::Result<Option<u64>> {
    Ok(file.with(|state| {
        let held = state.locks.iter().filter(|&&(_, holder)| holder != file.handle).map(|&(at, _)| at);
        held.filter(|at| (byte..byte + bytes).contains(at)).min()
    }))
}
