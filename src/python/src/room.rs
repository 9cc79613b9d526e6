//! Reservations: values written where they will lie.
//!
//! 1. The room is lent to numpy, or as a memoryview, by its address. Nothing may be written there after the commit: the bytes are those
//!    of a record by then, which others read, and whose checksum is taken.
//! 2. Everything that can write there holds a reference to the `Room`: each buffer does, and so does numpy, even where it gives the
//!    buffer back. So the commit takes the room's own view away, and refuses while anything else holds the room. With the
//!    interpreter's lock held, no new reference comes up meanwhile.
//! 3. The array that the block of a `with` works on stays the block's, by its name. It is made read-only, and it can't be made writable
//!    again, because the room gives out no writable buffer any more. The commit refuses if anything but that name holds it.
//! 4. That array goes on reading the record. A pin that was begun before the commit keeps the record's bytes as they are.

use std::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use recstore::bindings::{self, with_patience};
use self_cell::self_cell;

use crate::error::exception;
use crate::forked::Registered;
use crate::handle::{SLICE, SpaceOf, in_slices};
use crate::key::Key;
use crate::lent::{PinOf, fill};
use crate::map::{Map, Scope};

type Reserved<'a> = Mutex<Option<recstore::Reservation<'a>>>;

self_cell!(
    struct ReservedOf {
        owner: Arc<SpaceOf>,
        #[not_covariant]
        dependent: Reserved,
    }
);

/// The room of a reservation: a buffer that can be written until it is committed.
#[pyclass(frozen, module = "recstore._native")]
pub(crate) struct Room {
    at: *mut u8,
    len: usize,
    state: Mutex<RoomState>,
    /// A forked child has a copy of the bytes: what it writes there is its own.
    _registered: Registered,
    reserved: Option<ReservedOf>,
}

enum RoomState {
    Open,
    /// The record is published. The pin keeps its bytes.
    Committed(#[expect(dead_code, reason = "it is held, and not read")] Option<Arc<PinOf>>),
}

// SAFETY: the address is only given away, to code that holds the interpreter's lock.
unsafe impl Send for Room {}
// SAFETY: the same.
unsafe impl Sync for Room {}

impl Drop for Room {
    fn drop(&mut self) {
        // A reservation that was not committed is given up. If a lock is held, the room is free when this process is gone.
        let reserved = self.reserved.take();
        with_patience(SLICE, || drop(reserved));
    }
}

impl Room {
    fn opened(&self) -> Option<&Arc<SpaceOf>> {
        self.reserved.as_ref().map(|reserved| reserved.borrow_owner())
    }
}

#[pymethods]
impl Room {
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        if !this.opened().is_some_and(|attached| attached.opened().is_ours()) {
            return Err(PyBufferError::new_err(
                "the room belongs to the parent process, and is not in the memory of this one; reserve anew",
            ));
        }
        let is_open = matches!(*this.state.lock().unwrap_or_else(PoisonError::into_inner), RoomState::Open);
        // SAFETY: the view is the caller's, and the object keeps the room; what the room is after its end can't be written.
        unsafe { fill(slf.as_ptr(), view, this.at, this.len, !is_open, flags) }
    }

    fn __len__(&self) -> usize {
        self.len
    }
}

/// Room for a value, to be written where it will lie: see `Store.reserve`.
#[pyclass(frozen, subclass, module = "recstore._native")]
pub(crate) struct Reservation {
    map: Py<Map>,
    parts: Mutex<Option<Parts>>,
    durable: Option<bool>,
}

struct Parts {
    room: Py<Room>,
    /// The view of the room that was given away.
    memory: Option<Py<PyMemoryView>>,
    /// The array over it, if it is one.
    array: Option<Py<PyAny>>,
}

fn over() -> PyErr {
    PyValueError::new_err("the reservation was committed or given up; reserve anew")
}

#[pymethods]
impl Reservation {
    #[new]
    fn new(
        py: Python<'_>,
        map: Py<Map>,
        key: &Bound<'_, PyAny>,
        len: usize,
        durable: Option<bool>,
    ) -> PyResult<Self> {
        let this = map.get();
        let key = this.key(key)?;
        let reserved = this.core.call(py, |attached| {
            ReservedOf::try_new(Arc::clone(attached), |attached| {
                let reserved = match (&key, &*this.scope) {
                    (Key::Id(id), _) => attached.opened().reserve(*id, len)?,
                    (Key::Bytes(key), Scope::Store) => attached.space().reserve(key, len)?,
                    (Key::Bytes(key), Scope::Space { name, ttl, .. }) => {
                        let space = attached.opened().space(name)?;
                        match ttl {
                            Some(ttl) => space.with_ttl(*ttl).reserve(key, len)?,
                            None => space.reserve(key, len)?,
                        }
                    }
                };
                Ok(Mutex::new(Some(reserved)))
            })
        })?;
        let at = reserved.with_dependent(|_, reserved| {
            let mut reserved = reserved.lock().unwrap_or_else(PoisonError::into_inner);
            reserved.as_mut().map_or(Ok(std::ptr::null_mut()), bindings::room)
        });
        let at = at.map_err(|error| exception(py, &error))?;
        let state = Mutex::new(RoomState::Open);
        let room = Room { at, len, state, _registered: Registered::new(at, len), reserved: Some(reserved) };
        let parts = Parts { room: Py::new(py, room)?, memory: None, array: None };
        Ok(Self { map, parts: Mutex::new(Some(parts)), durable })
    }

