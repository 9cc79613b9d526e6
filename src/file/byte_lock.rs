//! File locks of one byte by which handles exclude each other: the growth byte and the sync byte.
//!
//! The kernel does not say which handle has such a lock. So a handle that takes one notes its claim in the control page.

use crate::error::{Error, Holder, Lock, Result};
use crate::file::arena::Arena;
use crate::file::notice::wait_and_tell;
use crate::file::seat;
use crate::protocol::lock::{self, LockState, Owner};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::deadline::Deadline;
use crate::sys::file_lock;

/// Waits for the file lock of a byte, and notes the claim of this handle in `note`.
pub(crate) fn take(
    arena: &Arena,
    byte: u64,
    lock: Lock,
    note: &AtomicU64,
    deadline: &Deadline,
) -> Result<()> {
    let busy = || {
        let foreign = || file_lock::foreign_holder(&arena.file, byte);
        let foreign = || foreign().map(|pid| Holder { pid, exists: (pid != 0).then_some(true) });
        let owner = noted_holder(arena, note).or_else(foreign);
        Error::Busy { path: arena.path.clone(), lock, owner, waited: deadline.waited() }
    };
    let wait = |deadline: &Deadline| file_lock::lock(&arena.file, byte, deadline);
    match wait_and_tell(arena.notice.as_ref(), deadline, wait, &busy) {
        Ok(true) => {
            note.store(arena.owner.map_or(0, Owner::word), Ordering::SeqCst);
            Ok(())
        }
        Ok(false) => Err(busy()),
        Err(source) => Err(arena.io("waiting for a byte-range lock (F_OFD_SETLK)")(source)),
    }
}

/// Gives the file lock of a byte back.
pub(crate) fn give_back(arena: &Arena, byte: u64, note: &AtomicU64) {
    // The note of another handle stays: that handle has the lock, if this one waited in vain.
    let own = arena.owner.map_or(0, Owner::word);
    let _ = note.compare_exchange(own, 0, Ordering::SeqCst, Ordering::Relaxed);
    // A failure leaves the lock to the kernel, which drops it when the handle is closed.
    let _ = file_lock::unlock(&arena.file, byte);
}

/// The living handle that a note names.
fn noted_holder(arena: &Arena, note: &AtomicU64) -> Option<Holder> {
    match lock::state(note.load(Ordering::SeqCst)) {
        LockState::Held(owner) if seat::is_alive(arena, owner).unwrap_or(false) => {
            Some(seat::holder(arena, owner.seat))
        }
        _ => None,
    }
}
