//! The state that the threads of a handle share for flushes and snapshots.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};

use crate::format::epoch::Epoch;
use crate::sys::atomic::AtomicU64;
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
