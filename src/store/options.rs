//! How a store is created or opened.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::file::notice::Notice;
use crate::format::geometry::Geometry;
use crate::record::Durability;

/// Options of creating and opening a store. The geometry is used only at creation: an existing store has its own.
///
/// ```
/// # fn main() -> recstore::Result<()> {
/// # let path = std::env::temp_dir().join(format!("recstore-options-{}.rec", std::process::id()));
/// let store = recstore::Store::options().record_size(64).regions(4).create(&path)?;
/// assert_eq!(store.record_size(), 64);
/// # drop(store);
/// # std::fs::remove_file(path).unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    record_size: Option<usize>,
    regions: u32,
    slots_per_extent: Option<u32>,
    max_size: u64,
    require_geometry: bool,
    pub(crate) mode: u32,
    pub(crate) lock_timeout: Option<Duration>,
    pub(crate) notice: Option<Notice>,
    pub(crate) allow_network_file_system: bool,
    pub(crate) allow_copy_on_write: bool,
    pub(crate) verify_reads: bool,
    /// Whether it is an error of a flush that the file lost its name.
    pub(crate) keeps_name: bool,
    pub(crate) durability: Durability,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// The defaults: records of up to 1 MiB, 16 regions, a ceiling of 1 TiB.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().create(dir.path().join("new.rec"))?;
    /// assert_eq!(store.record_size(), 1 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self {
            record_size: None,
            regions: 16,
            slots_per_extent: None,
            max_size: 1 << 40,
            require_geometry: false,
            mode: 0o600,
            lock_timeout: None,
            notice: None,
            allow_network_file_system: false,
            allow_copy_on_write: false,
            verify_reads: true,
            keeps_name: true,
            durability: Durability::Process,
        }
    }

    /// The options of a store with this geometry.
    pub(crate) fn of(geo: &Geometry) -> Self {
        Self {
            record_size: Some(geo.record_size as usize),
            regions: geo.regions,
            slots_per_extent: (!geo.grows).then(|| 1 << geo.slots_log2),
            max_size: geo.max_size,
            ..Self::new()
        }
    }

    /// Bytes of the longest record: 1 to 2^30 - 32. Default 1 MiB. A high limit costs nothing: each record takes a slot that is as
    /// long as it needs, and up to 12 % longer (up to 25 %, if it is shorter than 512 bytes or longer than 64 KiB). If all extents are of one
    /// [size](Self::slots_per_extent), every slot is as long as the longest record, and the default is 256 bytes.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().record_size(8).create(dir.path().join("new.rec"))?;
    /// assert!(store.put(1, [0; 9]).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn record_size(mut self, bytes: usize) -> Self {
        self.record_size = Some(bytes);
        self
    }

    /// Number of regions: 1 to 16,384. Default 16. Writers in different regions do not wait for each other. A few times the number
    /// of writers is enough.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().regions(64).create(dir.path().join("new.rec"))?;
    /// assert_eq!(store.stats()?.regions.len(), 64);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn regions(mut self, count: u32) -> Self {
        self.regions = count;
        self
    }

    /// Makes every extent have so many slots, rounded up to a power of two: 1 to 2^24. Without this, a region's first extent is a
    /// page of slots, and later ones have room for a quarter of the slots that the region has, up to 4 MiB. So a small store is small
    /// and a large one grows in large pieces. With it, the place of a slot follows from its number by arithmetic alone.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().slots_per_extent(1000).create(dir.path().join("new.rec"))?;
    /// assert_eq!(store.stats()?.slots_per_extent, Some(1024));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn slots_per_extent(mut self, count: u32) -> Self {
        self.slots_per_extent = Some(count);
        self
    }

    /// Ceiling of the file's size in bytes, up to 16 TiB. Default 1 TiB. A high ceiling costs nothing: a process reserves address
    /// space by the length of the file, and all its handles on one file share it.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().max_size(1 << 30).create(dir.path().join("new.rec"))?;
    /// assert_eq!(store.stats()?.max_size, 1 << 30);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = bytes;
        self
    }

    /// Refuses an existing store of another geometry: another record size, number of regions or ceiling or, if they are
    /// set, other slots per extent. Default `false`: the geometry of the store is used, and that of the options is ignored.
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("recstore-require-{}.rec", std::process::id()));
    /// use recstore::{Error, Store};
    ///
    /// Store::options().record_size(64).create(&path)?.close()?;
    /// let other = Store::options().record_size(128).require_geometry(true).open_or_create(&path);
    /// assert!(matches!(other, Err(Error::OtherGeometry { .. })));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn require_geometry(mut self, require: bool) -> Self {
        self.require_geometry = require;
        self
    }

    /// The file's mode at creation, independent of the umask. Default `0o600`: every user who can write to the file can spoil
    /// its content, and every user who can read it can read all records.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// use std::os::unix::fs::PermissionsExt;
    ///
    /// let path = dir.path().join("new.rec");
    /// let store = Options::new().mode(0o640).create(&path)?;
    /// assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o640);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The time that a call waits for a lock that a live process holds. After it, [`Error::Busy`] names the lock and the process.
    /// This includes opening, writing, flushing and closing. Reading does not wait for a lock, and no call waits for a dead
    /// process.
    ///
    /// Default `None`: as long as it takes, as for every mutex. A running process gives a lock back after microseconds, or when
    /// its flush or recovery is done. A stopped one (SIGSTOP, a debugger, a frozen container) never does. A service that has to
    /// answer sets some seconds here: more than a flush to its disk takes and, for opening, more than a recovery after a crash
    /// of the system.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{Error, Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().lock_timeout(Some(Duration::from_secs(5))).open(store.path())?;
    /// store.put(1, b"one")?; // or `Error::Busy` after 5 seconds
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Calls `tell` when a call has waited for this long for a lock of another process. `tell` gets the [`Error::Busy`] with which the
    /// call would end if its time was over. The call goes on waiting. `tell` must not use the store.
    ///
    /// Use it for a program with a user, who would otherwise see it hang. Opening and closing are included.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let options = Options::new().on_wait(Duration::from_secs(2), |busy| eprintln!("waiting: {busy}"));
    /// options.open(store.path())?.put(1, b"one")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn on_wait(mut self, after: Duration, tell: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.notice = Some(Notice::new(after, tell));
        self
    }

    /// Allows a file on NFS, CIFS, 9p, virtiofs, FUSE, a cluster file system and the like. Default `false`: on these, hosts share
    /// neither the mapping nor the locks, and two hosts would destroy the store.
    ///
    /// Also allows a file in the upper directory of a mounted overlay ([`Error::BelowOverlay`]). This is safe only while no process
    /// has the file open through the overlay. A store *on* an overlay, as in the writable layer of a container, is like any other
    /// if all processes use the same mount. A process that uses another way (the upper directory seen from a host or a container
    /// that does not see the mount, or a second overlay of the same directories) has other locks. It takes living processes for
    /// dead, and destroys the store. Share a volume (a bind mount) between containers, not a layer.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// // Where one machine alone has the file open.
    /// let store = Options::new().allow_network_file_system(true).open(store.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn allow_network_file_system(mut self, allow: bool) -> Self {
        self.allow_network_file_system = allow;
        self
    }

    /// Allows writing to a file that is copied on write. Files on btrfs are, if other programs put them there. A store that this
    /// crate creates there is not (`FS_NOCOW_FL`), nor is a copy of it in a directory with `chattr +C`. Default `false`: each
    /// write to such a file takes new blocks, so a full disk kills the process (SIGBUS).
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("recstore-cow-{}.rec", std::process::id()));
    /// # recstore::Store::create(&path)?.close()?;
    /// // The disk never fills up: it has a quota of its own.
    /// let store = recstore::Store::options().allow_copy_on_write(true).open(&path)?;
    /// store.put(1, b"one")?;
    /// # drop(store);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn allow_copy_on_write(mut self, allow: bool) -> Self {
        self.allow_copy_on_write = allow;
        self
    }

    /// Whether reads check the record's checksum. Default `true`.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().verify_reads(false).open(store.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn verify_reads(mut self, verify: bool) -> Self {
        self.verify_reads = verify;
        self
    }

    /// The durability of writes: the failures that a write survives once it has returned. Default [`Durability::Process`].
    ///
    /// ```
    /// # use recstore::{Durability, Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().durability(Durability::Disk).open(store.path())?;
    /// store.put(1, b"on disk when it returns")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Checks whether a store of this geometry may be opened with these options. The error names the differences.
    pub(crate) fn accepts(&self, is: &Geometry) -> Result<(), String> {
        if !self.require_geometry {
            return Ok(());
        }
        let asked = self.geometry(is.hash_key).map_err(|error| error.to_string())?;
        let slots = |geo: &Geometry| if geo.grows { 0 } else { 1u64 << geo.slots_log2 };
        let differing: Vec<String> = [
            ("record size", u64::from(is.record_size), u64::from(asked.record_size)),
            ("regions", is.regions.into(), asked.regions.into()),
            ("ceiling", is.max_size, asked.max_size),
            ("slots per extent", slots(is), self.slots_per_extent.map_or(slots(is), |_| slots(&asked))),
        ]
        .into_iter()
        .filter(|(_, is, asked)| is != asked)
        .map(|(name, is, asked)| format!("{name} {is} and not {asked}"))
        .collect();
        if differing.is_empty() { Ok(()) } else { Err(differing.join(", ")) }
    }

    /// The geometry that these options ask for.
    pub(crate) fn geometry(&self, hash_key: u64) -> Result<Geometry> {
        let slots_log2 = match self.slots_per_extent {
            Some(0) => return Err(invalid("0 slots per extent: there must be 1 at least")),
            Some(slots) => Some(slots.checked_next_power_of_two().map_or(32, u32::ilog2)),
            None => None,
        };
        if self.mode & !0o7777 != 0 {
            return Err(invalid(format!("mode {:#o}: only permission bits make a mode", self.mode)));
        }
        let default = if slots_log2.is_some() { RECORD_SIZE_UNIFORM } else { RECORD_SIZE };
        let record_size = self.record_size.unwrap_or(default) as u64;
        Geometry::new(record_size, slots_log2, self.regions, self.max_size, hash_key).map_err(invalid)
    }
}

/// The longest record by default: if extents grow, and if they are uniform.
const RECORD_SIZE: usize = 1 << 20;
const RECORD_SIZE_UNIFORM: usize = 256;

fn invalid(what: impl Into<String>) -> Error {
    Error::InvalidOption { what: what.into() }
}
