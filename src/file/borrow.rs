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
//! # Damage
//!
//! The clock has a twin, and both have a check. A borrow begins at the lower of the two, and a parked slot is stamped with the higher
//! one. A damaged clock counts as the lowest one for borrows, and as the highest one for parked slots. So one wrong clock keeps more
//! slots, and frees none too early. A damaged count counts as a borrow that began before all others, for as long as its handle is
//! attached.
//!
//! # The number of parked slots
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
use crate::format::seat::{BORROWS, BORROWS_MAX, BorrowWord, CLOCK_MAX, Generation, SEATS, Seat};
use crate::protocol::lock::Owner;
use crate::sys::atomic::{Ordering, fence};

/// A borrow of a handle. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Borrow<'a> {
    word: BorrowWord<'a>,
}

impl<'a> Borrow<'a> {
    /// Step 1.
    #[inline]
    pub(crate) fn begin(arena: &'a Arena, owner: Owner) -> Result<Self> {
        while let Some((word, was, is)) = choose(arena, owner.seat) {
            if word.change(was, is) {
                raise_hint(arena.control().borrowed());
                fence(Ordering::SeqCst); // The index is read after this.
                return Ok(Self { word });
            }
        }
        Err(Error::TooManyPins { path: arena.path.clone(), max: u64::from(BORROWS) * BORROWS_MAX })
    }
}

impl Drop for Borrow<'_> {
    fn drop(&mut self) {
        self.word.leave();
    }
}

/// The word of a seat that counts a borrow which begins now, with its present value and its next one. `None`: all words are
/// full, or damaged.
#[inline]
fn choose(arena: &Arena, seat: u32) -> Option<(BorrowWord<'_>, Generation, Generation)> {
    let seat = arena.seat(seat);
    let now = match clocks(arena) {
        [Some(clock), Some(twin)] => clock.min(twin),
        _ => 0,
    };
    // Nearly always the seat has no borrow, or one in this word that began at the same clock.
    let word = seat.borrows(BORROWS - 1);
    match word.load() {
        Some(is) if is.count == 0 && !seat.has_borrows() => {
            Some((word, is, Generation { begun: now, count: 1 }))
        }
        Some(is) if is.begun == now && (1..BORROWS_MAX).contains(&is.count) => {
            Some((word, is, Generation { count: is.count + 1, ..is }))
        }
        _ => choose_among_all(seat, now),
    }
}

fn choose_among_all(seat: Seat<'_>, now: u64) -> Option<(BorrowWord<'_>, Generation, Generation)> {
    let mut unused = None;
    let mut youngest: Option<(BorrowWord<'_>, Generation)> = None;
    for number in 0..BORROWS {
        let word = seat.borrows(number);
        let Some(is) = word.load() else { continue };
        match is.count {
            0 => unused = Some((word, is, Generation { begun: now, count: 1 })),
            BORROWS_MAX => {}
            _ if youngest.is_some_and(|(_, other)| is.begun <= other.begun) => {}
            _ => youngest = Some((word, is)),
        }
    }
    // A generation that begins between these loads makes no difference: an older clock keeps more slots.
    match youngest {
        Some((word, is)) if is.begun == now || unused.is_none() => {
            Some((word, is, Generation { count: is.count + 1, ..is }))
        }
        _ => unused,
    }
}

/// Step 2: whether there may be a borrow. One load.
#[inline]
pub(crate) fn may_be_borrowed(arena: &Arena) -> bool {
    is_hinted(arena.control().borrowed())
}

/// The clock and its twin; `None`: damaged.
#[inline]
fn clocks(arena: &Arena) -> [Option<u64>; 2] {
    arena.control().clocks().map(|word| word.load(Ordering::SeqCst).map(|clock| clock.min(CLOCK_MAX)))
}

/// The clock with which a slot that is parked now is stamped.
pub(crate) fn clock(arena: &Arena) -> u64 {
    clocks(arena).map(|clock| clock.unwrap_or(CLOCK_MAX)).into_iter().max().unwrap_or(CLOCK_MAX)
}

/// Raises the clock, and returns the clock of the oldest borrow of a living handle.
pub(crate) fn oldest(arena: &Arena) -> Result<Option<u64>> {
    raise(arena);
    let hint = arena.control().borrowed().load(Ordering::SeqCst);
    if hint & HINT == 0 {
        return Ok(None);
    }
    let mut oldest: Option<u64> = None;
    for seat in 0..SEATS {
        if let Some(begun) = begun(arena, seat).min()
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

/// The clocks at which the generations of borrows of a seat began. A damaged generation is the oldest one possible. A seat that is not
/// taken has no borrows, and its words may never have been written.
fn begun(arena: &Arena, seat: u32) -> impl Iterator<Item = u64> {
    let seat = arena.seat(seat);
    let words = (0..BORROWS).map(move |number| seat.borrows(number).load());
    words.filter_map(move |word| match word {
        Some(Generation { count: 0, .. }) => None,
        Some(Generation { begun, .. }) => Some(begun),
        None => (seat.taken().load(Ordering::SeqCst) != 0).then_some(0),
    })
}

/// Repairs a damaged clock. Returns whether one was damaged.
pub(crate) fn mend_clock(arena: &Arena) -> bool {
    let is_damaged = clocks(arena).contains(&None);
    if is_damaged {
        raise(arena);
    }
    is_damaged
}

/// Raises the clock and its twin. If both are damaged, they become later than the beginning of every borrow.
fn raise(arena: &Arena) {
    let known = clocks(arena).into_iter().flatten().max();
    let clock = known.unwrap_or_else(|| (0..SEATS).flat_map(|seat| begun(arena, seat)).max().unwrap_or(0));
    for word in arena.control().clocks() {
        word.raise_to(CLOCK_MAX.min(clock + 1));
    }
}
