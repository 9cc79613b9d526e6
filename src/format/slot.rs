//! The slot: one version of one record.
//!
//! The chapter on the format has its bytes (*Slot*).

use std::mem::offset_of;
use std::sync::LazyLock;

use bytemuck::{Pod, Zeroable};

use super::epoch::Epoch;
use super::word::Reference;
use crate::fault::{self, Fault};

/// Bytes of a slot's header.
pub(crate) const HEADER_BYTES: u64 = size_of::<Header>() as u64;
/// 8-byte words of a slot's header.
pub(crate) const HEADER_WORDS: usize = size_of::<Header>() / 8;
/// Slots start at multiples of this many bytes.
pub(crate) const SLOT_ALIGN: u64 = 32;

/// Set in every `seq` that is not 0, so that no single flipped bit makes a record absent.
pub(crate) const PRESENT: u64 = 1 << 63;
/// The first `seq` of a region.
pub(crate) const FIRST_SEQ: u64 = PRESENT | 1;

/// log2 of the versions of a block: see `control::Control::version_blocks`.
pub(crate) const BLOCK_LOG2: u32 = 40;
/// Blocks of versions that there can be.
pub(crate) const BLOCKS_MAX: u64 = 1 << (63 - BLOCK_LOG2);

/// The block of a `seq`.
#[inline]
pub(crate) const fn block_of(seq: u64) -> u64 {
    (seq & !PRESENT) >> BLOCK_LOG2
}

/// The first `seq` of a block that is used. The one before it is passed over: it says that the block must be given out first.
pub(crate) const fn first_of_block(block: u64) -> u64 {
    PRESENT | (block << BLOCK_LOG2) | 1
}

/// Whether a `seq` is the first one of a block. It may not be used before the block is given out.
#[inline]
pub(crate) const fn begins_block(seq: u64) -> bool {
    seq & ((1 << BLOCK_LOG2) - 1) == 0
}

/// A slot's header, as stored. Its words are packed, so only this file sees them: methods give the fields unpacked.
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Header {
    seq: u64,
    id: u64,
    stamp: u64,
    len_kind: u32,
    crc: u32,
}

const _: () = assert!(size_of::<Header>() == 32);

/// Where in a header its checksum is.
pub(crate) const CRC: std::ops::Range<usize> = offset_of!(Header, crc)..size_of::<Header>();

/// The kind of a slot, by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotKind {
    /// A version of a record.
    Record,
    /// The deletion of a record.
    Tombstone,
    /// On a free list.
    Free,
    /// Being filled by a handle, without the region's lock.
    Reserved,
}

/// In a stamp: the version is one of an atomic batch.
const MEMBER: u64 = super::checked::MAX + 1;
/// In a stamp: the version is flushed by itself.
const LONE: u64 = MEMBER << 1;

/// In a stamp: the record is found by keys.
const KEYED: u64 = LONE << 1;

/// The kind of a record: it is found by its id, or by a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Its id, which a program chose.
    Id = 0,
    /// Keys of spaces, of which its id is the hash: see [`keyed`](super::keyed).
    Key = 1,
}

/// Data of at most this many bytes is summed together with its header.
const SHORT: usize = 96;

/// An empty hasher. To make one asks for the features of the processor, so it is kept.
static FRESH: LazyLock<crc32fast::Hasher> = LazyLock::new(crc32fast::Hasher::new);

const LEN_MASK: u32 = (1 << 30) - 1;
const KIND_TOMBSTONE: u32 = 1 << 30;
const KIND_FREE: u32 = 2 << 30;
const KIND_RESERVED: u32 = 3 << 30;
/// The last word of a parked slot's header. It differs from that of any other slot by more than one bit.
const PARKED: u64 = (KIND_FREE | 1) as u64 | 0xffff_ffff << 32;

/// The words of a parked slot's link. Its id and stamp are not needed any more, and borrows look only at its data.
pub(crate) const PARKED_LINK: std::ops::Range<usize> = 1..3;

/// The stamp of a slot on a free list: its region.
#[inline]
fn free_stamp(region: u32) -> u64 {
    super::checked::encode(u64::from(region))
}

