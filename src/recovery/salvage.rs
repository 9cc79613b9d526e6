//! Salvage: records out of a file that can't be opened. Only the slots are believed.
//!
//! 1. The geometry is the one with which most of the file agrees: see [`identity`](super::identity). If no part gives a
//!    geometry, slots are searched for: see [`search`](super::search).
//! 2. Per id the whole version with the highest `seq` wins. If it is a tombstone, the id has no record.
//! 3. A member of a batch that does not count is left out, as in a rebuild: heads and control page tell which members these
//!    are. If they are damaged, the members are taken, and the report says so.
//! 4. Losses are reported: damaged slots by their ids; and per region the number of records that no slot holds, by its index
//!    or its count. If both are destroyed, the report says that the number is not known.

use std::collections::HashSet;

use crate::file::extents::{Headers, Reached, uniform};
use crate::format::control::{CONTROL, CONTROL_WORDS, Control, Mark};
use crate::format::epoch::Epoch;
use crate::format::extent::{Extent, ExtentKind, NO_CLASS};
use crate::format::geometry::Geometry;
use crate::format::slot::{HEADER_BYTES, HEADER_WORDS, Header, PRESENT, SlotKind};
use crate::protocol::newest::Newest;
use crate::protocol::slot::header;
use crate::recovery::evidence::{self, Held, Told};
use crate::recovery::identity::{identify, units_begun};
use crate::recovery::search::each_slot;
use crate::region::batch::is_member;
use crate::report::Missing;
use crate::sys::atomic::Ordering;
use crate::sys::copy::copy_out;
use crate::sys::mapping::Mapping;

/// Longest record that is searched for if nothing gives the record size, in bytes.
const SEARCHED_LEN_MAX: u64 = 64 << 10;

/// No store has versions beyond this: with a write each nanosecond it takes three days to get here. Random bytes of index
/// tables seldom pass this test.
const LIKELY_MAX: u64 = 1 << 48;

/// A slot that was found of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remains {
    /// The header of its slot.
    pub(crate) header: Header,
    /// Where its slot is in the file.
    pub(crate) offset: u64,
    /// The number of its slot, if the geometry is known.
    pub(crate) slot: Option<u32>,
}

/// The result of a search of a file.
#[derive(Debug)]
pub(crate) struct Salvaged {
    /// The geometry, if a part of the file gives it.
    pub(crate) geometry: Option<Geometry>,
    /// The part that gives it, in words.
    pub(crate) source: String,
    /// The newest whole version of each record, in the order of the file.
    pub(crate) records: Vec<Remains>,
    /// Damaged slots whose id has no whole version that is as new.
    pub(crate) lost: Vec<Remains>,
    /// All slots of the ids in `lost`.
    lost_slots: HashSet<u32>,
    /// Records that no slot holds, by the index or the count of their regions.
    pub(crate) missing: Vec<Missing>,
    /// Questions that could not be answered, in words.
    pub(crate) unknown: Vec<String>,
    /// The tag of the type of the records; 0: none, or not known.
    pub(crate) type_tag: u64,
}

