//! Whether a region is sound, found without holding its lock.
//!
//! 1. One pass over the slots, each by its own bytes. For each version the index is asked whether it leads to the version, or to a newer
//!    one. One pass over the lines of the index.
//! 2. If the region was at rest meanwhile, its counts and lists are compared with what was seen. The index leads to every record, so if it
//!    has as many entries as there are records, it has no others.
//! 3. If the region was written to, what looks wrong is looked at again with the lock held, a few slots or lines at a time. What then
//!    still looks wrong, is. Counts are not compared with each other: they change.
//! 4. The answer is only whether the region is sound. If it is not, `recovery::verify` says what is wrong.

use std::collections::HashMap;

use crate::error::Result;
use crate::file::arena::Arena;
use crate::file::pass;
use crate::file::survey::{SlotState, survey};
use crate::format::extent::Extent;
use crate::format::index::{ENTRIES, Shape};
use crate::format::region::Losses;
use crate::format::slot::{Address, Header, SlotKind, block_of};
use crate::format::word::Reference;
use crate::protocol::index::load_line;
use crate::protocol::slot::{header, is_free};
use crate::recovery::verify::is_of_its_keys;
use crate::region::find::Found;
use crate::region::head::Region;
use crate::region::slots::SlotQueue;
use crate::sys::atomic::{AtomicU64, Ordering};

/// Slots whose versions are looked for together, so that the lines of the index are asked for ahead.
const TOGETHER: usize = 16;

/// A version or a tombstone: id, `seq` and slot.
pub(crate) type VersionAt = (u64, u64, u32);

/// What a look at a region has shown.
#[derive(Default)]
pub(crate) struct Sighting {
    pub(crate) slots: u64,
    /// Versions to which the index leads.
    pub(crate) records: u64,
    /// Versions that were replaced or deleted, and tombstones.
    replaced: u64,
    free: u64,
    fresh: u64,
    reserved: u64,
    parked: u64,
    seq_max: u64,
    entries: u64,
    markers: u64,
    /// Slots that look wrong.
    pub(crate) slots_in_doubt: Vec<u32>,
    /// Lines of the index that look wrong.
    pub(crate) lines_in_doubt: Vec<u64>,
    /// Versions to which the index does not lead, though it leads to no newer one, and no tombstone hides them.
    pub(crate) unexplained: Vec<VersionAt>,
}

/// What the index says of a version.
enum Lead {
    Here,
    ToNewer,
    Nowhere,
    Wrong,
}

fn ask(region: &Region<'_>, hash: u64, (id, seq, slot): VersionAt) -> Lead {
    match region.find(hash, id) {
        Ok(Found::Hit { slot: found, .. }) if found == slot => Lead::Here,
        Ok(Found::Hit { header, .. }) if header.seq() > seq => Lead::ToNewer,
        Ok(Found::Miss(_)) => Lead::Nowhere,
        _ => Lead::Wrong,
    }
}

fn place(slot: u32, header: &Header) -> VersionAt {
    (header.id(), header.seq(), slot)
}

