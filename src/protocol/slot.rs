//! Publishing, reading and scrubbing one slot: a sequence lock whose sequence number is the version.
//!
//! Invariants: a slot whose `seq` is not 0 is a whole version and its bytes do not change;
//! a `seq` is never used twice in a region, so an unchanged `seq` means unchanged bytes.

use bytemuck::Zeroable;

use crate::fault::{self, Fault};
use crate::format::slot::{CRC, HEADER_WORDS, Header, SlotKind};
use crate::format::word::Reference;
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::copy::{copy_in, copy_out};
use crate::sys::step::step;

/// The result of a read of a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The version, whole; data is in the caller's buffer.
    Whole(Header),
    /// Another record, whole at the moment of the look.
    Other(Header),
    /// Being written, or free.
    InMotion,
    /// A version whose bytes are not the ones that were written.
    Damaged(Header, &'static str),
}

/// The slot's header as it is now. Only the region's owner may trust it, or a reader that checks `seq` again.
#[inline]
pub(crate) fn header(slot: &[AtomicU64]) -> Header {
    // No slot is shorter than a header.
    let Some([seq, id, stamp, rest]) = slot.first_chunk() else { return Header::zeroed() };
    let seq = seq.load(Ordering::Acquire);
    Header::from_words([
        seq,
        id.load(Ordering::Relaxed),
        stamp.load(Ordering::Relaxed),
        rest.load(Ordering::Relaxed),
    ])
}

/// Bytes of data that a slot has room for.
#[inline]
pub(crate) fn room(slot: &[AtomicU64]) -> usize {
    slot.len().saturating_sub(HEADER_WORDS) * 8
}

/// Writes a version into a free slot of the region that the caller has locked: data and header
/// first, `seq` last.
#[inline]
pub(crate) fn publish(slot: &[AtomicU64], header: Header, data: &[u8]) {
    let header = header.summed(data);
    // A reader that sees any of the stores below sees that `seq` was 0 before (pairs with the Acquire fence in `unchanged`).
    fence(Ordering::Release);
    copy_in(&slot[HEADER_WORDS..], data);
    step("publish: data written");
    store_header(slot, header);
}

/// As `publish`, for a slot whose data is there already.
pub(crate) fn publish_filled(slot: &[AtomicU64], header: Header) {
    fence(Ordering::Release);
    store_header(slot, header);
}

#[inline]
fn store_header(slot: &[AtomicU64], header: Header) {
    let words = header.words();
    for i in (1..HEADER_WORDS).rev() {
        slot[i].store(words[i], Ordering::Relaxed);
    }
    step("publish: header written, seq still 0");
    slot[0].store(words[0], Ordering::Release); // Pairs with the Acquire load in `read`.
    step("publish: seq stored");
}

/// Reads the version of `id` from a slot into `out`, without a lock. `verify`: check the checksum.
/// Without `out` the header alone is read, which has no checksum of its own.
#[inline]
pub(crate) fn read(
    slot: &[AtomicU64],
    id: u64,
    capacity: usize,
    verify: bool,
    out: Option<&mut Vec<u8>>,
) -> Seen {
    let header = header(slot); // Acquire; pairs with the Release store of `seq` in `publish`.
    if header.seq() == 0 {
        return Seen::InMotion;
    }
    if header.id() != id {
        return other(slot, header);
    }
    match out {
        Some(out) => copy_version(slot, header, capacity, verify, out),
        None if header.kind() == SlotKind::Tombstone => tombstone(slot, header),
        None if unchanged(slot, header) => Seen::Whole(header),
        None => Seen::InMotion,
    }
}

/// Reads the version in a slot, of any id, into `out`, without a lock.
#[inline]
pub(crate) fn read_any(slot: &[AtomicU64], capacity: usize, verify: bool, out: &mut Vec<u8>) -> Seen {
    let header = header(slot);
    if header.seq() == 0 {
        return Seen::InMotion;
    }
    copy_version(slot, header, capacity, verify, out)
}

