//! Reservations: records written in place.
//!
//! The room is never lent as a slice. A reader that began when another version was in the slot may still be copying it, and will
//! discard its copy. So the room is written by word stores, as every slot is, and there is no data race.

use std::io;

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::format::keyed::{Entry, Expiry, end_of};
use crate::format::slot::{Address, HEADER_WORDS};
use crate::record::{Durability, Version};
use crate::region::Trouble;
use crate::region::head::Region;
use crate::region::watch::Changed;
use crate::region::write::{Content, Written};
use crate::store::Store;
use crate::store::entry::too_long;
use crate::store::space::Space;
use crate::sys::atomic::AtomicU64;
use crate::sys::copy::{copy_in_at, copy_out_at};

/// Bytes whose checksum is taken, or that are filled, at a time.
const CHUNK: usize = 4096;

/// Room for a record inside of the file, to be written in place: see [`Store::reserve`].
///
/// It lends no slice: a reader may still be copying the version that was in the slot before. That reader notices and reads again,
/// but a plain store beside its loads would be a data race. A forked child can't write into it, and may drop it.
///
/// ```compile_fail
/// fn bytes<'a>(room: &'a mut recstore::Reservation<'_>) -> &'a mut [u8] {
///     room
/// }
/// ```
#[derive(Debug)]
pub struct Reservation<'a> {
    store: &'a Store,
    id: u64,
    hash: u64,
    slot: u32,
    len: usize,
    /// The key that it is for, if it is for one.
    of_key: Option<KeyedRoom<'a>>,
    /// The position of [`io::Write`].
    at: usize,
    is_open: bool,
}

/// The key of a reservation.
#[derive(Debug)]
struct KeyedRoom<'a> {
    space: Space<'a>,
    key: Box<[u8]>,
    /// The bytes of the record behind the value.
    end: Box<[u8]>,
    expiry: Option<Expiry>,
}

/// Records written in place.
impl Store {
    /// Reserves room for a record of `len` bytes, to be written in place, in parts and in any order, and then committed. The
    /// region's lock is held to take the room and to commit, and not in between. The old record stays until the commit. It also
    /// stays if the reservation is dropped, or the process dies.
    ///
    /// Write all bytes before the commit: the content of unwritten bytes is unspecified.
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// # use recstore::Store;
    /// # let path = std::env::temp_dir().join(format!("recstore-reserve-{}.rec", std::process::id()));
    /// let store = Store::options().record_size(8 * 1024).open_or_create(&path)?;
    /// let mut room = store.reserve(1, 8 * 1000)?;
    /// for n in 0..10 {
    ///     room.write_slice_at(100 * n, &[n as f64; 100])?;
    /// }
    /// assert!(store.get(1)?.is_none());
    /// room.commit()?;
    /// assert_eq!(store.pin()?.get_slice::<f64>(1)?.unwrap()[250], 2.0);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn reserve(&self, id: u64, len: usize) -> Result<Reservation<'_>> {
        let hash = self.check_write(id, len)?;
        let slot = self.reserve_slot(id, hash, len)?;
        Ok(Reservation { store: self, id, hash, slot, len, of_key: None, at: 0, is_open: true })
    }

    fn reserve_slot(&self, id: u64, hash: u64, len: usize) -> Result<u32> {
        let arena = &self.handle.arena;
        let owner = arena.owner.ok_or_else(|| Error::ReadOnly { path: arena.path.clone() })?;
        let number = arena.geo.region_of(hash);
        self.handle.with_region(number, Changed::None, |region| region.reserve(id, len, owner))
    }
}

