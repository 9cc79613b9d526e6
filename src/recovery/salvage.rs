//! Salvage: records out of a file that can't be opened. Nothing but the slots is believed.
//!
//! The geometry is taken from a superblock, else from any extent header, else the slots are searched
//! for: at every multiple of their alignment, what looks like a slot's header and has a checksum that
//! matches is a slot. Chance makes about one in 2^32 of the lookalikes pass.

use std::collections::HashMap;

use crate::format::PAGE_BYTES;
use crate::format::epoch::Epoch;
use crate::format::extent::{ExtentHeader, HEADER_WORDS as EXTENT_WORDS};
use crate::format::geometry::{FILE_SIZE_MAX, Geometry, SUPERBLOCK_B};
use crate::format::slot::{HEADER_BYTES, HEADER_WORDS, Header, Kind, PRESENT, SLOT_ALIGN};
use crate::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use crate::protocol::slot::header;
use crate::sys::copy::copy_out;
use crate::sys::mapping::Mapping;

/// Longest record that is searched for where nothing tells the record size, in bytes.
const SEARCHED_LEN_MAX: u64 = 64 << 10;

/// Versions and epochs beyond this are no store's: a write each nanosecond takes three days to get here.
/// Bytes of index tables, which look like anything, seldom pass.
const LIKELY_MAX: u64 = 1 << 48;

/// What was found of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remains {
    /// Its id.
    pub(crate) id: u64,
    /// The `seq` of the version.
    pub(crate) seq: u64,
    /// Where its slot is in the file.
    pub(crate) offset: u64,
    /// The length of its data in bytes.
    pub(crate) len: usize,
}

/// What was found in a file.
#[derive(Debug)]
pub(crate) struct Found {
    /// The geometry, if something tells it.
    pub(crate) geometry: Option<Geometry>,
    /// What tells it, in words.
    pub(crate) source: String,
    /// The newest whole version of each record, in the order of the file.
    pub(crate) records: Vec<Remains>,
    /// Damaged slots whose id has no whole version that is as new.
    pub(crate) lost: Vec<Remains>,
}

/// Searches a file. `record_size`: by hand, where nothing in the file tells it.
pub(crate) fn search(map: &Mapping, record_size: Option<u64>) -> Found {
    let (geometry, source) = match find_geometry(map) {
        Some((geometry, source)) => (Some(geometry), source),
        None => (None, "slots were searched for: no superblock and no extent header is left".to_owned()),
    };
    let mut tally = Tally::default();
    match &geometry {
        Some(geometry) => by_arithmetic(map, geometry, &mut tally),
        None => by_search(map, record_size.unwrap_or(SEARCHED_LEN_MAX), &mut tally),
    }
    let Tally { newest, damaged } = tally;
    let as_new = |d: &Remains| newest.get(&d.id).is_some_and(|(kept, _)| kept.seq >= d.seq);
    let mut lost: Vec<Remains> = damaged.into_iter().filter(|d| !as_new(d)).collect();
    lost.sort_unstable_by_key(|d| (d.id, d.offset));
    lost.dedup_by_key(|d| d.id);
    let mut records: Vec<Remains> =
        newest.into_values().filter(|(_, kind)| *kind == Kind::Record).map(|(remains, _)| remains).collect();
    records.sort_unstable_by_key(|r| r.offset);
    Found { geometry, source, records, lost }
}

/// Reads the data of what was found.
pub(crate) fn read(map: &Mapping, remains: &Remains, out: &mut Vec<u8>) {
    out.resize(remains.len, 0);
    if let Some(words) = map.words(remains.offset + HEADER_BYTES, remains.len.div_ceil(8)) {
        copy_out(words, out);
    }
}

fn find_geometry(map: &Mapping) -> Option<(Geometry, String)> {
    for (name, at) in [("first", 0), ("second", SUPERBLOCK_B)] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        copy_out(map.words(at, SUPERBLOCK_BYTES / 8)?, &mut bytes);
        if let Ok((geometry, _)) = Superblock::parse(&bytes) {
            return Some((geometry, format!("the {name} superblock tells the geometry")));
        }
    }
    for page in 0..map.len() / PAGE_BYTES {
        let mut bytes = [0; EXTENT_WORDS * 8];
        copy_out(map.words(page * PAGE_BYTES, EXTENT_WORDS)?, &mut bytes);
        if let Some((record_size, slots_log2, regions, key)) = ExtentHeader::geometry(&bytemuck::cast(bytes))
            && let Ok(geometry) = Geometry::new(record_size, slots_log2, regions, FILE_SIZE_MAX, key)
        {
            return Some((
                geometry,
                format!("the extent header at offset {} tells the geometry", page * PAGE_BYTES),
            ));
        }
    }
    None
}

#[derive(Default)]
struct Tally {
    newest: HashMap<u64, (Remains, Kind)>,
    damaged: Vec<Remains>,
}

impl Tally {
    /// Looks at what may be a slot; its bytes if it is one and whole.
    fn look(&mut self, map: &Mapping, offset: u64, len_max: u64) -> Option<u64> {
        let header: Header = header(map.words(offset, HEADER_WORDS)?);
        let kind = header.kind();
        let len = header.len() as u64;
        let plausible = header.seq() & PRESENT != 0
            && header.version() <= LIKELY_MAX
            && header.has_known_stamp()
            && header.epoch() >= Epoch::FIRST
            && len <= len_max
            && (kind == Kind::Record || kind == Kind::Tombstone && len == 0);
        if !plausible {
            return None;
        }
        let remains = Remains { id: header.id(), seq: header.seq(), offset, len: header.len() };
        let words = map.words(offset + HEADER_BYTES, header.len().div_ceil(8))?;
        let mut data = vec![0; header.len()];
        copy_out(words, &mut data);
        if !header.holds(&data) {
            self.damaged.push(remains);
            return None;
        }
        let kept = self.newest.entry(header.id()).or_insert((remains, kind));
        if kept.0.seq < header.seq() {
            *kept = (remains, kind);
        }
        Some(HEADER_BYTES + len)
    }
}

fn by_arithmetic(map: &Mapping, geometry: &Geometry, tally: &mut Tally) {
    // The last extent may be cut off: its slots count as far as they are there.
    let extents = geometry.extents_in(map.len()).saturating_add(1).min(geometry.extents_max());
    for extent in 0..extents {
        let first = geometry.first_slot(extent);
        for slot in first..first + geometry.slots_per_extent() {
            tally.look(map, geometry.slot_offset(slot), u64::from(geometry.record_size));
        }
    }
}

fn by_search(map: &Mapping, len_max: u64, tally: &mut Tally) {
    let mut offset = 0;
    while offset < map.len() {
        let bytes = tally.look(map, offset, len_max).unwrap_or(SLOT_ALIGN);
        offset += crate::format::round_up(bytes, SLOT_ALIGN);
    }
    // Among bytes that are no slots, lookalikes with a wrong checksum are the rule.
    tally.damaged.clear();
}
