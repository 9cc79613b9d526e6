//! Pins: records read in place. The protocol is in `file::borrow`.

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::file::borrow::Borrow;
use crate::format::slot::{Address, HEADER_BYTES, HEADER_WORDS, Header};
use crate::protocol::slot::{room, unchanged};
use crate::record::Version;
use crate::region::Trouble;
use crate::region::batch::between_batches;
use crate::region::read::{Look, look, look_at_unmarked};
use crate::region::watch::Changed;
use crate::store::Store;
use crate::store::read::{Looked, look_again};
use crate::store::typed::{as_slice, as_value};
use crate::sys::mapping::frozen;

/// Reads records in place in the file, without a copy: see [`Store::pin`].
///
/// A forked child must not touch lent bytes: they are not in its memory (SIGSEGV). It may drop the pin.
///
/// All reads of a pin lend bytes of the file. No process that uses this crate changes them while the pin lives. A process that
/// writes to the file in another way can change them, and then a program that holds the slice has undefined behavior. If such
/// writers are possible, use [`Store::get`], [`Store::get_into`] and [`Store::get_many`], which copy.
#[derive(Debug)]
pub struct Pin<'a> {
    pub(super) store: &'a Store,
    borrow: Option<Borrow<'a>>,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        // A child that was forked meanwhile has a copy of the pin: the borrow is its parent's.
        if !self.store.handle.arena.file.is_ours() {
            std::mem::forget(self.borrow.take());
        }
    }
}

/// Records read in place.
impl Store {
    /// Begins to borrow from the store. Bytes that [`Pin::get`] gives stay whole and unchanged while the pin lives, even if the
    /// record is overwritten or deleted meanwhile. A pin blocks no other process. But the slots of records that are replaced
    /// meanwhile are kept, so the store may grow by as many. Drop the pin soon. A pin of a process that dies is gone with it.
    ///
    /// Each `get` is of the moment of its call. [`snapshot`](Self::snapshot) gives all records of one moment.
    ///
    /// Costs a few nanoseconds, and no system call.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let pin = store.pin()?;
    /// let lent: &[u8] = pin.get(1)?.unwrap();
    /// store.put(1, b"two")?; // what was lent stays as it is
    /// assert_eq!(lent, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ReadOnly`]: a borrow is noted in the file; [`Error::Forked`];
    /// [`Error::TooManyPins`] beyond 16,380 pins of one handle at once.
    pub fn pin(&self) -> Result<Pin<'_>> {
        self.handle.check_writable()?;
        let arena = &self.handle.arena;
        let owner = arena.owner.ok_or_else(|| Error::ReadOnly { path: arena.path.clone() })?;
        Ok(Pin { store: self, borrow: Some(Borrow::begin(arena, owner)?) })
    }
}

