//! A directory for files that are not kept.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::{env, process};

/// A new directory, removed when this is dropped; or, if this process is killed, by the next run of
/// the same program. A lock on the directory, which the kernel releases, tells which are in use.
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    pub(crate) fn new() -> io::Result<Self> {
        let prefix = concat!("recstore-", env!("CARGO_CRATE_NAME"), "-");
        for entry in fs::read_dir(env::temp_dir())?.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
                // Another user's, or gone by now: not our concern.
                let _ = remove_if_left(&entry.path());
            }
        }
        loop {
            let name = format!("{prefix}{}-{:08x}", process::id(), rand::random::<u32>());
            let path = env::temp_dir().join(name);
            fs::create_dir(&path)?;
            // Before it is locked, somebody else may take it for one that was left.
            if let Ok(lock) = File::open(&path)
                && lock.try_lock().is_ok()
                && path.exists()
            {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed now is, by the next run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn remove_if_left(path: &Path) -> io::Result<()> {
    let directory = File::open(path)?;
    if directory.try_lock().is_ok() { fs::remove_dir_all(path) } else { Ok(()) }
}
