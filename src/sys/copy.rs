//! Copies between private memory and words that other processes may be writing.
//!
//! Every access to shared memory is a relaxed atomic load or store of an aligned 8-byte word, so a
//! race gives a mix of old and new words, which the caller's sequence check rejects, and is no
//! undefined behaviour (compare Boehm, "Can seqlocks get along with programming language memory
//! models?", 2012).

use super::atomic::{AtomicU64, Ordering};

/// Copies the first `to.len()` bytes of `from`. `from` must hold as many; what it lacks stays as
/// it was.
#[inline]
pub(crate) fn copy_out(from: &[AtomicU64], to: &mut [u8]) {
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back_as_it_went() {
        let words: Vec<AtomicU64> = (0..5).map(|_| AtomicU64::new(u64::MAX)).collect();
        for len in 0..=40usize {
            let data: Vec<u8> = (0..len as u8).collect();
            copy_in(&words, &data);
            let mut back = vec![0xee; len];
            copy_out(&words, &mut back);
            assert_eq!(back, data);
        }
    }
}