#[inline]
fn copy_version(
    slot: &[AtomicU64],
    header: Header,
    capacity: usize,
    verify: bool,
    out: &mut Vec<u8>,
) -> Seen {
    let len = header.len();
    if header.kind() == SlotKind::Tombstone {
        return tombstone(slot, header);
    }
    if header.kind() != SlotKind::Record || len > capacity.min(room(slot)) {
        return match unchanged(slot, header) {
            true => Seen::Damaged(header, "its kind or length is impossible"),
            false => Seen::InMotion,
        };
    }
    out.resize(len, 0);
    copy_out(&slot[HEADER_WORDS..], out);
    if !unchanged(slot, header) {
        return Seen::InMotion;
    }
    if verify && !header.holds(out) {
        return Seen::Damaged(header, "checksum mismatch");
    }
    Seen::Whole(header)
}

/// Slots that are copied together, at most.
const COPIES_MAX: usize = 32;
/// And their bytes: they stay in the nearest cache.
const COPIED_BYTES_MAX: usize = 4096;

/// Copies of short slots that lie in a row, made together without a lock: one by one, each would wait for its copy
/// before it is summed.
pub(crate) struct Copies {
    bytes: Vec<u8>,
    slot_bytes: usize,
    count: usize,
    each: [Copied; COPIES_MAX],
}

/// The words that were taken out of a copy.
#[derive(Clone, Copy)]
struct Copied {
    /// The slot's `seq` when it was copied.
    seq: u64,
    /// The checksum, in whose place the copy has 0.
    crc: u32,
}

impl Copies {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), slot_bytes: 8, count: 0, each: [Copied { seq: 0, crc: 0 }; COPIES_MAX] }
    }

    /// Makes the copies those of slots of so many bytes. Copies of others are gone. Returns how many slots are copied together; 1,
    /// if they are better read one by one.
    pub(crate) fn of_slots(&mut self, slot_bytes: usize) -> usize {
        if self.slot_bytes != slot_bytes {
            (self.slot_bytes, self.count) = (slot_bytes, 0);
        }
        (COPIED_BYTES_MAX / slot_bytes.max(1)).clamp(1, COPIES_MAX)
    }

    /// Slots of which there are copies.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Copies the slots whose words these are, instead of those before.
    pub(crate) fn take(&mut self, slots: &[AtomicU64]) {
        let words = self.slot_bytes / 8;
        self.count = (slots.len() / words).min(COPIES_MAX);
        for (copied, slot) in self.each.iter_mut().zip(slots.chunks_exact(words)) {
            copied.seq = slot[0].load(Ordering::Acquire); // Pairs with the Release store of `seq` in `publish`.
        }
        self.bytes.resize(self.count * self.slot_bytes, 0);
        copy_out(slots, &mut self.bytes);
        for (copied, copy) in self.each.iter_mut().zip(self.bytes.chunks_exact_mut(self.slot_bytes)) {
            if let Some(crc) = copy.get_mut(CRC).and_then(<[u8]>::first_chunk_mut) {
                copied.crc = u32::from_le_bytes(std::mem::take(crc));
            }
        }
    }

    /// The result that `read_any` gives for the n-th of these slots, and its data. `slot`: the words of the slot.
    #[inline]
    pub(crate) fn read(&self, n: usize, slot: &[AtomicU64], capacity: usize, verify: bool) -> (Seen, &[u8]) {
        let copy = self.bytes.get(n * self.slot_bytes..).unwrap_or_default();
        let (Some((header, data)), Some(copied)) = (copy.split_first_chunk(), self.each.get(n)) else {
            return (Seen::InMotion, &[]);
        };
        let header: &[u8; 8 * HEADER_WORDS] = header;
        let header = bytemuck::pod_read_unaligned::<Header>(header).with_crc(copied.crc);
        if copied.seq == 0 || header.seq() != copied.seq || !unchanged(slot, header) {
            return (Seen::InMotion, &[]);
        }
        // A process may have deleted the record since the copy was made. A deletion in place leaves `seq` as it is.
        let last = HEADER_WORDS - 1;
        if slot[last].load(Ordering::Relaxed) != header.words()[last] {
            return (Seen::InMotion, &[]);
        }
        let len = header.len();
        let seen = match header.kind() {
            SlotKind::Tombstone => tombstone(slot, header),
            SlotKind::Record if len <= capacity.min(data.len()) => {
                if !verify || Header::sum_as_stored(&copy[..8 * HEADER_WORDS + len]) == copied.crc {
                    return (Seen::Whole(header), &data[..len]);
                }
                Seen::Damaged(header, "checksum mismatch")
            }
            _ => Seen::Damaged(header, "its kind or length is impossible"),
        };
        (seen, &[])
    }
}

