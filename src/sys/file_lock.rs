//! Byte-range file locks that belong to an open file description (`F_OFD_SETLK`).
//!
//! They are not lost when another descriptor of the file is closed, they exclude handles of one
//! process from each other, and the kernel drops them when the last descriptor is gone: when the
//! process dies, however it dies.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Pauses between the tries of a limited wait.
const TRY_AGAIN_FIRST: Duration = Duration::from_micros(50);
const TRY_AGAIN_LAST: Duration = Duration::from_millis(2);

fn fcntl(
    file: &File,
    command: libc::c_int,
    kind: libc::c_int,
    byte: u64,
    bytes: u64,
) -> io::Result<libc::flock> {
    // SAFETY: `flock` is plain old data for which all zeros is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte as libc::off_t;
    lock.l_len = bytes as libc::off_t;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed; `lock` is a valid `flock`.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) } == 0 {
            return Ok(lock);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Takes the byte's lock if no other handle has it; whether it did.
pub(crate) fn try_lock(file: &File, byte: u64) -> io::Result<bool> {
    match fcntl(file, libc::F_OFD_SETLK, libc::F_WRLCK, byte, 1) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes the byte's lock, waiting for it in the kernel's queue, or, if there is a limit to the wait,
/// trying again and again; whether it did.
pub(crate) fn lock(file: &File, byte: u64, limit: Option<Duration>) -> io::Result<bool> {
    let Some(limit) = limit else {
        return fcntl(file, libc::F_OFD_SETLKW, libc::F_WRLCK, byte, 1).map(|_| true);
    };
    let started = Instant::now();
    let mut pause = TRY_AGAIN_FIRST;
    loop {
        if try_lock(file, byte)? {
            return Ok(true);
        }
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        // The kernel's queue knows no time-out.
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(TRY_AGAIN_LAST);
    }
}

/// Gives the byte's lock back.
pub(crate) fn unlock(file: &File, byte: u64) -> io::Result<()> {
    fcntl(file, libc::F_OFD_SETLK, libc::F_UNLCK, byte, 1).map(drop)
}

/// Whether another handle, of this process or any other, has the byte's lock.
pub(crate) fn is_locked_by_other(file: &File, byte: u64) -> io::Result<bool> {
    any_locked_by_other(file, byte, 1)
}

/// Whether another handle has the lock of any of `bytes` bytes.
pub(crate) fn any_locked_by_other(file: &File, byte: u64, bytes: u64) -> io::Result<bool> {
    fcntl(file, libc::F_OFD_GETLK, libc::F_RDLCK, byte, bytes)
        .map(|l| l.l_type != libc::F_UNLCK as libc::c_short)
}
