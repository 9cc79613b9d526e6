//! The records that a mirror keeps elsewhere: all with an id, or those of one space, each read by its key and told by one feed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Error;
use crate::record::{Record, Version};
use crate::store::Store;
use crate::store::changes::{Change, Changes};
use crate::store::key_changes::{KeyChange, KeyChanges};
use crate::store::sink::RecordKey;
use crate::store::space::Space;

/// The records that are mirrored.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) store: &'a Store,
    pub(crate) space: Option<Space<'a>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(store: &'a Store, space: Option<&str>) -> Result<Self, Error> {
        Ok(Self { store, space: space.map(|name| store.space(name)).transpose()? })
    }

    pub(crate) fn get(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        match (&self.space, key) {
            (None, RecordKey::Id(id)) => self.store.get(*id),
            (Some(space), RecordKey::Key(key)) => space.get(key),
            _ => Ok(None),
        }
    }

    pub(crate) fn version(&self, key: &RecordKey) -> Result<Option<Version>, Error> {
        match (&self.space, key) {
            (None, RecordKey::Id(id)) => self.store.version(*id),
            (Some(space), RecordKey::Key(key)) => space.version(key),
            _ => Ok(None),
        }
    }

    /// The time by which values end.
    pub(crate) fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.store.now_ms())
    }

    pub(crate) fn follow(&self) -> Result<Feed<'a>, Error> {
        Ok(match &self.space {
            None => Feed::Ids(self.store.changes()?),
            Some(space) => Feed::Keys(Box::new(space.changes()?)),
        })
    }
}

/// The feed of their changes.
#[derive(Debug)]
pub(crate) enum Feed<'a> {
    Ids(Changes<'a>),
    Keys(Box<KeyChanges<'a>>),
}

/// An item of either feed.
#[derive(Debug)]
pub(crate) enum FeedItem {
    Written(RecordKey, Version),
    Deleted(RecordKey),
    CaughtUp,
}

impl Feed<'_> {
    pub(crate) fn next(&mut self, timeout: Duration) -> Result<Option<FeedItem>, Error> {
        Ok(match self {
            Self::Ids(changes) => changes.next_timeout(timeout)?.map(|change| match change {
                Change::Written { id, version } => FeedItem::Written(RecordKey::Id(id), version),
                Change::Deleted { id } => FeedItem::Deleted(RecordKey::Id(id)),
                // Only a feed from now on is behind.
                Change::CaughtUp | Change::Behind => FeedItem::CaughtUp,
            }),
            Self::Keys(changes) => changes.next_timeout(timeout)?.map(|change| match change {
                KeyChange::Written { key, version } => FeedItem::Written(RecordKey::Key(key.into()), version),
                KeyChange::Deleted { key } => FeedItem::Deleted(RecordKey::Key(key.into())),
                KeyChange::CaughtUp => FeedItem::CaughtUp,
            }),
        })
    }
}
