//! An open store, and waiting for it without the lock of the interpreter.
//!
//! 1. A call is first made with a patience of zero, with the interpreter's lock held: nearly every call waits for nothing.
//! 2. If it would have to wait, nothing was changed. It is made again without the interpreter's lock, for a short time at once,
//!    so that signals (Ctrl-C) are seen in between.
//! 3. In a forked child every call on the parent's handle is refused. Then the store is opened anew, and the call is made again.
//! 4. What is lent (pins, snapshots, iterators) keeps the handle that it is of, even after the store was closed.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use pyo3::prelude::*;
use recstore::bindings::with_patience;
use recstore::{Error, Options, Shared, Space, Store};
use self_cell::self_cell;

use crate::error::{closed, exception};

/// A call that waits looks this often for signals.
pub(crate) const SLICE: Duration = Duration::from_millis(50);
/// The last view of a closed store closes its handle, and waits for others at most this long.
const LEAVE: Duration = Duration::from_secs(1);

/// A store that is open in this process.
pub(crate) struct Opened {
    store: ManuallyDrop<Kind>,
    /// It was closed while something was lent: the last view closes the handle.
    is_closing: AtomicBool,
}

enum Kind {
    File(Store),
    Memory(Shared),
}

impl Deref for Opened {
    type Target = Store;

    #[inline]
    fn deref(&self) -> &Store {
        match &*self.store {
            Kind::File(store) => store,
            Kind::Memory(store) => store,
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: taken once, here; the field is not used afterwards.
        let store = unsafe { ManuallyDrop::take(&mut self.store) };
        if let (Kind::File(store), true) = (store, *self.is_closing.get_mut()) {
            // `close` has flushed it and reported errors. This marks it as clean.
            let _ = store.close_timeout(LEAVE);
        }
    }
}

self_cell!(
    /// An open store, and a space of it.
    pub(crate) struct SpaceOf {
        owner: Arc<Opened>,
        #[covariant]
        dependent: Space,
    }
);

impl SpaceOf {
    pub(crate) fn make(opened: &Arc<Opened>, name: &str, ttl: Option<Duration>) -> recstore::Result<Self> {
        Self::try_new(Arc::clone(opened), |store| {
            let space = store.space(name)?;
            Ok(match ttl {
                Some(ttl) => space.with_ttl(ttl),
                None => space,
            })
        })
    }

    #[inline]
    pub(crate) fn opened(&self) -> &Arc<Opened> {
        self.borrow_owner()
    }

    #[inline]
    pub(crate) fn space(&self) -> &Space<'_> {
        self.borrow_dependent()
    }
}

/// The way to open the store.
#[derive(Clone)]
enum Place {
    File(PathBuf),
    Memory(String),
}

/// The store of a `Handle`, and the way to open it anew.
pub(crate) struct Core {
    place: Place,
    is_read_only: bool,
    options: Options,
    /// The space of keys that are given without one.
    space: String,
    lock_timeout: Option<Duration>,
    /// Writes are durable unless they ask for something else.
    pub(crate) is_durable: bool,
    current: ArcSwapOption<SpaceOf>,
    /// Where spaces of the store are kept, to be made once. They hold the store open, so they go when it is closed.
    caches: Mutex<Vec<Weak<ArcSwapOption<SpaceOf>>>>,
}

impl Core {
    /// A place to keep a space of the store.
    pub(crate) fn cache(&self) -> Arc<ArcSwapOption<SpaceOf>> {
        let cache = Arc::new(ArcSwapOption::empty());
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if caches.len() == caches.capacity() {
            caches.retain(|cache| cache.strong_count() != 0);
        }
        caches.push(Arc::downgrade(&cache));
        cache
    }

    fn empty_caches(&self) {
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.iter().filter_map(Weak::upgrade).for_each(|cache| cache.store(None));
    }

    /// The open store, with the space of keys that are given without one.
    #[inline]
    pub(crate) fn attached(&self, py: Python<'_>) -> PyResult<Arc<SpaceOf>> {
        self.current.load_full().ok_or_else(|| closed(py))
    }

    /// Calls `work` once, with a patience of zero: see 1. `None`: the store is closed.
    #[inline]
    pub(crate) fn try_call<T>(
        &self,
        work: impl FnOnce(&Arc<SpaceOf>) -> recstore::Result<T>,
    ) -> Option<recstore::Result<T>> {
        let attached = self.current.load();
        let attached = attached.as_ref()?;
        Some(with_patience(Duration::ZERO, || work(attached)))
    }

