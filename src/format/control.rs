//! The control page: what changes for the store as a whole. One cache line per purpose.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use super::PAGE_BYTES;

/// Offset of the control page.
pub(crate) const CONTROL: u64 = PAGE_BYTES;

/// The control page's words. "Checked" words are encoded by [`super::checked`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Control {
    // Line 0: read by every write, changed by `sync`.
    /// Checked: the current epoch; every write is stamped with it.
    epoch: u64,
    /// Checked: everything stamped with this epoch or an earlier one is on disk.
    durable: u64,
    pad0: [u64; 6],
    // Line 1: read at open.
    /// The boot (as two words) during which the store was last attached for writing; all ones: not known.
    boot: [u64; 2],
    /// Whether the store is in use: `CLEAN_MARK`, `IN_USE_MARK` or `UNSURE_MARK`.
    clean: u64,
    /// Checked: extents that were in the file when it last grew. A shorter file was cut off.
    extents: u64,
    /// Checked: the same, as of the last flush: even a loss of power leaves as many.
    durable_extents: u64,
    /// What the memory of the last users was seen through: see `region::continuity`. The mount; 0: not known.
    mount: u64,
    /// The file: a hash of device, inode and the inode's birth.
    file: u64,
    pad1: u64,
    // Line 2: counters for people.
    /// Flushes done.
    flushes: u64,
    /// Writes that asked to be durable.
    durable_writes: u64,
    /// The error number of a flush that failed, or 0: until the store is opened by one handle alone,
    /// no flush is believed.
    flush_failed: u64,
    /// The claim that has the growth lock, as in a lock word; for people.
    grower: u64,
    /// The claim that has the sync lock, likewise.
    flusher: u64,
    /// Checked: blocks of 512 bytes that the file had when it was last closed cleanly.
    blocks: u64,
    /// Checked: which file that was.
    blocks_of: u64,
    pad2: [u64; 1],
    // Line 3: pins.
    /// Bit 0: a seat may have a pin. The rest counts, so that it never repeats.
    pinned: u64,
    /// Bit 0: a seat may have a borrow. The rest counts, so that it never repeats.
    borrowed: u64,
    /// The clock of borrows: raised by who looks for slots that nobody borrows any more.
    clock: u64,
    pad3: [u64; 5],
    // Line 4: watchers of the whole store.
    /// Raised by a write that finds the store watched.
    changes: u64,
    pad4: [u64; 7],
    // Line 5: what the records are.
    /// Hash of the type that the records are of; 0: any.
    type_tag: u64,
    /// The same, once it is on disk.
    durable_tag: u64,
    pad5: [u64; 6],
    // Line 6: atomic batches. One is written at a time.
    /// The lock of batches: see `protocol::lock`.
    batch_lock: u64,
    /// Checked: the number of the last batch that stored anything.
    begun: u64,
    /// Checked: the number of the last batch that counts. This word decides.
    committed: u64,
    /// Checked: the number of the last batch of which nothing is left to do.
    ended: u64,
    /// Checked: the epoch of the last batch.
    batched: u64,
    /// Checked: the batches of this epoch and of earlier ones are whole on disk.
    settled: u64,
    pad6: [u64; 2],
    // Line 7: versions. A block is 2^40 of them.
    /// Checked: blocks of versions that are given out; on disk before a version of the last one is used.
    version_blocks: u64,
    /// Checked: the first block of this life of the store, which the last recovery began.
    life: u64,
    pad7: [u64; 6],
}

const _: () = assert!(size_of::<Control>() == 512);

