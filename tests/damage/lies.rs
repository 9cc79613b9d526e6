//! One flipped bit, or one word that lies, in a store that is open and lives on: what was acknowledged stays, or an
//! error says that it may not; no call hangs; `verify` names what a write would refuse; and `repair` leaves a store
//! that works.
//!
//! The words are written to the file behind the store's back: where they lie is worked out anew from the chapter on the
//! format. Each test names the word.

#[allow(dead_code, reason = "other tests need more of it")]
mod file;

mod control;
mod counts;
mod extents;
mod lent;
#[cfg(feature = "testing")]
mod lock;
mod queues;
mod sequence;
mod superblock;
