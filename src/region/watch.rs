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
//! 4. A feed follows the trail of a region (see `protocol::trail`). It sets the bits `FOLLOWED` and `FOLLOWED_LAP` whenever it looks. While one
//!    of them is set, a writer tells each change in the trail before it gives the lock back. Where a lap of the trail begins, the writer
//!    clears one of them, `FOLLOWED_LAP` first. A writer that clears the second one lets the trail jump: nobody has looked for a lap, so all
//!    feeds are behind anyway. So a feed that ends, or whose process dies, costs the writers two laps, and nobody keeps count of feeds.
//! 5. To begin, or when it is behind, a feed loads the count of the trail, sets the bits, and loads the count again, which is its position
//!    if the two are less than a lap apart. (Else a writer may have cleared the bits between.) Then it sees the lock free, or takes it: a
//!    writer that did not see the bits has given the lock back. Then it compares the region. So a change is in the comparison, or in the
//!    trail behind the position, or in both.
//!
//! If a watcher set its bit before the writer cleared it, the watcher loaded the count before the writer raised it: so the
//! watcher does not sleep. If it set the bit afterwards, the next writer sees the bit. So no wake-up is lost. While there is no
//! watcher, a writer pays one load of a line that is in its cache. The healer of a dead writer's region wakes for it, when the
//! healer gives the lock back.

use crate::file::arena::Arena;
use crate::format::region::Head;
use crate::format::slot::Address;
use crate::protocol::trail::{Trail, TrailEntry};
use crate::region::head::Region;
use crate::sys::atomic::Ordering;
use crate::sys::futex;
use crate::sys::step::step;

/// A watcher waits for a change of the region.
pub(crate) const REGION: u64 = 1;
/// A watcher waits for a change of the store.
pub(crate) const STORE: u64 = 2;
/// A watcher waits for a change of one record, at the record's bell.
pub(crate) const BELLS: u64 = 4;
/// A feed follows the region. A writer clears the second bit, and then the first one, where a lap of the trail begins.
pub(crate) const FOLLOWED: u64 = 8;
pub(crate) const FOLLOWED_LAP: u64 = 16;
const IS_FOLLOWED: u64 = FOLLOWED | FOLLOWED_LAP;
/// The bits that a writer leaves when it wakes sleepers.
const STAYS: u64 = BELLS | IS_FOLLOWED;

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
    if watched & !IS_FOLLOWED != 0 {
        wake(arena, head, watched, changed);
    }
}

#[cold]
fn wake(arena: &Arena, head: Head<'_>, watched: u64, changed: Changed) {
    if watched & !STAYS != 0 {
        let watched = head.watched().fetch_and(STAYS, Ordering::SeqCst);
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
fn ring_all(arena: &Arena, head: Head<'_>) {
    let is_watched = head.watched().load(Ordering::SeqCst) & BELLS != 0;
    if is_watched && let Some(bells) = arena.bells() {
        head.watched().fetch_and(!BELLS, Ordering::SeqCst);
        for bell in bells.ring_all() {
            futex::wake(bell, i32::MAX as u32);
        }
    }
}

impl Region<'_> {
    /// Step 4: tells a change that has become visible.
    #[inline]
    pub(crate) fn tell(&self, id: u64, seq: u64, address: Address) {
        if self.is_followed() {
            self.tell_feeds(TrailEntry { id, seq, is_deleted: false, is_keyed: address == Address::Key });
        }
    }

    /// The same of a deletion. `seq`: its own number, if it has one. No feed may take it for a later one: a feed from now on takes all
    /// versions before it to be told.
    #[inline]
    pub(super) fn tell_deleted(&self, id: u64, seq: Option<u64>, address: Address) {
        if self.is_followed() {
            // The last one that was used: not below that of the deleted version, and below that of any later one.
            match seq.or_else(|| self.head.noted_seq().map(|next| next - 1)) {
                Some(seq) => {
                    self.tell_feeds(TrailEntry {
                        id,
                        seq,
                        is_deleted: true,
                        is_keyed: address == Address::Key,
                    });
                }
                None => self.tell_all(),
            }
        }
    }

    /// Whether a feed follows the region. SeqCst: the feed sets its bit before it looks whether the lock is held.
    #[inline]
    fn is_followed(&self) -> bool {
        self.head.watched().load(Ordering::SeqCst) & IS_FOLLOWED != 0
    }

    #[cold]
    fn tell_feeds(&self, entry: TrailEntry) {
        let Some(trail) = self.arena.trail(self.number) else {
            return self.arena.withdraw_trails(); // A feed may believe in them, and waits for this entry.
        };
        let number = trail.write(entry);
        step("feed: entry written");
        let begins_lap = trail.raise(number);
        step("feed: change told");
        if begins_lap {
            let watched = self.head.watched();
            let was = watched.load(Ordering::SeqCst);
            let cleared = if was & FOLLOWED_LAP != 0 { FOLLOWED_LAP } else { FOLLOWED };
            // If the word has changed, a feed has just set the bits.
            let now = was & !cleared;
            let is_cleared = watched.compare_exchange(was, now, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            step("feed: a lap of a trail begins");
            if is_cleared && now & IS_FOLLOWED == 0 {
                trail.jump();
            }
        }
    }

    /// Tells all feeds and watchers that any record of the region may have changed: after a rebuild, and after the death of an owner.
    pub(crate) fn tell_all(&self) {
        match self.arena.trail(self.number) {
            Some(trail) => _ = trail.jump(),
            None => self.arena.withdraw_trails(),
        }
        ring_all(self.arena, self.head);
    }
}

/// Step 5, for a feed that has no position, and step 4 for one that has: sets the bits. Returns the count of the trail from which on
/// all changes are told, but those of a writer that is in the region now. `None`: not known.
pub(crate) fn follow(trail: Trail<'_>, head: Head<'_>) -> Option<u64> {
    let before = trail.count()?;
    if head.watched().load(Ordering::SeqCst) & IS_FOLLOWED != IS_FOLLOWED {
        head.watched().fetch_or(IS_FOLLOWED, Ordering::SeqCst);
    }
    trail.count().filter(|&count| !trail.is_behind(before, count))
}
