//! The control page: the words of the store as a whole. One cache line per purpose.

use bytemuck::{Pod, Zeroable};

use super::epoch::Epoch;
use super::slot::BLOCKS_MAX;
use super::word::{Checked, EpochWord, accessors};
use super::{PAGE_BYTES, checked};
use crate::sys::atomic::{AtomicU64, Ordering};

/// Offset of the control page.
pub(crate) const CONTROL: u64 = PAGE_BYTES;

/// Words of the control page that are used.
pub(crate) const CONTROL_WORDS: usize = size_of::<Layout>() / 8;

/// The control page's words. "Checked" words are encoded by [`super::checked`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Layout {
    // Line 0: read by every write, changed by `sync`.
    /// Checked: the current epoch; every write is stamped with it.
    epoch: u64,
    /// Checked: everything stamped with this epoch or an earlier one is on disk.
    durable: u64,
    pad0: [u64; 6],
    // Line 1: read at open.
    /// The boot (as two words) during which the store was last attached for writing; all ones: not known.
    boot: [u64; 2],
    /// Whether the store is in use: see [`Mark`].
    mark: u64,
    /// Checked: units of the file that were in use when it last grew. A shorter file was cut off.
    units: u64,
    /// Checked: the same, as of the last flush: even a loss of power leaves as many.
    durable_units: u64,
    /// Continuity (see `file::continuity`): the mount through which the last users saw the file; 0: not known.
    mount: u64,
    /// Continuity: a hash of the file's device, inode and the inode's birth.
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
    /// Checked: a number for the device and inode of that file.
    blocks_of: u64,
    pad2: [u64; 1],
    // Line 3: moments and borrows.
    /// Hint: unless the low 16 bits are all clear, a seat may have a moment. The rest counts, so that no value repeats.
    moments: u64,
    /// Hint: unless the low 16 bits are all clear, a seat may have a borrow. The rest counts, so that no value repeats.
    borrowed: u64,
    /// Checked: the clock of borrows: raised by each look for the oldest borrow.
    clock: u64,
    /// Checked: its twin, which is raised after it.
    clock_twin: u64,
    pad3: [u64; 4],
    // Line 4: watchers of the whole store.
    /// Raised by a write that finds the store watched.
    changes: u64,
    /// Checked, or 0: the place of the bells: see `format::board`.
    bells: u64,
    /// Checked, or 0: the place of the trails, likewise.
    trails: u64,
    pad4: [u64; 5],
    // Line 5: the type of the records.
    /// Hash of the type of the records; 0: any.
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
    /// Checked: the number of the last batch that has ended.
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
    // And the room that is given back.
    /// Changed whenever an extent was given back, and before a place in the file, or slot numbers, are used again: see
    /// `file::numbers`.
    layout: u64,
    /// Checked: the epoch in which an extent was given back last. Its room is used again when that epoch is on disk.
    given_back: u64,
    /// Checked: the group behind those of all extents that there were since the store was recovered last.
    groups: u64,
    pad7: [u64; 3],
}

const _: () = assert!(size_of::<Layout>() == 512);

/// The control page in the file. Its words are private: a method gives each word by its type. The layout explains the words.
#[derive(Clone, Copy)]
pub(crate) struct Control<'a>(&'a [AtomicU64; CONTROL_WORDS]);

impl<'a> Control<'a> {
    /// The control page that begins with these words, if they are enough for one.
    #[inline]
    pub(crate) fn of(words: &'a [AtomicU64]) -> Option<Self> {
        words.first_chunk().map(Self)
    }

    accessors! { Layout:
        epoch: EpochWord<'a>,
        durable: EpochWord<'a>,
        mark: MarkWord<'a>,
        units: Checked<'a>,
        durable_units: Checked<'a>,
        flushes: &'a AtomicU64,
        durable_writes: &'a AtomicU64,
        flush_failed: &'a AtomicU64,
        grower: &'a AtomicU64,
        flusher: &'a AtomicU64,
        blocks: Checked<'a>,
        blocks_of: Checked<'a>,
        moments: &'a AtomicU64,
        borrowed: &'a AtomicU64,
        clock: Checked<'a>,
        clock_twin: Checked<'a>,
        changes: &'a AtomicU64,
        bells: &'a AtomicU64,
        trails: &'a AtomicU64,
        type_tag: &'a AtomicU64,
        durable_tag: &'a AtomicU64,
        batch_lock: &'a AtomicU64,
        begun: Checked<'a>,
        committed: Checked<'a>,
        ended: Checked<'a>,
        batched: EpochWord<'a>,
        settled: EpochWord<'a>,
        version_blocks: Checked<'a>,
        life: Checked<'a>,
        layout: &'a AtomicU64,
        given_back: EpochWord<'a>,
        groups: Checked<'a>,
    }

    /// The three numbers of batches: begun, committed, ended.
    pub(crate) fn batch_numbers(self) -> [Checked<'a>; 3] {
        [self.begun(), self.committed(), self.ended()]
    }

    /// The clock of borrows and its twin.
    #[inline]
    pub(crate) fn clocks(self) -> [Checked<'a>; 2] {
        [self.clock(), self.clock_twin()]
    }

