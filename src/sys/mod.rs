//! The machine below: shared mapping, file locks, futex, fork. All `unsafe` of the crate is here.

pub(crate) mod atomic;
pub(crate) mod copy;
pub(crate) mod file;
pub(crate) mod file_lock;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod mapping;
pub(crate) mod step;
