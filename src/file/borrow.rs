//! Borrowing: reading records in place, for a while.
//!
//! While a handle has a borrow, a slot whose version was current at any time since the borrow began is not used again. Such a
//! slot is *parked* instead of freed, with the present clock. It is freed when all borrows that began at this clock, or before
//! it, have ended (epoch-based reclamation: Fraser, "Practical lock-freedom", 2004). Each look for the oldest borrow raises the
//! clock.
//!
//! 1. A borrower counts its borrow in its seat, with the clock, and then sets the hint in the control page (SeqCst). It
//!    reads the index afterwards.
//! 2. A writer that replaces a version stores the index entry (SeqCst) and then loads the hint. If the hint is not set, every
//!    later borrow sees the new entry.
//! 3. A look that finds no borrow of a living handle clears the hint, if the hint has not changed. The other bits of the hint
//!    count how often it was set, so no value comes back.
//!
//! While there is no borrow, a write pays one load. A dead process's borrows do not count.
//!
//! # What piles up
//!
//! A seat has four words. Each counts a *generation* of borrows: their number, and the clock when the first of them began. A
//! borrow joins the youngest generation if the clock has not moved since that generation began, or if no word is free.
//! Otherwise it begins a generation of its own. So a generation older than the clock gets no new members while a word is free.
//! It ends with the longest of its borrows, even if borrows follow one another without a gap, in one thread or in many.
//!
//! 4. The oldest generation is at most as old as its own longest borrow and the longest one of those before it together:
//!    while it takes members beside a clock that moves, the other three words have older borrows in them. The parked slots are
//!    those of versions that were replaced in that time.

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

/// A borrow of a handle. Dropping it ends it.
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

/// The word of a seat that counts a borrow which begins now, with its present value and its next one. `None`: all words are
/// full.
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
    // A generation that begins between these loads makes no difference: an older clock keeps more slots.
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

/// Raises the clock, and returns the clock of the oldest borrow of a living handle.
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
