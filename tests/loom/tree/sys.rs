//! The machine below: `cells` and `copy` are the crate's own, the rest stands in for what a model checker has not.

#[path = "../stand_in/atomic.rs"]
pub(crate) mod atomic;
#[path = "../../../src/sys/cells.rs"]
pub(crate) mod cells;
#[path = "../../../src/sys/copy.rs"]
pub(crate) mod copy;
#[path = "../stand_in/kernel.rs"]
pub(crate) mod file_lock;

pub(crate) mod futex {
    pub(crate) use super::file_lock::wake;
}

/// Random numbers are wanted for damaged seats alone.
pub(crate) mod file {
    pub(crate) fn random() -> std::io::Result<u64> {
        Ok(0)
    }
}

/// Who holds a lock is for people.
pub(crate) mod process {
    pub(crate) fn pid_namespace() -> u32 {
        0
    }

    pub(crate) fn exists(_pid: u32) -> bool {
        true
    }
}

/// A model's owner may die before every store (see `atomic`), so it needs no kill points.
pub(crate) mod step {
    pub(crate) fn step(_name: &'static str) {}
}
