//! Errors. Each message says what to do next.
//!
//! One enum for the whole crate: a program handles a few cases ([`Error::Full`], [`Error::Busy`], [`Error::Corrupt`]) and passes
//! the rest on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why a call failed. No error loses an acknowledged write.
///
/// The text is the whole message, with the error of the operating system. So there is no [`source`](std::error::Error::source):
/// reports of a chain of errors would print it a second time. The fields have it.
///
/// ```
/// # use recstore::{Error, Store};
/// # let dir = tempfile::tempdir()?;
/// let store = Store::options().record_size(256).create(dir.path().join("a.rec"))?;
/// match store.put(1, [0; 1000]) {
///     Err(Error::RecordTooLong { len, max, .. }) => assert_eq!((len, max), (1000, 256)),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no file at the path.
    #[error("{}: no such store; create it first (Options::create, or `recstore create`)", path.display())]
    NotFound {
        /// The path that was opened.
        path: PathBuf,
    },
    /// The call should create a file, and there is one at the path already.
    #[error("{}: exists already; open it, or choose another path", path.display())]
    AlreadyExists {
        /// The path that was to be created.
        path: PathBuf,
    },
    /// The file is not a store.
    #[error("{}: not a recstore file: {why}", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// The reason, in words.
        why: String,
    },
    /// The file was written by another version of the format.
    #[error("{}: format version {found}, and this build reads version {supported}; use a build that reads version {found}", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The version that this build reads and writes.
        supported: u32,
    },
    /// The store has features that this build does not know.
    #[error("{}: has features that this build does not know ({word} {features:#x}); {}", path.display(), if *word == "ro_compat" { "open it for reading only, or use a later build" } else { "use a later build" })]
    UnsupportedFeatures {
        /// The file.
        path: PathBuf,
        /// The word of the superblock: `incompat`, or `ro_compat` if the store may be opened for reading.
        word: &'static str,
        /// The bits that are not known.
        features: u64,
    },
    /// The file has the other byte order.
    #[error("{}: the byte order of the file is not little-endian; restore it from a backup, or run `recstore salvage`", path.display())]
    WrongByteOrder {
        /// The file.
        path: PathBuf,
    },
    /// The file is shorter than its own superblock says.
    #[error("{}: the file was cut off: it has {len} bytes and needs at least {needed}; restore it from a backup, or run `recstore salvage`", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The least length in bytes that its superblock allows.
        needed: u64,
    },
    /// The file is on a file system on which hosts do not share mappings or locks.
    #[error("{}: on a {kind} file system, where hosts do not share mappings and file locks; move the file to a local disk, or allow it with Options::allow_network_file_system if only one host opens it", path.display())]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
        /// The kind of file system.
        kind: String,
    },
    /// The file is in the upper directory of an overlay file system. File locks there are not those of the overlay, so a live process
    /// that uses the overlay would be taken for dead.
    #[error("{}: the file is in the upper directory of the overlay mounted at {}, and the two do not share file locks; open the store by its path in the overlay", path.display(), merged.display())]
    BelowOverlay {
        /// The file.
        path: PathBuf,
        /// The mount point of the overlay.
        merged: PathBuf,
    },
    /// The file is copied on write: each write takes new blocks, so a full disk would kill a process that writes (SIGBUS).
    #[error("{}: {kind} copies this file on write, so a full disk would kill the process (SIGBUS); copy the file into a directory with `chattr +C` (`cp --reflink=never`), copy its records into a new store (`recstore dump` and `load`), or allow it with Options::allow_copy_on_write", path.display())]
    CopyOnWrite {
        /// The file.
        path: PathBuf,
        /// The kind of file system.
        kind: String,
    },
    /// A write through a handle that was opened for reading.
    #[error("{}: opened read-only; open it with Options::open to write", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The store must be recovered or repaired before a read-only handle can trust it.
    #[error("{}: needs repair ({why}); open it once for writing, or run `recstore repair`", path.display())]
    NeedsRepair {
        /// The file.
        path: PathBuf,
        /// The reason, in words.
        why: String,
    },
    /// The record does not fit into a slot.
    #[error("{}: record {id:#x} has {len} bytes, and the store takes at most {max}; split it, or create a store with a larger record size", path.display())]
    RecordTooLong {
        /// The file.
        path: PathBuf,
        /// The record's id.
        id: u64,
        /// Its length in bytes.
        len: usize,
        /// The store's record capacity in bytes.
        max: usize,
    },
    /// The id is that of a record that is found in another way: by the keys of a space, where a record was to be written by
    /// its id; or by its id, where a key with the same hash was to be written.
    #[error("{}: record {id:#x} {}", path.display(), if *by_key { "belongs to keys (Store::space); choose another id" } else { "was written by its id, which is also the hash of this key; choose another key, or delete the record by its id" })]
    IdTaken {
        /// The file.
        path: PathBuf,
        /// The id.
        id: u64,
        /// Whether the record that is there is found by keys.
        by_key: bool,
    },
    /// A key is longer than keys can be.
    #[error("{}: the key has {len} bytes, and the limit is {max}; use a hash of it as the key", path.display())]
    KeyTooLong {
        /// The file.
        path: PathBuf,
        /// The key's length in bytes.
        len: usize,
        /// The longest that a key can be, in bytes.
        max: usize,
    },
    /// A key and its value do not fit into a record.
    #[error("{}: key \"{key}\" of space {space:?} takes {len} bytes with its value{}, and a record of the store has at most {max}; split the value, or create a store with a larger record size", path.display(), if *others == 0 { String::new() } else { format!(", and the keys that share its id {others}") })]
    EntryTooLong {
        /// The file.
        path: PathBuf,
        /// The space.
        space: String,
        /// The key. Bytes that are not text are escaped.
        key: String,
        /// Bytes that the space's name, the key and the value take.
        len: usize,
        /// Bytes that other keys take, which have the same id.
        others: usize,
        /// The store's record capacity in bytes.
        max: usize,
    },
    /// There is no room for another slot. The store goes on working. Deleting records makes room.
    #[error("{}: no room for another record in region {region} ({why}); delete records and sync, or make room", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The region that needed a slot.
        region: u32,
        /// The ceiling of the file's size in bytes.
        limit: u64,
        /// The limit that was met, in words.
        why: String,
        /// The error of the operating system, if there was one.
        r#source: Option<io::Error>,
    },
    /// A live owner kept a lock for longer than the caller would wait
    /// ([`Options::lock_timeout`](crate::Options::lock_timeout)).
    #[error("{}: {lock} is held by {} (waited {waited:?}); {}", path.display(), held_by(*owner), what_to_do(*owner, path))]
    Busy {
        /// The file.
        path: PathBuf,
        /// The lock.
        lock: Lock,
        /// The holder of the lock, if it is known.
        owner: Option<Holder>,
        /// The time that the caller waited.
        waited: Duration,
    },
    /// A record is damaged: its checksum does not match. Its bytes are never returned as data.
    #[error("{}: record {id:#x}{} in region {region} is damaged ({what}); write it anew, or run `recstore verify`", path.display(), slot.map_or_else(String::new, |s| format!(" in slot {s}")))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The region.
        region: u32,
        /// The slot number, if the record's slot is known.
        slot: Option<u32>,
        /// The record's id.
        id: u64,
        /// The damage, in words.
        what: String,
    },
    /// A part of the file that is not a record is damaged.
    #[error("{}: damaged: {what}; run `recstore repair`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage, in words.
        what: String,
    },
    /// The handle was inherited through `fork`.
    #[error("{}: this handle belongs to the parent process; open the store anew in the child", path.display())]
    Forked {
        /// The file.
        path: PathBuf,
    },
    /// A write from inside the closure of `update` on the same region.
    #[error("{}: this call is inside the closure of `update`, which holds region {region}; return from the closure first", path.display())]
    Reentrant {
        /// The file.
        path: PathBuf,
        /// The region.
        region: u32,
    },
    /// Every seat is taken by a live handle.
    #[error("{}: {max} handles are open for writing already; close one", path.display())]
    TooManyHandles {
        /// The file.
        path: PathBuf,
        /// The number of seats.
        max: u32,
    },
    /// The handle has the maximum number of pins.
    #[error("{}: this handle has {max} pins already; drop one, or open another handle", path.display())]
    TooManyPins {
        /// The file.
        path: PathBuf,
        /// The maximum number of pins of a handle.
        max: u64,
    },
    /// The store has no region or slot of this number.
    #[error("{}: no {what}", path.display())]
    NoSuchPlace {
        /// The file.
        path: PathBuf,
        /// The missing place, and the number of places.
        what: String,
    },
    /// The store has another geometry than the options, and
    /// [`Options::require_geometry`](crate::Options::require_geometry) was set.
    #[error("{}: a store of another geometry: {what}; open it without Options::require_geometry, or copy its records into a new store (`recstore dump` and `load`)", path.display())]
    OtherGeometry {
        /// The file.
        path: PathBuf,
        /// The differences, in words.
        what: String,
    },
    /// A record, or the whole store, is of another type than the caller's.
    #[error("{}: {what}; use the type that it was written with", path.display())]
    TypeMismatch {
        /// The file.
        path: PathBuf,
        /// The expected type and the found one, in words.
        what: String,
    },
    /// A key of a space holds another shape than the caller asked for: see [`ValueShape`](crate::ValueShape).
    #[error("{}: key {key:?} of space {space:?} is {found}, and not {wanted}; ask for what it is, or delete it first", path.display())]
    OtherShape {
        /// The file.
        path: PathBuf,
        /// The name of the space.
        space: String,
        /// The key, escaped.
        key: String,
        /// What the key holds, in words.
        found: Box<str>,
        /// What the caller asked for, in words.
        wanted: Box<str>,
    },
    /// An option is out of its range.
    #[error("invalid option: {what}")]
    InvalidOption {
        /// The option and its range, in words.
        what: String,
    },
    /// A flush failed, of this handle or of another one. The kernel may have dropped pages that it had not written. So no flush of any
    /// handle is believed until all handles are closed and the store is opened anew.
    #[error("{}: a flush to disk failed ({source}); close every handle, check the disk, and open the store anew", path.display())]
    FlushFailed {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        r#source: io::Error,
    },
    /// The store's file was removed, or replaced by another file, while it was open. A flush gives this error: its data is on disk, in a
    /// file that can't be opened by the path any more.
    #[error("{}: {what}; to keep the records, copy them with Store::backup; then open the path anew", path.display())]
    Unlinked {
        /// The path that the store was opened by.
        path: PathBuf,
        /// Whether the file was removed or replaced, in words.
        what: String,
    },
    /// The operating system refused a call.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The work that failed, in words.
        doing: &'static str,
        /// The error of the operating system.
        r#source: io::Error,
    },
}

