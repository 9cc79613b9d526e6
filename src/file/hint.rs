//! A hint in the control page: whether any seat may have a moment, or a borrow. While there is none, a write pays one load.
//!
//! A handle that begins a moment or a borrow raises the hint. A handle that looks at all seats and finds none lowers the hint,
//! if it has not changed meanwhile. The upper 48 bits count how often it was raised, so no value comes back. The lower 16 bits
//! are all set or all clear. Only all clear means "none", so no flipped bit hides a moment or a borrow.

use crate::sys::atomic::{AtomicU64, Ordering};

/// There may be a moment, or a borrow, unless all of these bits are clear.
pub(crate) const HINT: u64 = 0xffff;

/// Sets a hint, to a value that it never had before.
pub(crate) fn raise_hint(word: &AtomicU64) {
    // It always succeeds.
    let _ = word
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |hint| Some(hint.wrapping_add(HINT + 1) | HINT));
}

/// Clears a hint, unless it was raised since it was `seen`. Only speed depends on this.
pub(crate) fn lower_hint(word: &AtomicU64, seen: u64) {
    let _ = word.compare_exchange(seen, seen & !HINT, Ordering::SeqCst, Ordering::SeqCst);
}

/// Whether a hint is set.
#[inline]
pub(crate) fn is_hinted(word: &AtomicU64) -> bool {
    word.load(Ordering::SeqCst) & HINT != 0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_lowered_only_by_who_saw_it_as_it_is_and_is_never_what_it_was() {
        let word = AtomicU64::new(0);
        let mut seen = vec![0];
        for _ in 0..10 {
            raise_hint(&word);
            let before = word.load(Ordering::Relaxed);
            assert!(is_hinted(&word) && !seen.contains(&before));
            seen.push(before);
            raise_hint(&word);
            lower_hint(&word, before);
            assert!(is_hinted(&word), "somebody has begun since");
            let now = word.load(Ordering::Relaxed);
            assert!(!seen.contains(&now));
            seen.push(now);
            lower_hint(&word, now);
            assert!(!is_hinted(&word));
        }
    }
}
