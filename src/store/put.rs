//! Writing records by their ids.

use crate::error::{Error, Result};
use crate::format::slot::{Address, PRESENT};
use crate::handle::inside::is_inside;
use crate::record::{Durability, Swap, Version};
use crate::region::head::Region;
use crate::region::watch::{Changed, notify};
use crate::region::write::{Content, Written};
use crate::store::Store;
use crate::sys::atomic::Ordering;
use crate::sys::deadline::Deadline;
use std::time::Duration;

/// Writing. Each call holds the lock of one region; O(1) except for growth.
impl Store {
    /// Writes a record, with the handle's durability. A record with the same id is replaced. Once the call has returned, the write
    /// survives the death of any process.
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
        self.write(id, data.as_ref(), Address::Id, self.handle.durability)
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
        self.write(id, data.as_ref(), Address::Id, durability)
    }

    /// Writes a record that is found by `address`.
    #[inline]
    pub(crate) fn write(
        &self,
        id: u64,
        data: &[u8],
        address: Address,
        durability: Durability,
    ) -> Result<Version> {
        let hash = self.check_write(id, data.len())?;
        let number = self.handle.arena.geo.region_of(hash);
        let lone = durability == Durability::Disk;
        // By value, and once: so the compiler makes one function of it.
        let put = |region: &Region<'_>| region.put(hash, id, Content::Bytes(data, address), lone);
        let written = match self.handle.with_region_once(number, Changed::Record(hash), put) {
            Err(Error::Full { .. }) => {
                self.handle.with_region_in_full_store(number, Changed::Record(hash), put)?
            }
            written => written?,
        };
        self.settle_one(durability, number, &written)
    }

    /// Deletes a record. Returns whether there was one. Its slot is used again.
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
        self.delete_with(id, self.handle.durability)
    }

    /// [`delete`](Self::delete) with the durability of this one deletion.
    ///
    /// ```
    /// # use recstore::{Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert!(store.delete_with(1, Durability::Disk)?); // no loss of power brings it back
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put_with`](Self::put_with).
    pub fn delete_with(&self, id: u64, durability: Durability) -> Result<bool> {
        self.delete_of(id, Address::Id, durability)
    }

    /// Deletes a record that is found by `address`.
    pub(super) fn delete_of(&self, id: u64, address: Address, durability: Durability) -> Result<bool> {
        let hash = self.check_write(id, 0)?;
        let number = self.handle.arena.geo.region_of(hash);
        let deleted = self.handle.with_region(number, Changed::Record(hash), |region| {
            let deleted = region.delete(hash, id, address)?;
            if !deleted {
                // A damaged slot may be this record's: then the reader's look gives the error.
                self.read_in(region, hash, id, None)?;
            }
            Ok(deleted)
        })?;
        self.settle(durability)?;
        Ok(deleted)
    }

    /// Writes a record if its version is `expected` (`None`: there is no such record).
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
        self.compare_and_swap_with(id, expected, data, self.handle.durability)
    }

    /// [`compare_and_swap`](Self::compare_and_swap) with the durability of this one write.
    ///
    /// ```
    /// # use recstore::{Durability, Store, Swap};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let swap = store.compare_and_swap_with(1, None, b"one", Durability::Disk)?;
    /// assert!(matches!(swap, Swap::Done(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put_with`](Self::put_with); [`Error::Corrupt`] if the record is damaged.
    pub fn compare_and_swap_with(
        &self,
        id: u64,
        expected: Option<Version>,
        data: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<Swap> {
        let data = data.as_ref();
        let hash = self.check_write(id, data.len())?;
        let number = self.handle.arena.geo.region_of(hash);
        let swapped = self.handle.with_region(number, Changed::Record(hash), |region| {
            let found = self.read_in(region, hash, id, Some(&mut Vec::new()))?;
            let found = found.filter(|(header, _)| header.address() == Address::Id);
            let current = found.map(|(header, _)| Version(header.version()));
            if current != expected {
                return Ok(Err(Swap::Conflict { current }));
            }
            region.put(hash, id, Content::Bytes(data, Address::Id), durability == Durability::Disk).map(Ok)
        })?;
        match swapped {
            Ok(written) => self.settle_one(durability, number, &written).map(Swap::Done),
            Err(conflict) => Ok(conflict),
        }
    }

    /// Writes many records, and returns their number. Takes the lock of each region once. Of several writes to one id the last one
    /// counts.
    ///
    /// This is not a transaction (use [`batch`](Self::batch) for that). Other processes may see some of the writes before the rest,
    /// in any order. If the process dies in the middle, some of the records are written, each whole.
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
        self.write_many_with(writes, self.handle.durability)
    }

    /// [`write_many`](Self::write_many) with the durability of these writes.
    ///
    /// ```
    /// # use recstore::{Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let written = store.write_many_with([(1, "one"), (2, "two")], Durability::Disk)?; // one flush for both
    /// assert_eq!(written, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`write_many`](Self::write_many) and [`put_with`](Self::put_with).
    pub fn write_many_with<D: AsRef<[u8]>>(
        &self,
        writes: impl IntoIterator<Item = (u64, D)>,
        durability: Durability,
    ) -> Result<usize> {
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
            let (begin, end) = (done, done + group.len());
            let written = self.handle.with_region(group[0].0, Changed::None, |region| {
                for (_, hash, id, data) in &sorted[done..end] {
                    self.ask_ahead(done, hash_of);
                    let data = data.as_ref();
                    if data.len() > self.record_size() {
                        return Err(self.too_long(*id, data.len()).into()); // `as_ref` gave other bytes than before.
                    }
                    region.put(*hash, *id, Content::Bytes(data, Address::Id), false)?;
                    done += 1;
                }
                Ok(())
            });
            let arena = &self.handle.arena;
            for (number, hash, ..) in &sorted[begin..end] {
                notify(arena, arena.head(*number), Changed::Record(*hash));
            }
            written?;
        }
        if !sorted.is_empty() {
            self.settle(durability)?;
        }
        Ok(sorted.len())
    }

    /// Makes every earlier write, of any process, survive a loss of power. Calls at the same time share one flush.
    ///
    /// If a region has many more free slots than records, its empty extents are given back then, and flushed once more: any region can use
    /// the room, for records of any length, and the blocks go to the file system. This takes O(slots that are given back).
    ///
    /// If the file was removed while it was open, or another file was put in its place, it is flushed all the same. Then the error
    /// says so, because a process that opens the path will not see these records. There is no error if the file was only renamed,
    /// never had a name, or belongs to a [`shared`](Self::shared) store.
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
    /// [`Error::Unlinked`] as said above; [`Error::FlushFailed`], and after it for every later flush; [`Error::ReadOnly`];
    /// [`Error::Reentrant`]; [`Error::Busy`] if a lock time-out is set; [`Error::Forked`].
    pub fn sync(&self) -> Result<()> {
        self.check_write(0, 0)?;
        self.handle.sync()
    }

    /// [`sync`](Self::sync) that waits for locks at most `timeout`, instead of the handle's lock time-out: for the writers that are
    /// inside a region when it begins, and for a flush that is under way. The time of the disk comes on top. Gives no room back.
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

    /// The checks of every write. Returns the id's hash.
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

    /// Flushes as the durability of a write of one record demands. Returns the record's version.
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

    /// Flushes as the durability of other writes demands.
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