impl Header {
    /// The header of a version about to be written; its checksum is still to be set.
    #[inline]
    pub(crate) fn record(seq: u64, id: u64, epoch: Epoch, len: usize) -> Self {
        Self { seq, id, stamp: epoch.number(), len_kind: len as u32 & LEN_MASK, crc: 0 }
    }

    /// The header of a slot on the free list of `region`.
    #[inline]
    pub(crate) fn free(region: u32, next_free: Reference) -> Self {
        Self { seq: 0, id: next_free.word(), stamp: free_stamp(region), len_kind: KIND_FREE, crc: 0 }
    }

    /// The header of a slot that the handle with this claim of a seat will fill. The slot holds no record.
    pub(crate) fn reserved(id: u64, seat: u32, generation: u32) -> Self {
        let stamp = u64::from(generation) << 32 | u64::from(seat);
        Self { seq: 0, id, stamp, len_kind: KIND_RESERVED, crc: 0 }.summed(&[])
    }

    /// The header of the same version, written by an atomic batch.
    pub(crate) fn of_batch(mut self) -> Self {
        self.stamp |= MEMBER;
        self
    }

    /// Whether an atomic batch wrote the version.
    #[inline]
    pub(crate) fn is_of_batch(&self) -> bool {
        self.stamp & MEMBER != 0
    }

    /// The header of the same version, as a lone one: it will be flushed by itself.
    pub(crate) fn lone(mut self) -> Self {
        self.stamp |= LONE;
        self
    }

    /// Whether the version is a lone one: it may have been flushed by itself, so it may have to come back after a loss of power
    /// even if its epoch is not on disk.
    #[inline]
    pub(crate) fn is_lone(&self) -> bool {
        self.stamp & LONE != 0
    }

    /// Whether the version, when it is replaced in `epoch`, may have to come back after a loss of power: a flush was begun since
    /// it was written, or it was flushed by itself.
    #[inline]
    pub(crate) fn is_wanted_after(&self, epoch: Epoch) -> bool {
        self.epoch() != epoch || self.is_lone()
    }

    /// The header of the same version, of a record that is found by this.
    #[inline]
    pub(crate) fn of_address(mut self, address: Address) -> Self {
        self.stamp |= (address as u64) << KEYED.trailing_zeros();
        self
    }

    /// Whether the record is found by its id or by a key.
    #[inline]
    pub(crate) fn address(&self) -> Address {
        if self.stamp & KEYED == 0 { Address::Id } else { Address::Key }
    }

    /// The seat and its generation for which a slot is reserved, if it is.
    pub(crate) fn reserved_for(&self) -> Option<(u32, u32)> {
        let is_reserved = self.seq == 0 && self.len_kind == KIND_RESERVED && self.holds(&[]);
        is_reserved.then_some((self.stamp as u32, (self.stamp >> 32) as u32))
    }

    /// The header of the same version, deleted: only its last word differs.
    pub(crate) fn tombstone(mut self) -> Self {
        self.len_kind = KIND_TOMBSTONE;
        self.summed(&[])
    }

    /// The kind of the slot.
    #[inline]
    pub(crate) fn kind(&self) -> SlotKind {
        match self.len_kind >> 30 {
            0 => SlotKind::Record,
            1 => SlotKind::Tombstone,
            2 => SlotKind::Free,
            _ => SlotKind::Reserved,
        }
    }