/// Looks at all slots and lines of a region.
pub(crate) fn look(region: &Region<'_>, extents: &[Extent], shape: &Shape) -> Result<Sighting> {
    let arena = region.arena;
    let mut seen = Sighting::default();
    let mut buffer = Vec::new();
    let mut versions: Vec<(u64, VersionAt)> = Vec::with_capacity(TOGETHER);
    let mut without_entry = Vec::new();
    let mut tombstones = Vec::new();
    let mut slots = pass::slots_in(arena, extents.to_vec());
    let mut is_end = false;
    while !is_end {
        for _ in 0..TOGETHER {
            let Some(slot) = slots.next() else {
                is_end = true;
                break;
            };
            let (slot, words) = slot?;
            seen.slots += 1;
            match survey(words, region.number, &arena.geo, &mut buffer) {
                SlotState::Version(header) => {
                    let hash = arena.geo.hash(header.id());
                    arena.map.prefetch(shape.line_at(shape.home(hash)));
                    if header.address() == Address::Key && !is_of_its_keys(arena, &header, &buffer) {
                        seen.slots_in_doubt.push(slot);
                    }
                    seen.seq_max = seen.seq_max.max(header.seq());
                    versions.push((hash, place(slot, &header)));
                }
                SlotState::Tombstone(header) => {
                    seen.seq_max = seen.seq_max.max(header.seq());
                    tombstones.push(place(slot, &header));
                }
                SlotState::Free => seen.free += 1,
                SlotState::Fresh => seen.fresh += 1,
                SlotState::Reserved(..) => seen.reserved += 1,
                SlotState::CutOff if header(words).is_parked() => seen.parked += 1,
                _ => seen.slots_in_doubt.push(slot),
            }
        }
        for (hash, version) in versions.drain(..) {
            match ask(region, hash, version) {
                Lead::Here => seen.records += 1,
                Lead::ToNewer => {
                    seen.replaced += 1;
                    if !region.has_sound_link(SlotQueue::Retired, version.2) {
                        seen.slots_in_doubt.push(version.2);
                    }
                }
                Lead::Nowhere => without_entry.push(version),
                Lead::Wrong => seen.slots_in_doubt.push(version.2),
            }
        }
    }
    tombstones.sort_unstable();
    for version in without_entry {
        let (id, seq, _) = version;
        let behind = tombstones.partition_point(|&(of, ..)| of <= id);
        match tombstones[..behind].last() {
            Some(&(of, hides, _)) if of == id && hides > seq => seen.replaced += 1,
            _ => seen.unexplained.push(version),
        }
    }
    seen.replaced += tombstones.len() as u64;
    for tombstone in tombstones {
        match ask(region, arena.geo.hash(tombstone.0), tombstone) {
            Lead::Nowhere | Lead::ToNewer => {}
            Lead::Here | Lead::Wrong => seen.slots_in_doubt.push(tombstone.2),
        }
    }
    for number in 0..shape.lines() {
        let Some(words) = arena.line(shape, number) else {
            seen.lines_in_doubt.push(number);
            break;
        };
        let line = load_line(words);
        if !line.holds(shape.seed(region.number, number)) {
            seen.lines_in_doubt.push(number);
        }
        for &entry in line.0[..ENTRIES].iter().filter(|&&entry| entry != 0) {
            *(if shape.slot(entry).is_some() { &mut seen.entries } else { &mut seen.markers }) += 1;
        }
    }
    Ok(seen)
}

impl Sighting {
    /// Step 2: whether everything adds up, if the region was at rest.
    pub(crate) fn adds_up(&self, region: &Region<'_>, extents: &[Extent]) -> bool {
        let head = region.head;
        let is_none_in_doubt =
            self.slots_in_doubt.is_empty() && self.lines_in_doubt.is_empty() && self.unexplained.is_empty();
        let counts = [
            (head.live(), self.records),
            (head.markers(), self.markers),
            (head.free_count(), self.free),
            (head.parked_count(), self.parked),
            (head.retired_count(), self.replaced),
            (head.reserved(), self.reserved),
            (head.extents(), extents.len() as u64),
        ];
        is_none_in_doubt
            && self.entries == self.records
            && counts.into_iter().all(|(word, count)| word.load(Ordering::Relaxed) == Some(count))
            && region.count_fresh().is_ok_and(|fresh| fresh == self.fresh)
            && region.noted_seq().is_ok_and(|next| next > self.seq_max)
            && has_sound_words(region)
            && self.has_all_free(region)
            && self.has_all_queued(region, extents)
    }

    /// Whether the free lists have all free slots.
    fn has_all_free(&self, region: &Region<'_>) -> bool {
        let arena = region.arena;
        let mut free = 0;
        for class in 0..arena.geo.classes {
            let mut next = region.class(class).free.load(Ordering::Relaxed);
            while next != Reference::NONE {
                let first = next.slot().ok().flatten().and_then(|slot| arena.slot_and_class(slot));
                match first.filter(|(_, of)| *of == class).map(|(words, _)| header(words)) {
                    Some(h) if is_free(&h, region.number) && free < self.free => next = h.next_free(),
                    _ => return false,
                }
                free += 1;
            }
        }
        free == self.free
    }

