//! Comparing sixteen 32-bit cells at once.

/// Which of the cells, two a word, are `value` in the bits under `mask`, as a bit set.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn equal(words: [u64; 8], mask: u32, value: u32) -> u32 {
    use std::arch::x86_64::{
        _mm_and_si128, _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_packs_epi16, _mm_packs_epi32, _mm_set_epi64x,
        _mm_set1_epi32,
    };
    let quarter = |n: usize| {
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            let cells = _mm_set_epi64x(words[2 * n + 1] as i64, words[2 * n] as i64);
            let masked = _mm_and_si128(cells, _mm_set1_epi32(mask as i32));
            _mm_cmpeq_epi32(masked, _mm_set1_epi32(value as i32))
        }
    };
    // SAFETY: as above.
    unsafe {
        let low = _mm_packs_epi32(quarter(0), quarter(1));
        let high = _mm_packs_epi32(quarter(2), quarter(3));
        _mm_movemask_epi8(_mm_packs_epi16(low, high)) as u32
    }
}

/// Which of the cells, two a word, are `value` in the bits under `mask`, as a bit set.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn equal(words: [u64; 8], mask: u32, value: u32) -> u32 {
    one_by_one(words, mask, value)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(words: [u64; 8], mask: u32, value: u32) -> u32 {
    let cells = words.iter().flat_map(|word| [*word as u32, (word >> 32) as u32]);
    (0..).zip(cells).fold(0, |found, (i, cell)| found | (u32::from(cell & mask == value) << i))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn all_at_once_is_one_by_one() {
        let mut word = 1u64;
        for _ in 0..1000 {
            let words = std::array::from_fn(|_| {
                word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                word & 0x8003_0001_0003_8001
            });
            for (mask, value) in
                [(u32::MAX, 0), (1, 1), (0x8000, 0x8000), (0x3_0001, 0x1_0001), (0x8000_0000, 0)]
            {
                assert_eq!(equal(words, mask, value), one_by_one(words, mask, value), "{words:x?} {mask:x}");
            }
        }
    }
}
