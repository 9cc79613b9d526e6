//! Kill points and faults for the crate's own tests.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub use crate::fault::{Fault, Refusal};
use crate::format::control;
use crate::format::geometry::REGION_TABLE;
use crate::format::region::{HEAD_BYTES, word};
use crate::recovery::recover::REGIONS_FLUSHED;
use crate::region::continuity::Continuity;
use crate::store::flush::EXTENT_FLUSHED;
pub use crate::store::flush::FLUSHED;
use crate::sys::step::armed;

/// All steps right after a flush of everything: what was in the file at the step before is on disk. Whoever models the disk
/// takes these, and no list of its own: a flush that a model does not know of is a loss that never was.
pub const EVERYTHING_FLUSHED: [&str; 3] = [FLUSHED, EXTENT_FLUSHED, REGIONS_FLUSHED];

/// Has this process killed at the n-th step from now (1 is the next one); 0 disarms.
pub fn arm(n: i64) {
    armed::arm(n);
}

/// Steps passed since [`arm`].
pub fn steps_seen() -> u64 {
    armed::seen()
}

/// Has `hook` called with the step's name at every step of this thread; `None` takes it away. The
/// hook may look at the file, and may not use a store.
///
/// At the steps of [`EVERYTHING_FLUSHED`], what the file held at the step before it is on disk.
pub fn set_hook(hook: Option<Box<dyn FnMut(&'static str)>>) {
    armed::set_hook(hook);
}

/// Switches a fault on, and the one before off; [`Fault::None`] for none.
pub fn switch(fault: Fault) {
    crate::fault::switch(fault);
}

/// Has every growth of this thread refused from the n-th from now on (1 is the next one), as it is on a full disk, or beside
/// somebody else who lets the store grow; `None`: no longer. Growth is what takes the growth lock: an extent, an index
/// table, links.
pub fn refuse_growth(from: u64, how: Option<Refusal>) {
    crate::fault::refuse_growth(from, how);
}

/// Growths of this thread since [`refuse_growth`].
pub fn growths_seen() -> u64 {
    crate::fault::growths_seen()
}

/// Marks a region as one whose rebuild was begun and cut off: the next owner rebuilds it.
pub fn mark_for_rebuild(path: &Path, region: u32) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let last_byte = REGION_TABLE + u64::from(region) * HEAD_BYTES + 8 * word::SHAPE as u64 + 7;
    let mut byte = [0];
    file.read_exact_at(&mut byte, last_byte)?;
    file.write_all_at(&[byte[0] | 0x80], last_byte)
}

/// Makes the store look as if it had always been in this file: what was in use elsewhere, and was copied here, is taken
/// for what a process that died has left in memory.
pub fn set_continuity(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let words = Continuity::of(&file)?.words();
    words.iter().try_for_each(|(at, word)| file.write_all_at(&word.to_le_bytes(), *at))
}

/// Makes the store look as if it was last attached in another boot, and not closed cleanly: the
/// next one to open it takes it that the operating system went down.
pub fn set_boot_id(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&0xdead_u64.to_le_bytes(), control::BOOT)?;
    file.write_all_at(&0_u64.to_le_bytes(), control::CLEAN)
}
