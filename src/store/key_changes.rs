//! All keys of a space, and then their changes one by one.
//!
//! The feed follows the keyed records of the store, and knows for each record which keys of the space it held. So when a record is gone,
//! or has changed, the feed tells which keys are gone.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::format::slot::Address;
use crate::record::Version;
use crate::store::changes::{Change, Changes};
use crate::store::space::Space;

/// Keys of the space, with their versions.
type Keys = Vec<(Vec<u8>, Version)>;

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
    /// A record that could not be read when it was told.
    again: Option<u64>,
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
        Ok(KeyChanges {
            space: self.clone(),
            records,
            known: HashMap::new(),
            ready: VecDeque::new(),
            again: None,
        })
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
            let change = match self.again.take() {
                Some(id) => Some(Change::Written { id, version: Version(0) }),
                None => self.records.next_timeout(timeout.saturating_sub(started.elapsed()))?,
            };
            match change {
                None => return Ok(None),
                Some(Change::CaughtUp) => return Ok(Some(KeyChange::CaughtUp)),
                Some(Change::Behind) => {} // It is not a feed from now on.
                Some(Change::Deleted { id }) => self.tell(id, Vec::new()),
                Some(Change::Written { id, .. }) => match self.read(id) {
                    Ok(Some(now)) => self.tell(id, now),
                    Ok(None) => {} // It is gone by now: that is told next.
                    Err(error) => {
                        // A damaged record is told once. Other errors pass, and the record is read again.
                        self.again = Some(id).filter(|_| !matches!(error, Error::Corrupt { .. }));
                        return Err(error);
                    }
                },
            }
        }
    }

    /// The keys that a record holds now, with their versions.
    fn read(&self, id: u64) -> Result<Option<Keys>> {
        let mut data = Vec::new();
        let Some((header, _)) = self.space.store.read(id, Address::Key, Some(&mut data))? else {
            return Ok(None);
        };
        let now = self.space.of_record(id, Version(header.version()), &data).into_iter();
        now.map(|entry| entry.map(|(key, record)| (key, record.version()))).collect::<Result<_>>().map(Some)
    }

    /// Tells the differences of a record that holds these keys now.
    fn tell(&mut self, id: u64, now: Keys) {
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
