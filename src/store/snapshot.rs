//! Snapshots: the whole store as it is at one moment, while others write.
//!
//! 1. The moment is the end of an epoch. The epoch is pinned in the handle's seat. (All snapshots of a handle share one pin, that
//!    of the oldest: it keeps the versions for all of them.) Then the epoch is raised, and the snapshot waits for the writers that
//!    are still in the old one.
//! 2. A version that was current at the moment has a stamp of that epoch or an earlier one. It stays untouched in its slot while
//!    the pin stands. Of all such versions of its id it has the highest `seq`. Later versions have a later stamp. So do
//!    deletions: under a pin, a deletion is a tombstone with a slot of its own.
//! 3. So if the index leads to a version of that epoch or an earlier one, it is the snapshot's. If the version is later, or the
//!    index leads to none, the queue of the region's replaced versions leads to the snapshot's: see `store::replaced`. If the queue does
//!    not tell, a pass over the region's slots does. Its result is kept. If no number was drawn in the region since before step 1, a
//!    record that is not in the index was not there at the moment.
//! 4. A damaged slot of unknown id may hold the version that is sought. Then no older version stands in for it. A version to which
//!    the index leads is no stand-in: none is newer.

use std::ops::RangeBounds;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytemuck::Pod;

use crate::error::Result;
use crate::file::by_region::ByRegion;
use crate::file::pass;
use crate::file::survey::{SlotState, survey};
use crate::format::slot::{Address, HEADER_WORDS, Header};
use crate::handle::moment::Moment;
use crate::protocol::newest::Newest;
use crate::protocol::slot::header;
use crate::record::{Record, Version};
use crate::region::read::{Look, look};
use crate::store::Store;
use crate::store::read::{Looked, look_again};
use crate::store::replaced::{OfMoment, Replaced};
use crate::store::typed::{as_slice, as_value};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::copy::copy_out;
use crate::sys::mapping::frozen;

/// Looks at a slot that is being written. A pinned version does not change.
const LOOKS_AT_SLOT: u32 = 1000;
/// Bytes of a record that are summed at a time.
const CHUNK: usize = 2048;

const UNKNOWN: &str = "a damaged slot of the region may have been this record";

/// The whole store as it was at one moment: see [`Store::snapshot`].
///
/// [`get`](Self::get), [`get_as`](Self::get_as), [`get_slice`](Self::get_slice) and [`iter`](Self::iter) lend bytes of the file. No
/// process that uses this crate changes them while the snapshot lives. A process that writes to the file in another way can change
/// them, and then a program that holds the slice has undefined behavior. If such writers are possible, use
/// [`get_into`](Self::get_into) and [`records`](Self::records), which copy.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub(super) store: &'a Store,
    /// Dropping it clears the pin.
    moment: Moment,
    pub(super) verify: bool,
    /// The time by which values are over: from right before the moment. A later time would call over a value whose deadline was moved
    /// after the moment.
    pub(super) now_ms: u64,
    /// The next `seq` of each region, before the moment.
    before: Box<[u64]>,
    /// The snapshot's version of each record, for each region for which it was needed.
    versions: Box<[OnceLock<Box<Versions>>]>,
    /// The versions that were replaced since, for each region for which they were needed.
    replaced: Box<[OnceLock<Box<Mutex<Replaced>>>]>,
    /// The extents, for passes over the slots of regions.
    extents: Mutex<ByRegion>,
}

