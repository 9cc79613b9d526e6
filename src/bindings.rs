//! What bindings to other languages need of the library, and no Rust program does. Not part of the API.

use std::time::Duration;

pub use crate::store::raw_ring::RawRing;

use crate::error::Result;
use crate::record::Version;
use crate::store::queue::Job;
use crate::store::reserve::Reservation;
use crate::store::shared::Shared;
use crate::sys::deadline;

/// Calls of this thread inside of `call` wait for locks at most `patience`, in place of the time-outs of their handles.
///
/// A runtime that must not be kept waiting, with a lock of its own, calls with a patience of zero first. After
/// [`Error::Busy`](crate::Error::Busy) nothing was changed, and it calls again without its own lock. `Store::close` and the
/// calls that take a time-out as an argument keep their own.
pub fn with_patience<T>(patience: Duration, call: impl FnOnce() -> T) -> T {
    deadline::with_patience(patience, call)
}

/// The address of the room of a reservation, for [`Reservation::len`] bytes.
///
/// Code outside of Rust may write there until the reservation is committed or dropped, and no longer: then the bytes are those of a
/// record that others read. A reader of another version that was in the room before may be loading the bytes, word by word. It
/// discards what it loaded. A forked child does not have the memory.
///
/// # Errors
/// As [`Reservation::write_at`].
pub fn room(reservation: &mut Reservation<'_>) -> Result<*mut u8> {
    reservation.address()
}

/// Commits a reservation. After an error it is as it was.
///
/// # Errors
/// As [`Reservation::commit`]. After a commit that succeeded, it must not be committed again.
pub fn commit(reservation: &mut Reservation<'_>) -> Result<Version> {
    reservation.publish()
}

/// Finishes a job. After an error it is as it was.
///
/// # Errors
/// As [`Job::finish`].
pub fn finish(job: &mut Job<'_>) -> Result<bool> {
    job.end()
}

/// Gives a job back. After an error it is as it was.
///
/// # Errors
/// As [`Job::release`].
pub fn release(job: &mut Job<'_>) -> Result<bool> {
    job.give_up()
}

/// Leaves a store in memory before the value is dropped: what was lent stays valid. If there is no other user, the name is free from
/// here on. The store must not be written to afterwards.
pub fn leave(store: &Shared) {
    store.leave();
}
