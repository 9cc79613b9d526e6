//! The store: the public types and their methods.

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
/// A child can't use the handles of its parent. It opens the stores anew.
///
/// * Every call on the inherited handle, and on every value that was made from it, gives [`Error::Forked`](crate::Error::Forked).
///   All of them can be dropped. This does not change the parent's.
/// * Bytes that were lent to the parent, by a [`Pin`](crate::Pin) or a [`Snapshot`](crate::Snapshot), are not in the
///   child's memory: to touch them is SIGSEGV. Otherwise they could change under the child. Copy the bytes that the child needs
///   before the fork.
/// * The child keeps no lock of the parent alive: other processes see the parent's death at once.
///
/// This holds for `fork`, and for calls that use it (`daemon`, Python's `os.fork`, [`std::process::Command`]). A child that is made
/// without the handlers of `fork` (`_Fork`, a raw `clone`) does not have the mapping either, so any call on an inherited handle is
/// SIGSEGV. But such a child keeps the parent's descriptors. So does a process that got a descriptor in another way (`dup` without
/// close-on-exec before an `exec`, `SCM_RIGHTS`). The locks of a descriptor live as long as its last copy: other processes do not see
/// the parent's death before that. [`Error::Busy`](crate::Error::Busy) says so when it names the holder.
pub struct Store {
    pub(crate) handle: Arc<Handle>,
    pub(crate) opened: RepairReport,
    pub(crate) clock: clock::Clock,
    pub(crate) broom: sweep::Broom,
    #[cfg(feature = "tokio")]
    pub(crate) bridge: bridge::BridgeSlot,
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

pub(crate) mod replaced;
pub(crate) mod snapshot;

// Records that are found by keys.
pub(crate) mod space;

pub(crate) mod entry;

pub(crate) mod expiry;

pub(crate) mod ttl;

pub(crate) mod sweep;

pub(crate) mod clock;

pub(crate) mod key_reads;

pub(crate) mod key_watch;

pub(crate) mod key_changes;

pub(crate) mod queue;

pub(crate) mod shape;

pub(crate) mod key_counter;

pub(crate) mod key_typed;

pub(crate) mod cache;

pub(crate) mod cache_usage;

pub(crate) mod cache_stamps;

pub(crate) mod cache_sample;

pub(crate) mod raw_ring;

pub(crate) mod key_ring;

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

pub(crate) mod watch_owned;

#[cfg(feature = "tokio")]
pub(crate) mod bridge;

pub(crate) mod changes;

pub(crate) mod handle_id;

// Copies elsewhere.
pub(crate) mod sink;

pub(crate) mod comparison;
pub(crate) mod mirror;
pub(crate) mod mirror_source;

pub(crate) mod directory;

// Upkeep.
pub(crate) mod checkpoint;

pub(crate) mod periodic;

pub(crate) mod backup;

pub(crate) mod copy;

pub(crate) mod upkeep;

pub(crate) mod salvage;

// Looking inside.
pub(crate) mod stats;

pub(crate) mod extents;

pub(crate) mod inspect;
