//! Waiting for changes of any process: of one key, and of all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use recstore::{Change, Event, KeyChange, Version};
use self_cell::self_cell;

use crate::handle::{SpaceOf, look_in_slices, seconds};
use crate::key::Key;
use crate::map::{At, Map, Scope, owned_key};

/// Waits for changes of one key: see `Store.watch`.
#[pyclass(frozen, subclass, module = "recstore._native")]
pub(crate) struct Watch {
    map: Py<Map>,
    key: Key<'static>,
    /// The version that was seen last.
    last: Mutex<Option<Version>>,
    is_cancelled: AtomicBool,
}

#[pymethods]
impl Watch {
    #[new]
    fn new(py: Python<'_>, map: Py<Map>, key: &Bound<'_, PyAny>) -> PyResult<Self> {
        let key = map.get().key(key)?.into_owned();
        let last = map.get().call(py, &key, |at| match at {
            At::Id(store, id) => store.version(id),
            At::Key(space, key) => space.version(key),
        })?;
        Ok(Self { map, key, last: Mutex::new(last), is_cancelled: AtomicBool::new(false) })
    }

    /// The next change: the version and the value, or (None, None) for a deletion. None if the time is over, or it was cancelled.
    #[expect(clippy::type_complexity, reason = "a pair of options")]
    fn _wait<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Option<(Option<u64>, Option<Bound<'py, PyAny>>)>> {
        let timeout = seconds("timeout", timeout)?;
        let map = self.map.get();
        map.core.call(py, |attached| attached.opened().contains(0))?; // A forked child opens the store first.
        let attached = map.core.attached(py)?;
        let is_cancelled = || self.is_cancelled.load(Ordering::SeqCst);
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let found = look_in_slices(py, timeout, is_cancelled, |slice| {
            let mut data = Vec::new();
            let mut look =
                |wait: &mut dyn FnMut(Duration) -> recstore::Result<Event>,
                 read: &dyn Fn(&mut Vec<u8>) -> recstore::Result<Option<Version>>| {
                    let mut now = read(&mut data)?;
                    if now == last && !matches!(wait(slice)?, Event::TimedOut) {
                        now = read(&mut data)?;
                    }
                    Ok((now != last).then(|| (now, std::mem::take(&mut data))))
                };
            match (&self.key, &*map.scope) {
                (Key::Id(id), _) => {
                    let store = attached.opened();
                    let mut watch = store.watch(*id)?;
                    look(&mut |slice| watch.wait(Some(slice)), &|out| store.get_into(*id, out))
                }
                (Key::Bytes(key), scope) => {
                    let space = match scope {
                        Scope::Store => Arc::clone(&attached),
                        scope => scope.space(&attached)?,
                    };
                    let mut watch = space.space().watch(key)?;
                    look(&mut |slice| watch.wait(Some(slice)), &|out| space.space().get_into(key, out))
                }
            }
        })?;
        let Some((now, data)) = found else { return Ok(None) };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(Some(match now {
            Some(version) => (Some(version.get()), Some(map.value(py, &data)?)),
            None => (None, None),
        }))
    }

    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.map.get().give_key(py, &self.key)
    }

    /// Ends a wait in another thread, and every later one.
    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::SeqCst);
    }

    #[getter]
    fn cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }
}

/// The feeds of a map: of records by id, of keys, and of either.
struct Feeds<'a> {
    ids: Option<recstore::Changes<'a>>,
    keys: recstore::KeyChanges<'a>,
    any: recstore::WatchAll<'a>,
    /// Feeds that have not caught up yet.
    behind: u32,
}

type SharedFeeds<'a> = Mutex<Feeds<'a>>;

self_cell!(
    struct FeedsOf {
        owner: (Arc<SpaceOf>, Arc<SpaceOf>),
        #[not_covariant]
        dependent: SharedFeeds,
    }
);

/// A change: the kind, the key, the version.
type Told = (&'static str, Option<Key<'static>>, Option<Version>);

impl Feeds<'_> {
    /// The next change, if there is one within the time.
    fn next(&mut self, patience: Duration) -> recstore::Result<Option<Told>> {
        for wait in [Duration::ZERO, patience] {
            if !wait.is_zero() && !self.any.wait(Some(wait))? {
                return Ok(None);
            }
            if let Some(ids) = &mut self.ids
                && let Some(change) = ids.next_timeout(Duration::ZERO)?
            {
                match change {
                    Change::Written { id, version } => {
                        return Ok(Some(("written", Some(Key::Id(id)), Some(version))));
                    }
                    Change::Deleted { id } => return Ok(Some(("deleted", Some(Key::Id(id)), None))),
                    _ => self.behind -= 1,
                }
            }
            match self.keys.next_timeout(Duration::ZERO)? {
                Some(KeyChange::Written { key, version }) => {
                    return Ok(Some(("written", Some(owned_key(key)), Some(version))));
                }
                Some(KeyChange::Deleted { key }) => return Ok(Some(("deleted", Some(owned_key(key)), None))),
                Some(_) => self.behind -= 1,
                None => {}
            }
            if self.behind == 0 {
                self.behind = u32::MAX; // It is told once.
                return Ok(Some(("caught up", None, None)));
            }
        }
        Ok(None)
    }
}

/// All keys, and then their changes: see `Store.changes`.
#[pyclass(frozen, subclass, module = "recstore._native")]
pub(crate) struct Changes {
    map: Py<Map>,
    feeds: FeedsOf,
    is_cancelled: AtomicBool,
}

#[pymethods]
impl Changes {
    #[new]
    fn new(py: Python<'_>, map: Py<Map>) -> PyResult<Self> {
        let this = map.get();
        let feeds = this.core.call(py, |attached| {
            let space = this.scope.space(attached)?;
            let with_ids = matches!(*this.scope, Scope::Store);
            FeedsOf::try_new((Arc::clone(attached), space), |(attached, space)| {
                // First, so that it tells of every change that the others tell.
                let any = attached.opened().watch_all()?;
                let ids = with_ids.then(|| attached.opened().changes()).transpose()?;
                let keys = space.space().changes()?;
                Ok(Mutex::new(Feeds { ids, keys, any, behind: 1 + u32::from(with_ids) }))
            })
        })?;
        Ok(Self { map, feeds, is_cancelled: AtomicBool::new(false) })
    }

    /// The next change: its kind, its key and its version. None if the time is over, or it was cancelled.
    #[expect(clippy::type_complexity, reason = "three parts of a change")]
    fn _wait<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Option<(&'static str, Option<Bound<'py, PyAny>>, Option<u64>)>> {
        let timeout = seconds("timeout", timeout)?;
        let is_cancelled = || self.is_cancelled.load(Ordering::SeqCst);
        let told = look_in_slices(py, timeout, is_cancelled, |slice| {
            self.feeds
                .with_dependent(|_, feeds| feeds.lock().unwrap_or_else(PoisonError::into_inner).next(slice))
        })?;
        let Some((kind, key, version)) = told else { return Ok(None) };
        let key = key.map(|key| self.map.get().give_key(py, &key)).transpose()?;
        Ok(Some((kind, key, version.map(Version::get))))
    }

    /// Ends a wait in another thread, and every later one.
    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::SeqCst);
    }

    #[getter]
    fn cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }
}
