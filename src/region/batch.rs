//! The members of an atomic batch that lie in one region, for the region's owner. The numbered steps
//! are in the chapter on the protocol.

use crate::error::Error;
use crate::file::arena::Arena;
use crate::file::grow::next_lines_log2;
use crate::file::seat;
use crate::file::survey::{SlotState, survey};
use crate::format::epoch::Epoch;
use crate::format::index::Shape;
use crate::format::region::{Head, LISTED_MAX};
use crate::format::slot::{Address, Header};
use crate::format::word::Checked;
use crate::protocol::slot::{mark_taken, publish};
use crate::region::Trouble;
use crate::region::find::Found;
use crate::region::head::Region;
use crate::region::slots::{FreeSlot, SlotQueue};
use crate::region::table::load_max;
use crate::sys::atomic::Ordering;
use crate::sys::step::step;

/// A change of one record, as part of a batch.
pub(crate) struct Member<'c> {
    pub(crate) hash: u64,
    pub(crate) id: u64,
    /// Whether the record is found by its id or by a key.
    pub(crate) address: Address,
    /// The bytes to write; `None`: the record is deleted.
    pub(crate) data: Option<&'c [u8]>,
    /// The slot of the member. A deletion of an absent record needs no slot.
    pub(crate) slot: Option<u32>,
    /// The version of the member, once it is written.
    pub(crate) seq: u64,
}

