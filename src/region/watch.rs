//! Waking watchers.
//!
//! 1. A watcher loads the count of changes and sets its bit in `watched`. Then it looks whether the change that it waits for is
//!    there already. If not, it sleeps on the count as it was loaded.
//! 2. A writer makes its version visible, gives the region's lock back, and then looks at `watched`. Both sides use SeqCst. So
//!    either the writer sees the bit, or the watcher sees the version and the free lock. (A watcher of all records does not
//!    count the last version of a region whose lock is held.) If a bit is set, the writer clears it, raises the count and wakes
//!    all sleepers.
//! 3. A watcher of one record sleeps on the record's bell (see `protocol::bell`), and sets the bit `BELLS` after the bell's tag. A writer
//!    that sees this bit looks at the bell of its record, and leaves the bit. If a writer does not know which records it changed, as a
//!    healer does, it clears the bit and rings all bells. Now and then any writer does: the watchers that live set the bit again.
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
/// A watcher waits for a change of one record, at the record's bell.
pub(crate) const BELLS: u64 = 4;

/// A writer that does not find its record watched clears `BELLS` once in so many writes of its region.
const WRITES_BETWEEN: u64 = 1 << 20;

/// The records that the owner of a region's lock has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Any.
    Any,
    /// At most the record with an id of this hash.
    Record(u64),
    /// None, or their watchers are told otherwise.
    None,
}

/// Step 2, of the region's last owner, when the lock is free.
#[inline]
pub(crate) fn notify(arena: &Arena, head: Head<'_>, changed: Changed) {
    let watched = head.watched().load(Ordering::SeqCst);
    if watched != 0 {
        wake(arena, head, watched, changed);
    }
}

#[cold]
fn wake(arena: &Arena, head: Head<'_>, watched: u64, changed: Changed) {
    if watched & !BELLS != 0 {
        let watched = head.watched().fetch_and(BELLS, Ordering::SeqCst);
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
    if watched & BELLS != 0 {
        ring(arena, head, changed);
    }
}

/// Step 3.
fn ring(arena: &Arena, head: Head<'_>, changed: Changed) {
    let Some(bells) = arena.bells() else { return };
    let is_told = match changed {
        Changed::None => true,
        Changed::Any => false,
        Changed::Record(hash) => match bells.ring(hash) {
            Some(bell) => {
                futex::wake(bell, i32::MAX as u32);
                true
            }
            None => !head.next_seq().load(Ordering::Relaxed).is_multiple_of(WRITES_BETWEEN),
        },
    };
    if !is_told {
        ring_all(arena, head);
    }
}

/// Wakes all watchers of single records, if one may wait for a record of the region.
pub(crate) fn ring_all(arena: &Arena, head: Head<'_>) {
    let is_watched = head.watched().load(Ordering::SeqCst) & BELLS != 0;
    if is_watched && let Some(bells) = arena.bells() {
        head.watched().fetch_and(!BELLS, Ordering::SeqCst);
        for bell in bells.ring_all() {
            futex::wake(bell, i32::MAX as u32);
        }
    }
}
