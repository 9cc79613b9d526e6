//! The store in numbers.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::error::{Holder, Result};
use crate::file::seat;
use crate::format::FORMAT_VERSION;
use crate::format::epoch::Epoch;
use crate::format::seat::SEATS;
use crate::format::slot::PRESENT;
use crate::format::word::{Checked, EpochWord};
use crate::handle::Handle;
use crate::protocol::lock::{self, LockState};
use crate::region::head::Region;
use crate::store::Store;
use crate::sys::atomic::Ordering;

/// A store in numbers: see [`Store::stats`]. Concurrent writes may or may not be counted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The path that the store was opened by.
    pub path: PathBuf,
    /// Version of the file's format.
    pub format_version: u32,
    /// The store's unique id, drawn at creation, in hexadecimal.
    pub uuid: String,
    /// Capacity of a record in bytes.
    pub record_size: u64,
    /// Bytes of a slot for the longest record.
    pub slot_size: u64,
    /// Slots in an extent, if all extents are of one size: see [`Options::slots_per_extent`](crate::Options::slots_per_extent).
    pub slots_per_extent: Option<u32>,
    /// Bytes of an extent, if all are of one size.
    pub extent_size: Option<u64>,
    /// Ceiling of the file's size in bytes.
    pub max_size: u64,
    /// Size of the file in bytes.
    pub file_size: u64,
    /// Bytes of disk that the file takes.
    pub allocated_size: u64,
    /// Live records.
    pub records: u64,
    /// Slots.
    pub slots: u64,
    /// Slots that are free.
    pub free_slots: u64,
    /// Slots of replaced versions, kept until their successors are on disk and no snapshot reads them.
    pub retired_slots: u64,
    /// Extents, of slots and of indexes.
    pub extents: u32,
    /// Bytes of all index tables in use.
    pub index_bytes: u64,
    /// The slots by their length, the shortest first.
    pub classes: Vec<ClassStats>,
    /// The current epoch: raised by every flush.
    pub epoch: u64,
    /// Everything that was written in this epoch or before is on disk.
    pub durable_epoch: u64,
    /// Whether the store was closed cleanly and nothing was written since: all of it is on disk.
    pub closed_cleanly: bool,
    /// Flushes since the store was created.
    pub flushes: u64,
    /// Writes that asked to be durable since the store was created.
    pub durable_writes: u64,
    /// All regions.
    pub regions: Vec<RegionStats>,
    /// All seats that are taken, or whose holder died.
    pub attached: Vec<Attached>,
}

/// The slots of one length in numbers: see [`Store::stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of each slot: a header of 32 bytes, and the data.
    pub slot_size: u64,
    /// Extents of such slots.
    pub extents: u32,
    /// Bytes of these extents.
    pub bytes: u64,
    /// Slots.
    pub slots: u64,
    /// Slots that were never used.
    pub fresh_slots: u64,
    /// The use of the other slots, if it was counted: see [`Store::stats_of_slots`].
    pub used: Option<UsedSlots>,
}

impl ClassStats {
    /// Bytes of the slots that hold nothing, if the use of the slots was counted.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// store.delete(1)?;
    /// let class = store.stats_of_slots()?.classes[0];
    /// assert_eq!(class.idle_bytes(), Some(class.slots * class.slot_size));
    /// assert_eq!(store.stats()?.classes[0].idle_bytes(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn idle_bytes(&self) -> Option<u64> {
        let used = self.used?;
        Some(self.slots.saturating_sub(used.slots) * self.slot_size)
    }
}

/// The use of the slots of one length: see [`Store::stats_of_slots`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsedSlots {
    /// Slots that hold a version or a tombstone: current ones and retired ones.
    pub slots: u64,
    /// Bytes of data in them.
    pub data_bytes: u64,
}

/// A region in numbers: see [`Store::stats`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegionStats {
    /// The region.
    pub region: u32,
    /// Live records.
    pub records: u64,
    /// Slots.
    pub slots: u64,
    /// Slots that are free.
    pub free_slots: u64,
    /// Slots of replaced versions, kept until their successors are on disk and no snapshot reads them.
    pub retired_slots: u64,
    /// Extents of slots.
    pub extents: u32,
    /// Entries that the region's index table has room for.
    pub index_entries: u64,
    /// The owner of the region's lock.
    pub lock: Option<LockOwner>,
    /// The version of the next write.
    pub next_version: u64,
}

