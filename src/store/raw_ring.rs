//! Rings under keys, of values of any one length.
//!
//! Key *k* of the space holds the count of the ring, its type and its capacity. A value lies under *k*, a byte 0, and the number of its
//! place, beside its number in the series. The steps are those of [`Ring`](crate::Ring):
//!
//! 1. A producer claims a number by writing its value into the number's place, under the lock of that record, if the place holds
//!    a lower number. So a number is claimed together with its value, and the claimed numbers have no gap.
//! 2. The producer then raises the count to the next number. So a reader of the count finds all values that are counted.
//! 3. If a place holds the sought number or a higher one, the count is behind: the producer is between steps 1 and 2, or died there.
//!    A search for the end of the series goes on behind that number.
//! 4. A loss of power may bring back an older count and any of the values. So the count names the life of the store in which it was
//!    written. In another life, all places are looked at.
//! 5. The record of the ring is on disk before the first value is written. So a value that survives a loss of power never meets a
//!    ring of another type.

#![cfg_attr(
    not(feature = "bindings"),
    expect(unreachable_pub, reason = "bindings to other languages use it")
)]

use crate::error::{Error, Result};
use crate::format::keyed::KEY_LEN_MAX;
use crate::format::shaped::{self, PLACE_BYTES, RingHead, Shaped, short_tag};
use crate::format::slot::FIRST_SEQ;
use crate::record::Durability;
use crate::store::entry::Life;
use crate::store::modify::Action;
use crate::store::shape::{ValueShape, check_type_name};
use crate::store::space::Space;

/// Bytes behind the key of a ring in the key of a place.
const PLACE_KEY_BYTES: usize = 9;

/// Values of a ring, at most: each is a record.
const CAPACITY_MAX: u64 = 1 << 32;

/// A ring of values of any one length.
#[derive(Clone, Copy, Debug)]
pub struct RawRing<'r, 'a> {
    pub(super) space: &'r Space<'a>,
    pub(super) key: &'r [u8],
    pub(super) name: &'r str,
    pub(super) size: usize,
    pub(super) capacity: u64,
}

impl<'r, 'a> RawRing<'r, 'a> {
    /// The ring under this key. It is not looked at.
    ///
    /// # Errors
    /// As [`Space::ring`].
    pub fn new(
        space: &'r Space<'a>,
        key: &'r [u8],
        name: &'r str,
        size: usize,
        capacity: u64,
    ) -> Result<Self> {
        check_type_name(name)?;
        if key.len() + PLACE_KEY_BYTES > KEY_LEN_MAX {
            let path = space.store.path().to_path_buf();
            return Err(Error::KeyTooLong { path, len: key.len(), max: KEY_LEN_MAX - PLACE_KEY_BYTES });
        }
        let (bytes, max) = (size.saturating_add(PLACE_BYTES), space.store.record_size());
        let what = if capacity == 0 {
            "a ring of no values".to_owned()
        } else if capacity > CAPACITY_MAX {
            format!("a ring of {capacity} values, and a store holds at most {CAPACITY_MAX} records")
        } else if bytes > max {
            format!("a ring takes {bytes} bytes a value, and a record of the store at most {max}")
        } else {
            return Ok(Self { space, key, name, size, capacity });
        };
        Err(Error::InvalidOption { what })
    }

    /// Makes the ring, if it is absent and the handle may write: steps 4 and 5.
    ///
    /// # Errors
    /// As [`Space::ring`].
    pub fn open(&self) -> Result<()> {
        let (head, is_writable) = (self.head()?, !self.space.store.is_read_only());
        match head {
            None if is_writable => self.raise_with(0, Durability::Disk),
            Some(head) if is_writable && head.life != self.life() => self.raise(self.counted()?),
            _ => Ok(()),
        }
    }

    fn shape(&self) -> ValueShape {
        ValueShape::Ring { type_name: self.name.to_owned(), size: self.size as u64, capacity: self.capacity }
    }

    fn key_of(&self, number: u64) -> Vec<u8> {
        [self.key, &[0], &(number % self.capacity).to_be_bytes()].concat()
    }

    /// The life of the store.
    fn life(&self) -> u64 {
        let arena = &self.space.store.handle.arena;
        shaped::life(&arena.uuid, arena.first_of_life())
    }

    fn head_in(&self, value: &[u8]) -> Result<RingHead> {
        match shaped::read(value) {
            Shaped::Ring { name, head }
                if name == self.name && (head.size, head.capacity) == (self.size as u64, self.capacity) =>
            {
                Ok(head)
            }
            _ => Err(self.space.other_shape(self.key, value, &self.shape())),
        }
    }

    fn head(&self) -> Result<Option<RingHead>> {
        let mut data = Vec::new();
        let found = self.space.get_into(self.key, &mut data)?;
        found.map(|_| self.head_in(&data)).transpose()
    }

