//! What the owner of a region's lock does in it: find, write, delete (and in `slots` and `table`: take a
//! slot, retire it, move the index). Every call here is between a lock and an unlock; every prefix of
//! its stores is a state from which a rebuild gives the version before the call or the one after it.

use crate::error::{Error, Result};
use crate::fault::{self, Fault};
use crate::file::arena::Arena;
use crate::file::grow::next_lines_log2;
use crate::file::seat;
use crate::format::checked;
use crate::format::epoch::Epoch;
use crate::format::index::{ENTRIES, LINE_WORDS, Line, Shape};
use crate::format::region::Head;
use crate::format::slot::{BLOCKS_MAX, Header, begins_block, block_of};
use crate::format::word::Checked;
use crate::protocol::index::{candidates, load_line, store_entry};
use crate::protocol::slot::{Seen, bury, header, publish, publish_filled, read_any, retract};
use crate::region::Trouble;
use crate::region::slots::Queue;
use crate::region::table::load_max;
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::step::step;

/// A region whose lock the caller holds.
#[derive(Clone, Copy)]
pub(crate) struct Region<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) number: u32,
    pub(crate) head: Head<'a>,
}

pub(super) const COUNT: Trouble = Trouble::Flaw("a count in the region's head");
const NEXT_SEQ: Trouble = Trouble::Flaw("the next sequence number");
const USED_SEQ: Trouble = Trouble::Flaw("the next sequence number was used already");

/// What a count in a head is.
#[inline]
pub(super) fn count(word: Checked<'_>) -> Result<u64, Trouble> {
    word.load(Ordering::Relaxed).ok_or(COUNT)
}

/// Adds to a count in a head.
#[inline]
pub(super) fn add(word: Checked<'_>, by: i64) -> Result<(), Trouble> {
    let count = count(word)?.wrapping_add_signed(by);
    if count > checked::MAX {
        return Err(COUNT); // It was less than what is taken from it.
    }
    word.store(count, Ordering::Relaxed);
    Ok(())
}

/// Where a version was written.
pub(crate) struct Written {
    pub(crate) seq: u64,
    pub(crate) slot: u32,
}

/// What a version holds.
#[derive(Clone, Copy)]
pub(crate) enum Content<'c> {
    /// These bytes; they go into a slot that is taken for them.
    Bytes(&'c [u8]),
    /// What a reserved slot holds already, with a checksum of that.
    Reserved {
        /// The slot.
        slot: u32,
        /// Its length in bytes.
        len: usize,
        /// Has taken in the data, and nothing else.
        sum: &'c crc32fast::Hasher,
    },
}

/// An entry's place in the index.
pub(crate) struct Place<'a> {
    words: &'a [AtomicU64; LINE_WORDS],
    line: Line,
    entry: usize,
}

