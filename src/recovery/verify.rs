//! Checking everything, changing nothing: each slot by its own bytes, then every derived structure
//! against the slots.

use std::collections::HashSet;

use crate::error::Result;
use crate::file::arena::Arena;
use crate::file::extents::Reached;
use crate::file::pass;
use crate::file::seat::damaged_seats;
use crate::file::survey::{SlotState, survey};
use crate::format::epoch::Epoch;
use crate::format::extent::Extent;
use crate::format::geometry::SUPERBLOCK_B;
use crate::format::index::ENTRIES;
use crate::format::keyed::{KeyHash, NotEntries, entries};
use crate::format::region::Losses;
use crate::format::slot::{Address, Header, block_of};
use crate::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use crate::format::word::{Checked, Reference};
use crate::protocol::index::load_line;
use crate::protocol::lock::{self, LockState};
use crate::protocol::newest::Newest;
use crate::protocol::slot::{header, is_free};
use crate::recovery::adopt::flawed;
use crate::recovery::evidence::{self, Held, Told};
use crate::recovery::rebuild::Surroundings;
use crate::recovery::recover::mark_lies;
use crate::region::find::Found;
use crate::region::head::Region;
use crate::region::slots::SlotQueue;
use crate::report::{Damage, Missing, VerifyReport};
use crate::sys::atomic::Ordering;
use crate::sys::copy::copy_out;

/// A header is looked at this many times before it is taken for damaged: a growth may be writing it.
const HEADER_LOOKS: u32 = 100;

/// Checks the parts that belong to the store as a whole.
pub(crate) fn check_store(arena: &Arena, report: &mut VerifyReport) -> Result<()> {
    for (name, at) in [("first", 0), ("second", SUPERBLOCK_B)] {
        if !superblock_holds(arena, at) {
            report.damage.push(Damage::of_store(format!("the {name} superblock is damaged")));
        }
    }
    for name in arena.control().damaged_words() {
        report.damage.push(Damage::of_store(format!("the {name} in the control page is damaged")));
    }
    if mark_lies(arena) {
        report.damage.push(Damage::of_store("the mark of use in the control page is damaged"));
    }
    let control = arena.control();
    // In this order: a flush raises the epoch first, and growth extends the file first.
    for (name, word) in
        [("durable epoch", control.durable()), ("epoch of settled batches", control.settled())]
    {
        let early = word.load(Ordering::SeqCst);
        if early.is_some_and(|early| arena.epoch().is_ok_and(|epoch| early >= epoch)) {
            report.damage.push(Damage::of_store(format!("the {name} is not below the epoch")));
        }
    }
    if control
        .epoch()
        .load(Ordering::SeqCst)
        .is_some_and(|epoch| epoch < Epoch::FIRST || !epoch.is_credible())
    {
        report.damage.push(Damage::of_store("the epoch in the control page is impossible"));
    }
    for (name, word) in [("units", control.units()), ("durable units", control.durable_units())] {
        let noted = word.load(Ordering::SeqCst);
        let count = u64::from(arena.unit_count()?);
        if let Some(noted) = noted.filter(|&noted| noted > count) {
            let what = format!("the number of {name} is {noted}, and the file has {count}");
            report.damage.push(Damage::of_store(what));
        }
    }
    for seat in damaged_seats(arena)? {
        let what = "which records it reads is not known: the slots of all are kept until its process closes the store";
        report.damage.push(Damage::of_store(format!("seat {seat} is damaged; {what}")));
    }
    if let LockState::Damaged = lock::state(arena.control().batch_lock().load(Ordering::SeqCst)) {
        report.damage.push(Damage::of_store("the lock word of batches is damaged"));
    }
    // A growth that is under way writes a header, and notes the number of extents after that. So each extent that was noted
    // before the look has a header, unless it is damaged.
    let noted = arena.control().units().load(Ordering::SeqCst);
    let is_noted = |extent: &Extent| noted.is_none_or(|noted| u64::from(extent.unit) < noted);
    // A growth that was cut off leaves extents without a header. The next growth notes their number, and a later one uses them.
    let is_lost = |extent: &Extent| match extent.kind {
        Some(_) => arena.extent_at(extent.unit) != Some(*extent),
        None => {
            let now = arena.headers().next(Reached::before(extent), extent.end());
            now.is_none_or(|now| now.kind.is_none())
        }
    };
    // A header that was forged and is not believed, or is believed and should not be.
    let is_contradicted = |extent: &Extent| {
        let headers = [arena.extent_at(extent.unit), arena.headers().twin_of(extent)];
        extent.kind.is_some() && headers.into_iter().flatten().any(|told| told != *extent)
    };
    let stays = |flaw: &dyn Fn(&Extent) -> bool, extent: &Extent| {
        (0..HEADER_LOOKS).all(|_| {
            std::thread::yield_now();
            flaw(extent)
        })
    };
    // An extent that is given back has no header any more, and then its bytes are zeros. So the look is done again, if one was.
    for look in 1.. {
        let layout = arena.numbers.layout();
        let mut damaged = Vec::new();
        for extent in flawed(arena)? {
            // The copy of a header is missing, if the process that wrote the header died before it wrote the copy.
            let what = match is_noted(&extent) {
                true if stays(&is_contradicted, &extent) => "two headers that contradict each other",
                true if stays(&is_lost, &extent) && !arena.is_unused(&extent) => "no valid header",
                _ => continue,
            };
            damaged.push(Damage::of_store(format!("extent {} has {what}", extent.unit)));
        }
        if damaged.is_empty() || arena.has_layout(layout) || look == HEADER_LOOKS {
            report.damage.extend(damaged);
            break;
        }
    }
    Ok(())
}