    /// Calls `work` with the open store: see 1 to 3.
    #[inline]
    pub(crate) fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl Fn(&Arc<SpaceOf>) -> recstore::Result<T> + Sync,
    ) -> PyResult<T> {
        let attached = self.current.load();
        let Some(attached) = attached.as_ref() else { return Err(closed(py)) };
        match with_patience(Duration::ZERO, || work(attached)) {
            Ok(done) => Ok(done),
            Err(error) => self.call_again(py, error, &work),
        }
    }

    #[cold]
    fn call_again<T: Send>(
        &self,
        py: Python<'_>,
        error: Error,
        work: &(impl Fn(&Arc<SpaceOf>) -> recstore::Result<T> + Sync),
    ) -> PyResult<T> {
        match error {
            Error::Busy { .. } | Error::Forked { .. } => self.wait(py, work),
            error => Err(exception(py, &error)),
        }
    }

    /// The same for work that takes long or waits nearly always.
    pub(crate) fn wait<T: Send>(
        &self,
        py: Python<'_>,
        work: impl Fn(&Arc<SpaceOf>) -> recstore::Result<T> + Sync,
    ) -> PyResult<T> {
        loop {
            let attached = self.attached(py)?;
            match in_slices(py, self.lock_timeout, || work(&attached))? {
                Err(Error::Forked { .. }) if !attached.opened().is_ours() => self.open_anew(py, &attached)?,
                done => return done.map_err(|error| exception(py, &error)),
            }
        }
    }

    /// Opens the store.
    fn open(
        &self,
        py: Python<'_>,
        how: impl Fn(&Options, &Place) -> recstore::Result<Kind> + Sync,
    ) -> PyResult<Arc<SpaceOf>> {
        let opened = in_slices(py, self.lock_timeout, || {
            let store = ManuallyDrop::new(how(&self.options, &self.place)?);
            let opened = Arc::new(Opened { store, is_closing: AtomicBool::new(false) });
            SpaceOf::make(&opened, &self.space, None).map(Arc::new)
        })?;
        opened.map_err(|error| exception(py, &error))
    }

    /// Opens the store of the parent process in its child.
    #[cold]
    fn open_anew(&self, py: Python<'_>, parents: &Arc<SpaceOf>) -> PyResult<()> {
        let anew = self.open(py, |options, place| match place {
            Place::File(path) if self.is_read_only => options.open_read_only(path).map(Kind::File),
            Place::File(path) => options.open(path).map(Kind::File),
            Place::Memory(name) => options.shared(name).map(Kind::Memory),
        })?;
        // Another thread may have been faster: then this handle goes.
        self.current.compare_and_swap(parents, Some(anew));
        Ok(())
    }
}

impl Opened {
    /// Whether it was opened in this process, and not in its parent.
    pub(crate) fn is_ours(&self) -> bool {
        // The check comes before everything else that the call does.
        !matches!(self.contains(0), Err(Error::Forked { .. }))
    }
}

/// Does `work` without the interpreter's lock, a slice of the time at once, until it does not meet a lock that is held, or the time
/// is over. The outer result is that of the handlers of signals.
pub(crate) fn in_slices<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    work: impl Fn() -> recstore::Result<T> + Sync,
) -> PyResult<recstore::Result<T>> {
    let started = Instant::now();
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let patience = left.map_or(SLICE, |left| left.min(SLICE));
        let done = py.detach(|| with_patience(patience, &work));
        let Err(Error::Busy { path, lock, owner, .. }) = done else { return Ok(done) };
        py.check_signals()?;
        let waited = started.elapsed();
        if timeout.is_some_and(|timeout| waited >= timeout) {
            return Ok(Err(Error::Busy { path, lock, owner, waited }));
        }
    }
}

/// Does `work` with a patience of zero first, and then in slices.
pub(crate) fn in_patience<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    work: impl Fn() -> recstore::Result<T> + Sync,
) -> PyResult<T> {
    let done = match with_patience(Duration::ZERO, &work) {
        Err(Error::Busy { .. }) => in_slices(py, timeout, work)?,
        done => done,
    };
    done.map_err(|error| exception(py, &error))
}

/// Does `look` without the interpreter's lock until it finds something, or the time is over, and sees signals in between. `look`
/// waits for at most the time that it is given.
pub(crate) fn look_in_slices<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    is_over: impl Fn() -> bool,
    mut look: impl FnMut(Duration) -> recstore::Result<Option<T>> + Send,
) -> PyResult<Option<T>> {
    let started = Instant::now();
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        let found = py.detach(|| with_patience(SLICE, || look(slice)));
        match found {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) | Err(Error::Busy { .. }) => {}
            Err(error) => return Err(exception(py, &error)),
        }
        py.check_signals()?;
        if is_over() || timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
            return Ok(None);
        }
    }
}

/// Seconds as a duration; `None`: without end.
pub(crate) fn seconds(name: &str, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    let to = |seconds: f64| {
        Duration::try_from_secs_f64(seconds).map_err(|_| {
            pyo3::exceptions::PyValueError::new_err(format!(
                "{name}={seconds}: give seconds from 0 on, or None for as long as it takes"
            ))
        })
    };
    match seconds {
        None => Ok(None),
        Some(forever) if forever == f64::INFINITY => Ok(None),
        Some(seconds) => to(seconds).map(Some),
    }
}

/// A store that is open: what `Store` and `Space` are made with. It is opened anew in a forked child.
#[pyclass(frozen, weakref, module = "recstore._native")]
pub(crate) struct Handle {
    pub(crate) core: Arc<Core>,
}

