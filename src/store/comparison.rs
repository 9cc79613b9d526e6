//! A comparison of a place with a store, while both change.
//!
//! It lists the place with its bytes and passes over the store once. Each key that differs is a *suspect*, and is looked at again
//! until it agrees or the caller's patience ends: a write that is under way is no difference.

use std::collections::{HashMap, HashSet};
use std::iter;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::store::Store;
use crate::store::mirror::MirrorError;
use crate::store::mirror_source::Source;
use crate::store::sink::{KeyState, RecordKey, Sink};

/// The result of [`compare`]: see [`Comparison::is_equal`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Comparison {
    /// Records of the store.
    pub records: u64,
    /// Records that the place does not have.
    pub missing: Vec<RecordKey>,
    /// Records that the store does not have.
    pub extra: Vec<RecordKey>,
    /// Records with another version or other bytes.
    pub differing: Vec<RecordKey>,
}

impl Comparison {
    /// Whether the place equals the store.
    ///
    /// ```
    /// assert!(recstore::mirror::Comparison::default().is_equal());
    /// ```
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.differing.is_empty()
    }
}

/// Compares a place with a store, bytes included, and changes nothing. A mirror may run meanwhile: differences that are gone within
/// `patience` do not count.
///
/// ```
/// # use std::time::Duration;
/// # use recstore::Store;
/// use recstore::mirror::{Directory, Mirror, compare};
///
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
/// store.put(1, b"one")?;
/// let mut place = Directory::open(dir.path().join("copy"), &store, None)?;
/// assert_eq!(compare(&store, None, &mut place, Duration::ZERO)?.missing.len(), 1);
/// let mut mirror = Mirror::start(&store, None, place)?;
/// while !mirror.step(Duration::ZERO)?.is_equal {}
/// assert!(compare(&store, None, mirror.sink(), Duration::ZERO)?.is_equal());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Sink::list`]; those of the store. A damaged record counts as one that differs.
pub fn compare<S: Sink>(
    store: &Store,
    space: Option<&str>,
    sink: &mut S,
    patience: Duration,
) -> Result<Comparison, MirrorError<S::Error>> {
    let started = Instant::now();
    let source = Source::new(store, space)?;
    let mut found = HashSet::new();
    // With the revision that was found to differ; 0: not there.
    let mut suspects: HashMap<RecordKey, u64> = HashMap::new();
    let mut failed = None;
    let listed = sink.list(true, &mut |key, held, data| {
        let Some(version) = held.version else { return };
        match source.get(&key) {
            Ok(Some(record)) if record.version() == version && record.data() == data => {}
            Ok(_) | Err(Error::Corrupt { .. }) => _ = suspects.insert(key.clone(), held.revision),
            Err(error) => failed = Some(error),
        }
        found.insert(key);
    });
    listed.map_err(MirrorError::Sink)?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let mut comparison = Comparison::default();
    let mut look = |key: RecordKey| {
        comparison.records += 1;
        if !found.contains(&key) {
            suspects.insert(key, 0);
        }
    };
    match &source.space {
        None => {
            for record in store.iter() {
                match record {
                    Ok(record) => look(RecordKey::Id(record.id())),
                    Err(Error::Corrupt { id, .. }) => look(RecordKey::Id(id)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Some(space) => {
            for entry in space.iter() {
                look(RecordKey::Key(entry?.0.into()));
            }
        }
    }
    let mut left: Vec<(RecordKey, u64)> = suspects.into_iter().collect();
    loop {
        let keys: Vec<RecordKey> = left.iter().map(|(key, _)| key.clone()).collect();
        let states =
            if keys.is_empty() { Vec::new() } else { sink.read(&keys).map_err(MirrorError::Sink)? };
        let states = states.into_iter().chain(iter::repeat(KeyState::default()));
        let mut still = Vec::new();
        for ((key, suspected), now) in left.into_iter().zip(states) {
            let (here, is_damaged) = match source.version(&key) {
                Ok(here) => (here, false),
                Err(Error::Corrupt { .. }) => (None, true),
                Err(error) => return Err(error.into()),
            };
            // At the same revision it has the bytes that were found to differ.
            let has_arrived = now.version == here && (here.is_none() || now.revision != suspected);
            if is_damaged || !has_arrived {
                still.push((key, suspected, here, now));
            }
        }
        if still.is_empty() || started.elapsed() >= patience {
            for (key, _, here, now) in still {
                match (here, now.version) {
                    (Some(_), None) => comparison.missing.push(key),
                    (None, Some(_)) => comparison.extra.push(key),
                    _ => comparison.differing.push(key),
                }
            }
            comparison.missing.sort_unstable();
            comparison.extra.sort_unstable();
            comparison.differing.sort_unstable();
            return Ok(comparison);
        }
        left = still.into_iter().map(|(key, suspected, ..)| (key, suspected)).collect();
        std::thread::sleep(Duration::from_millis(50).min(patience.saturating_sub(started.elapsed())));
    }
}
