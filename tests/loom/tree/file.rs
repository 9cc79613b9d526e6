//! The file and its handles: seats, pins and borrows are the crate's own files; the mapped file and its growth are stood in for.

#[path = "../stand_in/arena.rs"]
pub(crate) mod arena;
#[path = "../../../src/file/borrow.rs"]
pub(crate) mod borrow;
#[path = "../stand_in/grow.rs"]
pub(crate) mod grow;
#[path = "../../../src/file/hint.rs"]
pub(crate) mod hint;
#[path = "../../../src/file/pass.rs"]
pub(crate) mod pass;
#[path = "../../../src/file/seat.rs"]
pub(crate) mod seat;
#[path = "../../../src/file/survey.rs"]
pub(crate) mod survey;
