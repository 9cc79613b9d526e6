//! Recovery: the rebuild is the crate's own.

#[path = "../../../src/recovery/rebuild.rs"]
pub(crate) mod rebuild;