/// Searches a file. `record_size`: given by the user, for a file in which nothing gives it. `boot`: the present boot.
/// `tell` is told how many bytes of the file were searched.
pub(crate) fn search(
    map: &Mapping,
    record_size: Option<u64>,
    boot: [u64; 2],
    mut tell: impl FnMut(u64),
) -> Salvaged {
    let mut tally = Tally::default();
    let Some(identity) = identify(map) else {
        let len_max = record_size.unwrap_or(SEARCHED_LEN_MAX);
        each_slot(
            map,
            0..map.len(),
            |header| is_plausible(header, len_max),
            |offset, header| {
                tally.take(Remains { header: *header, offset, slot: None });
            },
            &mut tell,
        );
        let mut found = tally.end(None);
        found.source = "slots were searched for: no superblock and no extent header is left".to_owned();
        found.unknown.push("which records are lost: no part of the file that lists them is left".to_owned());
        if found.records.iter().any(|remains| remains.header.is_of_batch()) {
            let what = "which batches counted: the records may include members of an unfinished batch";
            found.unknown.push(what.to_owned());
        }
        found.take_tag(map);
        return found;
    };
    let geo = &identity.geometry;
    let batches = Batches::new(map, geo, boot);
    let extents = extents(&Headers { map, geo, tag: identity.tag, file: None });
    by_arithmetic(map, geo, &extents, &batches, &mut tally, tell);
    let versions = std::mem::take(&mut tally.versions);
    let (given_up, undecided) = (tally.given_up, tally.undecided);
    let mut found = tally.end(Some(*geo));
    let damaged = std::mem::take(&mut found.lost_slots);
    found.source = identity.source();
    found.take_tag(map);
    if given_up != 0 {
        found.unknown.push(format!(
            "whether {given_up} writes of batches that no sync had made durable were whole: they were given up, \
             as a recovery does"
        ));
    }
    if undecided != 0 {
        found.unknown.push(format!(
            "whether the batches counted that made {undecided} writes: the words that decide it are damaged, so \
             these were taken"
        ));
    }
    let offset_of = |slot: u32| {
        let next = extents.partition_point(|extent| extent.slot_numbers(geo).end <= slot);
        let extent = extents.get(next)?;
        let within = slot.checked_sub(extent.slot_numbers(geo).start)?;
        Some(extent.slot_at(geo, within))
    };
    found.compare(map, geo, &offset_of, |slot| {
        if versions.contains(&slot) {
            Held::Whole
        } else if damaged.contains(&slot) {
            Held::Damaged
        } else {
            Held::Nothing
        }
    });
    found
}

impl Salvaged {
    /// Takes the tag of the type from the two words that tell it.
    fn take_tag(&mut self, map: &Mapping) {
        let Some(control) = control(map) else { return };
        let [tag, durable] =
            [control.type_tag(), control.durable_tag()].map(|word| word.load(Ordering::SeqCst));
        if durable == tag {
            self.type_tag = tag;
        } else {
            let what = "the type of the records: the two words of its tag contradict each other; the copy has no tag";
            self.unknown.push(what.to_owned());
        }
    }

    /// Step 4: compares the found records with the derived parts.
    fn compare(
        &mut self,
        map: &Mapping,
        geo: &Geometry,
        offset_of: &dyn Fn(u32) -> Option<u64>,
        held: impl Fn(u32) -> Held,
    ) {
        let per_region = |remains: &[Remains]| {
            let mut counts = vec![0; geo.regions as usize];
            for remains in remains {
                counts[geo.region_of(geo.hash(remains.header.id())) as usize] += 1;
            }
            counts
        };
        let (found, lost) = (per_region(&self.records), per_region(&self.lost));
        let mut unknown = 0;
        for region in 0..geo.regions {
            let (found, lost) = (found[region as usize], lost[region as usize]);
            match evidence::missing(map, geo, region, offset_of, &held, found, lost) {
                Told::Complete => {}
                Told::Missing(missing) => self.missing.push(missing),
                Told::Unknown => unknown += 1,
            }
        }
        if unknown != 0 {
            self.unknown.push(format!(
                "which records of {unknown} of {} regions are lost: their indexes and counts are destroyed",
                geo.regions
            ));
        }
        let in_file = u64::from(geo.units_in(map.len()));
        match control(map).and_then(|control| control.units().load(Ordering::Acquire)) {
            Some(had) if had > in_file => {
                let bytes = (had - in_file).saturating_mul(geo.unit);
                self.unknown.push(format!("the content of the last {bytes} bytes: the file was cut off"));
            }
            _ => {}
        }
    }
}

