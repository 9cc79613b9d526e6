//! Whether a version in a slot took effect, for readers that look at slots and not only at the index (*What counts*, in the
//! chapter on the protocol).
//!
//! 1. A single write took effect when the index led to its version. A deletion with a tombstone in a slot of its own took
//!    effect when the index no longer led to the record. Only the last write of a region may not have taken effect: its
//!    `seq` is the one before the next `seq`.
//! 2. A member of a batch took effect when the number of its batch became the one that counts.
//! 3. The index is evidence if its lines hold and the region is not marked as being rebuilt. If it is no evidence, the slots
//!    decide: no acknowledged write is dropped because of a flipped bit.
//!
//! After the death of an owner, the next owner takes back a write that took no effect before it changes the index. So the
//! result of a read after the death does not change (see the chapter on recovery).

use crate::file::arena::Arena;
use crate::format::index::Shape;
use crate::format::slot::Header;
use crate::protocol::index::{candidates, load_line};
use crate::protocol::slot::header;
use crate::region::batch::is_undecided;
use crate::sys::atomic::Ordering;

/// The slot to which the index leads from an id.
enum Leads {
    /// To this slot.
    To(u32),
    Nowhere,
    /// A line on the way does not hold: a visible write stored half of it, or a bit was flipped.
    Unknown,
}

/// Follows the index that `shape` describes, by lines that hold.
fn leads(arena: &Arena, region: u32, shape: &Shape, id: u64) -> Leads {
    let hash = arena.geo.hash(id);
    for number in shape.walk(hash) {
        let Some(words) = arena.line(shape, number) else { return Leads::Unknown };
        let line = load_line(words);
        if !line.holds(shape.seed(region, number)) {
            return Leads::Unknown;
        }
        let mut found = candidates(&line, shape, hash);
        while found != 0 {
            let entry = line.0[found.trailing_zeros() as usize];
            found &= found - 1;
            let Some(slot) = shape.slot(entry) else { continue };
            let Some(words) = arena.slot(slot) else { return Leads::Unknown };
            let there = header(words);
            if there.seq() != 0 && there.id() == id {
                return Leads::To(slot);
            }
        }
        if line.has_empty() {
            return Leads::Nowhere;
        }
    }
    Leads::Nowhere
}

/// Whether a version is the last write of its region, and the index of `shape` shows that it took no effect (rule 1).
pub(crate) fn took_no_effect(
    arena: &Arena,
    region: u32,
    shape: &Shape,
    slot: u32,
    header: &Header,
    is_record: bool,
) -> bool {
    let next_seq = arena.head(region).next_seq().load(Ordering::Acquire);
    if header.seq().wrapping_add(1) != next_seq || header.is_of_batch() || shape.rebuilding {
        return false;
    }
    match leads(arena, region, shape, header.id()) {
        // A record in its own slot, or a version that was made its own tombstone, took effect.
        Leads::To(current) => current != slot,
        Leads::Nowhere => is_record,
        Leads::Unknown => false,
    }
}

/// Whether a version in a slot counts, for a reader that holds no lock.
pub(crate) fn counts(arena: &Arena, region: u32, slot: u32, header: &Header, is_record: bool) -> bool {
    if is_undecided(arena, region, header) {
        return false;
    }
    let shape = arena.shape(region);
    // If the table was changed meanwhile, its entries prove nothing. A version that took no effect is taken back before the
    // table is changed, so it is gone then.
    !took_no_effect(arena, region, &shape, slot, header, is_record) || arena.shape(region) != shape
}
