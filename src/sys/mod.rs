//! The machine below: shared mapping, file locks, futex, fork. All `unsafe` of the crate is here, but for the calls of
//! `mapping::frozen` and `mapping::exclusive`: what they ask for is the protocol's to keep.

pub(crate) mod atomic;
pub(crate) mod blocks;
pub(crate) mod cells;
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
