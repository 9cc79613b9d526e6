//! Claiming a seat, and asking the kernel whether another's holder lives.

use crate::error::{Error, Result};
use crate::format::checked;
use crate::format::seat::{SEATS, generation, pid, seat_byte, taken};
use crate::protocol::lock::Owner;
use crate::region::arena::Arena;
use crate::sys::atomic::Ordering;
use crate::sys::{file, file_lock};

/// Claims the first seat that nobody holds. The claim's generation is one that no lock word names.
pub(crate) fn claim(arena: &Arena) -> Result<Owner> {
    for seat in 0..SEATS {
        let free = file_lock::try_lock(&arena.file, seat_byte(seat))
            .map_err(arena.io("claiming a seat by a file lock"))?;
        if !free {
            continue;
        }
        let word = arena.word(generation(seat));
        let last = match (word.load(Ordering::SeqCst), checked::decode(word.load(Ordering::SeqCst))) {
            (_, Some(last)) => last as u32,
            (0, None) => 0,
            // Damaged: any number that was not used is as good as the next one.
            _ => file::random().map_err(arena.io("drawing a random number"))? as u32,
        };
        let next = last.checked_add(1).unwrap_or(1);
        word.store(checked::encode(u64::from(next)), Ordering::SeqCst);
        arena.word(pid(seat)).store(u64::from(std::process::id()), Ordering::SeqCst);
        arena.word(taken(seat)).store(1, Ordering::SeqCst);
        return Ok(Owner { seat, generation: next });
    }
    Err(Error::TooManyHandles { path: arena.path.clone(), max: SEATS })
}

/// Gives a seat back.
pub(crate) fn release(arena: &Arena, owner: Owner) {
    arena.word(taken(owner.seat)).store(0, Ordering::SeqCst);
    // Closing the file does it too, but for descriptors that somebody else duplicated.
    let _ = file_lock::unlock(&arena.file, seat_byte(owner.seat));
}

/// Whether the handle that made this claim lives. `own` is the asking handle's claim.
pub(crate) fn is_alive(arena: &Arena, own: Option<Owner>, owner: Owner) -> Result<bool> {
    if owner.seat >= SEATS {
        return Ok(false);
    }
    if let Some(own) = own.filter(|own| own.seat == owner.seat) {
        return Ok(own == owner);
    }
    // A seat that was claimed again had been left by then.
    let now = checked::decode(arena.word(generation(owner.seat)).load(Ordering::SeqCst));
    if now.is_some_and(|now| now as u32 != owner.generation) {
        return Ok(false);
    }
    file_lock::is_locked_by_other(&arena.file, seat_byte(owner.seat))
        .map_err(arena.io("asking whether a seat is held"))
}

/// Whether any seat is held by another handle.
pub(crate) fn any_alive(arena: &Arena) -> Result<bool> {
    file_lock::any_locked_by_other(&arena.file, seat_byte(0), u64::from(SEATS))
        .map_err(arena.io("asking whether a seat is held"))
}

/// The process id that the holder of a seat noted.
pub(crate) fn pid_of(arena: &Arena, seat: u32) -> u32 {
    if seat < SEATS { arena.word(pid(seat)).load(Ordering::Relaxed) as u32 } else { 0 }
}
