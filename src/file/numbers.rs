//! Slot numbers to places, in a store whose extents grow.
//!
//! The headers of the extents tell which groups of numbers each has. A handle notes this for each group, the first time that it
//! meets a number of the group. A look at a slot takes no lock, and reads one word of its group.
//!
//! A header stays until its extent is given back, which needs the lock of the extent's region. Then the place and the numbers are
//! used again, so what other processes noted may be wrong. These rules keep a wrong note from being believed:
//!
//! 1. The word `layout` of the control page changes after an extent was given back, and before the header of an extent is written
//!    that may have a place or numbers that were used before.
//! 2. The notes are those of one layout. If the layout is another one, the handle looks at all headers again. It is the one of the
//!    notes only if it was the same before and after that look.
//! 3. The owner of a region's lock compares the layouts after it has the lock. Extents of the region are given back, and added, under
//!    the lock alone. So from then on the notes of the region's extents are right.
//! 4. A reader without a lock compares the layouts after it has read a slot. If they differ, it reads again: what it read may be
//!    bytes in the middle of a record.

use std::sync::atomic::AtomicPtr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// The bit in the word of the extents that were passed: some have numbers out of order.
const HAS_STRAYS: u64 = 1 << 63;

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
    /// The group behind those of all extents that were noted.
    end: AtomicU64,
    /// The layout of the notes.
    layout: AtomicU64,
    /// Held by a thread that looks at headers and notes them.
    learning: Mutex<()>,
}

impl Numbers {
    /// No notes yet, of this layout.
    pub(crate) fn new(geo: &Geometry, layout: u64) -> Self {
        let first = Arc::new(Table::new(FIRST_GROUPS));
        Self {
            table: AtomicPtr::new(Arc::as_ptr(&first).cast_mut()),
            tables: Mutex::new(vec![first]),
            gaps: Mutex::default(),
            sizes: std::array::from_fn(|class| geo.class_size(class as u32) as u32),
            passed: AtomicU64::new(0),
            end: AtomicU64::new(0),
            layout: AtomicU64::new(layout),
            learning: Mutex::new(()),
        }
    }

    /// The layout of the notes.
    #[inline]
    pub(crate) fn layout(&self) -> u64 {
        self.layout.load(Ordering::Acquire)
    }

    /// Excludes other threads of the process that note extents.
    pub(crate) fn learn(&self) -> MutexGuard<'_, ()> {
        self.learning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other notes, which are of this layout, in the place of these. A note that is right stays as it is all the while.
    pub(crate) fn replace(&self, notes: Self, layout: u64) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let new = notes.table();
        let table = self.table_for(&mut tables, new.groups.len() - 1);
        for (at, (group, extent)) in table.groups.iter().zip(&table.extents).enumerate() {
            let word = |words: Option<&AtomicU64>| words.map_or(0, |word| word.load(Ordering::Relaxed));
            let new_extent = new.extents.get(at);
            let [first, second] = [0, 1].map(|n| word(new_extent.map(|words| &words[n])));
            let [was_first, was_second] = [0, 1].map(|n| extent[n].load(Ordering::Relaxed));
            let (now, was) = (word(new.groups.get(at)), group.load(Ordering::Relaxed));
            if (now, first, second) != (was, was_first, was_second) {
                group.store(0, Ordering::Relaxed);
                extent[0].store(first, Ordering::Relaxed);
                extent[1].store(second, Ordering::Relaxed);
                group.store(now, Ordering::Release);
            }
        }
        let gaps = notes.gaps();
        *self.gaps.lock().unwrap_or_else(PoisonError::into_inner) = gaps;
        self.passed.store(notes.passed.load(Ordering::Relaxed), Ordering::Release);
        self.end.store(notes.end.load(Ordering::Relaxed), Ordering::Release);
        self.layout.store(layout, Ordering::Release);
    }

    /// The group behind those of all extents that were noted.
    pub(crate) fn end(&self) -> u32 {
        self.end.load(Ordering::Acquire) as u32
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
        let group = (word >> 32) as u32 & !(HAS_STRAYS >> 32) as u32;
        Reached { unit: word as u32, group, has_strays: word & HAS_STRAYS != 0 }
    }

    /// Notes the groups of an extent, if the class of its slots is known.
    pub(crate) fn note(&self, geo: &Geometry, extent: &Extent) {
        let slots = if extent.class == NO_CLASS { 0 } else { extent.slots };
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        self.end.fetch_max(u64::from(extent.end_group(geo)), Ordering::AcqRel);
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
        let has_strays = if passed.has_strays { HAS_STRAYS } else { 0 };
        let word = u64::from(passed.unit) | u64::from(passed.group) << 32 | has_strays;
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
        let numbers = Numbers::new(&geo, 0);
        let (class, slot_size) = (1, 96);
        let slots = geo.slots_in(100, slot_size);
        numbers
            .note(&geo, &Extent { unit: 7, run: 100, group: 3, kind: None, slots, class, is_stray: false });
        assert_eq!(numbers.place(&geo, 3 * 256 - 1), None);
        assert_eq!(
            numbers.place(&geo, 3 * 256),
            Some(Location { unit: 7, run: 100, slots, slot_size, within: 0 })
        );
        let last = 3 * 256 + slots - 1;
        assert_eq!(numbers.place(&geo, last).map(|place| place.within), Some(slots - 1));
        assert_eq!(numbers.place(&geo, last + 1), None);
        for (unit, group, has_strays) in [(107, 5, false), (7, 3, false), (117, 5, true)] {
            let before = numbers.passed();
            let passed = Reached { unit, group, has_strays };
            numbers.pass(passed);
            assert_eq!(numbers.passed(), if unit < before.unit { before } else { passed });
        }
    }
}
