//! Values read where they lie: pins, snapshots, and views of their bytes.
//!
//! A view holds the pin or the snapshot that it is of, and that holds the open store. So the bytes of a view are mapped, and stay as
//! they are, for as long as the view lives, whatever is closed meanwhile.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use pyo3::exceptions::{PyBufferError, PyKeyError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use self_cell::self_cell;

use crate::forked::Registered;
use crate::handle::SpaceOf;
use crate::items::{Items, Pass, Source, What};
use crate::key::Key;
use crate::map::{Map, Scope, owned_key};

type LentPin<'a> = recstore::Pin<'a>;
type LentSnapshot<'a> = recstore::Snapshot<'a>;

self_cell!(
    pub(crate) struct PinOf {
        owner: Arc<SpaceOf>,
        #[covariant]
        dependent: LentPin,
    }
);

self_cell!(
    pub(crate) struct SnapshotOf {
        owner: Arc<SpaceOf>,
        #[not_covariant]
        dependent: LentSnapshot,
    }
);

/// What keeps lent bytes as they are.
#[derive(Clone)]
enum Keeper {
    Pin(#[expect(dead_code, reason = "it is held, and not read")] Arc<PinOf>),
    Snapshot(#[expect(dead_code, reason = "it is held, and not read")] Arc<SnapshotOf>),
}

/// Bytes of a record, where they lie: a buffer that can't be written.
#[pyclass(frozen, module = "recstore._native")]
pub(crate) struct View {
    at: *const u8,
    len: usize,
    keeper: Keeper,
    /// A forked child has them too.
    _registered: Registered,
}

// SAFETY: the bytes are not written while the keeper lives, so they may be read from any thread.
unsafe impl Send for View {}
// SAFETY: the same.
unsafe impl Sync for View {}

/// Fills the description of a buffer.
///
/// # Safety
/// `view` is valid, and the bytes are for as long as `owner` lives.
pub(crate) unsafe fn fill(
    owner: *mut ffi::PyObject,
    view: *mut ffi::Py_buffer,
    at: *mut u8,
    len: usize,
    is_read_only: bool,
    flags: c_int,
) -> PyResult<()> {
    if view.is_null() {
        return Err(PyBufferError::new_err("no view to fill"));
    }
    // An empty record has an address all the same.
    let at = if at.is_null() { std::ptr::NonNull::<u8>::dangling().as_ptr() } else { at };
    // SAFETY: as the caller says; `PyBuffer_FillInfo` takes a reference to the owner.
    let filled = unsafe {
        ffi::PyBuffer_FillInfo(
            view,
            owner,
            at.cast::<c_void>(),
            len as isize,
            c_int::from(is_read_only),
            flags,
        )
    };
    if filled == 0 { Ok(()) } else { Python::attach(|py| Err(PyErr::fetch(py))) }
}

#[pymethods]
impl View {
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        // SAFETY: the view is the caller's, and the object keeps the bytes.
        unsafe { fill(slf.as_ptr(), view, this.at.cast_mut(), this.len, true, flags) }
    }

    fn __len__(&self) -> usize {
        self.len
    }
}

impl View {
    fn of(data: &[u8], keeper: Keeper) -> Self {
        let (at, len) = (data.as_ptr(), data.len());
        Self { at, len, keeper, _registered: Registered::new(at, len) }
    }

    /// What keeps the bytes: for `Debug` of nothing else.
    fn memory<'py>(self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        let _ = &self.keeper;
        PyMemoryView::from(Bound::new(py, self)?.as_any())
    }
}

fn over(what: &str) -> PyErr {
    PyValueError::new_err(format!("the {what} has ended; begin another one"))
}

/// Reads values where they lie, without a copy: see `Store.pin`.
#[pyclass(frozen, subclass, module = "recstore._native")]
pub(crate) struct Pin {
    map: Py<Map>,
    pin: ArcSwapOption<PinOf>,
}

impl Pin {
    fn find<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyMemoryView>>> {
        let map = self.map.get();
        let key = map.key(key)?;
        let pin = self.pin.load_full().ok_or_else(|| over("pin"))?;
        let attached = pin.borrow_owner();
        let lent = crate::handle::in_patience(py, map.core.lock_timeout(), || {
            let lent = pin.borrow_dependent();
            let found = match (&key, &*map.scope) {
                (Key::Id(id), _) => lent.get(*id)?,
                (Key::Bytes(key), Scope::Store) => lent.get_in(attached.space(), key)?,
                (Key::Bytes(key), scope) => lent.get_in(scope.space(attached)?.space(), key)?,
            };
            Ok(found.map(|data| View::of(data, Keeper::Pin(Arc::clone(&pin)))))
        })?;
        lent.map(|view| view.memory(py)).transpose()
    }
}

#[pymethods]
impl Pin {
    #[new]
    fn new(py: Python<'_>, map: Py<Map>) -> PyResult<Self> {
        let pin = map.get().core.call(py, |attached| {
            PinOf::try_new(Arc::clone(attached), |attached| attached.opened().pin()).map(Arc::new)
        })?;
        Ok(Self { map, pin: ArcSwapOption::new(Some(pin)) })
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyMemoryView>> {
        self.find(py, key)?.ok_or_else(|| PyKeyError::new_err(key.clone().unbind()))
    }

    /// The value of a key as a view that can't be written, or None. The view stays as it is, even when the value is replaced, and when
    /// the pin has ended.
    #[pyo3(signature = (key, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyMemoryView>>> {
        self.find(py, key)
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.find(py, key)?.is_some())
    }

    /// Ends the pin. Views that are alive keep it.
    fn close(&self) {
        self.pin.store(None);
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, _args: &Bound<'_, PyAny>) {
        self.close();
    }
}

