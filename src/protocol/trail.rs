//! The trail of a region: its last changes, which feeds follow. Only the owner of the region's lock writes it.
//!
//! TrailEntry *n* lies in place *n* modulo the number of places, which is a power of two. The count tells the next entry.
//!
//! 1. A writer makes its change visible, writes the entry, and then raises the count (Release; pairs with the Acquire of [`Trail::count`]).
//! 2. A follower that has told all entries before its position reads those up to the count. The check of an entry covers its number. So
//!    an entry that was overwritten, that is being overwritten, or that is damaged, is none. Then the follower is *behind*, as it is if the
//!    count is more than a lap ahead of its position, or before its position, or damaged: it compares the region.
//! 3. Changes that no entry tells, as those of a rebuild, let the count jump by more than a lap: all followers are behind.
//!
//! A writer writes entries only while the region is followed: see `region::watch`.

use crate::format::checked;
use crate::format::hash::hash;
use crate::sys::atomic::{AtomicU64, Ordering};

/// Words of a trail before its entries. The first one is the count.
pub(crate) const HEAD_WORDS: usize = 8;
/// Words of an entry.
pub(crate) const ENTRY_WORDS: usize = 3;

/// The number of a count that is damaged, and has to be beyond all others.
const KEY: u64 = 0x7a11_5eed;

const DELETED: u64 = 1;
const KEYED: u64 = 2;
const FLAGS: u64 = DELETED | KEYED;

/// A change of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrailEntry {
    /// The record's id.
    pub(crate) id: u64,
    /// The `seq` of its version. Of a deletion, a `seq` that is not below that of the deleted version, and below later ones.
    pub(crate) seq: u64,
    /// The record was deleted.
    pub(crate) is_deleted: bool,
    /// The record is found by keys.
    pub(crate) is_keyed: bool,
}

impl TrailEntry {
    fn flags(self) -> u64 {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        flag(self.is_deleted, DELETED) | flag(self.is_keyed, KEYED)
    }

    /// The word that says that these are the words of entry `number`.
    fn check(id: u64, seq: u64, flags: u64, number: u64) -> u64 {
        let mix = hash(id.rotate_left(17) ^ seq, KEY ^ number ^ flags << 60);
        mix & !FLAGS | flags
    }
}

/// The trail of one region.
#[derive(Clone, Copy)]
pub(crate) struct Trail<'a> {
    count: &'a AtomicU64,
    places: &'a [AtomicU64],
}

impl<'a> Trail<'a> {
    /// The trail in these words, if they are those of a power of two of entries.
    pub(crate) fn of(words: &'a [AtomicU64]) -> Option<Self> {
        let (head, places) = words.split_at_checked(HEAD_WORDS)?;
        let is_whole =
            places.len().is_multiple_of(ENTRY_WORDS) && (places.len() / ENTRY_WORDS).is_power_of_two();
        is_whole.then_some(Self { count: head.first()?, places })
    }

    /// The number of places.
    pub(crate) fn len(self) -> u64 {
        (self.places.len() / ENTRY_WORDS) as u64
    }

    /// The number of the next entry, or `None` if the word is damaged. A new trail has a word of zeros.
    pub(crate) fn count(self) -> Option<u64> {
        match self.count.load(Ordering::Acquire) {
            0 => Some(0),
            word => checked::decode(word),
        }
    }

    /// Whether a follower at `position` has missed changes, by a count.
    pub(crate) fn is_behind(self, position: u64, count: u64) -> bool {
        count.checked_sub(position).is_none_or(|ahead| ahead > self.len())
    }

