//! The bound of a cache, and the count of what it holds: one record for each cache.
//!
//! 1. What a write adds is counted before the write, and what it takes away after it. So the count is not too low, but after a count beside writes (rule 3). A death
//!    leaves it too high by the values of the one call that the process died in.
//! 2. A loss of power may bring back an older count. So the record names the life of the store in which it was written last. In
//!    another life the values are counted anew.
//! 3. A count is made from a snapshot: the values of its moment, beside the record of its moment. The record is changed by the
//!    difference, so that what others count meanwhile is kept. A value that was counted and not written at the moment, or deleted and
//!    not counted, makes the count wrong by as much.
//! 4. A write that finds the key otherwise than it was counted for, so that more is added, writes nothing, and counts once more.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::format::shaped;
use crate::record::Durability;
use crate::store::Store;
use crate::store::cache_sample::TICK_BYTES;
use crate::store::key_typed::KeyTyped;

/// In front of the name of a space: those that the values of caches lie in.
pub(super) const CACHE: &str = "cache ";
/// The space of the records.
const CACHES: &str = "caches";

/// The bound of a cache, and its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Usage {
    /// Values; all ones: any number.
    pub(super) max_records: u64,
    /// Bytes of keys and values; all ones: any number.
    pub(super) max_bytes: u64,
    /// 0: the oldest value goes first; 1: the one that was not used for longest.
    pub(super) policy: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Writes so far: the clock of the cache.
    pub(super) ticks: u64,
    /// The life of the store, as in a ring.
    pub(super) life: u64,
}

/// A number of values and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) records: i64,
    pub(super) bytes: i64,
}

impl Load {
    pub(super) fn of(key: &[u8], value_len: usize) -> Self {
        Self { records: 1, bytes: (key.len() + value_len) as i64 }
    }

    /// That of a value as it is stored, with its time behind it.
    pub(super) fn of_stored(key: &[u8], stored_len: usize) -> Self {
        Self::of(key, stored_len.saturating_sub(TICK_BYTES))
    }

    /// Whether neither part of `other` is more.
    pub(super) fn covers(self, other: Self) -> bool {
        other.records <= self.records && other.bytes <= self.bytes
    }

    pub(super) fn add(self, other: Self) -> Self {
        Self { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }

    pub(super) fn less(self, other: Self) -> Self {
        Self { records: self.records - other.records, bytes: self.bytes - other.bytes }
    }

    /// As much of it as is more than nothing.
    pub(super) fn growth(self) -> Self {
        Self { records: self.records.max(0), bytes: self.bytes.max(0) }
    }
}

impl Usage {
    /// Whether more than the bound would be there with `more`.
    pub(super) fn is_over_with(&self, more: Load) -> bool {
        self.records.saturating_add_signed(more.records) > self.max_records
            || self.bytes.saturating_add_signed(more.bytes) > self.max_bytes
    }

    /// The same of an empty cache.
    pub(super) fn emptied(self) -> Self {
        Self { records: 0, bytes: 0, ..self }
    }

    fn has_bound_of(&self, other: &Self) -> bool {
        (self.max_records, self.max_bytes, self.policy) == (other.max_records, other.max_bytes, other.policy)
    }

    fn bound(&self) -> String {
        let most = |max: u64, of: &str| (max != u64::MAX).then(|| format!("{max} {of}"));
        let both = [most(self.max_records, "values"), most(self.max_bytes, "bytes")];
        let both = both.into_iter().flatten().collect::<Vec<_>>().join(" and ");
        let both =
            if both.is_empty() { "any number of values".to_owned() } else { format!("at most {both}") };
        let policy = if self.policy == 0 { "oldest" } else { "least recently used" };
        format!("a cache of {both}, {policy} out")
    }
}

/// The record of one cache.
#[derive(Clone, Debug)]
pub(super) struct Count<'a> {
    usages: KeyTyped<'a, Usage>,
    store: &'a Store,
    name: Box<str>,
}