/// The owner of a lock, in [`RegionStats::lock`].
///
/// See [`Store::stats`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LockOwner {
    /// The holder's seat.
    pub seat: u32,
    /// Which claim of the seat it is.
    pub generation: u32,
    /// The process id that the holder noted.
    pub pid: u32,
    /// Whether a process with this id exists; `None` if the holder noted the id in another PID namespace. If the holder lives and
    /// its process has ended, another process has the holder's descriptor of the file.
    pub pid_exists: Option<bool>,
    /// Whether the holder lives. The region of a dead holder is rebuilt by the next process that needs it.
    pub alive: bool,
}

/// A handle that is attached for writing, or was when it died: see [`Store::stats`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attached {
    /// The seat.
    pub seat: u32,
    /// Which claim of the seat it is.
    pub generation: u32,
    /// The process id that the holder noted.
    pub pid: u32,
    /// Whether a process with this id exists: see [`LockOwner::pid_exists`].
    pub pid_exists: Option<bool>,
    /// Whether the holder lives.
    pub alive: bool,
    /// Pins that it holds; all of its snapshots count as one.
    pub pins: u64,
}

impl Stats {
    /// Bytes of disk that the store takes for each record, whatever it needs them for. `None` if there is no record.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.stats()?.bytes_per_record(), None);
    /// store.write_many((0..10_000).map(|id| (id, [1; 64])))?;
    /// let bytes = store.stats()?.bytes_per_record().unwrap();
    /// assert!((100..200).contains(&bytes), "{bytes}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn bytes_per_record(&self) -> Option<u64> {
        self.allocated_size.checked_div(self.records)
    }
}

/// In numbers.
impl Store {
    /// The store in numbers: O(extents + regions), and a few system calls.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let stats = store.stats()?;
    /// assert_eq!(stats.records, 1);
    /// println!("{} bytes on disk, {} handles", stats.allocated_size, stats.attached.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Forked`](crate::Error::Forked).
    pub fn stats(&self) -> Result<Stats> {
        self.handle.check()?;
        let arena = &self.handle.arena;
        let geo = &arena.geo;
        let metadata = arena.file.metadata().map_err(arena.io("looking at the file"))?;
        let mut of_regions = vec![(0, 0); geo.regions as usize];
        let mut of_classes: BTreeMap<u32, ClassStats> = BTreeMap::new();
        let mut all_extents = 0;
        arena.each_extent(|extent| {
            // A uniform extent for index tables is counted as so many.
            all_extents += if geo.grows { 1 } else { extent.run };
            if let Some((extents, slots)) = extent.region().and_then(|r| of_regions.get_mut(r as usize)) {
                *extents += 1;
                *slots += u64::from(extent.slots);
                let (slot_size, range) = (extent.slot_size(geo), extent.range(geo));
                let class = of_classes.entry(extent.class).or_insert(ClassStats {
                    slot_size,
                    extents: 0,
                    bytes: 0,
                    slots: 0,
                    fresh_slots: 0,
                    used: None,
                });
                class.extents += 1;
                class.bytes += range.end - range.start;
                class.slots += u64::from(extent.slots);
            }
        })?;
        for (&class, stats) in &mut of_classes {
            let fresh = |region| Region::new(arena, region).count_fresh_of(class).unwrap_or(0);
            stats.fresh_slots = (0..geo.regions).map(fresh).sum();
        }
        let mut regions = Vec::with_capacity(geo.regions as usize);
        for (region, &(extents, slots)) in (0..).zip(&of_regions) {
            regions.push(self.region_stats(region, extents, slots)?);
        }
        let sum = |of: fn(&RegionStats) -> u64| regions.iter().map(of).sum();
        let control = arena.control();
        let epoch = |word: EpochWord<'_>| word.load(Ordering::Relaxed).map_or(0, Epoch::number);
        Ok(Stats {
            path: arena.path.clone(),
            format_version: FORMAT_VERSION,
            uuid: arena.uuid.iter().map(|b| format!("{b:02x}")).collect(),
            record_size: u64::from(geo.record_size),
            slot_size: geo.slot_size,
            slots_per_extent: (!geo.grows).then(|| geo.slots_in(1, geo.slot_size)),
            extent_size: (!geo.grows).then_some(geo.unit),
            max_size: geo.max_size,
            file_size: metadata.len(),
            allocated_size: metadata.blocks() * 512,
            records: sum(|r| r.records),
            slots: sum(|r| r.slots),
            free_slots: sum(|r| r.free_slots),
            retired_slots: sum(|r| r.retired_slots),
            extents: all_extents,
            index_bytes: (0..geo.regions).map(|r| arena.shape(r).bytes()).sum(),
            classes: of_classes.into_values().collect(),
            epoch: epoch(control.epoch()),
            durable_epoch: epoch(control.durable()),
            closed_cleanly: self.handle.is_clean(),
            flushes: control.flushes().load(Ordering::Relaxed),
            durable_writes: control.durable_writes().load(Ordering::Relaxed),
            regions,
            attached: attached(&self.handle)?,
        })
    }

