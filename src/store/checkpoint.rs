//! Flushing at intervals, in a thread of its own.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::store::Store;
use crate::store::periodic::Periodic;
use crate::sys::deadline::Deadline;

/// A flush waits at most this long for a lock, and is tried again after the interval. A call that ends the thread waits for the
/// flush.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// A thread that flushes a store at intervals until this is dropped: see
/// [`Store::checkpoint_every`].
#[derive(Debug)]
pub struct Checkpoint(Periodic);

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
        Periodic::start(self, "checkpoint", interval, |handle| flush(handle)).map(Checkpoint)
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
        self.0.error()
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
        self.0.failures()
    }

    /// Stops the thread and waits for it. Writes since its last flush are not flushed.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let checkpoint = store.checkpoint_every(Duration::from_secs(60))?;
    /// store.put(1, b"one")?;
    /// checkpoint.finish()?; // flushes no more: `sync` and `close` do
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The error of the last flush, if [`error`](Self::error) has not given it; [`Error::Forked`].
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }
}
