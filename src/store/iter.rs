//! Passing over all records without a lock.
//!
//! Region by region:
//!
//! 1. Note the region's next `seq`, the *cut*. Versions before it were published when the pass began. (If the lock was held then,
//!    the last one may not have been.)
//! 2. Pass over the slots in the order of the file, and give each current version before the cut. A record that is overwritten
//!    before the pass comes to it is missed here.
//! 3. If the region was written to since step 1, gather the ids in the index, and read the ones that were not given yet, one by
//!    one.
//!
//! So a record that is there throughout is given once, even while other processes write. In step 2 many short slots are copied at
//! a time. When a copy is given, the slot is checked: it must still be as it was copied.

use std::ops::{ControlFlow, Range};

use crate::error::{Error, Result};
use crate::file::arena::Arena;
use crate::file::by_region::ByRegion;
use crate::file::pass;
use crate::format::extent::Extent;
use crate::format::index::{ENTRIES, LINES_LOG2_MAX};
use crate::format::slot::{Address, Header, SlotKind};
use crate::handle::Handle;
use crate::protocol::index::load_line;
use crate::protocol::lock;
use crate::protocol::newest::Newest;
use crate::protocol::slot::{Copies, Seen, header, read_any, unchanged};
use crate::record::{Record, Version};
use crate::region::Trouble;
use crate::region::batch::{batch_number, pending};
use crate::region::decided::counts;
use crate::region::head::Region;
use crate::region::watch::Changed;
use crate::store::Store;
use crate::sys::atomic::{AtomicU64, Ordering};

/// All records.
impl Store {
    /// Number of live records: O(regions). Concurrent writes may or may not be counted.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// store.put(2, b"two")?;
    /// assert_eq!(store.len()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Damaged`]; [`Error::Forked`].
    pub fn len(&self) -> Result<u64> {
        self.handle.check()?;
        let mut live = 0;
        for number in 0..self.handle.arena.geo.regions {
            self.handle.heal(number)?;
            let left_by_the_dead = self.is_read_only() && self.handle.is_left_by_the_dead(number)?;
            live += match Region::new(&self.handle.arena, number).live() {
                Ok(_) if left_by_the_dead => Cursor::count(&self.handle, number)?,
                Ok(live) => live,
                Err(_) if self.is_read_only() => Cursor::count(&self.handle, number)?,
                Err(_) => self.handle.with_region(number, Changed::None, |region| region.live())?,
            };
        }
        Ok(live)
    }

    /// Whether there is no record.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(store.is_empty()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Every live record, once, in no order. No record is torn, and a record that is there throughout is never left out. Concurrent
    /// writes may or may not appear. A damaged record comes as [`Error::Corrupt`], and the iteration goes on.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// for record in &store {
    ///     let record = record?; // a damaged record is an error, and the iteration goes on
    ///     println!("{}: {} bytes", record.id(), record.len());
    /// }
    /// assert_eq!(store.iter().count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(self)
    }

    /// As [`iter`](Self::iter), without an allocation for each record: gives id, version and data to `each`, until `each` breaks.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// use std::ops::{ControlFlow, Range};
    ///
    /// store.put(1, b"one")?;
    /// let mut bytes = 0;
    /// store.scan(|_id, _version, data| {
    ///     bytes += data.len();
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(bytes, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first error ends the scan: as [`get`](Self::get).
    pub fn scan(&self, mut each: impl FnMut(u64, Version, &[u8]) -> ControlFlow<()>) -> Result<()> {
        self.handle.check()?;
        Cursor::new(Address::Id).each(self, |id, version, data| each(id, version, data.as_slice()))
    }
}

/// Every live record of a store: see [`Store::iter`].
pub struct Iter<'a> {
    store: &'a Store,
    cursor: Cursor,
}

impl<'a> Iter<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store, cursor: Cursor::new(Address::Id) }
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut found = None;
        let passed = self.cursor.each(self.store, |id, version, data| {
            found = Some(Record { id, version, data: data.into_vec() });
            ControlFlow::Break(())
        });
        passed.map(|()| found).transpose()
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Store {
    type Item = Result<Record>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The position of the pass in a region.
enum Stage {
    /// Before the region.
    Start,
    /// Step 2: the next slot of the extent at this place of the list.
    Slots { extent: usize, slot: u32 },
    /// Step 3: ids that are still to be read.
    Ids(Vec<u64>),
}

/// The state of a pass over all records.
pub(crate) struct Cursor {
    /// Records that are found by something else are passed over.
    address: Address,
    region: u32,
    stage: Stage,
    of_all: ByRegion,
    /// Those of the region.
    extents: Vec<Extent>,
    cut: u64,
    /// The layout of the file when the extents were looked up.
    layout: u64,
    /// The region's lock was free at the cut, and the region was not marked.
    was_free: bool,
    written_since: bool,
    given: Vec<u64>,
    failed: bool,
    /// Slots that may be looked at. Then step 3 is left out: it takes as long as the region is large.
    budget: Option<u32>,
    /// Copies of short slots, from this one on.
    copies: Copies,
    first_copy: u32,
    /// The data of a record that was read singly.
    data: Vec<u8>,
}

/// The place of a record's data.
pub(crate) enum Data<'a> {
    Lent(&'a [u8]),
    Given(&'a mut Vec<u8>),
}

impl Data<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Data::Lent(data) => data,
            Data::Given(data) => data,
        }
    }

    fn into_vec(self) -> Vec<u8> {
        match self {
            Data::Lent(data) => data.to_vec(),
            Data::Given(data) => std::mem::take(data),
        }
    }
}

