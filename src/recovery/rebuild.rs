//! Rebuilding one region from its slots.
//!
//! The caller holds the region's lock. Steps:
//!
//! 1. Mark the shape as `rebuilding`: readers wait for the region's lock from here on, and a death
//!    before step 6 makes the next owner begin anew.
//! 2. Look at every slot. Per id the version with the highest `seq` wins.
//! 3. Scrub the losers that nothing needs. A loser that may be the durable version of a record whose
//!    winner is not durable yet goes back into the queue of retired slots.
//! 4. Fill an index table: the present one if it can be trusted and is large enough.
//! 5. Chain the free slots; store counts and the next `seq`.
//! 6. Make the table the region's, with the mark gone.
//!
//! Time: one pass over the region's slots, their checksums included, and a sort of the versions.

use crate::error::{Error, Result};
use crate::format::control;
use crate::format::index::{FIRST_LINES_LOG2, LINE_BYTES, LINES_LOG2_MAX, Shape};
use crate::format::region::word;
use crate::format::slot::{FIRST_SEQ, PRESENT};
use crate::protocol::slot::scrub;
use crate::recovery::survey::{SlotState, survey};
use crate::region::Trouble;
use crate::region::grow::Growth;
use crate::region::owned::{Region, load_max};
use crate::report::Damage;
use crate::sys::step::step;

/// What has happened, and so what may be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A process died, or a part that is derived is damaged: damaged versions stay where they are.
    Process,
    /// The operating system went down: what fails its checksum was torn, and is given up.
    OsCrash,
    /// Somebody asked for a repair: damaged versions are given up.
    Repair,
}

/// What a rebuild found.
#[derive(Debug, Default)]
pub(crate) struct Rebuilt {
    /// Versions that were given up.
    pub(crate) dropped: Vec<Damage>,
    /// The highest epoch of any version.
    pub(crate) epoch_max: u64,
}

#[derive(Clone, Copy)]
struct Version {
    id: u64,
    seq: u64,
    epoch: u64,
    slot: u32,
    whole: bool,
}

#[derive(Default)]
struct Slots {
    versions: Vec<Version>,
    free: Vec<u32>,
    /// Damaged ones that stay where they are.
    damaged: u64,
    seq_max: u64,
}

/// How far `seq` jumps after a crash of the operating system: further than the writes that can have
/// been lost from the head and the slots together.
const SEQ_JUMP: u64 = 1 << 20;

/// Rebuilds the region. On an error it stays marked, and the next owner begins anew.
pub(crate) fn rebuild(region: &Region<'_>, cause: Cause) -> Result<Rebuilt> {
    match try_rebuild(region, cause) {
        Ok(rebuilt) => Ok(rebuilt),
        Err(Trouble::Error(error)) => Err(error),
        Err(Trouble::Flaw(what)) => {
            Err(region.arena.damaged(format!("region {} can't be rebuilt: {what}", region.number)))
        }
    }
}

fn try_rebuild(region: &Region<'_>, cause: Cause) -> Result<Rebuilt, Trouble> {
    let arena = region.arena;
    let mut shape = region.shape();
    let trusted = arena.table_is_sound(region.number, &shape);
    if !trusted {
        shape = first_shape(region);
    }
    region.set_shape(Shape { rebuilding: true, ..shape }); // Step 1.
    step("rebuild: marked");

    let mut rebuilt = Rebuilt::default();
    let mut slots = look_at_slots(region, cause, &mut rebuilt)?; // Step 2.
    step("rebuild: slots looked at");

    slots.versions.sort_unstable_by_key(|v| (v.id, std::cmp::Reverse(v.seq)));
    let durable = arena.durable().unwrap_or(0);
    let mut winners = Vec::new(); // (winner, version before it or 0)
    let mut retired: Vec<(u32, u64, u32)> = Vec::new();
    let mut at = 0;
    while let Some(&winner) = slots.versions.get(at) {
        let end = slots.versions[at..].partition_point(|v| v.id == winner.id) + at;
        let mut chain = vec![winner];
        for &loser in &slots.versions[at + 1..end] {
            let newer = chain[chain.len() - 1];
            let needed =
                cause != Cause::OsCrash && loser.whole && loser.epoch < newer.epoch && newer.epoch > durable;
            if needed {
                chain.push(loser);
            } else {
                slots.free.push(loser.slot); // Scrubbed in step 5, before its slot can be taken.
            }
        }
        let before = |i: usize| chain.get(i + 1).map_or(0, |v| v.slot + 1);
        winners.push((winner, before(0)));
        for i in 1..chain.len() {
            retired.push((chain[i].slot, chain[i - 1].epoch, before(i)));
        }
        at = end;
    }
    retired.sort_by_key(|&(_, epoch, _)| epoch);

    let new = fill_table(region, shape, &winners)?; // Step 4, and 3 on the way.
    step("rebuild: index filled");
    link(region, &winners, &retired)?;
    step("rebuild: versions linked");

    slots.free.sort_unstable();
    region.set(word::FREE, 0);
    region.set(word::FRESH, 0);
    for &slot in slots.free.iter().rev() {
        let words = arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        scrub(words, region.number, region.get(word::FREE));
        region.set(word::FREE, u64::from(slot) + 1);
    }
    region.reset_counts(winners.len() as u64, slots.free.len() as u64, retired.len() as u64);
    region.set(word::DAMAGED, slots.damaged);
    let from_head = region.get(word::NEXT_SEQ);
    let from_head =
        if from_head & PRESENT != 0 && from_head < PRESENT | 1 << 62 { from_head } else { FIRST_SEQ };
    let jump = if cause == Cause::OsCrash { SEQ_JUMP } else { 0 };
    region.set(word::NEXT_SEQ, from_head.max(slots.seq_max + 1).max(FIRST_SEQ) + jump);
    step("rebuild: counts stored");
    region.set_shape(new); // Step 6.
    step("rebuild: done");
    Ok(rebuilt)
}

