//! The stores that are compared, behind one face. Each does the same work in the way that its own
//! documentation recommends for it, with what makes it fast switched on and no promise bent beyond what
//! [`Peer::promise`] says.

mod dashmap;
#[cfg(feature = "fjall")]
mod fjall;
mod floor;
mod lmdb;
mod recstore;
mod redb;
mod sqlite;
#[cfg(feature = "tdb")]
mod tdb;

use std::path::Path;

use crate::data::Source;

/// A store, opened.
pub trait Db: Sync {
    /// What one thread works through.
    fn session(&self) -> Box<dyn Session + '_>;
    /// Flushes since it was created, if it counts them.
    fn flushes(&self) -> Option<u64> {
        None
    }
    /// Closes it cleanly: what it has is on disk.
    fn close(self: Box<Self>) {}
    /// Leaves it as a process does that just ends: what was acknowledged is kept, and need not be on disk.
    fn leave(self: Box<Self>) {}
}

/// One thread's view of a store. Every call is complete in itself: a read sees all that was written before, by
/// any process, and a write is acknowledged when the call returns.
pub trait Session {
    /// Loads an empty store in the fastest way there is; `ascending`: the ids come in order.
    fn load(&mut self, source: &mut Source<'_>, ascending: bool);
    /// Copies a record out; whether there is one.
    fn get(&mut self, id: u64, out: &mut Vec<u8>) -> bool;
    /// Gives `each` the records of `ids`.
    fn get_batch(&mut self, ids: &[u64], each: &mut dyn FnMut(u64, &[u8]));
    /// Writes a record, as a commit of its own.
    fn put(&mut self, id: u64, data: &[u8]);
    /// Writes what `source` has in its present batch as one commit, or in one call.
    fn put_batch(&mut self, source: &Source<'_>);
    /// Gives `each` every record.
    fn scan(&mut self, each: &mut dyn FnMut(&[u8]));
    /// Adds 1 to a counter, in a way that loses nothing.
    fn add_one(&mut self, id: u64);
    /// A counter's value.
    fn count(&mut self, id: u64) -> u64;
}

/// A store in one of its modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Recstore,
    Lmdb,
    LmdbMap,
    Redb,
    Sqlite,
    SqliteNormal,
    #[cfg(feature = "tdb")]
    Tdb,
    #[cfg(feature = "fjall")]
    Fjall,
    Dashmap,
    Floor,
}

/// What a benchmark asks of a store when it opens it.
#[derive(Clone, Copy)]
pub struct Ask {
    pub size: usize,
    /// Records; counters have the ids after them.
    pub n: u64,
    /// Every commit is on disk before it returns.
    pub durable: bool,
    pub create: bool,
}

impl Peer {
    pub const ALL: &[Self] = &[
        Self::Recstore,
        Self::Lmdb,
        Self::LmdbMap,
        Self::Redb,
        Self::Sqlite,
        Self::SqliteNormal,
        #[cfg(feature = "tdb")]
        Self::Tdb,
        #[cfg(feature = "fjall")]
        Self::Fjall,
        Self::Dashmap,
        Self::Floor,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Recstore => "recstore",
            Self::Lmdb => "lmdb",
            Self::LmdbMap => "lmdb-map",
            Self::Redb => "redb",
            Self::Sqlite => "sqlite",
            Self::SqliteNormal => "sqlite-normal",
            #[cfg(feature = "tdb")]
            Self::Tdb => "tdb",
            #[cfg(feature = "fjall")]
            Self::Fjall => "fjall",
            Self::Dashmap => "dashmap",
            Self::Floor => "floor",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|peer| peer.name() == name)
    }

    /// What it promises: where nothing else is said, in its relaxed mode.
    pub fn promise(self) -> &'static str {
        match self {
            Self::Recstore => {
                "writes survive kill -9 when they return; many processes write side by side; CRC checked on every \
                 read; durable mode: Durability::Disk"
            }
            Self::Lmdb => {
                "NO_SYNC: writes survive kill -9, a crash of the system may spoil the file; one writer at a time; no \
                 checksum; durable mode: default flags"
            }
            Self::LmdbMap => {
                "NO_SYNC | WRITE_MAP: as lmdb, and a stray pointer spoils the file; durable mode: WRITE_MAP"
            }
            Self::Redb => {
                "Durability::None: what was acknowledged is lost at kill -9, and one process only (threads stand in for \
                 others); one writer at a time; checksums checked at repair; durable mode: Durability::Immediate"
            }
            Self::Sqlite => {
                "WAL, synchronous=OFF: writes survive kill -9, a crash of the system may spoil the file; one writer at \
                 a time; no checksum; durable mode: synchronous=FULL"
            }
            Self::SqliteNormal => {
                "WAL, synchronous=NORMAL: as sqlite, and a crash of the system loses the newest commits at worst; \
                 durable mode: synchronous=FULL"
            }
            #[cfg(feature = "tdb")]
            Self::Tdb => {
                "mutex mode, no transactions: a write that kill -9 cuts off may spoil the file; wiped by its first \
                 opener; no checksum; durable mode: transactions with fsync"
            }
            #[cfg(feature = "fjall")]
            Self::Fjall => {
                "writes survive kill -9 when they return; one process only (threads stand in for others); one writer \
                 at a time; checksums per block; durable mode: PersistMode::SyncData"
            }
            Self::Dashmap => "a map in the memory of one process: neither shared nor kept; a bound",
            Self::Floor => {
                "slots in a bare mapping, addressed by number, CRC and sequence lock each: no index, no growth, no \
                 recovery, a dead writer blocks its slot; a bound"
            }
        }
    }

    /// A bound and not a store to choose: not among those that the best is taken of.
    pub fn is_bound(self) -> bool {
        matches!(self, Self::Dashmap | Self::Floor)
    }

    /// Whether several processes can write it at once; else threads stand in for them.
    pub fn is_shared(self) -> bool {
        !matches!(self.name(), "redb" | "fjall" | "dashmap")
    }

    /// Whether it lives only as long as some process has it open.
    pub fn needs_keeper(self) -> bool {
        self.name() == "tdb"
    }

    /// Whether threads can share a handle.
    pub fn has_threads(self) -> bool {
        self.name() != "tdb"
    }

    /// Whether it outlives the process.
    pub fn is_kept(self) -> bool {
        self != Self::Dashmap
    }

    /// Whether it has a mode in which commits are on disk.
    pub fn has_durable_mode(self) -> bool {
        !self.is_bound() && self != Self::SqliteNormal
    }

    /// Opens the store in the directory `dir`, which is its own.
    pub fn open(self, dir: &Path, ask: Ask) -> Box<dyn Db> {
        match self {
            Self::Recstore => Box::new(recstore::open(dir, ask)),
            Self::Lmdb => Box::new(lmdb::open(dir, ask, false)),
            Self::LmdbMap => Box::new(lmdb::open(dir, ask, true)),
            Self::Redb => Box::new(redb::open(dir, ask)),
            Self::Sqlite => Box::new(sqlite::open(dir, ask, "OFF")),
            Self::SqliteNormal => Box::new(sqlite::open(dir, ask, "NORMAL")),
            #[cfg(feature = "tdb")]
            Self::Tdb => Box::new(tdb::open(dir, ask)),
            #[cfg(feature = "fjall")]
            Self::Fjall => Box::new(fjall::open(dir, ask)),
            Self::Dashmap => dashmap::open(ask),
            Self::Floor => Box::new(floor::open(dir, ask)),
        }
    }
}
