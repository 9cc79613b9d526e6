//! Batches: changes of several records, of which all are made or none.
//!
//! The changes are collected here, and the library's batch is made of them when they are committed: so it can be made again, after a
//! lock was held, or after another process was faster with a push to the same queue.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use recstore::{Commit, Space, Store, Version};

use crate::error::conflict;
use crate::handle::SpaceOf;
use crate::key::Key;
use crate::map::{Map, Scope};
use crate::queue::{Job, Queue};
use crate::value::{bytes_of, encoded};

/// The key of a queue that each push changes.
const NEXT: &str = "next";

enum Change {
    Put { key: Key<'static>, map: Py<Map>, value: Vec<u8> },
    Delete { key: Key<'static>, map: Py<Map> },
    Require { key: Key<'static>, map: Py<Map>, version: Option<Version> },
    Push { queue: Py<Queue>, data: Vec<u8> },
    Finish { job: Py<Job> },
}

/// The result of a try to commit.
enum Outcome {
    Done {
        versions: Vec<(u64, Version)>,
        numbers: Vec<u64>,
    },
    Conflict {
        id: u64,
        current: Option<Version>,
    },
    /// Another process was faster with a push.
    Again,
}

/// Changes of several records, of which all are made or none, even if the process is killed or power is lost.
#[pyclass(frozen, module = "recstore")]
pub(crate) struct Batch {
    map: Py<Map>,
    /// `None`: it was committed or given up.
    changes: Mutex<Option<Vec<Change>>>,
    durable: Option<bool>,
    done: Mutex<Option<(Vec<(u64, Version)>, Vec<u64>)>>,
}

impl Batch {
    fn add(&self, change: Change) -> PyResult<()> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let over = || PyValueError::new_err("the batch was committed or given up; begin another one");
        changes.as_mut().ok_or_else(over)?.push(change);
        Ok(())
    }

    /// The map that a key is of: a space of the same store, or the store.
    fn of<'a, 'py>(&'a self, space: Option<&'a Bound<'py, Map>>, py: Python<'py>) -> PyResult<&'a Py<Map>> {
        let Some(space) = space else { return Ok(&self.map) };
        if !Arc::ptr_eq(&space.get().core, &self.map.get().core) {
            return Err(PyValueError::new_err(
                "the space is one of another store; make one of this store by its method space",
            ));
        }
        let _ = py;
        Ok(space.as_unbound())
    }
}

/// Calls `by_id` or `by_key` for the place of a key.
fn place<T>(
    attached: &Arc<SpaceOf>,
    map: &Map,
    key: &Key<'_>,
    by_id: impl FnOnce(u64) -> recstore::Result<T>,
    by_key: impl FnOnce(&Space<'_>, &[u8]) -> recstore::Result<T>,
) -> recstore::Result<T> {
    match key {
        Key::Id(id) => by_id(*id),
        Key::Bytes(key) => match &*map.scope {
            Scope::Store => by_key(attached.space(), key),
            scope => by_key(scope.space(attached)?.space(), key),
        },
    }
}

fn make(attached: &Arc<SpaceOf>, changes: &[Change]) -> recstore::Result<Outcome> {
    let store: &Store = attached.opened();
    let mut batch = store.batch();
    let mut numbers = Vec::new();
    let mut pushed = Vec::new();
    for change in changes {
        match change {
            Change::Put { key: Key::Id(id), value, .. } => batch.put(*id, &value[..])?,
            Change::Put { key, map, value } => {
                place(
                    attached,
                    map.get(),
                    key,
                    |_| Ok(()),
                    |space, key| batch.put_in(space, key, &value[..]),
                )?;
            }
            Change::Delete { key: Key::Id(id), .. } => batch.delete(*id),
            Change::Delete { key, map } => {
                place(attached, map.get(), key, |_| Ok(()), |space, key| batch.delete_in(space, key))?;
            }
            Change::Require { key: Key::Id(id), version, .. } => batch.require(*id, *version),
            Change::Require { key, map, version } => {
                place(
                    attached,
                    map.get(),
                    key,
                    |_| Ok(()),
                    |space, key| batch.require_in(space, key, *version),
                )?;
            }
            Change::Push { queue, data } => {
                let queue = queue.get();
                numbers.push(queue.of(store)?.push_in(&mut batch, data)?);
                pushed.push(store.space(&format!("queue {}", queue.name))?.id_of(NEXT));
            }
            Change::Finish { job } => job.get().finish_in(attached, &mut batch)?,
        }
    }
    Ok(match batch.commit()? {
        Commit::Done(versions) => Outcome::Done { versions, numbers },
        Commit::Conflict { id, .. } if pushed.contains(&id) => Outcome::Again,
        Commit::Conflict { id, current } => Outcome::Conflict { id, current },
    })
}

#[pymethods]
impl Batch {
    #[new]
    fn new(map: Py<Map>, durable: Option<bool>) -> Self {
        Self { map, changes: Mutex::new(Some(Vec::new())), durable, done: Mutex::new(None) }
    }

    /// Writes a value. Of several changes of one key the last counts.
    #[pyo3(signature = (key, value, /, *, space = None))]
    fn put(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        space: Option<&Bound<'_, Map>>,
    ) -> PyResult<()> {
        let map = self.of(space, py)?;
        let key = map.get().key(key)?.into_owned();
        let value = encoded(map.get().codec.as_deref(), value)?;
        self.add(Change::Put { key, map: map.clone_ref(py), value: bytes_of(&value)?.into_owned() })
    }

    /// Deletes a key, if it is there.
    #[pyo3(signature = (key, /, *, space = None))]
    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>, space: Option<&Bound<'_, Map>>) -> PyResult<()> {
        let map = self.of(space, py)?;
        let key = map.get().key(key)?.into_owned();
        self.add(Change::Delete { key, map: map.clone_ref(py) })
    }

    /// The commit is a conflict unless the key's version is this one before it (None: there is no such key).
    #[pyo3(signature = (key, version, /, *, space = None))]
    fn require(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        version: Option<u64>,
        space: Option<&Bound<'_, Map>>,
    ) -> PyResult<()> {
        let map = self.of(space, py)?;
        let key = map.get().key(key)?.into_owned();
        self.add(Change::Require { key, map: map.clone_ref(py), version: version.map(Version::from_u64) })
    }

    /// Makes a push to a queue a part of the batch.
    #[pyo3(signature = (queue, data, /))]
    fn push(&self, queue: &Bound<'_, Queue>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = encoded(queue.get().map.get().codec.as_deref(), data)?;
        self.add(Change::Push { queue: queue.clone().unbind(), data: bytes_of(&data)?.into_owned() })
    }

    /// Makes the end of a job a part of the batch: the rest of the batch, such as the job's result, is there when the job is gone, and not
    /// before. If another process has the job by then, the commit is a conflict.
    #[pyo3(signature = (job, /))]
    fn finish(&self, job: &Bound<'_, Job>) -> PyResult<()> {
        self.add(Change::Finish { job: job.clone().unbind() })
    }

    fn __setitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.put(py, key, value, None)
    }

