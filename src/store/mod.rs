//! The store as its users see it.

use std::sync::Arc;

use crate::handle::Handle;
use crate::report::RepairReport;

/// A handle on a store: a file of records that any number of threads and processes read and write.
///
/// Share one among threads by reference or in an `Arc`; open as many as you like, in one process or
/// in many. Dropping it detaches; [`close`](Self::close) also flushes and marks the store clean.
///
/// Reads take no lock and make no system call. A write takes its region's lock, a compare-and-swap.
///
/// ```
/// # use recstore::Store;
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
/// use std::thread;
///
/// thread::scope(|scope| {
///     for id in 0..4 {
///         let store = &store;
///         scope.spawn(move || store.put(id, format!("of thread {id}")));
///     }
/// });
/// assert_eq!(store.len()?, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # After `fork`
///
/// A child has no part in the stores of its parent. It opens them anew.
///
/// * Every call gives [`Error::Forked`](crate::Error::Forked): of the inherited handle, and of all that was made from it. All of it can be
///   dropped, which does nothing to the parent's.
/// * Bytes that were lent to the parent, by a [`Pin`](crate::Pin) or a [`Snapshot`](crate::Snapshot), are not in the
///   child's memory: to touch them is SIGSEGV. Were they there, they would change under the child. Copy what the child needs
///   before the fork.
/// * The child keeps nothing of the parent's alive: if the parent dies, that is seen at once.
///
/// That holds for `fork`, and for all that is made of it (`daemon`, Python's `os.fork`, [`std::process::Command`]). A
/// child that is made without the handlers of `fork` (`_Fork`, a raw `clone`) has no mapping either, so any call on an
/// inherited handle is SIGSEGV; but it does keep the parent's descriptors, as does a process that got one in another way
/// (`dup` without close-on-exec before an `exec`, `SCM_RIGHTS`). The locks that belong to a descriptor live as long as the
/// last copy of it: the parent's death is not seen before that. [`Error::Busy`](crate::Error::Busy) says so where it names the holder.
pub struct Store {
    pub(crate) handle: Arc<Handle>,
    pub(crate) opened: RepairReport,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.handle.arena.path)
            .field("read_only", &self.is_read_only())
            .finish_non_exhaustive()
    }
}

// rustdoc lists the methods of these modules in this order.

// Opening, one record, and all records.
pub(crate) mod attach;

pub(crate) mod get;

pub(crate) mod put;

pub(crate) mod modify;

pub(crate) mod open;

pub(crate) mod options;

pub(crate) mod iter;

pub(crate) mod read;

// Several records as one.
pub(crate) mod batch;

pub(crate) mod snapshot;

// Other kinds of records, and other ways to them.
pub(crate) mod counter;

pub(crate) mod typed;

pub(crate) mod ring;

pub(crate) mod pin;

pub(crate) mod reserve;

// Shared memory.
pub(crate) mod shared;

// Waiting for changes.
pub(crate) mod watch;

pub(crate) mod changes;

pub(crate) mod handle_id;

// Upkeep.
pub(crate) mod checkpoint;

pub(crate) mod backup;

pub(crate) mod upkeep;

pub(crate) mod salvage;

// Looking inside.
pub(crate) mod stats;

pub(crate) mod extents;

pub(crate) mod inspect;