/// Whether the superblock at `at` has the geometry and the uuid with which the store was opened.
pub(crate) fn superblock_holds(arena: &Arena, at: u64) -> bool {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    copy_out(arena.fixed(at, SUPERBLOCK_BYTES / 8), &mut bytes);
    matches!(Superblock::parse(&bytes), Ok((geo, uuid)) if geo == arena.geo && uuid == arena.uuid)
}

/// The slots of a region, by their own bytes.
#[derive(Default)]
struct Census {
    /// Per id: the slot of its newest version, and whether it is a record.
    newest: Newest<(u32, bool)>,
    /// Ids whose highest `seq` is a record's.
    live: u64,
    /// Versions, tombstones among them.
    versions: u64,
    /// The slots of the versions.
    version_slots: Vec<u32>,
    damaged_slots: HashSet<u32>,
    free: u64,
    fresh: u64,
    reserved: u64,
    slots: u64,
    extents: u64,
    seq_max: u64,
    cut_off: Vec<u32>,
}

impl Census {
    fn damaged(&self) -> u64 {
        self.damaged_slots.len() as u64
    }

    /// The ids whose newest version is a record, each with its slot.
    fn records(&self) -> impl Iterator<Item = (u64, u32)> {
        self.newest.iter().filter(|(.., (_, is_record))| *is_record).map(|(id, _, &(slot, _))| (id, slot))
    }

    /// Slots that belong on a queue: replaced versions, tombstones, and parked slots.
    fn replaced(&self) -> HashSet<u32> {
        let live: HashSet<u32> = self.records().map(|(_, slot)| slot).collect();
        let versions = self.version_slots.iter().filter(|slot| !live.contains(slot));
        versions.chain(&self.cut_off).copied().collect()
    }
}

/// Checks one region. All that is checked here must be looked at by `recovery::sound` too: `verify` asks that first. `at_rest`: no process writes to it meanwhile. If one may, each slot is checked only by its own bytes.
pub(crate) fn check_region(
    region: &Region<'_>,
    around: Surroundings,
    at_rest: bool,
    report: &mut VerifyReport,
) -> Result<()> {
    let number = region.number;
    let census = take_census(region, around.extents, report)?;
    report.slots += census.slots;
    report.records += census.live;
    if !at_rest {
        return Ok(());
    }
    // `check_counts` reports damaged queues.
    let parked: HashSet<u32> = region.queued(SlotQueue::Parked).unwrap_or_default().into_iter().collect();
    for &slot in &census.cut_off {
        if !parked.contains(&slot) {
            report.damage.push(Damage::of_slot(number, slot, None, "neither free nor a record"));
        } else if !region.arena.slot(slot).is_some_and(|words| header(words).is_parked()) {
            report.damage.push(Damage::of_slot(number, slot, None, "it is parked, and does not say so"));
        }
    }
    let mut flaws = Vec::new();
    let shape = region.shape();
    if shape.rebuilding {
        flaws.push("a rebuild was begun and not finished".to_owned());
    } else if shape.batch {
        flaws.push("a batch was begun and not finished".to_owned());
    } else if !around.table_is_sound {
        flaws.push("its head gives an impossible place for its index".to_owned());
    } else {
        check_index(region, &census, &mut flaws);
    }
    check_counts(region, &census, &mut flaws);
    if !region.head.intent().is_zero(Ordering::Relaxed) {
        flaws.push("its head says that a write was begun and not ended".to_owned());
    }
    if let Some(missing) = missing(region, &census) {
        flaws.push(format!("{} records are missing: {}", missing.records, missing.what));
        report.missing.push(missing);
    }
    report.damage.extend(flaws.into_iter().map(|what| Damage::of_region(number, what)));
    Ok(())
}

