//! Seats: one per attached handle. A handle holds a seat by a file lock on the seat's byte. The words of a seat are for finding
//! a free one, for moments and borrows, and for people.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use super::PAGE_BYTES;
use crate::format::epoch::Epoch;
use crate::format::word::{Checked, accessors};
use crate::sys::atomic::{AtomicU64, Ordering};

/// Seats in every store.
pub(crate) const SEATS: u32 = 1024;
/// Offset of the first seat.
pub(crate) const SEATS_OFFSET: u64 = 2 * PAGE_BYTES;
/// Bytes of a seat.
pub(crate) const SEAT_BYTES: u64 = size_of::<Layout>() as u64;

/// Words of a seat.
pub(crate) const SEAT_WORDS: usize = size_of::<Layout>() / 8;

/// Words of a seat that count borrows, each a generation of them.
pub(crate) const BORROWS: u32 = 4;

/// A seat's words.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Layout {
    /// Checked (or zero: never claimed): how often the seat was claimed; raised by each claim.
    generation: u64,
    /// `TAKEN` or `LEAVING` from claim to release: a released seat differs from one whose owner died.
    taken: u64,
    /// The owner's process id as it sees itself (low 32 bits), and the number of its PID namespace, or 0 (high 32).
    /// For people.
    pid: u64,
    /// Checked (or zero: none): the epoch whose records the holder still reads.
    moment: u64,
    /// Generations of borrows, each with a check.
    borrows: [u64; BORROWS as usize],
}

const _: () = assert!(size_of::<Layout>() == 64);

/// A seat of a handle that may write.
pub(crate) const TAKEN: u64 = 1;
/// A seat of a handle that is being closed, and writes no more records.
pub(crate) const LEAVING: u64 = 2;

/// Offset of a seat.
pub(crate) const fn offset(seat: u32) -> u64 {
    SEATS_OFFSET + seat as u64 * SEAT_BYTES
}

/// A seat in the file. Its words are private: a method gives each word by its type.
#[derive(Clone, Copy)]
pub(crate) struct Seat<'a>(&'a [AtomicU64; SEAT_WORDS]);

impl<'a> Seat<'a> {
    /// The seat in these words, if they are enough for one.
    #[inline]
    pub(crate) fn of(words: &'a [AtomicU64]) -> Option<Self> {
        words.first_chunk().map(Self)
    }

    accessors! { Layout:
        generation: Checked<'a>,
        taken: &'a AtomicU64,
        pid: &'a AtomicU64,
    }

    #[inline]
    fn moment_word(self) -> &'a AtomicU64 {
        &self.0[offset_of!(Layout, moment) / 8]
    }

    /// The epoch that the holder's oldest snapshot reads, if it has one. A damaged word is as old as can be.
    pub(crate) fn moment(self) -> Option<Epoch> {
        match self.moment_word().load(Ordering::SeqCst) {
            0 => None,
            word => Some(Epoch::decode(word).unwrap_or(Epoch::BEFORE)),
        }
    }

    pub(crate) fn set_moment(self, epoch: Option<Epoch>) {
        self.moment_word().store(epoch.map_or(0, Epoch::encode), Ordering::SeqCst);
    }

    /// A word that counts borrows.
    #[inline]
    pub(crate) fn borrows(self, number: u32) -> BorrowWord<'a> {
        BorrowWord(&self.0[offset_of!(Layout, borrows) / 8 + number as usize])
    }

    /// Whether any word counts a borrow, damaged or not.
    #[inline]
    pub(crate) fn has_borrows(self) -> bool {
        let words = (0..BORROWS).map(|number| self.borrows(number).0.load(Ordering::SeqCst));
        words.fold(0, |all, word| all | word) >> COUNT_AT & BORROWS_MAX != 0
    }

    /// Whether a word is damaged that says which records the holder reads. Not before the claim of the seat is whole.
    pub(crate) fn is_damaged(self) -> bool {
        if self.taken().load(Ordering::SeqCst) == 0 {
            return false;
        }
        let moment = self.moment_word().load(Ordering::SeqCst);
        moment != 0 && Epoch::decode(moment).is_none()
            || (0..BORROWS).any(|number| self.borrows(number).load().is_none())
    }

    /// The generation of the last claim; 0 if there was none, or none that is known.
    pub(crate) fn last_claim(self) -> u32 {
        self.generation().load(Ordering::SeqCst).unwrap_or(0) as u32
    }

    /// Makes the seat one that was never claimed.
    pub(crate) fn forget(self) {
        for at in [offset_of!(Layout, generation), offset_of!(Layout, moment), offset_of!(Layout, taken)] {
            self.0[at / 8].store(0, Ordering::SeqCst);
        }
    }
}

/// A generation of borrows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Generation {
    /// The clock when the first of them began, at most [`CLOCK_MAX`].
    pub(crate) begun: u64,
    /// Their number, at most [`BORROWS_MAX`].
    pub(crate) count: u64,
}

/// Most borrows of a generation.
pub(crate) const BORROWS_MAX: u64 = 0xfff;
/// The highest clock of borrows.
pub(crate) const CLOCK_MAX: u64 = (1 << COUNT_AT) - 1;
const COUNT_AT: u32 = 40;
const CHECK_AT: u32 = 52;
/// The number that one borrow adds to the word: to the count and to the check.
const ONE: u64 = 1 << COUNT_AT | 1 << CHECK_AT;

