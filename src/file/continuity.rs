//! Continuity: whether the file's pages in memory are still those of the last users.
//!
//! Bytes that were written and not flushed are in the memory of the kernel, in pages that belong to one inode of one
//! mounted file system. These pages outlive the processes. They do not outlive the machine, nor the mount: if a file system
//! was shut down, or its disk was detached, and it is mounted again, it shows the bytes that had reached the disk. A copy, a
//! snapshot or a reflink of the file has the bytes that had reached the copy.
//!
//! 1. While another handle holds a seat, that handle has this memory. No other proof is needed.
//! 2. If no handle is attached and the store is not marked clean, memory is believed only if its continuity is shown: see
//!    [`doubt`]. In doubt the store is recovered as after a crash of the operating system.
//! 3. An opening handle notes boot, mount and file, and only then marks the inode. After a recovery the note is on disk first.
//! 4. An error of writing back is a doubt even if the memory is the same: the kernel may have dropped the page.

use crate::error::Result;
use crate::file::arena::Arena;
use crate::format::control::SeenThrough;
use crate::format::hash::hash;
use crate::sys::atomic::Ordering;
use crate::sys::file;

/// The boot id if another file covers the kernel's, as in some containers.
const NO_BOOT: [u64; 2] = [u64::MAX; 2];

/// The boot, mount and file that the store is seen through now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Continuity(pub(crate) SeenThrough);

impl Continuity {
    /// The continuity of an arena's file.
    pub(crate) fn here(arena: &Arena) -> Result<Self> {
        Self::of(&arena.file).map_err(arena.io("asking for the boot id and the file's mount (statx)"))
    }

    pub(crate) fn of(file: &std::fs::File) -> std::io::Result<Self> {
        let boot = file::boot_id()?.unwrap_or(NO_BOOT);
        let seen = file::identity(file)?;
        let file = seen.file.into_iter().fold(0, hash);
        // The boot of the kernel, or NO_BOOT; the mount, if the kernel gives numbers that it does not give again.
        Ok(Self(SeenThrough { boot, mount: seen.mount, file }))
    }

    /// The continuity that the control page notes.
    fn noted(arena: &Arena) -> Self {
        Self(arena.control().seen_through())
    }

    fn knows_boot(&self) -> bool {
        self.0.boot != NO_BOOT
    }
}

/// Notes the continuity. The caller knows that the memory is the last users', or has recovered the store.
pub(crate) fn note(arena: &Arena, here: &Continuity) {
    if Continuity::noted(arena) != *here {
        arena.control().set_seen_through(&here.0);
    }
}

/// Marks the inode in memory as one whose pages are believed. The mark is gone when the inode is, and the inode outlives its
/// pages. Without the right to set the mark, continuity is shown by boot and mount.
pub(crate) fn mark_inode(arena: &Arena) {
    file::mark_in_memory(&arena.file);
}

/// The reason why memory is not believed, or `None` if it is the last users'. The caller knows that no handle is attached and
/// that the store is not marked clean.
///
/// * Two different boots of the kernel prove a crash. A boot id that another file covers proves nothing.
/// * A different device, inode or birth: the file is a copy, or the inode's number was used again.
/// * The inode's mark proves that the inode was never out of memory, through any mount.
/// * Without the mark, the same boot and the same mount prove it: a mount keeps its file system.
/// * Everything else is doubt.
pub(crate) fn doubt(arena: &Arena, here: &Continuity) -> Option<&'static str> {
    let noted = Continuity::noted(arena);
    let same_boot = noted.0.boot == here.0.boot;
    if noted.knows_boot() && here.knows_boot() && !same_boot {
        Some("the system went down while it was in use")
    } else if arena.control().flush_failed().load(Ordering::SeqCst) != 0 {
        Some("a flush failed while it was in use")
    } else if noted.0.file != here.0.file {
        Some("it is a copy of a file that was in use, or its file system was mounted anew")
    } else if file::is_marked_in_memory(&arena.file) {
        None
    } else if !here.knows_boot() || !noted.knows_boot() {
        Some(
            "whether the system went down while it was in use is not known, because this boot id is not the kernel's",
        )
    } else if here.0.mount != 0 && noted.0.mount == here.0.mount {
        None
    } else {
        Some("its file system was mounted anew while it was in use, or may have been")
    }
}