impl Pin<'_> {
    /// The bytes of the record with this id as they are now, or `None`. They are at a multiple of 32 bytes. The checksum is
    /// checked, unless the handle was opened without checks. Only the cost of this check depends on the length.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert_eq!(store.pin()?.get(1)?, Some(&b"one"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn get(&self, id: u64) -> Result<Option<&[u8]>> {
        Ok(self.get_versioned(id)?.map(|(_, data)| data))
    }

    /// As [`get`](Self::get), with the record's version.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let version = store.put(1, b"one")?;
    /// assert_eq!(store.pin()?.get_versioned(1)?, Some((version, &b"one"[..])));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn get_versioned(&self, id: u64) -> Result<Option<(Version, &[u8])>> {
        self.get_of(id, Address::Id)
    }

    /// The bytes of the record that is found by `address` under this id.
    pub(super) fn get_of(&self, id: u64, address: Address) -> Result<Option<(Version, &[u8])>> {
        let handle = &self.store.handle;
        handle.check()?;
        let arena = &handle.arena;
        let hash = arena.geo.hash(id);
        let found = look_again(|n| {
            let seen = match n {
                0 => look_at_unmarked(arena, hash, id, false, None),
                _ => look(arena, hash, id, false, None),
            };
            Ok(match seen {
                Look::Hit(header, slot) => match self.lend(id, header, slot)? {
                    Some(lent) if header.address() == address => Looked::Done(Some(lent)),
                    Some(_) => Looked::Done(None),
                    None => Looked::Moved,
                },
                Look::Miss => Looked::Done(None),
                Look::Damaged { slot, what } => return Err(self.store.corrupt(id, slot, what)),
                Look::Moved | Look::Broken(_) => Looked::Moved,
            })
        })?;
        found.map_or_else(|| self.get_moving(hash, id, address), Ok)
    }

    /// Reads a record that stays in motion: other processes write to its region all the while, or its owner is slow, stopped or
    /// dead. The version that a copying reader finds then was current after the borrow began, too.
    #[cold]
    fn get_moving(&self, hash: u64, id: u64, address: Address) -> Result<Option<(Version, &[u8])>> {
        let found = look_again(|_| {
            let Some((header, slot)) = self.store.read(id, address, None)? else {
                return Ok(Looked::Done(None));
            };
            Ok(self.lend(id, header, slot)?.map_or(Looked::Moved, |lent| Looked::Done(Some(lent))))
        })?;
        if let Some(found) = found {
            return Ok(found);
        }
        // Under the lock nothing is in motion.
        self.store.check_outside(hash)?;
        let number = self.store.handle.arena.geo.region_of(hash);
        self.store.handle.with_region(number, Changed::None, |region| {
            let found = self.store.read_in(region, hash, id, None)?;
            let Some((header, slot)) = found else { return Ok(None) };
            let moved = Trouble::Flaw("a slot changed under its region's lock");
            let lent = self.lend(id, header, slot)?.ok_or(moved)?;
            Ok((header.address() == address).then_some(lent))
        })
    }

    /// Lends a version that was current after the borrow began; `None` if the slot has another version by now.
    fn lend(&self, id: u64, header: Header, slot: u32) -> Result<Option<(Version, &[u8])>> {
        let handle = &self.store.handle;
        let arena = &handle.arena;
        let layout = arena.numbers.layout();
        let Some(words) = arena.slot(slot) else { return Ok(None) };
        // The version's slot is in use, so its place is right if the notes are those of the present layout.
        if !arena.has_layout(layout) {
            return Ok(None);
        }
        if header.len() > room(words).min(arena.geo.record_size as usize) {
            return Err(self.store.corrupt(id, Some(slot), "its length is impossible"));
        }
        let Some(words_of_data) = words.get(HEADER_WORDS..) else { return Ok(None) };
        // SAFETY: the version was current after the borrow began, so its slot is not written by any
        // process that keeps the protocol before the borrow ends, and the slice does not outlive
        // that (`&self`).
        let Some(data) = (unsafe { frozen(words_of_data, header.len()) }) else { return Ok(None) };
        if handle.verify_reads && header.sum(data) != header.crc() {
            if unchanged(words, header) {
                return Err(self.store.corrupt(id, Some(slot), "checksum mismatch"));
            }
            return Ok(None);
        }
        Ok(Some((Version(header.version()), data)))
    }

    /// Several records, as [`get`](Self::get). Of each [batch](Store::batch) all changes are seen or none. Other writes may come
    /// between the reads. A [snapshot](Store::snapshot) costs more to begin, and then all its reads are of one moment.
    ///
    /// Reads again if a batch was made meanwhile. If batches are made again and again, it takes the lock of batches. O(ids).
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let pin = store.pin()?;
    /// assert_eq!(pin.get_many(&[1, 2])?, [Some(&b"one"[..]), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`]; [`Error::Busy`] if a lock time-out is set; [`Error::Reentrant`].
    pub fn get_many(&self, ids: &[u64]) -> Result<Vec<Option<&[u8]>>> {
        let handle = &self.store.handle;
        let arena = &handle.arena;
        let read = || ids.iter().map(|&id| self.get(id)).collect::<Result<Vec<_>>>();
        handle.check()?;
        let found = look_again(|_| Ok(between_batches(arena, read)?.map_or(Looked::Moved, Looked::Done)))?;
        if let Some(found) = found {
            return Ok(found);
        }
        self.store.check_outside(0)?;
        let _batches = handle.lock_batches(&arena.deadline())?;
        read()
    }

    /// The record as a value of `T`, in place.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, 7u64.to_le_bytes())?;
    /// assert_eq!(store.pin()?.get_as::<u64>(1)?, Some(&7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if its length or place is not a `T`'s; as [`Store::get`].
    pub fn get_as<T: Pod>(&self, id: u64) -> Result<Option<&T>> {
        self.get(id)?.map(|data| as_value(self.store, id, data)).transpose()
    }

    /// The record as a slice of `T`, in place.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.slices::<f32>()?.put(1, &[0.5, 1.5])?;
    /// assert_eq!(store.pin()?.get_slice::<f32>(1)?, Some(&[0.5, 1.5][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if its length or place is not that of a slice of `T`; as [`Store::get`].
    pub fn get_slice<T: Pod>(&self, id: u64) -> Result<Option<&[T]>> {
        self.get(id)?.map(|data| as_slice(self.store, id, data)).transpose()
    }
}

const _: () = assert!(HEADER_BYTES == 8 * HEADER_WORDS as u64);
