//! Opening a store, and closing it.

use crate::error::Result;
use crate::report::RepairReport;
use crate::store::Store;
use crate::store::options::Options;
use crate::sys::deadline::Deadline;
use std::path::Path;
use std::time::Duration;

/// Opening and closing.
impl Store {
    /// Options to create or open a store with.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Store::options().record_size(4096).regions(8).create(dir.path().join("b.rec"))?;
    /// assert_eq!(store.record_size(), 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn options() -> Options {
        Options::new()
    }

    /// Creates a store with default options: see [`Options::create`].
    ///
    /// ```
    /// # use recstore::{Error, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let path = dir.path().join("new.rec");
    /// let store = Store::create(&path)?;
    /// assert!(matches!(Store::create(&path), Err(Error::AlreadyExists { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Options::create`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().create(path)
    }

    /// Opens a store: see [`Options::open`].
    ///
    /// ```
    /// # use recstore::{Error, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let path = dir.path().join("new.rec");
    /// assert!(matches!(Store::open(&path), Err(Error::NotFound { .. })));
    /// Store::create(&path)?.close()?;
    /// let store = Store::open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// Opens a store, or creates it with default options: see [`Options::open_or_create`].
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let path = dir.path().join("new.rec");
    /// let one = Store::open_or_create(&path)?; // every process does the same
    /// let other = Store::open_or_create(&path)?;
    /// one.put(1, b"one")?;
    /// assert!(other.contains(1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Options::open_or_create`].
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_or_create(path)
    }

    /// Opens a store for reading: see [`Options::open_read_only`].
    ///
    /// ```
    /// # use recstore::{Error, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let reader = Store::open_read_only(store.path())?;
    /// store.put(1, b"one")?;
    /// assert!(reader.contains(1)?);
    /// assert!(matches!(reader.put(2, b"two"), Err(Error::ReadOnly { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Options::open_read_only`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_read_only(path)
    }

    /// Flushes, marks the store clean if this is the last handle opened for writing, and detaches. A store that is marked clean
    /// opens without recovery after a reboot.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// # store.put(1, b"one")?;
    /// store.close()?;
    /// # let store = Store::open(dir.path().join("a.rec"))?;
    ///
    /// // A store that threads share in an `Arc`: the last one closes it.
    /// let shared = std::sync::Arc::new(store);
    /// let threads_own = shared.clone();
    /// std::thread::spawn(move || threads_own.put(2, b"two")).join().unwrap()?;
    /// if let Some(store) = std::sync::Arc::into_inner(shared) {
    ///     store.close()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`sync`](Self::sync), [`Error::Unlinked`](crate::Error::Unlinked) included. The handle is gone in any case.
    pub fn close(self) -> Result<()> {
        let timeout = self.handle.arena.lock_timeout;
        self.close_by(timeout)
    }

    /// [`close`](Self::close) that waits for locks at most `timeout`, instead of the handle's lock time-out.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{Error, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// match store.close_timeout(Duration::from_secs(2)) {
    ///     Err(Error::Busy { lock, .. }) => println!("written, and not flushed: {lock} is held"),
    ///     closed => closed?,
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`sync`](Self::sync). After [`Error::Busy`](crate::Error::Busy) every write is there, but may not be on disk.
    pub fn close_timeout(self, timeout: Duration) -> Result<()> {
        self.close_by(Some(timeout))
    }

    fn close_by(self, timeout: Option<Duration>) -> Result<()> {
        self.handle.check()?;
        if self.is_read_only() { Ok(()) } else { self.handle.close(&Deadline::after(timeout)) }
    }

    /// The path that the store was opened by.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.path(), dir.path().join("a.rec"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.handle.arena.path
    }

    /// Whether the handle was opened for reading.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(!store.is_read_only());
    /// assert!(Store::open_read_only(store.path())?.is_read_only());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        !self.handle.is_writable()
    }

    /// Capacity of a record in bytes.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.record_size(), 1 << 20); // the default
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn record_size(&self) -> usize {
        self.handle.arena.geo.record_size as usize
    }

    /// The region that an id belongs to. Ids of one region share a lock.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(store.region_of(1) < 16); // the default number of regions
    /// assert_eq!(store.region_of(1), store.region_of(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn region_of(&self, id: u64) -> u32 {
        let geo = &self.handle.arena.geo;
        geo.region_of(geo.hash(id))
    }

    /// The report of what opening the store repaired.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let report = store.opened();
    /// if !report.is_empty() {
    ///     eprintln!("{} records were lost: {report:?}", report.lost());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn opened(&self) -> &RepairReport {
        &self.opened
    }
}
