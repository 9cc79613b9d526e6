//! Work that is done at intervals, in a thread of its own.
//!
//! The thread keeps the handle alive only while it works, so the store can be closed beside it. Work that fails is tried again after
//! the interval.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::store::Store;
use crate::sys::fork::Birthplace;

/// A thread that works at intervals until this is dropped.
#[derive(Debug)]
pub(super) struct Periodic {
    shared: Arc<Between>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
    started_in: Birthplace,
}

#[derive(Debug, Default)]
struct Between {
    state: Mutex<LastRound>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LastRound {
    stop: bool,
    /// The error of the last round, until it is asked for.
    error: Option<Error>,
    /// Rounds in a row that failed.
    failures: u64,
}

impl Between {
    fn state(&self) -> MutexGuard<'_, LastRound> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Periodic {
    /// Starts a thread that calls `work` at this interval. `name`: of the thread, in words.
    pub(super) fn start(
        store: &Store,
        name: &str,
        interval: Duration,
        mut work: impl FnMut(&Arc<Handle>) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        store.handle.check_writable()?;
        if interval.is_zero() {
            return Err(Error::InvalidOption { what: format!("a {name} interval of 0: it must be longer") });
        }
        let shared = Arc::new(Between::default());
        let (theirs, handle) = (Arc::clone(&shared), Arc::downgrade(&store.handle));
        let rounds = move || {
            let mut state = theirs.state();
            loop {
                let waited = theirs.changed.wait_timeout_while(state, interval, |s| !s.stop);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                if state.stop {
                    return;
                }
                drop(state);
                let Some(handle) = handle.upgrade() else { return };
                let worked = work(&handle);
                drop(handle); // It may be the last reference, which gives the seat back.
                state = theirs.state();
                state.failures = if worked.is_ok() { 0 } else { state.failures + 1 };
                state.error = worked.err();
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("recstore {name}"))
            .spawn(rounds)
            .map_err(store.handle.arena.io("starting a thread"))?;
        let path = store.handle.arena.path.clone();
        Ok(Self { shared, thread: Some(thread), path, started_in: Birthplace::here() })
    }

    /// The error of the last round, if there was one and it was not given yet.
    pub(super) fn error(&self) -> Option<Error> {
        match self.state() {
            Ok(mut state) => state.error.take(),
            Err(forked) => Some(forked),
        }
    }

    /// Rounds that failed since the last one that succeeded.
    pub(super) fn failures(&self) -> u64 {
        self.state().map_or(0, |state| state.failures)
    }

    /// Stops the thread, waits for it, and gives the error of the last round.
    pub(super) fn finish(mut self) -> Result<()> {
        self.stop();
        self.error().map_or(Ok(()), Err)
    }

    /// Refuses a forked child: the thread is its parent's, and the mutex may stay locked for ever.
    fn state(&self) -> Result<MutexGuard<'_, LastRound>> {
        if self.started_in.is_here() {
            Ok(self.shared.state())
        } else {
            Err(Error::Forked { path: self.path.clone() })
        }
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        match self.state() {
            Ok(mut state) => state.stop = true,
            Err(_) => {
                std::mem::forget(thread); // A forked child does not have the thread.
                return;
            }
        }
        self.shared.changed.notify_all();
        // The thread does not panic, and a drop could not report it.
        let _ = thread.join();
    }
}

impl Drop for Periodic {
    fn drop(&mut self) {
        self.stop();
    }
}
