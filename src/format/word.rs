//! Words of a mapped file, each by its type.
//!
//! The views of a region's head and of the control page ([`Head`](super::region::Head) and
//! [`Control`](super::control::Control)) give these. Each has an atomic's `load` and `store`, and takes the ordering.

use super::checked;
use super::epoch::Epoch;
use crate::sys::atomic::{AtomicU64, Ordering};

/// A number of 48 bits: see [`checked`].
#[derive(Clone, Copy)]
pub(crate) struct Checked<'a>(&'a AtomicU64);

impl Checked<'_> {
    /// The number, or `None` if the word is damaged.
    #[inline]
    pub(crate) fn load(self, order: Ordering) -> Option<u64> {
        checked::decode(self.0.load(order))
    }

    /// Stores a number: its low 48 bits.
    #[inline]
    pub(crate) fn store(self, number: u64, order: Ordering) {
        self.0.store(checked::encode(number), order);
    }

    /// Stores what another word stores, damaged or not.
    #[inline]
    pub(crate) fn store_that_of(self, other: Self) {
        self.0.store(other.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether the word is an undamaged 0.
    #[inline]
    pub(crate) fn is_zero(self, order: Ordering) -> bool {
        self.0.load(order) == checked::encode(0)
    }

    /// The 48 bits of the number, whether its check holds or not. One `and` cheaper than [`load`](Self::load).
    #[inline]
    pub(crate) fn load_unchecked(self, order: Ordering) -> u64 {
        self.0.load(order) & checked::MAX
    }

    /// Stores `number`, unless the word has a number that is at least as high. A damaged word is overwritten.
    pub(crate) fn raise_to(self, number: u64) {
        let mut word = self.0.load(Ordering::SeqCst);
        while checked::decode(word).is_none_or(|now| now < number) {
            let raised = checked::encode(number);
            match self.0.compare_exchange(word, raised, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
    }
}

/// An epoch.
#[derive(Clone, Copy)]
pub(crate) struct EpochWord<'a>(&'a AtomicU64);

impl EpochWord<'_> {
    /// The epoch, or `None` if the word is damaged.
    #[inline]
    pub(crate) fn load(self, order: Ordering) -> Option<Epoch> {
        Epoch::decode(self.0.load(order))
    }

    #[inline]
    pub(crate) fn store(self, epoch: Epoch, order: Ordering) {
        self.0.store(epoch.encode(), order);
    }
}

/// A reference to a slot of the same region.
#[derive(Clone, Copy)]
pub(crate) struct ReferenceWord<'a>(&'a AtomicU64);

impl ReferenceWord<'_> {
    #[inline]
    pub(crate) fn load(self, order: Ordering) -> Reference {
        Reference(self.0.load(order))
    }

    #[inline]
    pub(crate) fn store(self, reference: Reference, order: Ordering) {
        self.0.store(reference.0, order);
    }
}

/// The links of a slot that is in a queue.
#[derive(Clone, Copy)]
pub(crate) struct Link<'a> {
    /// The next slot of the queue.
    pub(crate) next: ReferenceWord<'a>,
    /// Since when the slot is in the queue.
    pub(crate) stamp: Checked<'a>,
}

impl<'a> Link<'a> {
    /// The links in two words.
    #[inline]
    pub(crate) fn of(words: &'a [AtomicU64]) -> Option<Self> {
        let [next, stamp] = words else { return None };
        Some(Self { next: next.into(), stamp: stamp.into() })
    }
}

/// Makes a kind of word of any word.
macro_rules! from_words {
    ($($kind:ident),*) => {$(
        impl<'a> From<&'a AtomicU64> for $kind<'a> {
            #[inline]
            fn from(word: &'a AtomicU64) -> Self {
                Self(word)
            }
        }
    )*};
}

pub(super) use from_words;

from_words!(Checked, EpochWord, ReferenceWord);

/// A reference to a slot, or to none, as it is stored: it may be damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reference(u64);

/// A reference that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoReference;

impl Reference {
    /// To no slot.
    pub(crate) const NONE: Self = Self(checked::encode(0));

    /// To a slot.
    #[inline]
    pub(crate) fn to(slot: u32) -> Self {
        Self(checked::encode(u64::from(slot) + 1))
    }

    /// The reference that a word of a slot's header stores.
    #[inline]
    pub(crate) fn of_word(word: u64) -> Self {
        Self(word)
    }

    /// The word that stores it.
    #[inline]
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// The slot, if it is one to a slot.
    #[inline]
    pub(crate) fn slot(self) -> Result<Option<u32>, NoReference> {
        match checked::decode(self.0) {
            Some(0) => Ok(None),
            Some(reference) => u32::try_from(reference - 1).map(Some).map_err(|_| NoReference),
            None => Err(NoReference),
        }
    }
}

/// Gives a view of words a method for each word. Its name is that of a field of the layout, with the field's type.
macro_rules! accessors {
    ($layout:ty: $($name:ident: $kind:ty),* $(,)?) => {$(
        #[inline]
        pub(crate) fn $name(self) -> $kind {
            <$kind>::from(&self.0[std::mem::offset_of!($layout, $name) / 8])
        }
    )*};
}

pub(crate) use accessors;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reference_gives_back_its_slot_and_knows_a_flipped_bit() {
        assert_eq!(Reference::NONE.slot(), Ok(None));
        for slot in [0, 1, 77, u32::MAX] {
            let reference = Reference::to(slot);
            assert_eq!(reference.slot(), Ok(Some(slot)));
            for bit in 0..64 {
                assert_eq!(Reference::of_word(reference.word() ^ (1 << bit)).slot(), Err(NoReference));
            }
        }
    }

    #[test]
    fn a_number_is_raised_and_never_lowered_and_a_damaged_word_has_none() {
        let word = AtomicU64::new(0xdead);
        let number = Checked::from(&word);
        assert_eq!(number.load(Ordering::Relaxed), None);
        number.raise_to(7);
        assert_eq!(number.load(Ordering::Relaxed), Some(7));
        number.raise_to(5);
        assert_eq!(number.load(Ordering::Relaxed), Some(7));
        number.raise_to(checked::MAX);
        assert_eq!(number.load(Ordering::Relaxed), Some(checked::MAX));
        assert!(!number.is_zero(Ordering::Relaxed));
        number.store(0, Ordering::Relaxed);
        assert!(number.is_zero(Ordering::Relaxed));
    }
}
