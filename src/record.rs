//! The words that users meet: a record, its version, how durable a write is.

use std::fmt;
use std::ops::Deref;

/// The version of a record: rises with every write in the record's region, is never reused.
///
/// Equal versions of one id mean equal bytes. Versions of ids in different regions do not compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version(pub(crate) u64);

impl Version {
    /// The version as a number, for keeping it elsewhere.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The version that [`get`](Self::get) gave as a number.
    #[must_use]
    pub fn from_u64(version: u64) -> Self {
        Self(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record as it was at one instant: whole, checked, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(crate) id: u64,
    pub(crate) version: Version,
    pub(crate) data: Vec<u8>,
}

impl Record {
    /// The record's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The version that was read.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The record's bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The record's bytes, without a copy.
    #[must_use]
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }
}

impl Deref for Record {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data
    }
}

impl AsRef<[u8]> for Record {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// What a write has survived by the time it returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// The death of any process. No system call.
    #[default]
    Process,
    /// The loss of power as well. A write of one record flushes the pages of its slot, beside others that
    /// do the same at that time, and nothing else: what was written before without this is not made durable
    /// by it ([`Store::sync`](crate::Store::sync) does that). One in hundreds flushes everything, so that the
    /// room of replaced versions can be used again. A batch, `write_many` and `delete` flush everything, and
    /// share that flush with all who wait at the same time (group commit).
    Disk,
}

/// How a compare-and-swap ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Swap {
    /// The record was as expected, and is now at this version.
    Done(Version),
    /// The record was not as expected; nothing was written.
    Conflict {
        /// The version that is there, or `None` if the record is absent.
        current: Option<Version>,
    },
}
