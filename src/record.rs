//! The basic public types: a record, its version, the durability of a write.

use std::fmt;
use std::ops::Deref;

/// The version of a record: rises with every write in the record's region, is never reused.
///
/// Equal versions of one id mean equal bytes. Versions of ids in different regions do not compare.
///
/// ```
/// # use recstore::Store;
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
/// let before = store.put(1, b"one")?;
/// let after = store.put(1, b"two")?;
/// assert!(after > before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version(pub(crate) u64);

impl Version {
    /// The version as a number, for keeping it elsewhere.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let version = store.put(1, b"one")?;
    /// assert!(version.get() > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The version that [`get`](Self::get) gave as a number.
    ///
    /// ```
    /// # use recstore::{Store, Version};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let kept: u64 = store.put(1, b"one")?.into();
    /// assert_eq!(store.version(1)?, Some(Version::from_u64(kept)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn from_u64(version: u64) -> Self {
        Self(version)
    }
}

impl From<Version> for u64 {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record as it was at one instant: whole, checked, owned.
///
/// ```
/// # use recstore::Store;
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
/// store.put(1, b"one")?;
/// let record = store.get(1)?.expect("was written");
/// assert_eq!(record.len(), 3); // a record is also its bytes
/// assert_eq!(record.id(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(crate) id: u64,
    pub(crate) version: Version,
    pub(crate) data: Vec<u8>,
}

impl Record {
    /// The record's id.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert!(store.iter().all(|record| record.is_ok_and(|record| record.id() == 1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The version that was read.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let version = store.put(1, b"one")?;
    /// assert_eq!(store.get(1)?.map(|record| record.version()), Some(version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The record's bytes.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert_eq!(store.get(1)?.unwrap().data(), b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The record's bytes, without a copy.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let bytes: Vec<u8> = store.get(1)?.unwrap().into_data();
    /// assert_eq!(bytes, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }
}

impl From<Record> for Vec<u8> {
    fn from(record: Record) -> Self {
        record.data
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

/// The durability of a write: the failures that it survives once it has returned.
///
/// ```
/// # use recstore::{Durability, Store};
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
/// store.put(1, b"survives processes")?;
/// store.put_with(2, b"survives the loss of power", Durability::Disk)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// The death of any process. No system call.
    #[default]
    Process,
    /// The loss of power as well. A write of one record flushes only the pages of its slot, beside other such writes. It does not make
    /// earlier writes durable; [`Store::sync`](crate::Store::sync) does that. One write in hundreds flushes everything, so that the
    /// slots of replaced versions can be used again. A batch, `write_many` and `delete` flush everything. Calls at the same time share
    /// that flush (group commit).
    Disk,
}

/// The result of a compare-and-swap.
///
/// ```
/// # use recstore::{Store, Swap};
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
/// let version = store.put(1, b"one")?;
/// match store.compare_and_swap(1, Some(version), b"two")? {
///     Swap::Done(version) => println!("written, at version {version}"),
///     Swap::Conflict { current } => println!("another writer was faster: {current:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a conflict is no error: nothing was written"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Swap {
    /// The record was as expected, and is now at this version.
    Done(Version),
    /// The record did not have the expected version; it was not written.
    Conflict {
        /// The version that is there, or `None` if the record is absent.
        current: Option<Version>,
    },
}
