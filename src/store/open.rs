//! Creating a store's file, and opening one.
//!
//! Opening for writing, in order:
//!
//! 1. Check the file: regular, local, long enough, with a superblock, of the geometry that is asked for.
//! 2. Take the whole-file lock, shared.
//! 3. Check whether memory is that of the last users. If this is not known, take the whole-file lock exclusively and recover.
//! 4. Claim a seat.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::error::{Error, Holder, Lock, Result};
use crate::file::arena::{Arena, io_error, no_room};
use crate::file::blocks::{see_to_fixed_parts, see_to_reads};
use crate::file::continuity::{self, Continuity};
use crate::file::notice::{ToldOnce, wait_and_tell};
use crate::file::numbers::Numbers;
use crate::file::seat;
use crate::format::control::{CONTROL, Mark, empty_control};
use crate::format::extent::{ExtentHeader, HEADER_WORDS};
use crate::format::geometry::{FIRST_INDEX_BYTES, Geometry, HEAD_BYTES, REGION_TABLE, SUPERBLOCK_B};
use crate::format::index::{Line, Shape};
use crate::format::region::{CLASS_WORDS, empty_head, no_slot};
use crate::format::superblock::{NotSuperblock, SUPERBLOCK_BYTES, Superblock, store_tag, unknown_ro_compat};
use crate::format::{FORMAT_VERSION, round_up};
use crate::handle::Handle;
use crate::recovery::recover::{cut_off, is_cut_off, is_wholly_clean, mark_in_use, recover, refuse_cut_off};
use crate::report::RepairReport;
use crate::store::Store;
use crate::store::clock::Clock;
use crate::store::options::Options;
use crate::store::sweep::Broom;
use crate::sys::atomic::Ordering;
use crate::sys::deadline::{Deadline, Pauses};
use crate::sys::fork::ForkFile;
use crate::sys::mapping::{Grain, Mapping};
use crate::sys::overlay::overlay_above;
use crate::sys::step::step;
use crate::sys::{blocks, file, file_lock, process};

/// Creating and opening.
impl Options {
    /// Creates a store. It appears whole or not at all, even if this process is killed meanwhile.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().record_size(64).create(dir.path().join("new.rec"))?;
    /// assert_eq!(store.record_size(), 64);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::InvalidOption`] for an impossible geometry;
    /// [`Error::NetworkFileSystem`]; [`Error::Io`].
    pub fn create(&self, path: impl AsRef<Path>) -> Result<Store> {
        create(self, path.as_ref())?;
        self.open(path)
    }

    /// Opens a store for reading and writing. This takes the time of a few system calls. If the operating system went down while
    /// the store was in use, it is recovered first, by a pass over the whole file.
    ///
    /// ```
    /// # use recstore::{Durability, Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().durability(Durability::Disk).open(store.path())?;
    /// store.put(1, b"on disk")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFound`]; a fault of the file ([`Error::NotAStore`],
    /// [`Error::UnsupportedVersion`], [`Error::WrongByteOrder`], [`Error::Truncated`],
    /// [`Error::Damaged`]); [`Error::OtherGeometry`] if [`require_geometry`](Self::require_geometry) is set;
    /// [`Error::NetworkFileSystem`]; [`Error::CopyOnWrite`]; [`Error::Full`] if the file is a copy, and the disk has no room for its
    /// holes; [`Error::TooManyHandles`]; [`Error::Busy`] if a lock time-out is set; [`Error::Io`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store> {
        open(self, path.as_ref(), true)
    }

    /// Opens the store at the path, or creates it. Any number of processes may do this at once, and all get the same store.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().record_size(64).open_or_create(dir.path().join("new.rec"))?;
    /// assert_eq!(store.record_size(), 64);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(&self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        // If another process removes the file again and again meanwhile, the last try gives the error.
        for _ in 0..1000 {
            match self.open(path) {
                Err(Error::NotFound { .. }) => {}
                opened => return opened,
            }
            match create(self, path) {
                Ok(()) | Err(Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.open(path)
    }

    /// Opens a store for reading. The handle never writes to the file, so the file or its mount may be read-only. It takes no seat
    /// and no lock.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let store = Options::new().verify_reads(false).open_read_only(store.path())?;
    /// assert!(store.is_read_only());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::NeedsRepair`] if the operating system went down while the
    /// store was in use.
    pub fn open_read_only(&self, path: impl AsRef<Path>) -> Result<Store> {
        open(self, path.as_ref(), false)
    }
}

/// Creates the file of an empty store.
pub(crate) fn create(options: &Options, path: &Path) -> Result<()> {
    let geo = options.geometry(file::random().map_err(io_error(path, "drawing a random number"))?)?;
    create_with(options, path, &geo, None::<fn(&Store) -> Result<()>>)
}

/// Creates the file of a store. `fill` puts records into it before the file has a name.
pub(crate) fn create_with(
    options: &Options,
    path: &Path,
    geo: &Geometry,
    fill: Option<impl FnOnce(&Store) -> Result<()>>,
) -> Result<()> {
    let mut uuid = [0; 16];
    for half in uuid.chunks_exact_mut(8) {
        let drawn = file::random().map_err(io_error(path, "drawing a random number"))?;
        half.copy_from_slice(&drawn.to_le_bytes());
    }
    let mut failure = None;
    let result = file::create_whole(path, options.mode, |file| {
        step("create: unnamed file");
        let filled = fill_file(options, path, file, geo, uuid, fill);
        step("create: file filled");
        filled.map_err(|error| {
            failure = Some(error);
            io::Error::other("not filled")
        })
    });
    match (result, failure) {
        (_, Some(error)) => Err(error),
        (Ok(()), None) => Ok(()),
        (Err(e), None) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(dangling(path).unwrap_or_else(|| Error::AlreadyExists { path: path.to_path_buf() }))
        }
        (Err(e), None) => Err(io_error(path, "creating the store")(e)),
    }
}

