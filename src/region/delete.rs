//! Deleting one record, for the owner of a region's lock.

use crate::error::Result;
use crate::fault::{self, Fault};
use crate::file::seat;
use crate::format::epoch::Epoch;
use crate::format::slot::{Address, Header};
use crate::protocol::index::store_entry;
use crate::protocol::slot::{bury, publish, retract};
use crate::region::Trouble;
use crate::region::find::{Found, Place};
use crate::region::head::{Region, add, count};
use crate::region::slots::{FreeSlot, SlotQueue};
use crate::sys::step::step;

impl Region<'_> {
    /// Deletes a record that is found by `address`.
    ///
    /// If no earlier version of the record can be on disk, its slot is scrubbed, and that is all. If one can be there, a loss
    /// of power could keep the earlier version and lose this one. So this version stays, as its own tombstone, until the slots
    /// of the earlier ones were freed in an epoch that is on disk.
    ///
    /// A lone version stays too. The scrub of the previous version may not be on disk yet; this slot masks that version.
    pub(crate) fn delete(&self, hash: u64, id: u64, address: Address) -> Result<bool, Trouble> {
        let Found::Hit { mut place, slot, header } = self.find(hash, id)? else {
            return Ok(false);
        };
        if header.address() != address && self.is_whole(slot) {
            return Ok(false);
        }
        let epoch = self.arena.epoch()?;
        let is_needed =
            header.is_lone() && header.epoch() > self.arena.durable()? && !fault::on(Fault::LoneDeleted);
        if is_needed {
            self.ensure_linked()?;
        }
        // The hint may be out of date: `oldest_moment` lowers it.
        let pinned = seat::may_have_moment(self.arena) && seat::oldest_moment(self.arena)?.is_some();
        let may_come_back = is_needed || self.is_linked()? && self.older_may_come_back()?;
        // A damaged version can't be its own tombstone: its `seq` may be the damaged part.
        if pinned || may_come_back && !self.is_whole(slot) {
            return self.delete_with_tombstone(hash, id, address, epoch);
        }
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        let bury_it = may_come_back && !fault::on(Fault::NoTombstone);
        let intent = self.begin_delete(id, slot, &place);
        if bury_it {
            bury(words)
        } else {
            retract(words)
        }
        self.afterwards(|| {
            self.remove_entry(&mut place)?;
            if bury_it { self.push(SlotQueue::Retired, slot, epoch.number()) } else { self.release(slot) }
        });
        self.tell_deleted(id, None, address);
        intent.end();
        self.afterwards(|| self.clear_markers());
        step("delete: done");
        Ok(true)
    }

    /// Deletes a record by a tombstone in a slot of its own. The version is kept as a replaced one is: a snapshot may still
    /// read it.
    fn delete_with_tombstone(
        &self,
        hash: u64,
        id: u64,
        address: Address,
        epoch: Epoch,
    ) -> Result<bool, Trouble> {
        self.ensure_linked()?;
        let seq = self.next_seq(1)?;
        let candidate = self.candidate(0)?;
        let Found::Hit { mut place, slot, .. } = self.find(hash, id)? else {
            return Ok(false);
        };
        let FreeSlot { slot: new, words, .. } = candidate;
        self.begin_unnoted();
        self.take(&candidate)?;
        self.set_next_seq(seq + 1);
        publish(words, Header::record(seq, id, epoch, 0).tombstone(), &[]);
        self.afterwards(|| {
            self.remove_entry(&mut place)?;
            self.push(SlotQueue::Retired, slot, epoch.number())?;
            self.push(SlotQueue::Retired, new, epoch.number())
        });
        self.tell_deleted(id, Some(seq), address);
        self.end();
        self.afterwards(|| self.clear_markers());
        step("delete: done, with a tombstone");
        Ok(true)
    }

    /// Takes a record's entry out of the index.
    pub(super) fn remove_entry(&self, place: &mut Place<'_>) -> Result<(), Trouble> {
        let marker = place.without(&self.shape());
        store_entry(place.words, &mut place.line, place.entry, marker);
        step("delete: record invisible");
        add(self.head.live(), -1)?;
        if marker != 0 { add(self.head.markers(), 1) } else { Ok(()) }
    }

    /// Moves the index to another table if too many entries are marked deleted.
    #[inline]
    pub(super) fn clear_markers(&self) -> Result<(), Trouble> {
        let shape = self.shape();
        if count(self.head.markers())? <= shape.entries() >> 3 {
            return Ok(());
        }
        match self.move_index(shape.lines_log2) {
            // The table works without the move, so a full disk is no reason to fail.
            Err(Trouble::Error(_)) => Ok(()),
            moved => moved,
        }
    }
}
