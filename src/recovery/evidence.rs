//! The records that a region had, by its derived parts: the index leads to every record, and the head counts them.
//!
//! A slot that is gone shows nothing. So `verify`, `repair` and `salvage` ask the index and the count. The answer is used only
//! for a report: both may be damaged, and then the report says that the number is not known.
//!
//! 1. If all lines of an index hold, each entry is followed: does it lead to a version? A damaged version is reported by its
//!    slot.
//! 2. If a line is damaged, or the table is not where the head says, the head's count of records is compared.
//! 3. A rebuild that finds records gone counts them in the head before it clears the index. They are reported until a repair.
//! 4. If a process dies in a deletion, an entry may lead to a slot of which only `seq` is 0. That is no loss.

use crate::format::geometry::Geometry;
use crate::format::index::{FIRST_LINES_LOG2, LINE_WORDS, LINES_LOG2_MAX, Shape};
use crate::format::region::{HEAD_WORDS, Head, Losses};
use crate::format::slot;
use crate::protocol::index::load_line;
use crate::protocol::lock::{self, LockState};
use crate::protocol::slot::header;
use crate::report::Missing;
use crate::sys::atomic::Ordering;
use crate::sys::mapping::Mapping;

/// The content of a slot, for counting missing records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// A whole version.
    Whole,
    /// A damaged one, which is reported by itself.
    Damaged,
    /// Neither.
    Nothing,
}

/// The result for the records that a region had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// No record is missing.
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

/// Compares the records that were found of a region with its index and its head. `offset_of`: where a slot is in the file; `found`: the region's whole records; `damaged`: its
/// records that are reported by their slots.
pub(crate) fn missing(
    map: &Mapping,
    geo: &Geometry,
    region: u32,
    offset_of: &dyn Fn(u32) -> Option<u64>,
    held: impl Fn(u32) -> Held,
    found: u64,
    damaged: u64,
) -> Told {
    let Some(head) = head(map, geo, region) else { return Told::Unknown };
    let shape = head.shape().load(Ordering::Acquire);
    let is_owned =
        !matches!(lock::state(head.lock().load(Ordering::Acquire)), LockState::Free | LockState::Clean);
    let is_gone =
        |number: u32| held(number) == Held::Nothing && !(is_owned && is_deletion(map, offset_of(number)));
    let by_index = gone_by_index(map, geo, region, &shape, is_gone);
    let by_count = || head.live().load(Ordering::Acquire).map(|live| live.saturating_sub(found + damaged));
    let (records, what) = match by_index {
        Index::Whole(gone) => (gone, "its index leads to slots without a version"),
        Index::Damaged(gone) => match by_count() {
            Some(less) if less > gone => (less, "its count of records says so; its index is damaged"),
            Some(_) => (gone, "its index, a part of which is damaged, leads to slots without a version"),
            None if gone == 0 => return Told::Unknown,
            None => (
                gone,
                "its index, a part of which is damaged, leads to slots without a version; there may be others",
            ),
        },
    };
    // An index that was built anew leads to none of these any more.
    let before = head.damaged().load(Ordering::Acquire).map_or(0, |number| Losses::of(number).gone);
    let (records, what) = match before {
        0 => (records, what),
        _ => (records + before, "its index led to slots without a version when it was built anew"),
    };
    match records {
        0 => Told::Complete,
        _ => Told::Missing(Missing { region, records, what: what.to_owned() }),
    }
}

/// The number of entries of the index of a region that lead to no version: of all, if it can be read, or of the lines that hold.
pub(crate) fn gone_at_least(
    map: &Mapping,
    geo: &Geometry,
    region: u32,
    shape: &Shape,
    is_gone: impl Fn(u32) -> bool,
) -> u64 {
    match gone_by_index(map, geo, region, shape, is_gone) {
        Index::Whole(gone) | Index::Damaged(gone) => gone,
    }
}

/// The number of entries of an index that lead to no version.
enum Index {
    /// The whole index could be read.
    Whole(u64),
    /// Only a part of it could be read, or nothing.
    Damaged(u64),
}

fn gone_by_index(
    map: &Mapping,
    geo: &Geometry,
    region: u32,
    shape: &Shape,
    is_gone: impl Fn(u32) -> bool,
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
        gone += line.slots(shape).filter(|&slot| is_gone(slot)).count() as u64;
    }
    if is_whole { Index::Whole(gone) } else { Index::Damaged(gone) }
}

/// Whether a slot is one in which a deletion was cut off.
fn is_deletion(map: &Mapping, offset: Option<u64>) -> bool {
    let words = offset.and_then(|offset| map.words(offset, slot::HEADER_WORDS));
    words.map(header).is_some_and(|header| header.seq() == 0 && !header.is_fresh_but_for_seq())
}