/// Values written in place.
impl<'a> Space<'a> {
    /// Reserves room for a value of `len` bytes under a key: as [`Store::reserve`]. A [time to live](Self::with_ttl) begins here, not at the
    /// commit.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let frames = store.space("frames")?;
    /// let mut room = frames.reserve("left", 8)?;
    /// room.write_slice_at(0, &[0.5f32, 1.5])?;
    /// assert!(!frames.contains("left")?);
    /// room.commit()?;
    /// assert_eq!(frames.get("left")?.unwrap().data(), [0.5f32, 1.5].map(f32::to_le_bytes).concat());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put). If another key with the same id was written meanwhile, [`Reservation::commit`] may give
    /// [`Error::EntryTooLong`].
    pub fn reserve(&self, key: impl AsRef<[u8]>, len: usize) -> Result<Reservation<'a>> {
        let (store, key) = (self.store, key.as_ref());
        let id = self.check_key(key)?;
        let hash = store.check_write(id, 0)?;
        let name = self.name().as_bytes();
        let expiry = self.end_of_new(None)?;
        let end = end_of(name, key, len, expiry);
        if len.saturating_add(end.len()) > store.record_size() {
            return Err(too_long(store, name, key, len.saturating_add(end.len()), 0));
        }
        let slot = store.reserve_slot(id, hash, len + end.len())?;
        let of_key = KeyedRoom { space: self.clone(), key: key.into(), end: end.into(), expiry };
        let room = Reservation { store, id, hash, slot, len, of_key: Some(of_key), at: 0, is_open: true };
        room.write_end()?;
        Ok(room)
    }
}

