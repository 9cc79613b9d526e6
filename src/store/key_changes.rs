//! All keys of a space, and then their changes one by one.
//!
//! The feed follows the keyed records of the store, and knows for each record which keys of the space it held. So when a record is gone,
//! or has changed, the feed tells which keys are gone.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::format::slot::Address;
use crate::record::Version;
use crate::store::changes::{Change, Changes};
use crate::store::space::Space;

/// An item of a feed of a space: see [`Space::changes`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyChange {
    /// The key is there, with this version: it was written, or was there when the feed began.
    Written {
        /// The key.
        key: Vec<u8>,
        /// Its version when the feed looked at it. Earlier versions may have been passed over.
        version: Version,
    },
    /// A key that was told is not there any more.
    Deleted {
        /// The key.
        key: Vec<u8>,
    },
    /// All keys that were there when the feed began have been told. Comes once.
    CaughtUp,
}

/// A blocking feed of the changes of a space: see [`Space::changes`].
#[derive(Debug)]
pub struct KeyChanges<'a> {
    space: Space<'a>,
    records: Changes<'a>,
    /// The keys of the space that each record held.
    known: HashMap<u64, Vec<Vec<u8>>>,
    ready: VecDeque<KeyChange>,
}

/// Following changes.
impl<'a> Space<'a> {
    /// Every key of the space, then [`KeyChange::CaughtUp`], and then the changes as they come, deletions too. All rules of
    /// [`Store::changes`](crate::Store::changes) hold.
    ///
    /// The feed looks at the keyed records of all spaces. It keeps the id and the version of each of them, and the keys of this space.
    /// Keys with equal ids are told together.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{KeyChange, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// let mut changes = sessions.changes()?;
    /// assert_eq!(changes.next_timeout(Duration::ZERO)?, Some(KeyChange::CaughtUp));
    /// let version = sessions.put("user:7", b"logged in")?; // by any process
    /// let told = changes.next_timeout(Duration::from_secs(9))?;
    /// assert_eq!(told, Some(KeyChange::Written { key: b"user:7".to_vec(), version }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::changes`](crate::Store::changes).
    pub fn changes(&self) -> Result<KeyChanges<'a>> {
        let records = self.store.changes_of(Address::Key)?;
        Ok(KeyChanges { space: self.clone(), records, known: HashMap::new(), ready: VecDeque::new() })
    }
}

impl KeyChanges<'_> {
    /// The next change, or `None` if none comes within the time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{KeyChange, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// let mut changes = sessions.changes()?;
    /// assert!(matches!(changes.next_timeout(Duration::ZERO)?, Some(KeyChange::Written { .. })));
    /// assert_eq!(changes.next_timeout(Duration::ZERO)?, Some(KeyChange::CaughtUp));
    /// assert_eq!(changes.next_timeout(Duration::ZERO)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Changes::next_timeout`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<KeyChange>> {
        let started = Instant::now();
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(Some(change));
            }
            match self.records.next_timeout(timeout.saturating_sub(started.elapsed()))? {
                None => return Ok(None),
                Some(Change::CaughtUp) => return Ok(Some(KeyChange::CaughtUp)),
                Some(Change::Deleted { id }) => self.tell(id, Vec::new()),
                Some(Change::Written { id, .. }) => {
                    let mut data = Vec::new();
                    // If it is gone by now, that is told next.
                    if let Some((header, _)) = self.space.store.read(id, Address::Key, Some(&mut data))? {
                        let now = self.space.of_record(id, Version(header.version()), &data);
                        let now = now.into_iter().collect::<Result<Vec<_>>>()?;
                        self.tell(id, now.into_iter().map(|(key, record)| (key, record.version())).collect());
                    }
                }
            }
        }
    }

    /// Tells the differences of a record that holds these keys now.
    fn tell(&mut self, id: u64, now: Vec<(Vec<u8>, Version)>) {
        for key in self.known.remove(&id).unwrap_or_default() {
            if now.iter().all(|(there, _)| *there != key) {
                self.ready.push_back(KeyChange::Deleted { key });
            }
        }
        if !now.is_empty() {
            self.known.insert(id, now.iter().map(|(key, _)| key.clone()).collect());
        }
        self.ready.extend(now.into_iter().map(|(key, version)| KeyChange::Written { key, version }));
    }
}
