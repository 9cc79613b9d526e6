//! Reservations: records written where they will lie.

use std::ops::{Deref, DerefMut};

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::format::slot::HEADER_WORDS;
use crate::record::{Durability, Version};
use crate::region::owned::Content;
use crate::store::Store;
use crate::sys::mapping::exclusive;

/// Room for a record inside of the file, to be filled in place: see [`Store::reserve`].
///
/// A forked child must not touch the bytes: they are not in its memory (SIGSEGV). To drop it there is fine.
#[derive(Debug)]
pub struct Reservation<'a> {
    store: &'a Store,
    id: u64,
    hash: u64,
    slot: u32,
    data: &'a mut [u8],
    is_open: bool,
}

impl Store {
    /// Reserves room for a record of `len` bytes, to be filled in place and then committed. The region's
    /// lock is held to take the room and to commit, not in between. Until it is committed the old
    /// record stands; to drop the reservation, or to die, leaves it so.
    ///
    /// The bytes begin at a multiple of 32 and are unspecified at first: fill all of them.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn reserve(&self, id: u64, len: usize) -> Result<Reservation<'_>> {
        let hash = self.check_write(id, len)?;
        let arena = &self.handle.arena;
        let owner = arena.owner.ok_or_else(|| Error::ReadOnly { path: arena.path.clone() })?;
        let number = arena.geo.region_of(hash);
        let slot = self.handle.with_region(number, |region| region.reserve(id, owner))?;
        let words = arena.slot(slot).and_then(|words| words.get(HEADER_WORDS..));
        // SAFETY: the slot is reserved for this handle, which gives each slot to one reservation; no
        // process that keeps the protocol touches its data before it is committed or given back, and
        // the slice is not used after that.
        let data = words.and_then(|words| unsafe { exclusive(words, len) });
        let data = data.ok_or_else(|| arena.damaged(format!("slot {slot} is not in the file")))?;
        Ok(Reservation { store: self, id, hash, slot, data, is_open: true })
    }
}

impl Reservation<'_> {
    /// The bytes as a slice of `T`.
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if the length or the place is not that of a slice of `T`.
    pub fn as_mut_slice_of<T: Pod>(&mut self) -> Result<&mut [T]> {
        let path = self.store.path();
        bytemuck::try_cast_slice_mut(self.data).map_err(|error| Error::TypeMismatch {
            path: path.to_path_buf(),
            what: format!("the room for record {:#x}: {error}", self.id),
        })
    }

    /// Publishes the record, with the handle's durability: from here on it is what `get` gives.
    ///
    /// # Errors
    /// As [`Store::put`]; the old record stands then.
    pub fn commit(mut self) -> Result<Version> {
        let store = self.store;
        store.check_write(self.id, self.data.len())?;
        let mut sum = crc32fast::Hasher::new();
        sum.update(self.data);
        let content = Content::Reserved { slot: self.slot, len: self.data.len(), sum: &sum };
        let number = store.handle.arena.geo.region_of(self.hash);
        let durability = store.handle.durability;
        let written = store.handle.with_region(number, |region| {
            region.check_reserved(self.slot)?;
            region.put(self.hash, self.id, content, durability == Durability::Disk)
        })?;
        self.is_open = false;
        store.settle_one(durability, number, &written)
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.data
    }
}

impl DerefMut for Reservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.data
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let handle = &self.store.handle;
        // From inside of `update` the lock can't be taken; the room is given back with the handle then.
        if self.is_open && self.store.check_write(self.id, 0).is_ok() {
            let number = handle.arena.geo.region_of(self.hash);
            // What can't be given back now is, when the handle is gone.
            let _ = handle.with_region(number, |region| {
                region.check_reserved(self.slot)?;
                region.cancel(self.slot)
            });
        }
    }
}