    /// The room, as bytes that can be written.
    #[getter]
    fn view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = parts.as_mut().ok_or_else(over)?;
        if let Some(memory) = &parts.memory {
            return Ok(memory.bind(py).clone());
        }
        let memory = PyMemoryView::from(parts.room.bind(py).as_any())?;
        parts.memory = Some(memory.clone().unbind());
        Ok(memory)
    }

    #[getter]
    fn _room(&self, py: Python<'_>) -> PyResult<Py<Room>> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(parts.as_ref().ok_or_else(over)?.room.clone_ref(py))
    }

    /// Notes the array that was made over the room.
    fn _keep(&self, array: Bound<'_, PyAny>) -> PyResult<()> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.as_mut().ok_or_else(over)?.array = Some(array.unbind());
        Ok(())
    }

    /// Publishes the value: from here on others read it. Returns its version. Raises BufferError while anything can still write to the
    /// room; then it is as it was.
    fn commit(&self, py: Python<'_>) -> PyResult<u64> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(over)?;
        match self.publish(py, &parts) {
            Ok(version) => {
                if self.map.get().is_durable(self.durable) {
                    self.map.get().core.sync(py)?;
                }
                Ok(version)
            }
            Err(error) => {
                *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts);
                Err(error)
            }
        }
    }

    /// Gives the room up: the value that was there stays.
    fn cancel(&self) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(parts);
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !kind.is_none() {
            self.cancel();
            return Ok(());
        }
        let is_open = self.parts.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_open { self.commit(py).map(drop) } else { Ok(()) }
    }
}

impl Reservation {
    /// Takes the views away, and publishes the record: 2 to 4.
    fn publish(&self, py: Python<'_>, parts: &Parts) -> PyResult<u64> {
        let room = parts.room.bind(py);
        let this = room.get();
        let Some(reserved) = &this.reserved else { return Err(over()) };
        let attached = reserved.borrow_owner();
        // SAFETY: the object is alive.
        let others = |object: &Bound<'_, PyAny>, own: isize| unsafe { ffi::Py_REFCNT(object.as_ptr()) } - own;
        if let Some(array) = &parts.array {
            let array = array.bind(py);
            // This object's and the block's.
            let more = others(array, 2);
            if more > 0 {
                return Err(refusal(more, "the array"));
            }
            array.call_method1("setflags", (false,))?;
        }
        if let Some(memory) = &parts.memory {
            // It raises BufferError while there is a view of it.
            memory.bind(py).call_method0("release")?;
        }
        // Beside this object, the array holds the room.
        let more = others(room.as_any(), 1 + isize::from(parts.array.is_some()));
        if more > 0 {
            return Err(refusal(more, "the room"));
        }
        let pin = match &parts.array {
            None => None,
            Some(_) => {
                let begun = crate::handle::in_patience(py, self.map.get().core.lock_timeout(), || {
                    PinOf::try_new(Arc::clone(attached), |attached| attached.opened().pin()).map(Arc::new)
                });
                Some(begun?)
            }
        };
        *this.state.lock().unwrap_or_else(PoisonError::into_inner) = RoomState::Committed(pin);
        let committed = in_slices(py, self.map.get().core.lock_timeout(), || {
            reserved.with_dependent(|_, reserved| {
                let mut reserved = reserved.lock().unwrap_or_else(PoisonError::into_inner);
                let version = reserved.as_mut().map(bindings::commit).transpose()?;
                *reserved = None;
                Ok(version)
            })
        });
        let committed = committed.and_then(|done| done.map_err(|error| exception(py, &error)));
        match committed {
            Ok(Some(version)) => Ok(version.get()),
            Ok(None) => Err(over()),
            Err(error) => {
                *this.state.lock().unwrap_or_else(PoisonError::into_inner) = RoomState::Open;
                if let Some(array) = &parts.array {
                    array.bind(py).call_method1("setflags", (true,))?;
                }
                Err(error)
            }
        }
    }
}

fn refusal(more: isize, what: &str) -> PyErr {
    PyBufferError::new_err(format!(
        "nothing was committed: {what} is held by {more} more than the block itself (a view, a slice, another name, a list); \
         drop them, and commit"
    ))
}
