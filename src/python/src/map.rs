//! A mapping over the records of a store or of a space: what `Store` and `Space` inherit from.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use pyo3::exceptions::{PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use recstore::{Action, Durability, Error, PutOptions, Space, Swap, Ttl, Version};

use crate::error::exception;
use crate::handle::{Core, Handle, Opened, SpaceOf, seconds};
use crate::items::{Items, What};
use crate::key::{Key, KeyType};
use crate::value::{Codec, bytes_of, decoded, encoded};

thread_local! {
    /// The record that is read, so that reads use one allocation again and again.
    static DATA: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A larger buffer is not kept.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// More bytes than these are written and read without the interpreter's lock.
const LARGE_BYTES: usize = 64 << 10;

/// The records that a map is of.
pub(crate) enum Scope {
    /// Those that are found by ids, and the keys of the store's own space.
    Store,
    /// The keys of a space. It belongs to a handle that is open, and is made anew with that.
    Space { name: String, ttl: Option<Duration>, made: Arc<ArcSwapOption<SpaceOf>> },
}

impl Scope {
    pub(crate) fn of_space(core: &Core, name: String, ttl: Option<Duration>) -> Self {
        Self::Space { name, ttl, made: core.cache() }
    }

    /// The space of keys.
    pub(crate) fn space(&self, attached: &Arc<SpaceOf>) -> recstore::Result<Arc<SpaceOf>> {
        let Self::Space { name, ttl, made } = self else { return Ok(Arc::clone(attached)) };
        if let Some(space) = made.load_full()
            && Arc::ptr_eq(space.opened(), attached.opened())
        {
            return Ok(space);
        }
        let space = Arc::new(SpaceOf::make(attached.opened(), name, *ttl)?);
        made.store(Some(Arc::clone(&space)));
        Ok(space)
    }
}

/// The place of a record: an id, or a key of a space.
pub(crate) enum At<'a> {
    Id(&'a Arc<Opened>, u64),
    Key(&'a Space<'a>, &'a [u8]),
}

/// A mapping over records.
#[pyclass(frozen, subclass, weakref, module = "recstore._native")]
pub(crate) struct Map {
    pub(crate) handle: Py<Handle>,
    pub(crate) core: Arc<Core>,
    pub(crate) scope: Arc<Scope>,
    pub(crate) keys: KeyType,
    pub(crate) codec: Option<Arc<Codec>>,
}

impl Map {
    /// The key that an object is here.
    #[inline]
    pub(crate) fn key<'k>(&self, key: &'k Bound<'_, PyAny>) -> PyResult<Key<'k>> {
        let key = Key::of(key)?;
        Ok(match *self.scope {
            Scope::Store => key,
            Scope::Space { .. } => Key::Bytes(key.in_space()),
        })
    }

    /// Calls `work` for the place of a key, as [`Core::call`].
    #[inline]
    pub(crate) fn call<T: Send>(
        &self,
        py: Python<'_>,
        key: &Key<'_>,
        work: impl Fn(At<'_>) -> recstore::Result<T> + Sync,
    ) -> PyResult<T> {
        self.core.call(py, |attached| self.at(attached, key, &work))
    }

    /// The same without the interpreter's lock from the beginning on.
    pub(crate) fn wait<T: Send>(
        &self,
        py: Python<'_>,
        key: &Key<'_>,
        work: impl Fn(At<'_>) -> recstore::Result<T> + Sync,
    ) -> PyResult<T> {
        self.core.wait(py, |attached| self.at(attached, key, &work))
    }

    #[inline]
    fn at<T>(
        &self,
        attached: &Arc<SpaceOf>,
        key: &Key<'_>,
        work: impl FnOnce(At<'_>) -> recstore::Result<T>,
    ) -> recstore::Result<T> {
        match (key, &*self.scope) {
            (Key::Id(id), _) => work(At::Id(attached.opened(), *id)),
            (Key::Bytes(key), Scope::Store) => work(At::Key(attached.space(), key)),
            (Key::Bytes(key), scope) => work(At::Key(scope.space(attached)?.space(), key)),
        }
    }

    /// Whether a write is durable.
    pub(crate) fn is_durable(&self, durable: Option<bool>) -> bool {
        durable.unwrap_or(self.core.is_durable)
    }

    /// Flushes after a write that asked for it.
    fn settle(&self, py: Python<'_>, durable: Option<bool>) -> PyResult<()> {
        if self.is_durable(durable) { self.core.sync(py) } else { Ok(()) }
    }

    /// Reads a record, and gives its version and its bytes to `give`.
    #[inline]
    fn read<'py, T>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        give: impl FnOnce(Version, &[u8]) -> PyResult<T>,
    ) -> PyResult<Option<T>> {
        let key = self.key(key)?;
        // Nothing that is called while the buffer is borrowed gets back here, or runs code of the user: `give` gets it alone.
        let mut data = DATA.take();
        let found = self.read_into(py, &key, &mut data);
        let given = match found {
            Ok(Some(version)) => give(version, &data).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        if data.capacity() <= KEPT_BYTES_MAX {
            DATA.set(data);
        }
        given
    }

    #[inline]
    fn read_into(&self, py: Python<'_>, key: &Key<'_>, out: &mut Vec<u8>) -> PyResult<Option<Version>> {
        let read = |at: At<'_>, out: &mut Vec<u8>| match at {
            At::Id(store, id) => store.get_into(id, out),
            At::Key(space, key) => space.get_into(key, out),
        };
        // As `call` begins. The buffer is shared with no other thread here.
        let found = self.core.try_call(|attached| self.at(attached, key, |at| read(at, out)));
        if let Some(Ok(found)) = found {
            return Ok(found);
        }
        let shared = std::sync::Mutex::new(out);
        self.call(py, key, |at| {
            read(at, &mut shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
        })
    }

    /// The value of a record's bytes.
    #[inline]
    pub(crate) fn value<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        decoded(py, self.codec.as_deref(), data)
    }

    fn put_bytes(
        &self,
        py: Python<'_>,
        key: &Key<'_>,
        data: &[u8],
        durable: Option<bool>,
        ttl: Option<Duration>,
    ) -> PyResult<u64> {
        let is_durable = self.is_durable(durable);
        let durability = if is_durable { Durability::Disk } else { Durability::Process };
        let options = match ttl {
            Some(ttl) => PutOptions::from((Ttl::after(ttl), durability)),
            None => PutOptions::from(durability),
        };
        let work = |at: At<'_>| match at {
            At::Id(_, id) if ttl.is_some() => Err(of_no_key(id)),
            At::Id(store, id) => store.put_with(id, data, durability),
            At::Key(space, key) => space.put_with(key, data, options),
        };
        // If it is made again after its flush met a lock, it writes the same again.
        let version = if is_durable || data.len() > LARGE_BYTES {
            self.wait(py, key, work)
        } else {
            self.call(py, key, work)
        };
        version.map(Version::get)
    }

    fn delete_key(&self, py: Python<'_>, key: &Key<'_>) -> PyResult<bool> {
        self.call(py, key, |at| match at {
            At::Id(store, id) => store.delete(id),
            At::Key(space, key) => space.delete(key),
        })
    }

    /// Changes a record as one step. `change` may be called again if the store has to grow meanwhile, and another process is
    /// growing it.
    fn change<T: Send>(
        &self,
        py: Python<'_>,
        key: &Key<'_>,
        change: impl Fn(Option<&[u8]>) -> PyResult<(Action<Vec<u8>>, T)> + Sync,
    ) -> PyResult<T> {
        enum Failure {
            Store(Error),
            Python(PyErr),
        }
        impl From<Error> for Failure {
            fn from(error: Error) -> Self {
                Self::Store(error)
            }
        }
        let changed = self.call(py, key, |at| {
            let change = |old: Option<&[u8]>| change(old).map_err(Failure::Python);
            let changed = match at {
                At::Id(store, id) => store.modify(id, change),
                At::Key(space, key) => space.modify(key, change),
            };
            match changed {
                Ok(value) => Ok(Ok(value)),
                Err(Failure::Python(error)) => Ok(Err(error)),
                Err(Failure::Store(error)) => Err(error),
            }
        })?;
        changed
    }

    /// A key as an object.
    pub(crate) fn give_key<'py>(&self, py: Python<'py>, key: &Key<'_>) -> PyResult<Bound<'py, PyAny>> {
        match key {
            Key::Id(id) => Ok(id.into_pyobject(py)?.into_any()),
            Key::Bytes(key) => self.keys.give(py, key),
        }
    }

    pub(crate) fn items(slf: &Bound<'_, Self>, what: What) -> PyResult<Items> {
        let map = slf.get();
        let attached = map.core.attached(slf.py())?;
        // A forked child opens the store first.
        map.core.call(slf.py(), |attached| attached.opened().contains(0))?;
        let attached = if attached.opened().is_ours() { attached } else { map.core.attached(slf.py())? };
        let space = map.scope.space(&attached).map_err(|error| exception(slf.py(), &error))?;
        let with_ids = matches!(*map.scope, Scope::Store);
        Ok(Items::new(slf.clone().unbind(), what, with_ids.then(|| Arc::clone(attached.opened())), space))
    }
}

#[pymethods]
impl Map {
    #[new]
    #[pyo3(signature = (handle, space, keys, codec, ttl = None))]
    fn new(
        py: Python<'_>,
        handle: Py<Handle>,
        space: Option<String>,
        keys: &str,
        codec: &Bound<'_, PyAny>,
        ttl: Option<f64>,
    ) -> PyResult<Self> {
        let ttl = seconds("ttl", ttl)?;
        let core = Arc::clone(&handle.get().core);
        let scope = Arc::new(match space {
            None => Scope::Store,
            Some(name) => Scope::of_space(&core, name, ttl),
        });
        core.call(py, |attached| scope.space(attached).map(drop))?; // A name that is none is refused here.
        let codec = Codec::of(codec)?.map(Arc::new);
        Ok(Self { handle, core, scope, keys: KeyType::of(keys)?, codec })
    }

    #[getter]
    fn _handle(&self, py: Python<'_>) -> Py<Handle> {
        self.handle.clone_ref(py)
    }

    #[getter]
    fn _space(&self) -> Option<&str> {
        match &*self.scope {
            Scope::Store => None,
            Scope::Space { name, .. } => Some(name),
        }
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.read(py, key, |_, data| Ok(PyBytes::new(py, data)))? {
            Some(data) => self.of_bytes(data),
            None => Err(PyKeyError::new_err(key.clone().unbind())),
        }
    }

    fn __setitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.put(py, key, value, None, None).map(drop)
    }

    fn __delitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.delete(py, key, None)? { Ok(()) } else { Err(PyKeyError::new_err(key.clone().unbind())) }
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.version(py, key)?.is_some())
    }

    /// A pass over all records.
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let count = self.core.wait(py, |attached| {
            let mut count = self.scope.space(attached)?.space().len()?;
            if matches!(*self.scope, Scope::Store) {
                attached.opened().scan(|_, _, _| {
                    count += 1;
                    std::ops::ControlFlow::Continue(())
                })?;
            }
            Ok(count)
        })?;
        Ok(usize::try_from(count)?)
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        self.core.wait(py, |attached| {
            let mut is_there = !self.scope.space(attached)?.space().is_empty()?;
            if !is_there && matches!(*self.scope, Scope::Store) {
                attached.opened().scan(|_, _, _| {
                    is_there = true;
                    std::ops::ControlFlow::Break(())
                })?;
            }
            Ok(is_there)
        })
    }

    fn __iter__(slf: &Bound<'_, Self>) -> PyResult<Items> {
        Self::items(slf, What::Keys)
    }

    fn _items(slf: &Bound<'_, Self>) -> PyResult<Items> {
        Self::items(slf, What::Items)
    }

    fn _values(slf: &Bound<'_, Self>) -> PyResult<Items> {
        Self::items(slf, What::Values)
    }

    /// The value of a key, or `default` if there is none.
    #[pyo3(signature = (key, default = None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.read(py, key, |_, data| Ok(PyBytes::new(py, data)))? {
            Some(data) => self.of_bytes(data).map(Some),
            None => Ok(default),
        }
    }

    /// The value of a key and its version, or None. A version rises with every write, and is never used again.
    #[pyo3(signature = (key, /))]
    fn get_versioned<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Bound<'py, PyAny>, u64)>> {
        let found = self.read(py, key, |version, data| Ok((PyBytes::new(py, data), version.get())))?;
        found.map(|(data, version)| Ok((self.of_bytes(data)?, version))).transpose()
    }

    /// The values of many keys, in their order; None for a key that is not there. The reads are not of one moment.
    #[pyo3(signature = (keys, /))]
    fn get_many<'py>(&self, py: Python<'py>, keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let objects = keys.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let keys = objects.iter().map(|key| self.key(key)).collect::<PyResult<Vec<_>>>()?;
        let found = self.core.wait(py, |attached| {
            let space = self.scope.space(attached)?;
            let mut data = Vec::new();
            keys.iter()
                .map(|key| {
                    let version = match key {
                        Key::Id(id) => attached.opened().get_into(*id, &mut data)?,
                        Key::Bytes(key) => space.space().get_into(key, &mut data)?,
                    };
                    Ok(version.map(|_| data.clone()))
                })
                .collect::<recstore::Result<Vec<_>>>()
        })?;
        let values = found.iter().map(|data| data.as_ref().map(|data| self.value(py, data)).transpose());
        PyList::new(py, values.collect::<PyResult<Vec<_>>>()?)
    }

    /// The version of a key, or None if there is none.
    #[pyo3(signature = (key, /))]
    fn version(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let key = self.key(key)?;
        let version = self.call(py, &key, |at| match at {
            At::Id(store, id) => store.version(id),
            At::Key(space, key) => space.version(key),
        })?;
        Ok(version.map(Version::get))
    }

    /// Writes a value, and returns its version. Once it returns, the death of any process can't lose the value. With `durable`, a
    /// loss of power can't lose it either. With `ttl`, the key is absent after so many seconds; an int as an id has no time to live.
    #[pyo3(signature = (key, value, /, *, durable = None, ttl = None))]
    fn put(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        durable: Option<bool>,
        ttl: Option<f64>,
    ) -> PyResult<u64> {
        let key = self.key(key)?;
        let value = encoded(self.codec.as_deref(), value)?;
        self.put_bytes(py, &key, &bytes_of(&value)?, durable, seconds("ttl", ttl)?)
    }

    /// Gives a key another time to live, in seconds from now on (None: without end), and does not write its value again if that is
    /// later. Returns whether the key was there.
    #[pyo3(signature = (key, ttl, /))]
    fn touch(&self, py: Python<'_>, key: &Bound<'_, PyAny>, ttl: Option<f64>) -> PyResult<bool> {
        let ttl = seconds("ttl", ttl)?.map_or(Ttl::NEVER, Ttl::after);
        let key = self.key(key)?;
        self.call(py, &key, |at| match at {
            At::Id(_, id) => Err(of_no_key(id)),
            At::Key(space, key) => space.touch(key, ttl),
        })
    }

    /// The moment from which on a key is absent, in seconds since 1970. None if there is no such key, or if it has no end.
    #[pyo3(signature = (key, /))]
    fn expires_at(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let key = self.key(key)?;
        let end = self.call(py, &key, |at| match at {
            At::Id(..) => Ok(None),
            At::Key(space, key) => space.expires_at(key),
        })?;
        Ok(end.map(|end: SystemTime| end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()))
    }

    /// Deletes a key. Returns whether it was there.
    #[pyo3(signature = (key, /, *, durable = None))]
    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>, durable: Option<bool>) -> PyResult<bool> {
        let deleted = self.delete_key(py, &self.key(key)?)?;
        self.settle(py, durable)?;
        Ok(deleted)
    }

    /// Writes many values, given as pairs, with one flush if they are to be durable. Returns their number. This is not one step: see
    /// `batch`.
    #[pyo3(signature = (pairs, /, *, durable = None))]
    fn put_many(&self, py: Python<'_>, pairs: &Bound<'_, PyAny>, durable: Option<bool>) -> PyResult<usize> {
        let mut by_id = Vec::new();
        let mut by_key = Vec::new();
        for pair in pairs.try_iter()? {
            let (key, value) = pair?.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            let value = encoded(self.codec.as_deref(), &value)?;
            let value = bytes_of(&value)?.into_owned();
            match self.key(&key)? {
                Key::Id(id) => by_id.push((id, value)),
                Key::Bytes(key) => by_key.push((key.into_owned(), value)),
            }
        }
        let written = self.core.wait(py, |attached| {
            let lent = by_id.iter().map(|(id, value)| (*id, value));
            let ids = attached.opened().write_many(lent)?;
            let keys = by_key.iter().map(|(key, value)| (key, value));
            Ok(ids + self.scope.space(attached)?.space().write_many(keys)?)
        })?;
        self.settle(py, durable)?;
        Ok(written)
    }

    /// Writes a value if the key's version is `expected` (None: there is no such key). Returns the new version, or None if another
    /// version is there: then nothing was written.
    #[pyo3(signature = (key, expected, value, /, *, durable = None))]
    fn compare_and_swap(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        expected: Option<u64>,
        value: &Bound<'_, PyAny>,
        durable: Option<bool>,
    ) -> PyResult<Option<u64>> {
        let key = self.key(key)?;
        let value = encoded(self.codec.as_deref(), value)?;
        let value = bytes_of(&value)?;
        let expected = expected.map(Version::from_u64);
        let swap = self.call(py, &key, |at| match at {
            At::Id(store, id) => store.compare_and_swap(id, expected, &value),
            At::Key(space, key) => space.compare_and_swap(key, expected, &value),
        })?;
        match swap {
            Swap::Done(version) => {
                self.settle(py, durable)?;
                Ok(Some(version.get()))
            }
            Swap::Conflict { .. } => Ok(None),
        }
    }

    /// The value of a key. If there is none, `default` is written first. Of several calls at the same time one writes.
    #[pyo3(signature = (key, default, /))]
    fn setdefault<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        loop {
            if let Some(value) = self.get(py, key, None)? {
                return Ok(value);
            }
            if self.compare_and_swap(py, key, None, default, None)?.is_some() {
                return Ok(default.clone());
            }
        }
    }

    /// Deletes a key as one step, and returns its value. Without the key, returns `default` if it is given.
    #[pyo3(signature = (key, /, *default))]
    fn pop<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if default.len() > 1 {
            return Err(PyTypeError::new_err(format!(
                "pop takes 1 or 2 arguments, and got {}",
                default.len() + 1
            )));
        }
        let taken = self.change(py, &self.key(key)?, |old| Ok((Action::Delete, old.map(<[u8]>::to_vec))))?;
        match taken {
            Some(data) => {
                self.settle(py, None)?;
                self.value(py, &data)
            }
            None if default.is_empty() => Err(PyKeyError::new_err(key.clone().unbind())),
            None => default.get_item(0),
        }
    }

    /// Changes a value as one step: no other writer, in any thread or process, comes between. `change` gets the value, or None if there
    /// is none, and returns the new one; None leaves it as it is, and `recstore.DELETE` deletes it. Returns the value that is there
    /// afterwards.
    ///
    /// `change` runs while the key's region is locked: other writers of the region wait for it. It may read this store, and not write to
    /// it. It may be called again if the store has to grow. If it raises, nothing is changed.
    #[pyo3(signature = (key, change, /, *, durable = None))]
    fn modify<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        change: &Bound<'py, PyAny>,
        durable: Option<bool>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let key = self.key(key)?;
        let (codec, change) = (self.codec.as_deref(), change.clone().unbind());
        let delete = delete_mark(py)?;
        let now: Option<Py<PyAny>> = self.change(py, &key, |old| {
            Python::attach(|py| {
                let old = old.map(|data| decoded(py, codec, data)).transpose()?;
                let new = change.bind(py).call1((old.as_ref(),))?;
                if new.is_none() {
                    return Ok((Action::Keep, old.map(Bound::unbind)));
                }
                if new.is(delete.bind(py)) {
                    return Ok((Action::Delete, None));
                }
                let bytes = encoded(codec, &new)?;
                Ok((Action::Put(bytes_of(&bytes)?.into_owned()), Some(new.unbind())))
            })
        })?;
        self.settle(py, durable)?;
        Ok(now.map(|now| now.into_bound(py)))
    }

    /// Deletes all keys. Not one step.
    fn clear(slf: &Bound<'_, Self>) -> PyResult<()> {
        let keys = Self::items(slf, What::Keys)?.all_keys(slf.py())?;
        keys.iter().try_for_each(|key| slf.get().delete_key(slf.py(), key).map(drop))
    }

    /// The id of the record that holds a key. The library for Rust gives the same number.
    #[pyo3(signature = (key, /))]
    fn id_of(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<u64> {
        let key = self.key(key)?;
        self.call(py, &key, |at| {
            Ok(match at {
                At::Id(_, id) => id,
                At::Key(space, key) => space.id_of(key),
            })
        })
    }

    /// The value of bytes that were read elsewhere, by the codec.
    fn _decode<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        self.value(py, data)
    }
}

impl Map {
    #[inline]
    fn of_bytes<'py>(&self, data: Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
        match self.codec.as_deref() {
            None => Ok(data.into_any()),
            codec => decoded(data.py(), codec, data.as_bytes()),
        }
    }
}

/// The error for a time to live of a record that is found by its id.
fn of_no_key(id: u64) -> Error {
    let what = format!("record {id} is found by its id, and has no time to live; use a key of a space");
    Error::InvalidOption { what }
}

/// The object that deletes a key when the function of `modify` returns it.
fn delete_mark(py: Python<'_>) -> PyResult<Py<PyAny>> {
    static DELETE: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
    let mark = DELETE
        .get_or_try_init(py, || Ok::<_, PyErr>(py.import("recstore._marks")?.getattr("DELETE")?.unbind()))?;
    Ok(mark.clone_ref(py))
}

/// A key without its borrow.
pub(crate) fn owned_key(bytes: Vec<u8>) -> Key<'static> {
    Key::Bytes(Cow::Owned(bytes))
}
