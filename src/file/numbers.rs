//! Slot numbers to places, in a store whose extents grow.
//!
//! The headers of the extents tell which groups of numbers each has. A handle notes this for each group, the first time that it
//! meets a number of the group. A header that was written stays, so what is noted stays true. A look at a slot takes no lock, and
//! reads one word of its group.

use std::sync::atomic::AtomicPtr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::file::extents::Reached;
use crate::format::extent::{Extent, Location, NO_CLASS};
use crate::format::geometry::{GROUP_LOG2, GROUPS_MAX, Geometry};
use crate::format::slot::SLOT_ALIGN;
use crate::sys::atomic::{AtomicU64, Ordering};

/// Groups that the first table has room for. Each later one has room for twice as many.
const FIRST_GROUPS: usize = 64;

// The word of a group that every look at a slot reads: where its first slot is, in units of 32 bytes; how many slots the group has in
// its extent; their class. 0: not noted.
const OFFSET_BITS: u32 = 39;
const COUNT_BITS: u32 = 9;
/// Bits of a class.
const CLASS_BITS: u32 = 7;

/// The groups up to some number. It is replaced by a longer one, and stays where it is: a thread may be looking at it.
struct Table {
    /// Of each group the word above.
    groups: Box<[AtomicU64]>,
    /// The extent of each group. Word 0: its first unit, and the place of the group among those of the extent, above bit 31. Word 1: its
    /// units, and its slots, above bit 31.
    extents: Box<[[AtomicU64; 2]]>,
}

impl Table {
    fn new(len: usize) -> Self {
        let word = || AtomicU64::new(0);
        Self {
            groups: (0..len).map(|_| word()).collect(),
            extents: (0..len).map(|_| [word(), word()]).collect(),
        }
    }

    fn copy_from(&self, other: &Self) {
        let copy =
            |to: &AtomicU64, from: &AtomicU64| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        self.groups.iter().zip(&other.groups).for_each(|(to, from)| copy(to, from));
        let words = self.extents.as_flattened().iter().zip(other.extents.as_flattened());
        words.for_each(|(to, from)| copy(to, from));
    }
}

/// A slot: see [`Numbers::find`].
#[derive(Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) offset: u64,
    pub(crate) slot_size: u64,
    pub(crate) class: u32,
}

/// The place of each group of slot numbers, as far as the process knows.
pub(crate) struct Numbers {
    /// The last one of `tables`.
    table: AtomicPtr<Table>,
    /// All tables that there were. A thread that notes a group holds the mutex.
    tables: Mutex<Vec<Arc<Table>>>,
    /// Gaps between the extents that were passed: a growth may put extents there. They are few, and found once.
    gaps: Mutex<Vec<Extent>>,
    /// Bytes of a slot of each class.
    sizes: [u32; 1 << CLASS_BITS],
    /// The extents whose groups are noted: the unit behind them and, above bit 31, the group.
    passed: AtomicU64,
}

impl Numbers {
    pub(crate) fn new(geo: &Geometry) -> Self {
        let first = Arc::new(Table::new(FIRST_GROUPS));
        Self {
            table: AtomicPtr::new(Arc::as_ptr(&first).cast_mut()),
            tables: Mutex::new(vec![first]),
            gaps: Mutex::default(),
            sizes: std::array::from_fn(|class| geo.class_size(class as u32) as u32),
            passed: AtomicU64::new(0),
        }
    }

    #[inline]
    fn table(&self) -> &Table {
        // SAFETY: the pointer is to a table in `tables`. None is taken out of there, so the table lives as long as
        // `self`, at its place. No table is changed but by atomic stores. The load is Acquire, and pairs with the Release in
        // `table_for`: the table is seen as it was made.
        unsafe { &*self.table.load(Ordering::Acquire) }
    }

    /// A table with room for this group. `tables`: locked.
    fn table_for(&self, tables: &mut Vec<Arc<Table>>, group: usize) -> &Table {
        if self.table().groups.len() <= group {
            let longer = Arc::new(Table::new((group + 1).next_power_of_two()));
            longer.copy_from(self.table());
            self.table.store(Arc::as_ptr(&longer).cast_mut(), Ordering::Release);
            tables.push(longer);
        }
        self.table()
    }

