//! Rings: the last values of a series, each of the same number of bytes. `recstore/_ring.py` makes values of numpy of them.
//!
//! A ring is a space of its own. Key `count` holds the number of values, and key `shape` the dtype and the length. A value lies under
//! the number of its place, 8 bytes, the highest first, behind its number in the series.
//!
//! 1. A producer claims a number by writing its value into the number's place, if the place holds a lower number. So a number is
//!    claimed together with its value, and the claimed numbers have no gap.
//! 2. The producer then raises the count. So a reader of the count finds all values that are counted.
//! 3. If a place holds the sought number or a higher one, the count is behind: the producer is between 1 and 2, or died there. The
//!    search goes on behind that number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use recstore::{Error, Space};

use crate::handle::{Core, SpaceOf, look_in_slices, seconds};
use crate::map::{Map, Scope};
use crate::value::bytes_of;

const COUNT: &str = "count";
const SHAPE: &str = "shape";
/// Bytes of the number in front of a value.
const NUMBER_BYTES: usize = 8;

/// A bounded series of values, all of the same number of bytes.
#[pyclass(frozen, subclass, module = "recstore._native")]
pub(crate) struct Ring {
    map: Py<Map>,
    core: Arc<Core>,
    scope: Scope,
    item_bytes: usize,
    len: u64,
}

/// A number in a record: the first 8 bytes.
fn number_of(data: &[u8]) -> Option<u64> {
    data.first_chunk().map(|number| u64::from_le_bytes(*number))
}

fn wrong(space: &Space<'_>, what: String) -> Error {
    Error::TypeMismatch { path: space.store().path().to_path_buf(), what }
}

impl Ring {
    fn place(&self, number: u64) -> [u8; 8] {
        (number % self.len).to_be_bytes()
    }

    fn space(&self, attached: &Arc<SpaceOf>) -> recstore::Result<Arc<SpaceOf>> {
        self.scope.space(attached)
    }

    fn after(space: &Space<'_>, number: u64) -> recstore::Result<u64> {
        number
            .checked_add(1)
            .ok_or_else(|| wrong(space, format!("space {:?} has no place of a ring", space.name())))
    }

    fn counted(space: &Space<'_>, data: &mut Vec<u8>) -> recstore::Result<u64> {
        Ok(space.get_into(COUNT, data)?.and_then(|_| number_of(data)).unwrap_or(0))
    }

    /// The number behind the last value.
    fn pushed_in(&self, space: &Space<'_>) -> recstore::Result<u64> {
        let mut data = Vec::new();
        let mut count = Self::counted(space, &mut data)?;
        // Each turn of the loop comes to a higher number.
        while space.get_into(self.place(count), &mut data)?.is_some() {
            match number_of(&data).filter(|&there| there >= count) {
                Some(there) => count = Self::after(space, there)?,
                None => break,
            }
        }
        Ok(count)
    }

    /// Step 1.
    fn claim(&self, space: &Space<'_>, value: &[u8]) -> recstore::Result<u64> {
        let mut data = Vec::with_capacity(NUMBER_BYTES + value.len());
        let mut number = Self::counted(space, &mut data)?;
        loop {
            data.clear();
            data.extend_from_slice(&number.to_le_bytes());
            data.extend_from_slice(value);
            let mut claimed = None;
            space.update(self.place(number), |old| {
                claimed = old.and_then(number_of).filter(|&there| there >= number);
                claimed.is_none().then_some(&data)
            })?;
            match claimed {
                None => return Ok(number),
                Some(there) => number = Self::after(space, there)?,
            }
        }
    }

    /// Step 2.
    fn raise(space: &Space<'_>, next: u64) -> recstore::Result<()> {
        space
            .update(COUNT, |old| (old.and_then(number_of).unwrap_or(0) < next).then(|| next.to_le_bytes()))
            .map(drop)
    }

