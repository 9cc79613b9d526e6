//! The blocks of a file: which are there, which the file shares with a copy, and whether a block is written in place.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use super::file::{fallocate, file_system_kind};

/// A range of a file that has blocks.
pub(crate) struct Piece {
    pub(crate) bytes: Range<u64>,
    /// Another file has the same blocks: a write takes new ones.
    pub(crate) is_shared: bool,
}

/// The argument and the result of the kernel's `FS_IOC_FIEMAP`.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [FiemapExtent; AT_ONCE],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

const AT_ONCE: usize = 256;
const FIEMAP_HEADER_BYTES: usize = 32;
const _: () = assert!(size_of::<FiemapExtent>() == 56);
const _: () = assert!(size_of::<Fiemap>() == FIEMAP_HEADER_BYTES + AT_ONCE * 56);

const FS_IOC_FIEMAP: u32 = 0xc020_660b;
const LAST: u32 = 1;
const SHARED: u32 = 0x2000;
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_NOCOW_FL: libc::c_int = 0x0080_0000;

/// The pieces of a range that have blocks, in order; `None` if the file system does not tell. Allocated blocks count even if they
/// were never written. One system call for some hundred pieces.
pub(crate) fn pieces(file: &File, bytes: Range<u64>) -> io::Result<Option<Vec<Piece>>> {
    let mut found: Vec<Piece> = Vec::new();
    let none =
        FiemapExtent { logical: 0, physical: 0, length: 0, reserved: [0; 2], flags: 0, reserved_too: [0; 3] };
    let mut at = bytes.start;
    while at < bytes.end {
        let mut map = Fiemap {
            start: at,
            length: bytes.end - at,
            flags: 0,
            mapped: 0,
            count: AT_ONCE as u32,
            reserved: 0,
            extents: [none; AT_ONCE],
        };
        // SAFETY: the kernel fills as many extents as `count` says, and there is room for them.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &mut map) };
        if done != 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::ENOSYS | libc::EINVAL) => Ok(None),
                Some(libc::EINTR) => continue,
                _ => Err(error),
            };
        }
        let extents = &map.extents[..(map.mapped as usize).min(AT_ONCE)];
        let Some(last) = extents.last() else { break };
        for extent in extents {
            let end = extent.logical.saturating_add(extent.length);
            found.push(Piece { bytes: extent.logical..end, is_shared: extent.flags & SHARED != 0 });
        }
        let end = last.logical.saturating_add(last.length);
        if last.flags & LAST != 0 || end <= at {
            break;
        }
        at = end;
    }
    Ok(Some(found))
}

/// Gives a range blocks of its own where it shares them. Returns whether the file system has a call for this.
pub(crate) fn unshare(file: &File, bytes: &Range<u64>) -> io::Result<bool> {
    let mode = libc::FALLOC_FL_UNSHARE_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, mode, bytes.clone()) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

fn flags(file: &File) -> Option<libc::c_int> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the kernel stores an `int`, whatever the number of the call says.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFLAGS as _, &mut flags) };
    (done == 0).then_some(flags)
}

/// Makes the file system write the blocks of a file in place, if it would take new ones for each write. The file must be empty.
pub(crate) fn forbid_copy_on_write(file: &File) {
    if let Some(flags) = flags(file) {
        let flags = flags | FS_NOCOW_FL;
        // SAFETY: the kernel reads an `int`. A file system without this flag refuses the call, and does not need the flag.
        unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS as _, &flags) };
    }
}

/// The name of the file system, if it takes new blocks for every write to this file: then a write into allocated blocks may find
/// no room.
pub(crate) fn copy_on_write(file: &File) -> io::Result<Option<&'static str>> {
    let name = match file_system_kind(file)? {
        0x9123_683e => "btrfs",
        0xca45_1a4e => "bcachefs",
        0x2fc1_2fc1 => "ZFS",
        0x3434 => "NILFS",
        _ => return Ok(None),
    };
    let is_in_place = flags(file).is_some_and(|flags| flags & FS_NOCOW_FL != 0);
    Ok((!is_in_place).then_some(name))
}

const TMPFS: u32 = 0x0102_1994;
const EXT: u32 = 0xef53;

/// Whether the file system has its files in memory. There, reading a hole takes room.
pub(crate) fn is_in_memory(file: &File) -> bool {
    file_system_kind(file).is_ok_and(|kind| kind == TMPFS)
}

/// Whether the files of this file system may share blocks with copies of them.
pub(crate) fn may_share(file: &File) -> bool {
    // Two that can't; another one may.
    !file_system_kind(file).is_ok_and(|kind| kind == EXT || kind == TMPFS)
}