impl<'a> Count<'a> {
    pub(super) fn new(store: &'a Store, name: &str) -> Result<Self> {
        Ok(Self { usages: store.space(CACHES)?.typed("recstore.cache.v1")?, store, name: name.into() })
    }

    fn life(&self) -> u64 {
        let arena = &self.store.handle.arena;
        shaped::life(&arena.uuid, arena.first_of_life())
    }

    /// The record, if there is one.
    pub(super) fn get(&self) -> Result<Option<Usage>> {
        self.usages.get(&*self.name)
    }

    /// Makes the record, on disk, or compares its bound with that of `wanted`. Without a bound any is right. Returns whether the
    /// values have to be counted.
    pub(super) fn open(&self, wanted: Usage) -> Result<(Usage, bool)> {
        let has_bound = wanted.max_records != u64::MAX || wanted.max_bytes != u64::MAX;
        let found = match self.get()? {
            Some(found) => found,
            None if !has_bound => {
                let what = format!(
                    "cache {:?} is new and has no bound; give CacheOptions::max_records or max_bytes",
                    self.name
                );
                return Err(Error::InvalidOption { what });
            }
            None if self.store.is_read_only() => return Ok((wanted, false)),
            None => {
                let wanted = Usage { life: self.life(), ..wanted };
                let space = self.store.space(CACHES)?;
                space.update_with(&*self.name, Durability::Disk, |old| {
                    old.is_none().then(|| self.usages.encode(&wanted))
                })?;
                self.get()?.unwrap_or(wanted)
            }
        };
        if has_bound && !found.has_bound_of(&wanted) {
            return Err(Error::OtherShape {
                path: self.store.path().to_path_buf(),
                space: CACHES.to_owned(),
                key: self.name.to_string(),
                found: found.bound().into(),
                wanted: wanted.bound().into(),
            });
        }
        Ok((found, found.life != self.life() && !self.store.is_read_only()))
    }

    /// Changes the count by `by`, and the clock by `ticks`. Returns the record; `None` if there is none.
    pub(super) fn change(&self, by: Load, ticks: u64) -> Result<Option<Usage>> {
        let mut changed = None;
        self.usages.update_with(&*self.name, Durability::Process, |usage| {
            changed = usage.map(|usage| Usage {
                records: usage.records.saturating_add_signed(by.records),
                bytes: usage.bytes.saturating_add_signed(by.bytes),
                ticks: usage.ticks.wrapping_add(ticks),
                ..usage
            });
            changed
        })?;
        Ok(changed)
    }

    /// Counts the values anew: rule 3. O(records of the store).
    pub(super) fn recount(&self) -> Result<Usage> {
        let (counts, values) =
            (self.store.space(CACHES)?, self.store.space(&format!("{CACHE}{}", self.name))?);
        let life = self.life();
        let snapshot = self.store.snapshot()?;
        let noted = snapshot.get_in(&counts, &*self.name)?;
        let noted = noted.map(|bytes| self.usages.decode(&*self.name, bytes)).transpose()?;
        let mut there = Load::default();
        for found in snapshot.all_in(&values) {
            let (key, value) = found?;
            there = there.add(Load::of_stored(key, value.len()));
        }
        let noted = noted.unwrap_or(Usage::zeroed());
        drop(snapshot);
        let mut counted = Usage::zeroed();
        self.usages.update_with(&*self.name, Durability::Process, |usage| {
            let usage = usage?;
            // The values of the moment, and what others have counted since.
            let now = |there: i64, now: u64, noted: u64| {
                let by = i128::from(there) + i128::from(now) - i128::from(noted);
                by.clamp(0, u64::MAX.into()) as u64
            };
            counted = Usage {
                records: now(there.records, usage.records, noted.records),
                bytes: now(there.bytes, usage.bytes, noted.bytes),
                life,
                ..usage
            };
            Some(counted)
        })?;
        Ok(counted)
    }
}
