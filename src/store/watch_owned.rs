//! A watch that shares the ownership of its store, for threads, tasks and structs.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::record::Version;
use crate::store::Store;
#[cfg(feature = "tokio")]
use crate::store::bridge::Bridge;
use crate::store::key_watch::KeyWatch;
use crate::store::watch::{Event, Watch};

/// Waits for changes of one record or key, and shares the ownership of the store: see [`Store::watch_owned`].
///
/// It can be kept in a struct, and moved into a thread or a task.
#[derive(Debug)]
pub struct OwnedWatch {
    store: Arc<Store>,
    of: Watched,
    last: Option<Version>,
    #[cfg(feature = "tokio")]
    bridge: Option<Arc<Bridge>>,
}

/// The record that is watched.
#[derive(Debug)]
enum Watched {
    Id(u64),
    Key { space: Box<str>, key: Box<[u8]> },
}

/// Waiting for changes.
impl Store {
    /// [`watch`](Self::watch), as a value that shares the ownership of the store.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use recstore::{Event, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Arc::new(store);
    /// let mut watch = store.watch_owned(1)?;
    /// let waiting = std::thread::spawn(move || watch.wait(None));
    /// let version = store.put(1, b"one")?; // by any process
    /// assert_eq!(waiting.join().unwrap()?, Event::Written(version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_owned(self: &Arc<Self>, id: u64) -> Result<OwnedWatch> {
        let last = self.watch(id)?.version();
        Ok(OwnedWatch::new(self, Watched::Id(id), last))
    }

    /// [`Space::watch`](crate::Space::watch), as a value that shares the ownership of the store.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use recstore::{Event, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Arc::new(store);
    /// let mut watch = store.watch_key_owned("answers", "job 7")?;
    /// let version = store.space("answers")?.put("job 7", b"42")?; // by any process
    /// assert_eq!(watch.wait(None)?, Event::Written(version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`watch`](Self::watch) and [`space`](Self::space).
    pub fn watch_key_owned(self: &Arc<Self>, space: &str, key: impl AsRef<[u8]>) -> Result<OwnedWatch> {
        let key = key.as_ref();
        let last = self.space(space)?.watch(key)?.version();
        Ok(OwnedWatch::new(self, Watched::Key { space: space.into(), key: key.into() }, last))
    }
}

impl OwnedWatch {
    fn new(store: &Arc<Store>, of: Watched, last: Option<Version>) -> Self {
        let store = Arc::clone(store);
        Self {
            store,
            of,
            last,
            #[cfg(feature = "tokio")]
            bridge: None,
        }
    }

    /// Waits until the record has another version than at the last look: as [`Watch::wait`](crate::Watch::wait).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use recstore::{Event, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Arc::new(Store::create(dir.path().join("a.rec"))?);
    /// let mut watch = store.watch_owned(1)?;
    /// assert_eq!(watch.wait(Some(Duration::ZERO))?, Event::TimedOut);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Event> {
        match &self.of {
            Watched::Id(id) => {
                let mut watch = Watch::since(&self.store, *id, self.last);
                let waited = watch.wait(timeout);
                self.last = watch.version();
                waited
            }
            Watched::Key { space, key } => {
                let mut watch = KeyWatch::since(self.store.space_of(space), key.clone(), self.last);
                let waited = watch.wait(timeout);
                self.last = watch.version();
                waited
            }
        }
    }

    /// Waits until `ready` returns a value for the record's bytes: as [`Watch::wait_until`](crate::Watch::wait_until).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Arc::new(Store::create(dir.path().join("a.rec"))?);
    /// let mut watch = store.watch_owned(1)?;
    /// store.put(1, b"done: 42")?; // by any process
    /// let answer = watch.wait_until(None, |data| data?.strip_prefix(b"done: ").map(<[u8]>::to_vec))?;
    /// assert_eq!(answer.as_deref(), Some(&b"42"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn wait_until<T>(
        &mut self,
        timeout: Option<Duration>,
        ready: impl FnMut(Option<&[u8]>) -> Option<T>,
    ) -> Result<Option<T>> {
        match &self.of {
            Watched::Id(id) => {
                let mut watch = Watch::since(&self.store, *id, self.last);
                let waited = watch.wait_until(timeout, ready);
                self.last = watch.version();
                waited
            }
            Watched::Key { space, key } => {
                let mut watch = KeyWatch::since(self.store.space_of(space), key.clone(), self.last);
                let waited = watch.wait_until(timeout, ready);
                self.last = watch.version();
                waited
            }
        }
    }

    /// The record's version at the last look.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Arc::new(Store::create(dir.path().join("a.rec"))?);
    /// let version = store.put(1, b"one")?;
    /// assert_eq!(store.watch_owned(1)?.version(), Some(version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.last
    }

    /// The store.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Arc::new(Store::create(dir.path().join("a.rec"))?);
    /// let watch = store.watch_owned(1)?;
    /// watch.store().put(1, b"one")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

/// Waiting in a task.
#[cfg(feature = "tokio")]
impl OwnedWatch {
    /// Waits in a task until the record has another version than at the last look. Needs the feature `tokio`.
    ///
    /// * One thread of the process waits for all tasks that watch records by one handle, and wakes those whose region has changed. It starts
    ///   with the first call, and ends when the last watch that was used so is dropped. Tasks on any runtime can wait: neither timers nor I/O of
    ///   tokio are used.
    /// * The future can be dropped at any time, as `tokio::time::timeout` and `select!` do: no change is lost, and the next call tells it.
    /// * A runtime that shuts down drops its tasks, and waits for nothing.
    /// * A look at the record is a read without a lock, some 100 ns. If a writer has died, the look may heal its region, which takes as
    ///   long as a pass over the region.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use recstore::{Event, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Arc::new(Store::create(dir.path().join("a.rec"))?);
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let mut watch = store.watch_owned(1)?;
    /// let waiting = runtime.spawn(async move { watch.changed().await });
    /// let version = store.put(1, b"one")?; // by any process
    /// assert_eq!(runtime.block_on(waiting)??, Event::Written(version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`]; [`Error::Io`](crate::Error::Io) if the thread can't be started.
    pub async fn changed(&mut self) -> Result<Event> {
        self.store.handle.check()?;
        let bridge = match &self.bridge {
            Some(bridge) => Arc::clone(bridge),
            None => Arc::clone(self.bridge.insert(Bridge::of(&self.store)?)),
        };
        let region = match &self.of {
            Watched::Id(id) => self.store.region_of(*id),
            Watched::Key { space, key } => self.store.region_of(self.store.space_of(space).id_of(key)),
        };
        loop {
            let mut told = std::pin::pin!(bridge.told(region));
            told.as_mut().enable(); // Before the look: a change after the look is told.
            let now = match &self.of {
                Watched::Id(id) => self.store.version(*id)?,
                Watched::Key { space, key } => self.store.space_of(space).version(key)?,
            };
            if now != self.last {
                self.last = now;
                return Ok(now.map_or(Event::Deleted, Event::Written));
            }
            told.await;
        }
    }
}
