//! Whether the memory of the last users is still this file's.
//!
//! What was written and not flushed lives in the memory of the kernel, in pages that belong to one inode of one
//! mounted file system. It outlives the processes. It does not outlive the machine, nor the mount: a file system that
//! was shut down, or whose disk was detached, and is mounted again, shows what had reached the disk. A copy, a
//! snapshot or a reflink of the file has what had reached the copy.
//!
//! 1. While a seat is held, its holder has this memory. That needs no other proof, and nothing speaks against it.
//! 2. If nobody is attached and the store is not marked clean, memory is believed only if its continuity is shown: see
//!    [`doubt`]. In doubt the store is recovered as after a crash of the operating system.
//! 3. Who comes in notes what will show it, and only then marks the inode. After a recovery the note is on disk first.
//! 4. An error of writing back is a doubt also where the memory is the same: the kernel may have dropped the page.

use crate::error::Result;
use crate::file::arena::Arena;
use crate::format::control::SeenThrough;
use crate::format::hash::hash;
use crate::sys::atomic::Ordering;
use crate::sys::file;

/// Where another file lies over the kernel's boot id, as in some containers.
const NO_BOOT: [u64; 2] = [u64::MAX; 2];

/// What the file is seen through, here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Continuity(pub(crate) SeenThrough);

impl Continuity {
    /// That of the file of an arena.
    pub(crate) fn here(arena: &Arena) -> Result<Self> {
        Self::of(&arena.file).map_err(arena.io("asking what identifies the file's memory (boot id, statx)"))
    }

    pub(crate) fn of(file: &std::fs::File) -> std::io::Result<Self> {
        let boot = file::boot_id()?.unwrap_or(NO_BOOT);
        let seen = file::identity(file)?;
        let file = seen.file.into_iter().fold(0, hash);
        // The boot of the kernel, or NO_BOOT; the mount, if the kernel gives numbers that it does not give again.
        Ok(Self(SeenThrough { boot, mount: seen.mount, file }))
    }

    /// That which the control page notes.
    fn noted(arena: &Arena) -> Self {
        Self(arena.control().seen_through())
    }

    fn knows_boot(&self) -> bool {
        self.0.boot != NO_BOOT
    }
}

/// Notes the continuity. The memory is known to be the last users', or was recovered.
pub(crate) fn note(arena: &Arena, here: &Continuity) {
    if Continuity::noted(arena) != *here {
        arena.control().set_seen_through(&here.0);
    }
}

/// Marks the inode in memory as one whose pages are believed. The mark goes with the inode, which outlives its pages.
/// Who may not do it goes by boot and mount.
pub(crate) fn mark_inode(arena: &Arena) {
    file::mark_in_memory(&arena.file);
}

/// Why memory is not believed, or `None` if it is the last users'. Nobody is attached, and the store is not marked clean.
///
/// * Two boots of the kernel that differ prove a crash. A boot id that something else lies over proves nothing.
/// * Another device, inode or birth: it is a copy, or the inode's number was given again.
/// * The inode's mark proves that it was never out of memory, whatever mount it is seen through.
/// * Without the mark, the same boot and the same mount prove it: a mount keeps its file system.
/// * All else is doubt.
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
