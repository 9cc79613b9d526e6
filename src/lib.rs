//! A persistent, memory-mapped record store that several processes write at once, and that
//! survives their death.
//!
//! A store is one file of records `(id: u64, version, data)`. Any number of processes map it and read and write it side by side.
//! The file is divided into regions. A record's id decides its region, and each region has a lock. Reading takes no lock and makes no
//! system call. Writing takes the lock of one region, by a compare-and-swap. If a process is killed at any instant, even by
//! `kill -9`, no acknowledged write is lost and no other process is blocked: the next process that needs the region heals it.
//!
//! ```
//! # fn main() -> recstore::Result<()> {
//! use recstore::Store;
//!
//! # let path = std::env::temp_dir().join(format!("recstore-lib-{}.rec", std::process::id()));
//! let store = Store::options().record_size(64).open_or_create(&path)?;
//! let version = store.put(7, b"seven")?;
//! assert_eq!(store.get(7)?.unwrap().data(), b"seven");
//! assert_eq!(store.version(7)?, Some(version));
//!
//! // An exact counter, from any number of processes.
//! store.update(1, |old| {
//!     let n = old.map_or(0, |old| u64::from_le_bytes(old.try_into().unwrap()));
//!     Some((n + 1).to_le_bytes())
//! })?;
//! store.close()?;
//! # std::fs::remove_file(path).unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! # The guarantees
//!
//! * A record is all or nothing: at every instant `get` gives a whole version that a process wrote.
//! * A [`Batch`] is all or nothing, and a [`Snapshot`] is the whole store as of one moment.
//! * A write that returned survives the death of any process.
//! * A write before a [`Store::sync`] that returned survives a loss of power.
//! * The kernel's own file locks tell whether the owner of a lock is dead: no time-out, no clock and no process id takes part. A
//!   live owner keeps its lock.
//! * Damage is an error that names the place, never wrong data.
//! * The file grows by itself. A full disk is [`Error::Full`] at the call that needed room.
//!
//! [`design::promises`] lists them with their tests, [`design::limits`] has the limits, and [`design::trouble`] has the errors and
//! what to do about them.
//!
//! # Requirements
//!
//! Linux on a 64-bit little-endian processor; a local file system; no program that shortens the file while it is mapped (this gives
//! SIGBUS, as for every mapping).
//!
//! A program that may write to the file can spoil its content. The content of the file can't break the memory safety of another
//! process: bytes from the mapping are copied, and checked before they are used. There is one exception, which a program has to ask for:
//! [`Pin`] and [`Snapshot::get`] lend `&[u8]` over the mapping itself. They rely on every process writing to the file only by this
//! crate. A process that changes lent bytes in another way causes undefined behavior in the process that looks at them. If such
//! processes are possible, use [`Store::get_into`] and [`Snapshot::get_into`], which copy.
//!
//! # Where to begin
//!
//! 1. [`Store`]: opening; `get`, `put`, `delete`, `update`.
//! 2. [`Options`]: the geometry of a new store, and the behavior of a handle.
//! 3. [`Error`]: the errors, each with the next step.
//! 4. [`Batch`]: several records as one step.
//! 5. [`Snapshot`]: the whole store as of one moment.
//! 6. [`Changes`]: all records, and then every change.
//! 7. [`Space`]: records that are found by keys of any bytes, in place of ids.
//! 8. [`Queue`]: jobs that are done by the processes that claim them.
//!
//! The other types come from a method of these: [`Store::counter`], [`Store::typed`], [`Store::ring`], [`Store::pin`],
//! [`Store::reserve`], [`Store::watch`], [`Store::shared`]. [`mirror`] keeps copies in other places.
//!
//! # Features, compiler, platform
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `cli` | no | the command `recstore` |
//! | `tokio` | no | [`OwnedWatch::changed`](OwnedWatch#method.changed): waiting for a change in a task |
//! | `testing` | no | kill points and faults for the crate's own tests; not for programs |
//!
//! Rust 1.89 or later. Linux, on x86-64 and arm64.
//!
//! # How it works
//!
//! [`design`] is the first page. [`design::glossary`] has the words, and [`design::medium`] the assumptions about disk and kernel.
//! Then come [`design::format`], [`design::protocol`] and [`design::recovery`].

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("recstore runs on Linux on 64-bit little-endian processors");

