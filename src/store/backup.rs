//! Hot backup: a copy of the records as they are at one moment, while others write.
//!
//! The moment is an epoch: it is pinned, then ended. A version that was current then has a stamp of
//! that epoch or an earlier one, stays in its slot while the pin stands, and is the one with the
//! highest `seq` among those of its id.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::protocol::slot::{Seen, read_any};
use crate::region::arena::Arena;
use crate::region::seat;
use crate::region::survey::{SlotState, survey};
use crate::store::Store;
use crate::store::open;
use crate::store::options::Options;

/// Looks at a slot that is being written. What is copied does not change.
const LOOKS: u32 = 1000;

/// The newest version of an id in the pinned epoch.
#[derive(Clone, Copy)]
struct Newest {
    seq: u64,
    slot: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Record,
    Tombstone,
    Damaged(&'static str),
}

impl Store {
    /// Copies all records, as they are at one moment inside of this call, into a new store at `to`;
    /// their number. Others go on writing. The copy has the same geometry and mode, appears whole or
    /// not at all, is on disk, and is marked clean. Versions are given anew in it.
    ///
    /// While it runs, replaced versions keep their slots, so the store may grow by as many.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::Corrupt`] if a record is damaged (repair the store first, or
    /// copy it with `dump` and `load`); [`Error::Full`]; [`Error::ReadOnly`]: a store that nobody
    /// writes to is copied as any file.
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<u64> {
        self.handle.check_writable()?;
        let arena = &self.handle.arena;
        let options = Options::new().allow_network_file_system(true);
        // A handle of its own, for the pin is the seat's.
        let source = open::open_again(&options, arena)?;
        let owner = source.handle.arena.owner.ok_or_else(|| Error::ReadOnly { path: arena.path.clone() })?;
        let metadata = arena.file.metadata().map_err(arena.io("looking at the file"))?;
        let options = Options::new().mode(metadata.permissions().mode() & 0o777);
        let epoch = source.handle.pin_moment(owner)?;
        let mut records = 0;
        let copied = open::create_with(
            &options,
            to.as_ref(),
            &arena.geo,
            Some(|copy: &Store| {
                for region in 0..arena.geo.regions {
                    records += copy_region(&source, copy, region, epoch)?;
                }
                Ok(())
            }),
        );
        seat::clear_pin(&source.handle.arena, owner);
        copied.map(|()| records)
    }
}

fn copy_region(source: &Store, copy: &Store, region: u32, epoch: u64) -> Result<u64> {
    let arena = &source.handle.arena;
    let mut chosen: Vec<(u64, Newest)> = newest_of(arena, region, epoch)?.into_iter().collect();
    chosen.retain(|(_, newest)| newest.state != State::Tombstone);
    chosen.sort_unstable_by_key(|(_, newest)| newest.slot);
    let mut data = Vec::new();
    for (id, newest) in &chosen {
        let damaged = |what| Err(source.corrupt(*id, Some(newest.slot), what));
        if let State::Damaged(what) = newest.state {
            return damaged(what);
        }
        let words = arena.slot(newest.slot).ok_or_else(|| arena.damaged("a slot outside the file"))?;
        match read_any(words, arena.geo.record_size as usize, true, &mut data) {
            Seen::Whole(header) if header.seq == newest.seq => copy.put(*id, &data)?,
            _ => return damaged("it changed while it was copied"),
        };
    }
    Ok(chosen.len() as u64)
}

fn newest_of(arena: &Arena, region: u32, epoch: u64) -> Result<HashMap<u64, Newest>> {
    let mut newest: HashMap<u64, Newest> = HashMap::new();
    let mut buffer = Vec::new();
    for extent in arena.data_extents(region)? {
        for slot in arena.slots_to_read(extent) {
            let Some(words) = arena.slot(slot) else { continue };
            let mut state = SlotState::Moved;
            for _ in 0..LOOKS {
                state = survey(words, region, &arena.geo, &mut buffer);
                if state != SlotState::Moved {
                    break;
                }
                std::hint::spin_loop();
            }
            let (header, state) = match state {
                SlotState::Version(h) => (h, State::Record),
                SlotState::Tombstone(h) => (h, State::Tombstone),
                SlotState::Damaged(h, what) => (h, State::Damaged(what)),
                _ => continue,
            };
            if header.epoch() > epoch {
                continue;
            }
            let this = Newest { seq: header.seq, slot, state };
            let kept = newest.entry(header.id).or_insert(this);
            if kept.seq < this.seq {
                *kept = this;
            }
        }
    }
    Ok(newest)
}
