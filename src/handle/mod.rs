//! An attached handle: it takes locks, heals the regions of dead owners, flushes, and begins the moments of snapshots.
//!
//! The steps are in the chapter on the protocol.

pub(crate) mod flush;
pub(crate) mod inside;
pub(crate) mod lock;
pub(crate) mod moment;
pub(crate) mod room;
pub(crate) mod turn;

use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::fault;
use crate::file::arena::Arena;
use crate::file::seat;
use crate::handle::inside::FileId;
use crate::handle::turn::{Moments, Room, Rounds, Turn};
use crate::protocol::lock::Owner;
use crate::record::Durability;
use crate::recovery::recover::is_wholly_clean;
use crate::sys::{file, file_lock};

/// An attached handle.
pub(crate) struct Handle {
    pub(crate) arena: Arena,
    /// The lock word of this handle: it names the handle as owner.
    own_word: u64,
    /// Per region, and for batches: a thread of this handle is at the head of the queue.
    queued: Box<[AtomicBool]>,
    pub(crate) verify_reads: bool,
    pub(crate) durability: Durability,
    /// Excludes the handle's threads from the sync byte, which excludes handles.
    pub(crate) flush: Turn,
    /// The moments of the handle's snapshots.
    pub(crate) moments: Moments,
    /// The writes of its own threads.
    pub(crate) rounds: Rounds,
    /// What it saw when it last looked for extents to give back.
    room: Room,
    /// The identity of the store. All handles of one store have the same.
    pub(crate) file_id: FileId,
    /// The file is in memory (tmpfs): a flush has no disk to write to.
    pub(crate) is_in_memory: bool,
}

impl Handle {
    pub(crate) fn new(arena: Arena, verify_reads: bool, durability: Durability) -> Self {
        let queued = (0..=arena.geo.regions).map(|_| AtomicBool::new(false)).collect();
        Self {
            own_word: arena.owner.map_or(0, Owner::word),
            file_id: FileId::of(&arena),
            is_in_memory: arena.file.same().is_ok_and(file::is_in_memory) && !fault::memory_is_disk(),
            arena,
            queued,
            verify_reads,
            durability,
            flush: Turn::default(),
            moments: Moments::default(),
            rounds: Rounds::default(),
            room: Room::default(),
        }
    }

    /// Refuses a handle that was inherited through `fork`. The call that begins knows the layout of the file.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if !self.arena.file.is_ours() {
            return Err(Error::Forked { path: self.arena.path.clone() });
        }
        self.arena.keep_layout()
    }

    /// Refuses a handle that may not write.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check()?;
        if self.arena.owner.is_none() {
            return Err(Error::ReadOnly { path: self.arena.path.clone() });
        }
        Ok(())
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.arena.owner.is_some()
    }

    /// Whether the store was closed cleanly, and not written to since.
    pub(crate) fn is_clean(&self) -> bool {
        is_wholly_clean(&self.arena)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let (Some(owner), true) = (self.arena.owner, self.arena.file.is_surely_ours()) {
            seat::release(&self.arena, owner);
            file_lock::unlock_whole(&self.arena.file);
        }
    }
}