fn fill_file(
    options: &Options,
    path: &Path,
    file: &File,
    geo: &Geometry,
    uuid: [u8; 16],
    fill: Option<impl FnOnce(&Store) -> Result<()>>,
) -> Result<()> {
    if !options.allow_network_file_system
        && let Some(kind) =
            file::network_file_system(file).map_err(io_error(path, "asking for the file system"))?
    {
        return Err(Error::NetworkFileSystem { path: path.to_path_buf(), kind: kind.to_owned() });
    }
    blocks::forbid_copy_on_write(file);
    write_empty(file, geo, uuid).map_err(|source| {
        if file::is_no_room(&source) {
            no_room(path, 0, geo.max_size, geo.base, source)
        } else {
            io_error(path, "writing the empty store")(source)
        }
    })?;
    let Some(fill) = fill else { return Ok(()) };
    let unnamed =
        ForkFile::open(|| file::open_again(file, true)).map_err(io_error(path, "opening the new file"))?;
    let store = enter(options, unnamed, path, true)?;
    fill(&store)?;
    store.close()
}

/// Writes an empty store. All blocks are allocated, so that touching them later can't fail.
fn write_empty(file: &File, geo: &Geometry, uuid: [u8; 16]) -> io::Result<()> {
    file::allocate(file, 0, geo.base)?;
    let superblock = Superblock::new(geo, uuid);
    file.write_all_at(superblock.bytes(), 0)?;
    file.write_all_at(superblock.bytes(), SUPERBLOCK_B)?;
    let bytes = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    file.write_all_at(&bytes(&empty_control(&Continuity::of(file)?.0)), CONTROL)?;

    let mut heads = Vec::with_capacity((u64::from(geo.regions) * HEAD_BYTES) as usize);
    let mut tables = Vec::with_capacity((u64::from(geo.regions) * FIRST_INDEX_BYTES) as usize);
    for region in 0..geo.regions {
        let shape = Shape::first(geo, region, 0);
        heads.extend(bytes(empty_head(shape).words()));
        for line in 0..shape.lines() {
            tables.extend(bytes(&Line::empty(shape.seed(region, line)).words()));
        }
    }
    file.write_all_at(&heads, REGION_TABLE)?;
    if geo.grows {
        let words = (geo.regions * geo.classes) as usize * CLASS_WORDS;
        file.write_all_at(&bytes(&vec![no_slot(); words]), geo.class_offset(0, 0))?;
    }
    file.write_all_at(&tables, geo.first_index_offset(0))
}

