//! Rings: the last values of a series.

use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::store::Store;

/// A bounded series of values that any number of processes append to: see [`Store::ring`].
#[derive(Debug)]
pub struct Ring<'a, T> {
    store: &'a Store,
    base: u64,
    len: u64,
    of: PhantomData<fn(T) -> T>,
}

/// The number of a value and, behind it, the value.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Place {
    number: u64,
}

impl Store {
    /// A ring of `len` values of `T` in the ids `base` (which counts them) to `base + len`. The oldest
    /// is overwritten first. All who use it must give the same numbers.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if `len` is 0, the ids go beyond 2^64, or 8 bytes and a `T` don't fit
    /// into a record.
    pub fn ring<T: Pod>(&self, base: u64, len: u64) -> Result<Ring<'_, T>> {
        let bytes = size_of::<Place>() + size_of::<T>();
        let what = if len == 0 {
            "a ring of no values".to_owned()
        } else if base.checked_add(len).is_none() {
            format!("a ring of {len} values from id {base:#x}: its ids go beyond 2^64")
        } else if bytes > self.record_size() {
            format!(
                "a ring takes {bytes} bytes a value, and a record of the store at most {}",
                self.record_size()
            )
        } else {
            return Ok(Ring { store: self, base, len, of: PhantomData });
        };
        Err(Error::InvalidOption { what })
    }
}

impl<T: Pod> Ring<'_, T> {
    /// Appends a value; its number in the series, from 0. A producer that dies in the middle leaves a
    /// number without a value, which readers pass over.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn push(&self, value: &T) -> Result<u64> {
        let number = self.store.counter(self.base).add(1)? - 1;
        let mut data = Vec::with_capacity(size_of::<Place>() + size_of::<T>());
        data.extend_from_slice(bytemuck::bytes_of(&Place { number }));
        data.extend_from_slice(bytemuck::bytes_of(value));
        // Between the two steps another producer may have come round the whole ring.
        self.store.update(self.id(number), |old| {
            let overtaken = old.and_then(read::<T>).is_some_and(|(there, _)| there > number);
            (!overtaken).then_some(&data)
        })?;
        Ok(number)
    }

    /// How many values were appended, all in all.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn pushed(&self) -> Result<u64> {
        self.store.counter(self.base).get()
    }

    /// The latest `count` values or fewer, the oldest first, each with its number. Values that are
    /// overwritten meanwhile are left out, as are those that are still being appended.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn latest(&self, count: u64) -> Result<Vec<(u64, T)>> {
        self.iter_from(self.pushed()?.saturating_sub(count)).collect()
    }

    /// All values that are there, the oldest first, each with its number.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn iter(&self) -> Result<impl Iterator<Item = Result<(u64, T)>>> {
        Ok(self.iter_from(self.pushed()?.saturating_sub(self.len)))
    }

    /// The values from this number on, up to what is appended when the iterator comes there.
    ///
    /// A number that is passed over was overwritten before the iterator came to it, or belongs to a producer that is
    /// not done with it, or died. Who counts gaps takes them from the numbers that came, after reading, and not from
    /// [`pushed`](Self::pushed) beforehand: producers may overtake the iterator while it reads.
    pub fn iter_from(&self, first: u64) -> impl Iterator<Item = Result<(u64, T)>> {
        let mut next = first;
        let mut end = 0;
        let mut data = Vec::new();
        std::iter::from_fn(move || {
            loop {
                if next >= end {
                    match self.pushed() {
                        Ok(pushed) if next < pushed => end = pushed,
                        Ok(_) => return None,
                        Err(error) => {
                            next = u64::MAX;
                            return Some(Err(error));
                        }
                    }
                    next = next.max(end.saturating_sub(self.len));
                }
                let number = next;
                next += 1;
                match self.store.get_into(self.id(number), &mut data) {
                    Ok(Some(_)) => match read::<T>(&data) {
                        Some((there, value)) if there == number => return Some(Ok((number, value))),
                        _ => {}
                    },
                    Ok(None) => {}
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    fn id(&self, number: u64) -> u64 {
        self.base + 1 + number % self.len
    }
}

fn read<T: Pod>(data: &[u8]) -> Option<(u64, T)> {
    let (place, value) = data.split_at_checked(size_of::<Place>())?;
    let place: Place = bytemuck::try_pod_read_unaligned(place).ok()?;
    Some((place.number, bytemuck::try_pod_read_unaligned(value).ok()?))
}
