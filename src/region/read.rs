//! Reading a record without a lock.

use crate::file::arena::Arena;
use crate::file::pass;
use crate::file::survey::{SlotState, survey};
use crate::format::index::Shape;
use crate::format::slot::Header;
use crate::protocol::index::{candidates, entry_is, load_line};
use crate::protocol::slot::{Seen, read, read_any};
use crate::region::batch::{Listed, batch_number, find_member, pending};
use crate::region::decided::counts;
use crate::sys::atomic::{AtomicU64, Ordering, fence};

/// The result of a look without a lock.
pub(crate) enum Look {
    /// The version, whole, and its slot; data is in the caller's buffer.
    Hit(Header, u32),
    /// There is no such record.
    Miss,
    /// The record is there and damaged.
    Damaged { slot: Option<u32>, what: &'static str },
    /// Something moved: look again.
    Moved,
    /// The region must be rebuilt before it can be read, for this reason.
    Broken(&'static str),
}

const MARKED: &str = "it is being rebuilt";

/// Looks for `id`, whose hash is `hash`, once. The data goes to `out`, if there is one. Constant time: nearly always one index
/// line and one slot.
pub(crate) fn look(arena: &Arena, hash: u64, id: u64, verify: bool, mut out: Option<&mut Vec<u8>>) -> Look {
    match look_at_unmarked(arena, hash, id, verify, out.as_deref_mut()) {
        Look::Broken(MARKED) => match arena.shape(arena.geo.region_of(hash)) {
            Shape { rebuilding: true, .. } => Look::Broken(MARKED),
            Shape { batch: true, .. } => look_in_batch(arena, hash, id, verify, out),
            _ => Look::Moved,
        },
        found => found,
    }
}

/// The same, for the hot path. A marked region, which is rare, is `Broken`; [`look`] tells more.
#[inline]
pub(crate) fn look_at_unmarked(
    arena: &Arena,
    hash: u64,
    id: u64,
    verify: bool,
    out: Option<&mut Vec<u8>>,
) -> Look {
    look_in_index::<false>(arena, hash, id, verify, out)
}

/// The look at a region in which a batch has members: the index does not lead to them.
///
/// If the number of the batch does not count yet, the index is right. If it counts, the members are right, and the index is
/// right for all other records. The head lists the first members. A member that it does not list is found by a look at every
/// slot.
#[cold]
fn look_in_batch(arena: &Arena, hash: u64, id: u64, verify: bool, out: Option<&mut Vec<u8>>) -> Look {
    let region = arena.geo.region_of(hash);
    let layout = arena.numbers.layout();
    let shape = arena.shape(region);
    let committed = || batch_number(arena, arena.control().committed()).unwrap_or(0);
    let pending_now = || pending(arena, region);
    let batch = pending_now();
    if batch > committed() {
        let found = look_in_index::<true>(arena, hash, id, verify, out);
        // If the batch is still undecided, the index was right all the while.
        return if batch > committed() && arena.has_layout(layout) { found } else { Look::Moved };
    }
    if batch == 0 {
        return Look::Moved; // Its last moment, or a flipped bit.
    }
    let found = match find_member(arena, region, id) {
        Listed::None => look_in_index::<true>(arena, hash, id, verify, out),
        Listed::Unknown => Look::Moved,
        Listed::Deleted => Look::Miss,
        Listed::At(slot) => match arena.slot(slot) {
            Some(words) => match read(words, id, arena.geo.record_size as usize, verify, out) {
                Seen::Whole(header) => Look::Hit(header, slot),
                Seen::Damaged(_, what) => Look::Damaged { slot: Some(slot), what },
                _ => Look::Moved,
            },
            None => Look::Moved,
        },
    };
    fence(Ordering::Acquire); // The looks below come after those at the slots.
    let is_the_same = arena.shape(region) == shape && pending_now() == batch && arena.has_layout(layout);
    if is_the_same { found } else { Look::Moved }
}

/// The look into the index of a region: of one that is marked as being in a batch, or of an unmarked one.
#[inline]
fn look_in_index<const IN_BATCH: bool>(
    arena: &Arena,
    hash: u64,
    id: u64,
    verify: bool,
    mut out: Option<&mut Vec<u8>>,
) -> Look {
    let region = arena.geo.region_of(hash);
    let layout = arena.numbers.layout();
    let head = arena.head(region);
    let word = head.shape().bits(Ordering::Acquire); // Pairs with the store in `set_shape`.
    let shape = Shape::decode(word);
    if if IN_BATCH { shape.rebuilding } else { shape.is_marked() } {
        return Look::Broken(MARKED);
    }
    let capacity = arena.geo.record_size as usize;
    let unlinked = head.links().is_zero(Ordering::Relaxed);
    let mut suspect = None;
    for number in shape.walk(hash) {
        let Some(words) = arena.line(&shape, number) else {
            return Look::Broken("its index lies outside the file");
        };
        let line = load_line(words);
        let mut found = candidates(&line, &shape, hash);
        while found != 0 {
            let i = found.trailing_zeros() as usize;
            found &= found - 1;
            let entry = line.0[i];
            let Some(slot) = shape.slot(entry) else { continue };
            let Some(slot_words) = arena.slot(slot) else {
                return if entry_is(words, i, entry) && arena.has_layout(layout) {
                    Look::Broken("its index names a slot outside the file")
                } else {
                    Look::Moved
                };
            };
            match read(slot_words, id, capacity, verify, out.as_deref_mut()) {
                Seen::Whole(header) => {
                    // The slot proves that the version is whole. If the region keeps replaced versions, the line's checksum
                    // must prove that this version is the current one.
                    let current = unlinked || line.holds(shape.seed(region, number));
                    // The slot may have been used again, for a version that is not visible yet.
                    let visible = current && entry_is(words, i, entry);
                    let hit =
                        visible && head.shape().bits(Ordering::Acquire) == word && arena.has_layout(layout);
                    return if hit { Look::Hit(header, slot) } else { Look::Moved };
                }
                Seen::Damaged(_, what) => {
                    let damaged = entry_is(words, i, entry) && arena.has_layout(layout);
                    return if damaged { Look::Damaged { slot: Some(slot), what } } else { Look::Moved };
                }
                Seen::InMotion => return Look::Moved,
                Seen::Other(other) => {
                    // Another record with the same tag, if the entry still stands and the other record is whole. If it is not
                    // whole, its id may be the damaged part.
                    if !entry_is(words, i, entry) || slot_words[0].load(Ordering::Acquire) != other.seq() {
                        return Look::Moved;
                    }
                    match read_any(slot_words, capacity, true, &mut Vec::new()) {
                        Seen::Whole(_) => {}
                        Seen::Damaged(_, what) => suspect = Some((slot, what)),
                        _ => return Look::Moved,
                    }
                }
            }
        }
        if !line.holds(shape.seed(region, number)) {
            return Look::Moved;
        }
        if line.has_empty() {
            break;
        }
    }
    if head.shape().bits(Ordering::Acquire) != word || !arena.has_layout(layout) {
        return Look::Moved;
    }
    match suspect {
        Some((slot, what)) => Look::Damaged { slot: Some(slot), what },
        None if !head.damaged().is_zero(Ordering::Relaxed) => {
            Look::Damaged { slot: None, what: "a damaged slot of the region may have been this record" }
        }
        None => Look::Miss,
    }
}

/// Reads without an index: looks at every slot of the region, its checksum included. For readers that can't heal the
/// region now. Time and page touches grow with the region.
///
/// A damaged slot of the region may hold a newer version of any record. If there is one, the result is damage.
pub(crate) fn look_at_every_slot(
    arena: &Arena,
    hash: u64,
    id: u64,
    out: Option<&mut Vec<u8>>,
) -> crate::error::Result<Look> {
    let region = arena.geo.region_of(hash);
    let next_seq = arena.head(region).next_seq();
    let before = next_seq.load(Ordering::Acquire);
    let first = newest(arena, region, id)?;
    // A write during a pass may move the record from a slot ahead of the pass to a slot behind it. Then the pass finds
    // nothing, or a version that is kept. So there are two passes, and their results must agree. One write can make only one
    // of them wrong, and a second write raises the next `seq`.
    let second = newest(arena, region, id)?;
    fence(Ordering::Acquire); // Pairs with the Release fences of `publish` and `scrub`.
    let is_quiet = next_seq.load(Ordering::Relaxed) == before;
    let (slot, header) = match (first, second) {
        (_, NewestIs::Neither(look)) => return Ok(look),
        (NewestIs::At(a, was), NewestIs::At(b, is)) if is_quiet && (a, was) == (b, is) => (b, is),
        (NewestIs::Absent, NewestIs::Absent) if is_quiet => return Ok(Look::Miss),
        _ => return Ok(Look::Moved),
    };
    let layout = arena.numbers.layout();
    let Some(words) = arena.slot(slot) else { return Ok(Look::Moved) };
    let seen = read(words, id, arena.geo.record_size as usize, true, out);
    if !arena.has_layout(layout) {
        return Ok(Look::Moved);
    }
    Ok(match seen {
        Seen::Whole(now) if now.seq() == header.seq() => Look::Hit(now, slot),
        Seen::Damaged(_, what) => Look::Damaged { slot: Some(slot), what },
        _ => Look::Moved,
    })
}

/// The result of a pass over the slots.
enum NewestIs {
    At(u32, Header),
    /// Nothing, or a tombstone.
    Absent,
    Neither(Look),
}

/// The newest version of `id`, by one pass over the slots of its region.
fn newest(arena: &Arena, region: u32, id: u64) -> crate::error::Result<NewestIs> {
    let mut best: Option<(u32, Header, bool)> = None;
    let mut neither = None;
    let mut buffer = Vec::new();
    let take = |slot: u32, words: &[AtomicU64]| {
        let state = survey(words, region, &arena.geo, &mut buffer);
        match state {
            SlotState::Version(h) | SlotState::Tombstone(h) => {
                let is_record = matches!(state, SlotState::Version(_));
                (h.id() == id && counts(arena, region, slot, &h, is_record)).then_some(Ok((h, is_record)))
            }
            SlotState::Damaged(..) => {
                let what = "a damaged slot of the region may have been this record";
                Some(Err(Look::Damaged { slot: Some(slot), what }))
            }
            SlotState::Moved => Some(Err(Look::Moved)),
            _ => None,
        }
    };
    pass::each_slot_of(arena, region, take, |slot, found| match found {
        Ok((header, is_record)) => {
            if best.is_none_or(|(_, best, _)| best.seq() < header.seq()) {
                best = Some((slot, header, is_record));
            }
        }
        Err(look) => neither = neither.take().or(Some(look)),
    })?;
    if let Some(look) = neither {
        return Ok(NewestIs::Neither(look));
    }
    Ok(match best {
        Some((slot, header, true)) => NewestIs::At(slot, header),
        _ => NewestIs::Absent,
    })
}