/// Reads the data of a found record. Returns whether it is still the same.
pub(crate) fn read(map: &Mapping, remains: &Remains, out: &mut Vec<u8>) -> bool {
    let len = remains.header.len();
    out.resize(len, 0);
    let words = map.words(remains.offset + HEADER_BYTES, len.div_ceil(8));
    words.is_some_and(|words| {
        copy_out(words, out);
        remains.header.holds(out)
    })
}

/// The control page, if the file has it.
fn control(map: &Mapping) -> Option<Control<'_>> {
    Control::of(map.words(CONTROL, CONTROL_WORDS)?)
}

/// The words that tell which batches count.
struct Batches<'a> {
    map: &'a Mapping,
    geo: &'a Geometry,
    committed: Option<u64>,
    settled: Option<Epoch>,
    /// The system went down while the store was in use: only settled batches are whole.
    is_crashed: bool,
}

/// The state of a version, by its batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Counts,
    /// It was cut off before it counted.
    Undone,
    /// Other members may not have reached the disk.
    GivenUp,
    /// The words that decide are damaged.
    Unknown,
}

impl<'a> Batches<'a> {
    fn new(map: &'a Mapping, geo: &'a Geometry, boot: [u64; 2]) -> Self {
        let control = control(map);
        let is_crashed = control.is_some_and(|control| {
            let noted = control.seen_through().boot;
            let mark = control.mark().load(Ordering::Acquire);
            let is_in_use = mark != Some(Mark::Clean);
            // A page of zeros was never written, and notes no boot.
            is_in_use && noted != boot && noted != [0, 0]
        });
        Self {
            map,
            geo,
            committed: control.and_then(|control| control.committed().load(Ordering::Acquire)),
            settled: control.and_then(|control| control.settled().load(Ordering::Acquire)),
            is_crashed,
        }
    }

    fn verdict(&self, header: &Header) -> Verdict {
        if !header.is_of_batch() {
            return Verdict::Counts;
        }
        let is_settled = self.settled.map(|settled| header.epoch() <= settled);
        if is_settled == Some(true) {
            return Verdict::Counts;
        }
        let region = self.geo.region_of(self.geo.hash(header.id()));
        let Some(head) = evidence::head(self.map, self.geo, region) else { return Verdict::Unknown };
        let [pending, members] = [head.pending(), head.members()].map(|word| word.load(Ordering::Acquire));
        match (pending, self.committed) {
            _ if self.is_crashed && is_settled == Some(false) => Verdict::GivenUp,
            (Some(0), _) => Verdict::Counts,
            _ if members.is_some() && !is_member(head, header) => Verdict::Counts,
            (Some(pending), Some(committed)) if pending > committed => Verdict::Undone,
            (Some(_), Some(_)) => Verdict::Counts,
            _ => Verdict::Unknown,
        }
    }
}

#[derive(Default)]
struct Tally {
    newest: Newest<Remains>,
    damaged: Vec<Remains>,
    /// Slots that hold a whole version or tombstone, whether or not its batch counts.
    versions: HashSet<u32>,
    /// Members of batches that may not be whole.
    given_up: u64,
    /// Members of batches of which it is not known whether they count.
    undecided: u64,
}

/// Whether a header may be that of a version of up to `len_max` bytes.
fn is_plausible(header: &Header, len_max: u64) -> bool {
    let len = header.len() as u64;
    header.seq() & PRESENT != 0
        && header.version() <= LIKELY_MAX
        && header.has_known_stamp()
        && header.epoch() >= Epoch::FIRST
        && len <= len_max
        && (header.kind() == SlotKind::Record || header.kind() == SlotKind::Tombstone && len == 0)
}

impl Tally {
    /// Takes a whole version, or a tombstone.
    fn take(&mut self, remains: Remains) {
        self.newest.offer(remains.header.id(), remains.header.seq(), remains);
    }