/// Opens the store at `path`.
pub(crate) fn open(options: &Options, path: &Path, writable: bool) -> Result<Store> {
    let opening = if writable { "opening for writing" } else { "opening for reading" };
    let file = ForkFile::open(|| file::open(path, writable)).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            dangling(path).unwrap_or_else(|| Error::NotFound { path: path.to_path_buf() })
        }
        io::ErrorKind::IsADirectory => not_a_store(path, "it is a directory"),
        _ if e.raw_os_error() == Some(libc::ENXIO) => not_a_store(path, "it is not a regular file"),
        _ => io_error(path, opening)(e),
    })?;
    enter(options, file, path, writable)
}

/// Opens the store whose file is open.
fn enter(options: &Options, file: ForkFile, path: &Path, writable: bool) -> Result<Store> {
    let opening = if writable { "opening for writing" } else { "opening for reading" };
    let metadata = file.metadata().map_err(io_error(path, opening))?;
    if !metadata.is_file() {
        return Err(not_a_store(
            path,
            if metadata.is_dir() { "it is a directory" } else { "it is not a regular file" },
        ));
    }
    if !options.allow_network_file_system
        && let Some(kind) =
            file::network_file_system(&file).map_err(io_error(path, "asking for the file system"))?
    {
        return Err(Error::NetworkFileSystem { path: path.to_path_buf(), kind: kind.to_owned() });
    }
    if !options.allow_network_file_system
        && let Some(merged) = overlay_above(path)
    {
        return Err(Error::BelowOverlay { path: path.to_path_buf(), merged });
    }
    if writable
        && !options.allow_copy_on_write
        && let Some(kind) =
            blocks::copy_on_write(&file).map_err(io_error(path, "asking for the file system"))?
    {
        return Err(Error::CopyOnWrite { path: path.to_path_buf(), kind: kind.to_owned() });
    }
    let (geo, uuid) = superblock(&file, path, metadata.len(), writable)?;
    // Before anything is recovered or claimed: a handle that comes and goes beside the last one that closes would leave the store unmarked.
    if let Err(what) = options.accepts(&geo) {
        return Err(Error::OtherGeometry { path: path.to_path_buf(), what });
    }
    if metadata.len() < geo.base {
        return Err(Error::Truncated { path: path.to_path_buf(), len: metadata.len(), needed: geo.base });
    }
    let reserved = round_up(geo.unit_offset(geo.units_max()), crate::format::PAGE_BYTES);
    // In an incomplete unit nothing is read, even if a word names a slot there.
    let grain = Grain { base: geo.base, unit: geo.unit };
    let map = Mapping::of_handle(&file, reserved, writable, grain)
        .map_err(io_error(path, "reserving address space for the file"))?;
    // A file that never had a name can't lose it. On a network file system inode numbers are not reliable.
    let has_name = options.keeps_name
        && metadata.nlink() != 0
        && file::network_file_system(&file).is_ok_and(|kind| kind.is_none());
    let mut arena = Arena {
        map,
        file,
        geo,
        uuid,
        tag: store_tag(&uuid),
        path: path.to_path_buf(),
        name: if has_name { std::fs::canonicalize(path).ok() } else { None },
        owner: None,
        lock_timeout: options.lock_timeout,
        notice: options.notice.clone(),
        extents: Mutex::default(),
        numbers: Numbers::new(&geo, 0),
        #[cfg(feature = "testing")]
        looks: crate::sys::atomic::AtomicU64::new(0),
        boards: Default::default(),
    };
    arena.keep_layout()?; // So that the notes have the layout of the file.
    let mut report = RepairReport::default();
    see_to_reads(&arena)?;
    arena.owner = if writable {
        see_to_fixed_parts(&arena)?;
        come_in(&arena, &mut report)?;
        Some(seat::claim(&arena)?)
    } else {
        if !is_wholly_clean(&arena)
            && !seat::any_alive(&arena)?
            && let Some(why) = continuity::doubt(&arena, &Continuity::here(&arena)?)
        {
            let units = u64::from(arena.unit_count()?);
            let durable = arena.control().durable_units().load(Ordering::SeqCst);
            return Err(match durable.filter(|&noted| noted > units) {
                Some(noted) if is_cut_off(&arena)? => cut_off(&arena, noted),
                _ => Error::NeedsRepair { path: arena.path, why: why.to_owned() },
            });
        }
        refuse_cut_off(&arena, false)?;
        None
    };
    step("open: seat claimed");
    Ok(Store {
        handle: Arc::new(Handle::new(arena, options.verify_reads, options.durability)),
        opened: report,
        clock: Clock::default(),
        broom: Broom::default(),
        #[cfg(feature = "tokio")]
        bridge: Default::default(),
    })
}

