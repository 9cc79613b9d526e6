//! Rings: the last values of a series, each of the same number of bytes. `recstore/_shapes.py` makes values of numpy of them.
//!
//! The ring is the library's: see `Space::ring`. It lies in a space of its own, `ring NAME`, under the key `ring`, and the name of its type
//! is the dtype. So a program in Rust reads it with the same names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use recstore::Space;
use recstore::bindings::RawRing;

use crate::handle::{Core, SpaceOf, look_in_slices, seconds};
use crate::map::{Map, Scope};
use crate::value::bytes_of;

const KEY: &str = "ring";

/// A bounded series of values, all of the same number of bytes.
#[pyclass(frozen, subclass, module = "recstore._native")]
pub(crate) struct Ring {
    map: Py<Map>,
    core: Arc<Core>,
    scope: Scope,
    item_bytes: usize,
    len: u64,
    dtype: String,
}

impl Ring {
    fn space(&self, attached: &Arc<SpaceOf>) -> recstore::Result<Arc<SpaceOf>> {
        self.scope.space(attached)
    }

    fn raw<'r, 'a>(&'r self, space: &'r Space<'a>) -> recstore::Result<RawRing<'r, 'a>> {
        RawRing::new(space, KEY.as_bytes(), &self.dtype, self.item_bytes, self.len)
    }

    /// Calls `work` for the ring, as [`Core::call`].
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl Fn(&RawRing<'_, '_>) -> recstore::Result<T> + Sync,
    ) -> PyResult<T> {
        self.core.call(py, |attached| work(&self.raw(self.space(attached)?.space())?))
    }

    /// The same without the interpreter's lock from the beginning on.
    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        work: impl Fn(&RawRing<'_, '_>) -> recstore::Result<T> + Sync,
    ) -> PyResult<T> {
        self.core.wait(py, |attached| work(&self.raw(self.space(attached)?.space())?))
    }

    /// The values with numbers from `first` on, as many as there are up to `count`, one behind the other; and their numbers.
    fn read(&self, ring: &RawRing<'_, '_>, first: u64, count: u64) -> recstore::Result<(Vec<u64>, Vec<u8>)> {
        let end = ring.pushed()?;
        let first = first.max(end.saturating_sub(self.len));
        let (mut numbers, mut values, mut data) = (Vec::new(), Vec::new(), Vec::new());
        for number in first..end.min(first.saturating_add(count)) {
            let found = ring.read(number, &mut data, |value| values.extend_from_slice(value))?;
            if found.is_some() {
                numbers.push(number);
            }
        }
        Ok((numbers, values))
    }
}

#[pymethods]
impl Ring {
    #[new]
    fn new(
        py: Python<'_>,
        map: Py<Map>,
        name: &str,
        item_bytes: usize,
        len: u64,
        dtype: &str,
    ) -> PyResult<Self> {
        if len == 0 || item_bytes == 0 {
            return Err(PyValueError::new_err(format!(
                "a ring of {len} values of {item_bytes} bytes: both are from 1 on"
            )));
        }
        let core = Arc::clone(&map.get().core);
        let scope = Scope::of_space(&core, format!("ring {name}"), None);
        let ring = Self { map, core, scope, item_bytes, len, dtype: dtype.to_owned() };
        ring.call(py, |ring| ring.open())?;
        Ok(ring)
    }

    #[getter]
    fn _map(&self, py: Python<'_>) -> Py<Map> {
        self.map.clone_ref(py)
    }

    #[getter]
    fn length(&self) -> u64 {
        self.len
    }

    /// Appends a value, given as its bytes. Returns its number.
    fn _push(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<u64> {
        let value = bytes_of(value)?;
        self.check(&value, 1)?;
        // Two calls: each may be made again if it met a lock, and a claim must not be.
        let number = self.call(py, |ring| ring.claim(&value))?;
        self.call(py, |ring| ring.raise(ring.after(number)?))?;
        Ok(number)
    }

    /// Appends many values, given as their bytes one behind the other. Returns the number of the last one.
    fn _extend(&self, py: Python<'_>, values: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let values = bytes_of(values)?;
        self.check(&values, values.len() / self.item_bytes)?;
        let (done, last) = (AtomicUsize::new(0), AtomicU64::new(0));
        self.wait(py, |ring| {
            let claimed = values
                .chunks_exact(self.item_bytes)
                .skip(done.load(Ordering::Relaxed))
                .try_for_each(|value| {
                    last.store(ring.claim(value)?, Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                    recstore::Result::Ok(())
                });
            if done.load(Ordering::Relaxed) != 0 {
                ring.raise(ring.after(last.load(Ordering::Relaxed))?)?;
            }
            claimed
        })?;
        Ok((done.into_inner() != 0).then(|| last.into_inner()))
    }

    /// The number of values that were ever appended.
    #[getter]
    fn pushed(&self, py: Python<'_>) -> PyResult<u64> {
        self.call(py, |ring| ring.pushed())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(usize::try_from(self.pushed(py)?.min(self.len))?)
    }

    /// At most the last `count` values: their numbers, and their bytes one behind the other.
    fn _latest<'py>(&self, py: Python<'py>, count: u64) -> PyResult<(Vec<u64>, Bound<'py, PyBytes>)> {
        let (numbers, values) =
            self.wait(py, |ring| self.read(ring, ring.pushed()?.saturating_sub(count), u64::MAX))?;
        Ok((numbers, PyBytes::new(py, &values)))
    }

    /// The values from number `first` on that are there, at most `count`; waits for one. Empty if none comes within the time.
    fn _from<'py>(
        &self,
        py: Python<'py>,
        first: u64,
        count: u64,
        timeout: Option<f64>,
    ) -> PyResult<(Vec<u64>, Bound<'py, PyBytes>)> {
        let timeout = seconds("timeout", timeout)?;
        self.core.call(py, |attached| attached.opened().contains(0))?; // A forked child opens the store first.
        let attached = self.core.attached(py)?;
        let found = look_in_slices(
            py,
            timeout,
            || false,
            |slice| {
                let space = self.space(&attached)?;
                let mut watch = space.space().watch(KEY)?;
                let found = self.read(&self.raw(space.space())?, first, count)?;
                if found.0.is_empty() {
                    let _ = watch.wait(Some(slice))?;
                }
                Ok(Some(found).filter(|(numbers, _)| !numbers.is_empty()))
            },
        )?;
        let (numbers, values) = found.unwrap_or_default();
        Ok((numbers, PyBytes::new(py, &values)))
    }
}

impl Ring {
    fn check(&self, values: &[u8], count: usize) -> PyResult<()> {
        if values.len() == count * self.item_bytes {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "{} bytes are no {count} values of {} bytes each, which the ring takes",
            values.len(),
            self.item_bytes
        )))
    }
}
