//! Edits of a store's file, as an input describes them: flips, bytes, runs, words that carry their own check,
//! copies, checksums made right again, another length.
//!
//! The last three make forgeries: bytes that are as good as what the store itself writes.

use super::disk::seal_superblocks;
use super::input::Input;
use super::layout::{
    CONTROL, EXTENT_HEADER_BYTES, HEAD_BYTES, LINE_BYTES, LINK_BYTES, Layout, PAGE, REGION_TABLE, SEATS,
    SLOT_HEADER_BYTES,
};

/// Files are not made longer than this.
const LEN_MAX: usize = 1 << 20;

/// What was done to a file, at the worst.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Done {
    /// Single bits that were flipped.
    pub(crate) flips: usize,
    /// Something else than flips was done.
    pub(crate) more: bool,
    /// Something else than flips was done to superblocks, extent headers, slots, or the length.
    pub(crate) forged: bool,
}

/// Does one edit.
pub(crate) fn edit(input: &mut Input<'_>, file: &mut Vec<u8>, layout: &Layout, done: &mut Done) {
    let what = input.u8() % 8;
    if file.is_empty() {
        return;
    }
    if what == 0 {
        let at = place(input, file, layout);
        file[at] ^= 1 << (input.u8() % 8);
        done.flips += 1;
        return;
    }
    done.more = true;
    match what {
        1 => {
            let at = place(input, file, layout);
            let count = 1 + input.below(16);
            write(file, at, input.take(count), layout, done);
        }
        2 => {
            let at = place(input, file, layout);
            let (count, byte) = (input.below(1024), input.u8());
            write(file, at, &vec![byte; count], layout, done);
        }
        3 => {
            // A number below 2^48 with its check, in a whole word.
            let at = place(input, file, layout) & !7;
            let n =
                if input.u8().is_multiple_of(2) { input.u8().into() } else { input.u64() } & ((1 << 48) - 1);
            let check = !(n ^ (n >> 16) ^ (n >> 32)) & 0xffff;
            write(file, at, &(n | (check << 48)).to_le_bytes(), layout, done);
        }
        4 => {
            let (from, to) = (place(input, file, layout), place(input, file, layout));
            let bytes = file[from..(from + input.below(256)).min(file.len())].to_vec();
            write(file, to, &bytes, layout, done);
        }
        5 => seal(input, file, layout, done),
        6 => {
            let at = place(input, file, layout) & !7;
            write(file, at, &u64::from(input.u16()).to_le_bytes(), layout, done);
        }
        _ => {
            done.forged = true;
            file.resize((file.len() + input.below(4 * PAGE)).saturating_sub(2 * PAGE).min(LEN_MAX), 0);
        }
    }
}

fn write(file: &mut [u8], at: usize, bytes: &[u8], layout: &Layout, done: &mut Done) {
    let end = (at + bytes.len()).min(file.len());
    file[at..end].copy_from_slice(&bytes[..end - at]);
    done.forged |= (at..end).any(|byte| is_truth(byte, layout));
}

/// Whether a byte is one of those from which all others are built.
fn is_truth(at: usize, layout: &Layout) -> bool {
    if at < layout.base() {
        return at < PAGE || (super::layout::SUPERBLOCK_B..REGION_TABLE).contains(&at);
    }
    (at - layout.base()) % layout.extent_size() < layout.links_offset()
}

/// A place in the file: in some part of it, or anywhere.
fn place(input: &mut Input<'_>, file: &[u8], layout: &Layout) -> usize {
    let extents = file.len().saturating_sub(layout.base()).div_ceil(layout.extent_size()).max(1);
    let part = input.u8();
    let at = match part % 9 {
        0 => CONTROL + input.below(256),
        1 => layout.head(input.below(layout.regions)) + input.below(HEAD_BYTES),
        2 => layout.extent(input.below(extents)) + input.below(EXTENT_HEADER_BYTES),
        3 => layout.slot(input.below(extents * layout.slots)) + input.below(SLOT_HEADER_BYTES),
        4 => layout.slot(input.below(extents * layout.slots)) + input.below(layout.slot_size()),
        5 => {
            let slot = input.below(extents * layout.slots);
            let links = layout.extent(slot / layout.slots) + layout.links_offset();
            links + slot % layout.slots * LINK_BYTES + input.below(LINK_BYTES)
        }
        6 => {
            layout.first_index(input.below(layout.regions))
                + input.below(PAGE / LINE_BYTES) * LINE_BYTES
                + input.below(LINE_BYTES)
        }
        7 => [0, SEATS, super::layout::SUPERBLOCK_B][input.below(3)] + input.below(128),
        _ => input.below(file.len()),
    };
    at % file.len()
}

/// Makes a checksum right.
fn seal(input: &mut Input<'_>, file: &mut [u8], layout: &Layout, done: &mut Done) {
    done.forged = true;
    let extents = file.len().saturating_sub(layout.base()) / layout.extent_size();
    match input.u8() % 4 {
        0 => seal_superblocks(file),
        1 if extents > 0 => {
            let at = layout.extent(input.below(extents));
            let sum = crc32fast::hash(&file[at..at + EXTENT_HEADER_BYTES - 4]);
            file[at + EXTENT_HEADER_BYTES - 4..at + EXTENT_HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        }
        _ if extents > 0 => seal_slot(file, layout.slot(input.below(extents * layout.slots))),
        _ => {}
    }
}

/// Makes the checksum of the slot at an offset right, for the length that it gives.
pub(crate) fn seal_slot(file: &mut [u8], at: usize) {
    let sum = slot_sum(&file[at..]);
    if let Some(sum) = sum {
        file[at + 28..at + 32].copy_from_slice(&sum.to_le_bytes());
    }
}

/// The checksum that a slot's bytes ought to have, if its length lies inside of them.
pub(crate) fn slot_sum(slot: &[u8]) -> Option<u32> {
    let len = u32::from_le_bytes(slot[24..28].try_into().expect("four bytes")) & ((1 << 30) - 1);
    let data = slot.get(SLOT_HEADER_BYTES..SLOT_HEADER_BYTES + len as usize)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot[..28]);
    hasher.update(&[0; 4]);
    hasher.update(data);
    Some(hasher.finalize())
}
