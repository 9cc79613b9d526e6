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
    /// Generations of borrows: the clock when the first one began (low 48 bits), and how many there are (high 16).
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
    pub(crate) fn borrows(self, number: u32) -> &'a AtomicU64 {
        &self.0[offset_of!(Layout, borrows) / 8 + number as usize]
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

/// Byte-range file locks lie far behind every file's end, where no data can be.
const LOCKS: u64 = 1 << 61;

/// The byte whose lock holds a seat.
pub(crate) const fn seat_byte(seat: u32) -> u64 {
    LOCKS + seat as u64
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