    /// The values with numbers from `first` on, as many as there are up to `count`, one behind the other; and their numbers.
    fn read(&self, space: &Space<'_>, first: u64, count: u64) -> recstore::Result<(Vec<u64>, Vec<u8>)> {
        let end = self.pushed_in(space)?;
        let first = first.max(end.saturating_sub(self.len));
        let (mut numbers, mut values, mut data) = (Vec::new(), Vec::new(), Vec::new());
        for number in first..end.min(first.saturating_add(count)) {
            if space.get_into(self.place(number), &mut data)?.is_some()
                && number_of(&data) == Some(number)
                && data.len() == NUMBER_BYTES + self.item_bytes
            {
                numbers.push(number);
                values.extend_from_slice(&data[NUMBER_BYTES..]);
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
        shape: &str,
    ) -> PyResult<Self> {
        if len == 0 || item_bytes == 0 {
            return Err(PyValueError::new_err(format!(
                "a ring of {len} values of {item_bytes} bytes: both are from 1 on"
            )));
        }
        let core = Arc::clone(&map.get().core);
        let scope = Scope::of_space(&core, format!("ring {name}"), None);
        let shape = format!("{shape} {len}");
        let found = core.call(py, |attached| {
            let space = scope.space(attached)?;
            let space = space.space();
            if let Some(found) = space.get(SHAPE)? {
                return Ok(found.into_data());
            }
            if !attached.opened().is_read_only() {
                let _ = space.put_if_absent(SHAPE, &shape)?;
            }
            Ok(space.get(SHAPE)?.map_or_else(|| shape.clone().into_bytes(), |found| found.into_data()))
        })?;
        if found != shape.as_bytes() {
            let found = String::from_utf8_lossy(&found).into_owned();
            let mismatch = core.call(py, |attached| -> recstore::Result<()> {
                let what = format!("ring {name:?} is of (dtype, length) {found:?}, and not {shape:?}");
                Err(wrong(scope.space(attached)?.space(), what))
            });
            mismatch?;
        }
        Ok(Self { map, core, scope, item_bytes, len })
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
        let number = self.core.call(py, |attached| self.claim(self.space(attached)?.space(), &value))?;
        self.core.call(py, |attached| {
            let space = self.space(attached)?;
            Self::raise(space.space(), Self::after(space.space(), number)?)
        })?;
        Ok(number)
    }

    /// Appends many values, given as their bytes one behind the other. Returns the number of the last one.
    fn _extend(&self, py: Python<'_>, values: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let values = bytes_of(values)?;
        self.check(&values, values.len() / self.item_bytes)?;
        let (done, last) = (AtomicUsize::new(0), AtomicU64::new(0));
        self.core.wait(py, |attached| {
            let space = self.space(attached)?;
            let space = space.space();
            let claimed = values
                .chunks_exact(self.item_bytes)
                .skip(done.load(Ordering::Relaxed))
                .try_for_each(|value| {
                    last.store(self.claim(space, value)?, Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                    recstore::Result::Ok(())
                });
            if done.load(Ordering::Relaxed) != 0 {
                Self::raise(space, Self::after(space, last.load(Ordering::Relaxed))?)?;
            }
            claimed
        })?;
        Ok((done.into_inner() != 0).then(|| last.into_inner()))
    }

    /// The number of values that were ever appended.
    #[getter]
    fn pushed(&self, py: Python<'_>) -> PyResult<u64> {
        self.core.call(py, |attached| self.pushed_in(self.space(attached)?.space()))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(usize::try_from(self.pushed(py)?.min(self.len))?)
    }

    /// At most the last `count` values: their numbers, and their bytes one behind the other.
    fn _latest<'py>(&self, py: Python<'py>, count: u64) -> PyResult<(Vec<u64>, Bound<'py, PyBytes>)> {
        let (numbers, values) = self.core.wait(py, |attached| {
            let space = self.space(attached)?;
            let end = self.pushed_in(space.space())?;
            self.read(space.space(), end.saturating_sub(count), u64::MAX)
        })?;
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
                let mut watch = space.space().watch(COUNT)?;
                let found = self.read(space.space(), first, count)?;
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
