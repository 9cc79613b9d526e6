//! What can go wrong, said so that the reader knows what to do next.
//!
//! One enum for the whole crate: a caller who embeds the store handles a handful of cases
//! ([`Error::Full`], [`Error::Busy`], [`Error::Corrupt`]) and passes the rest on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Nothing that was acknowledged before is lost by any of these.
///
/// The text is the whole message: what the operating system said is in it, and so is no
/// [`source`](std::error::Error::source) of its own, which reports of a chain of errors would print a second time. The
/// fields have it.
///
/// ```
/// # use recstore::{Error, Store};
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
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
    /// There is a file at the path already, and it was to be created.
    #[error("{}: exists already; open it, or choose another path", path.display())]
    AlreadyExists {
        /// The path that was to be created.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{}: not a recstore file: {why}", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What gives it away.
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
        /// The word of the superblock: `incompat`, or `ro_compat` where it may be opened for reading.
        word: &'static str,
        /// The bits that are not known.
        features: u64,
    },
    /// The file was written on, or is opened on, a machine of the other byte order.
    #[error("{}: the store is little-endian and so must the machine be; copy the records with `recstore dump` and `load`", path.display())]
    WrongByteOrder {
        /// The file.
        path: PathBuf,
    },
    /// The file is shorter than its own superblock says.
    #[error("{}: cut off: {len} bytes, and at least {needed} are needed; restore the file from a copy", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The least length in bytes that its superblock allows.
        needed: u64,
    },
    /// The file lies where mappings or locks are not shared by all who may open it.
    #[error("{}: on a {kind} file system, where a shared mapping and byte-range locks can't be trusted; move it to a local disk, or allow it with Options::allow_network_file_system if only one host ever opens it", path.display())]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
        /// The kind of file system.
        kind: String,
    },
    /// The file lies in the upper directory of an overlay file system: file locks are others there than through the overlay,
    /// so a live process that came the other way would be taken for dead.
    #[error("{}: in the upper directory of the overlay that is mounted at {}, and file locks are not shared between the two; open the store by its path there", path.display(), merged.display())]
    BelowOverlay {
        /// The file.
        path: PathBuf,
        /// Where the overlay is mounted.
        merged: PathBuf,
    },
    /// The file lies where a write takes new blocks, however many the file has, so a full disk would kill a process
    /// that writes (SIGBUS).
    #[error("{}: on {kind}, as a file that is copied on write: no room would kill the process (SIGBUS); copy the file into a directory that `chattr +C` was said of (`cp --reflink=never`), or its records into a new store (`recstore dump` and `load`), or allow it with Options::allow_copy_on_write", path.display())]
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
    /// The store must be put right before a read-only handle can trust it.
    #[error("{}: needs repair ({why}); open it once for writing, or run `recstore repair`", path.display())]
    NeedsRepair {
        /// The file.
        path: PathBuf,
        /// What is to be put right.
        why: String,
    },
    /// The record does not fit into a slot.
    #[error("{}: record {id:#x} is {len} bytes long and the store takes {max}; split it, or create a store with a larger record size", path.display())]
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
    /// There is no room for another slot. The store goes on working; deleting makes room.
    #[error("{}: no room for another record in region {region} ({why}); delete records, sync, or make room", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The region that needed a slot.
        region: u32,
        /// The ceiling of the file's size in bytes.
        limit: u64,
        /// Which limit was met.
        why: String,
        /// What the operating system said, if it was asked.
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
        /// Who holds it, if that is known.
        owner: Option<Holder>,
        /// How long the caller waited.
        waited: Duration,
    },
    /// A record is damaged: its checksum does not match. Never returned as data.
    #[error("{}: record {id:#x}{} in region {region} is damaged ({what}); write it anew, or run `recstore verify`", path.display(), slot.map_or_else(String::new, |s| format!(" in slot {s}")))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The region.
        region: u32,
        /// The slot number, if it is known which slot was the record's.
        slot: Option<u32>,
        /// The record's id.
        id: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Something other than a record is damaged.
    #[error("{}: damaged: {what}; run `recstore repair`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The handle was inherited through `fork`.
    #[error("{}: this handle belongs to the parent process; open the store anew in the child", path.display())]
    Forked {
        /// The file.
        path: PathBuf,
    },
    /// A write from inside the closure of `update` on the same region.
    #[error("{}: this thread holds region {region} already (a call from inside `update`); return from it first", path.display())]
    Reentrant {
        /// The file.
        path: PathBuf,
        /// The region.
        region: u32,
    },
    /// Every seat is taken by a live handle.
    #[error("{}: {max} handles are attached already; close one", path.display())]
    TooManyHandles {
        /// The file.
        path: PathBuf,
        /// The number of seats.
        max: u32,
    },
    /// A handle has as many pins as there can be.
    #[error("{}: this handle has {max} pins already; drop one, or open another handle", path.display())]
    TooManyPins {
        /// The file.
        path: PathBuf,
        /// The number of pins that a handle can have.
        max: u64,
    },
    /// The store has no region or slot of this number.
    #[error("{}: no {what}", path.display())]
    NoSuchPlace {
        /// The file.
        path: PathBuf,
        /// What there is no such one of, and how many there are.
        what: String,
    },
    /// The store has another geometry than the options, and
    /// [`Options::require_geometry`](crate::Options::require_geometry) was set.
    #[error("{}: a store of another geometry: {what}; open it without Options::require_geometry, or copy its records into a new store (`recstore dump` and `load`)", path.display())]
    OtherGeometry {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A record, or the whole store, is of another type than the caller's.
    #[error("{}: {what}; use the type that it was written with", path.display())]
    TypeMismatch {
        /// The file.
        path: PathBuf,
        /// What was expected, and what was found.
        what: String,
    },
    /// An option is out of its range.
    #[error("invalid option: {what}")]
    InvalidOption {
        /// Which, and what its range is.
        what: String,
    },
    /// A flush failed, by this handle or by another one. The kernel may have dropped what was not written, so no handle is
    /// believed about durability any more, until all are closed and the store is opened anew.
    #[error("{}: a flush to disk failed earlier ({source}); close every handle, check the disk, open the store anew", path.display())]
    FlushFailed {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        r#source: io::Error,
    },
    /// The store's file was removed, or replaced by another one, while it was open. A flush says so: its data is on
    /// disk, in a file that nobody can open by the path any more.
    #[error("{}: {what}; copy the records into a new store with Store::backup if they are wanted, and open the path anew", path.display())]
    Unlinked {
        /// The path that the store was opened by.
        path: PathBuf,
        /// What became of the file.
        what: String,
    },
    /// The operating system refused a call.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
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
            | Self::FlushFailed { path, .. }
            | Self::Unlinked { path, .. }
            | Self::Io { path, .. } => Some(path),
        }
    }

    /// Whether the same call may succeed later although the caller changes nothing: others held a lock, or all
    /// places. Room that is missing ([`Error::Full`]) has to be made first.
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
    /// The lock of a region: held by a writer for one write, and by who rebuilds the region.
    Region(u32),
    /// The lock of batches: held by who commits a batch.
    Batches,
    /// The growth lock: held by who extends the file, or moves an index.
    Growth,
    /// The sync lock: held by who flushes, and by who begins a snapshot.
    Sync,
    /// The locks of the seats, one for each handle: all of them are held by a program that locked the file for purposes
    /// of its own (`lockf`, `fcntl`).
    Seats,
    /// The lock of a name of a store in memory: held by who removes the store.
    Name,
    /// The lock of the whole file (`flock`): held by who recovers the store, or closes it as its last user;
    /// and by every program that locks the file for purposes of its own.
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

/// Who holds a lock, as [`Error::Busy`] names it: see [`Error::is_retryable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Holder {
    /// The process id that the holder noted, or that the kernel gives: for people.
    pub pid: u32,
    /// Whether a process with this id exists; `None` if that can't be known, because the holder noted the id
    /// in another PID namespace. `Some(false)`: the process has ended, and the lock lives on with a descriptor
    /// of the file that another process has from it.
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
        Some(Holder { exists: Some(true) | None, .. }) => {
            "try again, or look at what that process does".to_owned()
        }
        Some(Holder { exists: Some(false), .. }) => {
            format!("end the process that has it (`fuser -v {}`)", path.display())
        }
        None => format!("try again, or look at who has the file open (`fuser -v {}`)", path.display()),
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
