//! Records as values of a type, by `bytemuck`.

use std::any::type_name;
use std::marker::PhantomData;

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::format::{control, hash};
use crate::record::Version;
use crate::store::Store;
use crate::sys::atomic::Ordering;

/// A store whose records are values of `T`: see [`Store::typed`].
#[derive(Debug)]
pub struct Typed<'a, T> {
    store: &'a Store,
    of: PhantomData<fn(T) -> T>,
}

/// A store whose records are slices of `T`: see [`Store::slices`].
#[derive(Debug)]
pub struct Slices<'a, T> {
    store: &'a Store,
    of: PhantomData<fn(T) -> T>,
}

/// A hash of the type's name and size.
fn tag<T>() -> u64 {
    let of_name = type_name::<T>().bytes().fold(0, |h, b| hash::hash(h, u64::from(b)));
    hash::hash(of_name, size_of::<T>() as u64).max(1)
}

impl Store {
    /// The store's records as values of `T`. A record of another length is an error where it is met.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a `T` does not fit into a record.
    pub fn typed<T: Pod>(&self) -> Result<Typed<'_, T>> {
        if size_of::<T>() > self.record_size() {
            let (name, size, max) = (type_name::<T>(), size_of::<T>(), self.record_size());
            let what = format!("{name} takes {size} bytes, and a record of the store at most {max}");
            return Err(Error::InvalidOption { what });
        }
        Ok(Typed { store: self, of: PhantomData })
    }

    /// As [`typed`](Self::typed); and the store keeps a tag of the type, its name and size, from the
    /// first call on, so that no other type is taken for it.
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if the store is tagged with another type; [`Error::ReadOnly`] if it is
    /// not tagged yet and the handle may not write; as [`typed`](Self::typed).
    pub fn typed_tagged<T: Pod>(&self) -> Result<Typed<'_, T>> {
        self.handle.check()?;
        let typed = self.typed()?;
        let (word, mine) = (self.handle.arena.word(control::TYPE_TAG), tag::<T>());
        let found = match word.load(Ordering::SeqCst) {
            0 => {
                self.handle.check_writable()?;
                word.compare_exchange(0, mine, Ordering::SeqCst, Ordering::SeqCst).err().unwrap_or(mine)
            }
            found => found,
        };
        if found != mine {
            let what = format!("the store is tagged with another type than {}", type_name::<T>());
            return Err(Error::TypeMismatch { path: self.handle.arena.path.clone(), what });
        }
        Ok(typed)
    }

    /// The store's records as slices of `T`, such as rows of a matrix, each of its own length.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if `T` has no size, or one does not fit into a record.
    pub fn slices<T: Pod>(&self) -> Result<Slices<'_, T>> {
        self.typed::<T>()?;
        if size_of::<T>() == 0 {
            return Err(Error::InvalidOption { what: format!("{} has no size", type_name::<T>()) });
        }
        Ok(Slices { store: self, of: PhantomData })
    }

    #[cold]
    fn mismatch<T>(&self, id: u64, len: usize, wanted: &str) -> Error {
        let what = format!("record {id:#x} is {len} bytes long, and {} takes {wanted}", type_name::<T>());
        Error::TypeMismatch { path: self.handle.arena.path.clone(), what }
    }

    #[cold]
    fn no_cast(&self, id: u64, error: bytemuck::PodCastError) -> Error {
        let path = self.handle.arena.path.clone();
        Error::TypeMismatch { path, what: format!("record {id:#x}: {error}") }
    }
}

/// The bytes of a record as a value, where they lie.
pub(super) fn as_value<'d, T: Pod>(store: &Store, id: u64, data: &'d [u8]) -> Result<&'d T> {
    bytemuck::try_from_bytes(data).map_err(|error| store.no_cast(id, error))
}

/// The bytes of a record as a slice, where they lie.
pub(super) fn as_slice<'d, T: Pod>(store: &Store, id: u64, data: &'d [u8]) -> Result<&'d [T]> {
    bytemuck::try_cast_slice(data).map_err(|error| store.no_cast(id, error))
}

impl<T: Pod> Typed<'_, T> {
    /// The value of this id, or `None`.
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if the record has another length; as [`Store::get`].
    pub fn get(&self, id: u64) -> Result<Option<T>> {
        let mut data = Vec::with_capacity(size_of::<T>());
        let found = self.store.get_into(id, &mut data)?;
        found.map(|_| self.value(id, &data)).transpose()
    }

    /// Writes a value.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put(&self, id: u64, value: &T) -> Result<Version> {
        self.store.put(id, bytemuck::bytes_of(value))
    }

    /// Reads a value, lets `change` say what it becomes, and writes that, as one step: see
    /// [`Store::update`].
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if the record has another length; as [`Store::update`].
    pub fn update(&self, id: u64, change: impl FnOnce(Option<T>) -> Option<T>) -> Result<Option<Version>> {
        let mut mismatch = None;
        let version = self.store.update(id, |old| {
            let old = old.map(|data| self.value(id, data)).transpose();
            let new = old.map(change).unwrap_or_else(|error| {
                mismatch = Some(error);
                None
            });
            new.map(|value| bytemuck::bytes_of(&value).to_vec())
        })?;
        mismatch.map_or(Ok(version), Err)
    }

    /// Every value with its id, as [`Store::iter`].
    pub fn iter(&self) -> impl Iterator<Item = Result<(u64, T)>> {
        self.store.iter().map(|record| {
            let record = record?;
            Ok((record.id(), self.value(record.id(), &record)?))
        })
    }

    fn value(&self, id: u64, data: &[u8]) -> Result<T> {
        let wrong = || self.store.mismatch::<T>(id, data.len(), &format!("{} bytes", size_of::<T>()));
        bytemuck::try_pod_read_unaligned(data).map_err(|_| wrong())
    }
}

impl<T: Pod> Slices<'_, T> {
    /// Reads a slice into `out`, which is overwritten; its version, or `None` if there is none.
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if the record's length is no multiple of the type's; as [`Store::get`].
    pub fn get_into(&self, id: u64, out: &mut Vec<T>) -> Result<Option<Version>> {
        let mut data = Vec::new();
        let version = self.store.get_into(id, &mut data)?;
        out.clear();
        if version.is_some() {
            if data.len() % size_of::<T>() != 0 {
                let wanted = format!("a multiple of {}", size_of::<T>());
                return Err(self.store.mismatch::<T>(id, data.len(), &wanted));
            }
            out.resize(data.len() / size_of::<T>(), T::zeroed());
            bytemuck::cast_slice_mut(out).copy_from_slice(&data);
        }
        Ok(version)
    }

    /// The slice of this id, or `None`.
    ///
    /// # Errors
    /// As [`get_into`](Self::get_into).
    pub fn get(&self, id: u64) -> Result<Option<Vec<T>>> {
        let mut slice = Vec::new();
        Ok(self.get_into(id, &mut slice)?.map(|_| slice))
    }

    /// Writes a slice.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put(&self, id: u64, slice: &[T]) -> Result<Version> {
        self.store.put(id, bytemuck::cast_slice(slice))
    }
}
