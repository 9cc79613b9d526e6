//! Waking those who wait for a change.
//!
//! 1. A watcher loads the count of changes, sets its bit in `watched`, and then looks whether what it
//!    waits for is there already; if not, it sleeps on the count as it was loaded.
//! 2. A writer makes its version visible, gives the region's lock back, and then looks at `watched` (SeqCst on
//!    both sides, so either it sees the bit or the watcher sees the version, and the lock free: who watches
//!    all does not count the last version of a region whose lock is held). If a bit is set: it clears it,
//!    raises the count, wakes all.
//!
//! A bit that was set before it was cleared belongs to a count that was loaded before it was raised,
//! so that watcher does not sleep; a bit that is set afterwards stands for the next writer. So no
//! wake-up is lost, and a writer pays one load of a line that it has at hand while nobody watches.
//! What a dead writer left is told by who rebuilds its region, when it gives the lock back.

use crate::file::arena::Arena;
use crate::format::region::Head;
use crate::sys::atomic::Ordering;
use crate::sys::futex;

/// Somebody waits for a change of the region.
pub(crate) const REGION: u64 = 1;
/// Somebody waits for a change of the store.
pub(crate) const STORE: u64 = 2;

/// Step 2. Called by who was the region's owner, when the lock is free.
#[inline]
pub(crate) fn notify(arena: &Arena, head: Head<'_>) {
    if head.watched().load(Ordering::SeqCst) != 0 {
        wake(arena, head);
    }
}

#[cold]
fn wake(arena: &Arena, head: Head<'_>) {
    let watched = head.watched().swap(0, Ordering::SeqCst);
    if watched & REGION != 0 {
        head.changes().fetch_add(1, Ordering::SeqCst);
        futex::wake(head.changes(), i32::MAX as u32);
    }
    if watched & STORE != 0 {
        let changes = arena.control().changes();
        changes.fetch_add(1, Ordering::SeqCst);
        futex::wake(changes, i32::MAX as u32);
    }
}