/// Whether the words that were read of a slot after its header belong to the version of that header.
#[inline]
pub(crate) fn unchanged(slot: &[AtomicU64], header: Header) -> bool {
    fence(Ordering::Acquire); // Pairs with the Release fences in `publish` and `scrub`.
    slot[0].load(Ordering::Relaxed) == header.seq()
}

/// No entry of the index leads to a tombstone for long, unless it is a record whose kind is damaged.
#[cold]
fn tombstone(slot: &[AtomicU64], header: Header) -> Seen {
    if !header.holds(&[]) && unchanged(slot, header) {
        return Seen::Damaged(header, "checksum mismatch");
    }
    Seen::InMotion
}

#[cold]
fn other(slot: &[AtomicU64], header: Header) -> Seen {
    if unchanged(slot, header) { Seen::Other(header) } else { Seen::InMotion }
}

/// Takes a version back: from here on the slot holds no record.
pub(crate) fn retract(slot: &[AtomicU64]) {
    slot[0].store(0, Ordering::Relaxed);
    fence(Ordering::Release); // Pairs with the Acquire fence in `unchanged`.
    step("retract: seq is 0");
}

/// Makes a version its own tombstone, in place. This is one word, so it is there or not, even on disk.
pub(crate) fn bury(slot: &[AtomicU64]) {
    let tombstone = header(slot).tombstone();
    slot[3].store(tombstone.words()[3], Ordering::Release);
    step("bury: tombstone stored");
}

/// Marks a free slot as reserved.
pub(crate) fn reserve(slot: &[AtomicU64], header: Header) {
    fence(Ordering::Release); // As in `publish`: for the stores below, and for those that fill the slot.
    for (to, from) in slot.iter().zip(header.words()).skip(1) {
        to.store(from, Ordering::Relaxed);
    }
    step("reserve: slot marked");
}

/// Makes a slot free: `seq` 0 first, then the kind that says so, and the next free slot.
#[inline]
pub(crate) fn scrub(slot: &[AtomicU64], region: u32, next_free: Reference) {
    if !fault::on(Fault::NoScrub) {
        // Release: a reader that sees the version gone, and looks at all slots again, sees the version that replaced it
        // (pairs with the Acquire load in `header`).
        slot[0].store(0, Ordering::Release);
    }
    fence(Ordering::Release); // Pairs with the Acquire fence in `unchanged`.
    let words = Header::free(region, next_free).words();
    for i in 1..HEADER_WORDS {
        slot[i].store(words[i], Ordering::Relaxed);
    }
    step("scrub: slot scrubbed");
}

/// Parks a slot: from here on it holds no record, and its data stays as it is for borrows.
pub(crate) fn park(slot: &[AtomicU64]) {
    // Release, and the fence: as in `scrub`.
    slot[0].store(0, Ordering::Release);
    fence(Ordering::Release);
    step("park: seq is 0");
    for (to, from) in slot.iter().zip(Header::parked().words()).skip(1) {
        to.store(from, Ordering::Relaxed);
    }
}

/// Marks a free slot that is taken and not written yet: it is not free any more.
pub(crate) fn mark_taken(slot: &[AtomicU64]) {
    slot[2].store(0, Ordering::Relaxed);
}

