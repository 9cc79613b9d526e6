//! Stores in memory, by name. A store is removed with its last user.
//!
//! The file is in `/dev/shm`. The last handle to leave removes it. If all users were killed, the next process that opens the name
//! finds no handle attached, and begins with an empty store.

use std::io;
use std::ops::{ControlFlow, Deref};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Lock, Result};
use crate::file::arena::io_error;
use crate::file::seat;
use crate::format::geometry::SUPERBLOCK_B;
use crate::format::seat::NAME_BYTE;
use crate::format::slot::Address;
use crate::format::superblock::MAGIC;
use crate::store::Store;
use crate::store::iter::Cursor;
use crate::store::options::Options;
use crate::sys::atomic::Ordering;
use crate::sys::deadline::{Deadline, Pauses};
use crate::sys::fork::ForkFile;
use crate::sys::{file, file_lock};

/// A removal waits this long for others that remove the same store. Each takes microseconds.
const REMOVE_PATIENCE: Duration = Duration::from_secs(10);
/// The last user of a store waits this long when it leaves.
const LEAVE_PATIENCE: Duration = Duration::from_millis(100);

/// The directory of the files.
const DIRECTORY: &str = "/dev/shm";
/// The beginning of their names.
const PREFIX: &str = "recstore.";
/// Longest name in bytes.
const NAME_LEN_MAX: usize = 200;

/// A store in memory, by name: see [`Store::shared`]. The store is removed when the last of these values, in any process, is
/// dropped.
#[derive(Debug)]
pub struct Shared {
    store: Store,
}

impl Deref for Shared {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

/// Stores in memory, by name.
impl Store {
    /// Opens the store in memory with this name, or creates it with default options: see
    /// [`Options::shared`].
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let name = format!("doc-shared-{}", std::process::id());
    /// let store = Store::shared(&name)?; // every process does the same
    /// store.put(1, b"one")?;
    /// assert!(Store::shared(&name)?.contains(1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Options::shared`].
    pub fn shared(name: &str) -> Result<Shared> {
        Options::new().shared(name)
    }

    /// Removes the store in memory with this name. Returns whether there was one. Processes that are attached keep it until they
    /// leave.
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// # use recstore::Store;
    /// # let name = format!("doc-remove-{}", std::process::id());
    /// let store = Store::shared(&name)?;
    /// assert!(Store::remove_shared(&name)?);
    /// assert!(!Store::remove_shared(&name)?);
    /// store.put(1, b"still there for who has it")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an invalid name; [`Error::NotAStore`] if the file under the name is not a store: the file stays;
    /// [`Error::Busy`] if another process that is removing the store does not go on within 10 s; [`Error::Io`], even if the store is
    /// another user's.
    pub fn remove_shared(name: &str) -> Result<bool> {
        let path = path_of(name)?;
        let deadline = Deadline::after(Some(REMOVE_PATIENCE));
        // Each turn of the loop loses against another process that removed the store at the same time.
        while let Some(file) = store_at(&path)? {
            match unlink(&file, &path, &deadline)? {
                Unlinked::Done => return Ok(true),
                Unlinked::Another => {}
                Unlinked::Refused(e) => return Err(refused(&path, "removing the store", e)),
            }
        }
        Ok(false)
    }

    /// The names of all stores in memory that this user can see, with their paths.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let name = format!("doc-names-{}", std::process::id());
    /// let store = Store::shared(&name)?;
    /// assert!(Store::shared_names()?.iter().any(|(found, _)| *found == name));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn shared_names() -> Result<Vec<(String, PathBuf)>> {
        let directory = Path::new(DIRECTORY);
        let entries = std::fs::read_dir(directory).map_err(io_error(directory, "listing"))?;
        let mut found: Vec<(String, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().to_str()?.strip_prefix(PREFIX)?.to_owned();
                Some((name, entry.path()))
            })
            .collect();
        found.sort();
        Ok(found)
    }
}

