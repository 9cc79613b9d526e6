//! Waking watchers.
//!
//! 1. A watcher loads the count of changes and sets its bit in `watched`. Then it looks whether the change that it waits for is
//!    there already. If not, it sleeps on the count as it was loaded.
//! 2. A writer makes its version visible, gives the region's lock back, and then looks at `watched`. Both sides use SeqCst. So
//!    either the writer sees the bit, or the watcher sees the version and the free lock. (A watcher of all records does not
//!    count the last version of a region whose lock is held.) If a bit is set, the writer clears it, raises the count and wakes
//!    all sleepers.
//!
//! If a watcher set its bit before the writer cleared it, the watcher loaded the count before the writer raised it: so the
//! watcher does not sleep. If it set the bit afterwards, the next writer sees the bit. So no wake-up is lost. While there is no
//! watcher, a writer pays one load of a line that is in its cache. The healer of a dead writer's region wakes for it, when the
//! healer gives the lock back.

use crate::file::arena::Arena;
use crate::format::region::Head;
use crate::sys::atomic::Ordering;
use crate::sys::futex;

/// A watcher waits for a change of the region.
pub(crate) const REGION: u64 = 1;
/// A watcher waits for a change of the store.
pub(crate) const STORE: u64 = 2;

/// Step 2, of the region's last owner, when the lock is free.
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
