//! Stores in memory, by name: gone when the last process that uses them is.
//!
//! The file lies in `/dev/shm`. The last handle to leave removes it; if all were killed, the next one
//! to come under the name finds that nobody is attached, and begins with an empty store.

use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::region::arena::io_error;
use crate::store::Store;
use crate::store::options::Options;
use crate::sys::file;

/// Where the files are.
const DIRECTORY: &str = "/dev/shm";
/// What their names begin with.
const PREFIX: &str = "recstore.";
/// Longest name in bytes.
const NAME_LEN_MAX: usize = 200;

/// A store in memory, by name: see [`Store::shared`]. It is removed when the last of these is dropped,
/// in whatever process.
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

impl Store {
    /// Opens the store in memory with this name, or creates it with default options: see
    /// [`Options::shared`].
    ///
    /// # Errors
    /// As [`Options::shared`].
    pub fn shared(name: &str) -> Result<Shared> {
        Options::new().shared(name)
    }

    /// Removes the store in memory with this name; whether there was one. Processes that are attached
    /// keep it until they leave.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for what is no name; [`Error::Io`].
    pub fn remove(name: &str) -> Result<bool> {
        let path = path_of(name)?;
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(io_error(&path, "removing the store")(e)),
        }
    }

    /// The names of all stores in memory that this user can see, with their paths.
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
    /// Opens the store in memory with this name, or creates it. A store that all its users left behind
    /// by dying is removed, and a new, empty one takes its place: what lies in memory is for those who
    /// use it, and nothing of it outlives them.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for what is no name (1 to 200 bytes, no `/`, no NUL); as
    /// [`open_or_create`](Self::open_or_create).
    pub fn shared(&self, name: &str) -> Result<Shared> {
        let path = path_of(name)?;
        // Its name may be taken from it on purpose.
        let mut options = self.clone();
        options.keeps_name = false;
        // Each turn loses against somebody who came, left or removed at the same time.
        loop {
            if is_deserted(&path)? {
                continue;
            }
            let store = options.open_or_create(&path)?;
            let metadata =
                store.handle.arena.file.metadata().map_err(io_error(&path, "looking at the file"))?;
            if metadata.nlink() != 0 {
                return Ok(Shared { store });
            }
        }
    }
}

/// Removes the file at `path` if nobody is attached to it; whether it did. The whole-file lock is held
/// meanwhile, which everyone who comes in takes before they look whether the file still has a name.
fn is_deserted(path: &Path) -> Result<bool> {
    let file = match file::open(path, true) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(io_error(path, "opening for writing")(e)),
    };
    if fs2::FileExt::try_lock_exclusive(&file).is_err() {
        return Ok(false);
    }
    remove_if_same(path, &file.metadata().map_err(io_error(path, "looking at the file"))?)
}

fn remove_if_same(path: &Path, opened: &std::fs::Metadata) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (opened.dev(), opened.ino()) => {
            std::fs::remove_file(path).map(|()| true).map_err(io_error(path, "removing the store"))
        }
        _ => Ok(false),
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let arena = &self.store.handle.arena;
        // Whoever else is attached holds the lock, shared, and removes the file when it leaves. Trying
        // gives this handle's own share up.
        if arena.file.is_ours()
            && fs2::FileExt::try_lock_exclusive(&*arena.file).is_ok()
            && let Ok(metadata) = arena.file.metadata()
        {
            // A failure leaves the file for the next one who comes under the name.
            let _ = remove_if_same(&arena.path, &metadata);
        }
    }
}

fn path_of(name: &str) -> Result<PathBuf> {
    let is_name = (1..=NAME_LEN_MAX).contains(&name.len()) && !name.contains(['/', '\0']);
    if !is_name {
        let what = format!("{name:?} is no name: 1 to {NAME_LEN_MAX} bytes without / are");
        return Err(Error::InvalidOption { what });
    }
    Ok(Path::new(DIRECTORY).join(format!("{PREFIX}{name}")))
}