/// All records as they are at one moment: see `Store.snapshot`.
#[pyclass(frozen, subclass, module = "recstore._native")]
pub(crate) struct Snapshot {
    map: Py<Map>,
    snapshot: ArcSwapOption<SnapshotOf>,
}

self_cell!(
    struct Passed {
        owner: (Arc<SnapshotOf>, Arc<SpaceOf>, bool),
        #[not_covariant]
        dependent: Pass,
    }
);

impl Source for Passed {
    fn next(&mut self) -> Option<recstore::Result<crate::items::Found>> {
        self.with_dependent_mut(|_, pass| pass.next())
    }
}

impl Snapshot {
    fn find<'py, T: Send>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        give: impl Fn(&[u8], &Arc<SnapshotOf>) -> T + Sync,
    ) -> PyResult<Option<T>> {
        let map = self.map.get();
        let key = map.key(key)?;
        let snapshot = self.snapshot.load_full().ok_or_else(|| over("snapshot"))?;
        let attached = snapshot.borrow_owner();
        crate::handle::in_patience(py, map.core.lock_timeout(), || {
            snapshot.with_dependent(|_, lent| {
                let found = match (&key, &*map.scope) {
                    (Key::Id(id), _) => lent.get(*id)?,
                    (Key::Bytes(key), Scope::Store) => lent.get_in(attached.space(), key)?,
                    (Key::Bytes(key), scope) => lent.get_in(scope.space(attached)?.space(), key)?,
                };
                Ok(found.map(|data| give(data, &snapshot)))
            })
        })
    }

    fn items(&self, what: What, py: Python<'_>) -> PyResult<Items> {
        let map = self.map.get();
        let snapshot = self.snapshot.load_full().ok_or_else(|| over("snapshot"))?;
        let attached = Arc::clone(snapshot.borrow_owner());
        let space = map.scope.space(&attached).map_err(|error| crate::error::exception(py, &error))?;
        let with_ids = matches!(*map.scope, Scope::Store);
        let passed = Passed::new((snapshot, space, with_ids), |(snapshot, space, with_ids)| {
            snapshot.with_dependent(|_, lent| {
                let ids = with_ids.then(|| lent.iter()).into_iter().flatten();
                let ids = ids.map(|found| found.map(|(id, _, data)| (Key::Id(id), data.to_vec())));
                let keys = lent.iter_in(space.space());
                let keys =
                    keys.map(|found| found.map(|(key, _, data)| (owned_key(key.to_vec()), data.to_vec())));
                Box::new(ids.chain(keys)) as Pass<'_>
            })
        });
        Ok(Items::of(self.map.clone_ref(py), what, vec![Box::new(passed)]))
    }
}

#[pymethods]
impl Snapshot {
    /// `of`: a snapshot of the same moment.
    #[new]
    #[pyo3(signature = (map, of = None))]
    fn new(py: Python<'_>, map: Py<Map>, of: Option<&Bound<'_, Self>>) -> PyResult<Self> {
        let Some(of) = of.map(Bound::get) else {
            let snapshot = map.get().core.call(py, |attached| {
                SnapshotOf::try_new(Arc::clone(attached), |attached| attached.opened().snapshot())
                    .map(Arc::new)
            })?;
            return Ok(Self { map, snapshot: ArcSwapOption::new(Some(snapshot)) });
        };
        if !Arc::ptr_eq(&map.get().core, &of.map.get().core) {
            return Err(PyValueError::new_err("the space is one of another store"));
        }
        Ok(Self { map, snapshot: ArcSwapOption::new(of.snapshot.load_full()) })
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.get(py, key, None)?.ok_or_else(|| PyKeyError::new_err(key.clone().unbind()))
    }

    /// The value of a key at the snapshot's moment, or `default` if there was none.
    #[pyo3(signature = (key, default = None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.find(py, key, |data, _| data.to_vec())? {
            Some(data) => self.map.get().value(py, &data).map(Some),
            None => Ok(default),
        }
    }

    /// The value of a key at the snapshot's moment as a view that can't be written, without a copy; or None.
    #[pyo3(signature = (key, /))]
    fn view<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyMemoryView>>> {
        let lent =
            self.find(py, key, |data, snapshot| View::of(data, Keeper::Snapshot(Arc::clone(snapshot))))?;
        lent.map(|view| view.memory(py)).transpose()
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.find(py, key, |_, _| ())?.is_some())
    }

    /// A pass over all records of the moment.
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.items(What::Keys, py)?.all_keys(py)?.len())
    }

    fn __iter__(&self, py: Python<'_>) -> PyResult<Items> {
        self.items(What::Keys, py)
    }

    fn _items(&self, py: Python<'_>) -> PyResult<Items> {
        self.items(What::Items, py)
    }

    fn _values(&self, py: Python<'_>) -> PyResult<Items> {
        self.items(What::Values, py)
    }

    /// Ends the snapshot. Views and iterators that are alive keep it.
    fn close(&self) {
        self.snapshot.store(None);
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, _args: &Bound<'_, PyAny>) {
        self.close();
    }
}
