//! The superblock: identity and geometry of a store. Written once, at creation, in two places.

use bytemuck::{Pod, Zeroable};

use super::geometry::Geometry;
use super::{FORMAT_VERSION, hash};

/// The first eight bytes of every store.
pub(crate) const MAGIC: [u8; 8] = *b"recstor\x1a";
/// As read on a machine of the file's byte order.
const BYTE_ORDER: u32 = 0x0102_0304;

/// The superblock's bytes. `crc` is CRC-32 (IEEE) of all bytes before it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Superblock {
    magic: [u8; 8],
    version: u32,
    byte_order: u32,
    uuid: [u8; 16],
    hash_key: u64,
    max_size: u64,
    record_size: u32,
    slots_code: u32,
    regions: u32,
    slot_size: u32,
    unit: u64,
    base: u64,
    /// Features that a build must know to read the store.
    incompat: u64,
    /// Features that a build must know to write to it.
    ro_compat: u64,
    /// Features that a build need not know.
    compat: u64,
    reserved: [u64; 2],
    reserved2: u32,
    crc: u32,
}

/// The features of a later build that this one knows: none yet.
const KNOWN_INCOMPAT: u64 = 0;
const KNOWN_RO_COMPAT: u64 = 0;

/// Bytes of a superblock.
pub(crate) const SUPERBLOCK_BYTES: usize = size_of::<Superblock>();
const _: () = assert!(SUPERBLOCK_BYTES == 128);

/// The reason why bytes are not a superblock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotSuperblock {
    /// Other magic: some other file.
    Foreign,
    /// Another version of the format.
    Version(u32),
    /// Another byte order.
    ByteOrder,
    /// Features without which the store can't be read: the bits that this build does not know.
    Features(u64),
    /// The right magic, and impossible content.
    Damaged(String),
}

impl Superblock {
    /// The superblock of a new store.
    pub(crate) fn new(geometry: &Geometry, uuid: [u8; 16]) -> Self {
        let mut s = Self {
            magic: MAGIC,
            version: FORMAT_VERSION,
            byte_order: BYTE_ORDER,
            uuid,
            hash_key: geometry.hash_key,
            max_size: geometry.max_size,
            record_size: geometry.record_size,
            slots_code: geometry.slots_code(),
            regions: geometry.regions,
            slot_size: geometry.slot_size as u32,
            unit: geometry.unit,
            base: geometry.base,
            incompat: KNOWN_INCOMPAT,
            ro_compat: KNOWN_RO_COMPAT,
            compat: 0,
            reserved: [0; 2],
            reserved2: 0,
            crc: 0,
        };
        s.crc = s.sum();
        s
    }

    fn sum(&self) -> u32 {
        crc32fast::hash(&bytemuck::bytes_of(self)[..SUPERBLOCK_BYTES - 4])
    }

    /// The superblock's bytes as they are stored.
    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    /// Bytes of a file, checked: the geometry and the store's uuid.
    pub(crate) fn parse(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<(Geometry, [u8; 16]), NotSuperblock> {
        let s: Self = bytemuck::pod_read_unaligned(bytes);
        if s.magic != MAGIC {
            return Err(NotSuperblock::Foreign);
        }
        if s.byte_order == BYTE_ORDER.swap_bytes() {
            return Err(NotSuperblock::ByteOrder);
        }
        let sum_holds = s.crc == s.sum();
        if s.version != FORMAT_VERSION && (sum_holds || s.byte_order == BYTE_ORDER) {
            // A later format may sum other bytes, so the version is checked before the sum.
            return Err(NotSuperblock::Version(s.version));
        }
        if !sum_holds {
            return Err(NotSuperblock::Damaged("the superblock's checksum does not match".into()));
        }
        if s.incompat & !KNOWN_INCOMPAT != 0 {
            return Err(NotSuperblock::Features(s.incompat & !KNOWN_INCOMPAT));
        }
        let slots_log2 = Geometry::slots_of_code(s.slots_code);
        let geometry = Geometry::new(u64::from(s.record_size), slots_log2, s.regions, s.max_size, s.hash_key)
            .map_err(NotSuperblock::Damaged)?;
        if u64::from(s.slot_size) != geometry.slot_size || s.unit != geometry.unit || s.base != geometry.base
        {
            return Err(NotSuperblock::Damaged("the superblock's sizes contradict each other".into()));
        }
        Ok((geometry, s.uuid))
    }
}

/// The features without which the store may not be written to, as far as this build does not know them. The bytes
/// were parsed.
pub(crate) fn unknown_ro_compat(bytes: &[u8; SUPERBLOCK_BYTES]) -> u64 {
    let s: Superblock = bytemuck::pod_read_unaligned(bytes);
    s.ro_compat & !KNOWN_RO_COMPAT
}

/// A short number that ties extent headers to their store.
pub(crate) fn store_tag(uuid: &[u8; 16]) -> u64 {
    let (a, b) = uuid.split_at(8);
    let word = |b: &[u8]| b.iter().fold(0u64, |w, &x| (w << 8) | u64::from(x));
    hash::hash(word(a), word(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        let g = Geometry::new(64, Some(4), 2, 1 << 30, 99).unwrap();
        let good: [u8; SUPERBLOCK_BYTES] = Superblock::new(&g, [7; 16]).bytes().try_into().unwrap();
        assert_eq!(Superblock::parse(&good), Ok((g, [7; 16])));
        for bit in 0..SUPERBLOCK_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::parse(&bad).is_err(), "bit {bit}");
        }
    }
}
