//! The file extent by extent: the use of each, and its content.

use crate::error::Result;
use crate::format::extent::ExtentKind;
use crate::format::slot::SlotKind;
use crate::protocol::slot::header;
use crate::store::Store;

/// The use of an extent: see [`Store::extents`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtentUse {
    /// Slots of this region.
    Slots {
        /// The region.
        region: u32,
    },
    /// Index tables.
    Index,
    /// None: the extent has no header. A process died during growth, or the header is damaged.
    Unknown,
}

/// An extent in numbers: see [`Store::extents`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtentStats {
    /// Its number: how many units lie between the first extent and this one. A unit is a page or, if all extents are of one size, an
    /// extent.
    pub extent: u32,
    /// Its offset in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its use.
    pub usage: ExtentUse,
    /// Its first slot, if it has slots.
    pub first_slot: Option<u32>,
    /// The number of its slots.
    pub slots: u32,
    /// Bytes of each of its slots: a header of 32 bytes, and the data.
    pub slot_size: u64,
    /// Slots that hold a version or a tombstone: current ones and retired ones.
    pub used_slots: u32,
    /// Bytes of data in these slots.
    pub data_bytes: u64,
    /// The newest epoch of a version in it; 0 if there is none.
    pub newest_epoch: u64,
}

/// Extent by extent.
impl Store {
    /// Every extent of the file, in the order of the file. Concurrent writes may or may not be counted.
    ///
    /// O(slots): the header of every slot is read, and no record.
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// # use recstore::{ExtentUse, Store};
    /// # let path = std::env::temp_dir().join(format!("recstore-extents-{}.rec", std::process::id()));
    /// let store = Store::create(&path)?;
    /// store.put(7, b"seven")?;
    /// let extents = store.extents()?;
    /// let used: u32 = extents.iter().map(|extent| extent.used_slots).sum();
    /// assert_eq!(used, 1);
    /// assert!(matches!(extents[0].usage, ExtentUse::Slots { .. }));
    /// # drop(store);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Forked`](crate::Error::Forked).
    pub fn extents(&self) -> Result<Vec<ExtentStats>> {
        self.handle.check()?;
        let arena = &self.handle.arena;
        let geo = &arena.geo;
        let mut extents = Vec::new();
        arena.each_extent(|extent| extents.push(*extent))?;
        let mut found = Vec::with_capacity(extents.len());
        for extent in extents {
            let range = extent.range(geo);
            let mut stats = ExtentStats {
                extent: extent.unit,
                offset: range.start,
                bytes: range.end - range.start,
                usage: ExtentUse::Unknown,
                first_slot: None,
                slots: 0,
                slot_size: 0,
                used_slots: 0,
                data_bytes: 0,
                newest_epoch: 0,
            };
            match extent.kind {
                Some(ExtentKind::Index) => stats.usage = ExtentUse::Index,
                Some(ExtentKind::Data { region }) => {
                    stats.usage = ExtentUse::Slots { region };
                    stats.first_slot = Some(extent.slot_numbers(geo).start);
                    (stats.slots, stats.slot_size) = (extent.slots, extent.slot_size(geo));
                    for header in (0..extent.slots).filter_map(|n| arena.slot_in(&extent, n)).map(header) {
                        if header.seq() != 0
                            && matches!(header.kind(), SlotKind::Record | SlotKind::Tombstone)
                        {
                            stats.used_slots += 1;
                            stats.data_bytes += header.len() as u64;
                            stats.newest_epoch = stats.newest_epoch.max(header.epoch().number());
                        }
                    }
                }
                None => {}
            }
            found.push(stats);
        }
        Ok(found)
    }
}
