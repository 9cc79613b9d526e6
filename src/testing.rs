//! Kill points and faults for the crate's own tests.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub use crate::fault::{Fault, Refusal};
use crate::file::continuity::Continuity;
use crate::format::control::{CONTROL, CONTROL_WORDS, Control, Mark, SeenThrough};
use crate::format::geometry::{HEAD_BYTES, REGION_TABLE};
use crate::format::index::Shape;
use crate::format::region::{HEAD_WORDS, Head};
use crate::handle::flush::EXTENT_FLUSHED;
pub use crate::handle::flush::FLUSHED;
use crate::recovery::recover::REGIONS_FLUSHED;
use crate::store::Store;
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::clock::{Reading, injected};
use crate::sys::step::armed;

/// All steps right after a flush of everything: the bytes that were in the file at the step before are on disk. A model of the disk uses
/// this list, and no list of its own: a flush that the model does not know would be a loss that never was.
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
/// At the steps of [`EVERYTHING_FLUSHED`], the bytes of the file at the step before are on disk.
pub fn set_hook(hook: Option<Box<dyn FnMut(&'static str)>>) {
    armed::set_hook(hook);
}

/// Switches a fault on, and the one before off; [`Fault::None`] for none.
pub fn switch(fault: Fault) {
    crate::fault::switch(fault);
}

/// Refuses every growth of this thread from the n-th from now on (1 is the next one), as a full disk does, or another process that holds
/// the growth lock; `None`: no longer. A growth is a use of the growth lock: for an extent, an index table or links.
pub fn refuse_growth(from: u64, how: Option<Refusal>) {
    crate::fault::refuse_growth(from, how);
}

/// Makes every rebuild of this thread fail in its look at the slots, as if it can't map them or can't ask which owners live; or no
/// longer.
pub fn fail_surveys(fail: bool) {
    crate::fault::fail_surveys(fail);
}

/// Makes the stores that this process opens from here on take memory for a disk: work that waits for a flush on a disk waits for it in
/// memory too. A test that models a disk on a file in memory calls this first.
pub fn take_memory_for_disk() {
    crate::fault::take_memory_for_disk();
}

/// Has this process take so many bits of the hash of a key, from here on: so that keys share ids.
pub fn shorten_key_hash(bits: u32) {
    crate::fault::shorten_key_hash(bits);
}

/// Has this process see these clocks: a boot, milliseconds since the boot, and the wall clock's milliseconds since 1970; `None`: those of
/// the machine.
pub fn set_clocks(to: Option<([u64; 2], u64, u64)>) {
    injected::set(to.map(|(boot, up_ms, wall_ms)| Reading { boot, up_ms, wall_ms }));
}

/// Extents that passes over all extents came to, since the handle was opened.
pub fn extents_looked_at(store: &Store) -> u64 {
    store.handle.arena.looks.load(Ordering::Relaxed)
}

/// Growths of this thread since [`refuse_growth`].
pub fn growths_seen() -> u64 {
    crate::fault::growths_seen()
}

/// Has `change` work on a copy of `count` words of a file, from `offset` on, and stores those that it changed.
fn with_words(path: &Path, offset: u64, count: usize, change: impl FnOnce(&[AtomicU64])) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = vec![0; count * 8];
    file.read_exact_at(&mut bytes, offset)?;
    let words =
        bytes.chunks_exact(8).map(|word| word.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)));
    let before: Vec<u64> = words.collect();
    let words: Vec<AtomicU64> = before.iter().copied().map(AtomicU64::new).collect();
    change(&words);
    for (at, (was, word)) in (offset..).step_by(8).zip(before.into_iter().zip(words)) {
        let is = word.into_inner();
        if is != was {
            file.write_all_at(&is.to_le_bytes(), at)?;
        }
    }
    Ok(())
}

fn with_control(path: &Path, change: impl FnOnce(Control<'_>)) -> io::Result<()> {
    with_words(path, CONTROL, CONTROL_WORDS, |words| {
        if let Some(control) = Control::of(words) {
            change(control);
        }
    })
}

/// Marks a region as one whose rebuild was begun and cut off: the next owner rebuilds it.
pub fn mark_for_rebuild(path: &Path, region: u32) -> io::Result<()> {
    with_words(path, REGION_TABLE + u64::from(region) * HEAD_BYTES, HEAD_WORDS, |words| {
        if let Some(head) = Head::of(words) {
            let shape = Shape { rebuilding: true, ..head.shape().load(Ordering::SeqCst) };
            head.shape().store(shape, Ordering::SeqCst);
        }
    })
}

/// Makes the store look as if it had always been in this file: a copy of a store in use is taken for the memory that a dead process
/// left.
pub fn set_continuity(path: &Path) -> io::Result<()> {
    let here = Continuity::of(&OpenOptions::new().write(true).open(path)?)?;
    with_control(path, |control| control.set_seen_through(&here.0))
}

/// Makes the store look as if it was last attached in another boot, and not closed cleanly: the next handle that opens it assumes that the
/// operating system went down.
pub fn set_boot_id(path: &Path) -> io::Result<()> {
    with_control(path, |control| {
        let seen = control.seen_through();
        control.set_seen_through(&SeenThrough { boot: [0xdead, seen.boot[1]], ..seen });
        control.mark().store(Mark::InUse, Ordering::SeqCst);
    })
}