impl Options {
    /// Opens the store in memory with this name, or creates it. A store in memory does not outlive its users: if all of them died, the
    /// store is removed, and a new, empty one takes its place. If another user of the machine owns it, and so only that user may remove
    /// it, the store is emptied instead, and keeps its geometry.
    ///
    /// All users of the machine share the names. Only the user who created a store may open it, unless it was created with a
    /// [`mode`](Self::mode) such as `0o666`. If a program needs one store for each user, put the user into the name.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let name = format!("doc-options-{}", std::process::id());
    /// let store = Options::new().record_size(1 << 20).shared(&name)?;
    /// assert_eq!(store.record_size(), 1 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an invalid name (valid: 1 to 200 bytes, no `/`, no NUL); [`Error::NotAStore`] if the file under
    /// the name is not a store: the file stays; [`Error::Io`] that names the owner, if the store is another user's; as
    /// [`open_or_create`](Self::open_or_create).
    pub fn shared(&self, name: &str) -> Result<Shared> {
        let path = path_of(name)?;
        // Another process may remove the name on purpose.
        let mut options = self.clone();
        options.keeps_name = false;
        let deadline = Deadline::of_call(self.lock_timeout);
        let mut pauses = Pauses::default();
        // Each turn of the loop loses against another process that came, left or removed the store at the same time.
        loop {
            let left = leave_nothing(&path, &deadline)?;
            let store = options.open_or_create(&path).map_err(|error| match error {
                Error::Io { doing, source, .. } => refused(&path, doing, source),
                other => other,
            })?;
            let metadata =
                store.handle.arena.file.metadata().map_err(io_error(&path, "looking at the file"))?;
            if metadata.nlink() != 0 {
                if left {
                    empty(&store, &deadline)?;
                }
                return Ok(Shared { store });
            }
            if !pauses.rest(&deadline) {
                return Err(name_is_locked(&path, &deadline));
            }
        }
    }
}

/// The file under the name, if there is one. A file that is not a store is left alone.
fn store_at(path: &Path) -> Result<Option<ForkFile>> {
    let not_a_store = |what: &str| Error::NotAStore {
        path: path.to_path_buf(),
        why: format!("{what}; choose another name, or remove it by hand"),
    };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(path, "looking at the file")(e)),
        Ok(metadata) if !metadata.is_file() => return Err(not_a_store("it is not a regular file")),
        Ok(_) => {}
    }
    let file = match ForkFile::open(|| file::open(path, true)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(refused(path, "opening for writing", e)),
    };
    let mut magic = [0; MAGIC.len()];
    let begins = |at| file.read_exact_at(&mut magic, at).is_ok() && magic == MAGIC;
    if [0, SUPERBLOCK_B].into_iter().any(begins) {
        Ok(Some(file))
    } else {
        Err(not_a_store("it does not begin as a store does"))
    }
}

/// Removes a store whose users are all dead. It holds the whole-file lock meanwhile: every opening handle takes this lock before it
/// checks whether the file still has a name. Returns whether the store is still there, because another user owns it.
fn leave_nothing(path: &Path, deadline: &Deadline) -> Result<bool> {
    let mut pauses = Pauses::default();
    while let Some(file) = store_at(path)? {
        if !file_lock::try_lock_whole(&file) {
            return Ok(false); // The store has a living user.
        }
        match unlink(&file, path, deadline)? {
            Unlinked::Done | Unlinked::Another => {}
            Unlinked::Refused(_) => return Ok(true),
        }
        if !pauses.rest(deadline) {
            return Err(name_is_locked(path, deadline));
        }
    }
    Ok(false)
}

/// Deletes the records of a store whose users are all dead and that only another user may remove. Does nothing if the store has a
/// living user by now.
fn empty(store: &Store, deadline: &Deadline) -> Result<()> {
    let arena = &store.handle.arena;
    let emptied = if file_lock::try_lock_whole(&arena.file) && !seat::any_staying(arena)? {
        delete_all(store)
    } else {
        Ok(())
    };
    // In either case the handle's share of the lock is gone.
    match file_lock::lock_whole_shared(&arena.file, deadline) {
        Ok(true) => emptied,
        Ok(false) => Err(name_is_locked(&arena.path, deadline)),
        Err(e) => Err(arena.io("taking the lock of the whole file (flock)")(e)),
    }
}