#[pymethods]
impl Handle {
    #[new]
    #[pyo3(signature = (path, name, flag, *, record_size, regions, slots_per_extent, max_size, mode, lock_timeout, durable,
        verify_reads, require_geometry, allow_network_file_system, allow_copy_on_write, space))]
    #[expect(clippy::too_many_arguments, reason = "the options, by their names")]
    fn new(
        py: Python<'_>,
        path: Option<PathBuf>,
        name: Option<String>,
        flag: &str,
        record_size: Option<usize>,
        regions: u32,
        slots_per_extent: Option<u32>,
        max_size: u64,
        mode: u32,
        lock_timeout: Option<f64>,
        durable: bool,
        verify_reads: bool,
        require_geometry: bool,
        allow_network_file_system: bool,
        allow_copy_on_write: bool,
        space: String,
    ) -> PyResult<Self> {
        let lock_timeout = seconds("lock_timeout", lock_timeout)?;
        let mut options = Options::new()
            .regions(regions)
            .max_size(max_size)
            .mode(mode)
            .lock_timeout(lock_timeout)
            .verify_reads(verify_reads)
            .require_geometry(require_geometry)
            .allow_network_file_system(allow_network_file_system)
            .allow_copy_on_write(allow_copy_on_write);
        if let Some(bytes) = record_size {
            options = options.record_size(bytes);
        }
        if let Some(slots) = slots_per_extent {
            options = options.slots_per_extent(slots);
        }
        let place = match (path, name) {
            (Some(path), _) => Place::File(path),
            (None, name) => Place::Memory(name.unwrap_or_default()),
        };
        let core = Core {
            place,
            is_read_only: flag == "r",
            options,
            space,
            lock_timeout,
            is_durable: durable,
            current: ArcSwapOption::empty(),
            caches: Mutex::default(),
        };
        let flag = flag.to_owned();
        let opened = core.open(py, |options, place| match (place, flag.as_str()) {
            (Place::Memory(name), _) => options.shared(name).map(Kind::Memory),
            (Place::File(path), "r") => options.open_read_only(path).map(Kind::File),
            (Place::File(path), "w") => options.open(path).map(Kind::File),
            (Place::File(path), "x") => options.create(path).map(Kind::File),
            (Place::File(path), _) => options.open_or_create(path).map(Kind::File),
        })?;
        core.current.store(Some(opened));
        Ok(Self { core: Arc::new(core) })
    }

    /// Flushes, and gives the handle up. While something is lent, the handle stays attached, and the last view closes it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(attached) = self.core.current.swap(None) else { return Ok(()) };
        self.core.empty_caches();
        if !attached.opened().is_ours() {
            return Ok(()); // The parent's, which stays open there.
        }
        if let Kind::Memory(store) = &*attached.opened().store {
            py.detach(|| recstore::bindings::leave(store));
        }
        if attached.opened().is_read_only() || matches!(*attached.opened().store, Kind::Memory(_)) {
            py.detach(|| drop(attached));
            return Ok(());
        }
        let flushed = in_slices(py, self.core.lock_timeout, || attached.opened().sync());
        attached.opened().is_closing.store(true, Ordering::SeqCst);
        py.detach(|| drop(attached));
        flushed?.map_err(|error| exception(py, &error))
    }

    #[getter]
    fn closed(&self) -> bool {
        self.core.current.load().is_none()
    }

    #[getter]
    fn path(&self, py: Python<'_>) -> PyResult<PathBuf> {
        Ok(self.core.attached(py)?.opened().path().to_path_buf())
    }

    #[getter]
    fn read_only(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.core.attached(py)?.opened().is_read_only())
    }

    #[getter]
    fn record_size(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.core.attached(py)?.opened().record_size())
    }

    #[getter]
    fn durable(&self) -> bool {
        self.core.is_durable
    }

    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        self.core.sync(py)
    }

    /// Frees what has expired, within a budget of slots. Returns the number of values, and whether it came to the end.
    fn sweep(&self, py: Python<'_>, budget: u32) -> PyResult<(u64, bool)> {
        let swept = self.core.wait(py, |at| at.opened().sweep(budget))?;
        Ok((swept.freed, swept.is_round_over))
    }

    fn spaces(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.core.wait(py, |at| at.opened().spaces())
    }

    fn backup(&self, py: Python<'_>, to: PathBuf) -> PyResult<u64> {
        self.core.wait(py, |at| at.opened().backup(&to))
    }

    /// The identity of this handle: 8 bytes.
    fn holder(&self, py: Python<'_>) -> PyResult<[u8; 8]> {
        let holder = self.core.call(py, |at| at.opened().holder())?;
        Ok(recstore::bytemuck::cast(holder))
    }

    fn is_alive(&self, py: Python<'_>, holder: [u8; 8]) -> PyResult<bool> {
        self.core.call(py, |at| at.opened().is_alive(recstore::bytemuck::cast(holder)))
    }
}

impl Core {
    pub(crate) fn lock_timeout(&self) -> Option<Duration> {
        self.lock_timeout
    }

    pub(crate) fn sync(&self, py: Python<'_>) -> PyResult<()> {
        self.wait(py, |at| at.opened().sync())
    }
}