    /// [`stats`](Self::stats), and of each length of slots how many are in use, and for how many bytes of data: O(slots), as
    /// [`extents`](Self::extents).
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// store.put(2, [0; 1000])?;
    /// let classes = store.stats_of_slots()?.classes;
    /// assert_eq!(classes.iter().filter_map(|class| class.used).map(|used| used.data_bytes).sum::<u64>(), 1003);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`stats`](Self::stats).
    pub fn stats_of_slots(&self) -> Result<Stats> {
        let mut stats = self.stats()?;
        for class in &mut stats.classes {
            class.used = Some(UsedSlots::default());
        }
        for extent in self.extents()? {
            // Others may have made one since, of another length.
            let class = stats.classes.iter_mut().find(|class| class.slot_size == extent.slot_size);
            if let Some(used) = class.and_then(|class| class.used.as_mut()) {
                used.slots += u64::from(extent.used_slots);
                used.data_bytes += extent.data_bytes;
            }
        }
        Ok(stats)
    }

    fn region_stats(&self, region: u32, extents: u32, slots: u64) -> Result<RegionStats> {
        let arena = &self.handle.arena;
        let head = arena.head(region);
        let count = |word: Checked<'_>| word.load(Ordering::Relaxed).unwrap_or(0);
        let fresh = Region::new(arena, region).count_fresh().unwrap_or(0);
        Ok(RegionStats {
            region,
            records: count(head.live()),
            slots,
            free_slots: count(head.free_count()) + fresh,
            retired_slots: count(head.retired_count()) + count(head.parked_count()),
            extents,
            index_entries: arena.shape(region).entries(),
            lock: lock_owner(&self.handle, head.lock().load(Ordering::Relaxed))?,
            next_version: head.next_seq().load(Ordering::Relaxed) & !PRESENT,
        })
    }
}

/// The owner of the lock with this word. A damaged word names no owner.
pub(crate) fn lock_owner(handle: &Handle, word: u64) -> Result<Option<LockOwner>> {
    let living = seat::living_owner(&handle.arena, word)?;
    Ok(match (lock::state(word), living) {
        (LockState::Free | LockState::Clean, _) => None,
        (LockState::Damaged, None) => {
            Some(LockOwner { seat: 0, generation: 0, pid: 0, pid_exists: None, alive: false })
        }
        (LockState::Held(owner), _) | (LockState::Damaged, Some(owner)) => {
            let Holder { pid, exists } = seat::holder(&handle.arena, owner.seat);
            Some(LockOwner {
                seat: owner.seat,
                generation: owner.generation,
                pid,
                pid_exists: exists,
                alive: living.is_some(),
            })
        }
    })
}

fn attached(handle: &Handle) -> Result<Vec<Attached>> {
    let arena = &handle.arena;
    let mut found = Vec::new();
    for number in 0..SEATS {
        if arena.seat(number).taken().load(Ordering::SeqCst) == 0 {
            continue;
        }
        let claim = arena.seat(number).last_claim();
        let Holder { pid, exists } = seat::holder(arena, number);
        found.push(Attached {
            seat: number,
            generation: claim,
            pid,
            pid_exists: exists,
            alive: seat::is_held(arena, number)?,
            pins: seat::pins(arena, number),
        });
    }
    Ok(found)
}
