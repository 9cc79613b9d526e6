//! Recovery: the rebuild is the crate's own.

#[path = "../stand_in/adopt.rs"]
pub(crate) mod adopt;
#[path = "../stand_in/evidence.rs"]
pub(crate) mod evidence;
#[path = "../../../src/recovery/rebuild.rs"]
pub(crate) mod rebuild;