impl Error {
    /// The file that the call was about; `None` for [`Error::InvalidOption`], which comes before there is a file.
    ///
    /// ```
    /// let absent = std::env::temp_dir().join("recstore-there-is-no-such-store.rec");
    /// let error = recstore::Store::open(&absent).unwrap_err();
    /// assert_eq!(error.path(), Some(&*absent));
    /// assert!(!error.is_retryable());
    /// ```
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::InvalidOption { .. } => None,
            Self::NotFound { path }
            | Self::AlreadyExists { path }
            | Self::NotAStore { path, .. }
            | Self::UnsupportedVersion { path, .. }
            | Self::UnsupportedFeatures { path, .. }
            | Self::WrongByteOrder { path }
            | Self::Truncated { path, .. }
            | Self::NetworkFileSystem { path, .. }
            | Self::BelowOverlay { path, .. }
            | Self::CopyOnWrite { path, .. }
            | Self::ReadOnly { path }
            | Self::NeedsRepair { path, .. }
            | Self::RecordTooLong { path, .. }
            | Self::IdTaken { path, .. }
            | Self::KeyTooLong { path, .. }
            | Self::EntryTooLong { path, .. }
            | Self::Full { path, .. }
            | Self::Busy { path, .. }
            | Self::Corrupt { path, .. }
            | Self::Damaged { path, .. }
            | Self::Forked { path }
            | Self::Reentrant { path, .. }
            | Self::TooManyHandles { path, .. }
            | Self::TooManyPins { path, .. }
            | Self::NoSuchPlace { path, .. }
            | Self::OtherGeometry { path, .. }
            | Self::TypeMismatch { path, .. }
            | Self::OtherShape { path, .. }
            | Self::FlushFailed { path, .. }
            | Self::Unlinked { path, .. }
            | Self::Io { path, .. } => Some(path),
        }
    }

    /// Whether the same call may succeed later without a change by the caller: other processes held a lock, or all seats or pins.
    /// [`Error::Full`] is not retryable: room has to be made first.
    ///
    /// ```
    /// use recstore::{Result, Store, Version};
    ///
    /// fn put_patiently(store: &Store, id: u64, data: &[u8]) -> Result<Version> {
    ///     loop {
    ///         match store.put(id, data) {
    ///             Err(error) if error.is_retryable() => eprintln!("{error}"),
    ///             done => return done,
    ///         }
    ///     }
    /// }
    /// # let path = std::env::temp_dir().join(format!("recstore-retry-{}.rec", std::process::id()));
    /// # put_patiently(&Store::create(&path)?, 1, b"one")?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), recstore::Error>(())
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::TooManyHandles { .. } | Self::TooManyPins { .. })
    }
}

