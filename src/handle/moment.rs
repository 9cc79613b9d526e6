//! A moment: an epoch that snapshots of a handle read.

use std::sync::{Arc, PoisonError};

use crate::error::{Error, Result};
use crate::file::seat;
use crate::format::epoch::Epoch;
use crate::handle::Handle;
use crate::protocol::lock::Owner;

/// An epoch that a snapshot reads; dropping it takes it back.
pub(crate) struct Moment {
    handle: Arc<Handle>,
    owner: Owner,
    pub(crate) epoch: Epoch,
}

impl Moment {
    /// Begins the moment of a snapshot, in the current epoch. The caller holds the sync lock, so no other process raises the
    /// epoch meanwhile.
    pub(super) fn begin(handle: &Arc<Handle>) -> Result<Self> {
        let arena = &handle.arena;
        let owner = arena.owner.ok_or_else(|| Error::ReadOnly { path: arena.path.clone() })?;
        let mut moments = handle.moments.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An older moment of the seat stands for this one too, and writers already respect it.
        let epoch = if moments.is_empty() { seat::set_moment(arena, owner)? } else { arena.epoch()? };
        *moments.entry(epoch).or_default() += 1;
        drop(moments);
        Ok(Self { handle: Arc::clone(handle), owner, epoch })
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        let arena = &self.handle.arena;
        if !arena.file.is_surely_ours() {
            return; // A forked child: the moment is the parent's.
        }
        let mut moments = self.handle.moments.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshots) = moments.get_mut(&self.epoch) {
            *snapshots -= 1;
            if *snapshots == 0 {
                moments.remove(&self.epoch);
            }
        }
        match moments.first_key_value() {
            Some((&oldest, _)) => seat::move_moment(arena, self.owner, oldest),
            None => seat::clear_moment(arena, self.owner),
        }
    }
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
