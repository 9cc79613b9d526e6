//! The operating system: shared mapping, file locks, futex, fork. All `unsafe` of the crate is here, except for the calls of
//! `mapping::frozen` and `mapping::exclusive`: the protocol keeps their conditions.

pub(crate) mod atomic;
pub(crate) mod blocks;
pub(crate) mod cells;
pub(crate) mod clock;
pub(crate) mod copy;
pub(crate) mod deadline;
pub(crate) mod file;
pub(crate) mod file_lock;
pub(crate) mod fork;
pub(crate) mod futex;
mod limit;
pub(crate) mod mapping;
pub(crate) mod overlay;
pub(crate) mod process;
pub(crate) mod step;
