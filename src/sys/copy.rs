//! Copies between private memory and words that other processes may be writing.
//!
//! Every access to shared memory is a relaxed atomic load or store of an aligned 8-byte word. So a race is no undefined
//! behavior: it gives a mix of old and new words, which the caller's check of `seq` rejects (compare Boehm, "Can seqlocks get
//! along with programming language memory models?", 2012). The compiler does not join atomic accesses, so on x86-64 assembly
//! copies whole blocks, two words at a time.

use super::atomic::{AtomicU64, Ordering};

/// Words of a block.
const BLOCK_WORDS: usize = 8;
/// Bytes of a block.
const BLOCK_BYTES: usize = 8 * BLOCK_WORDS;

/// Copying whole blocks, by assembly.
#[cfg(all(target_arch = "x86_64", not(loom)))]
mod blocks {
    use super::{AtomicU64, BLOCK_BYTES};

    /// Copies blocks.
    ///
    /// # Safety
    /// `from` and `to` have room for this many blocks, and do not overlap. The shared one is at a multiple of 8.
    #[inline]
    unsafe fn copy(from: *const u8, to: *mut u8, blocks: usize) {
        if blocks == 0 {
            return;
        }
        // SAFETY: the accesses are inside both (the caller's promise). To the machine, a load or store of 16 bytes is one load or
        // store of each of its aligned 8-byte words, in no order, and no word is torn: the same as two relaxed atomic accesses.
        // To the compiler, it is an access to unknown memory.
        unsafe {
            std::arch::asm!(
                "2:",
                "movups {a}, [{from}]",
                "movups {b}, [{from} + 16]",
                "movups {c}, [{from} + 32]",
                "movups {d}, [{from} + 48]",
                "movups [{to}], {a}",
                "movups [{to} + 16], {b}",
                "movups [{to} + 32], {c}",
                "movups [{to} + 48], {d}",
                "add {from}, {size}",
                "add {to}, {size}",
                "dec {blocks}",
                "jnz 2b",
                from = inout(reg) from => _,
                to = inout(reg) to => _,
                blocks = inout(reg) blocks => _,
                size = const BLOCK_BYTES,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack),
            );
        }
    }

    /// Loads blocks; bytes that are done.
    #[inline]
    pub(super) fn load(from: &[AtomicU64], to: &mut [u8]) -> usize {
        let blocks = (size_of_val(from) / BLOCK_BYTES).min(to.len() / BLOCK_BYTES);
        // SAFETY: both have as many; a mutable slice overlaps with nothing.
        unsafe { copy(from.as_ptr().cast(), to.as_mut_ptr(), blocks) };
        blocks * BLOCK_BYTES
    }

    /// Stores blocks; bytes that are done.
    #[inline]
    pub(super) fn store(to: &[AtomicU64], from: &[u8]) -> usize {
        let blocks = (size_of_val(to) / BLOCK_BYTES).min(from.len() / BLOCK_BYTES);
        // SAFETY: both have as many; atomics may be written through a shared reference, and no plain bytes
        // overlap with them.
        unsafe { copy(from.as_ptr(), to.as_ptr().cast::<u8>().cast_mut(), blocks) };
        blocks * BLOCK_BYTES
    }
}

/// Copying whole blocks, by code of the compiler.
#[cfg(not(all(target_arch = "x86_64", not(loom))))]
mod blocks {
    use super::{AtomicU64, BLOCK_BYTES, BLOCK_WORDS, Ordering};

    /// Loads blocks; bytes that are done.
    #[inline]
    pub(super) fn load(from: &[AtomicU64], to: &mut [u8]) -> usize {
        let (blocks, _) = from.as_chunks::<BLOCK_WORDS>();
        let mut done = 0;
        for (to, from) in to.as_chunks_mut::<BLOCK_BYTES>().0.iter_mut().zip(blocks) {
            for (to, from) in to.as_chunks_mut::<8>().0.iter_mut().zip(from) {
                *to = from.load(Ordering::Relaxed).to_le_bytes();
            }
            done += BLOCK_BYTES;
        }
        done
    }

    /// Stores blocks; bytes that are done.
    #[inline]
    pub(super) fn store(to: &[AtomicU64], from: &[u8]) -> usize {
        let (blocks, _) = to.as_chunks::<BLOCK_WORDS>();
        let mut done = 0;
        for (to, from) in blocks.iter().zip(from.as_chunks::<BLOCK_BYTES>().0) {
            for (to, from) in to.iter().zip(from.as_chunks::<8>().0) {
                to.store(u64::from_le_bytes(*from), Ordering::Relaxed);
            }
            done += BLOCK_BYTES;
        }
        done
    }
}

