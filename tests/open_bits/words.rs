//! The words of a store's file that are not data.

use crate::layout::{CONTROL, LINE_BYTES, Layout, PAGE, SEAT_BYTES, SEATS, SUPERBLOCK_B, SUPERBLOCK_BYTES};

pub(crate) const LAYOUT: Layout = Layout { record_size: 64, regions: 2, slots: 32 };
/// Extents whose words are flipped.
const EXTENTS: usize = 4;

/// Parts of the file: where one begins, its bytes, and its name.
fn parts() -> Vec<(usize, usize, String)> {
    let mut parts = vec![
        (0, SUPERBLOCK_BYTES, "first superblock".to_owned()),
        (SUPERBLOCK_B, SUPERBLOCK_BYTES, "second superblock".to_owned()),
        (CONTROL, 512, "control page".to_owned()),
        (SEATS, 4 * SEAT_BYTES, "seats".to_owned()),
    ];
    for region in 0..LAYOUT.regions {
        parts.push((LAYOUT.head(region), 256, format!("head of region {region}")));
        for line in 0..PAGE / LINE_BYTES {
            // Two words of each line, and others of the next one.
            let at = LAYOUT.first_index(region) + line * LINE_BYTES + line % 4 * 16;
            parts.push((at, 16, format!("line {line} of the index of region {region}")));
        }
    }
    for extent in 0..EXTENTS {
        parts.push((LAYOUT.extent(extent), 64, format!("header of extent {extent}")));
        for slot in extent * LAYOUT.slots..(extent + 1) * LAYOUT.slots {
            parts.push((LAYOUT.slot(slot), 32, format!("header of slot {slot}")));
            let link = LAYOUT.extent(extent) + LAYOUT.links_offset() + slot % LAYOUT.slots * 16;
            parts.push((link, 16, format!("links of slot {slot}")));
        }
    }
    parts
}

/// How many bits there are.
pub(crate) fn bits() -> u64 {
    parts().iter().map(|(_, bytes, _)| *bytes as u64 * 8).sum()
}

/// Where a bit lies: the offset of its word, the bit in that, and the part.
pub(crate) fn place(bit: u64) -> (usize, u32, String) {
    let mut left = bit as usize;
    for (at, bytes, name) in parts() {
        if left < bytes * 8 {
            return (at + left / 64 * 8, left as u32 % 64, name);
        }
        left -= bytes * 8;
    }
    panic!("there are {} bits", bits())
}

/// What a bit is, in words.
pub(crate) fn name(bit: u64) -> String {
    let (at, bit, name) = place(bit);
    format!("{name}: bit {bit} of the word at {at}")
}
