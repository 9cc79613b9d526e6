//! Rebuilding one region from its slots.
//!
//! The caller holds the region's lock. The numbered steps are in the chapter on recovery.
//!
//! Time: one pass over the region's slots, their checksums included, and a sort of the versions.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::fault::{self, Fault};
use crate::file::grow::Growth;
use crate::file::survey::{SlotState, survey};
use crate::file::{borrow, pass, seat};
use crate::format::epoch::Epoch;
use crate::format::extent::Extent;
use crate::format::index::{FIRST_LINES_LOG2, LINES_LOG2_MAX, Shape};
use crate::format::region::Losses;
use crate::format::slot::{BLOCK_LOG2, BLOCKS_MAX, FIRST_SEQ, Header, PRESENT, begins_block, block_of};
use crate::format::word::Reference;
use crate::protocol::lock::Owner;
use crate::protocol::slot::{Seen, header, publish, read_any, retract, room, scrub};
use crate::recovery::adopt::adopt;
use crate::recovery::evidence;
use crate::region::Trouble;
use crate::region::batch::is_undecided;
use crate::region::decided::took_no_effect;
use crate::region::head::Region;
use crate::region::slots::SlotQueue;
use crate::region::table::load_max;
use crate::report::Damage;
use crate::sys::atomic::Ordering;
use crate::sys::step::step;

/// The cause of a rebuild. It decides which versions may be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The region's owner died: if its last write took no effect, the write is taken back. Damaged versions stay in their slots.
    Death,
    /// A derived part is damaged, or a rebuild was cut off. Damaged versions stay in their slots.
    Process,
    /// The operating system went down: a version that fails its checksum was torn, and is given up.
    OsCrash,
    /// The same, once more: the scrubs of the first rebuild are on disk, so tombstones are freed.
    OsCrashFlushed,
    /// `repair` was called: damaged versions are given up.
    Repair,
}

impl Cause {
    fn is_os_crash(self) -> bool {
        matches!(self, Self::OsCrash | Self::OsCrashFlushed)
    }

    fn leaves_damage(self) -> bool {
        matches!(self, Self::Death | Self::Process)
    }
}

/// The result of a rebuild.
#[derive(Debug, Default)]
pub(crate) struct Rebuilt {
    /// Versions that were given up.
    pub(crate) dropped: Vec<Damage>,
    /// The highest epoch of any version.
    pub(crate) epoch_max: Epoch,
    /// Tombstones that are left, after a crash of the operating system.
    pub(crate) tombstones: u64,
    /// Members of batches that do not count.
    pub(crate) of_lost_batches: u64,
}

impl Rebuilt {
    /// Takes note of a stamp's epoch, if it is credible.
    fn note_epoch(&mut self, epoch: Epoch) {
        if epoch.is_credible() {
            self.epoch_max = self.epoch_max.max(epoch);
        }
    }
}

#[derive(Clone, Copy)]
struct InSlot {
    id: u64,
    seq: u64,
    epoch: Epoch,
    /// It is a lone version: it may have been flushed by itself.
    lone: bool,
    slot: u32,
    state: Holds,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Whole,
    Tombstone,
    Damaged,
}

#[derive(Default)]
struct Slots {
    versions: Vec<InSlot>,
    free: Vec<u32>,
    /// Slots in which a write or a deletion was cut off, or that are parked.
    cut_off: Vec<u32>,
    /// Damaged slots that are given up.
    given_up: Vec<u32>,
    /// Damaged slots that stay as they are.
    damaged: u64,
    /// Records to which the index leads, and that no slot holds.
    gone: u64,
    /// Fewer extents are there than the head counts.
    is_short: bool,
    /// Slots that living handles have reserved.
    reserved: u64,
    extents: u64,
    seq_max: u64,
}

/// What a pass over all regions knows of the one that it rebuilds, so that the rebuild need not look at all extents.
pub(crate) struct Surroundings {
    /// The region's data extents, in order.
    pub(crate) extents: Vec<Extent>,
    /// Its table can be its own: see [`Arena::table_is_sound`](crate::file::arena::Arena::table_is_sound).
    pub(crate) table_is_sound: bool,
}

