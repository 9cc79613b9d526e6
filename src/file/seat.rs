//! Claiming a seat, asking the kernel whether the holder of another seat lives, and noting the moment that a handle reads.
//!
//! A seat's moment is the epoch that the oldest snapshot of its holder reads: a version that is replaced after it keeps its
//! slot. The hint `moments` in the control page says whether there may be one; without it no seat is looked at: see `hint`.

use std::time::Duration;

use crate::error::{Error, Holder, Lock, Result};
use crate::file::arena::Arena;
use crate::file::hint::{HINT, is_hinted, lower_hint, raise_hint};
use crate::format::epoch::Epoch;
use crate::format::seat::{BORROWS, Generation, LEAVING, SEATS, TAKEN, claim_byte, seat_byte};
use crate::protocol::lock::{self, LockState, Owner};
use crate::sys::atomic::Ordering;
use crate::sys::step::step;
use crate::sys::{file, file_lock, process};

/// Claims a free seat. No lock word names the generation of the claim.
///
/// Asking for a lock is a system call. So at first, seats that say that they are taken are passed over, except one: this way
/// the seats of the dead are used again.
pub(crate) fn claim(arena: &Arena) -> Result<Owner> {
    let mut tried = 0;
    for seat in 0..SEATS {
        if arena.seat(seat).taken().load(Ordering::Relaxed) != 0 {
            tried += 1;
            if tried > 1 {
                continue;
            }
        }
        if let Some(owner) = try_claim(arena, seat)? {
            return Ok(owner);
        }
    }
    for seat in 0..SEATS {
        if let Some(owner) = try_claim(arena, seat)? {
            return Ok(owner);
        }
    }
    // A lock of another kind on the whole file excludes every seat.
    if let Some(pid) = file_lock::foreign_holder(&arena.file, seat_byte(0)) {
        let owner = (pid != 0).then(|| Holder { pid, exists: Some(process::exists(pid)) });
        let (path, waited) = (arena.path.clone(), Duration::ZERO);
        return Err(Error::Busy { path, lock: Lock::Seats, owner, waited });
    }
    Err(Error::TooManyHandles { path: arena.path.clone(), max: SEATS })
}

/// Claims a seat, unless another handle holds it. While the seat's claim byte is locked, no other handle gets the seat. So the new
/// claim is noted before its handle holds the seat, and whoever is stopped in between holds nothing: at no time does the kernel say of
/// an earlier claim's handle that it lives.
fn try_claim(arena: &Arena, seat: u32) -> Result<Option<Owner>> {
    let failed = || arena.io("claiming a seat by a file lock");
    if !file_lock::try_lock(&arena.file, claim_byte(seat)).map_err(failed())? {
        return Ok(None);
    }
    let claimed = claim_alone(arena, seat);
    file_lock::unlock(&arena.file, claim_byte(seat)).map_err(failed())?;
    claimed
}

/// The same, for the handle that has the claim byte.
fn claim_alone(arena: &Arena, seat: u32) -> Result<Option<Owner>> {
    if is_held(arena, seat)? {
        return Ok(None);
    }
    step("seat: to be claimed");
    let words = arena.seat(seat);
    let last = match words.generation().load(Ordering::SeqCst) {
        Some(last) => last as u32,
        // Never claimed in this life of the store, or damaged. Generations begin at a random number, so that no lock word of
        // another life names the new claim: see `forget_claims`.
        None => file::random().map_err(arena.io("drawing a random number"))? as u32,
    };
    let next = last.checked_add(1).unwrap_or(1);
    words.generation().store(u64::from(next), Ordering::SeqCst);
    step("seat: claim noted");
    words.set_moment(None);
    for number in 0..BORROWS {
        words.borrows(number).store(Generation::NONE);
    }
    let locked = file_lock::try_lock(&arena.file, seat_byte(seat));
    if !locked.map_err(arena.io("claiming a seat by a file lock"))? {
        return Ok(None); // A lock of another kind.
    }
    step("seat: held");
    let here = u64::from(std::process::id()) | u64::from(process::pid_namespace()) << 32;
    words.pid().store(here, Ordering::SeqCst);
    words.taken().store(TAKEN, Ordering::SeqCst);
    Ok(Some(Owner { seat, generation: next }))
}

/// Forgets all claims: they are of another life of the store, and their generations may not have reached the disk.
pub(crate) fn forget_claims(arena: &Arena) {
    for seat in 0..SEATS {
        arena.seat(seat).forget();
    }
}

/// Gives a seat back.
pub(crate) fn release(arena: &Arena, owner: Owner) {
    arena.seat(owner.seat).set_moment(None);
    arena.seat(owner.seat).taken().store(0, Ordering::SeqCst);
    step("seat: not taken, and held");
    // Closing the file does it too, unless another process has a duplicate of the descriptor.
    let _ = file_lock::unlock(&arena.file, seat_byte(owner.seat));
}

/// Whether the handle that made this claim lives.
pub(crate) fn is_alive(arena: &Arena, owner: Owner) -> Result<bool> {
    if owner.seat >= SEATS {
        return Ok(false);
    }
    if let Some(own) = arena.owner.filter(|own| own.seat == owner.seat) {
        return Ok(own == owner);
    }
    // If the seat was claimed again, the handle of this claim had died or left. A claim is noted before its handle holds the seat: so
    // the second look tells whose hold the kernel spoke of.
    let claimed_again = || {
        let now = arena.seat(owner.seat).generation().load(Ordering::SeqCst);
        now.is_some_and(|now| now as u32 != owner.generation)
    };
    Ok(!claimed_again() && is_held(arena, owner.seat)? && !claimed_again())
}

