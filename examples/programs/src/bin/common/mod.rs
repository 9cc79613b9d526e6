//! What the programs share, beside what all examples share (`writers`): `arguments` (the command line),
//! `program` (which of its processes this one is), `deaths` (workers killed at random), `memory` (stores in
//! memory, by names of their own), `words` (bare shared memory, for what is counted or acknowledged without a
//! system call) and `scratch` (a directory that is gone afterwards).

#![allow(dead_code, reason = "each program uses a part of this")]

pub(crate) mod arguments;
pub(crate) mod deaths;
pub(crate) mod memory;
pub(crate) mod program;
pub(crate) mod scratch;
pub(crate) mod words;
#[path = "../../../../common/mod.rs"]
mod writers;

#[allow(unused_imports, reason = "each program uses a part of this")]
pub(crate) use writers::{Failure, WRITER, Writer, check, wait_for_release};
