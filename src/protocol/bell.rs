//! Bells: words that watchers of single records sleep on. The hash of its id says which bell a record has.
//!
//! The low half of a bell is a count, which the futex compares. The high half tells which records are watched: 0, none; 1, several;
//! else a tag of the hash of the only one. Stores of other records leave the sleepers alone.
//!
//! 1. A watcher sets the tag, and looks at the record after that. If the record is as it was, the watcher sleeps on the count that was
//!    there when it set the tag.
//! 2. A writer makes its change visible, and looks at the bell after that. If the tag is that of its record, or tells several, the writer
//!    clears the tag, raises the count, and wakes all sleepers. They set their tags again.
//!
//! All of these are SeqCst. So either the writer sees the tag, or the watcher sees the change.

use crate::sys::atomic::{AtomicU64, Ordering};

const NONE: u64 = 0;
const SEVERAL: u64 = 1;
/// Bits of the count.
const COUNT_BITS: u32 = 32;

/// The tag of a record in the high half of its bell. No tag is `NONE` or `SEVERAL`.
fn tag(hash: u64) -> u64 {
    (hash >> 12 | 1 << 31) & 0xffff_ffff
}

/// The same count plus one, and no tag.
fn rung(word: u64) -> u64 {
    u64::from((word as u32).wrapping_add(1)) | NONE << COUNT_BITS
}

/// The bells of a store: a power of two of them.
#[derive(Clone, Copy)]
pub(crate) struct Bells<'a>(&'a [AtomicU64]);

impl<'a> Bells<'a> {
    /// The bells in these words, if their number is a power of two.
    pub(crate) fn of(words: &'a [AtomicU64]) -> Option<Self> {
        words.len().is_power_of_two().then_some(Self(words))
    }

    /// The bell of a record.
    pub(crate) fn of_record(self, hash: u64) -> &'a AtomicU64 {
        &self.0[hash as usize & (self.0.len() - 1)]
    }

    /// Step 1: sets the tag of a record. Returns the count to sleep on.
    pub(crate) fn arm(self, hash: u64) -> u32 {
        let bell = self.of_record(hash);
        let mut word = bell.load(Ordering::SeqCst);
        loop {
            let armed = match word >> COUNT_BITS {
                NONE => tag(hash),
                other if other == tag(hash) => other,
                _ => SEVERAL,
            };
            let count = word & 0xffff_ffff;
            match bell.compare_exchange(word, armed << COUNT_BITS | count, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return count as u32,
                Err(now) => word = now,
            }
        }
    }

    /// Step 2, for one record. Returns the bell whose sleepers must be woken, if there may be some.
    pub(crate) fn ring(self, hash: u64) -> Option<&'a AtomicU64> {
        let bell = self.of_record(hash);
        clear(bell, |other| other == tag(hash) || other == SEVERAL).then_some(bell)
    }

    /// Step 2, for any records: the bells whose sleepers must be woken.
    pub(crate) fn ring_all(self) -> impl Iterator<Item = &'a AtomicU64> {
        self.0.iter().filter(|bell| clear(bell, |other| other != NONE))
    }
}

/// Clears a tag, if it is one of these, and raises the count.
fn clear(bell: &AtomicU64, is_meant: impl Fn(u64) -> bool) -> bool {
    let mut word = bell.load(Ordering::SeqCst);
    while is_meant(word >> COUNT_BITS) {
        match bell.compare_exchange(word, rung(word), Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return true,
            Err(now) => word = now,
        }
    }
    false
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_bell_rings_for_its_record_and_for_any_if_several_are_watched() {
        let words: Vec<AtomicU64> = (0..2).map(|_| AtomicU64::new(u64::from(u32::MAX))).collect();
        let bells = Bells::of(&words).unwrap();
        // Records of one bell, and their tags differ.
        let [a, b, c] = [1 << 12, 2 << 12, 3 << 12];
        assert!(bells.ring(a).is_none());
        assert_eq!(bells.arm(a), u32::MAX);
        assert_eq!(bells.arm(a), u32::MAX);
        assert!(bells.ring(b).is_none() && bells.ring(a).is_some() && bells.ring(a).is_none());
        assert_eq!(bells.arm(a), 0, "the count goes round");
        assert_eq!(bells.arm(b), 0);
        assert!(bells.ring(c).is_some(), "one of several, perhaps");
        assert_eq!(bells.arm(b), 1);
        assert_eq!(bells.arm(1), u32::MAX);
        assert_eq!(bells.ring_all().count(), 2);
        assert_eq!(bells.ring_all().count(), 0);
        assert!(Bells::of(&words[..0]).is_none());
    }
}
