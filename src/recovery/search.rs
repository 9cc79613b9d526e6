//! Searching for slots without a geometry. Bytes at a multiple of the slots' alignment are a slot if they look like a header and
//! the checksum matches. By chance about one in 2^32 of the lookalikes passes.
//!
//! Time: every byte is summed once, whatever the file holds. A lookalike costs some hundred instructions more, for any length of
//! its data. Memory: 4 bytes for each 32 bytes of the longest record.

use std::collections::VecDeque;
use std::ops::Range;

use crate::format::round_up;
use crate::format::slot::{HEADER_BYTES, HEADER_WORDS, Header, SLOT_ALIGN};
use crate::protocol::slot::header;
use crate::sys::copy::copy_out;
use crate::sys::mapping::Mapping;

/// Words of a piece between two sums that are kept.
const PIECE_WORDS: usize = SLOT_ALIGN as usize / 8;

/// The search tells its progress each time after this many bytes.
const TOLD_BYTES: u64 = 1 << 20;

/// Calls `found` with every slot in `bytes` whose checksum holds, and its offset. `is_plausible` tells whether bytes look like a
/// header. `tell` is told how many bytes were searched.
pub(crate) fn each_slot(
    map: &Mapping,
    bytes: Range<u64>,
    is_plausible: impl Fn(&Header) -> bool,
    mut found: impl FnMut(u64, &Header),
    mut tell: impl FnMut(u64),
) {
    let mut sums = Sums::new(map, bytes.start);
    let mut offset = bytes.start;
    let mut told = offset;
    while let Some(words) = map.words(offset, HEADER_WORDS).filter(|_| offset < bytes.end) {
        let header = header(words);
        let mut bytes = SLOT_ALIGN;
        if is_plausible(&header) && sums.of_slot(offset, &header) == Some(header.crc()) {
            found(offset, &header);
            bytes = round_up(HEADER_BYTES + header.len() as u64, SLOT_ALIGN);
        }
        offset += bytes;
        if offset - told >= TOLD_BYTES {
            tell(offset);
            told = offset;
        }
        sums.forget_before(offset);
    }
}

/// The checksums of the file from the beginning of the search to every piece's end, for the pieces that may still be asked for. The checksum of
/// the bytes between two ends follows from the two.
struct Sums<'a> {
    map: &'a Mapping,
    hasher: crc32fast::Hasher,
    /// The sums up to `first`, and to every piece after it.
    kept: VecDeque<u32>,
    /// Bytes that the first of them covers.
    first: u64,
    shift: Shift,
}

impl<'a> Sums<'a> {
    fn new(map: &'a Mapping, first: u64) -> Self {
        Self { map, hasher: crc32fast::Hasher::new(), kept: VecDeque::from([0]), first, shift: Shift::new() }
    }

    /// The checksum of a header and the data behind it, or `None` if the data is not wholly in the file.
    fn of_slot(&mut self, offset: u64, header: &Header) -> Option<u32> {
        let begin = offset + HEADER_BYTES;
        let end = begin + header.len() as u64;
        // The bytes of the last piece that belong to the data.
        let whole = end / SLOT_ALIGN * SLOT_ALIGN;
        let mut rest = [0; SLOT_ALIGN as usize];
        let rest = &mut rest[..(end - whole) as usize];
        copy_out(self.map.words(whole, rest.len().div_ceil(8))?, rest);
        let (before, upto) = (self.up_to(begin)?, self.up_to(whole)?);
        // The bytes before the data are shifted by the same length as the header: so the header's sum takes the place of theirs.
        let sum = upto ^ self.shift.by(before ^ header.sum(&[]), whole - begin);
        let mut hasher = crc32fast::Hasher::new_with_initial_len(sum, whole - offset);
        hasher.update(rest);
        Some(hasher.finalize())
    }

    /// The checksum of the file up to `end`, a multiple of the alignment.
    fn up_to(&mut self, end: u64) -> Option<u32> {
        let at = (end.checked_sub(self.first)? / SLOT_ALIGN) as usize;
        while self.kept.len() <= at {
            let done = self.first + (self.kept.len() as u64 - 1) * SLOT_ALIGN;
            let mut piece = [0; SLOT_ALIGN as usize];
            copy_out(self.map.words(done, PIECE_WORDS)?, &mut piece);
            self.hasher.update(&piece);
            self.kept.push_back(self.hasher.clone().finalize());
        }
        self.kept.get(at).copied()
    }

    fn forget_before(&mut self, offset: u64) {
        while self.first < offset {
            if self.kept.len() == 1 && self.up_to(self.first + SLOT_ALIGN).is_none() {
                return; // The end of the file.
            }
            self.kept.pop_front();
            self.first += SLOT_ALIGN;
        }
    }
}

/// The effect of zeros behind some bytes on their checksum: a multiplication of polynomials over GF(2), modulo that of
/// CRC-32. Bit 31 is the coefficient of 1.
struct Shift {
    /// x^(8 * 2^n), for each n.
    powers: [u32; 40],
    /// The last length, and x^(8 * length): lookalikes are often of one length.
    last: (u64, u32),
}

impl Shift {
    fn new() -> Self {
        let mut powers = [0; 40];
        let mut power = 1 << (31 - 8); // x^8
        for p in &mut powers {
            *p = power;
            power = multiply(power, power);
        }
        Self { powers, last: (0, 1 << 31) }
    }

    /// The checksum of some bytes with checksum `sum` and `bytes` zeros behind them, less that of the zeros alone.
    fn by(&mut self, sum: u32, bytes: u64) -> u32 {
        if self.last.0 != bytes {
            let factor = (self.powers.iter().enumerate())
                .filter(|(n, _)| bytes >> n & 1 != 0)
                .fold(1 << 31, |product, (_, &power)| multiply(power, product));
            self.last = (bytes, factor);
        }
        multiply(self.last.1, sum)
    }
}

/// The product of two polynomials, the first of which is not 0.
fn multiply(a: u32, mut b: u32) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let mut product = 0;
    for bit in (0..32).rev() {
        if a >> bit & 1 != 0 {
            product ^= b;
        }
        b = if b & 1 != 0 { b >> 1 ^ POLYNOMIAL } else { b >> 1 };
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_part_follows_from_the_sums_up_to_its_ends() {
        let bytes: Vec<u8> = (0..5000u32).map(|n| (n * n / 7) as u8).collect();
        let mut shift = Shift::new();
        for (from, to) in [(0, 0), (0, 1), (3, 3), (7, 1000), (1000, 5000), (0, 5000), (4999, 5000)] {
            let (before, upto) = (crc32fast::hash(&bytes[..from]), crc32fast::hash(&bytes[..to]));
            let part = upto ^ shift.by(before, (to - from) as u64);
            assert_eq!(part, crc32fast::hash(&bytes[from..to]), "{from} to {to}");
        }
    }
}
