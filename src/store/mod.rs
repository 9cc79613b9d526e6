//! The store as its users see it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::slot::PRESENT;
use crate::handle::Handle;
use crate::handle::inside::{Inside, is_inside};
use crate::record::{Durability, Record, Swap, Version};
use crate::region::Trouble;
use crate::region::write::{Content, Written};
use crate::report::RepairReport;
use crate::store::options::Options;
use crate::sys::atomic::Ordering;
use crate::sys::deadline::Deadline;

/// A handle on a store: a file of records that any number of threads and processes read and write.
///
/// Share one among threads by reference or in an `Arc`; open as many as you like, in one process or
/// in many. Dropping it detaches; [`close`](Self::close) also flushes and marks the store clean.
///
/// Reads take no lock and make no system call. A write takes its region's lock, a compare-and-swap.
///
/// ```
/// # use recstore::Store;
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
/// use std::thread;
///
/// thread::scope(|scope| {
///     for id in 0..4 {
///         let store = &store;
///         scope.spawn(move || store.put(id, format!("of thread {id}")));
///     }
/// });
/// assert_eq!(store.len()?, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # After `fork`
///
/// A child has no part in the stores of its parent. It opens them anew.
///
/// * Every call gives [`Error::Forked`]: of the inherited handle, and of all that was made from it. All of it can be
///   dropped, which does nothing to the parent's.
/// * Bytes that were lent to the parent, by a [`Pin`](crate::Pin) or a [`Snapshot`](crate::Snapshot), are not in the
///   child's memory: to touch them is SIGSEGV. Were they there, they would change under the child. Copy what the child needs
///   before the fork.
/// * The child keeps nothing of the parent's alive: if the parent dies, that is seen at once.
///
/// That holds for `fork`, and for all that is made of it (`daemon`, Python's `os.fork`, [`std::process::Command`]). A
/// child that is made without the handlers of `fork` (`_Fork`, a raw `clone`) has no mapping either, so any call on an
/// inherited handle is SIGSEGV; but it does keep the parent's descriptors, as does a process that got one in another way
/// (`dup` without close-on-exec before an `exec`, `SCM_RIGHTS`). The locks that belong to a descriptor live as long as the
/// last copy of it: the parent's death is not seen before that. [`Error::Busy`] says so where it names the holder.
pub struct Store {
    pub(crate) handle: Arc<Handle>,
    pub(crate) opened: RepairReport,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.handle.arena.path)
            .field("read_only", &self.is_read_only())
            .finish_non_exhaustive()
    }
}

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

    /// Flushes, marks the store clean if this is the last handle for writing, and detaches. A store
    /// that is marked clean opens without recovery after a reboot.
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
    /// As [`sync`](Self::sync), [`Error::Unlinked`] included. The handle is gone in any case.
    pub fn close(self) -> Result<()> {
        let timeout = self.handle.arena.lock_timeout;
        self.close_by(timeout)
    }

    /// [`close`](Self::close) that waits for locks no longer than `timeout`, whatever the handle's lock time-out is.
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
    /// As [`sync`](Self::sync). After [`Error::Busy`] all that was written is there, and not known to be on disk.
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
    /// assert_eq!(store.record_size(), 256); // the default
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

    /// What opening the store had to put right.
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

/// Reading. No lock, no system call: O(1), one index line and one slot nearly always.
impl Store {
    /// The record with this id, or `None`.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert_eq!(store.get(1)?.unwrap().data(), b"one");
    /// assert!(store.get(2)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the record is damaged; [`Error::Damaged`]; [`Error::NeedsRepair`] for a
    /// handle that may not repair; [`Error::Forked`].
    #[inline]
    pub fn get(&self, id: u64) -> Result<Option<Record>> {
        let mut data = Vec::new();
        let version = self.get_into(id, &mut data)?;
        Ok(version.map(|version| Record { id, version, data }))
    }