/// Copies the first `to.len()` bytes of `from`. If `from` is shorter, the rest of `to` stays as it was.
#[inline]
pub(crate) fn copy_out(from: &[AtomicU64], to: &mut [u8]) {
    let done = blocks::load(from, to);
    let (from, to) = (&from[done / 8..], &mut to[done..]);
    let (whole, rest) = to.as_chunks_mut::<8>();
    for (to, from) in whole.iter_mut().zip(from) {
        *to = from.load(Ordering::Relaxed).to_le_bytes();
    }
    if let (false, Some(last)) = (rest.is_empty(), from.get(whole.len())) {
        let bytes = last.load(Ordering::Relaxed).to_le_bytes();
        rest.copy_from_slice(&bytes[..rest.len()]);
    }
}

/// Copies `from` to the start of `to`; a last partial word is filled up with zeros.
#[inline]
pub(crate) fn copy_in(to: &[AtomicU64], from: &[u8]) {
    let done = blocks::store(to, from);
    let (to, from) = (&to[done / 8..], &from[done..]);
    let (whole, rest) = from.as_chunks::<8>();
    for (from, to) in whole.iter().zip(to) {
        to.store(u64::from_le_bytes(*from), Ordering::Relaxed);
    }
    if let (false, Some(last)) = (rest.is_empty(), to.get(whole.len())) {
        let mut bytes = [0; 8];
        bytes[..rest.len()].copy_from_slice(rest);
        last.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
}

/// Copies `from` to byte `offset` of `to` and the bytes after it. All other bytes stay as they are. No other thread or process may
/// store to these words meanwhile. Bytes for which `to` has no room are left out.
pub(crate) fn copy_in_at(to: &[AtomicU64], offset: usize, from: &[u8]) {
    let change = |word: Option<&AtomicU64>, at: usize, new: &[u8]| {
        if let (false, Some(word)) = (new.is_empty(), word) {
            let mut bytes = word.load(Ordering::Relaxed).to_le_bytes();
            bytes[at..at + new.len()].copy_from_slice(new);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    };
    let at = offset % 8;
    let before = if at == 0 { 0 } else { from.len().min(8 - at) };
    let (first, from) = from.split_at(before);
    change(to.get(offset / 8), at, first);
    let to = to.get((offset + before).div_ceil(8)..).unwrap_or_default();
    let whole = (from.len() / 8).min(to.len());
    let (whole, last) = from.split_at(8 * whole);
    copy_in(to, whole);
    if last.len() < 8 {
        change(to.get(whole.len() / 8), 0, last);
    }
}

/// Copies the bytes of `from` from byte `offset` on. If `from` has too few, the rest of `to` stays as it was.
pub(crate) fn copy_out_at(from: &[AtomicU64], offset: usize, to: &mut [u8]) {
    let at = offset % 8;
    let before = if at == 0 { 0 } else { to.len().min(8 - at) };
    let (first, to) = to.split_at_mut(before);
    if let (false, Some(word)) = (first.is_empty(), from.get(offset / 8)) {
        first.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes()[at..at + before]);
    }
    let from = from.get((offset + before).div_ceil(8)..).unwrap_or_default();
    let len = to.len().min(size_of_val(from));
    copy_out(from, &mut to[..len]);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back_as_it_went() {
        let words: Vec<AtomicU64> = (0..25).map(|_| AtomicU64::new(u64::MAX)).collect();
        for len in 0..=200usize {
            let data: Vec<u8> = (0..len as u8).collect();
            copy_in(&words, &data);
            let mut back = vec![0xee; len];
            copy_out(&words, &mut back);
            assert_eq!(back, data);
        }
    }

    #[test]
    fn every_part_goes_to_its_place_and_leaves_the_rest() {
        const BYTES: usize = 200;
        for offset in (0..20).chain(60..80).chain(BYTES - 10..=BYTES) {
            for len in (0..=BYTES - offset).filter(|len| *len < 90 || offset + len >= BYTES - 9) {
                let words: Vec<AtomicU64> = (0..BYTES / 8).map(|_| AtomicU64::new(u64::MAX)).collect();
                let mut expected = [0xff; BYTES];
                let part: Vec<u8> = (0..len).map(|n| n as u8).collect();
                expected[offset..offset + len].copy_from_slice(&part);
                copy_in_at(&words, offset, &part);
                let mut all = [0; BYTES];
                copy_out(&words, &mut all);
                assert_eq!(all, expected, "{len} bytes at {offset}");
                let mut back = vec![0xee; len];
                copy_out_at(&words, offset, &mut back);
                assert_eq!(back, part, "{len} bytes at {offset}");
            }
        }
        let words = [AtomicU64::new(0)];
        copy_in_at(&words, 4, &[7; 100]);
        let mut back = [1; 12];
        copy_out_at(&words, 0, &mut back);
        assert_eq!(back, [0, 0, 0, 0, 7, 7, 7, 7, 1, 1, 1, 1]);
    }
}