    fn __delitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        self.delete(py, key, None)
    }

    fn __len__(&self) -> usize {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, Vec::len)
    }

    /// Makes all changes or none. Raises Conflict if a condition does not hold: then nothing was written.
    fn commit(&self, py: Python<'_>) -> PyResult<()> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(changes) = changes else {
            return Err(PyValueError::new_err("the batch was committed or given up; begin another one"));
        };
        let core = &self.map.get().core;
        loop {
            match core.call(py, |attached| make(attached, &changes))? {
                Outcome::Again => py.check_signals()?,
                Outcome::Conflict { id, current } => {
                    let key = self.key_of(py, &changes, id)?;
                    return Err(conflict(py, key, current.map(Version::get)));
                }
                Outcome::Done { versions, numbers } => {
                    for change in &changes {
                        if let Change::Finish { job } = change {
                            job.get().is_finished();
                        }
                    }
                    *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some((versions, numbers));
                    if self.map.get().is_durable(self.durable) {
                        core.sync(py)?;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// The version of each record that the commit wrote, by the record's id (see `id_of`).
    #[getter]
    fn versions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let versions = PyDict::new(py);
        if let Some((done, _)) = &*self.done.lock().unwrap_or_else(PoisonError::into_inner) {
            for (id, version) in done {
                versions.set_item(id, version.get())?;
            }
        }
        Ok(versions)
    }

    /// The numbers of the jobs that the commit pushed, in the order of the pushes.
    #[getter]
    fn pushed(&self) -> Vec<u64> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.as_ref().map_or_else(Vec::new, |(_, numbers)| numbers.clone())
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    /// Commits, unless the block raised: then nothing is written.
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !kind.is_none() {
            let given_up = self.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(given_up);
            return Ok(());
        }
        let is_open = self.changes.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_open { self.commit(py) } else { Ok(()) }
    }
}

impl Batch {
    /// The key that a condition of the batch is of.
    fn key_of<'py>(&self, py: Python<'py>, changes: &[Change], id: u64) -> PyResult<Bound<'py, PyAny>> {
        let attached = self.map.get().core.attached(py)?;
        for change in changes {
            if let Change::Require { key, map, .. } = change {
                let found = place(&attached, map.get(), key, Ok, |space, key| Ok(space.id_of(key)));
                if found.is_ok_and(|found| found == id) {
                    return map.get().give_key(py, key);
                }
            }
            if let Change::Finish { job } = change
                && job.get().id(&attached) == Some(id)
            {
                return Ok(format!("job {} of queue {}", job.get().number, job.get().queue.name)
                    .into_pyobject(py)?
                    .into_any());
            }
        }
        Ok(id.into_pyobject(py)?.into_any())
    }
}