/// Rebuilds the region. After an error the region is marked, and the next owner begins anew. The mark says that the last write
/// of a dead owner is decided. So after a death only step 3 sets it. If step 3 was not reached, the caller leaves the lock to
/// the dead owner.
pub(crate) fn rebuild(region: &Region<'_>, cause: Cause) -> Result<Rebuilt> {
    rebuild_known(region, cause, None)
}

/// The same, by what is known of the region.
pub(crate) fn rebuild_known(
    region: &Region<'_>,
    cause: Cause,
    known: Option<Surroundings>,
) -> Result<Rebuilt> {
    let rebuilt = try_rebuild(region, cause, known);
    if rebuilt.is_err() && cause != Cause::Death && !region.is_being_rebuilt() {
        region.mark();
    }
    match rebuilt {
        Ok(rebuilt) => Ok(rebuilt),
        Err(Trouble::Error(error)) => Err(error),
        Err(Trouble::Flaw(what)) => {
            Err(region.arena.damaged(format!("region {} can't be rebuilt: {what}", region.number)))
        }
    }
}

fn try_rebuild(region: &Region<'_>, cause: Cause, known: Option<Surroundings>) -> Result<Rebuilt, Trouble> {
    let arena = region.arena;
    let mut shape = region.shape();
    let trusted = match &known {
        Some(known) => known.table_is_sound,
        None => arena.table_is_sound(region.number, &shape),
    };
    if !trusted {
        let version = region.shape().version.wrapping_add(1);
        shape = Shape { rebuilding: true, ..Shape::first(&arena.geo, region.number, version) };
    }
    let mut rebuilt = Rebuilt::default();
    let mut slots = look_at_slots(region, trusted.then_some(&shape), cause, known, &mut rebuilt)?; // Step 1.
    step("rebuild: slots looked at");
    if cause == Cause::Death && trusted {
        take_back_last(region, &shape, &mut slots)?; // Step 2.
    }
    let before = Losses::of(region.head.damaged().load(Ordering::Relaxed).unwrap_or(0));
    let gone = if cause.leaves_damage() { before.gone + slots.gone } else { 0 };
    if gone > before.gone {
        // Before the index is cleared, which alone shows it.
        region.head.damaged().store(Losses { gone, ..before }.number(), Ordering::SeqCst);
    }
    region.set_shape(Shape { rebuilding: true, batch: false, ..shape }); // Step 3.
    step("rebuild: marked");

    let mut chosen = choose(region, cause, trusted.then_some(&shape), &mut slots, &mut rebuilt);
    write_anew(region, &mut chosen, &mut slots)?;
    slots.free.append(&mut slots.given_up);
    let Chosen { winners, retired, parked, reclaimed, .. } = chosen;

    let new = fill_table(region, shape, &winners)?; // Step 6.
    step("rebuild: index filled");
    link(region, &retired, &parked)?;
    step("rebuild: versions linked");

    slots.free.sort_unstable();
    for class in (0..arena.geo.classes).map(|class| region.class(class)) {
        class.free.store(Reference::NONE, Ordering::Relaxed);
        class.fresh.store(Reference::NONE, Ordering::Relaxed);
    }
    for &slot in slots.free.iter().rev() {
        let (words, class) = arena.slot_and_class(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        let first = region.class(class).free;
        scrub(words, region.number, first.load(Ordering::Relaxed));
        first.store(Reference::to(slot), Ordering::Relaxed);
    }
    // The index may be lost with an extent. Then only the head's count tells.
    let live = region.head.live().load(Ordering::Relaxed).filter(|_| cause.leaves_damage() && slots.is_short);
    let by_count = live.map_or(0, |live| before.gone + live.saturating_sub(winners.len() as u64));
    let losses = Losses { damaged: slots.damaged, gone: gone.max(by_count) };
    region.head.damaged().store(losses.number(), Ordering::Relaxed);
    region.reset_counts(winners.len() as u64, slots.free.len() as u64);
    region.head.extents().store(slots.extents, Ordering::Relaxed);
    region.head.reserved().store(slots.reserved, Ordering::Relaxed);
    region.head.reclaimed().store(reclaimed, Ordering::Relaxed);
    // Members that did not count are scrubbed. The counts of members are cleared before the next `seq` changes, because the next
    // `seq` tells which versions are members.
    region.head.pending().store(0, Ordering::Relaxed);
    region.head.members().store(0, Ordering::Relaxed);
    // If a forged version leaves no higher number, writing is refused. After a crash of the operating system, recovery
    // begins a block that was not given out before.
    region.set_next_seq(next_seq(region, &slots)?);
    region.end(); // Whatever a dead owner had begun.
    step("rebuild: counts stored");
    region.set_shape(new); // Step 8.
    region.tell_all(); // It may have changed any record.
    step("rebuild: done");
    Ok(rebuilt)
}

/// Takes the last write of the region back if it took no effect: see [`crate::region::decided`]. This comes before the mark,
/// because the table shows nothing after it is changed. So a rebuild that finds the mark knows that this step is done.
fn take_back_last(region: &Region<'_>, shape: &Shape, slots: &mut Slots) -> Result<(), Trouble> {
    let last = region.head.next_seq().load(Ordering::Relaxed).wrapping_sub(1);
    let is_last = |v: &InSlot| v.seq == last && v.state != Holds::Damaged;
    let Some(at) = slots.versions.iter().position(is_last) else { return Ok(()) };
    let InSlot { slot, state, .. } = slots.versions[at];
    let words = region.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
    let is_record = state == Holds::Whole;
    if took_no_effect(region.arena, region.number, shape, slot, &header(words), is_record) {
        retract(words);
        step("rebuild: last write taken back");
        slots.versions.swap_remove(at);
        slots.free.push(slot); // No borrow has it: it was never the record.
    }
    Ok(())
}

/// The versions that win, and the losing ones that are kept.
struct Chosen {
    /// The current version of each id.
    winners: Vec<InSlot>,
    /// Retired versions and tombstones, each with the epoch that must be on disk before it is freed, in the order of these
    /// epochs.
    retired: Vec<(u32, u64)>,
    /// Slots that only borrows may need.
    parked: Vec<(u32, u64)>,
    /// The last epoch in which a slot was freed whose version may be on disk.
    reclaimed: Epoch,
    /// The winners that may stand in for a newer version that was given up. First come those of which this is known.
    stand_ins: Vec<usize>,
}

/// Chooses the winner of each id, from its newest version to its oldest. A losing version is kept if it may be the one on disk
/// and its successor is not there yet, or if a snapshot reads it. A tombstone is kept behind the versions that it hides. The
/// slots of all other versions are added to `slots.free`. `table`: the table as it was, if it can be trusted.
fn choose(
    region: &Region<'_>,
    cause: Cause,
    table: Option<&Shape>,
    slots: &mut Slots,
    rebuilt: &mut Rebuilt,
) -> Chosen {
    let arena = region.arena;
    let durable = arena.durable().unwrap_or(Epoch::BEFORE);
    // `repair` finds damaged epochs anew, after the rebuilds.
    let epoch = arena.epoch().unwrap_or(durable.next());
    let known = region.head.reclaimed().load(Ordering::Relaxed).unwrap_or(epoch);
    let pinned = seat::oldest_moment(arena).unwrap_or(Some(Epoch::BEFORE)).unwrap_or(Epoch::LAST);
    let borrowed = borrow::may_be_borrowed(arena) && !cause.is_os_crash();
    let clock = borrow::clock(arena);
    let mut chosen = Chosen {
        winners: Vec::new(),
        retired: Vec::new(),
        parked: Vec::new(),
        reclaimed: known.min(epoch),
        stand_ins: Vec::new(),
    };
    let mut perhaps = Vec::new();
    // A borrow may have got one of these slots before the write or deletion was cut off.
    if borrowed {
        let given_up = slots.given_up.drain(..);
        chosen.parked.extend(slots.cut_off.drain(..).chain(given_up).map(|slot| (slot, clock)));
    } else {
        slots.free.append(&mut slots.cut_off);
    }
    if cause.is_os_crash() {
        chosen.reclaimed = Epoch::BEFORE; // All slots freed now are flushed before any handle gets in.
    }
    slots.versions.sort_unstable_by_key(|v| {
        let newest_first = if fault::on(Fault::LowerSeqWins) { v.seq } else { !v.seq };
        (v.id, newest_first)
    });
    // If a replaced version stands in for a damaged one, the report must say so.
    let mut replaced: HashSet<u32> = HashSet::new();
    if slots.damaged != 0 || !rebuilt.dropped.is_empty() {
        replaced.extend(
            [SlotQueue::Retired, SlotQueue::Parked]
                .into_iter()
                .flat_map(|queue| region.queued_at_least(queue)),
        );
    }
    let may_stand_in = |version: &InSlot| slots.damaged == 0 || !replaced.contains(&version.slot);
    let mut retired = Vec::new();
    let mut kept: Vec<(InSlot, Epoch)> = Vec::new(); // With the epoch that must be on disk before it is freed.
    for group in slots.versions.chunk_by(|a, b| a.id == b.id) {
        kept.clear();
        for (i, &version) in group.iter().enumerate() {
            let newer = kept.last().map(|k| k.0);
            // A tombstone has the stamp of the version that it was. The epoch of the deletion is not known.
            let since = |n: &InSlot| if n.state == Holds::Tombstone { epoch } else { n.epoch };
            let keep_until = match version.state {
                Holds::Tombstone if cause == Cause::OsCrashFlushed => None,
                Holds::Tombstone if cause == Cause::OsCrash => (i == 0).then_some(epoch),
                Holds::Tombstone => Some(epoch),
                _ if i == 0 => Some(Epoch::BEFORE),
                // Its id may be the damaged part: it stays in its slot until a repair.
                Holds::Damaged => continue,
                Holds::Whole => newer
                    .filter(|n| !cause.is_os_crash() && (version.epoch != n.epoch || version.lone))
                    .filter(|n| since(n) > durable || n.epoch > pinned)
                    .map(|n| since(&n)),
            };
            match keep_until {
                Some(until) => kept.push((version, until)),
                None if borrowed => chosen.parked.push((version.slot, clock)),
                None => {
                    slots.free.push(version.slot); // Scrubbed in step 7, before it can be taken.
                    if version.epoch <= durable && !cause.is_os_crash() {
                        chosen.reclaimed = epoch;
                    }
                }
            }
        }
        for (i, &(version, until)) in kept.iter().enumerate() {
            if version.state == Holds::Tombstone && cause == Cause::OsCrash {
                rebuilt.tombstones += 1; // No handle is in; the second rebuild finds it.
            } else if i == 0 && version.state != Holds::Tombstone && may_stand_in(&version) {
                let given_up = cause == Cause::Repair && !rebuilt.dropped.is_empty();
                if given_up && replaced.contains(&version.slot) {
                    let what = "an older version stands in for one that was given up, written anew";
                    let damage = Damage::of_slot(region.number, version.slot, Some(version.id), what);
                    rebuilt.dropped.push(damage);
                    chosen.stand_ins.push(chosen.winners.len());
                } else if given_up
                    && !table.is_some_and(|t| region.leads_to(t, arena.geo.hash(version.id), version.slot))
                {
                    perhaps.push(chosen.winners.len());
                }
                chosen.winners.push(version);
            } else {
                // Versions that a tombstone hides are freed before it. A version that may not stand in for a damaged one is
                // not in the index, and a look for its id finds that a slot is damaged.
                let until = if until == Epoch::BEFORE { epoch } else { until };
                retired.push(((until, version.state == Holds::Tombstone), (version.slot, until.number())));
            }
        }
    }
    retired.sort_by_key(|(order, _)| *order);
    chosen.retired = retired.into_iter().map(|(_, retired)| retired).collect();
    chosen.stand_ins.append(&mut perhaps);
    chosen
}

/// Writes versions anew that may stand in for one that was given up, each with a number of its own: a program that knows the
/// number of the lost version must not see the record's version go back. The old versions are kept as replaced ones are.
///
/// No reader sees a new version before the table is the region's. A death before that leaves the old version or the new one. On
/// a full disk the new versions take the slots of versions that are given up. If borrows still need those slots, the remaining
/// versions are not written anew.
fn write_anew(region: &Region<'_>, chosen: &mut Chosen, slots: &mut Slots) -> Result<(), Trouble> {
    let arena = region.arena;
    // Without links the old versions could not be kept. Then no version is written anew.
    if chosen.stand_ins.is_empty() || region.ensure_linked().is_err() {
        return Ok(());
    }
    let epoch = arena.epoch().unwrap_or(arena.durable().unwrap_or(Epoch::BEFORE).next());
    let mut data = Vec::new();
    for &n in &chosen.stand_ins {
        let Some(&old) = chosen.winners.get(n) else { continue };
        let next_seq = next_seq(region, slots)?;
        if next_seq >= u64::MAX - 1 {
            break; // From there on writing is refused.
        }
        if begins_block(next_seq) {
            region.give_out_block(next_seq, 1)?;
        }
        let from = arena.slot(old.slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        let Seen::Whole(header) = read_any(from, arena.geo.record_size as usize, true, &mut data) else {
            return Err(Trouble::Flaw("a slot changed under its region's lock"));
        };
        let holds = |&slot: &u32| arena.slot(slot).is_some_and(|words| room(words) >= header.len());
        if !slots.free.iter().any(holds) {
            // Versions that are given up stay in their slots until step 7: if this repair is killed, the next one finds them.
            let grown = Growth::lock(arena).and_then(|mut growth| {
                let class = arena.geo.class_for(header.len());
                growth.add_data_extent(region.number, class, region.is_linked().unwrap_or(true))
            });
            match grown {
                Ok(extent) => {
                    slots.extents += 1;
                    slots.free.extend(extent.slot_numbers(&arena.geo));
                }
                Err(Error::Full { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let take = |from: &mut Vec<u32>| Some(from.swap_remove(from.iter().rposition(&holds)?));
        let Some(slot) = take(&mut slots.free).or_else(|| take(&mut slots.given_up)) else { break };
        let words = arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        scrub(words, region.number, Reference::NONE);
        let anew = Header::record(next_seq, old.id, epoch, header.len()).of_address(header.address());
        publish(words, anew, &data);
        step("repair: stand-in written anew");
        slots.seq_max = slots.seq_max.max(next_seq);
        chosen.winners[n] = InSlot { seq: next_seq, epoch, lone: false, slot, ..old };
        chosen.retired.push((old.slot, epoch.number())); // The latest epoch, so the order holds.
    }
    Ok(())
}

/// The `seq` of the next write: higher than any that was used. If the head's number is impossible, a new block of versions is
/// begun: numbers that were used may be in no slot any more. If a slot has a version of a block that was not given out, the block
/// is given out, so that writes go on after it.
fn next_seq(region: &Region<'_>, slots: &Slots) -> Result<u64, Trouble> {
    let control = region.arena.control();
    let blocks = control.blocks_given_out().unwrap_or(BLOCKS_MAX / 2);
    let end = PRESENT | blocks << BLOCK_LOG2;
    // If the word and its complement differ, a bit of one was flipped, or the writer died between the two stores.
    let said = region.head.said_seqs();
    let head = said.into_iter().filter(|seq| (FIRST_SEQ..=end).contains(seq)).max().unwrap_or(end);
    let next = head.max(slots.seq_max.saturating_add(1));
    if block_of(next) >= blocks && !begins_block(next) {
        control.version_blocks().raise_to(block_of(next) + 1);
        region.arena.flush_control()?;
    }
    Ok(next)
}

/// Step 1: looks at every slot. `table`: the table as it was, if it can be trusted.
fn look_at_slots(
    region: &Region<'_>,
    table: Option<&Shape>,
    cause: Cause,
    known: Option<Surroundings>,
    rebuilt: &mut Rebuilt,
) -> Result<Slots, Trouble> {
    let arena = region.arena;
    if fault::survey_fails() {
        return Err(Trouble::Flaw("the look at the slots fails for a test"));
    }
    let mut slots = Slots::default();
    let mut buffer = Vec::new();
    let is_known = known.is_some();
    let mut extents = match known {
        Some(known) => known.extents,
        None => arena.data_extents(region.number)?,
    };
    let counted = region.head.extents().load(Ordering::Relaxed);
    let is_lost = counted.is_some_and(|counted| counted > extents.len() as u64)
        || extents.iter().any(|extent| arena.extent_at(extent.unit) != Some(*extent));
    // After a crash of the system lost extents are given back before regions are rebuilt.
    if !cause.is_os_crash() && is_lost {
        {
            let _growth = Growth::lock(arena)?;
            adopt(arena, false, &mut Vec::new())?;
        }
        extents = arena.data_extents(region.number)?;
    }
    if !is_known || is_lost {
        // This handle may have met a header that was wrong.
        arena.meet_again()?;
    }
    slots.extents = extents.len() as u64;
    slots.is_short = counted.is_some_and(|counted| counted > slots.extents);
    let mut used = Vec::new();
    for slot in pass::slots_in(arena, extents) {
        let (slot, words) = slot?;
        let state = survey(words, region.number, &arena.geo, &mut buffer);
        if state != SlotState::Fresh {
            used.push(slot);
        }
        match state {
            SlotState::Version(h) | SlotState::Tombstone(h) if is_of_lost_batch(region, cause, &h) => {
                // It is freed, as the rest of its batch. Scrubbed in step 7.
                slots.seq_max = slots.seq_max.max(h.seq());
                rebuilt.note_epoch(h.epoch());
                rebuilt.of_lost_batches += 1;
                slots.free.push(slot);
            }
            SlotState::Version(h) | SlotState::Tombstone(h) => {
                slots.seq_max = slots.seq_max.max(h.seq());
                rebuilt.note_epoch(h.epoch());
                let is_record = matches!(state, SlotState::Version(_));
                let state = if is_record { Holds::Whole } else { Holds::Tombstone };
                let (epoch, lone) = (h.epoch(), h.is_lone());
                slots.versions.push(InSlot { id: h.id(), seq: h.seq(), epoch, lone, slot, state });
            }
            SlotState::Damaged(h, what) if !cause.leaves_damage() => {
                rebuilt.dropped.push(Damage::of_slot(region.number, slot, Some(h.id()), what));
                slots.given_up.push(slot);
            }
            SlotState::Damaged(h, _) => {
                // Its id is believed if the index leads from it to this slot: then it is the current version, even if its
                // `seq` is damaged.
                slots.damaged += 1;
                let hash = arena.geo.hash(h.id());
                let is_ours = arena.geo.region_of(hash) == region.number;
                if is_ours && table.is_some_and(|table| region.leads_to(table, hash, slot)) {
                    let (id, seq, epoch, state) = (h.id(), u64::MAX, h.epoch(), Holds::Damaged);
                    slots.versions.push(InSlot { id, seq, epoch, lone: false, slot, state });
                }
            }
            SlotState::Reserved(seat, generation)
                if !cause.is_os_crash() && seat::is_alive(arena, Owner { seat, generation })? =>
            {
                slots.reserved += 1;
            }
            // All borrows of a slot have ended before it can be reserved.
            SlotState::Reserved(..) => slots.free.push(slot),
            SlotState::CutOff => slots.cut_off.push(slot),
            SlotState::FreeButForSeq if header(words).is_parked_but_for_seq() => slots.cut_off.push(slot),
            SlotState::Free | SlotState::Fresh | SlotState::FreeButForSeq => slots.free.push(slot),
            SlotState::Moved => return Err(Trouble::Flaw("a slot changed under its region's lock")),
        }
    }
    if let Some(table) = table.filter(|_| cause.leaves_damage()) {
        // In a deletion that was cut off, an entry leads to a slot of which only `seq` is 0.
        used.sort_unstable();
        let is_gone = |slot: u32| used.binary_search(&slot).is_err();
        slots.gone = evidence::gone_at_least(&arena.map, &arena.geo, region.number, table, is_gone);
    }
    Ok(slots)
}

/// Whether a version is a member of a batch that does not count. Either the batch was cut off before its number counted. Or, after
/// a crash of the operating system, no flush made it whole on disk, so that other members may be missing.
fn is_of_lost_batch(region: &Region<'_>, cause: Cause, header: &Header) -> bool {
    let arena = region.arena;
    if !cause.is_os_crash() {
        return is_undecided(arena, region.number, header);
    }
    // If the word is damaged, it is not known which batches are whole. Then all members are kept.
    let settled = arena.control().settled().load(Ordering::SeqCst);
    header.is_of_batch() && settled.is_some_and(|s| header.epoch() > s) && !fault::on(Fault::PartOfBatch)
}

/// Fills a table with the winners, and returns its shape. The growth lock is held until a new table is the region's, so that no
/// other region gets its room.
fn fill_table(region: &Region<'_>, present: Shape, winners: &[InSlot]) -> Result<Shape, Trouble> {
    let slot_max = winners.iter().map(|v| v.slot).max().unwrap_or(0);
    // A table may be fuller than usual: the next write lets it grow, and a full disk must not make a rebuild fail.
    let fits = |shape: &Shape| winners.len() as u64 <= shape.entries() && shape.holds(slot_max);
    let same_place =
        Shape { version: present.version.wrapping_add(1), rebuilding: false, batch: false, ..present };
    let mut growth = None;
    let new = if fits(&same_place) {
        same_place
    } else {
        let mut lines_log2 = present.lines_log2.max(FIRST_LINES_LOG2);
        while lines_log2 < LINES_LOG2_MAX && winners.len() as u64 > load_max(&Shape { lines_log2, ..present })
        {
            lines_log2 += 1;
        }
        let growth = growth.insert(Growth::lock(region.arena)?);
        region.new_shape(growth, lines_log2)?
    };
    let mut table = region.clear_table(new)?;
    for winner in winners {
        if !table.insert(region.arena.geo.hash(winner.id), winner.slot)? {
            return Err(Trouble::Flaw("an index without room"));
        }
    }
    if growth.is_some() {
        // From here on the room is the region's; the mark stays until all else is done.
        region.set_shape(Shape { rebuilding: true, ..new });
        step("rebuild: table moved");
    }
    Ok(new)
}

fn link(region: &Region<'_>, retired: &[(u32, u64)], parked: &[(u32, u64)]) -> Result<(), Trouble> {
    if !matches!(region.is_linked(), Ok(true)) {
        if retired.is_empty() {
            // Links that are allocated all the same do no harm: a write that needs them allocates them again.
            region.head.links().store(0, Ordering::Relaxed);
        } else {
            // The word is damaged: without links no version would be kept. To allocate links again changes nothing.
            Growth::lock(region.arena)?.allocate_links(region.number)?;
            region.set_linked();
        }
    }
    region.requeue(SlotQueue::Retired, retired)?;
    region.park_all(parked)
}

/// Whether the control page's epochs can be used as they are.
pub(crate) fn epochs_hold(region: &Region<'_>) -> bool {
    let arena = region.arena;
    let durable = arena.control().durable().load(Ordering::SeqCst);
    let epoch = arena.control().epoch().load(Ordering::SeqCst);
    matches!((epoch, durable), (Some(epoch), Some(durable)) if epoch > durable && epoch >= Epoch::FIRST && epoch.is_credible())
}

/// The error for a region that stays in trouble after a rebuild.
pub(crate) fn still_in_trouble(region: &Region<'_>, what: &str) -> Error {
    region.arena.damaged(format!("region {}: {what}, also after a rebuild", region.number))
}