/// The error for a symbolic link that leads to no file: opening finds none, and creation finds the link.
fn dangling(path: &Path) -> Option<Error> {
    let to = std::fs::read_link(path).ok()?;
    let why = format!(
        "it is a symbolic link to {}, where there is nothing; create the store there, or remove the link",
        to.display()
    );
    (!path.exists()).then(|| not_a_store(path, &why))
}

fn not_a_store(path: &Path, why: &str) -> Error {
    Error::NotAStore { path: path.to_path_buf(), why: why.to_owned() }
}

/// The superblock whose checksum holds. If both hold and contradict each other, the one with which the extents agree.
fn superblock(file: &File, path: &Path, len: u64, writable: bool) -> Result<(Geometry, [u8; 16])> {
    let unsupported =
        |word, features| Error::UnsupportedFeatures { path: path.to_path_buf(), word, features };
    if len == 0 {
        return Err(not_a_store(path, "it is empty"));
    }
    let mut first = None;
    let mut told: Vec<(Geometry, [u8; 16])> = Vec::new();
    for at in [0, SUPERBLOCK_B] {
        if len < at + SUPERBLOCK_BYTES as u64 {
            break;
        }
        let mut bytes = [0; SUPERBLOCK_BYTES];
        file.read_exact_at(&mut bytes, at).map_err(io_error(path, "reading the superblock"))?;
        match Superblock::parse(&bytes) {
            Ok(found) => match unknown_ro_compat(&bytes) {
                features if features != 0 && writable => return Err(unsupported("ro_compat", features)),
                _ => told.push(found),
            },
            Err(NotSuperblock::Features(features)) => return Err(unsupported("incompat", features)),
            Err(flaw) => {
                first.get_or_insert(flaw);
            }
        }
    }
    match told[..] {
        [first, second] if first != second => return more_agreed(file, path, len, [first, second]),
        [first, ..] => return Ok(first),
        [] => {}
    }
    Err(match first {
        None => not_a_store(path, "it is too short to have a superblock"),
        Some(NotSuperblock::Foreign) => not_a_store(path, "it begins with other bytes than a store does"),
        Some(NotSuperblock::Version(found)) => {
            Error::UnsupportedVersion { path: path.to_path_buf(), found, supported: FORMAT_VERSION }
        }
        Some(NotSuperblock::ByteOrder) => Error::WrongByteOrder { path: path.to_path_buf() },
        Some(NotSuperblock::Features(features)) => unsupported("incompat", features),
        Some(NotSuperblock::Damaged(what)) => {
            Error::Damaged { path: path.to_path_buf(), what: format!("both superblocks ({what})") }
        }
    })
}

/// Of two superblocks that hold and contradict each other, the one with which more extent headers agree: each header repeats the
/// geometry, and names the store. `repair` writes the other one anew.
fn more_agreed(
    file: &File,
    path: &Path,
    len: u64,
    told: [(Geometry, [u8; 16]); 2],
) -> Result<(Geometry, [u8; 16])> {
    let mut agreeing = [0_u64; 2];
    for ((geo, uuid), agreeing) in told.iter().zip(&mut agreeing) {
        let count = geo.units_in(len);
        let mut next = 0;
        while next < count {
            // A hole holds no header, and may be of any length.
            let unit = next.max(geo.units_in(file::first_data(file, geo.unit_offset(next))));
            if unit >= count {
                break;
            }
            next = unit + 1;
            let mut bytes = [0; HEADER_WORDS * 8];
            file.read_exact_at(&mut bytes, geo.unit_offset(unit))
                .map_err(io_error(path, "reading an extent header"))?;
            let words = bytemuck::cast(bytes);
            let same = ExtentHeader::geometry(&words)
                .is_some_and(|(other, _)| Geometry { max_size: geo.max_size, ..other } == *geo);
            if same && let Some(extent) = ExtentHeader::parse(&words, store_tag(uuid), geo, unit) {
                *agreeing += 1;
                next = extent.end();
            }
        }
    }
    match (told, agreeing) {
        ([first, _], [a, b]) if a > b => Ok(first),
        ([_, second], [a, b]) if a < b => Ok(second),
        _ => Err(Error::Damaged {
            path: path.to_path_buf(),
            what: "the two superblocks, which contradict each other: no extent says which one is right; \
                   `salvage` copies the records out"
                .to_owned(),
        }),
    }
}