/// A lock of a store, as [`Error::Busy`] names it.
///
/// ```
/// # use std::time::Duration;
/// # use recstore::{Error, Lock, Store};
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
/// let store = Store::options().lock_timeout(Some(Duration::from_secs(2))).open(store.path())?;
/// match store.put(1, b"one") {
///     Err(Error::Busy { lock: Lock::Region(region), owner, .. }) => println!("region {region}: {owner:?}"),
///     done => println!("{:?}", done?),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lock {
    /// The lock of a region: held for one write, and for a rebuild of the region.
    Region(u32),
    /// The lock of batches: held for the commit of a batch.
    Batches,
    /// The growth lock: held to extend the file, or to move an index.
    Growth,
    /// The sync lock: held for a flush, and for the beginning of a snapshot.
    Sync,
    /// The locks of the seats, one for each handle: a program that locked the whole file for a purpose of its own (`lockf`, `fcntl`)
    /// holds all of them.
    Seats,
    /// The lock of a name of a store in memory: held to remove the store.
    Name,
    /// The lock of the whole file (`flock`): held for a recovery of the store, and for a close by its last user; and by any
    /// program that locks the file for a purpose of its own.
    WholeFile,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(region) => write!(f, "region {region}"),
            Self::Batches => f.write_str("the lock of batches"),
            Self::Growth => f.write_str("the growth lock"),
            Self::Sync => f.write_str("the sync lock"),
            Self::Seats => f.write_str("every seat (by a lock of its own on the whole file)"),
            Self::Name => f.write_str("the name"),
            Self::WholeFile => f.write_str("the lock of the whole file (flock)"),
        }
    }
}