impl Generation {
    /// No borrows.
    pub(crate) const NONE: Self = Self { begun: 0, count: 0 };

    /// The clock in bits 0 to 39, the count in bits 40 to 51, and in the rest the check: the count, plus the complement of the
    /// exclusive-or of the clock's 12-bit parts. So one subtraction takes a borrow from both, a flipped bit makes the two
    /// disagree, and zeros are no generation.
    #[inline]
    const fn encode(self) -> u64 {
        let begun = self.begun & CLOCK_MAX;
        let parts = begun ^ begun >> 12 ^ begun >> 24 ^ begun >> 36;
        begun | self.count << COUNT_AT | (self.count + (!parts & BORROWS_MAX)) << CHECK_AT
    }

    #[inline]
    const fn decode(word: u64) -> Option<Self> {
        let generation = Self { begun: word & CLOCK_MAX, count: word >> COUNT_AT & BORROWS_MAX };
        if generation.encode() == word { Some(generation) } else { None }
    }
}

/// A word that counts the borrows of a generation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BorrowWord<'a>(&'a AtomicU64);

impl BorrowWord<'_> {
    /// The generation, or `None` if the word is damaged.
    #[inline]
    pub(crate) fn load(self) -> Option<Generation> {
        Generation::decode(self.0.load(Ordering::SeqCst))
    }

    pub(crate) fn store(self, generation: Generation) {
        self.0.store(generation.encode(), Ordering::SeqCst);
    }

    /// Changes `was` to `is`. Returns whether the word was `was`.
    #[inline]
    pub(crate) fn change(self, was: Generation, is: Generation) -> bool {
        self.0.compare_exchange(was.encode(), is.encode(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Makes a damaged word one of the oldest generation, with as many borrows as there can be: it takes no more, and those that
    /// there are can end.
    fn mend(self) {
        let word = self.0.load(Ordering::SeqCst);
        if Generation::decode(word).is_none() {
            let all = Generation { begun: 0, count: BORROWS_MAX }.encode();
            // If it has changed meanwhile, a borrow has ended: another repair mends it.
            let _ = self.0.compare_exchange(word, all, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Takes one borrow from the count. A damaged word stays damaged, or counts more than there are.
    #[inline]
    pub(crate) fn leave(self) {
        self.0.fetch_sub(ONE, Ordering::SeqCst);
    }
}

impl Seat<'_> {
    /// Puts damaged words right that say which records the holder reads. What they said is lost: so they say that it reads
    /// everything, and the slots of all versions are kept until the holder releases the seat.
    pub(crate) fn mend(self) {
        let moment = self.moment_word();
        let word = moment.load(Ordering::SeqCst);
        if word != 0 && Epoch::decode(word).is_none() {
            let oldest = Epoch::BEFORE.encode();
            let _ = moment.compare_exchange(word, oldest, Ordering::SeqCst, Ordering::SeqCst);
        }
        for number in 0..BORROWS {
            self.borrows(number).mend();
        }
    }
}

/// Byte-range file locks lie far behind every file's end, where no data can be.
const LOCKS: u64 = 1 << 61;

/// The byte whose lock holds a seat.
pub(crate) const fn seat_byte(seat: u32) -> u64 {
    LOCKS + seat as u64
}
/// The byte whose lock is held to claim a seat.
pub(crate) const fn claim_byte(seat: u32) -> u64 {
    LOCKS + (1 << 19) + seat as u64
}
/// The byte whose lock makes one waiter the head of a region's queue: it asks most often whether the owner lives.
pub(crate) const fn queue_byte(region: u32) -> u64 {
    LOCKS + (1 << 20) + region as u64
}
/// The byte whose lock is held to extend the file.
pub(crate) const GROWTH_BYTE: u64 = LOCKS + (1 << 30);
/// The byte whose lock is held to flush.
pub(crate) const SYNC_BYTE: u64 = LOCKS + (1 << 30) + 1;
/// The byte whose lock is held to remove the name of a store in memory.
pub(crate) const NAME_BYTE: u64 = LOCKS + (1 << 30) + 2;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_of_a_count_of_borrows_is_seen_and_hides_none_when_they_end() {
        for begun in [0, 1, 0xfff, 0x12_3456_789a, CLOCK_MAX] {
            for count in [0, 1, 2, 0x800, BORROWS_MAX] {
                let generation = Generation { begun, count };
                let word = generation.encode();
                assert_eq!(Generation::decode(word), Some(generation));
                assert!(
                    count == 0
                        || Generation::decode(word.wrapping_sub(ONE))
                            == Some(Generation { begun, count: count - 1 })
                );
                for bit in 0..64 {
                    let mut flipped = word ^ 1 << bit;
                    assert_eq!(Generation::decode(flipped), None, "bit {bit} of {generation:?}");
                    for left in (0..count).rev().take(3) {
                        flipped = flipped.wrapping_sub(ONE);
                        let seen = Generation::decode(flipped);
                        assert!(
                            seen.is_none_or(|seen| seen.count > left),
                            "bit {bit} of {generation:?}: {seen:?}"
                        );
                    }
                }
            }
        }
        assert_eq!(Generation::decode(0), None);
    }
}
