//! Records as values of a type, by `bytemuck`.

use std::any::type_name;
use std::marker::PhantomData;

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::format::shaped::tag_of_type;
use crate::record::Version;
use crate::store::Store;
use crate::sys::atomic::Ordering;
use crate::sys::step::step;

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

/// Records of a Rust type.
impl Store {
    /// The store's records as values of `T`. A call that meets a record of another length gives an error.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let points = store.typed::<[f64; 2]>()?;
    /// points.put(1, &[0.5, 1.5])?;
    /// assert_eq!(points.get(1)?, Some([0.5, 1.5]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// As [`typed`](Self::typed). In addition, from the first call on the store keeps a tag of the type, so that no other type is
    /// taken for it. The tag is made of `name` and the size of `T`: neither a compiler nor a moved module changes it. Choose a name
    /// that means the layout, and another name whenever the layout changes. The tag is on disk when the first call returns, so the
    /// type of every record that survives a loss of power is known.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = recstore::Store::create(dir.path().join("ticks"))?;
    /// #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
    /// #[repr(C)]
    /// struct Tick {
    ///     price: f64,
    ///     volume: u64,
    /// }
    ///
    /// let ticks = store.typed_tagged::<Tick>("exchange.tick.v1")?;
    /// ticks.put(1, &Tick { price: 9.5, volume: 100 })?;
    /// assert!(store.typed_tagged::<[u64; 2]>("exchange.order.v1").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if the store is tagged with another name or size; [`Error::ReadOnly`] if it is
    /// not tagged yet and the handle may not write; [`Error::FlushFailed`]; as [`typed`](Self::typed).
    pub fn typed_tagged<T: Pod>(&self, name: &str) -> Result<Typed<'_, T>> {
        self.handle.check()?;
        let typed = self.typed()?;
        let arena = &self.handle.arena;
        let (word, mine) = (arena.control().type_tag(), tag_of_type(name, size_of::<T>()));
        let found = match word.load(Ordering::SeqCst) {
            0 => {
                self.handle.check_writable()?;
                word.compare_exchange(0, mine, Ordering::SeqCst, Ordering::SeqCst).err().unwrap_or(mine)
            }
            found => found,
        };
        if found != mine {
            let what = format!(
                "the store is tagged with another type than {name:?} of {} bytes ({})",
                size_of::<T>(),
                type_name::<T>()
            );
            return Err(Error::TypeMismatch { path: arena.path.clone(), what });
        }
        let durable = arena.control().durable_tag();
        if durable.load(Ordering::SeqCst) != mine && self.handle.is_writable() {
            // Even if another handle set it: its flush may not have returned.
            step("tag: set");
            arena.flush_control()?;
            step("tag: flushed");
            durable.store(mine, Ordering::SeqCst);
        }
        Ok(typed)
    }

    /// The store's records as slices of `T`, such as rows of a matrix, each of its own length.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let series = store.slices::<f32>()?;
    /// series.put(1, &[0.5, 1.5, 2.5])?;
    /// assert_eq!(series.get(1)?, Some(vec![0.5, 1.5, 2.5]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

/// The bytes of a record as a value, in place.
pub(super) fn as_value<'d, T: Pod>(store: &Store, id: u64, data: &'d [u8]) -> Result<&'d T> {
    bytemuck::try_from_bytes(data).map_err(|error| store.no_cast(id, error))
}

/// The bytes of a record as a slice, in place.
pub(super) fn as_slice<'d, T: Pod>(store: &Store, id: u64, data: &'d [u8]) -> Result<&'d [T]> {
    bytemuck::try_cast_slice(data).map_err(|error| store.no_cast(id, error))
}

impl<T: Pod> Typed<'_, T> {
    /// The value of this id, or `None`.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let numbers = store.typed::<u64>()?;
    /// assert_eq!(numbers.get(1)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let numbers = store.typed::<u64>()?;
    /// numbers.put(1, &7)?;
    /// assert_eq!(numbers.get(1)?, Some(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put(&self, id: u64, value: &T) -> Result<Version> {
        self.store.put(id, bytemuck::bytes_of(value))
    }

    /// Reads a value, calls `change` for the new value, and writes it, as one step: see [`Store::update`].
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let numbers = store.typed::<u64>()?;
    /// numbers.update(1, |old| Some(old.unwrap_or(0) + 1))?;
    /// assert_eq!(numbers.get(1)?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let numbers = store.typed::<u64>()?;
    /// numbers.put(1, &7)?;
    /// assert_eq!(numbers.iter().collect::<Result<Vec<_>, _>>()?, [(1, 7)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// Reads a slice into `out`, which is overwritten. Returns the version, or `None` if there is no such record.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let series = store.slices::<u32>()?;
    /// series.put(1, &[7, 8])?;
    /// let mut out = Vec::new();
    /// series.get_into(1, &mut out)?;
    /// assert_eq!(out, [7, 8]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.slices::<u32>()?.get(1)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get_into`](Self::get_into).
    pub fn get(&self, id: u64) -> Result<Option<Vec<T>>> {
        let mut slice = Vec::new();
        Ok(self.get_into(id, &mut slice)?.map(|_| slice))
    }

    /// Writes a slice.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let series = store.slices::<u32>()?;
    /// series.put(1, &[7, 8])?;
    /// series.put(2, &[])?; // each as long as it is
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put(&self, id: u64, slice: &[T]) -> Result<Version> {
        self.store.put(id, bytemuck::cast_slice(slice))
    }
}
