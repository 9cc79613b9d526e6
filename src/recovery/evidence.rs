//! What a region had, by what is derived from its slots: its index leads to every record, and its head counts them.
//!
//! A slot that is gone says nothing, so what looks into a wreck asks these. Nothing is built on their answer but a
//! report: they may be damaged themselves, and then it is said that nothing is known.
//!
//! 1. An index whose lines all hold is asked for each entry: is there a version where it leads to? One that is
//!    damaged is reported by its slot.
//! 2. Where a line is damaged, or the table is not where the head says, the head's count of records is compared.
//! 3. A deletion that its process died in leaves an entry to a slot whose `seq` alone is 0. That is no loss.

use crate::format::geometry::Geometry;
use crate::format::index::{FIRST_LINES_LOG2, LINE_WORDS, LINES_LOG2_MAX, Shape};
use crate::format::region::{HEAD_WORDS, Head};
use crate::format::slot;
use crate::protocol::index::load_line;
use crate::protocol::lock::{self, LockState};
use crate::protocol::slot::header;
use crate::report::Missing;
use crate::sys::atomic::Ordering;
use crate::sys::mapping::Mapping;

/// What a slot is, to who counts what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// A whole version.
    Whole,
    /// A damaged one, which is reported by itself.
    Damaged,
    /// Neither.
    Nothing,
}

/// What is known of the records that a region had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing is missing.
    Complete,
    /// Records are missing.
    Missing(Missing),
    /// Neither the index nor the head's count can be read.
    Unknown,
}

/// A region's head, if the file has it.
pub(crate) fn head<'a>(map: &'a Mapping, geo: &Geometry, region: u32) -> Option<Head<'a>> {
    Head::of(map.words(geo.head_offset(region), HEAD_WORDS)?)
}

/// Compares what was found of a region with what its index and head tell. `found`: records of it that are whole;
/// `damaged`: records of it that are reported by their slots.
pub(crate) fn missing(
    map: &Mapping,
    geo: &Geometry,
    region: u32,
    held: impl Fn(u32) -> Held,
    found: u64,
    damaged: u64,
) -> Told {
    let Some(head) = head(map, geo, region) else { return Told::Unknown };
    let shape = head.shape().load(Ordering::Acquire);
    let is_owned =
        !matches!(lock::state(head.lock().load(Ordering::Acquire)), LockState::Free | LockState::Clean);
    let by_index = gone_by_index(map, geo, region, &shape, is_owned, held);
    let by_count = || head.live().load(Ordering::Acquire).map(|live| live.saturating_sub(found + damaged));
    let (records, what) = match by_index {
        Index::Whole(gone) => (gone, "its index leads to slots in which no version is any more"),
        Index::Damaged(gone) => match by_count() {
            Some(less) if less > gone => (less, "its count of records says so; its index is damaged"),
            Some(_) => (
                gone,
                "its index, a part of which is damaged, leads to slots in which no version is any more",
            ),
            None if gone == 0 => return Told::Unknown,
            None => (
                gone,
                "its index, a part of which is damaged, leads to slots in which no version is any more; there may be others",
            ),
        },
    };
    match records {
        0 => Told::Complete,
        _ => Told::Missing(Missing { region, records, what: what.to_owned() }),
    }
}

/// Entries of an index that lead to nothing.
enum Index {
    /// All of it could be read.
    Whole(u64),
    /// A part of it, or nothing.
    Damaged(u64),
}

fn gone_by_index(
    map: &Mapping,
    geo: &Geometry,
    region: u32,
    shape: &Shape,
    is_owned: bool,
    held: impl Fn(u32) -> Held,
) -> Index {
    let is_first = shape.offset() == geo.first_index_offset(region) && shape.lines_log2 == FIRST_LINES_LOG2;
    let is_later = shape.offset() >= geo.base && shape.lines_log2 <= LINES_LOG2_MAX;
    if shape.rebuilding || !(is_first || is_later) {
        return Index::Damaged(0);
    }
    let (mut gone, mut is_whole) = (0, true);
    for number in 0..shape.lines() {
        let line =
            map.words(shape.line_at(number), LINE_WORDS).and_then(|words| words.first_chunk()).map(load_line);
        let Some(line) = line else { return Index::Damaged(gone) };
        if !line.holds(shape.seed(region, number)) {
            is_whole = false;
            continue;
        }
        gone +=
            line.slots(shape).filter(|&slot| is_gone(map, geo, slot, is_owned, held(slot))).count() as u64;
    }
    if is_whole { Index::Whole(gone) } else { Index::Damaged(gone) }
}

fn is_gone(map: &Mapping, geo: &Geometry, number: u32, is_owned: bool, held: Held) -> bool {
    if held != Held::Nothing {
        return false;
    }
    if geo.extent_of(number) >= geo.extents_max() {
        return true;
    }
    let words = map.words(geo.slot_offset(number), slot::HEADER_WORDS);
    let is_deletion = |header: slot::Header| header.seq() == 0 && !header.is_fresh_but_for_seq();
    !(is_owned && words.map(header).is_some_and(is_deletion))
}
