//! Searching an index table: the reader's way, without a lock, and the owner's.
//!
//! Invariant: a line with an empty entry was never full since the table was built, so no record
//! whose home is at or before it lies behind it. Hence a search ends at such a line; and an entry of
//! a full line is deleted by a marker, not by emptying it.

use crate::format::index::{ENTRIES, LINE_WORDS, Line, Shape};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::cells::equal;

/// Copies a line out.
#[inline]
pub(crate) fn load_line(words: &[AtomicU64; LINE_WORDS]) -> Line {
    // Pairs with the stores in `store_entry`.
    Line::from_words(std::array::from_fn(|i| words[i].load(Ordering::Acquire)))
}

/// Whether entry `i` of a line is still `entry`.
#[inline]
pub(crate) fn entry_is(words: &[AtomicU64; LINE_WORDS], i: usize, entry: u32) -> bool {
    let word = words[i / 2].load(Ordering::Acquire);
    (word >> (32 * (i % 2))) as u32 == entry
}

/// Entries of `line` whose tag is that of `hash`, as a bit set.
#[inline]
pub(crate) fn candidates(line: &Line, shape: &Shape, hash: u64) -> u32 {
    let tag = shape.tag(hash);
    let mask = shape.slot_mask();
    // An entry without a slot is empty, or no entry: so its tag is compared, and its slot with 0.
    let cells = line.words();
    let same = equal(cells, !mask, tag);
    let without = equal(cells, mask, 0);
    same & !without & ((1 << ENTRIES) - 1)
}

/// Stores entry `i` and the line's checksum. Only the region's owner may do this. `line` is the line as it
/// is. The entry's store makes a version visible (pairs with the Acquire load in `load_line`). It is
/// an exchange, so that it is ordered before every later load of the writer.
#[inline]
pub(crate) fn store_entry(words: &[AtomicU64; LINE_WORDS], line: &mut Line, i: usize, entry: u32) {
    line.set(i, entry);
    let now = line.words();
    words[i / 2].swap(now[i / 2], Ordering::SeqCst);
    crate::sys::step::step("index: entry stored, checksum not");
    if i / 2 != LINE_WORDS - 1 {
        words[LINE_WORDS - 1].store(now[LINE_WORDS - 1], Ordering::Release);
    }
    crate::sys::step::step("index: entry and checksum stored");
}

/// Makes entry `i`, which is empty, `entry`, and sums it, in a line that no reader uses.
#[inline]
pub(crate) fn fill_entry(words: &[AtomicU64; LINE_WORDS], i: usize, entry: u32) {
    let add = |to: &AtomicU64, half: usize, cell: u32| {
        let cells = to.load(Ordering::Relaxed);
        let sum = ((cells >> (32 * half)) as u32).wrapping_add(cell);
        let others = cells & !(u64::from(u32::MAX) << (32 * half));
        to.store(others | u64::from(sum) << (32 * half), Ordering::Relaxed);
    };
    add(&words[i / 2], i % 2, entry);
    add(&words[LINE_WORDS - 1], 1, Line::share(i, entry));
}

/// Writes a whole line. Only while no reader looks (the shape says `rebuilding`, or is another one).
pub(crate) fn store_line(words: &[AtomicU64; LINE_WORDS], line: &Line) {
    for (to, from) in words.iter().zip(line.words()) {
        to.store(from, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_stored_in_its_place_with_a_checksum_that_holds() {
        let words: [_; LINE_WORDS] = std::array::from_fn(|_| AtomicU64::new(0));
        store_line(&words, &Line::empty(77));
        for i in 0..ENTRIES {
            let entry = 1000 + i as u32;
            assert!(entry_is(&words, i, 0) && !entry_is(&words, i, entry));
            store_entry(&words, &mut load_line(&words), i, entry);
            assert!(entry_is(&words, i, entry) && !entry_is(&words, i, 0));
            let line = load_line(&words);
            assert!(line.holds(77));
            assert_eq!(line.0[..=i], (1000..=entry).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_line_that_is_filled_is_the_one_that_its_entries_make() {
        let words: [_; LINE_WORDS] = std::array::from_fn(|_| AtomicU64::new(0));
        let mut line = Line::empty(u32::MAX);
        store_line(&words, &line);
        for i in 0..ENTRIES {
            let entry = u32::MAX - 7 * i as u32;
            line.set(i, entry);
            fill_entry(&words, i, entry);
            assert_eq!(load_line(&words).0, line.0);
        }
    }
}