/// The records that the region had, and that no slot holds.
fn missing(region: &Region<'_>, census: &Census) -> Option<Missing> {
    let versions: HashSet<u32> = census.version_slots.iter().copied().collect();
    let held = |slot| {
        if versions.contains(&slot) {
            Held::Whole
        } else if census.damaged_slots.contains(&slot) {
            Held::Damaged
        } else {
            Held::Nothing
        }
    };
    let arena = region.arena;
    let offset_of = |slot| arena.slot_offset(slot);
    let (found, damaged) = (census.live, census.damaged());
    match evidence::missing(&arena.map, &arena.geo, region.number, &offset_of, held, found, damaged) {
        Told::Missing(missing) => Some(missing),
        Told::Complete | Told::Unknown => None,
    }
}

fn take_census(region: &Region<'_>, extents: Vec<Extent>, report: &mut VerifyReport) -> Result<Census> {
    let (arena, number) = (region.arena, region.number);
    let mut census = Census::default();
    let mut not_entries = HashSet::new();
    let mut buffer = Vec::new();
    census.extents = extents.len() as u64;
    for slot in pass::slots_in(arena, extents) {
        let (slot, words) = slot?;
        census.slots += 1;
        match survey(words, number, &arena.geo, &mut buffer) {
            state @ (SlotState::Version(h) | SlotState::Tombstone(h)) => {
                census.versions += 1;
                census.version_slots.push(slot);
                census.seq_max = census.seq_max.max(h.seq());
                let is_record = matches!(state, SlotState::Version(_));
                if is_record && h.address() == Address::Key && !is_of_its_keys(arena, &h, &buffer) {
                    not_entries.insert((h.id(), slot));
                }
                census.newest.offer(h.id(), h.seq(), (slot, is_record));
            }
            SlotState::Damaged(h, what) => {
                census.damaged_slots.insert(slot);
                report.damage.push(Damage::of_slot(number, slot, Some(h.id()), what));
            }
            SlotState::FreeButForSeq => {
                report.damage.push(Damage::of_slot(number, slot, None, "a free slot's seq is not 0"));
            }
            SlotState::Free => census.free += 1,
            SlotState::Fresh => census.fresh += 1,
            SlotState::Reserved(..) => census.reserved += 1,
            SlotState::CutOff => census.cut_off.push(slot),
            SlotState::Moved => {}
        }
    }
    census.live = census.records().count() as u64;
    // Only current records are checked: replaced versions are not read.
    for (id, slot) in census.records().filter(|record| not_entries.contains(record)) {
        report.damage.push(Damage::of_slot(number, slot, Some(id), NotEntries::WHAT));
    }
    Ok(census)
}

/// Whether all entries of a keyed record are of keys with its id.
pub(crate) fn is_of_its_keys(arena: &Arena, header: &Header, data: &[u8]) -> bool {
    entries(data).all(|entry| {
        entry.is_ok_and(|entry| KeyHash::new(arena.geo.hash_key, entry.name).id(entry.key) == header.id())
    })
}

fn check_index(region: &Region<'_>, census: &Census, flaws: &mut Vec<String>) {
    let (arena, number, shape) = (region.arena, region.number, region.shape());
    let (mut live, mut markers) = (0u64, 0u64);
    for line_number in 0..shape.lines() {
        let Some(words) = arena.line(&shape, line_number) else {
            flaws.push("its index lies outside the file".to_owned());
            return;
        };
        let line = load_line(words);
        if !line.holds(shape.seed(number, line_number)) {
            flaws.push(format!("line {line_number} of its index is damaged"));
            continue;
        }
        for &entry in line.0[..ENTRIES].iter().filter(|&&e| e != 0) {
            let Some(slot) = shape.slot(entry) else {
                markers += 1;
                continue;
            };
            live += 1;
            let id = arena.slot(slot).map(|words| header(words).id());
            let newest = id.and_then(|id| census.newest.get(id));
            if newest.is_some_and(|(_, newest)| *newest != (slot, true)) {
                flaws.push(format!("its index names slot {slot}, which is not its record's any more"));
            }
        }
    }
    for (id, slot) in census.records() {
        match region.find(arena.geo.hash(id), id) {
            Ok(Found::Hit { slot: found, .. }) if found == slot => {}
            _ => flaws.push(format!("its index does not lead to record {id:#x} in slot {slot}")),
        }
    }
    for (name, word, counted) in
        [("records", region.head.live(), live), ("deleted entries", region.head.markers(), markers)]
    {
        if word.load(Ordering::Relaxed) != Some(counted) {
            flaws.push(format!("its count of {name} is not {counted}, which its index has"));
        }
    }
    if live < census.live || live > census.live + census.damaged() {
        flaws.push(format!("its index has {live} records and its slots {}", census.live));
    }
}

