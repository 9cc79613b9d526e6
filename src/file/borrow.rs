//! Borrowing: reading records where they lie, for a while.
//!
//! While a handle has a borrow, no slot is used again whose version was current at any time since the
//! borrow began. A slot that would be free is *parked* instead, with the clock as it is, and freed when
//! every borrow began later (epoch-based reclamation: Fraser, "Practical lock-freedom", 2004; the clock
//! is raised by whoever looks).
//!
//! 1. Who borrows counts itself in its seat, with the clock, and then sets the hint in the control
//!    page (SeqCst); it reads the index afterwards.
//! 2. Who replaces a version stores the index entry (SeqCst) and then looks at the hint: not set means that
//!    whoever borrows from now on sees the new entry.
//! 3. Who finds no borrow of a living handle clears the hint, if it has not changed. Its other bits count
//!    beginnings, so that it never is what it was.
//!
//! With no borrow alive a write pays one load. A dead process's borrows count for nothing.
//!
//! # What piles up
//!
//! A seat has four words, each a *generation* of borrows: their number, and the clock when the first of them began. A borrow
//! joins the youngest generation only if the clock has not moved since that began, or if no word is free; else it begins a
//! generation of its own. So a generation that others have left behind gets no new members, and ends with the longest of
//! its borrows, however many follow one another without a gap, in one thread or in many.
//!
//! 4. The oldest generation is at most as old as its own longest borrow and the longest one of those before it together:
//!    while it takes members beside a clock that moves, the other three words have older borrows in them. What is
//!    parked is what was replaced in that time.

use crate::error::{Error, Result};
use crate::file::arena::Arena;
use crate::file::hint::{HINT, is_hinted, lower_hint, raise_hint};
use crate::file::seat::is_held;
use crate::format::seat::{BORROWS, SEATS};
use crate::protocol::lock::Owner;
use crate::sys::atomic::{AtomicU64, Ordering, fence};

const ONE: u64 = 1 << 48;
const CLOCK_MASK: u64 = ONE - 1;
const MANY: u64 = 0xffff;

/// A borrow of a handle, until it is dropped.
#[derive(Debug)]
pub(crate) struct Borrow<'a> {
    word: &'a AtomicU64,
}

impl<'a> Borrow<'a> {
    /// Step 1.
    #[inline]
    pub(crate) fn begin(arena: &'a Arena, owner: Owner) -> Result<Self> {
        while let Some((word, was, is)) = choose(arena, owner.seat) {
            if word.compare_exchange(was, is, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                raise_hint(arena.control().borrowed());
                fence(Ordering::SeqCst); // The index is read after this.
                return Ok(Self { word });
            }
        }
        Err(Error::TooManyPins { path: arena.path.clone(), max: u64::from(BORROWS) * MANY })
    }
}

impl Drop for Borrow<'_> {
    fn drop(&mut self) {
        self.word.fetch_sub(ONE, Ordering::SeqCst);
    }
}

/// The word of a seat that a borrow which begins now is counted in: as it is, and as it becomes. `None`: all are full.
fn choose(arena: &Arena, seat: u32) -> Option<(&AtomicU64, u64, u64)> {
    let now = clock(arena);
    let mut unused = None;
    let mut youngest: Option<(&AtomicU64, u64)> = None;
    for number in 0..BORROWS {
        let word = arena.seat(seat).borrows(number);
        let is = word.load(Ordering::SeqCst);
        match is >> 48 {
            0 => unused = Some((word, is, ONE | now)),
            MANY => {}
            _ if youngest.is_some_and(|(_, other)| is & CLOCK_MASK <= other & CLOCK_MASK) => {}
            _ => youngest = Some((word, is)),
        }
    }
    // Whoever begins a generation between these looks makes no difference: an older clock keeps more.
    match youngest {
        Some((word, is)) if is & CLOCK_MASK == now || unused.is_none() => Some((word, is, is + ONE)),
        _ => unused,
    }
}

/// Step 2: whether there may be a borrow. One load.
#[inline]
pub(crate) fn may_be_borrowed(arena: &Arena) -> bool {
    is_hinted(arena.control().borrowed())
}

/// The clock now.
pub(crate) fn clock(arena: &Arena) -> u64 {
    arena.control().clock().load(Ordering::SeqCst) & CLOCK_MASK
}

/// Raises the clock, and gives the clock of the oldest borrow of a living handle.
pub(crate) fn oldest(arena: &Arena) -> Result<Option<u64>> {
    arena.control().clock().fetch_add(1, Ordering::SeqCst);
    let hint = arena.control().borrowed().load(Ordering::SeqCst);
    if hint & HINT == 0 {
        return Ok(None);
    }
    let mut oldest: Option<u64> = None;
    for seat in 0..SEATS {
        let of_seat = (0..BORROWS).map(|n| arena.seat(seat).borrows(n).load(Ordering::SeqCst));
        let begun = of_seat.filter(|word| word >> 48 != 0).map(|word| word & CLOCK_MASK).min();
        if let Some(begun) = begun
            && is_held(arena, seat)?
        {
            oldest = Some(oldest.map_or(begun, |o| o.min(begun)));
        }
    }
    if oldest.is_none() {
        lower_hint(arena.control().borrowed(), hint); // Step 3.
    }
    Ok(oldest)
}
