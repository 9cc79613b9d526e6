//! Recovery: the rebuild is the crate's own.

#[path = "../stand_in/adopt.rs"]
pub(crate) mod adopt;
#[path = "../../../src/recovery/rebuild.rs"]
pub(crate) mod rebuild;
