//! A pinned epoch of a handle: its snapshots read the records of that moment.

use std::sync::{Arc, PoisonError};

use crate::error::{Error, Result};
use crate::file::seat;
use crate::format::epoch::Epoch;
use crate::handle::Handle;
use crate::protocol::lock::Owner;

/// A pinned epoch; dropping it takes the pin back.
pub(crate) struct Moment {
    handle: Arc<Handle>,
    owner: Owner,
    pub(crate) epoch: Epoch,
}

impl Moment {
    /// Pins the current epoch. The caller holds the sync lock, so nobody raises the epoch meanwhile.
    pub(super) fn pin(handle: &Arc<Handle>) -> Result<Self> {
        let arena = &handle.arena;
        let owner = arena.owner.ok_or_else(|| Error::ReadOnly { path: arena.path.clone() })?;
        let mut pinned = handle.pinned.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An older pin of the seat stands for this one as well, and all others know of it.
        let epoch = if pinned.is_empty() { seat::set_pin(arena, owner)? } else { arena.epoch()? };
        *pinned.entry(epoch).or_default() += 1;
        drop(pinned);
        Ok(Self { handle: Arc::clone(handle), owner, epoch })
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        let arena = &self.handle.arena;
        if !arena.file.is_surely_ours() {
            return; // A forked child: the pin is the parent's.
        }
        let mut pinned = self.handle.pinned.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshots) = pinned.get_mut(&self.epoch) {
            *snapshots -= 1;
            if *snapshots == 0 {
                pinned.remove(&self.epoch);
            }
        }
        match pinned.first_key_value() {
            Some((&oldest, _)) => seat::move_pin(arena, self.owner, oldest),
            None => seat::clear_pin(arena, self.owner),
        }
    }
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