impl Region<'_> {
    /// Step 3: takes the slots and the room that the members will need, so that no later step can be refused. After an error
    /// none of them is taken.
    pub(crate) fn prepare(&self, members: &mut [Member<'_>], epoch: Epoch) -> Result<(), Trouble> {
        let prepared = self.try_prepare(members, epoch);
        // A flaw leaves the region to the rebuild, which frees the slots.
        if let Err(Trouble::Error(_)) = prepared {
            self.give_back(members)?;
        }
        prepared
    }

    fn try_prepare(&self, members: &mut [Member<'_>], epoch: Epoch) -> Result<(), Trouble> {
        let seq = self.next_seq(members.len().max(1) as u64)?;
        let mut needs_links = false;
        let mut live = self.live()?;
        let mut is_needed = Vec::with_capacity(members.len());
        for member in members.iter_mut() {
            (member.slot, member.seq) = (None, 0);
            is_needed.push(match self.find(member.hash, member.id)? {
                Found::Hit { header, slot, .. } => {
                    if header.seq() >= seq && self.is_whole(slot) {
                        return Err(Trouble::Flaw("the next sequence number was used already"));
                    }
                    if header.address() != member.address {
                        match self.check_address(member.id, &header, slot, member.address) {
                            // There is no such record to delete.
                            Err(_) if member.data.is_none() => {
                                is_needed.push(false);
                                continue;
                            }
                            checked => checked?,
                        }
                    }
                    needs_links |= header.is_wanted_after(epoch) || member.data.is_none();
                    true
                }
                Found::Miss(_) => {
                    live += u64::from(member.data.is_some());
                    member.data.is_some()
                }
            });
        }
        if needs_links {
            self.ensure_linked()?;
        }
        if live > load_max(&self.shape()) {
            self.check_live()?;
        }
        while live > load_max(&self.shape()) {
            let lines_log2 = next_lines_log2(&self.shape());
            if lines_log2 <= self.shape().lines_log2 {
                break;
            }
            self.move_index(lines_log2).map_err(|trouble| self.explain_index(trouble))?;
        }
        if live >= self.shape().entries() {
            return Err(Trouble::Flaw("an index without room"));
        }
        // Until `unmark`: what follows is noted in the list of members alone.
        self.begin_unnoted();
        for (member, _) in members.iter_mut().zip(is_needed).filter(|(_, is_needed)| *is_needed) {
            let candidate = self.candidate(member.data.map_or(0, <[u8]>::len))?;
            self.take(&candidate)?;
            let FreeSlot { slot, words, .. } = candidate;
            member.slot = Some(slot);
            // Without this mark a free list that runs in a circle could give the slot again before it is written.
            mark_taken(words);
            if !self.shape().holds(slot) {
                self.widen_index(slot)?;
            }
        }
        step("batch: slots taken");
        Ok(())
    }

    /// Frees the members' slots, written or not. The batch does not count.
    pub(crate) fn give_back(&self, members: &mut [Member<'_>]) -> Result<(), Trouble> {
        for slot in members.iter_mut().filter_map(|member| member.slot.take()) {
            self.free(slot)?;
        }
        self.unmark();
        Ok(())
    }

    /// Notes that the index leads to the members of every batch in the region.
    fn unmark(&self) {
        if self.shape().batch {
            self.set_shape(Shape { batch: false, ..self.shape() });
        }
        self.head.pending().store(0, Ordering::Release);
        self.end();
    }

    /// Step 5: writes the members. No index leads to them; the head tells which versions are members, and readers
    /// find the region marked.
    pub(crate) fn write_members(
        &self,
        members: &mut [Member<'_>],
        epoch: Epoch,
        number: u64,
    ) -> Result<(), Trouble> {
        let mut seq = self.noted_seq()?;
        let slots: Vec<u32> = members.iter().filter_map(|member| member.slot).collect();
        self.head.members().store(slots.len() as u64, Ordering::Relaxed);
        self.head.list_members(&slots);
        // Before the members are written, as for a single write; and before the head notes that there are members.
        self.set_next_seq(seq + slots.len() as u64);
        step("batch: numbers drawn");
        // Release: a reader that sees a member, or the number, sees all of the above.
        self.head.pending().store(number, Ordering::Release);
        step("batch: region noted");
        self.set_shape(Shape { batch: true, ..self.shape() });
        step("batch: region marked");
        for member in members {
            let Some(slot) = member.slot else { continue };
            let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a free slot outside the file"))?;
            let data = member.data.unwrap_or_default();
            let header =
                Header::record(seq, member.id, epoch, data.len()).of_address(member.address).of_batch();
            let header = if member.data.is_none() { header.tombstone() } else { header };
            publish(words, header, data);
            member.seq = seq;
            seq += 1;
        }
        Ok(())
    }

    /// Step 7: makes the members visible. The batch counts, so an error here is left to a rebuild.
    pub(crate) fn show_members(&self, members: &[Member<'_>], epoch: Epoch) {
        for member in members {
            self.afterwards(|| self.show(member, epoch));
            match (member.slot, member.data) {
                (Some(_), Some(_)) => self.tell(member.id, member.seq, member.address),
                (Some(_), None) => self.tell_deleted(member.id, Some(member.seq), member.address),
                (None, _) => {}
            }
        }
        self.unmark();
        self.afterwards(|| self.clear_markers());
        step("batch: region done");
    }

    fn show(&self, member: &Member<'_>, epoch: Epoch) -> Result<(), Trouble> {
        let Some(slot) = member.slot else { return Ok(()) };
        let found = self.find(member.hash, member.id)?;
        if member.data.is_some() {
            let (place, old) = found.replaces()?;
            let before = self.store_visible(place, member.hash, slot);
            return self.count_visible(old, before, epoch);
        }
        let Found::Hit { mut place, slot: old, header } = found else {
            return Err(Trouble::Flaw("a record that is to be deleted is not in the index"));
        };
        self.remove_entry(&mut place)?;
        self.retire(old, &header, epoch)?;
        // The tombstone goes behind the version that it hides. The hint may be out of date: `oldest_moment` lowers it.
        let is_pinned = seat::may_have_moment(self.arena) && seat::oldest_moment(self.arena)?.is_some();
        if is_pinned || self.older_may_come_back()? {
            self.push(SlotQueue::Retired, slot, epoch.number())
        } else {
            self.release(slot)
        }
    }
}

/// A region whose lock the caller holds, and the members that were prepared in it.
pub(crate) type Group<'a, 'c> = (Region<'a>, &'a mut [Member<'c>]);

/// Steps 4 to 7. The caller holds the lock of batches too. After an error nothing has changed.
pub(crate) fn commit(arena: &Arena, groups: &mut [Group<'_, '_>], epoch: Epoch) -> Result<(), Error> {
    let control = arena.control();
    let number = batch_number(arena, control.begun())? + 1;
    control.batched().store(epoch, Ordering::SeqCst);
    control.begun().store(number, Ordering::SeqCst); // Step 4.
    step("batch: begun");
    for n in 0..groups.len() {
        let (region, members) = &mut groups[n];
        if let Err(trouble) = region.write_members(members, epoch, number) {
            if give_back(groups) {
                control.ended().store(number, Ordering::SeqCst);
            }
            return Err(match trouble {
                Trouble::Error(error) => error,
                Trouble::Flaw(what) => arena.damaged(format!("region {}: {what}", groups[n].0.number)),
            });
        }
    }
    step("batch: members written");
    control.committed().store(number, Ordering::SeqCst); // Step 6.
    step("batch: committed");
    for (region, members) in groups.iter() {
        region.show_members(members, epoch);
    }
    control.ended().store(number, Ordering::SeqCst);
    step("batch: ended");
    Ok(())
}

/// Frees the slots of prepared members. Returns whether that went well. If it did not, the next owner of the region
/// rebuilds it.
pub(crate) fn give_back(groups: &mut [Group<'_, '_>]) -> bool {
    let mut all = true;
    for (region, members) in groups {
        if region.give_back(members).is_err() {
            region.mark();
            all = false;
        }
    }
    all
}

/// Runs `read`, and returns its result if no batch was decided meanwhile.
pub(crate) fn between_batches<T>(
    arena: &Arena,
    read: impl FnOnce() -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let committed = batch_number(arena, arena.control().committed())?;
    let found = read()?;
    // This word decides the result of each read (see `look`). If it is unchanged, all reads are on one side of every batch.
    // A reader that has seen a member that counts (Acquire) sees the number that made it count.
    Ok((batch_number(arena, arena.control().committed())? == committed).then_some(found))
}

/// Whether a version in a slot of `region` is a member of a batch that does not count, or not yet.
///
/// For a batch that was cut off, the answer does not change before its members are gone: the number that counts is raised
/// only when no region has members of such a batch (step 1).
pub(crate) fn is_undecided(arena: &Arena, region: u32, header: &Header) -> bool {
    header.is_of_batch()
        && pending(arena, region) > batch_number(arena, arena.control().committed()).unwrap_or(0)
        && is_member(arena.head(region), header)
}

/// Whether a region has members of a batch that does not count, or not yet. It may have if the word in its head is damaged.
pub(crate) fn may_have_undecided(arena: &Arena, region: u32) -> bool {
    let is_damaged = arena.head(region).pending().load(Ordering::Acquire).is_none();
    let committed = batch_number(arena, arena.control().committed()).unwrap_or(0);
    pending(arena, region) > committed || is_damaged && arena.shape(region).batch
}

/// Ensures that no region has members of a batch that does not count: if the number that counts were raised before, they would
/// count too. The caller has the lock of batches, so the owner of that batch is dead. `enter` takes and gives back the lock of
/// a region, even if its owner lives: that owner may be healing the region, and has not decided yet.
pub(crate) fn end_undecided(
    arena: &Arena,
    mut enter: impl FnMut(u32) -> Result<(), Error>,
) -> Result<(), Error> {
    for number in 0..arena.geo.regions {
        if may_have_undecided(arena, number) {
            enter(number)?;
        }
    }
    Ok(())
}

/// The number of the batch that has members in a region to which the region's index does not lead yet; 0: none.
pub(crate) fn pending(arena: &Arena, region: u32) -> u64 {
    // Pairs with the Release store in `write_members`.
    arena.head(region).pending().load(Ordering::Acquire).unwrap_or_else(|| pending_by_mark(arena, region))
}

/// The same where the word in the head is damaged. If the region is marked, it is the last batch that was begun: the next one
/// begins when each region with a damaged word is rebuilt.
#[cold]
fn pending_by_mark(arena: &Arena, region: u32) -> u64 {
    let last = batch_number(arena, arena.control().begun()).unwrap_or(0);
    if arena.shape(region).batch { last } else { 0 }
}

/// Whether a version is one of the batch that the region's head names.
pub(crate) fn is_member(head: Head<'_>, header: &Header) -> bool {
    let members = head.members().load(Ordering::Relaxed).unwrap_or(0);
    header.is_of_batch() && header.seq() >= head.next_seq().load(Ordering::Acquire).saturating_sub(members)
}

/// The member of the batch in a region that changes a record.
pub(crate) enum Listed {
    /// No member changes the record.
    None,
    /// The version in this slot.
    At(u32),
    /// A tombstone.
    Deleted,
    /// Not known without a look at every slot.
    Unknown,
}

/// Looks for a record among the members that the head of a region lists, for a reader that holds no lock.
pub(crate) fn find_member(arena: &Arena, region: u32, id: u64) -> Listed {
    let head = arena.head(region);
    let members = head.members().load(Ordering::Relaxed);
    let Some(members) = members.filter(|&members| members <= LISTED_MAX as u64) else {
        return Listed::Unknown;
    };
    let mut buffer = Vec::new();
    for n in 0..members as usize {
        let Some(slot) = head.listed_member(n) else { return Listed::Unknown };
        let Some(words) = arena.slot(slot) else { return Listed::Unknown };
        // The owner may have completed a deletion already, so that its slot is free.
        let (header, found) = match survey(words, region, &arena.geo, &mut buffer) {
            SlotState::Version(header) => (header, Listed::At(slot)),
            SlotState::Tombstone(header) => (header, Listed::Deleted),
            _ => return Listed::Unknown,
        };
        if !is_member(head, &header) {
            return Listed::Unknown;
        }
        if header.id() == id {
            return found;
        }
    }
    Listed::None
}

/// One of the numbers of batches in the control page.
pub(crate) fn batch_number(arena: &Arena, word: Checked<'_>) -> Result<u64, Error> {
    word.load(Ordering::SeqCst).ok_or_else(|| arena.damaged("the numbers of batches in the control page"))
}
