//! Queues: jobs for the processes that claim them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use recstore::bindings::{self, with_patience};
use recstore::{Error, Store};
use self_cell::self_cell;

use crate::error::exception;
use crate::handle::{SLICE, SpaceOf, in_slices, look_in_slices, seconds};
use crate::map::Map;
use crate::value::{bytes_of, encoded};

type Claimed<'a> = Mutex<Option<recstore::Job<'a>>>;

self_cell!(
    /// A claimed job, with the store that it is of.
    struct JobOf {
        owner: Arc<SpaceOf>,
        #[not_covariant]
        dependent: Claimed,
    }
);

/// Jobs that any process pushes, and that each are given to one process: see `Store.queue`.
#[pyclass(frozen, module = "recstore")]
pub(crate) struct Queue {
    pub(crate) map: Py<Map>,
    pub(crate) name: String,
    lease: Option<Duration>,
    claims_max: Option<u32>,
}

impl Queue {
    pub(crate) fn of<'a>(&self, store: &'a Store) -> recstore::Result<recstore::Queue<'a>> {
        let mut queue = store.queue(&self.name)?;
        if let Some(lease) = self.lease {
            queue = queue.lease(lease);
        }
        if let Some(claims) = self.claims_max {
            queue = queue.claims_max(claims);
        }
        Ok(queue)
    }

    fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl Fn(recstore::Queue<'_>) -> recstore::Result<T> + Sync,
    ) -> PyResult<T> {
        self.map.get().core.call(py, |attached| work(self.of(attached.opened())?))
    }

    fn another(&self, py: Python<'_>) -> Self {
        Self {
            map: self.map.clone_ref(py),
            name: self.name.clone(),
            lease: self.lease,
            claims_max: self.claims_max,
        }
    }
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (map, name, lease, claims_max))]
    fn new(
        py: Python<'_>,
        map: Py<Map>,
        name: String,
        lease: Option<f64>,
        claims_max: Option<u32>,
    ) -> PyResult<Self> {
        let queue = Self { map, name, lease: seconds("lease", lease)?, claims_max };
        queue.call(py, |_| Ok(()))?; // A name that is none is refused here.
        Ok(queue)
    }

    /// The name of the queue.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Adds a job, and returns its number. Jobs are given out in the order of their numbers.
    #[pyo3(signature = (data, /, *, durable = None))]
    fn push(&self, py: Python<'_>, data: &Bound<'_, PyAny>, durable: Option<bool>) -> PyResult<u64> {
        let map = self.map.get();
        let data = encoded(map.codec.as_deref(), data)?;
        let data = bytes_of(&data)?;
        let number = self.call(py, |queue| queue.push(&data))?;
        if map.is_durable(durable) {
            map.core.sync(py)?;
        }
        Ok(number)
    }

    /// Claims the oldest free job, and waits for one. Returns None if none comes within `timeout` seconds (None: as long as it takes).
    /// If this process dies, the next claim of any process gets the job.
    #[pyo3(signature = (timeout = None))]
    fn claim(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Job>> {
        let timeout = seconds("timeout", timeout)?;
        let core = &self.map.get().core;
        core.call(py, |attached| attached.opened().holder())?; // A forked child opens the store first.
        let attached = core.attached(py)?;
        let claimed = look_in_slices(
            py,
            timeout,
            || false,
            |slice| {
                let made = JobOf::try_new(Arc::clone(&attached), |attached| {
                    self.of(attached.opened())?.claim(Some(slice)).map(Mutex::new)
                })?;
                let number = made.with_dependent(|_, job| {
                    let job = job.lock().unwrap_or_else(PoisonError::into_inner);
                    job.as_ref().map(|job| (job.number(), job.claims(), job.data().to_vec()))
                });
                Ok(number.map(|claimed| (made, claimed)))
            },
        )?;
        let queue = self.another(py);
        Ok(claimed.map(|(job, (number, claims, data))| Job { queue, job: Some(job), number, claims, data }))
    }

    /// Number of jobs that are not finished, claimed or not. Looks at each job.
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(usize::try_from(self.call(py, |queue| queue.len())?)?)
    }

    /// The jobs that were claimed more often than `claims_max`, each with its number.
    fn dead_letters<'py>(&self, py: Python<'py>) -> PyResult<Vec<(u64, Bound<'py, PyAny>)>> {
        let dead = self.call(py, |queue| queue.dead_letters())?;
        dead.iter().map(|(number, data)| Ok((*number, self.map.get().value(py, data)?))).collect()
    }

    /// Puts a dead letter to the end of the queue. Returns its new number, or None if there is no such dead letter.
    #[pyo3(signature = (number, /))]
    fn revive(&self, py: Python<'_>, number: u64) -> PyResult<Option<u64>> {
        self.call(py, |queue| queue.revive(number))
    }

    fn __repr__(&self) -> String {
        format!("<recstore.Queue {:?}>", self.name)
    }

    #[expect(clippy::type_complexity, reason = "the arguments of `new`")]
    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> (Bound<'py, PyAny>, (Py<Map>, &str, Option<f64>, Option<u32>)) {
        let lease = self.lease.map(|lease| lease.as_secs_f64());
        (py.get_type::<Self>().into_any(), (self.map.clone_ref(py), &self.name, lease, self.claims_max))
    }
}