    /// Whether the queues have all slots that they should have. No slot is in a queue twice: the links would run in a circle.
    fn has_all_queued(&self, region: &Region<'_>, extents: &[Extent]) -> bool {
        let arena = region.arena;
        let mut numbers: Vec<_> = extents.iter().map(|extent| extent.slot_numbers(&arena.geo)).collect();
        numbers.sort_unstable_by_key(|numbers| numbers.start);
        let header_of = |slot: u32| {
            let next = numbers.partition_point(|numbers| numbers.end <= slot);
            let is_here = numbers.get(next).is_some_and(|numbers| numbers.contains(&slot));
            arena.slot(slot).filter(|_| is_here).map(header)
        };
        let is_replaced = |slot: u32| {
            header_of(slot).is_some_and(|header| {
                let answer = ask(region, arena.geo.hash(header.id()), place(slot, &header));
                header.seq() != 0 && matches!(answer, Lead::ToNewer | Lead::Nowhere)
            })
        };
        let is_parked = |slot: u32| header_of(slot).is_some_and(|header| header.is_parked());
        let all = |queue, count: u64, is: &dyn Fn(u32) -> bool| {
            let queued = region.queued(queue);
            queued.is_ok_and(|slots| slots.len() as u64 == count && slots.into_iter().all(is))
        };
        all(SlotQueue::Retired, self.replaced, &is_replaced)
            && all(SlotQueue::Parked, self.parked, &is_parked)
    }
}

/// Whether the words of a region's head that do not depend on its slots are as they should be.
fn has_sound_words(region: &Region<'_>) -> bool {
    let head = region.head;
    let blocks = region.arena.control().blocks_given_out();
    let is_given_out = |next: u64| blocks.is_none_or(|blocks| block_of(next.wrapping_sub(1)) < blocks);
    head.damaged().load(Ordering::Relaxed).map(Losses::of).is_some_and(|noted| noted.number() == 0)
        && head.reclaimed().load(Ordering::Relaxed).is_some()
        && head.pending().is_zero(Ordering::Relaxed)
        && head.intent().is_zero(Ordering::Relaxed)
        && region.is_linked().is_ok()
        && region.noted_seq().is_ok_and(is_given_out)
}

/// Step 3, for the owner of the region's lock: whether a slot is what it should be. A version to which the index does not lead, for no
/// reason that is seen here, is put to `unexplained`.
pub(crate) fn is_sound_slot(region: &Region<'_>, slot: u32, unexplained: &mut Vec<VersionAt>) -> bool {
    let arena = region.arena;
    let Some((words, class)) = arena.slot_and_class(slot) else { return false };
    let mut buffer = Vec::new();
    match survey(words, region.number, &arena.geo, &mut buffer) {
        SlotState::Version(header) => {
            let place = place(slot, &header);
            let is_current = match ask(region, arena.geo.hash(header.id()), place) {
                Lead::Here => true,
                Lead::ToNewer if !region.has_sound_link(SlotQueue::Retired, slot) => return false,
                Lead::ToNewer => false,
                Lead::Nowhere => {
                    unexplained.push(place);
                    false
                }
                Lead::Wrong => return false,
            };
            !is_current || header.address() == Address::Id || is_of_its_keys(arena, &header, &buffer)
        }
        SlotState::Tombstone(header) => {
            let answer = ask(region, arena.geo.hash(header.id()), place(slot, &header));
            matches!(answer, Lead::Nowhere | Lead::ToNewer) && region.has_sound_link(SlotQueue::Retired, slot)
        }
        SlotState::Free => links_to_free(region, words, class),
        SlotState::Fresh | SlotState::Reserved(..) => true,
        SlotState::CutOff => header(words).is_parked() && region.has_sound_link(SlotQueue::Parked, slot),
        SlotState::FreeButForSeq | SlotState::Damaged(..) | SlotState::Moved => false,
    }
}

/// Whether a free slot leads to another free one of its class, or to none.
fn links_to_free(region: &Region<'_>, words: &[AtomicU64], class: u32) -> bool {
    match header(words).next_free().slot() {
        Ok(None) => true,
        Ok(Some(next)) => region
            .arena
            .slot_and_class(next)
            .is_some_and(|(words, of)| of == class && is_free(&header(words), region.number)),
        Err(_) => false,
    }
}

