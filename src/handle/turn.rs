//! What the threads of a handle share for flushes and snapshots.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};

use crate::format::epoch::Epoch;
use crate::sys::atomic::AtomicU64;
use crate::sys::file::Witness;

/// Whose turn it is to flush, among the threads of a handle.
#[derive(Default)]
pub(crate) struct Turn {
    pub(super) taken: Mutex<bool>,
    pub(super) given_back: Condvar,
    pub(super) witnesses: Mutex<Vec<Witness>>,
    /// So many writes that are flushed by themselves do not try to flush everything for the sake of room.
    pub(super) put_off: AtomicU64,
}

/// The moments of a handle, each with the number of its snapshots. The seat's moment is the oldest of them:
/// what is replaced after it keeps its slot, so what was current in a later one does too.
#[derive(Default)]
pub(crate) struct Moments(pub(super) Mutex<BTreeMap<Epoch, usize>>);
