//! What a check or a repair says: damage, and what was done about it.

use std::fmt;

/// How far long work is: see [`Store::verify_with_progress`](crate::Store::verify_with_progress).
///
/// ```
/// # use recstore::Store;
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
/// store.verify_with_progress(|progress| println!("{} of {}", progress.done, progress.total))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many parts of the work are done. The parts take about the same time each.
    pub done: u64,
    /// How many parts there are, as far as that is known: others may write meanwhile.
    pub total: u64,
}

impl Progress {
    pub(crate) fn of(done: u64, total: u64) -> Self {
        Self { done, total: total.max(done) }
    }
}

/// One damaged place: see [`Store::verify`](crate::Store::verify).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The region, if the place is one's.
    pub region: Option<u32>,
    /// The slot number, if the place is one.
    pub slot: Option<u32>,
    /// The id that the slot's header gives; it may be what is damaged.
    pub id: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    pub(crate) fn of_store(what: impl Into<String>) -> Self {
        Self { region: None, slot: None, id: None, what: what.into() }
    }

    pub(crate) fn of_region(region: u32, what: impl Into<String>) -> Self {
        Self { region: Some(region), slot: None, id: None, what: what.into() }
    }

    pub(crate) fn of_slot(region: u32, slot: u32, id: Option<u64>, what: impl Into<String>) -> Self {
        Self { region: Some(region), slot: Some(slot), id, what: what.into() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(region) = self.region {
            write!(f, "region {region}: ")?;
        }
        if let Some(slot) = self.slot {
            write!(f, "slot {slot}: ")?;
        }
        if let Some(id) = self.id {
            write!(f, "record {id} ({id:#x}): ")?;
        }
        f.write_str(&self.what)
    }
}

/// Records of one region that are not in the file any more, though what is left tells that they were: its index
/// leads to them, or its count is higher than what its slots hold. Which ids they had is not known. See
/// [`Store::verify`](crate::Store::verify).
///
/// Of some of them an older version may have been kept, which is then the record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// The region.
    pub region: u32,
    /// How many records.
    pub records: u64,
    /// What tells of them, in words.
    pub what: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.records == 1 { "" } else { "s" };
        write!(f, "region {}: {} record{s} missing: {}", self.region, self.records, self.what)
    }
}

/// What [`Store::verify`](crate::Store::verify) found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Live records that were checked.
    pub records: u64,
    /// Slots that were checked.
    pub slots: u64,
    /// All damage that was found.
    pub damage: Vec<Damage>,
    /// Records that are gone, per region. There is an entry in `damage` too for each.
    pub missing: Vec<Missing>,
}

impl VerifyReport {
    /// Whether there is no damage.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert!(store.verify()?.is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

/// What opening a store, or [`Store::repair`](crate::Store::repair), put right.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Regions whose derived state was built anew from their slots.
    pub regions_rebuilt: Vec<u32>,
    /// Damaged versions that were given up.
    pub dropped: Vec<Damage>,
    /// Records that were gone already, per region: the repaired region has not got them.
    pub missing: Vec<Missing>,
    /// Everything else that was put right, in words.
    pub fixed: Vec<String>,
    /// The operating system went down while the store was in use.
    pub os_crash: bool,
}

impl RepairReport {
    /// Whether there was nothing to do.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(store.repair()?.is_empty()); // nothing was to be put right
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.regions_rebuilt.is_empty()
            && self.dropped.is_empty()
            && self.missing.is_empty()
            && self.fixed.is_empty()
            && !self.os_crash
    }

    /// How many records were lost, at most: a version that was given up may have been one that was replaced, or one
    /// that an older version stands in for. 0: none was.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.opened().lost(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.dropped.len() as u64 + self.missing.iter().map(|missing| missing.records).sum::<u64>()
    }
}

/// What [`salvage`](crate::salvage) found: see [`SalvageReport::is_complete`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Records that were recovered.
    pub records: u64,
    /// Records that could not be: the ids are those in the headers of damaged slots.
    pub lost: Vec<Damage>,
    /// Records that are gone without a slot, per region. What is left of the file tells how many, and not which.
    pub missing: Vec<Missing>,
    /// What could not be known, in words: for example, which records were in a part of the file that is destroyed
    /// together with all that tells of it. Empty: `lost` and `missing` are all that is lost.
    pub unknown: Vec<String>,
    /// What told the geometry, in words.
    pub source: String,
}

impl SalvageReport {
    /// How many records are known to be lost. Of some an older version may have been saved.
    ///
    /// ```
    /// # use recstore::{salvage, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let report = salvage(store.path(), dir.path().join("saved.rec"), None)?;
    /// assert_eq!(report.lost_records(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.lost.len() as u64 + self.missing.iter().map(|missing| missing.records).sum::<u64>()
    }

    /// Whether everything was saved that the store had: nothing is lost, and nothing is unknown.
    ///
    /// ```
    /// # use recstore::{salvage, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let report = salvage(store.path(), dir.path().join("saved.rec"), None)?;
    /// assert!(report.is_complete());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost_records() == 0 && self.unknown.is_empty()
    }
}