impl Cursor {
    /// Before the first of the records that are found by `address`.
    pub(crate) fn new(address: Address) -> Self {
        Self {
            address,
            region: 0,
            stage: Stage::Start,
            of_all: ByRegion::default(),
            extents: Vec::new(),
            cut: 0,
            layout: 0,
            was_free: false,
            written_since: false,
            given: Vec::new(),
            failed: false,
            budget: None,
            copies: Copies::new(),
            first_copy: 0,
            data: Vec::new(),
        }
    }

    /// Gives the records from here on, until `each` breaks or a read fails.
    pub(crate) fn each(
        &mut self,
        store: &Store,
        each: impl FnMut(u64, Version, Data<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        if self.failed {
            return Ok(());
        }
        let passed = self.try_each(store, each);
        if let Err(error) = &passed {
            self.failed = !matches!(error, Error::Corrupt { .. });
        }
        passed
    }

    /// The same, with a look at so many slots at most. A failure does not end the pass. Records that are written during the pass may be
    /// left out.
    pub(crate) fn each_within(
        &mut self,
        store: &Store,
        budget: u32,
        each: impl FnMut(u64, Version, Data<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.budget = Some(budget);
        self.try_each(store, each)
    }

    /// Whether all records were passed.
    pub(crate) fn is_at_end(&self, store: &Store) -> bool {
        self.region >= store.handle.arena.geo.regions
    }

    fn try_each(
        &mut self,
        store: &Store,
        mut each: impl FnMut(u64, Version, Data<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let handle = &store.handle;
        handle.check()?;
        while self.region < handle.arena.geo.regions {
            match &mut self.stage {
                Stage::Start => self.start(handle)?,
                Stage::Slots { .. } => {
                    if self.each_in_slots(store, &mut each)?.is_break() {
                        return Ok(());
                    }
                    let head = handle.arena.head(self.region);
                    let is_as_at_cut =
                        !self.written_since && head.next_seq().load(Ordering::Acquire) == self.cut;
                    if is_as_at_cut || self.budget.is_some() {
                        self.leave();
                    } else {
                        let mut ids: Vec<u64> =
                            gather(handle, self.region)?.into_iter().map(|(id, _)| id).collect();
                        self.given.sort_unstable();
                        ids.retain(|id| self.given.binary_search(id).is_err());
                        self.stage = Stage::Ids(ids);
                    }
                }
                Stage::Ids(ids) => match ids.pop() {
                    None => self.leave(),
                    Some(id) => {
                        if let Some((header, _)) = store.read(id, self.address, Some(&mut self.data))? {
                            if each(id, Version(header.version()), Data::Given(&mut self.data)).is_break() {
                                return Ok(());
                            }
                            handle.check()?; // As in step 2.
                        }
                    }
                },
            }
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.region += 1;
        self.stage = Stage::Start;
    }

    /// Step 1. The lock is loaded after the number. If it is free then, the writer that drew the number has given the lock back
    /// (pairs with the Release store of the number under the lock).
    fn start(&mut self, handle: &Handle) -> Result<()> {
        handle.heal(self.region)?;
        let head = handle.arena.head(self.region);
        let next_seq = head.next_seq().load(Ordering::Acquire);
        self.was_free = lock::is_free(head.lock()) && !handle.arena.shape(self.region).is_marked();
        self.cut = if self.was_free { next_seq } else { next_seq.wrapping_sub(1) };
        self.layout = handle.arena.control().layout().load(Ordering::Acquire);
        self.extents.clear();
        self.extents.extend_from_slice(self.of_all.all_of(&handle.arena, self.region)?);
        self.given.clear();
        self.written_since = false;
        let first = self.extents.first().inspect(|first| handle.arena.will_read(first));
        let slot = first.map_or(0, |first| first.slot_numbers(&handle.arena.geo).start);
        self.stage = Stage::Slots { extent: 0, slot };
        Ok(())
    }

    /// Step 2: current versions before the cut.
    fn each_in_slots(
        &mut self,
        store: &Store,
        each: &mut impl FnMut(u64, Version, Data<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let arena = &store.handle.arena;
        let Stage::Slots { extent, slot } = &mut self.stage else { return Ok(ControlFlow::Continue(())) };
        let (capacity, verify, cut) = (arena.geo.record_size as usize, store.handle.verify_reads, self.cut);
        while let Some(current) = self.extents.get(*extent) {
            let Range { start, end } = current.slot_numbers(&arena.geo);
            let slot_bytes = current.slot_size(&arena.geo) as usize;
            let at_once = self.copies.of_slots(slot_bytes) as u32;
            // If it is given back from here on, the layout changes before another is in its place.
            let mut is_gone = !arena.still_has(current);
            while *slot < end && !is_gone {
                let are_copied = slot.wrapping_sub(self.first_copy) < self.copies.count() as u32;
                let first = if are_copied { self.first_copy } else { *slot };
                let Some(run) = arena.slots_in(current, first - start, at_once.min(end - first)) else {
                    break;
                };
                if at_once > 1 && !are_copied {
                    self.copies.take(run);
                    self.first_copy = first;
                }
                for (n, words) in run.chunks_exact(slot_bytes / 8).enumerate().skip((*slot - first) as usize)
                {
                    match &mut self.budget {
                        Some(0) => return Ok(ControlFlow::Break(())),
                        Some(left) => *left -= 1,
                        None => {}
                    }
                    let at = *slot;
                    *slot += 1;
                    let seq = words[0].load(Ordering::Relaxed);
                    if seq == 0 || seq >= cut {
                        self.written_since |= seq >= cut;
                        continue;
                    }
                    let (seen, data) = if at_once > 1 {
                        let (seen, data) = self.copies.read(n, words, capacity, verify);
                        (seen, Data::Lent(data))
                    } else {
                        let seen = read_any(words, capacity, verify, &mut self.data);
                        (seen, Data::Given(&mut self.data))
                    };
                    if matches!(seen, Seen::Whole(_) | Seen::Damaged(..)) && !arena.has_layout(self.layout) {
                        // Extents were given back. Their room may be used again, by versions since the cut.
                        self.written_since = true;
                        self.layout = arena.numbers.layout();
                        is_gone = !arena.still_has(current);
                        if is_gone {
                            break;
                        }
                    }
                    match seen {
                        Seen::Whole(header)
                            if header.seq() < cut
                                && is_current(store, self.region, self.was_free, at, &header)? =>
                        {
                            self.given.push(header.id());
                            if header.address() != self.address {
                                continue;
                            }
                            if each(header.id(), Version(header.version()), data).is_break() {
                                return Ok(ControlFlow::Break(()));
                            }
                            store.handle.check()?; // `each` may have forked, and this may be the child.
                        }
                        Seen::Damaged(header, what) if header.seq() < cut => {
                            // The error is given once: if the index has the record under its id, step 3 does not give it again.
                            self.given.push(header.id());
                            return Err(store.corrupt(header.id(), Some(at), what));
                        }
                        _ => {}
                    }
                }
            }
            *extent += 1;
            if let Some(next) = self.extents.get(*extent) {
                arena.will_read(next);
                *slot = next.slot_numbers(&arena.geo).start;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Records of a region whose count is damaged, for a handle that can't repair it.
    pub(crate) fn count(handle: &Handle, region: u32) -> Result<u64> {
        Ok(gather_from_slots(handle, region)?.len() as u64)
    }
}

/// Whether a whole version before the cut is the current one of its id. For a record that was replaced meanwhile, step 3 gives the
/// new version.
///
/// An id may have two such versions: if replaced versions are kept for durability, or if a writer was inside the region at the cut,
/// and has made a version visible but not scrubbed the previous one.
#[inline]
fn is_current(store: &Store, region: u32, was_free: bool, slot: u32, header: &Header) -> Result<bool> {
    let is_unlinked = store.handle.arena.head(region).links().is_zero(Ordering::Relaxed);
    if was_free && is_unlinked {
        return Ok(true);
    }
    match store.read_either(header.id(), None) {
        // The slot alone does not prove it: the slot may have been used again, for the current version. The number alone does not
        // either: in the slot of the current version it may be damaged.
        Ok(now) => Ok(now.is_some_and(|(current, at)| at == slot && current.seq() == header.seq())),
        Err(Error::Corrupt { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Step 3: all records of a region now, each id with its `seq`, in the order of ids. Of a damaged slot, both are taken as they are.
pub(super) fn gather(handle: &Handle, number: u32) -> Result<Vec<(u64, u64)>> {
    const TRIES: u32 = 16;
    let arena = &handle.arena;
    for _ in 0..TRIES {
        if let Some(found) = try_gather(arena, number, Beside::None) {
            return Ok(found);
        }
        if let Some(found) = gather_in_batch(handle, number)? {
            return Ok(found);
        }
    }
    if handle.is_writable() {
        handle.with_region(number, Changed::None, |region| {
            try_gather(region.arena, number, Beside::None)
                .ok_or(Trouble::Flaw("its index and its slots contradict each other"))
        })
    } else {
        gather_from_slots(handle, number)
    }
}

/// The same without a lock, even beside an owner that is stopped in the middle of a write; `None` if this is impossible now. A
/// record that is being changed may be given as it was, or be left out.
pub(super) fn gather_beside_owner(handle: &Handle, number: u32) -> Option<Vec<(u64, u64)>> {
    const TRIES: u32 = 4;
    let strictly = (0..TRIES).find_map(|_| try_gather(&handle.arena, number, Beside::None));
    let found = strictly.or_else(|| try_gather(&handle.arena, number, Beside::Stopped));
    found.or_else(|| (0..TRIES).find_map(|_| gather_in_batch(handle, number).ok().flatten()))
}

/// The same in a region with members of a batch to which its index does not lead: from its slots. It does not wait for the batch,
/// which alone can change the region. `None`: the region changed during the pass, or there is no such batch.
fn gather_in_batch(handle: &Handle, number: u32) -> Result<Option<Vec<(u64, u64)>>> {
    let arena = &handle.arena;
    let state = || -> Result<_> {
        let committed = batch_number(arena, arena.control().committed())?;
        Ok((arena.shape(number), pending(arena, number), committed))
    };
    let before = state()?;
    if !before.0.batch || before.0.rebuilding {
        return Ok(None);
    }
    let found = gather_from_slots(handle, number)?;
    Ok((state()? == before).then_some(found))
}

/// The assumption about a region's owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// There is none, or it is running: so a line that does not hold will hold soon, or is damaged.
    None,
    /// It may be stopped: between an entry and its line's checksum, or between a slot and its entry.
    Stopped,
}

/// One pass over the index; `None` if the index moved meanwhile, or can't be read. The pass reads line by line. A record's entry
/// stays in its line for as long as the record is there.
fn try_gather(arena: &Arena, number: u32, owner: Beside) -> Option<Vec<(u64, u64)>> {
    const TRIES: u32 = 1000;
    let shape = arena.shape(number);
    // A line that holds says of which region, place and version of the table it is.
    let is_sound = match owner {
        Beside::None => shape.lines_log2 <= LINES_LOG2_MAX,
        Beside::Stopped => arena.table_is_sound(number, &shape),
    };
    if shape.is_marked() || !is_sound {
        return None;
    }
    let mut found = Vec::new();
    for line_number in 0..shape.lines() {
        let words = arena.line(&shape, line_number)?;
        let seed = shape.seed(number, line_number);
        let start = found.len();
        let mut done = false;
        for _ in 0..TRIES {
            found.truncate(start);
            let layout = arena.numbers.layout();
            let line = load_line(words);
            done = (owner == Beside::Stopped || line.holds(seed))
                && line.0[..ENTRIES].iter().filter(|&&e| e != 0).all(|&entry| {
                    let Some(slot) = shape.slot(entry) else { return true };
                    let Some(slot) = arena.slot(slot) else { return false };
                    let header = header(slot);
                    if header.seq() == 0 {
                        return owner == Beside::Stopped;
                    }
                    found.push((header.id(), header.seq()));
                    unchanged(slot, header)
                })
                && load_line(words).0 == line.0
                && arena.has_layout(layout);
            if done {
                break;
            }
            std::hint::spin_loop();
        }
        if !done {
            return None;
        }
    }
    if arena.shape(number) != shape {
        return None;
    }
    found.sort_unstable();
    found.dedup_by_key(|(id, _)| *id);
    Some(found)
}

/// The same from the region's slots, for a handle that can't repair its index.
fn gather_from_slots(handle: &Handle, number: u32) -> Result<Vec<(u64, u64)>> {
    let arena = &handle.arena;
    let mut newest = Newest::default();
    let take = |slot: u32, words: &[AtomicU64]| {
        let header = header(words);
        let is_record = header.kind() != SlotKind::Tombstone;
        let is_here = header.seq() != 0
            && arena.geo.region_of(arena.geo.hash(header.id())) == number
            && counts(arena, number, slot, &header, is_record);
        is_here.then_some((header, is_record))
    };
    pass::each_slot_of(arena, number, take, |_, (header, is_record)| {
        newest.offer(header.id(), header.seq(), is_record);
    })?;
    Ok(newest.iter().filter(|(.., is_record)| **is_record).map(|(id, seq, _)| (id, seq)).collect())
}