    /// The version as users see it.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.seq & !PRESENT
    }

    /// Length of data in bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        (self.len_kind & LEN_MASK) as usize
    }

    /// The epoch of the write.
    #[inline]
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch::of(self.stamp & super::checked::MAX)
    }

    /// Whether the stamp has only bits that a version can have.
    pub(crate) fn has_known_stamp(&self) -> bool {
        self.stamp < KEYED << 1
    }

    /// The version, with the bit that says that there is one; 0: there is none.
    #[inline]
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The same header with another `seq`.
    #[inline]
    pub(crate) fn with_seq(self, seq: u64) -> Self {
        Self { seq, ..self }
    }

    /// The id of the record.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The checksum as stored.
    #[inline]
    pub(crate) fn crc(&self) -> u32 {
        self.crc
    }

    /// The same header with another checksum.
    #[inline]
    pub(crate) fn with_crc(self, crc: u32) -> Self {
        Self { crc, ..self }
    }

    /// The same header with the checksum that belongs to it and `data`.
    #[inline]
    pub(crate) fn summed(self, data: &[u8]) -> Self {
        self.with_crc(self.sum(data))
    }

    /// Whether the checksum is that of this header and `data`.
    #[inline]
    pub(crate) fn holds(&self, data: &[u8]) -> bool {
        self.crc == self.sum(data)
    }

    /// Whether all of the header but `seq` is 0, as in a slot that was never used.
    #[inline]
    pub(crate) fn is_fresh_but_for_seq(&self) -> bool {
        self.with_seq(0).words() == [0; HEADER_WORDS]
    }

    /// Whether all of the header but `seq` says that the slot is free and the region's.
    #[inline]
    pub(crate) fn is_free_but_for_seq(&self, region: u32) -> bool {
        self.stamp == free_stamp(region) && self.len_kind == KIND_FREE && self.crc == 0
    }

    /// The header of a parked slot; its link is still to be set.
    pub(crate) fn parked() -> Self {
        Self::from_words([0, 0, 0, PARKED])
    }

    /// Whether a slot says that it is parked.
    pub(crate) fn is_parked(&self) -> bool {
        self.seq == 0 && self.is_parked_but_for_seq()
    }

    /// Whether all of the header but `seq` says that the slot is parked.
    pub(crate) fn is_parked_but_for_seq(&self) -> bool {
        self.words()[HEADER_WORDS - 1] == PARKED
    }

    /// The reference of a free slot to the next one on its list.
    #[inline]
    pub(crate) fn next_free(&self) -> Reference {
        Reference::of_word(self.id)
    }

    /// The region of a slot that says that it is free.
    pub(crate) fn free_in(&self) -> Option<u32> {
        let region = super::checked::decode(self.stamp).and_then(|region| u32::try_from(region).ok())?;
        (self.seq == 0 && self.is_free_but_for_seq(region)).then_some(region)
    }

    /// The checksum of this header and `data`.
    #[inline]
    pub(crate) fn sum(&self, data: &[u8]) -> u32 {
        // The fixed cost of a call of the hasher is more than that of copying a short record.
        let mut together = [0; HEADER_BYTES as usize + SHORT];
        let len = HEADER_BYTES as usize + data.len();
        match together.get_mut(..len) {
            Some(together) => {
                let (header, rest) = together.split_at_mut(HEADER_BYTES as usize);
                header.copy_from_slice(bytemuck::bytes_of(&Self { crc: 0, ..*self }));
                rest.copy_from_slice(data);
                Self::sum_as_stored(together)
            }
            _ => {
                let mut hasher = self.hasher();
                hasher.update(data);
                hasher.finalize()
            }
        }
    }

    /// The checksum of a header, with 0 in the checksum's place, and the data that follows it, as they lie.
    #[inline]
    pub(crate) fn sum_as_stored(bytes: &[u8]) -> u32 {
        let mut hasher = FRESH.clone();
        let from = if fault::on(Fault::SumWithoutHeader) { HEADER_BYTES as usize } else { 0 };
        hasher.update(bytes.get(from..).unwrap_or_default());
        hasher.finalize()
    }

    /// The checksum of this header and data that `of_data` has taken in.
    pub(crate) fn sum_with(&self, of_data: &crc32fast::Hasher) -> u32 {
        let mut hasher = self.hasher();
        hasher.combine(of_data);
        hasher.finalize()
    }

    /// A hasher that has taken in the header; data follows.
    #[inline]
    pub(crate) fn hasher(&self) -> crc32fast::Hasher {
        let mut hasher = FRESH.clone();
        if !fault::on(Fault::SumWithoutHeader) {
            hasher.update(bytemuck::bytes_of(&Self { crc: 0, ..*self }));
        }
        hasher
    }

    /// The header as stored words.
    #[inline]
    pub(crate) fn words(&self) -> [u64; HEADER_WORDS] {
        bytemuck::cast(*self)
    }

    /// Stored words as a header.
    #[inline]
    pub(crate) fn from_words(words: [u64; HEADER_WORDS]) -> Self {
        bytemuck::cast(words)
    }
}
