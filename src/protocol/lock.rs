//! The lock word of a region: its owner, and whether a waiter sleeps.
//!
//! A word names one claim of a seat in the whole life of a store: a seat's generation rises with every claim.
//! So a compare-and-swap from a dead owner's word can succeed only once, and its maker repairs the region. A word whose
//! check does not hold is damaged. If it differs in one bit from the word of a living claim, that claim is the owner. Else the
//! word is taken over like a dead owner's.
//!
//! The chapter on the format has the bits of the word (*Region head*). The chapter on the protocol has the numbered steps of
//! taking the lock.

use crate::sys::atomic::{AtomicU64, Ordering};

/// A handle's claim of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) seat: u32,
    pub(crate) generation: u32,
}

/// The word of every region of a store that was closed cleanly and not written to since. The lock is free, and its next owner
/// first notes that the store is in use.
pub(crate) const CLEAN: u64 = Owner { seat: 0x7fe, generation: 0xc1ea_5eed }.word();

/// The state of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockState {
    /// It has no owner.
    Free,
    /// It has no owner, and the store is marked clean: see [`CLEAN`].
    Clean,
    /// This claim owns it.
    Held(Owner),
    /// The protocol writes no such word.
    Damaged,
}

/// Bit 0: a waiter sleeps.
pub(crate) const SLEEPERS: u64 = 1;

const fn check(owner: Owner) -> u64 {
    let mix = crate::format::hash::hash(((owner.generation as u64) << 32) | owner.seat as u64, 0x5eed);
    mix >> 44
}

impl Owner {
    /// The lock word of this claim.
    pub(crate) const fn word(self) -> u64 {
        ((self.generation as u64) << 32) | (check(self) << 12) | ((self.seat as u64 + 1) << 1)
    }
}

/// The state of a lock whose word is `word`.
pub(crate) fn state(word: u64) -> LockState {
    if word == 0 {
        return LockState::Free;
    }
    if word & !SLEEPERS == CLEAN {
        return LockState::Clean;
    }
    let seat = (word >> 1) as u32 & 0x7ff;
    if seat == 0 {
        return LockState::Damaged;
    }
    let owner = Owner { seat: seat - 1, generation: (word >> 32) as u32 };
    if owner.word() == word & !SLEEPERS { LockState::Held(owner) } else { LockState::Damaged }
}

/// The claims whose word differs from `word` in one bit. If a bit was flipped, one of them is the owner. The caller
/// asks which of them lives.
#[cold]
pub(crate) fn near(word: u64) -> impl Iterator<Item = Owner> {
    (1..64).filter_map(move |bit| match state(word ^ 1 << bit) {
        LockState::Held(owner) => Some(owner),
        _ => None,
    })
}

/// Step 1.
#[inline]
pub(crate) fn try_lock(lock: &AtomicU64, own: u64) -> bool {
    lock.compare_exchange(0, own, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

/// Whether the lock has no owner.
pub(crate) fn is_free(lock: &AtomicU64) -> bool {
    matches!(lock.load(Ordering::SeqCst), 0 | CLEAN)
}

/// Step 3: takes the lock from an owner that is known to be dead.
pub(crate) fn take_over(lock: &AtomicU64, dead: u64, own: u64) -> bool {
    lock.compare_exchange(dead, own, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

/// Step 4: notes in the word that a waiter sleeps. Returns whether the lock's word still is `word`.
pub(crate) fn mark_sleeper(lock: &AtomicU64, word: u64) -> bool {
    word & SLEEPERS != 0
        || lock.compare_exchange(word, word | SLEEPERS, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

/// Marks a free lock as that of a clean store. Returns whether its word is that of a clean store now.
pub(crate) fn mark_clean(lock: &AtomicU64) -> bool {
    let marked = lock.compare_exchange(0, CLEAN, Ordering::SeqCst, Ordering::SeqCst);
    marked.is_ok() || marked == Err(CLEAN)
}

/// Makes the lock of a clean store free. The store is marked as in use.
pub(crate) fn leave_clean(lock: &AtomicU64) {
    let _ = lock.compare_exchange(CLEAN, 0, Ordering::SeqCst, Ordering::Relaxed);
}

/// Gives the lock back. Returns whether a waiter sleeps. The exchange is a Release of all stores of the owner (pairs with
/// step 1 of the next owner).
#[inline]
pub(crate) fn unlock(lock: &AtomicU64) -> bool {
    lock.swap(0, Ordering::SeqCst) & SLEEPERS != 0
}

/// Puts the word of the dead owner back, from which the lock was taken: the next owner takes the lock over likewise. Returns
/// whether a waiter sleeps.
pub(crate) fn leave_to(lock: &AtomicU64, dead: u64) -> bool {
    lock.swap(dead & !SLEEPERS, Ordering::SeqCst) & SLEEPERS != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_never_makes_another_owner() {
        for (seat, generation) in [(0, 1), (5, 77), (1023, u32::MAX)] {
            let owner = Owner { seat, generation };
            assert_eq!(state(owner.word()), LockState::Held(owner));
            assert_eq!(state(owner.word() | SLEEPERS), LockState::Held(owner));
            for bit in 1..64 {
                let flipped = owner.word() ^ (1 << bit);
                assert_eq!(state(flipped), LockState::Damaged, "bit {bit}");
                assert!(near(flipped).any(|near| near == owner), "bit {bit}");
            }
        }
        for bit in 0..64 {
            assert_eq!(state(1 << bit), LockState::Damaged);
        }
        assert_eq!(state(CLEAN), LockState::Clean);
        for bit in 1..64 {
            assert_eq!(state(CLEAN ^ (1 << bit)), LockState::Damaged, "bit {bit}");
        }
    }
}

#[cfg(all(test, not(loom)))]
mod word_tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_over_only_from_the_word_that_was_seen() {
        let lock = AtomicU64::new(10);
        assert!(!try_lock(&lock, 30));
        assert!(!take_over(&lock, 20, 30));
        assert_eq!(lock.load(Ordering::Relaxed), 10);
        assert!(take_over(&lock, 10, 30));
        assert_eq!(lock.load(Ordering::Relaxed), 30);
        assert!(!unlock(&lock));
        assert!(try_lock(&lock, 10));
    }

    #[test]
    fn a_sleeper_is_marked_in_the_word_that_it_saw_or_not_at_all() {
        let lock = AtomicU64::new(10);
        assert!(!mark_sleeper(&lock, 20));
        assert_eq!(lock.load(Ordering::Relaxed), 10);
        assert!(mark_sleeper(&lock, 10));
        assert_eq!(lock.load(Ordering::Relaxed), 10 | SLEEPERS);
        assert!(mark_sleeper(&lock, 10 | SLEEPERS));
        assert_eq!(lock.load(Ordering::Relaxed), 10 | SLEEPERS);
        assert!(unlock(&lock));
        assert_eq!(lock.load(Ordering::Relaxed), 0);
    }
}