    /// Reads a record into `out`, which is overwritten, and its room used again. If there is no such
    /// record, the content of `out` is unspecified.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let mut buffer = Vec::new(); // used again for the next record
    /// let version = store.get_into(1, &mut buffer)?;
    /// assert!(version.is_some());
    /// assert_eq!(buffer, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn get_into(&self, id: u64, out: &mut Vec<u8>) -> Result<Option<Version>> {
        self.handle.check()?;
        Ok(self.read(id, Some(out))?.map(|(header, _)| Version(header.version())))
    }

    /// Whether there is a record with this id. The record's data is not looked at, nor its checksum.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert!(store.contains(1)?);
    /// assert!(!store.contains(2)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn contains(&self, id: u64) -> Result<bool> {
        Ok(self.version(id)?.is_some())
    }

    /// The version of the record with this id. The record's data is not looked at, nor its checksum.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let version = store.put(1, b"one")?;
    /// assert_eq!(store.version(1)?, Some(version));
    /// assert_eq!(store.version(2)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn version(&self, id: u64) -> Result<Option<Version>> {
        self.handle.check()?;
        Ok(self.read(id, None)?.map(|(header, _)| Version(header.version())))
    }

    /// Reads many records, in the order of `ids`, and gives each to `each`. Faster than one by one:
    /// memory is asked for ahead. The reads are not of one moment.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let mut found = Vec::new();
    /// store.get_many(&[1, 2], |id, record| {
    ///     if let Some((_version, data)) = record {
    ///         found.push((id, data.to_vec()));
    ///     }
    /// })?;
    /// assert_eq!(found, [(1, b"one".to_vec())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get); what `each` was given before stands.
    pub fn get_many(&self, ids: &[u64], mut each: impl FnMut(u64, Option<(Version, &[u8])>)) -> Result<()> {
        self.handle.check()?;
        let mut data = Vec::new();
        let hash = |i: usize| ids.get(i).map(|&id| self.handle.arena.geo.hash(id));
        self.ask_for_first(hash);
        for (i, &id) in ids.iter().enumerate() {
            self.ask_ahead(i, hash);
            let found = self.read(id, Some(&mut data))?;
            each(id, found.map(|(header, _)| (Version(header.version()), &data[..])));
        }
        Ok(())
    }
}

/// Writing. Each call takes one region's lock for its duration; O(1) but for growth.
impl Store {
    /// Writes a record, in place of the one with the same id if there is one, with the handle's
    /// durability. When it returns, the write survives the death of any process.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// store.put(1, "another one")?; // in its place
    /// assert_eq!(store.get(1)?.unwrap().data(), b"another one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::RecordTooLong`]; [`Error::Full`]; [`Error::Busy`] if a lock time-out is set;
    /// [`Error::ReadOnly`]; [`Error::Reentrant`]; [`Error::FlushFailed`] for durable writes;
    /// [`Error::Damaged`]; [`Error::Forked`]. After an error the record is as it was.
    #[inline]
    pub fn put(&self, id: u64, data: impl AsRef<[u8]>) -> Result<Version> {
        self.write(id, data.as_ref(), self.handle.durability)
    }

