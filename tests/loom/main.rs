//! Model checking: the crate's own protocol, run by `loom` in every order that the memory model allows.
#![cfg(loom)]
#![allow(dead_code, unreachable_pub, reason = "the house under test is larger than what the models call")]

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/fault.rs"]
mod fault;
#[path = "tree/file.rs"]
mod file;
#[path = "tree/format.rs"]
mod format;
#[path = "../../src/protocol/mod.rs"]
mod protocol;
#[path = "tree/recovery.rs"]
mod recovery;
#[path = "tree/region.rs"]
mod region;
#[path = "../../src/report.rs"]
mod report;
#[path = "tree/sys.rs"]
mod sys;

mod explore;
mod models;