/// Whether a slot says that it is free and the region's.
#[inline]
pub(crate) fn is_free(header: &Header, region: u32) -> bool {
    header.seq() == 0 && header.is_free_but_for_seq(region)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::format::epoch::Epoch;

    fn slot() -> Vec<AtomicU64> {
        (0..12).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_version_is_read_as_it_was_published() {
        let s = slot();
        let mut out = Vec::new();
        assert_eq!(read(&s, 7, 64, true, Some(&mut out)), Seen::InMotion);
        publish(&s, Header::record(3, 7, Epoch::FIRST, 11), b"hello there");
        assert!(
            matches!(read(&s, 7, 64, true, Some(&mut out)), Seen::Whole(h) if h.seq() == 3 && h.epoch() == Epoch::FIRST)
        );
        assert_eq!(out, b"hello there");
        assert!(matches!(read(&s, 8, 64, true, Some(&mut out)), Seen::Other(h) if h.id() == 7));
        scrub(&s, 2, Reference::to(9));
        assert_eq!(read(&s, 7, 64, true, Some(&mut out)), Seen::InMotion);
        assert!(is_free(&header(&s), 2) && !is_free(&header(&s), 3));
    }

    #[test]
    fn every_flipped_bit_of_a_version_is_seen() {
        let s = slot();
        publish(&s, Header::record(3, 7, Epoch::FIRST, 64), &[0x5a; 64]);
        let mut out = Vec::new();
        for bit in 0..12 * 64 {
            let was = s[bit / 64].load(Ordering::Relaxed);
            s[bit / 64].store(was ^ (1 << (bit % 64)), Ordering::Relaxed);
            assert!(!matches!(read(&s, 7, 64, true, Some(&mut out)), Seen::Whole(_)), "bit {bit}");
            s[bit / 64].store(was, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_copy_is_given_while_its_slot_is_as_it_was() {
        let slots: Vec<AtomicU64> = (0..24).map(|_| AtomicU64::new(0)).collect();
        let mut copies = Copies::new();
        copies.of_slots(96);
        let changes: [fn(&[AtomicU64]); 3] = [bury, retract, |s| scrub(s, 2, Reference::to(9))];
        for (n, change) in changes.into_iter().enumerate() {
            let (first, second) = slots.split_at(12);
            publish(first, Header::record(3 + n as u64, 7, Epoch::FIRST, 64), &[0x5a; 64]);
            publish(second, Header::record(13 + n as u64, 8, Epoch::FIRST, 5), b"hello");
            copies.take(&slots);
            assert_eq!(copies.count(), 2);
            assert!(
                matches!(copies.read(0, first, 64, true), (Seen::Whole(h), [0x5a, ..]) if h == header(first))
            );
            change(second);
            assert_eq!(copies.read(1, second, 64, true), (Seen::InMotion, &[][..]));
            assert!(matches!(copies.read(0, first, 63, true).0, Seen::Damaged(..)));
            assert_eq!(copies.read(2, first, 64, true).0, Seen::InMotion);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_copied_version_is_seen() {
        let s = slot();
        publish(&s, Header::record(3, 7, Epoch::FIRST, 64), &[0x5a; 64]);
        let mut copies = Copies::new();
        copies.of_slots(96);
        for bit in 0..12 * 64 {
            let was = s[bit / 64].load(Ordering::Relaxed);
            s[bit / 64].store(was ^ (1 << (bit % 64)), Ordering::Relaxed);
            copies.take(&s);
            assert!(!matches!(copies.read(0, &s, 64, true).0, Seen::Whole(_)), "bit {bit}");
            s[bit / 64].store(was, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_tombstone_is_no_version_also_where_the_header_alone_is_read() {
        let s = slot();
        publish(&s, Header::record(3, 7, Epoch::FIRST, 4), b"data");
        assert!(matches!(read(&s, 7, 64, true, None), Seen::Whole(_)));
        bury(&s);
        assert_eq!(read(&s, 7, 64, true, None), Seen::InMotion);
        assert_eq!(read(&s, 7, 64, true, Some(&mut Vec::new())), Seen::InMotion);
        s[1].store(8, Ordering::Relaxed);
        assert!(matches!(read(&s, 8, 64, true, None), Seen::Damaged(..)));
    }

    #[test]
    fn a_length_beyond_the_capacity_is_damage_and_nothing_is_read_of_it() {
        let s = slot();
        publish(&s, Header::record(3, 7, Epoch::FIRST, 64), &[1; 64]);
        let mut out = Vec::new();
        assert!(matches!(read(&s, 7, 64, true, Some(&mut out)), Seen::Whole(_)));
        let what = "its kind or length is impossible";
        assert!(matches!(read(&s, 7, 63, true, Some(&mut out)), Seen::Damaged(_, w) if w == what));
        assert!(matches!(read_any(&s, 63, true, &mut out), Seen::Damaged(_, w) if w == what));
    }

    #[test]
    fn what_was_read_counts_while_seq_is_what_it_was() {
        let s = slot();
        publish(&s, Header::record(3, 7, Epoch::FIRST, 4), b"data");
        let before = header(&s);
        assert!(unchanged(&s, before));
        retract(&s);
        assert!(!unchanged(&s, before));
        assert_eq!(read(&s, 7, 64, true, Some(&mut Vec::new())), Seen::InMotion);
        publish(&s, Header::record(4, 7, Epoch::FIRST, 4), b"data");
        assert!(!unchanged(&s, before));
    }
}