    /// [`put`](Self::put) with the durability of this one write.
    ///
    /// ```
    /// # use recstore::{Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put_with(1, b"one", Durability::Disk)?; // on disk when it returns
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put). After [`Error::FlushFailed`] the record is written, and may be lost
    /// with power.
    #[inline]
    pub fn put_with(&self, id: u64, data: impl AsRef<[u8]>, durability: Durability) -> Result<Version> {
        self.write(id, data.as_ref(), durability)
    }

    #[inline]
    fn write(&self, id: u64, data: &[u8], durability: Durability) -> Result<Version> {
        let hash = self.check_write(id, data.len())?;
        let number = self.handle.arena.geo.region_of(hash);
        let lone = durability == Durability::Disk;
        let written =
            self.handle.with_region(number, |region| region.put(hash, id, Content::Bytes(data), lone))?;
        self.settle_one(durability, number, &written)
    }

    /// Deletes a record; whether there was one. Its slot is used again.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert!(store.delete(1)?);
    /// assert!(!store.delete(1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(&self, id: u64) -> Result<bool> {
        let hash = self.check_write(id, 0)?;
        let number = self.handle.arena.geo.region_of(hash);
        let deleted = self.handle.with_region(number, |region| {
            let deleted = region.delete(hash, id)?;
            if !deleted {
                // A damaged slot may be this record's: the reader's look gives the error for that.
                self.read_in(region, hash, id, None)?;
            }
            Ok(deleted)
        })?;
        self.settle(self.handle.durability)?;
        Ok(deleted)
    }

    /// Reads a record, lets `change` say what it becomes, and writes that, as one step that no other
    /// writer can come between, in any thread or process. `change` is given `None` if there is no
    /// record; if it gives `None`, nothing is written, and the result is `None`.
    ///
    /// `change` runs under the region's lock: others wait for it, and a write to the same store from
    /// inside it, through this handle or any other one on the same file, is refused with [`Error::Reentrant`]. If it
    /// panics, nothing is written. The same holds for the `as_ref` of what it gives.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// // Exact, however many threads and processes do it.
    /// for _ in 0..3 {
    ///     store.update(1, |old| {
    ///         let n = old.and_then(|old| old.try_into().ok()).map_or(0, u64::from_le_bytes);
    ///         Some((n + 1).to_le_bytes())
    ///     })?;
    /// }
    /// assert_eq!(store.get(1)?.unwrap().data(), 3u64.to_le_bytes());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::Corrupt`] if the record is damaged.
    pub fn update<T: AsRef<[u8]>>(
        &self,
        id: u64,
        change: impl FnOnce(Option<&[u8]>) -> Option<T>,
    ) -> Result<Option<Version>> {
        let hash = self.check_write(id, 0)?;
        let number = self.handle.arena.geo.region_of(hash);
        let mut change = Some(change);
        let mut next: Option<T> = None;
        let durability = self.handle.durability;
        let written = self.handle.with_region(number, |region| {
            // Called anew after a rebuild, under the same lock: what `change` gave still holds.
            if let Some(change) = change.take() {
                let mut data = Vec::new();
                let found = match self.read_in(region, hash, id, Some(&mut data)) {
                    Err(Trouble::Flaw(_)) => {
                        crate::recovery::rebuild::rebuild(region, crate::recovery::rebuild::Cause::Process)?;
                        self.read_in(region, hash, id, Some(&mut data))?
                    }
                    found => found?,
                };
                let _inside = Inside::enter(self.handle.file_id);
                next = change(found.map(|_| &data[..]));
            }
            let Some(next) = &next else {
                self.handle.check()?;
                return Ok(None);
            };
            let next = {
                let _inside = Inside::enter(self.handle.file_id);
                next.as_ref() // The caller's code, too.
            };
            self.handle.check()?; // Either may have forked, and this may be the child.
            if next.len() > self.record_size() {
                return Err(self.too_long(id, next.len()).into());
            }
            region.put(hash, id, Content::Bytes(next), durability == Durability::Disk).map(Some)
        })?;
        written.map(|written| self.settle_one(durability, number, &written)).transpose()
    }

    /// Writes a record if its version is `expected` (`None`: if there is no such record).
    ///
    /// ```
    /// # use recstore::{Store, Swap};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let version = store.put(1, b"one")?;
    /// store.put(1, b"by another process")?;
    /// let swap = store.compare_and_swap(1, Some(version), b"two")?;
    /// assert!(matches!(swap, Swap::Conflict { .. }));
    /// assert_eq!(store.get(1)?.unwrap().data(), b"by another process");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::Corrupt`] if the record is damaged.
    pub fn compare_and_swap(
        &self,
        id: u64,
        expected: Option<Version>,
        data: impl AsRef<[u8]>,
    ) -> Result<Swap> {
        let data = data.as_ref();
        let hash = self.check_write(id, data.len())?;
        let number = self.handle.arena.geo.region_of(hash);
        let durability = self.handle.durability;
        let swapped = self.handle.with_region(number, |region| {
            let found = self.read_in(region, hash, id, Some(&mut Vec::new()))?;
            let current = found.map(|(header, _)| Version(header.version()));
            if current != expected {
                return Ok(Err(Swap::Conflict { current }));
            }
            region.put(hash, id, Content::Bytes(data), durability == Durability::Disk).map(Ok)
        })?;
        match swapped {
            Ok(written) => self.settle_one(durability, number, &written).map(Swap::Done),
            Err(conflict) => Ok(conflict),
        }
    }

    /// Writes many records, holding the lock of each region once, and gives their number. Of several
    /// writes to one id the last wins.
    ///
    /// This is not a transaction (that is [`batch`](Self::batch)): others may see some of the writes before the rest, in any order,
    /// and a process that dies in the middle leaves some of them written, each whole.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let written = store.write_many((0..100).map(|id| (id, format!("record {id}"))))?;
    /// assert_eq!(written, 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put). Lengths are checked before anything is written; after any other error
    /// some of the records may be written.
    pub fn write_many<D: AsRef<[u8]>>(&self, writes: impl IntoIterator<Item = (u64, D)>) -> Result<usize> {
        let mut sorted = Vec::new();
        for (id, data) in writes {
            let hash = self.check_write(id, data.as_ref().len())?;
            sorted.push((self.handle.arena.geo.region_of(hash), hash, id, data));
        }
        sorted.sort_by_key(|w| w.0); // Stable: writes to one id stay in their order.
        let hash_of = |n: usize| sorted.get(n).map(|write| write.1);
        self.ask_for_first(hash_of);
        let mut done = 0;
        for group in sorted.chunk_by(|a, b| a.0 == b.0) {
            let end = done + group.len();
            self.handle.with_region(group[0].0, |region| {
                for (_, hash, id, data) in &sorted[done..end] {
                    self.ask_ahead(done, hash_of);
                    let data = data.as_ref();
                    if data.len() > self.record_size() {
                        return Err(self.too_long(*id, data.len()).into()); // It changed its mind.
                    }
                    region.put(*hash, *id, Content::Bytes(data), false)?;
                    done += 1;
                }
                Ok(())
            })?;
        }
        if !sorted.is_empty() {
            self.settle(self.handle.durability)?;
        }
        Ok(sorted.len())
    }

    /// Makes every write that was done before, by anyone, survive a loss of power. Shares one flush
    /// with all who ask for one at the same time.
    ///
    /// A file that was removed while it was open, or in whose place another one was put, is flushed all the same;
    /// then the error says what became of it, for nobody who opens the path will see these records. A file that was
    /// only renamed is no error, nor is one that never had a name, nor a [`shared`](Self::shared) store's. A program that removes its
    /// file on purpose while it is open has no use for a flush.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// store.sync()?; // from here on the loss of power can't lose it
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unlinked`] as said above; [`Error::FlushFailed`], then and ever after on this handle; [`Error::ReadOnly`];
    /// [`Error::Reentrant`]; [`Error::Busy`] if a lock time-out is set; [`Error::Forked`].
    pub fn sync(&self) -> Result<()> {
        self.check_write(0, 0)?;
        self.handle.sync()
    }

    /// [`sync`](Self::sync) that waits for locks no longer than `timeout`, whatever the handle's lock time-out is: for the
    /// writers that are at work when it begins, and for a flush that is under way. The disk takes its time beyond that.
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// # use std::time::Duration;
    /// # use recstore::Error;
    /// # let path = std::env::temp_dir().join(format!("recstore-sync-{}.rec", std::process::id()));
    /// let store = recstore::Store::open_or_create(&path)?;
    /// store.put(1, b"one")?;
    /// match store.sync_timeout(Duration::from_secs(2)) {
    ///     Err(Error::Busy { lock, .. }) => println!("written, and not flushed yet: {lock} is held"),
    ///     synced => synced?,
    /// }
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_timeout(&self, timeout: Duration) -> Result<()> {
        self.check_write(0, 0)?;
        self.handle.sync_by(&Deadline::after(Some(timeout)))
    }

    /// What every write asks first; the id's hash.
    #[inline]
    pub(crate) fn check_write(&self, id: u64, len: usize) -> Result<u64> {
        self.handle.check_writable()?;
        if len > self.record_size() {
            return Err(self.too_long(id, len));
        }
        let hash = self.handle.arena.geo.hash(id);
        self.check_outside(hash)?;
        Ok(hash)
    }

    /// Refuses to wait for a lock from inside `update`.
    #[inline]
    pub(crate) fn check_outside(&self, hash: u64) -> Result<()> {
        if is_inside(self.handle.file_id) {
            let region = self.handle.arena.geo.region_of(hash);
            return Err(Error::Reentrant { path: self.handle.arena.path.clone(), region });
        }
        Ok(())
    }

    #[cold]
    pub(crate) fn too_long(&self, id: u64, len: usize) -> Error {
        Error::RecordTooLong { path: self.handle.arena.path.clone(), id, len, max: self.record_size() }
    }

    /// Does what the durability of a write of one record asks for; the record's version.
    #[inline]
    pub(crate) fn settle_one(
        &self,
        durability: Durability,
        region: u32,
        written: &Written,
    ) -> Result<Version> {
        if durability == Durability::Disk {
            self.handle.arena.control().durable_writes().fetch_add(1, Ordering::Relaxed);
            self.handle.sync_one(region, written.slot)?;
        }
        Ok(Version(written.seq & !PRESENT))
    }

    /// Does what the durability of other writes asks for.
    #[inline]
    pub(crate) fn settle(&self, durability: Durability) -> Result<()> {
        match durability {
            Durability::Process => Ok(()),
            Durability::Disk => {
                self.handle.arena.control().durable_writes().fetch_add(1, Ordering::Relaxed);
                self.handle.sync()
            }
        }
    }
}

// rustdoc lists the methods of these modules in this order, and those of this file after them.

// Opening, and all records.
pub(crate) mod open;

pub(crate) mod options;

pub(crate) mod iter;

pub(crate) mod read;

// Several records as one.
pub(crate) mod batch;

pub(crate) mod snapshot;

// Other kinds of records, and other ways to them.
pub(crate) mod counter;

pub(crate) mod typed;

pub(crate) mod ring;

pub(crate) mod pin;

pub(crate) mod reserve;

// Shared memory.
pub(crate) mod shared;

// Waiting for changes.
pub(crate) mod watch;

pub(crate) mod changes;

// Upkeep.
pub(crate) mod checkpoint;

pub(crate) mod backup;

pub(crate) mod upkeep;

pub(crate) mod salvage;

// Looking inside.
pub(crate) mod stats;

pub(crate) mod extents;

pub(crate) mod inspect;
