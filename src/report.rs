//! The reports of checks, repairs and salvage.

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
    /// The region, if the place is in one.
    pub region: Option<u32>,
    /// The slot number, if the place is a slot.
    pub slot: Option<u32>,
    /// The id in the slot's header. It may be the damaged part.
    pub id: Option<u64>,
    /// The damage, in words.
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

/// Records of one region that are not in the file any more. The region's index still leads to them, or its count is higher than the
/// number of records in its slots. Their ids are not known. See [`Store::verify`](crate::Store::verify).
///
/// Some of them may have an older version, which is the record then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// The region.
    pub region: u32,
    /// The number of records.
    pub records: u64,
    /// The evidence for them, in words.
    pub what: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.records == 1 { "" } else { "s" };
        write!(f, "region {}: {} record{s} missing: {}", self.region, self.records, self.what)
    }
}

/// The report of [`Store::verify`](crate::Store::verify).
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

/// The report of [`Store::repair`](crate::Store::repair), or of opening a store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Regions whose derived state was built anew from their slots.
    pub regions_rebuilt: Vec<u32>,
    /// Damaged versions that were given up.
    pub dropped: Vec<Damage>,
    /// Records that were gone already, per region: the repaired region does not have them.
    pub missing: Vec<Missing>,
    /// Everything else that was repaired, in words.
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

    /// The maximum number of lost records. Some versions that were given up may have been replaced ones, or may have an older version
    /// that stands in for them. 0: no record was lost.
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

/// The report of [`salvage`](crate::salvage): see [`SalvageReport::is_complete`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Records that were recovered.
    pub records: u64,
    /// Records that could not be recovered. The ids are those in the headers of damaged slots.
    pub lost: Vec<Damage>,
    /// Records that are gone without a slot, per region. The file still tells their number, and not their ids.
    pub missing: Vec<Missing>,
    /// Questions that the file does not answer, in words: for example, which records were in a destroyed part of the file. Empty:
    /// `lost` and `missing` are all losses.
    pub unknown: Vec<String>,
    /// The part of the file that gave the geometry, in words.
    pub source: String,
}

impl SalvageReport {
    /// The number of records that are known to be lost. Some may have an older version that was saved.
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

    /// Whether all records of the store were saved: none is lost, and no question is open.
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