mod error;
mod fault;
mod file;
mod format;
mod handle;
mod protocol;
mod record;
mod recovery;
mod region;
mod report;
mod store;
mod sys;

/// The crate whose `Pod` the typed records ask for.
pub use bytemuck;
pub use error::{Error, Holder, Lock, Result};
pub use record::{Durability, Record, Swap, Version};
pub use report::{Damage, Missing, Progress, RepairReport, SalvageReport, VerifyReport};
pub use store::Store;
pub use store::batch::{Batch, Commit};
pub use store::cache::{Cache, CacheOptions, CacheStats};
pub use store::changes::{Change, Changes};
pub use store::checkpoint::Checkpoint;
pub use store::copy::Candidate;
pub use store::counter::Counter;
pub use store::extents::{ExtentStats, ExtentUse};
pub use store::handle_id::HandleId;
pub use store::iter::Iter;
pub use store::key_changes::{KeyChange, KeyChanges};
pub use store::key_counter::KeyCounter;
pub use store::key_ring::{KeyRing, KeyTail};
pub use store::key_typed::KeyTyped;
pub use store::key_watch::KeyWatch;
pub use store::modify::Action;
pub use store::options::Options;
pub use store::pin::Pin;
pub use store::queue::{Job, Queue};
pub use store::reserve::Reservation;
pub use store::ring::{Ring, Tail};
pub use store::salvage::{salvage, salvage_with_progress};
pub use store::shape::ValueShape;
pub use store::shared::Shared;
pub use store::snapshot::Snapshot;
pub use store::space::Space;
pub use store::stats::{Attached, ClassStats, LockOwner, RegionStats, Stats, UsedSlots};
pub use store::sweep::{Sweeping, Swept};
pub use store::ttl::{PutOptions, Ttl};
pub use store::typed::{Slices, Typed};
pub use store::watch::{Event, Watch, WatchAll};
pub use store::watch_owned::OwnedWatch;

/// Copies of a store in other places, kept equal while others write: [`Mirror`](mirror::Mirror), over any [`Sink`](mirror::Sink).
///
/// A store stays on one machine. The command `recstore mirror` keeps a bucket of NATS JetStream equal to it, for readers on other
/// machines and against the loss of this one. Here is its machinery, and a second place, a directory of files.
pub mod mirror {
    pub use crate::store::comparison::{Comparison, compare};
    pub use crate::store::directory::{Directory, DirectoryError};
    pub use crate::store::mirror::{Mirror, MirrorError, MirrorStats, Wave};
    pub use crate::store::sink::{Answer, Foreign, KeyState, RecordKey, Sink, Wanted};
}

#[doc = include_str!("design/mod.md")]
pub mod design {
    /// # Glossary
    #[doc = include_str!("design/glossary.md")]
    pub mod glossary {}
    /// # Assumptions about the medium
    #[doc = include_str!("design/medium.md")]
    pub mod medium {}
    /// # Promises
    #[doc = include_str!("design/promises.md")]
    pub mod promises {}
    /// # Limits
    #[doc = include_str!("design/limits.md")]
    pub mod limits {}
    /// # When something goes wrong
    #[doc = include_str!("design/trouble.md")]
    pub mod trouble {}
    /// # Alternatives
    #[doc = include_str!("design/alternatives.md")]
    pub mod alternatives {}
    /// # The file format
    #[doc = include_str!("format/mod.md")]
    pub mod format {}
    /// # The concurrency protocol
    #[doc = include_str!("protocol/mod.md")]
    pub mod protocol {}
    /// # Recovery
    #[doc = include_str!("recovery/mod.md")]
    pub mod recovery {}
}

/// For bindings to other languages. Not part of the API.
#[cfg(feature = "bindings")]
#[doc(hidden)]
pub mod bindings;

/// For the crate's own tests: kill points and faults. Not part of the API.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
