//! Faults that the crate's own tests switch on, one at a time, to see that a test catches them.
//! Without the feature `testing` no fault can be switched on, and the compiler removes the checks.

/// A mistake that a change of this crate could make.
#[cfg_attr(not(feature = "testing"), allow(dead_code))]
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "public to the crate's tests"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// None.
    None = 0,
    /// A version that may be the one on disk loses its slot before its successor is on disk.
    ReuseEarly,
    /// A deletion leaves no tombstone where an older version may be on disk.
    NoTombstone,
    /// A tombstone goes before the versions that it hides are gone from the disk.
    TombstoneEarly,
    /// The durable epoch is raised before the flush.
    DurableEarly,
    /// A slot's checksum does not cover its header.
    SumWithoutHeader,
    /// A rebuild picks the version with the lower `seq`.
    LowerSeqWins,
    /// A slot is not scrubbed before it is free.
    NoScrub,
    /// After a loss of power, the part of a batch that is on disk is kept.
    PartOfBatch,
    /// Batches count as whole on disk before the flush.
    SettledEarly,
    /// A version that was flushed by itself loses its slot to one of the same epoch.
    LoneReplaced,
    /// A version that was flushed by itself is deleted without a tombstone.
    LoneDeleted,
    /// Room that was given back is used again before it reads as zeros on disk.
    RoomEarly,
}

/// How growth is refused, where a test has it refused.
#[cfg_attr(not(feature = "testing"), allow(dead_code))]
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "public to the crate's tests"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room.
    Full,
    /// Another process holds the growth lock.
    Busy,
}

/// How the growth that begins now is refused, if it is.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) fn refused_growth() -> Option<Refusal> {
    None
}

/// Whether a file that lies in memory is taken to lie on a disk.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) fn memory_is_disk() -> bool {
    false
}

/// The bits that are taken of the hash of a key.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) fn key_hash_mask() -> u64 {
    u64::MAX
}

/// Whether a rebuild that begins now fails in its look at the slots.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) fn survey_fails() -> bool {
    false
}

/// Whether a fault is switched on.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) fn on(_fault: Fault) -> bool {
    false
}

#[cfg(feature = "testing")]
pub(crate) use switched::{
    fail_surveys, growths_seen, key_hash_mask, memory_is_disk, on, refuse_growth, refused_growth,
    shorten_key_hash, survey_fails, switch, take_memory_for_disk,
};

#[cfg(feature = "testing")]
mod switched {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

    use super::{Fault, Refusal};

    static FAULT: AtomicU32 = AtomicU32::new(0);

    /// Switches a fault on, and the one before off.
    pub(crate) fn switch(fault: Fault) {
        FAULT.store(fault as u32, Ordering::SeqCst);
    }

    thread_local! {
        /// Growths of this thread, the first one that is refused, and how.
        static GROWTHS: Cell<(u64, u64, Option<Refusal>)> = const { Cell::new((0, 0, None)) };
    }

    static KEY_HASH_MASK: AtomicU64 = AtomicU64::new(u64::MAX);

    /// Has so many bits taken of the hash of a key, from here on.
    pub(crate) fn shorten_key_hash(bits: u32) {
        KEY_HASH_MASK.store(u64::MAX.checked_shr(64_u32.saturating_sub(bits)).unwrap_or(0), Ordering::SeqCst);
    }

    /// The bits that are taken of the hash of a key.
    pub(crate) fn key_hash_mask() -> u64 {
        KEY_HASH_MASK.load(Ordering::Relaxed)
    }

    static MEMORY_IS_DISK: AtomicBool = AtomicBool::new(false);

    /// Has files that lie in memory taken to lie on a disk, from here on.
    pub(crate) fn take_memory_for_disk() {
        MEMORY_IS_DISK.store(true, Ordering::SeqCst);
    }

    /// Whether a file that lies in memory is taken to lie on a disk.
    pub(crate) fn memory_is_disk() -> bool {
        MEMORY_IS_DISK.load(Ordering::Relaxed)
    }

    thread_local! {
        static SURVEYS_FAIL: Cell<bool> = const { Cell::new(false) };
    }

    /// Has this thread's rebuilds fail in their look at the slots, or no longer.
    pub(crate) fn fail_surveys(fail: bool) {
        SURVEYS_FAIL.set(fail);
    }

    /// Whether a rebuild that begins now fails in its look at the slots.
    pub(crate) fn survey_fails() -> bool {
        SURVEYS_FAIL.get()
    }

    /// Has this thread's growths refused from the n-th from now on (1 is the next one); `None`: no longer.
    pub(crate) fn refuse_growth(from: u64, how: Option<Refusal>) {
        GROWTHS.set((0, from, how));
    }

    /// Growths of this thread since `refuse_growth`.
    pub(crate) fn growths_seen() -> u64 {
        GROWTHS.get().0
    }

    /// How the growth that begins now is refused, if it is.
    pub(crate) fn refused_growth() -> Option<Refusal> {
        let (seen, from, how) = GROWTHS.get();
        GROWTHS.set((seen + 1, from, how));
        how.filter(|_| seen + 1 >= from)
    }

    /// Whether a fault is switched on.
    pub(crate) fn on(fault: Fault) -> bool {
        FAULT.load(Ordering::Relaxed) == fault as u32
    }
}