impl Reservation<'_> {
    /// Length of the record in bytes.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.reserve(1, 100)?.len(), 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the record has no bytes.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(store.reserve(1, 0)?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes `data` into the record, from byte `offset` on.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut record = store.reserve(1, 8)?;
    /// record.write_at(0, b"left")?;
    /// record.write_at(4, b"side")?;
    /// record.commit()?;
    /// assert_eq!(store.get(1)?.unwrap().data(), b"leftside");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::RecordTooLong`] if the bytes go beyond the reserved length: then nothing is written. [`Error::Forked`]: a reservation
    /// from before a `fork` is the parent's.
    pub fn write_at(&mut self, offset: usize, data: impl AsRef<[u8]>) -> Result<()> {
        let data = data.as_ref();
        copy_in_at(self.words(offset, data.len())?, offset, data);
        Ok(())
    }

    /// Writes `values` into the record, which is a slice of `T`, from index `index` on.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut record = store.reserve(1, 16)?;
    /// record.write_slice_at(0, &[1u64])?;
    /// record.write_slice_at(1, &[2u64])?;
    /// record.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn write_slice_at<T: Pod>(&mut self, index: usize, values: &[T]) -> Result<()> {
        self.write_at(index.saturating_mul(size_of::<T>()), bytemuck::cast_slice(values))
    }

    /// Fills the record with a byte.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut record = store.reserve(1, 3)?;
    /// record.fill(b'-')?;
    /// record.commit()?;
    /// assert_eq!(store.get(1)?.unwrap().data(), b"---");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn fill(&mut self, byte: u8) -> Result<()> {
        let chunk = [byte; CHUNK];
        (0..self.len).step_by(CHUNK).try_for_each(|at| self.write_at(at, &chunk[..CHUNK.min(self.len - at)]))
    }

    /// Reads bytes that were written, from byte `offset` on.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut record = store.reserve(1, 3)?;
    /// record.write_at(0, b"one")?;
    /// let mut last = [0; 1];
    /// record.read_at(2, &mut last)?;
    /// assert_eq!(&last, b"e");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        copy_out_at(self.words(offset, out.len())?, offset, out);
        Ok(())
    }

    /// The words of the data, if these bytes lie in the record.
    fn words(&self, offset: usize, len: usize) -> Result<&[AtomicU64]> {
        let end = offset.saturating_add(len);
        if end > self.len {
            let path = self.store.path().to_path_buf();
            return Err(Error::RecordTooLong { path, id: self.id, len: end, max: self.len });
        }
        self.all_words()
    }

    /// The words of the slot's data.
    fn all_words(&self) -> Result<&[AtomicU64]> {
        self.store.handle.check()?;
        let arena = &self.store.handle.arena;
        let words = arena.slot(self.slot).and_then(|words| words.get(HEADER_WORDS..));
        words.ok_or_else(|| arena.damaged(format!("slot {} is not in the file", self.slot)))
    }

    /// Writes the bytes behind the value of a key.
    fn write_end(&self) -> Result<()> {
        if let Some(KeyedRoom { end, .. }) = &self.of_key {
            copy_in_at(self.all_words()?, self.len, end);
        }
        Ok(())
    }

    /// The address of the room: see [`crate::bindings::room`].
    #[cfg(feature = "bindings")]
    pub(crate) fn address(&mut self) -> Result<*mut u8> {
        Ok(self.words(0, self.len)?.as_ptr().cast_mut().cast())
    }

    /// Publishes the record, with the handle's durability: from here on `get` gives it.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut record = store.reserve(1, 3)?;
    /// record.write_at(0, b"one")?;
    /// assert!(!store.contains(1)?); // nobody sees it yet
    /// record.commit()?;
    /// assert!(store.contains(1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::put`]; then the old record stays.
    pub fn commit(mut self) -> Result<Version> {
        self.publish()
    }

    /// [`commit`](Self::commit) that may be called again after an error.
    pub(crate) fn publish(&mut self) -> Result<Version> {
        let store = self.store;
        let end = self.of_key.as_ref().map_or(&[][..], |of_key| &of_key.end);
        let len = self.len + end.len();
        store.check_write(self.id, len)?;
        let mut sum = crc32fast::Hasher::new();
        let mut chunk = [0; CHUNK];
        for at in (0..self.len).step_by(CHUNK) {
            let chunk = &mut chunk[..CHUNK.min(self.len - at)];
            self.read_at(at, chunk)?;
            sum.update(chunk);
        }
        sum.update(end);
        let address = if self.of_key.is_some() { Address::Key } else { Address::Id };
        let content = Content::Reserved { slot: self.slot, address, len, sum: &sum };
        let number = store.handle.arena.geo.region_of(self.hash);
        let durability = store.handle.durability;
        let lone = durability == Durability::Disk;
        let written = store.handle.with_region(number, Changed::Record(self.hash), |region| {
            region.check_reserved(self.slot)?;
            if let Some(of_key) = &self.of_key
                && region.has_other_keys(self.hash, self.id, &of_key.end)?
            {
                return self.put_beside(region, of_key, lone);
            }
            region.put(self.hash, self.id, content, lone)
        })?;
        self.is_open = false;
        store.settle_one(durability, number, &written)
    }

    /// Writes the value of a key beside the entries of other keys with the same id, and frees the room.
    #[cold]
    fn put_beside(
        &self,
        region: &Region<'_>,
        of_key: &KeyedRoom<'_>,
        lone: bool,
    ) -> Result<Written, Trouble> {
        let mut value = vec![0; self.len];
        self.read_at(0, &mut value)?;
        let (name, expiry) = (of_key.space.name().as_bytes(), of_key.expiry);
        let entry = Entry { name, key: &of_key.key, value: &value, expiry };
        let merged = of_key.space.merged(region, self.hash, self.id, entry)?;
        let written = region.put(self.hash, self.id, Content::Bytes(&merged, Address::Key), lone)?;
        region.cancel(self.slot)?;
        Ok(written)
    }
}

/// Writes from the beginning to the end, as to a slice.
impl io::Write for Reservation<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let data = &data[..data.len().min(self.len - self.at)];
        self.write_at(self.at, data).map_err(io::Error::other)?;
        self.at += data.len();
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let handle = &self.store.handle;
        // Inside the closure of `update` the lock can't be taken. Then the room is freed when the handle is gone.
        if self.is_open && self.store.check_write(self.id, 0).is_ok() {
            let number = handle.arena.geo.region_of(self.hash);
            // If the room can't be freed now, it is freed when the handle is gone.
            let _ = handle.with_region(number, Changed::None, |region| {
                region.check_reserved(self.slot)?;
                region.cancel(self.slot)
            });
        }
    }
}