/// Offset of the epoch.
pub(crate) const EPOCH: u64 = CONTROL + offset_of!(Control, epoch) as u64;
/// Offset of the durable epoch.
pub(crate) const DURABLE: u64 = CONTROL + offset_of!(Control, durable) as u64;
/// Offset of the boot id's two words.
pub(crate) const BOOT: u64 = CONTROL + offset_of!(Control, boot) as u64;
/// Offset of the clean mark.
pub(crate) const CLEAN: u64 = CONTROL + offset_of!(Control, clean) as u64;
/// Offset of the number of extents.
pub(crate) const EXTENTS: u64 = CONTROL + offset_of!(Control, extents) as u64;
/// Offset of the number of extents at the last flush.
pub(crate) const DURABLE_EXTENTS: u64 = CONTROL + offset_of!(Control, durable_extents) as u64;
/// Offset of the mount.
pub(crate) const MOUNT: u64 = CONTROL + offset_of!(Control, mount) as u64;
/// Offset of the file's identity.
pub(crate) const FILE: u64 = CONTROL + offset_of!(Control, file) as u64;
/// Offset of the flush counter.
pub(crate) const FLUSHES: u64 = CONTROL + offset_of!(Control, flushes) as u64;
/// Offset of the counter of durable writes.
pub(crate) const DURABLE_WRITES: u64 = CONTROL + offset_of!(Control, durable_writes) as u64;

/// Offset of the mark of a failed flush.
pub(crate) const FLUSH_FAILED: u64 = CONTROL + offset_of!(Control, flush_failed) as u64;
/// Offset of the note of who has the growth lock.
pub(crate) const GROWER: u64 = CONTROL + offset_of!(Control, grower) as u64;
/// Offset of the note of who has the sync lock.
pub(crate) const FLUSHER: u64 = CONTROL + offset_of!(Control, flusher) as u64;
/// Offset of the number of blocks at the last clean close.
pub(crate) const BLOCKS: u64 = CONTROL + offset_of!(Control, blocks) as u64;
/// Offset of which file had these blocks.
pub(crate) const BLOCKS_OF: u64 = CONTROL + offset_of!(Control, blocks_of) as u64;
/// Offset of the hint that there are pins.
pub(crate) const PINNED: u64 = CONTROL + offset_of!(Control, pinned) as u64;

/// Offset of the hint that there are borrows.
pub(crate) const BORROWED: u64 = CONTROL + offset_of!(Control, borrowed) as u64;
/// Offset of the clock of borrows.
pub(crate) const CLOCK: u64 = CONTROL + offset_of!(Control, clock) as u64;
/// Offset of the count of changes of a watched store.
pub(crate) const CHANGES: u64 = CONTROL + offset_of!(Control, changes) as u64;
/// Offset of the type tag.
pub(crate) const TYPE_TAG: u64 = CONTROL + offset_of!(Control, type_tag) as u64;
/// Offset of the type tag that is on disk.
pub(crate) const DURABLE_TAG: u64 = CONTROL + offset_of!(Control, durable_tag) as u64;
/// Offset of the number of blocks of versions.
pub(crate) const VERSION_BLOCKS: u64 = CONTROL + offset_of!(Control, version_blocks) as u64;
/// Offset of the first block of this life.
pub(crate) const LIFE: u64 = CONTROL + offset_of!(Control, life) as u64;

/// Offset of the lock of batches.
pub(crate) const BATCH_LOCK: u64 = CONTROL + offset_of!(Control, batch_lock) as u64;
/// Offset of the number of the last batch that was begun.
pub(crate) const BEGUN: u64 = CONTROL + offset_of!(Control, begun) as u64;
/// Offset of the number of the last batch that counts.
pub(crate) const COMMITTED: u64 = CONTROL + offset_of!(Control, committed) as u64;
/// Offset of the number of the last batch that is done with.
pub(crate) const ENDED: u64 = CONTROL + offset_of!(Control, ended) as u64;
/// Offset of the epoch of the last batch.
pub(crate) const BATCHED: u64 = CONTROL + offset_of!(Control, batched) as u64;
/// Offset of the epoch up to which batches are whole on disk.
pub(crate) const SETTLED: u64 = CONTROL + offset_of!(Control, settled) as u64;

/// Closed cleanly, and not attached for writing since.
pub(crate) const CLEAN_MARK: u64 = 1;
/// In use, and that is on disk.
pub(crate) const IN_USE_MARK: u64 = 0;
/// In use, and whether that is on disk is not known.
pub(crate) const UNSURE_MARK: u64 = 2;