fn delete_all(store: &Store) -> Result<()> {
    let ids: Vec<u64> = store
        .iter()
        .map(|record| match record {
            Ok(record) => Ok(record.id()),
            Err(Error::Corrupt { id, .. }) => {
                store.put(id, &[])?; // A damaged record is healed by writing it anew.
                Ok(id)
            }
            Err(error) => Err(error),
        })
        .collect::<Result<_>>()?;
    ids.into_iter().try_for_each(|id| store.delete(id).map(drop))?;
    let mut keyed = Vec::new();
    Cursor::new(Address::Key).each(store, |id, _, _| {
        keyed.push(id);
        ControlFlow::Continue(())
    })?;
    let durability = store.handle.durability;
    keyed.into_iter().try_for_each(|id| store.delete_of(id, Address::Key, durability).map(drop))?;
    store.handle.arena.control().type_tag().store(0, Ordering::SeqCst); // The records may be of any type again.
    Ok(())
}

enum Unlinked {
    Done,
    /// The name is another file's by now, or is free.
    Another,
    /// The system did not allow it.
    Refused(io::Error),
}

/// Removes the name of a file. It holds the lock of the name's byte meanwhile. So a name that was found to be this file's stays so
/// until it is removed, and no file is removed that took its place meanwhile.
fn unlink(file: &ForkFile, path: &Path, deadline: &Deadline) -> Result<Unlinked> {
    let locked = file_lock::lock(file, NAME_BYTE, deadline);
    if !locked.map_err(io_error(path, "waiting for the lock of the name"))? {
        return Err(name_is_locked(path, deadline));
    }
    let unlinked = match std::fs::symlink_metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == file.identity() => match std::fs::remove_file(path) {
            Ok(()) => Unlinked::Done,
            Err(e) => Unlinked::Refused(e),
        },
        _ => Unlinked::Another,
    };
    // A failure leaves the lock to the kernel, which drops it when the file is closed.
    let _ = file_lock::unlock(file, NAME_BYTE);
    Ok(unlinked)
}

fn name_is_locked(path: &Path, deadline: &Deadline) -> Error {
    Error::Busy { path: path.to_path_buf(), lock: Lock::Name, owner: None, waited: deadline.waited() }
}

/// The error of a call on a file. If the file is another user's, the error names the owner.
fn refused(path: &Path, doing: &'static str, source: io::Error) -> Error {
    let owner =
        std::fs::symlink_metadata(path).ok().filter(|_| source.kind() == io::ErrorKind::PermissionDenied);
    let source = owner.map_or(source, |metadata| {
        let means = format!(
            "it is user {}'s, with mode {:04o}: choose another name, or have that user remove it, or create it with \
             Options::mode(0o666)",
            metadata.uid(),
            metadata.mode() & 0o7777
        );
        io::Error::new(io::ErrorKind::PermissionDenied, means)
    });
    io_error(path, doing)(source)
}

impl Shared {
    /// Removes the file if no other handle is attached.
    pub(crate) fn leave(&self) {
        let arena = &self.store.handle.arena;
        // Every other attached handle holds the lock, shared, and removes the file when it leaves. A try in vain gives up this
        // handle's own share.
        if arena.file.is_surely_ours() && file_lock::try_lock_whole(&arena.file) {
            // After a failure the next process that opens the name removes the file.
            let _ = unlink(&arena.file, &arena.path, &Deadline::after(Some(LEAVE_PATIENCE)));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.leave();
    }
}

fn path_of(name: &str) -> Result<PathBuf> {
    let is_name = (1..=NAME_LEN_MAX).contains(&name.len()) && !name.contains(['/', '\0']);
    if !is_name {
        let what = format!("{name:?} is not a valid name; use 1 to {NAME_LEN_MAX} bytes without `/` and NUL");
        return Err(Error::InvalidOption { what });
    }
    Ok(Path::new(DIRECTORY).join(format!("{PREFIX}{name}")))
}