/// What a search by the owner found.
pub(crate) enum Found<'a> {
    /// The record's entry, slot and header.
    Hit { place: Place<'a>, slot: u32, header: Header },
    /// No such record; where its entry would go, if the table has room.
    Miss(Option<Place<'a>>),
}

impl<'a> Found<'a> {
    /// The place of a new version's entry, and the slot and header of the version that it replaces.
    #[inline]
    pub(super) fn replaces(self) -> Result<(Place<'a>, Option<(u32, Header)>), Trouble> {
        match self {
            Found::Hit { place, slot, header } => Ok((place, Some((slot, header)))),
            Found::Miss(Some(place)) => Ok((place, None)),
            Found::Miss(None) => Err(Trouble::Flaw("an index without room")),
        }
    }
}

impl<'a> Region<'a> {
    /// The region, whose lock the caller holds.
    #[inline]
    pub(crate) fn new(arena: &'a Arena, number: u32) -> Self {
        Self { arena, number, head: arena.head(number) }
    }

    /// The sequence number of the next write as the head has it, in both places.
    #[inline]
    pub(crate) fn noted_seq(&self) -> Result<u64, Trouble> {
        self.head.noted_seq().ok_or(NEXT_SEQ)
    }

    /// Raises the sequence number of the next write.
    #[inline]
    pub(crate) fn set_next_seq(&self, seq: u64) {
        self.head.set_next_seq(seq);
    }

    #[inline]
    pub(crate) fn shape(&self) -> Shape {
        self.head.shape().load(Ordering::Relaxed)
    }

    /// Makes a shape the region's: from here on, readers use its table.
    pub(crate) fn set_shape(&self, shape: Shape) {
        // Pairs with `look`; SeqCst, so that who borrows sees it (see `borrow`).
        self.head.shape().store(shape, Ordering::SeqCst);
    }

    /// Live records.
    #[inline]
    pub(crate) fn live(&self) -> Result<u64, Trouble> {
        count(self.head.live())
    }

    /// Whether the links of the region's extents are allocated.
    #[inline]
    pub(crate) fn is_linked(&self) -> Result<bool, Trouble> {
        Ok(count(self.head.links())? != 0)
    }

    pub(crate) fn set_linked(&self) {
        self.head.links().store(1, Ordering::Relaxed);
    }

    /// Has the next owner rebuild the region.
    pub(crate) fn mark(&self) {
        self.set_shape(Shape { rebuilding: true, ..self.shape() });
    }

    /// Whether a rebuild was begun and not finished.
    pub(crate) fn is_being_rebuilt(&self) -> bool {
        self.shape().rebuilding
    }

    /// Whether whoever takes the lock has to rebuild the region first. Nobody who lives gives the lock back while a batch
    /// has members that the index does not lead to.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.shape().is_marked()
    }

    /// Whether the table that `shape` describes leads from `hash` to `slot`, by lines that prove
    /// themselves.
    pub(crate) fn leads_to(&self, shape: &Shape, hash: u64, slot: u32) -> bool {
        for n in 0..1u64 << shape.lines_log2 {
            let number = (shape.home(hash) + n) & ((1 << shape.lines_log2) - 1);
            let Some(words) = self.arena.line(shape, number) else { return false };
            let line = load_line(words);
            if !line.holds(shape.seed(self.number, number)) {
                return false;
            }
            if shape.holds(slot) && line.0[..ENTRIES].contains(&shape.entry(hash, slot)) {
                return true;
            }
            if line.has_empty() {
                return false;
            }
        }
        false
    }

    /// Searches the index. Nothing is changed.
    #[inline]
    pub(crate) fn find(&self, hash: u64, id: u64) -> Result<Found<'a>, Trouble> {
        let shape = self.shape();
        let home = shape.home(hash);
        let mut place = None;
        for n in 0..1u64 << shape.lines_log2 {
            let number = (home + n) & ((1 << shape.lines_log2) - 1);
            let words =
                self.arena.line(&shape, number).ok_or(Trouble::Flaw("the index lies outside the file"))?;
            let line = load_line(words);
            let mut matching = candidates(&line, &shape, hash);
            while matching != 0 {
                let entry = matching.trailing_zeros() as usize;
                matching &= matching - 1;
                let Some(slot) = shape.slot(line.0[entry]) else { continue };
                let slot_words =
                    self.arena.slot(slot).ok_or(Trouble::Flaw("the index names a slot outside the file"))?;
                let header = header(slot_words);
                if header.seq() == 0 {
                    return Err(Trouble::Flaw("the index names a free slot"));
                }
                if header.id() == id {
                    if self.is_linked()? && !line.holds(shape.seed(self.number, number)) {
                        break; // It may name a version that was replaced.
                    }
                    return Ok(Found::Hit { place: Place { words, line, entry }, slot, header });
                }
                if self.arena.geo.region_of(self.arena.geo.hash(header.id())) != self.number {
                    return Err(Trouble::Flaw("the index names a slot of another region"));
                }
            }
            if !line.holds(shape.seed(self.number, number)) {
                return Err(Trouble::Flaw("a line of the index"));
            }
            if place.is_none() {
                let free = line.0[..ENTRIES].iter().position(|&e| e == 0 || e == shape.deleted());
                place = free.map(|entry| Place { words, line, entry });
            }
            if line.has_empty() {
                break;
            }
        }
        Ok(Found::Miss(place))
    }

    /// Writes a version of `id`. `lone`: it is going to be flushed by itself.
    #[inline]
    pub(crate) fn put(
        &self,
        hash: u64,
        id: u64,
        content: Content<'_>,
        lone: bool,
    ) -> Result<Written, Trouble> {
        let epoch = self.arena.epoch()?;
        let mut found = self.find(hash, id)?;
        if let Found::Miss(place) = &found
            && (place.is_none() || count(self.head.live())? >= load_max(&self.shape()))
        {
            let has_place = place.is_some();
            self.check_live()?;
            match self.move_index(next_lines_log2(&self.shape())) {
                // A fuller table is slower, and better than none.
                Err(Trouble::Error(Error::Full { .. })) if has_place => {}
                moved => moved.map_err(|trouble| self.explain_index(trouble))?,
            }
            found = self.find(hash, id)?;
        }
        self.write(hash, id, epoch, content, lone, found)
    }

    /// Refuses a count of live records that is higher than the slots that the region has: each move to another table, which is
    /// as large as the count asks for, would take twice the room.
    #[cold]
    pub(super) fn check_live(&self) -> Result<(), Trouble> {
        let slots = count(self.head.extents())?.saturating_mul(u64::from(self.arena.geo.slots_per_extent()));
        if count(self.head.live())? > slots { Err(COUNT) } else { Ok(()) }
    }

    #[cold]
    pub(super) fn explain_index(&self, trouble: Trouble) -> Trouble {
        match trouble {
            Trouble::Error(error) => {
                Trouble::Error(self.explain(error, "a larger index table, which takes extents of its own"))
            }
            flaw => flaw,
        }
    }

    /// Steps 1 to 4 of a write (see [`crate::protocol`]). `found` is what `find` gave for it just now.
    #[inline]
    fn write(
        &self,
        hash: u64,
        id: u64,
        epoch: Epoch,
        content: Content<'_>,
        lone: bool,
        mut found: Found<'a>,
    ) -> Result<Written, Trouble> {
        let seq = self.next_seq(1)?;
        if let Found::Hit { header, slot, .. } = &found {
            if header.seq() >= seq && self.is_whole(*slot) {
                return Err(USED_SEQ);
            }
            if header.is_wanted_after(epoch) {
                self.ensure_linked()?;
            }
        }
        let slot = match content {
            Content::Bytes(_) => self.take_slot()?,
            Content::Reserved { slot, .. } => slot,
        };
        if !self.shape().holds(slot) {
            // The file outgrew the entries' width.
            let moved = self.move_index(self.shape().lines_log2).and_then(|()| self.find(hash, id));
            found = match moved {
                Ok(found) => found,
                Err(trouble) => {
                    if matches!(content, Content::Bytes(_)) {
                        self.free(slot)?; // A slot on no list would be lost until a rebuild.
                    }
                    return Err(self.explain_index(trouble));
                }
            };
        }
        let (place, old) = found.replaces()?;
        self.set_next_seq(seq + 1);
        step("put: slot taken");
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a free slot outside the file"))?;
        let header = |len| {
            let header = Header::record(seq, id, epoch, len);
            if lone { header.lone() } else { header }
        };
        match content {
            Content::Bytes(data) => publish(words, header(data.len()), data),
            Content::Reserved { len, sum, .. } => {
                let header = header(len);
                publish_filled(words, header.with_crc(header.sum_with(sum)));
            }
        }
        let before = self.store_visible(place, hash, slot);
        self.afterwards(|| {
            if let Content::Reserved { .. } = content {
                add(self.head.reserved(), -1)?;
            }
            self.count_visible(old, before, epoch)
        });
        step("put: done");
        Ok(Written { seq, slot })
    }

    /// Step 3 of a write; the entry that was there before.
    #[inline]
    pub(super) fn store_visible(&self, mut place: Place<'_>, hash: u64, slot: u32) -> u32 {
        let before = place.line.0[place.entry];
        store_entry(place.words, &mut place.line, place.entry, self.shape().entry(hash, slot));
        step("put: version visible");
        before
    }

    /// Step 4 of a write, in place of `old`; `before` is the entry that was there.
    #[inline]
    pub(super) fn count_visible(
        &self,
        old: Option<(u32, Header)>,
        before: u32,
        epoch: Epoch,
    ) -> Result<(), Trouble> {
        match old {
            Some((old, header)) => self.retire(old, &header, epoch),
            None => {
                add(self.head.live(), 1)?;
                if before == self.shape().deleted() { add(self.head.markers(), -1) } else { Ok(()) }
            }
        }
    }

    /// Does what is left to do when a change can be seen. What goes wrong here does not undo the change: the
    /// region is marked, and the next owner rebuilds it.
    #[inline]
    pub(super) fn afterwards(&self, rest: impl FnOnce() -> Result<(), Trouble>) {
        if rest().is_err() {
            self.mark();
        }
    }

    /// Whether a slot holds a whole version of this region.
    pub(super) fn is_whole(&self, slot: u32) -> bool {
        let mut data = Vec::new();
        let words = self.arena.slot(slot);
        words.is_some_and(|w| {
            matches!(read_any(w, self.arena.geo.record_size as usize, true, &mut data), Seen::Whole(_))
        })
    }

    /// Deletes a record.
    ///
    /// If no earlier version of it can be on disk, its slot is scrubbed, and that is all. Else a loss
    /// of power could keep an earlier version and lose this one: so it stays, as its own tombstone,
    /// until the slots of the earlier ones were freed in an epoch that is on disk.
    ///
    /// One that was flushed by itself stays too: it is what keeps one before it from coming back whose scrub
    /// is not on disk.
    pub(crate) fn delete(&self, hash: u64, id: u64) -> Result<bool, Trouble> {
        let Found::Hit { mut place, slot, header } = self.find(hash, id)? else {
            return Ok(false);
        };
        let epoch = self.arena.epoch()?;
        let is_needed =
            header.is_lone() && header.epoch() > self.arena.durable()? && !fault::on(Fault::LoneDeleted);
        if is_needed {
            self.ensure_linked()?;
        }
        // The hint may be an old one; to ask lowers it.
        let pinned = seat::may_be_pinned(self.arena) && seat::oldest_pin(self.arena)?.is_some();
        let may_come_back = is_needed || self.is_linked()? && self.older_may_come_back()?;
        // A damaged version is not fit to be its own tombstone: its `seq` may be what is damaged.
        if pinned || may_come_back && !self.is_whole(slot) {
            return self.delete_with_tombstone(hash, id, epoch);
        }
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        let bury_it = may_come_back && !fault::on(Fault::NoTombstone);
        if bury_it {
            bury(words)
        } else {
            retract(words)
        }
        self.afterwards(|| {
            self.remove_entry(&mut place)?;
            if bury_it { self.push(Queue::Retired, slot, epoch.number()) } else { self.release(slot) }
        });
        step("delete: done");
        Ok(true)
    }

    /// The `seq` of the next write, which the caller may use, and those of `count - 1` writes after it.
    #[inline]
    pub(super) fn next_seq(&self, count: u64) -> Result<u64, Trouble> {
        let seq = self.noted_seq()?;
        let last = seq.wrapping_add(count - 1);
        // The check of the word is left to the cold path: here it bounds what the head says.
        let blocks = self.arena.control().version_blocks().load_unchecked(Ordering::Relaxed);
        let is_new = begins_block(seq) || block_of(seq) != block_of(last);
        if is_new || block_of(last) >= blocks {
            self.give_out_block(seq, count)?;
        }
        Ok(seq)
    }

    /// Notes on disk that the block of versions is given out that `count` of them, from `seq` on, go into. So
    /// whatever a loss of power leaves, no version is used again: the next life of the store begins behind all blocks
    /// that were given out. Once in 2^40 writes. A number in the middle of a block that was not given out is damage.
    #[cold]
    pub(crate) fn give_out_block(&self, seq: u64, count: u64) -> Result<(), Trouble> {
        let last = seq.checked_add(count - 1).ok_or(NEXT_SEQ)?;
        let noted = self.arena.control().version_blocks();
        let blocks = noted.load(Ordering::SeqCst);
        let is_given_out = blocks.is_none_or(|blocks| block_of(seq) < blocks);
        let is_next = begins_block(seq) && blocks.is_none_or(|blocks| block_of(seq) == blocks);
        let needed = block_of(last) + 1;
        if needed >= BLOCKS_MAX || !is_given_out && !is_next {
            return Err(NEXT_SEQ);
        }
        noted.raise_to(needed);
        // Also if another noted it: its flush may be under way.
        self.arena.flush_control()?;
        step("put: a block of versions is given out");
        Ok(())
    }

    /// Deletes a record by a tombstone in a slot of its own; the version is kept as a replaced one is, for
    /// somebody may still read it.
    fn delete_with_tombstone(&self, hash: u64, id: u64, epoch: Epoch) -> Result<bool, Trouble> {
        self.ensure_linked()?;
        let seq = self.next_seq(1)?;
        let new = self.take_slot()?;
        let Found::Hit { mut place, slot, .. } = self.find(hash, id)? else {
            self.free(new)?;
            return Ok(false);
        };
        self.set_next_seq(seq + 1);
        let words = self.arena.slot(new).ok_or(Trouble::Flaw("a free slot outside the file"))?;
        publish(words, Header::record(seq, id, epoch, 0).tombstone(), &[]);
        self.afterwards(|| {
            self.remove_entry(&mut place)?;
            self.push(Queue::Retired, slot, epoch.number())?;
            self.push(Queue::Retired, new, epoch.number())
        });
        step("delete: done, with a tombstone");
        Ok(true)
    }

    /// Takes a record's entry out of the index.
    pub(super) fn remove_entry(&self, place: &mut Place<'_>) -> Result<(), Trouble> {
        let shape = self.shape();
        let marker = if place.line.has_empty() { 0 } else { shape.deleted() };
        store_entry(place.words, &mut place.line, place.entry, marker);
        step("delete: record invisible");
        add(self.head.live(), -1)?;
        if marker != 0 {
            add(self.head.markers(), 1)?;
            if count(self.head.markers())? > (ENTRIES as u64) << shape.lines_log2 >> 3 {
                match self.move_index(shape.lines_log2) {
                    // Room for a fresh table is a convenience here; a full disk is no reason to fail.
                    Err(Trouble::Error(_)) => {}
                    moved => moved?,
                }
            }
        }
        Ok(())
    }

    /// Stores the counts that a rebuild found.
    pub(crate) fn reset_counts(&self, live: u64, free: u64) {
        self.head.live().store(live, Ordering::Relaxed);
        self.head.markers().store(0, Ordering::Relaxed);
        self.head.free_count().store(free, Ordering::Relaxed);
    }
}
