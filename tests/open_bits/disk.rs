//! The disk: what the file of the case held when its last flush began.
//!
//! This binary has an `fdatasync` and an `msync` of its own, which the linker prefers to the C library's: no case waits
//! for a real disk, and what was flushed is known, whichever call flushed it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Disk {
    path: Option<PathBuf>,
    flushed: Vec<u8>,
}

static DISK: Mutex<Disk> = Mutex::new(Disk { path: None, flushed: Vec::new() });

fn disk() -> MutexGuard<'static, Disk> {
    DISK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, flushes are of this file.
pub(crate) fn begin(path: &Path) {
    *disk() = Disk { path: Some(path.to_path_buf()), flushed: Vec::new() };
}

/// What was flushed last. Later flushes are of other files.
pub(crate) fn end() -> Vec<u8> {
    std::mem::take(&mut *disk()).flushed
}

fn flush() {
    let mut disk = disk();
    if let Some(path) = &disk.path {
        disk.flushed = std::fs::read(path).expect("the file of the case");
    }
}

/// It replaces the C library's for this binary: it must have its signature, and has.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(_descriptor: libc::c_int) -> libc::c_int {
    flush();
    0
}

/// The same. A range is flushed, and all is taken to be.
#[unsafe(no_mangle)]
extern "C" fn msync(_address: *mut libc::c_void, _len: libc::size_t, _flags: libc::c_int) -> libc::c_int {
    flush();
    0
}