/// The holder of a lock, as [`Error::Busy`] names it: see [`Error::is_retryable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Holder {
    /// The process id that the holder noted, or that the kernel gives: for people.
    pub pid: u32,
    /// Whether a process with this id exists; `None` if this can't be known, because the holder noted the id in another PID
    /// namespace. `Some(false)`: the process has ended, and another process has its descriptor of the file, with the lock.
    pub exists: Option<bool>,
}

fn held_by(owner: Option<Holder>) -> String {
    match owner {
        None => "a live process".to_owned(),
        Some(Holder { pid, exists: Some(true) }) => format!("live process {pid}"),
        Some(Holder { pid, exists: None }) => format!("live process {pid} of another PID namespace"),
        Some(Holder { pid, exists: Some(false) }) => {
            format!("process {pid}, which has ended, while another process has its descriptor of the file")
        }
    }
}

fn what_to_do(owner: Option<Holder>, path: &Path) -> String {
    match owner {
        Some(Holder { exists: Some(true) | None, .. }) => "try again, or look at that process".to_owned(),
        Some(Holder { exists: Some(false), .. }) => {
            format!("end that process (`fuser -v {}` lists it)", path.display())
        }
        None => format!(
            "try again, or look at the processes that have the file open (`fuser -v {}`)",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn what_the_operating_system_said_is_told_once() {
        let path = PathBuf::from("s.rec");
        let said = || io::Error::from_raw_os_error(libc::ENOSPC);
        let errors = [
            Error::Io { path: path.clone(), doing: "writing", source: said() },
            Error::FlushFailed { path: path.clone(), source: said() },
        ];
        for error in errors {
            assert_eq!(error.to_string().matches("No space left").count(), 1, "{error}");
            assert!(error.source().is_none(), "{error}");
        }
    }
}