/// A claimed job. As a context manager it finishes the job, or gives it back if the block raised.
#[pyclass(frozen, module = "recstore")]
pub(crate) struct Job {
    pub(crate) queue: Queue,
    /// Taken only when it is dropped.
    job: Option<JobOf>,
    pub(crate) number: u64,
    claims: u32,
    data: Vec<u8>,
}

impl Drop for Job {
    fn drop(&mut self) {
        // A job that is still open is given back. If a lock is held, it is free when this process is gone.
        let job = self.job.take();
        with_patience(SLICE, || drop(job));
    }
}

impl Job {
    /// Calls `work` for the job, if it was neither finished nor given back.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl Fn(&mut recstore::Job<'_>) -> recstore::Result<T> + Sync,
    ) -> PyResult<T> {
        let Some(cell) = &self.job else { return Err(over()) };
        let timeout = None;
        let done = in_slices(py, timeout, || {
            cell.with_dependent(|_, job| {
                let mut job = job.lock().unwrap_or_else(PoisonError::into_inner);
                job.as_mut().map(&work).transpose()
            })
        })?;
        done.map_err(|error| exception(py, &error))?.ok_or_else(over)
    }

    /// Forgets the job, which has ended.
    fn end(&self) {
        let Some(cell) = &self.job else { return };
        let ended =
            cell.with_dependent(|_, job| job.lock().unwrap_or_else(PoisonError::into_inner).take().is_some());
        let _ = ended;
    }

    /// Notes that a batch has finished the job.
    pub(crate) fn is_finished(&self) {
        self.end();
    }

    pub(crate) fn finish_in(
        &self,
        attached: &Arc<SpaceOf>,
        batch: &mut recstore::Batch<'_>,
    ) -> recstore::Result<()> {
        let _ = attached;
        let Some(cell) = &self.job else { return Ok(()) };
        cell.with_dependent(|_, job| {
            let job = job.lock().unwrap_or_else(PoisonError::into_inner);
            match job.as_ref() {
                Some(job) => job.finish_in(batch),
                None => Err(Error::InvalidOption {
                    what: format!("job {} was finished or given back already; claim it again", self.number),
                }),
            }
        })
    }

    /// The id of the record of the job.
    pub(crate) fn id(&self, attached: &Arc<SpaceOf>) -> Option<u64> {
        let space = attached.opened().space(&format!("queue {}", self.queue.name)).ok()?;
        Some(space.id_of(self.number.to_be_bytes()))
    }
}

fn over() -> PyErr {
    PyValueError::new_err("the job was finished or given back already")
}

#[pymethods]
impl Job {
    /// What was pushed.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.queue.map.get().value(py, &self.data)
    }

    /// Its number in the queue.
    #[getter]
    fn number(&self) -> u64 {
        self.number
    }

    /// The number of its claims, this one included.
    #[getter]
    fn claims(&self) -> u32 {
        self.claims
    }

    /// Removes the job, which is done. Returns whether it was still this claim's.
    fn finish(&self, py: Python<'_>) -> PyResult<bool> {
        let was_mine = self.with(py, bindings::finish)?;
        self.end();
        Ok(was_mine)
    }

    /// Gives the job back: the next claim gets it. Returns whether it was still this claim's.
    fn release(&self, py: Python<'_>) -> PyResult<bool> {
        let was_mine = self.with(py, bindings::release)?;
        self.end();
        Ok(was_mine)
    }

    /// Begins the lease anew. Returns whether the job is still this claim's.
    fn heartbeat(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |job| job.heartbeat())
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let is_open = self.job.as_ref().is_some_and(|cell| {
            cell.with_dependent(|_, job| job.lock().unwrap_or_else(PoisonError::into_inner).is_some())
        });
        if is_open {
            if kind.is_none() { self.finish(py) } else { self.release(py) }?;
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("<recstore.Job {} of {:?}>", self.number, self.queue.name)
    }
}