/// The living owner that a lock word names; of a damaged word the one whose word it was before one bit was flipped.
pub(crate) fn living_owner(arena: &Arena, word: u64) -> Result<Option<Owner>> {
    match lock::state(word) {
        LockState::Held(owner) => Ok(is_alive(arena, owner)?.then_some(owner)),
        LockState::Damaged => {
            for owner in lock::near(word) {
                if is_alive(arena, owner)? {
                    return Ok(Some(owner));
                }
            }
            Ok(None)
        }
        LockState::Free | LockState::Clean => Ok(None),
    }
}

/// Whether any seat is held by another handle.
pub(crate) fn any_alive(arena: &Arena) -> Result<bool> {
    Ok(first_held(arena, 0)?.is_some())
}

/// Whether any seat is held by another handle that may still write. The caller has the whole-file lock exclusively. So no seat is
/// being claimed: a held one that is not taken is being given back.
pub(crate) fn any_staying(arena: &Arena) -> Result<bool> {
    let mut from = 0;
    while let Some(seat) = first_held(arena, from)? {
        if !matches!(arena.seat(seat).taken().load(Ordering::SeqCst), LEAVING | 0) {
            return Ok(true);
        }
        from = seat + 1;
    }
    Ok(false)
}

/// The first seat from `from` on that another handle holds.
fn first_held(arena: &Arena, from: u32) -> Result<Option<u32>> {
    if from >= SEATS {
        return Ok(None);
    }
    let found = file_lock::first_locked_by_other(&arena.file, seat_byte(from), u64::from(SEATS - from))
        .map_err(arena.io("asking whether a seat is held (F_OFD_GETLK)"))?;
    Ok(found.map(|byte| (byte - seat_byte(0)) as u32))
}

/// The process that claimed a seat last, as the process noted it.
pub(crate) fn holder(arena: &Arena, seat: u32) -> Holder {
    let noted = if seat < SEATS { arena.seat(seat).pid().load(Ordering::Relaxed) } else { 0 };
    let (pid, namespace) = (noted as u32, (noted >> 32) as u32);
    let is_known = namespace != 0 && namespace == process::pid_namespace();
    // A process of another namespace has another number here.
    Holder { pid, exists: is_known.then(|| process::exists(pid)) }
}

/// Notes the current epoch as the moment of `owner`, which has none, and returns it. The caller raises the epoch afterwards, and
/// waits for the writers of the old one: from then on all writers respect the moment.
pub(crate) fn set_moment(arena: &Arena, owner: Owner) -> Result<Epoch> {
    let epoch = arena.epoch()?;
    arena.seat(owner.seat).set_moment(Some(epoch));
    raise_hint(arena.control().moments());
    Ok(epoch)
}

/// Changes the moment to a later epoch, that of the holder's oldest remaining snapshot.
pub(crate) fn move_moment(arena: &Arena, owner: Owner, epoch: Epoch) {
    arena.seat(owner.seat).set_moment(Some(epoch));
}

/// Clears the moment.
pub(crate) fn clear_moment(arena: &Arena, owner: Owner) {
    arena.seat(owner.seat).set_moment(None);
}

/// Whether any seat may have a moment. One load.
#[inline]
pub(crate) fn may_have_moment(arena: &Arena) -> bool {
    is_hinted(arena.control().moments())
}

/// The oldest moment of a living handle. A damaged moment keeps all versions.
pub(crate) fn oldest_moment(arena: &Arena) -> Result<Option<Epoch>> {
    let hint = arena.control().moments().load(Ordering::SeqCst);
    if hint & HINT == 0 {
        return Ok(None);
    }
    let mut oldest: Option<Epoch> = None;
    for seat in 0..SEATS {
        let Some(epoch) = arena.seat(seat).moment() else { continue };
        if is_held(arena, seat)? {
            oldest = Some(oldest.map_or(epoch, |o| o.min(epoch)));
        }
    }
    if oldest.is_none() {
        lower_hint(arena.control().moments(), hint);
    }
    Ok(oldest)
}

/// Seats of living handles with a damaged word of those that say which records the handle reads.
pub(crate) fn damaged_seats(arena: &Arena) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for seat in (0..SEATS).filter(|&seat| arena.seat(seat).is_damaged()) {
        if is_held(arena, seat)? {
            found.push(seat);
        }
    }
    Ok(found)
}

/// Whether a handle holds a seat. The borrows and the moment in the seat are that handle's: a claim clears earlier ones. The
/// kernel tells, because the generation in the seat may be damaged.
pub(crate) fn is_held(arena: &Arena, seat: u32) -> Result<bool> {
    if arena.owner.is_some_and(|own| own.seat == seat) {
        return Ok(true);
    }
    file_lock::is_locked_by_other(&arena.file, seat_byte(seat))
        .map_err(arena.io("asking whether a seat is held"))
}

/// The number of a seat's borrows, and one more for its moment.
pub(crate) fn pins(arena: &Arena, seat: u32) -> u64 {
    let seat = arena.seat(seat);
    let counts = (0..BORROWS).filter_map(|number| seat.borrows(number).load());
    let borrowed: u64 = counts.map(|generation| generation.count).sum();
    borrowed + u64::from(seat.moment().is_some())
}
