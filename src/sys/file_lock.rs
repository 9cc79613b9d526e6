//! Byte-range file locks that belong to an open file description (`F_OFD_SETLK`).
//!
//! Closing another descriptor of the file does not release them. They exclude handles of one process from each other. The kernel
//! releases them when the last descriptor is gone: when the process dies, in any way.
//!
//! A descriptor that leads to another file by now is never used: see [`ForkFile::same`].

use std::io;
use std::os::fd::AsRawFd;

use fs2::FileExt;

use super::deadline::Deadline;
use super::file::unless_allowed;
use super::fork::ForkFile;

const NO_OFD_LOCKS: &str = "this kernel, file system or sandbox does not allow locks of open file descriptions (fcntl \
    F_OFD_SETLK, Linux 3.15 or later), by which a dead process is told from a living one; use a local file system, and \
    a sandbox that allows the call";
const NO_FLOCK: &str = "this file system or sandbox does not allow flock, which keeps others out during recovery; use a \
    local file system, and a sandbox that allows the call";

/// Takes the lock of the whole file (`flock`), shared. Returns whether it did before the deadline.
pub(crate) fn lock_whole_shared(file: &ForkFile, deadline: &Deadline) -> io::Result<bool> {
    let file = file.same()?;
    if deadline.left().is_none() {
        loop {
            match FileExt::lock_shared(file) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                locked => return locked.map(|()| true).map_err(|e| unless_allowed(e, NO_FLOCK)),
            }
        }
    }
    let locked = deadline.keep_trying(|| match FileExt::try_lock_shared(file) {
        Ok(()) => Ok(Some(())),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(unless_allowed(e, NO_FLOCK)),
    })?;
    Ok(locked.is_some())
}

/// Takes the lock of the whole file exclusively, if no other handle has it. Returns whether it did. The handle's
/// shared lock is gone in either case: on Linux, a change of the lock that would have to wait gives the lock up.
pub(crate) fn try_lock_whole(file: &ForkFile) -> bool {
    file.same().is_ok_and(|file| FileExt::try_lock_exclusive(file).is_ok())
}

/// Gives the lock of the whole file back.
pub(crate) fn unlock_whole(file: &ForkFile) {
    // Closing the file does it too, unless another process has a duplicate of the descriptor.
    let _ = file.same().and_then(FileExt::unlock);
}

/// The kernel's process id for a lock that belongs to an open file description.
const OF_A_FILE: libc::pid_t = -1;

fn fcntl(
    file: &ForkFile,
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
    let file = file.same()?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed; `lock` is a valid `flock`.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) } == 0 {
            return Ok(lock);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::EAGAIN) {
            return Err(error); // Another handle has it.
        }
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(unless_allowed(error, NO_OFD_LOCKS));
        }
    }
}

/// Takes the byte's lock if no other handle has it. Returns whether it did.
pub(crate) fn try_lock(file: &ForkFile, byte: u64) -> io::Result<bool> {
    match fcntl(file, libc::F_OFD_SETLK, libc::F_WRLCK, byte, 1) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes the byte's lock. Waits in the kernel's queue or, if there is a deadline, tries again and again. Returns whether it did.
pub(crate) fn lock(file: &ForkFile, byte: u64, deadline: &Deadline) -> io::Result<bool> {
    if deadline.left().is_none() {
        return fcntl(file, libc::F_OFD_SETLKW, libc::F_WRLCK, byte, 1).map(|_| true);
    }
    // The kernel's queue knows no time-out.
    let locked = deadline.keep_trying(|| Ok::<_, io::Error>(try_lock(file, byte)?.then_some(())))?;
    Ok(locked.is_some())
}

/// Gives the byte's lock back.
pub(crate) fn unlock(file: &ForkFile, byte: u64) -> io::Result<()> {
    fcntl(file, libc::F_OFD_SETLK, libc::F_UNLCK, byte, 1).map(drop)
}

/// Whether another handle, of this process or any other, has the byte's lock.
pub(crate) fn is_locked_by_other(file: &ForkFile, byte: u64) -> io::Result<bool> {
    Ok(first_locked_by_other(file, byte, 1)?.is_some())
}

/// The first of `bytes` bytes whose lock another handle has. A program may have a lock of another kind on a byte (`lockf`). Then no
/// handle has the byte's lock: the two exclude each other.
pub(crate) fn first_locked_by_other(file: &ForkFile, byte: u64, bytes: u64) -> io::Result<Option<u64>> {
    let mut from = byte;
    while from < byte + bytes {
        let found = fcntl(file, libc::F_OFD_GETLK, libc::F_RDLCK, from, byte + bytes - from)?;
        if found.l_type == libc::F_UNLCK as libc::c_short {
            return Ok(None);
        }
        let start = (found.l_start as u64).max(from);
        if found.l_pid == OF_A_FILE {
            return Ok(Some(start));
        }
        let end = (found.l_start as u64).saturating_add(found.l_len as u64);
        // Length 0: to the end of all files.
        from = if found.l_len == 0 { byte + bytes } else { end.max(start + 1) };
    }
    Ok(None)
}

/// The process that has a lock of another kind on the byte, if one has. 0: a process of another PID namespace.
pub(crate) fn foreign_holder(file: &ForkFile, byte: u64) -> Option<u32> {
    let lock = fcntl(file, libc::F_OFD_GETLK, libc::F_RDLCK, byte, 1).ok()?;
    let is_foreign = lock.l_type != libc::F_UNLCK as libc::c_short && lock.l_pid != OF_A_FILE;
    is_foreign.then_some(lock.l_pid as u32)
}