    /// Looks at a slot.
    fn look(
        &mut self,
        map: &Mapping,
        geo: &Geometry,
        (slot, offset): (Option<u32>, u64),
        batches: &Batches<'_>,
        data: &mut Vec<u8>,
    ) {
        let Some(words) = map.words(offset, HEADER_WORDS) else { return };
        let header = header(words);
        if !is_plausible(&header, u64::from(geo.record_size)) {
            return;
        }
        let remains = Remains { header, offset, slot };
        if !read(map, &remains, data) {
            self.damaged.push(remains);
            return;
        }
        self.versions.extend(slot);
        match batches.verdict(&header) {
            Verdict::Counts => {}
            Verdict::Undone => return,
            Verdict::GivenUp => {
                self.given_up += 1;
                return;
            }
            Verdict::Unknown => self.undecided += 1,
        }
        self.take(remains);
    }

    fn end(self, geometry: Option<Geometry>) -> Salvaged {
        let Self { newest, damaged, .. } = self;
        let is_replaced =
            |d: &Remains| newest.get(d.header.id()).is_some_and(|(seq, _)| seq >= d.header.seq());
        let mut lost: Vec<Remains> = damaged.into_iter().filter(|d| !is_replaced(d)).collect();
        let lost_slots = lost.iter().filter_map(|remains| remains.slot).collect();
        lost.sort_unstable_by_key(|d| (d.header.id(), std::cmp::Reverse(d.header.seq())));
        lost.dedup_by_key(|d| d.header.id());
        let mut records: Vec<Remains> = newest
            .iter()
            .map(|(.., kept)| *kept)
            .filter(|kept| kept.header.kind() == SlotKind::Record)
            .collect();
        records.sort_unstable_by_key(|r| r.offset);
        Salvaged {
            geometry,
            source: String::new(),
            records,
            lost,
            lost_slots,
            missing: Vec::new(),
            unknown: Vec::new(),
            type_tag: 0,
        }
    }
}

/// The extents that may hold slots, in the order of their numbers.
fn extents(headers: &Headers<'_>) -> Vec<Extent> {
    let geo = headers.geo;
    let end = units_begun(headers.map, geo);
    let mut found = Vec::new();
    let mut passed = Reached::default();
    if !geo.grows {
        // Whatever their headers say.
        return (0..end).map(|unit| uniform(geo, unit)).collect();
    }
    while let Some(next) = headers.next(passed, end) {
        // The last extent may be cut off: its slots are read as far as they are in the file.
        let is_rest = next.kind.is_none() && next.end() == end;
        let told = if is_rest { headers.at(passed.unit) } else { None };
        let extent = told.filter(|told| told.is_stray || told.group >= passed.group).unwrap_or(next);
        match extent.kind {
            Some(ExtentKind::Index) => {
                found.extend(headers.inside(&Extent { run: extent.end().min(end) - extent.unit, ..extent }))
            }
            Some(ExtentKind::Data { .. }) | None => found.push(extent),
        }
        passed = passed.with(&extent, geo);
    }
    found
}

fn by_arithmetic(
    map: &Mapping,
    geo: &Geometry,
    extents: &[Extent],
    batches: &Batches<'_>,
    tally: &mut Tally,
    mut tell: impl FnMut(u64),
) {
    let mut data = Vec::new();
    for extent in extents {
        let range = extent.range(geo);
        tell(range.start);
        if extent.class != NO_CLASS {
            for (n, slot) in (0..extent.slots).zip(extent.slot_numbers(geo)) {
                tally.look(map, geo, (Some(slot), extent.slot_at(geo, n)), batches, &mut data);
            }
        } else {
            // A header and its copy are lost: how long the slots are is not known.
            let is_plausible = |header: &Header| is_plausible(header, u64::from(geo.record_size));
            let found = |offset: u64, _: &Header| tally.look(map, geo, (None, offset), batches, &mut data);
            each_slot(map, range.clone(), is_plausible, found, |_| {});
        }
    }
}