    fn place(self, number: u64) -> &'a [AtomicU64] {
        let at = (number & (self.len() - 1)) as usize * ENTRY_WORDS;
        &self.places[at..at + ENTRY_WORDS]
    }

    /// Makes a new trail, which nobody follows, begin with this entry.
    pub(crate) fn begin_at(self, number: u64) {
        self.count.store(checked::encode(number), Ordering::Relaxed);
    }

    /// Step 1, the entry. Returns its number, for [`Self::raise`].
    pub(crate) fn write(self, entry: TrailEntry) -> u64 {
        let number = self.count().unwrap_or_else(|| self.jump());
        let check = TrailEntry::check(entry.id, entry.seq, entry.flags(), number);
        for (word, value) in self.place(number).iter().zip([entry.id, entry.seq, check]) {
            word.store(value, Ordering::Relaxed);
        }
        number
    }

    /// Step 1, the count. Returns whether a lap begins with the next entry.
    pub(crate) fn raise(self, number: u64) -> bool {
        self.count.store(checked::encode(number + 1), Ordering::Release);
        (number + 1) & (self.len() - 1) == 0
    }

    /// Step 3. Returns the count.
    pub(crate) fn jump(self) -> u64 {
        let number = self.count().map_or_else(
            // By no flipped bit does the count come near any count that a follower has.
            || (self.count.load(Ordering::Relaxed) & checked::MAX).wrapping_add(3 << 40) & checked::MAX,
            |count| count + self.len() + 1,
        );
        self.count.store(checked::encode(number), Ordering::Release);
        number
    }

    /// Step 2: entry `number`, if it is there.
    pub(crate) fn read(self, number: u64) -> Option<TrailEntry> {
        let [id, seq, check] = [0, 1, 2].map(|n| self.place(number)[n].load(Ordering::Relaxed));
        let flags = check & FLAGS;
        let entry = TrailEntry { id, seq, is_deleted: flags & DELETED != 0, is_keyed: flags & KEYED != 0 };
        (TrailEntry::check(id, seq, flags, number) == check).then_some(entry)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn words(entries: usize) -> Vec<AtomicU64> {
        (0..HEAD_WORDS + entries * ENTRY_WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    fn entry(n: u64) -> TrailEntry {
        TrailEntry {
            id: n * 7,
            seq: 1 << 63 | n,
            is_deleted: n.is_multiple_of(3),
            is_keyed: n.is_multiple_of(2),
        }
    }

    #[test]
    fn an_entry_is_there_until_it_is_overwritten_and_a_jump_leaves_all_followers_behind() {
        let words = words(8);
        let trail = Trail::of(&words).unwrap();
        assert!((0..9).all(|n| trail.read(n).is_none()));
        let mut laps = 0;
        for n in 0..100 {
            assert_eq!(trail.count(), Some(n));
            let number = trail.write(entry(n));
            assert_eq!((number, trail.count()), (n, Some(n)));
            laps += u32::from(trail.raise(number));
            for old in 0..=n {
                let is_there = old + 8 > n;
                assert_eq!(trail.read(old), is_there.then_some(entry(old)), "{old} of {n}");
                assert_eq!(trail.is_behind(old, n + 1), !is_there);
            }
        }
        assert_eq!(laps, 12);
        trail.jump();
        assert!((0..=100).all(|position| trail.is_behind(position, trail.count().unwrap())));
        assert!(trail.is_behind(1000, trail.count().unwrap()));
    }

    #[test]
    fn no_flipped_bit_makes_another_entry_or_hides_one() {
        let words = words(8);
        let trail = Trail::of(&words).unwrap();
        for n in 0..20 {
            trail.raise(trail.write(entry(n)));
        }
        for word in &words[HEAD_WORDS..] {
            for bit in 0..64 {
                let was = word.fetch_xor(1 << bit, Ordering::Relaxed);
                let found: Vec<_> = (12..20).filter_map(|n| Some((n, trail.read(n)?))).collect();
                assert_eq!(found.len(), 7);
                assert!(found.iter().all(|(n, found)| *found == entry(*n)));
                word.store(was, Ordering::Relaxed);
            }
        }
        // Of the count: it is damaged, and the next writer makes it one that no follower has.
        let count = &words[0];
        let was = count.load(Ordering::Relaxed);
        for bit in 0..64 {
            count.store(was ^ 1 << bit, Ordering::Relaxed);
            assert_eq!(trail.count(), None);
            trail.raise(trail.write(entry(99)));
            assert!((0..=20).all(|position| trail.is_behind(position, trail.count().unwrap())));
        }
    }
}
