//! One flipped bit, or one word that lies, in a store that is open and lives on: what was acknowledged stays, or an
//! error says that it may not; no call hangs; `verify` names what a write would refuse; and `repair` leaves a store
//! that works.
//!
//! The words are written to the file behind the store's back: where they lie is worked out anew from the chapter on the
//! format. Each test names the word.

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "lies/file.rs"]
mod file;
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "every_bit/layout.rs"]
mod layout;

#[path = "lies/control.rs"]
mod control;
#[path = "lies/counts.rs"]
mod counts;
#[path = "lies/queues.rs"]
mod queues;
#[path = "lies/sequence.rs"]
mod sequence;
#[path = "lies/superblock.rs"]
mod superblock;
