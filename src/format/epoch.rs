//! The epoch: the store's clock of flushes. Raised by every flush and every snapshot.
//!
//! A slot's stamp is not an epoch: it has marks beside the epoch. The checked word that stores an epoch is not one either.
//! Neither can be compared with an epoch.

use super::checked;

/// The time between two flushes or snapshots: 46 bits are used. A stamp has 48 bits. If one has more than the last epoch, no
/// write made it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(transparent)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// Before the first epoch.
    pub(crate) const BEFORE: Self = Self(0);
    /// The first epoch of a store.
    pub(crate) const FIRST: Self = Self(1);
    /// The last one.
    pub(crate) const LAST: Self = Self(1 << 46);
    /// Stamps of later epochs are not believed. So an epoch that is found anew is far before the last one.
    const CREDIBLE: Self = Self(Self::LAST.0 >> 1);

    /// The epoch of this number: its low 48 bits.
    #[inline]
    pub(crate) const fn of(number: u64) -> Self {
        Self(number & checked::MAX)
    }

    /// Its number.
    #[inline]
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    /// Whether a stamp of this epoch is believed in a search for the current one. With one flush in a microsecond a store gets
    /// there in a year, and no disk is that fast.
    pub(crate) const fn is_credible(self) -> bool {
        self.0 <= Self::CREDIBLE.0
    }

    /// The one after it; after the last one, the last one.
    pub(crate) const fn next(self) -> Self {
        if self.0 < Self::LAST.0 { Self(self.0 + 1) } else { Self::LAST }
    }

    /// The checked word that stores it.
    #[inline]
    pub(crate) const fn encode(self) -> u64 {
        checked::encode(self.0)
    }

    /// The epoch that a checked word stores, or `None` if the word is damaged.
    #[inline]
    pub(crate) const fn decode(word: u64) -> Option<Self> {
        match checked::decode(word) {
            Some(number) if number <= Self::LAST.0 => Some(Self(number)),
            _ => None,
        }
    }
}