/// The same for a line of the index.
pub(crate) fn is_sound_line(region: &Region<'_>, shape: &Shape, number: u64) -> bool {
    let arena = region.arena;
    let Some(words) = arena.line(shape, number) else { return false };
    let line = load_line(words);
    line.holds(shape.seed(region.number, number))
        && line.slots(shape).all(|slot| {
            let Some(header) = arena.slot(slot).map(header) else { return false };
            header.seq() != 0
                && header.kind() == SlotKind::Record
                && matches!(ask(region, arena.geo.hash(header.id()), place(slot, &header)), Lead::Here)
        })
}

/// The lines that look wrong by the slots to which their entries lead, without the lock.
pub(crate) fn lines_in_doubt(region: &Region<'_>, shape: &Shape) -> Vec<u64> {
    let arena = region.arena;
    (0..shape.lines())
        .filter(|&number| {
            if let Some(words) = arena.line(shape, number + 2) {
                let ahead = load_line(words).slots(shape).filter_map(|slot| arena.slot_offset(slot));
                ahead.for_each(|at| arena.map.prefetch(at));
            }
            !is_sound_line(region, shape, number)
        })
        .collect()
}

/// Step 3, for the owner of the region's lock: whether the words of its head are such that a write can go on.
pub(crate) fn is_sound_head(region: &Region<'_>) -> bool {
    let (head, arena) = (region.head, region.arena);
    let counts = [
        head.live(),
        head.markers(),
        head.free_count(),
        head.parked_count(),
        head.retired_count(),
        head.reserved(),
        head.extents(),
    ];
    let has_sound_free_list = |class| {
        let first = region.class(class).free.load(Ordering::Relaxed).slot();
        first.is_ok_and(|first| {
            first.is_none_or(|slot| {
                arena
                    .slot_and_class(slot)
                    .is_some_and(|(words, of)| of == class && is_free(&header(words), region.number))
            })
        })
    };
    counts.into_iter().all(|word| word.load(Ordering::Relaxed).is_some())
        && has_sound_words(region)
        && region.count_fresh().is_ok()
        && [SlotQueue::Retired, SlotQueue::Parked].into_iter().all(|queue| region.has_sound_ends(queue))
        && (0..arena.geo.classes).all(has_sound_free_list)
}

/// For a region that is written to, without the lock: free slots that look wrong by what they lead to, and of the versions that are not
/// explained those that no tombstone hides.
pub(crate) fn look_again(
    region: &Region<'_>,
    extents: &[Extent],
    unexplained: &mut Vec<VersionAt>,
) -> Result<Vec<u32>> {
    let arena = region.arena;
    let mut wanted: HashMap<u64, u64> = HashMap::new(); // The highest `seq` of a tombstone, by id.
    wanted.extend(unexplained.iter().map(|&(id, ..)| (id, 0)));
    let mut in_doubt = Vec::new();
    for extent in extents {
        for (n, slot) in (0..extent.slots).zip(extent.slot_numbers(&arena.geo)) {
            let Some(words) = arena.slot_in(extent, n) else { continue };
            let header = header(words);
            if is_free(&header, region.number) {
                if !links_to_free(region, words, extent.class) {
                    in_doubt.push(slot);
                }
            } else if header.is_parked() && !region.has_sound_link(SlotQueue::Parked, slot)
                || header.kind() == SlotKind::Tombstone && !region.has_sound_link(SlotQueue::Retired, slot)
            {
                in_doubt.push(slot);
            } else if header.kind() == SlotKind::Tombstone
                && let Some(hides) = wanted.get_mut(&header.id())
            {
                *hides = header.seq().max(*hides);
            }
        }
    }
    unexplained.retain(|&(id, seq, _)| wanted.get(&id).is_none_or(|&hides| hides < seq));
    Ok(in_doubt)
}

/// For the owner of the region's lock: whether a version that is not explained is there still.
pub(crate) fn is_still_there(arena: &Arena, (id, seq, slot): VersionAt) -> bool {
    let header = arena.slot(slot).map(header);
    header.is_some_and(|h| (h.id(), h.seq(), h.kind()) == (id, seq, SlotKind::Record))
}