    /// Offset in the file, bytes and class of a slot, if its group is noted and has so many slots.
    #[inline(always)]
    pub(crate) fn find(&self, slot: u32) -> Option<Spot> {
        let (group, in_group) = (slot >> GROUP_LOG2, slot & ((1 << GROUP_LOG2) - 1));
        let word = self.table().groups.get(group as usize)?.load(Ordering::Acquire); // Pairs with the Release in `note`.
        if u64::from(in_group) >= word >> OFFSET_BITS & ((1 << COUNT_BITS) - 1) {
            return None;
        }
        let class = (word >> (OFFSET_BITS + COUNT_BITS)) as usize & ((1 << CLASS_BITS) - 1);
        let slot_size = u64::from(self.sizes[class]);
        let first = (word & ((1 << OFFSET_BITS) - 1)) * SLOT_ALIGN;
        Some(Spot { offset: first + u64::from(in_group) * slot_size, slot_size, class: class as u32 })
    }

    /// The place of a slot, if its group is noted and has so many slots.
    pub(crate) fn place(&self, geo: &Geometry, slot: u32) -> Option<Location> {
        let Spot { slot_size, .. } = self.find(slot)?;
        let (group, in_group) = geo.uniform_place(slot);
        let words = self.table().extents.get(group as usize)?;
        let [first, second] = [&words[0], &words[1]].map(|word| word.load(Ordering::Relaxed));
        let (unit, nth) = (first as u32, (first >> 32) as u32);
        let (run, slots) = (second as u32, (second >> 32) as u32);
        Some(Location { unit, run, slots, slot_size, within: geo.first_of_group(nth) + in_group })
    }

    /// The extents whose groups are noted.
    pub(crate) fn passed(&self) -> Reached {
        let word = self.passed.load(Ordering::Acquire);
        Reached { unit: word as u32, group: (word >> 32) as u32 }
    }

    /// Notes the groups of an extent, if the class of its slots is known.
    pub(crate) fn note(&self, geo: &Geometry, extent: &Extent) {
        let slots = if extent.class == NO_CLASS { 0 } else { extent.slots };
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        for nth in 0..geo.groups_for(slots).min(GROUPS_MAX.saturating_sub(extent.group)) {
            let at = (extent.group + nth) as usize;
            let table = self.table_for(&mut tables, at);
            let (Some(group), Some([first, second])) = (table.groups.get(at), table.extents.get(at)) else {
                return;
            };
            let before = geo.first_of_group(nth);
            let count = u64::from((extent.slots - before).min(geo.slots_of_groups(1)));
            let offset = extent.slot_at(geo, before) / SLOT_ALIGN;
            first.store(u64::from(extent.unit) | u64::from(nth) << 32, Ordering::Relaxed);
            second.store(u64::from(extent.run) | u64::from(extent.slots) << 32, Ordering::Relaxed);
            let class = u64::from(extent.class) << (OFFSET_BITS + COUNT_BITS);
            group.store(offset | count << OFFSET_BITS | class, Ordering::Release);
        }
    }

    /// Notes a gap that was passed.
    pub(crate) fn note_gap(&self, gap: &Extent) {
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        if !gaps.contains(gap) {
            gaps.push(*gap);
        }
    }

    /// The gaps that were passed.
    pub(crate) fn gaps(&self) -> Vec<Extent> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that all extents before these were noted.
    pub(crate) fn pass(&self, passed: Reached) {
        let word = u64::from(passed.unit) | u64::from(passed.group) << 32;
        // Groups grow with units, so the higher word has passed more.
        self.passed.fetch_max(word, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_slot_has_its_place_and_another_has_none() {
        let geo = Geometry::new(64, None, 1, 1 << 40, 0).unwrap();
        let numbers = Numbers::new(&geo);
        let (class, slot_size) = (1, 96);
        let slots = geo.slots_in(100, slot_size);
        numbers.note(&geo, &Extent { unit: 7, run: 100, group: 3, kind: None, slots, class });
        assert_eq!(numbers.place(&geo, 3 * 256 - 1), None);
        assert_eq!(
            numbers.place(&geo, 3 * 256),
            Some(Location { unit: 7, run: 100, slots, slot_size, within: 0 })
        );
        let last = 3 * 256 + slots - 1;
        assert_eq!(numbers.place(&geo, last).map(|place| place.within), Some(slots - 1));
        assert_eq!(numbers.place(&geo, last + 1), None);
        numbers.pass(Reached { unit: 107, group: 5 });
        numbers.pass(Reached { unit: 7, group: 3 });
        assert_eq!(numbers.passed(), Reached { unit: 107, group: 5 });
    }
}
