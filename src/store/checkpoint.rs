//! Flushing at intervals, in a thread of its own.
//!
//! The thread keeps the handle alive only during a flush, so the store can be closed beside it. A flush that fails is tried
//! again after the interval.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::store::Store;
use crate::sys::deadline::Deadline;
use crate::sys::fork::Birthplace;

/// A flush waits at most this long for a lock, and is tried again after the interval. A call that ends the thread waits for the
/// flush.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// A thread that flushes a store at intervals until this is dropped: see
/// [`Store::checkpoint_every`].
#[derive(Debug)]
pub struct Checkpoint {
    shared: Arc<Between>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
    started_in: Birthplace,
}

#[derive(Debug, Default)]
struct Between {
    state: Mutex<Flushes>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Flushes {
    stop: bool,
    /// The error of the last flush, until it is asked for.
    error: Option<Error>,
    /// Flushes in a row that failed.
    failures: u64,
}

impl Between {
    fn state(&self) -> MutexGuard<'_, Flushes> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Flushing at intervals.
impl Store {
    /// Starts a thread that calls [`sync`](Self::sync) at this interval until the result is dropped, or the
    /// store is.
    ///
    /// A flush that fails is tried again after the interval: [`Checkpoint::failures`] counts the failures in a row, and
    /// [`Checkpoint::error`] gives the error of the last one. Each flush waits for a lock at most for the handle's lock time-out, and
    /// at most a second. Dropping the result does not flush later writes: [`sync`](Self::sync) and [`close`](Self::close) do that.
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// # use std::time::Duration;
    /// # let path = std::env::temp_dir().join(format!("recstore-checkpoint-{}.rec", std::process::id()));
    /// let store = recstore::Store::open_or_create(&path)?;
    /// let checkpoint = store.checkpoint_every(Duration::from_secs(5))?;
    /// store.put(1, b"on disk in five seconds")?;
    /// if checkpoint.failures() > 3 {
    ///     eprintln!("nothing was flushed for 15 s: {:?}", checkpoint.error());
    /// }
    /// checkpoint.finish()?;
    /// store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an interval of 0; [`Error::ReadOnly`]; [`Error::Io`] if no thread
    /// can be started.
    pub fn checkpoint_every(&self, interval: Duration) -> Result<Checkpoint> {
        self.handle.check_writable()?;
        if interval.is_zero() {
            return Err(Error::InvalidOption {
                what: "a checkpoint interval of 0: it must be longer".to_owned(),
            });
        }
        let shared = Arc::new(Between::default());
        let (theirs, handle) = (Arc::clone(&shared), Arc::downgrade(&self.handle));
        let work = move || {
            let mut state = theirs.state();
            loop {
                let waited = theirs.changed.wait_timeout_while(state, interval, |s| !s.stop);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                if state.stop {
                    return;
                }
                drop(state);
                let Some(handle) = handle.upgrade() else { return };
                let flushed = flush(&handle);
                drop(handle); // It may be the last reference, which gives the seat back.
                state = theirs.state();
                state.failures = if flushed.is_ok() { 0 } else { state.failures + 1 };
                state.error = flushed.err();
            }
        };
        let thread = std::thread::Builder::new()
            .name("recstore checkpoint".to_owned())
            .spawn(work)
            .map_err(self.handle.arena.io("starting the checkpoint thread"))?;
        let path = self.handle.arena.path.clone();
        Ok(Checkpoint { shared, thread: Some(thread), path, started_in: Birthplace::here() })
    }
}

fn flush(handle: &Handle) -> Result<()> {
    let patience = handle.arena.lock_timeout.map_or(PATIENCE_MAX, |timeout| timeout.min(PATIENCE_MAX));
    handle.sync_by(&Deadline::after(Some(patience)))
}

impl Checkpoint {
    /// The error of the last flush; `None` if it succeeded, or if the error was given already.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let checkpoint = store.checkpoint_every(Duration::from_secs(1))?;
    /// assert!(checkpoint.error().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        match self.state() {
            Ok(mut state) => state.error.take(),
            Err(forked) => Some(forked),
        }
    }

    /// The number of flushes that have failed since the last one that succeeded.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let checkpoint = store.checkpoint_every(Duration::from_secs(1))?;
    /// assert_eq!(checkpoint.failures(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state().map_or(0, |state| state.failures)
    }

    /// Stops the thread and waits for it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let checkpoint = store.checkpoint_every(Duration::from_secs(60))?;
    /// store.put(1, b"one")?;
    /// checkpoint.finish()?; // flushes once more
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The error of the last flush, if [`error`](Self::error) has not given it; [`Error::Forked`].
    pub fn finish(mut self) -> Result<()> {
        self.stop();
        self.error().map_or(Ok(()), Err)
    }

    /// Refuses a forked child: the thread is its parent's, and the mutex may stay locked for ever.
    fn state(&self) -> Result<MutexGuard<'_, Flushes>> {
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

impl Drop for Checkpoint {
    fn drop(&mut self) {
        self.stop();
    }
}