fn first_shape(region: &Region<'_>) -> Shape {
    let arena = region.arena;
    let old = region.shape();
    Shape {
        line_offset: arena.geo.first_index_offset(region.number) / LINE_BYTES,
        lines_log2: FIRST_LINES_LOG2,
        slot_bits: Shape::slot_bits_for(u64::from(arena.geo.slots_per_extent()) * 16),
        version: old.version.wrapping_add(1),
        rebuilding: true,
    }
}

fn look_at_slots(region: &Region<'_>, cause: Cause, rebuilt: &mut Rebuilt) -> Result<Slots, Trouble> {
    let arena = region.arena;
    let mut slots = Slots::default();
    let mut buffer = Vec::new();
    for extent in arena.data_extents(region.number)? {
        for slot in arena.slots_of(extent) {
            let words = arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
            match survey(words, region.number, &arena.geo, &mut buffer) {
                SlotState::Version(h) => {
                    slots.seq_max = slots.seq_max.max(h.seq);
                    rebuilt.epoch_max = rebuilt.epoch_max.max(h.epoch());
                    slots.versions.push(Version {
                        id: h.id,
                        seq: h.seq,
                        epoch: h.epoch(),
                        slot,
                        whole: true,
                    });
                }
                SlotState::Damaged(h, what) if cause != Cause::Process => {
                    rebuilt.dropped.push(Damage::of_slot(region.number, slot, Some(h.id), what));
                    slots.free.push(slot);
                }
                SlotState::Damaged(h, _) => {
                    slots.damaged += 1;
                    if arena.geo.region_of(arena.geo.hash(h.id)) == region.number {
                        let (id, seq, epoch) = (h.id, h.seq, h.epoch());
                        slots.versions.push(Version { id, seq, epoch, slot, whole: false });
                    }
                }
                SlotState::Free | SlotState::Fresh | SlotState::CutOff | SlotState::FreeButForSeq => {
                    slots.free.push(slot);
                }
                SlotState::Moved => return Err(Trouble::Flaw("a slot changed under its region's lock")),
            }
        }
    }
    Ok(slots)
}

/// Fills a table with the winners; gives its shape. The growth lock is held until a new table is
/// the region's, so that nobody else is given its room.
fn fill_table(region: &Region<'_>, present: Shape, winners: &[(Version, u32)]) -> Result<Shape, Trouble> {
    let slot_max = winners.iter().map(|(v, _)| v.slot).max().unwrap_or(0);
    let fits = |shape: &Shape| winners.len() as u64 <= load_max(shape) && shape.holds(slot_max);
    let same_place = Shape { version: present.version.wrapping_add(1), rebuilding: false, ..present };
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
    region.clear_table(&new)?;
    for (winner, _) in winners {
        if !region.insert_unseen(&new, region.arena.geo.hash(winner.id), winner.slot)? {
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

fn link(region: &Region<'_>, winners: &[(Version, u32)], retired: &[(u32, u64, u32)]) -> Result<(), Trouble> {
    if !retired.is_empty() && region.get(word::LINKS) == 0 {
        Growth::lock(region.arena)?.allocate_links(region.number)?;
        region.set(word::LINKS, 1);
    }
    if region.get(word::LINKS) != 0 {
        // The word may be wrong; allocating what is allocated already changes nothing.
        Growth::lock(region.arena)?.allocate_links(region.number)?;
        region.set(word::LINKS, 1);
        for (winner, before) in winners {
            region.set_before(winner.slot, *before)?;
        }
    }
    region.requeue(retired)
}

/// Whether the control page's epochs can be used as they are.
pub(crate) fn epochs_hold(region: &Region<'_>) -> bool {
    let arena = region.arena;
    matches!((arena.epoch(), arena.durable()), (Ok(epoch), Ok(durable)) if epoch > durable && epoch >= control::FIRST_EPOCH)
}

/// The error for a region that stays in trouble after a rebuild.
pub(crate) fn still_in_trouble(region: &Region<'_>, what: &str) -> Error {
    region.arena.damaged(format!("region {}: {what}, also after a rebuild", region.number))
}
