//! Iteration over keys and values. A piece of the pass is made at a time, without the interpreter's lock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use recstore::{Error, Result};
use self_cell::self_cell;

use crate::error::exception;
use crate::handle::{Opened, SpaceOf};
use crate::key::Key;
use crate::map::{Map, owned_key};

/// So many records are read at a time.
const PIECE: usize = 128;
/// And no more bytes than these.
const PIECE_BYTES: usize = 1 << 20;

/// What an iterator gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Keys,
    Values,
    Items,
}

/// A record that was read.
pub(crate) type Found = (Key<'static>, Vec<u8>);
pub(crate) type Pass<'a> = Box<dyn Iterator<Item = Result<Found>> + Send + 'a>;

self_cell!(
    struct IdPass {
        owner: Arc<Opened>,
        #[not_covariant]
        dependent: Pass,
    }
);

self_cell!(
    struct KeyPass {
        owner: Arc<SpaceOf>,
        #[not_covariant]
        dependent: Pass,
    }
);

/// An iterator over the records of a map.
#[pyclass(frozen, module = "recstore._native")]
pub(crate) struct Items {
    map: Py<Map>,
    what: What,
    state: Mutex<State>,
}

struct State {
    passes: VecDeque<Box<dyn Source>>,
    ready: VecDeque<Result<Found>>,
}

/// A pass, with all that it borrows from.
pub(crate) trait Source: Send {
    fn next(&mut self) -> Option<Result<Found>>;
}

impl Source for IdPass {
    fn next(&mut self) -> Option<Result<Found>> {
        self.with_dependent_mut(|_, pass| pass.next())
    }
}

impl Source for KeyPass {
    fn next(&mut self) -> Option<Result<Found>> {
        self.with_dependent_mut(|_, pass| pass.next())
    }
}

impl Items {
    /// Over the records of a store by id, if it is given, and then over the keys of a space.
    pub(crate) fn new(map: Py<Map>, what: What, ids: Option<Arc<Opened>>, space: Arc<SpaceOf>) -> Self {
        let mut passes = Vec::<Box<dyn Source>>::new();
        if let Some(store) = ids {
            passes.push(Box::new(IdPass::new(store, |store| {
                Box::new(
                    store.iter().map(|found| found.map(|record| (Key::Id(record.id()), record.into_data()))),
                )
            })));
        }
        passes.push(Box::new(KeyPass::new(space, |space| {
            let all = space.space().iter();
            Box::new(all.map(|found| found.map(|(key, record)| (owned_key(key), record.into_data()))))
        })));
        Self::of(map, what, passes)
    }

    /// Over the records of these passes.
    pub(crate) fn of(map: Py<Map>, what: What, passes: Vec<Box<dyn Source>>) -> Self {
        Self { map, what, state: Mutex::new(State { passes: passes.into(), ready: VecDeque::new() }) }
    }

    fn next(&self, py: Python<'_>) -> Option<Result<Found>> {
        py.detach(|| self.state.lock().unwrap_or_else(PoisonError::into_inner).next(self.what == What::Keys))
    }

    /// All keys.
    pub(crate) fn all_keys(&self, py: Python<'_>) -> PyResult<Vec<Key<'static>>> {
        std::iter::from_fn(|| self.next(py))
            .map(|found| found.map(|(key, _)| key).map_err(|error| exception(py, &error)))
            .collect()
    }
}

impl State {
    fn next(&mut self, without_data: bool) -> Option<Result<Found>> {
        if self.ready.is_empty() {
            self.fill(without_data);
        }
        self.ready.pop_front()
    }

    fn fill(&mut self, without_data: bool) {
        let mut bytes = 0;
        while let Some(pass) = self.passes.front_mut() {
            let Some(found) = pass.next() else {
                self.passes.pop_front();
                continue;
            };
            let is_over = matches!(&found, Err(error) if !matches!(error, Error::Corrupt { .. }));
            self.ready.push_back(found.map(|(key, data)| {
                bytes += data.len();
                (key, if without_data { Vec::new() } else { data })
            }));
            if is_over {
                self.passes.pop_front();
            }
            if self.ready.len() >= PIECE || bytes >= PIECE_BYTES || is_over {
                return;
            }
        }
    }
}

#[pymethods]
impl Items {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(found) = self.next(py) else { return Ok(None) };
        let (key, data) = found.map_err(|error| exception(py, &error))?;
        let map = self.map.get();
        Ok(Some(match self.what {
            What::Keys => map.give_key(py, &key)?,
            What::Values => map.value(py, &data)?,
            What::Items => (map.give_key(py, &key)?, map.value(py, &data)?).into_pyobject(py)?.into_any(),
        }))
    }
}
