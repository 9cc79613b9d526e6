//! The state that the threads of a handle share for flushes, snapshots, room, and writes of threads of its own.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::format::epoch::Epoch;
use crate::sys::atomic::AtomicU64;
use crate::sys::deadline::Deadline;
use crate::sys::file::Witness;

/// The turn to flush, among the threads of a handle.
#[derive(Default)]
pub(crate) struct Turn {
    pub(super) taken: Mutex<bool>,
    pub(super) given_back: Condvar,
    pub(super) witnesses: Mutex<Vec<Witness>>,
    /// This many durable writes of one record do not try to flush everything to gain room.
    pub(super) put_off: AtomicU64,
}

/// The moments of a handle, each with the number of its snapshots. The seat's moment is the oldest one: a version that is
/// replaced after that moment keeps its slot. This includes every version that was current in a later moment.
#[derive(Default)]
pub(crate) struct Moments(pub(super) Mutex<BTreeMap<Epoch, usize>>);

/// The state of each region when the handle last looked for extents to give back.
#[derive(Default)]
pub(crate) struct Room(pub(super) Mutex<Vec<LastLook>>);

#[derive(Clone, Copy, Default)]
pub(crate) struct LastLook {
    /// Free slots that were left.
    pub(super) free: u64,
    /// What the region had, if the look found nothing to give back.
    pub(super) in_vain: Option<Had>,
    /// After a look in vain for a full store: the writes that the region waits for.
    pub(super) wait: u64,
}

/// What a region has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Had {
    /// Free slots, and those in the queue of retired ones.
    pub(super) idle: u64,
    pub(super) live: u64,
    pub(super) next_seq: u64,
}

/// Writes that a thread of the handle's own makes, which a call that closes the handle does not exclude: rounds. A handle that leaves
/// makes no more writes, so it ends them first.
#[derive(Default)]
pub(crate) struct Rounds {
    state: Mutex<RoundsNow>,
    ended: Condvar,
}

#[derive(Default)]
struct RoundsNow {
    is_leaving: bool,
    running: u32,
}

/// A round. It ends when this is dropped.
pub(crate) struct Round<'a>(&'a Rounds);

impl Rounds {
    fn state(&self) -> MutexGuard<'_, RoundsNow> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a round, unless the handle leaves.
    pub(crate) fn begin(&self) -> Option<Round<'_>> {
        let mut now = self.state();
        if now.is_leaving {
            return None;
        }
        now.running += 1;
        Some(Round(self))
    }

    /// Whether the handle leaves: then a round ends before its next write.
    pub(crate) fn is_leaving(&self) -> bool {
        self.state().is_leaving
    }

    /// Lets no round begin, and waits for those that run. Returns whether they ended before the deadline.
    pub(super) fn end(&self, deadline: &Deadline) -> bool {
        let mut now = self.state();
        now.is_leaving = true;
        while now.running > 0 {
            now = match deadline.left() {
                None => self.ended.wait(now).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return false,
                Some(left) => self.ended.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        true
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
        self.0.ended.notify_all();
    }
}
