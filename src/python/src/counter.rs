//! Exact counters, as the library's are: a record of 8 bytes, little-endian, under an id, and a value that knows what it is under a key.
//! An absent one counts as 0.

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use recstore::{Action, Error};

use crate::key::Key;
use crate::map::{At, Map};

/// A counter that any number of processes change. The death of a process loses no change.
#[pyclass(frozen, module = "recstore")]
pub(crate) struct Counter {
    map: Py<Map>,
    key: Key<'static>,
}

fn number(path: &std::path::Path, data: &[u8]) -> recstore::Result<u64> {
    data.try_into().map(u64::from_le_bytes).map_err(|_| Error::TypeMismatch {
        path: path.to_path_buf(),
        what: format!("the record is {} bytes long, and a counter takes 8", data.len()),
    })
}

impl Counter {
    /// Changes the counter as one step. Returns its old value and its new one; the latter is `None` if it would be out of range.
    fn change(&self, py: Python<'_>, to: impl Fn(u64) -> Option<u64> + Sync) -> PyResult<(u64, u64)> {
        let (old, new) = self.map.get().call(py, &self.key, |at| match at {
            At::Id(store, id) => store.modify(id, |old| {
                let old = old.map_or(Ok(0), |data| number(store.path(), data))?;
                Ok::<_, Error>(match to(old) {
                    Some(new) => (Action::Put(new.to_le_bytes()), (old, Some(new))),
                    None => (Action::Keep, (old, None)),
                })
            }),
            At::Key(space, key) => {
                let mut new = None;
                let updated = space.counter(key).fetch_update(|old| {
                    new = to(old);
                    new
                })?;
                Ok((updated.unwrap_or_else(|old| old), new))
            }
        })?;
        match new {
            Some(new) => Ok((old, new)),
            None => Err(PyOverflowError::new_err(format!(
                "the counter is at {old}, and would leave the range from 0 to 2**64 - 1; it stays as it is"
            ))),
        }
    }
}

/// What is added. The first form is the fast one.
#[derive(FromPyObject)]
enum Number {
    Small(i64),
    Large(u64),
}

#[pymethods]
impl Counter {
    #[new]
    fn new(map: Py<Map>, key: &Bound<'_, PyAny>) -> PyResult<Self> {
        let key = map.get().key(key)?.into_owned();
        Ok(Self { map, key })
    }

    /// Adds `n`, and returns the sum. The range is 0 to 2**64 - 1: a sum outside of it raises OverflowError, and changes nothing.
    #[pyo3(signature = (n = Number::Small(1), /), text_signature = "($self, n=1, /)")]
    fn add(&self, py: Python<'_>, n: Number) -> PyResult<u64> {
        let n = match n {
            Number::Small(n) => i128::from(n),
            Number::Large(n) => i128::from(n),
        };
        Ok(self.change(py, |old| u64::try_from(i128::from(old) + n).ok())?.1)
    }

    /// Sets the counter to the larger of its value and `n`. Returns the value from before.
    #[pyo3(signature = (n, /))]
    fn fetch_max(&self, py: Python<'_>, n: u64) -> PyResult<u64> {
        Ok(self.change(py, |old| Some(old.max(n)))?.0)
    }

    /// Sets the counter to `n`. Returns the value from before.
    #[pyo3(signature = (n, /))]
    fn set(&self, py: Python<'_>, n: u64) -> PyResult<u64> {
        Ok(self.change(py, |_| Some(n))?.0)
    }

    /// The value; 0 if there is no such record.
    #[getter]
    fn value(&self, py: Python<'_>) -> PyResult<u64> {
        self.map.get().call(py, &self.key, |at| match at {
            At::Id(store, id) => store.get(id)?.map_or(Ok(0), |record| number(store.path(), &record)),
            At::Key(space, key) => space.counter(key).get(),
        })
    }

    fn __int__(&self, py: Python<'_>) -> PyResult<u64> {
        self.value(py)
    }

    fn __index__(&self, py: Python<'_>) -> PyResult<u64> {
        self.value(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let key = self.map.get().give_key(py, &self.key)?.repr()?.to_string();
        Ok(format!("<recstore.Counter {key}: {}>", self.value(py)?))
    }

    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, (Py<Map>, Bound<'py, PyAny>))> {
        let class = py.get_type::<Self>().into_any();
        Ok((class, (self.map.clone_ref(py), self.map.get().give_key(py, &self.key)?)))
    }
}