    /// The number of a value of this ring, and the value. `None`: a value of a ring that there was before.
    fn in_place<'v>(&self, number: u64, value: &'v [u8]) -> Result<Option<(u64, &'v [u8])>> {
        match shaped::read(value) {
            Shaped::Place { tag, number, content } => {
                let is_ours = tag == short_tag(self.name, self.size) && content.len() == self.size;
                Ok(is_ours.then_some((number, content)))
            }
            _ => {
                let wanted = ValueShape::RingPlace { number, size: self.size };
                Err(self.space.other_shape(&self.key_of(number), value, &wanted))
            }
        }
    }

    /// The number behind this one.
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if there is none: a place of the ring has a number that no push gave.
    pub fn after(&self, number: u64) -> Result<u64> {
        number.checked_add(1).ok_or_else(|| {
            let what = format!("a value of the ring under {:?} has number 2^64-1", self.key.escape_ascii());
            Error::TypeMismatch { path: self.space.store.path().to_path_buf(), what }
        })
    }

    /// The number of the value in a place. `data`: a buffer.
    fn number_at(&self, place: u64, data: &mut Vec<u8>) -> Result<Option<u64>> {
        match self.space.get_into(self.key_of(place), data)? {
            Some(_) => Ok(self.in_place(place, data)?.map(|(number, _)| number)),
            None => Ok(None),
        }
    }

    /// The count: step 4.
    fn counted(&self) -> Result<u64> {
        let head = self.head()?;
        let (count, life) = head.map_or((0, 0), |head| (head.count, head.life));
        // The places of an absent ring are those of a deleted one. They are passed over by step 3, unless power was lost.
        let is_first_life = self.space.store.handle.arena.first_of_life() == FIRST_SEQ;
        if life == self.life() || head.is_none() && is_first_life {
            return Ok(count);
        }
        let (mut end, mut data) = (count, Vec::new());
        for place in 0..self.capacity {
            if let Some(number) = self.number_at(place, &mut data)? {
                end = end.max(self.after(number)?);
            }
        }
        Ok(end)
    }

    /// Raises the count to `next`: step 2.
    ///
    /// # Errors
    /// As [`Space::update`].
    pub fn raise(&self, next: u64) -> Result<()> {
        self.raise_with(next, Durability::Process) // Step 4 finds the count again.
    }

    fn raise_with(&self, next: u64, durability: Durability) -> Result<()> {
        let life = self.life();
        let is_first_life = self.space.store.handle.arena.first_of_life() == FIRST_SEQ;
        let raised = self.space.change(self.key, durability, Life::Renewed(None), |old| {
            let head = match old.map(|(_, value)| self.head_in(value)).transpose() {
                Ok(head) => head,
                Err(error) => return (Action::Keep, Err(error)),
            };
            if head.is_some_and(|head| head.life == life && head.count >= next) {
                return (Action::Keep, Ok(()));
            }
            let count = head.map_or(0, |head| head.count).max(next);
            // A new ring under the key of an older one knows nothing of its places.
            let life = if head.is_none() && !is_first_life && next == 0 { 0 } else { life };
            let head = RingHead { count, capacity: self.capacity, size: self.size as u64, life };
            (Action::Put(shaped::ring(self.name, &head)), Ok(()))
        });
        raised?.1
    }

    /// Step 1. Returns the number.
    ///
    /// # Errors
    /// As [`Space::update`].
    pub fn claim(&self, value: &[u8]) -> Result<u64> {
        let mut number = self.counted()?;
        let tag = short_tag(self.name, self.size);
        let mut data = Vec::with_capacity(value.len() + PLACE_BYTES);
        loop {
            data.clear();
            data.extend_from_slice(value);
            data.extend_from_slice(&shaped::end_of_place(tag, number));
            let place = self.key_of(number);
            let durability = self.space.store.handle.durability;
            let claimed = self.space.change(&place, durability, Life::Renewed(None), |old| {
                let there = match old.map(|(_, value)| self.in_place(number, value)).transpose() {
                    Ok(there) => there.flatten().map(|(there, _)| there).filter(|&there| there >= number),
                    Err(error) => return (Action::Keep, Err(error)),
                };
                (there.map_or(Action::Put(&data), |_| Action::Keep), Ok(there))
            });
            match claimed?.1? {
                None => return Ok(number),
                Some(there) => number = self.after(there)?,
            }
        }
    }

    /// The number of values that were ever appended.
    ///
    /// # Errors
    /// As [`Space::get`].
    pub fn pushed(&self) -> Result<u64> {
        let mut count = self.counted()?;
        let mut data = Vec::new();
        // Each turn of the loop comes to a higher number.
        while let Some(there) = self.number_at(count, &mut data)?.filter(|&there| there >= count) {
            count = self.after(there)?;
        }
        Ok(count)
    }

    /// Gives the value with this number to `give`, if it is there. `data`: a buffer.
    ///
    /// # Errors
    /// As [`Space::get`].
    pub fn read<T>(
        &self,
        number: u64,
        data: &mut Vec<u8>,
        give: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        if self.space.get_into(self.key_of(number), data)?.is_none() {
            return Ok(None);
        }
        let found = self.in_place(number, data)?;
        Ok(found.filter(|(there, _)| *there == number).map(|(_, value)| give(value)))
    }

    /// Deletes the values and then the ring. Returns whether it was there.
    pub(super) fn delete(&self) -> Result<bool> {
        let head = self.head()?;
        for place in 0..self.capacity.min(self.pushed()?) {
            self.space.delete(self.key_of(place))?;
        }
        Ok(head.is_some() && self.space.delete(self.key)?)
    }
}