/// The versions of a region that were current at the moment.
#[derive(Debug, Default)]
struct Versions {
    newest: Newest<Kept>,
    /// Damaged slots of unknown id, each with its header.
    unknown: Vec<(u32, Header, &'static str)>,
}

/// The newest version of an id in the pinned epoch.
#[derive(Clone, Copy, Debug)]
struct Kept {
    seq: u64,
    slot: u32,
    state: KeptState,
}

#[derive(Clone, Copy, Debug)]
enum KeptState {
    Record,
    Tombstone,
    Damaged(&'static str),
}

/// The whole store as of one moment.
impl Store {
    /// The whole store as it is at one moment during this call, for any number of reads, while other processes go on writing.
    ///
    /// A snapshot sees every [batch](Self::batch) as a whole or not at all. It sees each write that returned before the call, and no
    /// write that begins after it. If it sees a write that was made during the call, it sees every write that had returned before
    /// that one began.
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// # use recstore::Store;
    /// # let path = std::env::temp_dir().join(format!("recstore-snapshot-{}.rec", std::process::id()));
    /// let store = Store::open_or_create(&path)?;
    /// store.put(1, b"100")?;
    /// store.put(2, b"0")?;
    /// let snapshot = store.snapshot()?;
    /// let mut transfer = store.batch();
    /// transfer.put(1, b"60")?;
    /// transfer.put(2, b"40")?;
    /// let _ = transfer.commit()?;
    /// assert_eq!(snapshot.get(1)?, Some(&b"100"[..]));
    /// assert_eq!(snapshot.get(2)?, Some(&b"0"[..]));
    /// assert_eq!(snapshot.iter().count(), 2);
    /// assert_eq!(store.snapshot()?.get(2)?, Some(&b"40"[..]));
    /// # drop(snapshot);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Takes O(regions), some microseconds. A snapshot takes no handle and no descriptor, and some 40 bytes of memory for each
    /// region of the store. The call waits for a flush that is under way, and for the writes that are under way, each in its
    /// region. It does not wait for those that begin later. To keep single records readable, [`pin`](Self::pin) takes nanoseconds.
    ///
    /// While a snapshot lives, a version that was current at its moment keeps its slot when it is replaced or deleted, and each
    /// deletion takes a slot. So the store may grow by as many slots as it has records, and as are deleted. The slots are used again
    /// after the snapshot is dropped and a [`sync`](Self::sync) has returned. A snapshot of a process that dies is gone with it. A
    /// version that a [`repair`](Self::repair) gives up meanwhile is given up for the snapshot too. Then the snapshot may show an
    /// older version, as `get` may.
    ///
    /// # Errors
    /// [`Error::ReadOnly`](crate::Error::ReadOnly): a snapshot is noted in the file; [`Error::Busy`](crate::Error::Busy) if a lock
    /// time-out is set; [`Error::Reentrant`](crate::Error::Reentrant); [`Error::Io`](crate::Error::Io);
    /// [`Error::Forked`](crate::Error::Forked).
    pub fn snapshot(&self) -> Result<Snapshot<'_>> {
        self.handle.check_writable()?;
        self.check_outside(0)?;
        let regions = 0..self.handle.arena.geo.regions;
        let before = regions.clone().map(|region| next_seq(self, region)).collect();
        self.now_ms(); // From here on the handle knows the anchor of the clock, if there is one.
        let (moment, now_ms) = self.handle.begin_moment(|| self.now_ms_under_lock())?; // Step 1.
        Ok(Snapshot {
            store: self,
            moment,
            now_ms,
            verify: self.handle.verify_reads,
            before,
            versions: regions.clone().map(|_| OnceLock::new()).collect(),
            replaced: regions.map(|_| OnceLock::new()).collect(),
            extents: Mutex::default(),
        })
    }
}

fn next_seq(store: &Store, region: u32) -> u64 {
    store.handle.arena.head(region).next_seq().load(Ordering::Acquire)
}

impl Snapshot<'_> {
    /// The bytes of the record with this id as they were at the snapshot's moment, or `None`. The bytes are those in the file, at a
    /// multiple of 32 bytes. The checksum is checked, unless the handle was opened without checks.
    ///
    /// O(1), as [`Store::get`], for a record that has not changed since the moment. For one that has, or is not there, the call passes
    /// the versions that were replaced in the record's region, but for those that an earlier call of the snapshot passed: O(replaced),
    /// and some 60 bytes of memory for each. It holds the region's lock while it passes 64 of them at most. If a part of the region is
    /// damaged, or its lock is held for more than 5 ms, the call passes over all slots of the region, checksums included. The result
    /// is kept, some 50 bytes for each record of the region, and all further reads there cost O(1).
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"before")?;
    /// let snapshot = store.snapshot()?;
    /// store.put(1, b"after")?;
    /// assert_eq!(snapshot.get(1)?, Some(&b"before"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if the record is damaged, or if it was replaced since and a damaged slot of its
    /// region may have been its version; as [`Store::get`].
    pub fn get(&self, id: u64) -> Result<Option<&[u8]>> {
        Ok(self.get_versioned(id)?.map(|(_, data)| data))
    }

    /// As [`get`](Self::get), with the record's version.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let version = store.put(1, b"one")?;
    /// assert_eq!(store.snapshot()?.get_versioned(1)?, Some((version, &b"one"[..])));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_versioned(&self, id: u64) -> Result<Option<(Version, &[u8])>> {
        self.get_of(id, Address::Id)
    }

    /// As [`get`](Self::get), into `out`, whose content is overwritten and whose allocation is used again. Returns the record's
    /// version. If there was no such record, the content of `out` is unspecified. The bytes are copied, and the copy is checked. So
    /// they are safe even if another program writes to the file without this crate.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let mut copy = Vec::new();
    /// assert!(store.snapshot()?.get_into(1, &mut copy)?.is_some());
    /// assert_eq!(copy, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_into(&self, id: u64, out: &mut Vec<u8>) -> Result<Option<Version>> {
        self.get_into_of(id, Address::Id, out)
    }

    /// The record that is found by `address` under this id, lent.
    pub(super) fn get_of(&self, id: u64, address: Address) -> Result<Option<(Version, &[u8])>> {
        let Some((slot, header)) = self.find(id)? else { return Ok(None) };
        let lent = self.lend(id, slot, header)?;
        Ok((header.address() == address).then_some(lent))
    }

    /// The same, copied.
    pub(super) fn get_into_of(
        &self,
        id: u64,
        address: Address,
        out: &mut Vec<u8>,
    ) -> Result<Option<Version>> {
        let Some((slot, header)) = self.find(id)? else { return Ok(None) };
        let version = self.copy(id, slot, header, out)?;
        Ok((header.address() == address).then_some(version))
    }

    /// The slot and the header of the record.
    fn find(&self, id: u64) -> Result<Option<(u32, Header)>> {
        let handle = &self.store.handle;
        handle.check()?;
        let hash = handle.arena.geo.hash(id);
        let region = handle.arena.geo.region_of(hash);
        let found = look_again(|_| {
            Ok(match look(&handle.arena, hash, id, false, None) {
                Look::Hit(header, slot) if header.epoch() <= self.moment.epoch => {
                    Looked::Done(Some((slot, header)))
                }
                // A reader that sees an entry gone (Acquire) sees that its deletion drew a number.
                Look::Miss if next_seq(self.store, region) == self.before[region as usize] => {
                    Looked::Done(None)
                }
                Look::Hit(..) | Look::Miss | Look::Damaged { .. } => Looked::Stuck,
                Look::Moved | Look::Broken(_) => Looked::Moved,
            })
        })?;
        // The record was changed since the moment; or its owner is slow, stopped or dead. Pinned versions do not change, so the
        // slots give the answer (step 3).
        found.map_or_else(|| self.find_old(region, id), Ok)
    }

    /// The record as a value of `T`, in place.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, 7u64.to_le_bytes())?;
    /// assert_eq!(store.snapshot()?.get_as::<u64>(1)?, Some(&7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TypeMismatch`](crate::Error::TypeMismatch) if its length or place is not a `T`'s; as [`get`](Self::get).
    pub fn get_as<T: Pod>(&self, id: u64) -> Result<Option<&T>> {
        self.get(id)?.map(|data| as_value(self.store, id, data)).transpose()
    }

    /// The record as a slice of `T`, in place.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.slices::<f32>()?.put(1, &[0.5, 1.5])?;
    /// assert_eq!(store.snapshot()?.get_slice::<f32>(1)?, Some(&[0.5, 1.5][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TypeMismatch`](crate::Error::TypeMismatch) if its length or place is not that of a slice of `T`; as [`get`](Self::get).
    pub fn get_slice<T: Pod>(&self, id: u64) -> Result<Option<&[T]>> {
        self.get(id)?.map(|data| as_slice(self.store, id, data)).transpose()
    }

    /// Every record of the moment, once, with its version, in no order, in place. A damaged record comes as
    /// [`Error::Corrupt`](crate::Error::Corrupt), and the iteration goes on.
    ///
    /// A pass over all slots, checksums included, region by region.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let snapshot = store.snapshot()?;
    /// store.put(2, b"too late")?;
    /// assert_eq!(snapshot.iter().count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Result<(u64, Version, &[u8])>> {
        self.iter_of(Address::Id)
    }

    /// Every record that is found by `address`.
    pub(super) fn iter_of(&self, address: Address) -> impl Iterator<Item = Result<(u64, Version, &[u8])>> {
        self.places().filter_map(move |place| {
            let lent = place.and_then(|(id, slot, header)| {
                let (version, data) = self.lend(id, slot, header)?;
                Ok((header.address() == address).then_some((id, version, data)))
            });
            lent.transpose()
        })
    }

    /// The records with ids in a range, in the order of their ids: as [`iter`](Self::iter), sorted. Damaged records come first, with
    /// any id, because the id may be the damaged part.
    ///
    /// The store keeps no order. So the call makes a pass over all slots, and takes O(n log n) for the n records in the range.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.write_many([(30, "c"), (10, "a"), (20, "b"), (40, "d")])?;
    /// let snapshot = store.snapshot()?;
    /// let ids: Result<Vec<u64>, _> = snapshot.range(10..40).map(|record| record.map(|(id, ..)| id)).collect();
    /// assert_eq!(ids?, [10, 20, 30]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn range(
        &self,
        ids: impl RangeBounds<u64>,
    ) -> impl DoubleEndedIterator<Item = Result<(u64, Version, &[u8])>> {
        let mut damaged = Vec::new();
        let mut found = Vec::new();
        for place in self.places() {
            match place {
                Ok(place) if ids.contains(&place.0) => found.push(place),
                Ok(_) => {}
                Err(error) => damaged.push(Err(error)),
            }
        }
        found.sort_unstable_by_key(|(id, ..)| *id);
        damaged.into_iter().chain(found.into_iter().filter_map(|(id, slot, header)| {
            let lent = self.lend(id, slot, header).map(|(version, data)| (id, version, data));
            (lent.is_err() || header.address() == Address::Id).then_some(lent)
        }))
    }

    /// Several records, as [`get`](Self::get), in the order of `ids`.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert_eq!(store.snapshot()?.get_many(&[1, 2])?, [Some(&b"one"[..]), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_many(&self, ids: &[u64]) -> Result<Vec<Option<&[u8]>>> {
        ids.iter().map(|&id| self.get(id)).collect()
    }

    /// As [`iter`](Self::iter), copied as by [`get_into`](Self::get_into).
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let snapshot = store.snapshot()?;
    /// let records = snapshot.records().collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(records[0].data(), b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn records(&self) -> impl Iterator<Item = Result<Record>> {
        self.all_records()
            .filter(|record| record.as_ref().map_or(true, |(address, _)| *address == Address::Id))
            .map(|record| record.map(|(_, record)| record))
    }

    /// Every record, whatever it is found by, copied.
    pub(super) fn all_records(&self) -> impl Iterator<Item = Result<(Address, Record)>> {
        self.places().map(|place| {
            let (id, slot, header) = place?;
            let mut data = Vec::new();
            let version = self.copy(id, slot, header, &mut data)?;
            Ok((header.address(), Record { id, version, data }))
        })
    }

    /// The id, slot and header of every record.
    fn places(&self) -> impl Iterator<Item = Result<(u64, u32, Header)>> {
        (0..self.store.handle.arena.geo.regions).flat_map(|region| self.places_in(region))
    }

    /// The id, slot and header of every record of a region, in the order of the slots.
    pub(super) fn places_in(&self, region: u32) -> impl Iterator<Item = Result<(u64, u32, Header)>> {
        let (found, error) = match self.of_region(region) {
            Ok(found) => (found, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        error.into_iter().chain(found.into_iter().filter_map(|found| match found {
            Passed::Whole(id, newest) => Some(self.header_of(id, &newest).map(|(slot, h)| (id, slot, h))),
            Passed::Doubtful(id) => self.find(id).map(|r| r.map(|(slot, h)| (id, slot, h))).transpose(),
            Passed::Damaged(id, slot, what) => Some(Err(self.store.corrupt(id, Some(slot), what))),
        }))
    }

    /// The records of a region, in the order of their slots.
    fn of_region(&self, region: u32) -> Result<Vec<Passed>> {
        self.store.handle.check()?;
        let mut passed = None;
        let versions = match self.versions[region as usize].get() {
            Some(versions) => versions,
            None => &*passed.insert(self.pass(region)?),
        };
        let damaged = versions.unknown.iter();
        let mut found: Vec<Passed> =
            damaged.map(|&(slot, h, what)| Passed::Damaged(h.id(), slot, what)).collect();
        let mut newest: Vec<(u64, Kept)> =
            versions.newest.iter().map(|(id, _, &newest)| (id, newest)).collect();
        newest.sort_unstable_by_key(|(_, newest)| newest.slot);
        found.extend(newest.into_iter().filter_map(|(id, newest)| match newest.state {
            KeptState::Damaged(what) => Some(Passed::Damaged(id, newest.slot, what)),
            KeptState::Tombstone => None,
            KeptState::Record if !versions.unknown.is_empty() => Some(Passed::Doubtful(id)),
            KeptState::Record => Some(Passed::Whole(id, newest)),
        }));
        Ok(found)
    }

    /// Finds a record that has changed since the moment, or is not there any more.
    #[cold]
    fn find_old(&self, region: u32, id: u64) -> Result<Option<(u32, Header)>> {
        let versions = &self.versions[region as usize];
        let versions = match versions.get() {
            Some(versions) => versions,
            None => {
                let replaced = self.replaced[region as usize].get_or_init(Box::default);
                let mut replaced = replaced.lock().unwrap_or_else(PoisonError::into_inner);
                match replaced.find(self.store, self.moment.epoch, id) {
                    OfMoment::At(slot, header) => return Ok(Some((slot, header))),
                    OfMoment::Absent => return Ok(None),
                    OfMoment::Nothing => {}
                }
                drop(replaced);
                let passed = Box::new(self.pass(region)?);
                versions.get_or_init(|| passed)
            }
        };
        let newest = versions.newest.get(id).map(|(_, kept)| kept);
        if let Some(Kept { slot, state: KeptState::Damaged(what), .. }) = newest {
            return Err(self.store.corrupt(id, Some(*slot), what));
        }
        if let Some((slot, ..)) = versions.unknown.first() {
            return Err(self.store.corrupt(id, Some(*slot), UNKNOWN)); // Step 4.
        }
        match newest {
            Some(newest) if matches!(newest.state, KeptState::Record) => self.header_of(id, newest).map(Some),
            _ => Ok(None),
        }
    }

    fn header_of(&self, id: u64, newest: &Kept) -> Result<(u32, Header)> {
        let header = self.store.handle.arena.slot(newest.slot).map(header);
        match header.filter(|header| (header.id(), header.seq()) == (id, newest.seq)) {
            Some(header) => Ok((newest.slot, header)),
            None => Err(self.store.corrupt(id, Some(newest.slot), "it changed while it was pinned")),
        }
    }

    /// Copies a version that was current at the moment. Its header has not been checked yet.
    fn copy(&self, id: u64, slot: u32, header: Header, out: &mut Vec<u8>) -> Result<Version> {
        out.clear();
        self.copy_behind(id, slot, header, out)
    }

    /// The same, behind the bytes that are there.
    pub(super) fn copy_behind(
        &self,
        id: u64,
        slot: u32,
        header: Header,
        out: &mut Vec<u8>,
    ) -> Result<Version> {
        let arena = &self.store.handle.arena;
        let corrupt = |what| self.store.corrupt(id, Some(slot), what);
        let words = arena.slot(slot).and_then(|words| words.get(HEADER_WORDS..));
        let words = words.filter(|words| header.len() <= size_of_val(*words));
        let words = words.ok_or_else(|| corrupt("its length is impossible"))?;
        let start = out.len();
        out.resize(start + header.len(), 0);
        copy_out(words, &mut out[start..]);
        if self.verify && header.sum(&out[start..]) != header.crc() {
            return Err(corrupt("checksum mismatch"));
        }
        Ok(Version(header.version()))
    }

    /// Lends a version that was current at the moment. Its header has not been checked yet.
    fn lend(&self, id: u64, slot: u32, header: Header) -> Result<(Version, &[u8])> {
        let arena = &self.store.handle.arena;
        let corrupt = |what| self.store.corrupt(id, Some(slot), what);
        let (words, len) = (arena.slot(slot).and_then(|words| words.get(HEADER_WORDS..)), header.len());
        let words = words.filter(|words| len <= size_of_val(*words));
        let words = words.ok_or_else(|| corrupt("its length is impossible"))?;
        // If the epoch in the header is the damaged part, another process may be writing here. So the checksum is taken by word
        // loads, before there is a reference.
        if self.verify && sum(&header, words) != header.crc() {
            return Err(corrupt("checksum mismatch"));
        }
        // SAFETY: the version was current at the moment (steps 2 and 3), so no process that keeps the protocol writes its slot
        // before the pin is cleared, and the slice does not outlive that (`&self`).
        let data = unsafe { frozen(words, len) };
        Ok((Version(header.version()), data.ok_or_else(|| corrupt("its length is impossible"))?))
    }

    /// Steps 2 to 4: one pass over a region's slots.
    fn pass(&self, region: u32) -> Result<Versions> {
        let arena = &self.store.handle.arena;
        let mut versions = Versions::default();
        let mut buffer = Vec::new();
        let take = |slot: u32, words: &[AtomicU64]| {
            let mut state = SlotState::Moved;
            for _ in 0..LOOKS_AT_SLOT {
                state = survey(words, region, &arena.geo, &mut buffer);
                if state != SlotState::Moved {
                    break;
                }
                std::hint::spin_loop();
            }
            let (header, state) = match state {
                SlotState::Version(header) => (header, Ok(KeptState::Record)),
                SlotState::Tombstone(header) => (header, Ok(KeptState::Tombstone)),
                // If it is a record's current version, the index shows its id. Nothing shows its `seq` and its epoch.
                SlotState::Damaged(header, what) if self.leads_to(region, header.id(), slot) => {
                    return Some((header.with_seq(u64::MAX), Ok(KeptState::Damaged(what))));
                }
                SlotState::Damaged(header, what) => return Some((header, Err(what))),
                _ => return None,
            };
            (header.epoch() <= self.moment.epoch).then_some((header, state))
        };
        let extents = {
            let mut extents = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
            extents.all_of(arena, region)?.to_vec()
        };
        pass::each_slot_in(arena, extents, take, |slot, (header, state)| match state {
            Ok(state) => {
                let seq = header.seq();
                versions.newest.offer(header.id(), seq, Kept { seq, slot, state });
            }
            Err(what) => versions.unknown.push((slot, header, what)),
        })?;
        Ok(versions)
    }

    /// Whether the index leads from an id to this slot.
    fn leads_to(&self, region: u32, id: u64, slot: u32) -> bool {
        let arena = &self.store.handle.arena;
        let hash = arena.geo.hash(id);
        arena.geo.region_of(hash) == region
            && matches!(look(arena, hash, id, false, None), Look::Hit(_, current) if current == slot)
    }
}

/// The result of a pass for one record.
enum Passed {
    Whole(u64, Kept),
    /// There is a damaged slot that may have been this record.
    Doubtful(u64),
    Damaged(u64, u32, &'static str),
}

/// The checksum of a header and its data. Another process may be writing the words of the data.
fn sum(header: &Header, words: &[AtomicU64]) -> u32 {
    let mut chunk = [0; CHUNK];
    let mut left = header.len();
    if left <= CHUNK {
        copy_out(words, &mut chunk[..left]);
        return header.sum(&chunk[..left]);
    }
    let mut sum = header.hasher();
    for words in words.chunks(CHUNK / 8) {
        let bytes = &mut chunk[..left.min(CHUNK)];
        copy_out(words, bytes);
        sum.update(bytes);
        left -= bytes.len();
    }
    sum.finalize()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::format::epoch::Epoch;
    use crate::sys::copy::copy_in;

    #[test]
    fn the_sum_over_words_is_that_over_their_bytes() {
        let data: Vec<u8> = (0..3 * CHUNK + 20).map(|n| ((n * n) >> 3) as u8).collect();
        let words: Vec<AtomicU64> = (0..data.len().div_ceil(8)).map(|_| AtomicU64::new(0)).collect();
        copy_in(&words, &data);
        for len in [0, 1, 7, 8, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 20] {
            let header = Header::record(9, 7, Epoch::of(3), len);
            assert_eq!(sum(&header, &words), header.sum(&data[..len]), "{len} bytes");
        }
    }
}