/// Takes the whole-file lock, shared. Ensures that memory is that of the last users, or that the store was recovered.
fn come_in(arena: &Arena, report: &mut RepairReport) -> Result<()> {
    let here = Continuity::here(arena)?;
    let deadline = arena.deadline();
    let mut pauses = Pauses::default();
    let mut told = ToldOnce::new(arena.notice.as_ref());
    loop {
        let locked = wait_and_tell(
            arena.notice.as_ref(),
            &deadline,
            |deadline| file_lock::lock_whole_shared(&arena.file, deadline),
            || whole_file_is_locked(arena, &deadline),
        );
        if !locked.map_err(arena.io("taking the lock of the whole file (flock)"))? {
            return Err(whole_file_is_locked(arena, &deadline));
        }
        let flush_failed = arena.control().flush_failed().load(Ordering::SeqCst) != 0;
        if !flush_failed && is_wholly_clean(arena) {
            return refuse_cut_off(arena, true);
        }
        let is_in_use = arena.control().mark().load(Ordering::SeqCst) == Some(Mark::InUse);
        if seat::any_alive(arena)? {
            if is_in_use {
                continuity::note(arena, &here);
                continuity::mark_inode(arena);
                return refuse_cut_off(arena, true);
            }
            // The mark is damaged, or a handle set it while the other one was leaving.
            mark_in_use(arena, &here)?;
            continue;
        }
        note_error(arena);
        if is_in_use && continuity::doubt(arena, &here).is_none() {
            continuity::note(arena, &here);
            continuity::mark_inode(arena);
            return refuse_cut_off(arena, true);
        }
        // Other handles may be opening the store, or a program without a handle has a shared lock.
        if !file_lock::try_lock_whole(&arena.file) {
            told.perhaps(&deadline, || whole_file_is_locked(arena, &deadline));
            if !pauses.rest(&deadline) {
                return Err(whole_file_is_locked(arena, &deadline));
            }
            continue;
        }
        put_right(arena, &here, report)?;
    }
}

/// Notes an error of writing back: the kernel reports it only once.
fn note_error(arena: &Arena) {
    let told = file::ask_for_error(&arena.file).err().and_then(|error| error.raw_os_error());
    // Other errors say that the kernel does not know the call.
    if let Some(code @ (libc::EIO | libc::ENOSPC | libc::EDQUOT | libc::EROFS)) = told {
        arena.control().flush_failed().store(code as u64, Ordering::SeqCst);
    }
}

/// Recovers the store, or marks it as in use. The caller holds the whole-file lock exclusively.
fn put_right(arena: &Arena, here: &Continuity, report: &mut RepairReport) -> Result<()> {
    let is_clean = is_wholly_clean(arena);
    let flush_failed = arena.control().flush_failed().load(Ordering::SeqCst) != 0;
    if flush_failed {
        write_all_anew(arena)?;
    }
    match continuity::doubt(arena, here) {
        Some(why) if flush_failed || !is_clean => {
            *report = recover(arena, here, why)?;
            if flush_failed {
                report.fixed.push("a flush had failed: every page was written anew".to_owned());
            }
            Ok(())
        }
        _ => {
            refuse_cut_off(arena, true)?;
            mark_in_use(arena, here)
        }
    }
}

fn whole_file_is_locked(arena: &Arena, deadline: &Deadline) -> Error {
    let holder = |pid| Holder { pid, exists: Some(process::exists(pid)) };
    Error::Busy {
        path: arena.path.clone(),
        lock: Lock::WholeFile,
        owner: process::flock_holder(&arena.file).map(holder),
        waited: deadline.waited(),
    }
}

/// After a failed flush the kernel may take pages for clean that never reached the disk. So every page is made dirty, and flushed.
/// If that fails too, the store is not opened.
fn write_all_anew(arena: &Arena) -> Result<()> {
    let len = arena.map.refresh(&arena.file).map_err(arena.io("looking at the file's length"))?;
    for page in 0..len / crate::format::PAGE_BYTES {
        if let Some(words) = arena.words(page * crate::format::PAGE_BYTES, 1) {
            words[0].fetch_add(0, Ordering::Relaxed);
        }
    }
    arena.file.sync_data().map_err(|source| Error::FlushFailed { path: arena.path.clone(), source })
}
