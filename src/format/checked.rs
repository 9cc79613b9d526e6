//! A 48-bit number that knows when one of its bits was flipped.
//!
//! Epochs and counts are stored as `number | check << 48`. The check is the complement of the
//! exclusive-or of the number's three 16-bit parts, so any single flipped bit, and an all-zero
//! word, is seen.

/// The largest number that fits.
pub(crate) const MAX: u64 = (1 << 48) - 1;

/// The word that stores `number` (its low 48 bits).
#[inline]
pub(crate) const fn encode(number: u64) -> u64 {
    let n = number & MAX;
    let check = !(n ^ (n >> 16) ^ (n >> 32)) & 0xffff;
    n | (check << 48)
}

/// The number that `word` stores, or `None` if the word is damaged.
#[inline]
pub(crate) const fn decode(word: u64) -> Option<u64> {
    let n = word & MAX;
    if encode(n) == word { Some(n) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_flip_is_seen() {
        for number in [0, 1, 0xffff, 0x1234_5678_9abc, MAX] {
            let word = encode(number);
            assert_eq!(decode(word), Some(number));
            for bit in 0..64 {
                assert_eq!(decode(word ^ (1 << bit)), None, "bit {bit} of {number:#x}");
            }
        }
        assert_eq!(decode(0), None);
    }
}