fn check_counts(region: &Region<'_>, census: &Census, flaws: &mut Vec<String>) {
    let arena = region.arena;
    let mut free = 0;
    for class in 0..arena.geo.classes {
        let mut next = region.class(class).free.load(Ordering::Relaxed);
        while next != Reference::NONE && free <= census.free {
            let first = next.slot().ok().flatten().and_then(|slot| arena.slot_and_class(slot));
            match first.filter(|(_, of)| *of == class).map(|(words, _)| header(words)) {
                Some(h) if is_free(&h, region.number) => next = h.next_free(),
                _ => {
                    flaws.push(format!("its free list names {:#x}, which is not free", next.word()));
                    break;
                }
            }
            free += 1;
        }
    }
    if free != census.free || region.head.free_count().load(Ordering::Relaxed) != Some(free) {
        flaws.push(format!("its free list has {free} slots of {}", census.free));
    }
    match region.count_fresh() {
        Ok(fresh) if fresh == census.fresh => {}
        Ok(fresh) => {
            flaws.push(format!("{} slots were never used, and its head says {fresh}", census.fresh));
        }
        Err(_) => flaws.push("its reference to the slots that were never used is damaged".to_owned()),
    }
    match (region.queued(SlotQueue::Retired), region.queued(SlotQueue::Parked)) {
        (Ok(retired), Ok(parked)) => {
            let replaced = census.versions + census.cut_off.len() as u64 - census.live;
            let queued = (retired.len() + parked.len()) as u64;
            let listed: HashSet<u32> = retired.iter().chain(&parked).copied().collect();
            let counted = |word: Checked<'_>| word.load(Ordering::Relaxed);
            if queued != replaced
                || listed != census.replaced()
                || counted(region.head.retired_count()) != Some(retired.len() as u64)
                || counted(region.head.parked_count()) != Some(parked.len() as u64)
            {
                flaws.push(format!("{replaced} replaced versions, of which {queued} are queued"));
            }
        }
        _ => flaws.push("its queue of retired or of parked slots is damaged".to_owned()),
    }
    if region.head.extents().load(Ordering::Relaxed) != Some(census.extents) {
        flaws.push(format!("it has {} extents, which its head does not say", census.extents));
    }
    if region.head.reserved().load(Ordering::Relaxed) != Some(census.reserved) {
        flaws.push(format!("{} slots are reserved, which its head does not say", census.reserved));
    }
    match region.noted_seq() {
        Ok(next_seq) if next_seq > census.seq_max => {}
        Ok(_) => flaws.push("its next sequence number was used already".to_owned()),
        Err(_) => flaws.push("its next sequence number is impossible".to_owned()),
    }
    let given_out = region.arena.control().blocks_given_out();
    if let (Ok(next_seq), Some(blocks)) = (region.noted_seq(), given_out)
        && block_of(next_seq.wrapping_sub(1)) >= blocks
    {
        flaws.push("its next sequence number is none that was given out".to_owned());
    }
    // Slots that were damaged since the last rebuild are not counted.
    let noted = region.head.damaged().load(Ordering::Relaxed).map(Losses::of);
    if noted.is_none_or(|noted| noted.damaged > census.damaged()) {
        flaws.push(format!("its count of damaged slots is not {}", census.damaged()));
    }
    if region.head.reclaimed().load(Ordering::Relaxed).is_none() {
        flaws.push("its last epoch of a freed slot is damaged".to_owned());
    }
    if !region.head.pending().is_zero(Ordering::Relaxed) {
        flaws.push("its head says that a batch is under way".to_owned());
    }
    if region.is_linked().is_err() {
        flaws.push("its mark of links is damaged".to_owned());
    }
}
