//! Values of a type under keys, by `bytemuck`.

use std::marker::PhantomData;

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::format::shaped::{self, Shaped};
use crate::record::Version;
use crate::store::shape::{ValueShape, check_type_name};
use crate::store::space::Space;
use crate::store::ttl::PutOptions;

/// The values of a type in a space: see [`Space::typed`].
#[derive(Clone, Debug)]
pub struct KeyTyped<'a, T> {
    space: Space<'a>,
    name: Box<str>,
    /// The bytes behind a value.
    end: Box<[u8]>,
    of: PhantomData<fn(T) -> T>,
}

impl<'a> Space<'a> {
    /// The values of a type in this space. Each value has the name of the type behind it: `type_name`, and not the name in Rust, so
    /// neither a compiler nor a moved module changes it. A key that holds something else is an error. Choose a name that means the
    /// layout, and another name whenever the layout changes.
    ///
    /// A value takes the bytes of `T`, those of the name, and 8 bytes more. A space may hold values of many types, counters, rings, and
    /// plain bytes.
    ///
    /// ```
    /// # use recstore::{Error, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
    /// #[repr(C)]
    /// struct Tick {
    ///     price: f64,
    ///     volume: u64,
    /// }
    ///
    /// let last = store.space("last")?;
    /// let ticks = last.typed::<Tick>("exchange.tick.v1")?;
    /// ticks.put("ACME", &Tick { price: 9.5, volume: 100 })?;
    /// assert_eq!(ticks.get("ACME")?.unwrap().volume, 100);
    /// let orders = last.typed::<[u64; 2]>("exchange.order.v1")?;
    /// assert!(matches!(orders.get("ACME"), Err(Error::OtherShape { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the name is not 1 to 255 bytes long, or a `T` does not fit into a record.
    pub fn typed<T: Pod>(&self, type_name: &str) -> Result<KeyTyped<'a, T>> {
        check_type_name(type_name)?;
        let end = shaped::end_of_value(type_name, size_of::<T>());
        let (bytes, max) = (size_of::<T>() + end.len(), self.store.record_size());
        if bytes > max {
            let name = std::any::type_name::<T>();
            let what =
                format!("{name} takes {bytes} bytes with its name, and a record of the store at most {max}");
            return Err(Error::InvalidOption { what });
        }
        Ok(KeyTyped { space: self.clone(), name: type_name.into(), end: end.into(), of: PhantomData })
    }
}

impl<T: Pod> KeyTyped<'_, T> {
    /// The value of a key, or `None`.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let limits = store.space("limits")?.typed::<u64>("u64")?;
    /// assert_eq!(limits.get("user:7")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherShape`] if the key holds something else; as [`Space::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        let key = key.as_ref();
        let mut value = Vec::new();
        let found = self.space.get_into(key, &mut value)?;
        found.map(|_| self.decode(key, &value)).transpose()
    }

    /// Writes a value in place of whatever the key holds, with the handle's durability and the space's time to live.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let limits = store.space("limits")?.typed::<u64>("u64")?;
    /// limits.put("user:7", &500)?;
    /// assert_eq!(limits.get("user:7")?, Some(500));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Space::put`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: &T) -> Result<Version> {
        self.space.put(key, self.encode(value))
    }

    /// [`put`](Self::put) with the durability, the time to live, or both, of this one write.
    ///
    /// ```
    /// # use recstore::{Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let limits = store.space("limits")?.typed::<u64>("u64")?;
    /// limits.put_with("user:7", &500, Durability::Disk)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Space::put_with`].
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        options: impl Into<PutOptions>,
    ) -> Result<Version> {
        self.space.put_with(key, self.encode(value), options)
    }

    /// Reads a value, calls `change` for the new value, and writes it, as one step: see [`Store::update`](crate::Store::update).
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let limits = store.space("limits")?.typed::<u64>("u64")?;
    /// limits.update("user:7", |old| Some(old.unwrap_or(100) * 2))?;
    /// assert_eq!(limits.get("user:7")?, Some(200));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherShape`] if the key holds something else: `change` is not called; as [`Space::update`].
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnOnce(Option<T>) -> Option<T>,
    ) -> Result<Option<Version>> {
        self.update_with(key, PutOptions::default(), change)
    }

    /// [`update`](Self::update) with the durability, the time to live, or both, of this one write.
    ///
    /// ```
    /// # use recstore::{Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let limits = store.space("limits")?.typed::<u64>("u64")?;
    /// limits.update_with("user:7", Durability::Disk, |old| Some(old.unwrap_or(100) * 2))?;
    /// assert_eq!(limits.get("user:7")?, Some(200));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn update_with(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<PutOptions>,
        change: impl FnOnce(Option<T>) -> Option<T>,
    ) -> Result<Option<Version>> {
        let key = key.as_ref();
        let mut mismatch = None;
        let version = self.space.update_with(key, options, |old| {
            match old.map(|value| self.decode(key, value)).transpose() {
                Ok(old) => change(old).map(|new| self.encode(&new)),
                Err(error) => {
                    mismatch = Some(error);
                    None
                }
            }
        })?;
        mismatch.map_or(Ok(version), Err)
    }

    /// Every key that holds a value of this type, with the value, as [`Space::iter`]. Keys that hold something else are passed over.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let space = store.space("limits")?;
    /// let limits = space.typed::<u64>("u64")?;
    /// limits.put("user:7", &500)?;
    /// space.counter("changes").add(1)?;
    /// let all = limits.iter().collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(all, [(b"user:7".to_vec(), 500)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Result<(Vec<u8>, T)>> {
        self.space.iter().filter_map(|found| match found {
            Ok((key, record)) => Some(Ok((key, self.value(record.data())?))),
            Err(error) => Some(Err(error)),
        })
    }

    /// The bytes of a value, for calls that take bytes, such as [`Batch::put_in`](crate::Batch::put_in).
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let space = store.space("limits")?;
    /// let limits = space.typed::<u64>("u64")?;
    /// let mut batch = store.batch();
    /// batch.put_in(&space, "user:7", limits.encode(&500))?;
    /// batch.put_in(&space, "user:8", limits.encode(&600))?;
    /// batch.commit()?;
    /// assert_eq!(limits.get("user:8")?, Some(600));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn encode(&self, value: &T) -> Vec<u8> {
        [bytemuck::bytes_of(value), &self.end].concat()
    }

    /// The value in bytes that a call such as [`Snapshot::get_in`](crate::Snapshot::get_in) gave for a key.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let space = store.space("limits")?;
    /// let limits = space.typed::<u64>("u64")?;
    /// limits.put("user:7", &500)?;
    /// let snapshot = store.snapshot()?;
    /// let bytes = snapshot.get_in(&space, "user:7")?.unwrap();
    /// assert_eq!(limits.decode("user:7", bytes)?, 500);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherShape`] if the bytes are something else.
    pub fn decode(&self, key: impl AsRef<[u8]>, value: &[u8]) -> Result<T> {
        self.value(value).ok_or_else(|| {
            let wanted = ValueShape::Value { type_name: self.name.to_string(), size: size_of::<T>() };
            self.space.other_shape(key.as_ref(), value, &wanted)
        })
    }

    fn value(&self, value: &[u8]) -> Option<T> {
        match shaped::read(value) {
            Shaped::Value { name, content } if name == &*self.name => {
                bytemuck::try_pod_read_unaligned(content).ok()
            }
            _ => None,
        }
    }
}
