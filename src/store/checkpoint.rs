//! Flushing at intervals, in a thread of its own.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::store::Store;

/// A thread that flushes a store at intervals until this is dropped: see
/// [`Store::checkpoint_every`].
#[derive(Debug)]
pub struct Checkpoint {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    error: Option<Error>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Starts a thread that calls [`sync`](Self::sync) at this interval until the result is dropped.
    /// After an error it stops; [`Checkpoint::error`] and [`Checkpoint::finish`] give it. The store's
    /// seat is held for as long as the thread runs.
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
        let shared = Arc::new(Shared::default());
        let (theirs, handle) = (Arc::clone(&shared), Arc::clone(&self.handle));
        let work = move || {
            let mut state = theirs.state();
            loop {
                let waited = theirs.changed.wait_timeout_while(state, interval, |s| !s.stop);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                if state.stop {
                    return;
                }
                drop(state);
                let synced = handle.check().and_then(|()| handle.sync());
                state = theirs.state();
                if let Err(error) = synced {
                    state.error = Some(error);
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("recstore checkpoint".to_owned())
            .spawn(work)
            .map_err(self.handle.arena.io("starting the checkpoint thread"))?;
        Ok(Checkpoint { shared, thread: Some(thread) })
    }
}

impl Checkpoint {
    /// The error that stopped the thread, once.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        self.shared.state().error.take()
    }

    /// Stops the thread and waits for it.
    ///
    /// # Errors
    /// The error that stopped it earlier, if [`error`](Self::error) has not given it.
    pub fn finish(mut self) -> Result<()> {
        self.stop();
        self.error().map_or(Ok(()), Err)
    }

    fn stop(&mut self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there would be nobody to tell here.
            let _ = thread.join();
        }
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        self.stop();
    }
}