    /// The number of blocks of versions given out, or `None` if the word is damaged or the number is impossible.
    pub(crate) fn blocks_given_out(self) -> Option<u64> {
        self.version_blocks().load(Ordering::SeqCst).filter(|blocks| (1..BLOCKS_MAX).contains(blocks))
    }

    /// The boot, mount and file through which the last users saw the store.
    pub(crate) fn seen_through(self) -> SeenThrough {
        let [boot, second, mount, file] = self.seen_words().map(|word| word.load(Ordering::SeqCst));
        SeenThrough { boot: [boot, second], mount, file }
    }

    /// Notes the boot, mount and file through which the store is seen.
    pub(crate) fn set_seen_through(self, seen: &SeenThrough) {
        let [boot, second] = seen.boot;
        for (word, now) in self.seen_words().into_iter().zip([boot, second, seen.mount, seen.file]) {
            word.store(now, Ordering::SeqCst);
        }
    }

    fn seen_words(self) -> [&'a AtomicU64; 4] {
        let boot = std::mem::offset_of!(Layout, boot);
        [boot, boot + 8, std::mem::offset_of!(Layout, mount), std::mem::offset_of!(Layout, file)]
            .map(|at| &self.0[at / 8])
    }

    /// The names of the checked words that are damaged now. These words are checked from the creation of a store on.
    pub(crate) fn damaged_words(self) -> impl Iterator<Item = &'static str> {
        let number = |word: Checked<'_>| word.load(Ordering::SeqCst).is_none();
        let epoch = |word: EpochWord<'_>| word.load(Ordering::SeqCst).is_none();
        [
            ("epoch", epoch(self.epoch())),
            ("durable epoch", epoch(self.durable())),
            ("number of units", number(self.units())),
            ("number of durable units", number(self.durable_units())),
            ("number of the batch that was begun last", number(self.begun())),
            ("number of the batch that counts last", number(self.committed())),
            ("number of the batch that ended last", number(self.ended())),
            ("epoch of the last batch", epoch(self.batched())),
            ("epoch of the last settled batch", epoch(self.settled())),
            ("clock of borrows", number(self.clock())),
            ("twin of the clock of borrows", number(self.clock_twin())),
            ("number of blocks of versions", self.blocks_given_out().is_none()),
            ("first block of versions of this life", number(self.life())),
            ("epoch in which room was given back last", epoch(self.given_back())),
            ("number of groups of slots", number(self.groups())),
        ]
        .into_iter()
        .filter_map(|(name, is_damaged)| is_damaged.then_some(name))
    }
}

/// The boot, mount and file through which a store is seen: see `file::continuity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenThrough {
    /// The boot of the kernel.
    pub(crate) boot: [u64; 2],
    /// The mount; 0: not known.
    pub(crate) mount: u64,
    /// Device, inode and birth of the file, hashed.
    pub(crate) file: u64,
}

/// Whether a store is in use, as far as that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// In use, and that is on disk.
    InUse,
    /// Closed cleanly, and not attached for writing since.
    Clean,
    /// In use, and whether that is on disk is not known.
    Unsure,
}

/// The words of the marks. No two are near each other, so a few flipped bits never make a store clean that is in use.
const CLEAN: u64 = 1;
const IN_USE: u64 = 0x5ac3_96e1_2d78_b40e;
const UNSURE: u64 = !IN_USE;

/// The word that stores a [`Mark`].
#[derive(Clone, Copy)]
pub(crate) struct MarkWord<'a>(&'a AtomicU64);

impl<'a> From<&'a AtomicU64> for MarkWord<'a> {
    fn from(word: &'a AtomicU64) -> Self {
        Self(word)
    }
}

impl MarkWord<'_> {
    /// The mark, or `None` if the word is damaged.
    pub(crate) fn load(self, order: Ordering) -> Option<Mark> {
        Some(match self.0.load(order) {
            IN_USE => Mark::InUse,
            CLEAN => Mark::Clean,
            UNSURE => Mark::Unsure,
            _ => return None,
        })
    }

    pub(crate) fn store(self, mark: Mark, order: Ordering) {
        let word = match mark {
            Mark::InUse => IN_USE,
            Mark::Clean => CLEAN,
            Mark::Unsure => UNSURE,
        };
        self.0.store(word, order);
    }
}

/// The control page of a new store. Its creator has it in use.
pub(crate) fn empty_control(seen: &SeenThrough) -> [u64; CONTROL_WORDS] {
    let (zero, one) = (checked::encode(0), checked::encode(1));
    bytemuck::cast(Layout {
        epoch: Epoch::FIRST.encode(),
        durable: Epoch::BEFORE.encode(),
        mark: IN_USE,
        boot: seen.boot,
        mount: seen.mount,
        file: seen.file,
        units: zero,
        durable_units: zero,
        begun: zero,
        committed: zero,
        ended: zero,
        batched: zero,
        settled: zero,
        version_blocks: one,
        life: zero,
        given_back: zero,
        groups: zero,
        clock: zero,
        clock_twin: zero,
        ..Layout::zeroed()
    })
}
