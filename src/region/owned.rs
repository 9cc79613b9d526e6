//! What the owner of a region's lock does in it: find, take a slot, write, retire, delete, move the
//! index. Every call here is between a lock and an unlock; every prefix of its stores is a state
//! from which a rebuild gives the version before the call or the one after it.

use crate::error::{Error, Result};
use crate::fault::{self, Fault};
use crate::format::extent::Kind;
use crate::format::index::{ENTRIES, FIRST_LINES_LOG2, LINES_LOG2_MAX, Line, Shape};
use crate::format::region::word;
use crate::format::slot::{Header, Kind as SlotKind, PRESENT};
use crate::format::{checked, slot as slot_format};
use crate::protocol::index::{candidates, load_line, store_entry, store_line};
use crate::protocol::slot::{Seen, bury, header, is_free, publish, read_any, retract, scrub};
use crate::region::Trouble;
use crate::region::arena::Arena;
use crate::region::grow::{Growth, LARGE_SLOT_BYTES, next_lines_log2};
use crate::region::{seat, watch};
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::step::step;

/// A region whose lock the caller holds.
#[derive(Clone, Copy)]
pub(crate) struct Region<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) number: u32,
    head: &'a [AtomicU64],
}

/// An entry's place in the index.
pub(crate) struct Place<'a> {
    words: &'a [AtomicU64],
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

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | (u64::from(high) << 32)
}

/// The two slot references of a word.
pub(crate) fn unpair(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// Records that a table of so many lines takes before it grows: three quarters of its entries.
pub(crate) fn load_max(shape: &Shape) -> u64 {
    ((ENTRIES as u64) << shape.lines_log2) * 3 / 4
}

impl<'a> Region<'a> {
    /// The region, whose lock the caller holds.
    pub(crate) fn new(arena: &'a Arena, number: u32) -> Self {
        Self { arena, number, head: arena.head(number) }
    }

    #[inline]
    pub(crate) fn get(&self, word: usize) -> u64 {
        self.head[word].load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, word: usize, value: u64) {
        self.head[word].store(value, Ordering::Relaxed);
    }

    fn count(&self, word: usize) -> Result<u64, Trouble> {
        checked::decode(self.get(word)).ok_or(Trouble::Flaw("a count in the region's head"))
    }

    #[inline]
    fn add(&self, word: usize, by: i64) -> Result<(), Trouble> {
        self.set(word, checked::encode(self.count(word)?.wrapping_add_signed(by)));
        Ok(())
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape::decode(self.get(word::SHAPE))
    }

    /// Makes a shape the region's: from here on, readers use its table.
    pub(crate) fn set_shape(&self, shape: Shape) {
        self.head[word::SHAPE].store(shape.encode(), Ordering::Release); // Pairs with `look`.
    }

    /// Live records.
    pub(crate) fn live(&self) -> Result<u64, Trouble> {
        self.count(word::LIVE)
    }

    /// Whether the links of the region's extents are allocated.
    pub(crate) fn is_linked(&self) -> Result<bool, Trouble> {
        Ok(self.count(word::LINKS)? != 0)
    }

    pub(crate) fn set_linked(&self) {
        self.set(word::LINKS, checked::encode(1));
    }

    /// Tells watchers that anything may have changed.
    pub(crate) fn notify(&self) {
        watch::notify(self.arena, self.head);
    }

    /// The head's words as they are now.
    pub(crate) fn words(&self) -> [u64; word::COUNT] {
        std::array::from_fn(|i| self.head[i].load(Ordering::Acquire))
    }

    /// Whether a rebuild was begun and not finished.
    pub(crate) fn is_being_rebuilt(&self) -> bool {
        self.shape().rebuilding
    }

    /// Searches the index. Nothing is changed.
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
                if header.seq == 0 {
                    return Err(Trouble::Flaw("the index names a free slot"));
                }
                if header.id == id {
                    if self.is_linked()? && !line.holds(shape.seed(self.number, number)) {
                        break; // It may name a version that was replaced.
                    }
                    return Ok(Found::Hit { place: Place { words, line, entry }, slot, header });
                }
                if self.arena.geo.region_of(self.arena.geo.hash(header.id)) != self.number {
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

    /// Writes a version of `id`. `found` is what `find` gave for it just now.
    pub(crate) fn put(&self, hash: u64, id: u64, data: &[u8]) -> Result<u64, Trouble> {
        let epoch = self.arena.epoch()?;
        let mut found = self.find(hash, id)?;
        if let Found::Miss(place) = &found
            && (place.is_none() || self.count(word::LIVE)? >= load_max(&self.shape()))
        {
            let has_place = place.is_some();
            match self.move_index(next_lines_log2(&self.shape())) {
                // A fuller table is slower, and better than none.
                Err(Trouble::Error(Error::Full { .. })) if has_place => {}
                moved => moved?,
            }
            found = self.find(hash, id)?;
        }
        self.write(hash, id, epoch, data, found)
    }

    /// Steps 1 to 4 of a write (see [`crate::protocol`]).
    pub(crate) fn write(
        &self,
        hash: u64,
        id: u64,
        epoch: u64,
        data: &[u8],
        mut found: Found<'a>,
    ) -> Result<u64, Trouble> {
        let seq = self.get(word::NEXT_SEQ);
        if seq & PRESENT == 0 || seq == u64::MAX {
            return Err(Trouble::Flaw("the next sequence number"));
        }
        if let Found::Hit { header, slot, .. } = &found {
            if header.seq >= seq && self.is_whole(*slot) {
                return Err(Trouble::Flaw("the next sequence number was used already"));
            }
            if header.epoch() != epoch && !self.is_linked()? {
                Growth::lock(self.arena, self.number)?.allocate_links(self.number)?;
                self.set_linked();
            }
        }
        let slot = self.take_slot()?;
        if !self.shape().holds(slot) {
            // The file outgrew the entries' width.
            let moved = self.move_index(self.shape().lines_log2).and_then(|()| self.find(hash, id));
            found = match moved {
                Ok(found) => found,
                Err(trouble) => {
                    self.free(slot)?; // A slot on no list would be lost until a rebuild.
                    return Err(trouble);
                }
            };
        }
        let (mut place, old) = match found {
            Found::Hit { place, slot, header } => (place, Some((slot, header))),
            Found::Miss(Some(place)) => (place, None),
            Found::Miss(None) => return Err(Trouble::Flaw("an index without room")),
        };
        // Release: who sees the number sees the lock held (pairs with `store::iter`).
        self.head[word::NEXT_SEQ].store(seq + 1, Ordering::Release);
        step("put: slot taken");
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a free slot outside the file"))?;
        publish(words, Header::record(seq, id, epoch, data.len()), data);
        let shape = self.shape();
        let before = place.line.0[place.entry];
        store_entry(place.words, &mut place.line, place.entry, shape.entry(hash, slot));
        step("put: version visible");
        match old {
            Some((old, header)) => self.retire(old, &header, slot, epoch)?,
            None => {
                self.add(word::LIVE, 1)?;
                if before == shape.deleted() {
                    self.add(word::MARKERS, -1)?;
                }
                if self.is_linked()? {
                    self.link(slot)?[0].store(0, Ordering::Relaxed);
                }
            }
        }
        watch::notify(self.arena, self.head);
        step("put: done");
        Ok(seq)
    }

    /// Whether a slot holds a whole version of this region.
    fn is_whole(&self, slot: u32) -> bool {
        let mut data = Vec::new();
        let words = self.arena.slot(slot);
        words.is_some_and(|w| {
            matches!(read_any(w, self.arena.geo.record_size as usize, true, &mut data), Seen::Whole(_))
        })
    }

    /// Slots in the queue of retired ones, counted.
    pub(crate) fn retired_slots(&self) -> Result<u64, Trouble> {
        let most = u64::from(self.arena.extent_count()?) << self.arena.geo.slots_log2;
        let (mut next, last) = unpair(self.get(word::RETIRED));
        let mut counted = 0;
        let mut at = 0;
        while next != 0 {
            at = next;
            counted += 1;
            (next, _) = unpair(self.link(next - 1)?[0].load(Ordering::Relaxed));
            if counted > most {
                return Err(Trouble::Flaw("the queue of retired slots runs in a circle"));
            }
        }
        if at == last { Ok(counted) } else { Err(Trouble::Flaw("the queue of retired slots")) }
    }

    fn link(&self, slot: u32) -> Result<&'a [AtomicU64], Trouble> {
        self.arena.link(slot).ok_or(Trouble::Flaw("the links of a slot outside the file"))
    }

    /// Gives up the slot of a version that `by` has replaced in `epoch`: free at once if no flush
    /// has begun since the version was written, else kept until `epoch` is on disk. A damaged
    /// version can't help anybody, and is free at once.
    fn retire(&self, old: u32, header: &Header, by: u32, epoch: u64) -> Result<(), Trouble> {
        let linked = self.is_linked()?;
        if header.epoch() == epoch || !self.is_whole(old) || fault::on(Fault::ReuseEarly) {
            if linked {
                let (_, before) = unpair(self.link(old)?[0].load(Ordering::Relaxed));
                self.link(by)?[0].store(pair(0, before), Ordering::Relaxed);
            }
            return self.free(old);
        }
        self.link(by)?[0].store(pair(0, old + 1), Ordering::Relaxed);
        self.enqueue(old, epoch)
    }

    /// Appends a slot to the queue of those that are kept until `epoch` is on disk.
    fn enqueue(&self, slot: u32, epoch: u64) -> Result<(), Trouble> {
        let link = self.link(slot)?;
        let (_, before) = unpair(link[0].load(Ordering::Relaxed));
        link[0].store(pair(0, before), Ordering::Relaxed);
        link[1].store(checked::encode(epoch), Ordering::Relaxed);
        let (first, last) = unpair(self.get(word::RETIRED));
        if last == 0 {
            self.set(word::RETIRED, pair(slot + 1, slot + 1));
        } else {
            let tail = self.link(last - 1)?;
            let (_, before) = unpair(tail[0].load(Ordering::Relaxed));
            tail[0].store(pair(slot + 1, before), Ordering::Relaxed);
            self.set(word::RETIRED, pair(first, slot + 1));
        }
        self.add(word::RETIRED_COUNT, 1)?;
        step("retire: version queued");
        Ok(())
    }

    /// Scrubs a slot and puts it on the free list.
    pub(crate) fn free(&self, slot: u32) -> Result<(), Trouble> {
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        scrub(words, self.number, self.get(word::FREE));
        self.set(word::FREE, u64::from(slot) + 1);
        self.add(word::FREE_COUNT, 1)?;
        step("free: slot on the free list");
        Ok(())
    }

    /// Step 1: a free slot, from the free list, the retired queue, the fresh slots or a new extent.
    fn take_slot(&self) -> Result<u32, Trouble> {
        loop {
            let first = self.get(word::FREE);
            if first != 0 {
                let slot = u32::try_from(first - 1).map_err(|_| Trouble::Flaw("the free list"))?;
                let words = self.arena.slot(slot).ok_or(Trouble::Flaw("the free list"))?;
                let header = header(words);
                if !is_free(&header, self.number) {
                    return Err(Trouble::Flaw("the free list names a slot that is not free"));
                }
                self.set(word::FREE, header.id);
                self.add(word::FREE_COUNT, -1)?;
                return Ok(slot);
            }
            if self.reclaim()? {
                continue;
            }
            let (next, end) = unpair(self.get(word::FRESH));
            if next < end {
                let extent = self.arena.geo.extent_of(next);
                let slots = self.arena.slots_of(extent);
                let words = self.arena.slot(next).ok_or(Trouble::Flaw("the fresh slots"))?;
                if end > slots.end
                    || (next == slots.start || next % 64 == 0)
                        && self.arena.extent_kind(extent) != Some(Kind::Data { region: self.number })
                    || header(words).words() != [0; slot_format::HEADER_WORDS]
                {
                    return Err(Trouble::Flaw("the fresh slots"));
                }
                if self.arena.geo.slot_size >= LARGE_SLOT_BYTES {
                    self.arena.map.populate(self.arena.geo.slot_offset(next), self.arena.geo.slot_size);
                }
                self.set(word::FRESH, pair(next + 1, end));
                return Ok(next);
            }
            let with_links = self.is_linked()?;
            let extent = match Growth::lock(self.arena, self.number)?.add_data_extent(self.number, with_links)
            {
                Ok(extent) => extent,
                Err(full) if self.count(word::RETIRED_COUNT)? != 0 => {
                    return Err(Trouble::Error(self.hint_sync(full)));
                }
                Err(full) => return Err(full.into()),
            };
            let slots = self.arena.slots_of(extent);
            self.set(word::FRESH, pair(slots.start, slots.end));
            step("grow: fresh slots set");
        }
    }

    /// A full store that keeps replaced versions for durability is told how to free them.
    fn hint_sync(&self, full: Error) -> Error {
        match full {
            Error::Full { path, region, limit, why, source } => {
                let why = format!("{why}; replaced versions wait for a sync");
                Error::Full { path, region, limit, why, source }
            }
            other => other,
        }
    }

    /// Frees retired slots whose successors are on disk, a few at a time; whether any was freed.
    ///
    /// A tombstone goes last: when the slots of the versions that it hides were freed in an epoch
    /// that is on disk. Until then it goes back to the end of the queue.
    fn reclaim(&self) -> Result<bool, Trouble> {
        const AT_ONCE: usize = 32;
        if self.get(word::RETIRED) == 0 {
            return Ok(false);
        }
        let (epoch, durable) = (self.arena.epoch()?, self.arena.durable()?);
        // What was replaced later is needed, by the disk or by whoever reads a pinned epoch.
        let limit = seat::oldest_pin(self.arena)?.map_or(durable, |pinned| pinned.min(durable));
        let mut freed = 0;
        while freed < AT_ONCE {
            let (first, last) = unpair(self.get(word::RETIRED));
            let Some(slot) = first.checked_sub(1) else { break };
            let link = self.link(slot)?;
            let replaced = checked::decode(link[1].load(Ordering::Relaxed))
                .ok_or(Trouble::Flaw("the queue of retired slots"))?;
            if replaced > limit {
                break;
            }
            let words = self.arena.slot(slot).ok_or(Trouble::Flaw("the queue of retired slots"))?;
            let kept = header(words);
            let is_tombstone = kept.kind() == SlotKind::Tombstone;
            // The queue is derived: before it costs a record, the index is asked.
            let hash = self.arena.geo.hash(kept.id);
            if kept.seq == 0 || matches!(self.find(hash, kept.id)?, Found::Hit { slot: s, .. } if s == slot) {
                return Err(Trouble::Flaw("the queue of retired slots"));
            }
            let (next, _) = unpair(link[0].load(Ordering::Relaxed));
            self.set(word::RETIRED, pair(next, if next == 0 { 0 } else { last }));
            self.add(word::RETIRED_COUNT, -1)?;
            step("reclaim: slot taken from the queue");
            let hides = self.count(word::RECLAIMED)? > durable && !fault::on(Fault::TombstoneEarly);
            if is_tombstone && hides {
                self.enqueue(slot, epoch)?;
                continue; // Its epoch is beyond the durable one now, so this comes to an end.
            }
            if !is_tombstone {
                self.set(word::RECLAIMED, checked::encode(epoch));
            }
            self.free(slot)?;
            freed += 1;
        }
        Ok(freed != 0)
    }

    /// Deletes a record.
    ///
    /// If no earlier version of it can be on disk, its slot is scrubbed, and that is all. Else a loss
    /// of power could keep an earlier version and lose this one: so it stays, as its own tombstone,
    /// until the slots of the earlier ones were freed in an epoch that is on disk.
    pub(crate) fn delete(&self, hash: u64, id: u64) -> Result<bool, Trouble> {
        let Found::Hit { mut place, slot, .. } = self.find(hash, id)? else {
            return Ok(false);
        };
        let epoch = self.arena.epoch()?;
        if seat::may_be_pinned(self.arena) {
            return self.delete_for_pins(hash, id, epoch);
        }
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        let may_come_back = self.is_linked()?
            && (unpair(self.link(slot)?[0].load(Ordering::Relaxed)).1 != 0
                || self.count(word::RECLAIMED)? > self.arena.durable()?);
        let bury_it = may_come_back && !fault::on(Fault::NoTombstone);
        if bury_it {
            bury(words)
        } else {
            retract(words)
        }
        self.remove_entry(&mut place)?;
        if bury_it {
            self.enqueue(slot, epoch)?;
        } else {
            self.free(slot)?;
        }
        watch::notify(self.arena, self.head);
        step("delete: done");
        Ok(true)
    }

    /// Deletes a record whose version somebody may still read: it is kept as a replaced one is, and
    /// the tombstone takes a slot of its own.
    fn delete_for_pins(&self, hash: u64, id: u64, epoch: u64) -> Result<bool, Trouble> {
        if !self.is_linked()? {
            Growth::lock(self.arena, self.number)?.allocate_links(self.number)?;
            self.set_linked();
        }
        let seq = self.get(word::NEXT_SEQ);
        if seq & PRESENT == 0 || seq == u64::MAX {
            return Err(Trouble::Flaw("the next sequence number"));
        }
        let new = self.take_slot()?;
        let Found::Hit { mut place, slot, .. } = self.find(hash, id)? else {
            self.free(new)?;
            return Ok(false);
        };
        self.head[word::NEXT_SEQ].store(seq + 1, Ordering::Release);
        let words = self.arena.slot(new).ok_or(Trouble::Flaw("a free slot outside the file"))?;
        publish(words, Header::record(seq, id, epoch, 0).tombstone(), &[]);
        self.remove_entry(&mut place)?;
        self.link(new)?[0].store(pair(0, slot + 1), Ordering::Relaxed);
        self.enqueue(slot, epoch)?;
        self.enqueue(new, epoch)?;
        watch::notify(self.arena, self.head);
        step("delete: done, kept for a pin");
        Ok(true)
    }

    /// Takes a record's entry out of the index.
    fn remove_entry(&self, place: &mut Place<'_>) -> Result<(), Trouble> {
        let shape = self.shape();
        let marker = if place.line.has_empty() { 0 } else { shape.deleted() };
        store_entry(place.words, &mut place.line, place.entry, marker);
        step("delete: record invisible");
        self.add(word::LIVE, -1)?;
        if marker != 0 {
            self.add(word::MARKERS, 1)?;
            if self.count(word::MARKERS)? > (ENTRIES as u64) << shape.lines_log2 >> 3 {
                // Room for a fresh table is a convenience here; a full disk is no reason to fail.
                let _ = self.move_index(shape.lines_log2);
            }
        }
        Ok(())
    }

    /// Moves the index to a table of `lines_log2` with entries wide enough for the file as it is,
    /// and makes that the region's. The old table stays as it is, for readers that are still in it.
    pub(crate) fn move_index(&self, lines_log2: u32) -> Result<(), Trouble> {
        let old = self.shape();
        let lines_log2 = lines_log2.min(LINES_LOG2_MAX);
        let mut growth = Growth::lock(self.arena, self.number)?;
        let new = self.new_shape(&mut growth, lines_log2)?;
        self.clear_table(&new)?;
        for number in 0..1u64 << old.lines_log2 {
            let words =
                self.arena.line(&old, number).ok_or(Trouble::Flaw("the index lies outside the file"))?;
            let line = load_line(words);
            if !line.holds(old.seed(self.number, number)) {
                return Err(Trouble::Flaw("a line of the index"));
            }
            for &entry in &line.0[..ENTRIES] {
                let Some(slot) = shape_slot(&old, entry) else { continue };
                let words =
                    self.arena.slot(slot).ok_or(Trouble::Flaw("the index names a slot outside the file"))?;
                let id = header(words).id;
                let hash = self.arena.geo.hash(id);
                if !self.insert_unseen(&new, hash, slot)? {
                    return Err(Trouble::Flaw("an index without room"));
                }
            }
        }
        step("index: new table filled");
        self.set_shape(new);
        self.set(word::MARKERS, checked::encode(0));
        step("index: new table in use");
        Ok(())
    }

    /// Room for a table of `lines_log2`, as a shape with the next version.
    pub(crate) fn new_shape(&self, growth: &mut Growth<'_>, lines_log2: u32) -> Result<Shape, Trouble> {
        let old = self.shape();
        let slots = u64::from(self.arena.extent_count()? + 1) << self.arena.geo.slots_log2;
        let mut new = Shape {
            line_offset: 0,
            lines_log2: lines_log2.max(FIRST_LINES_LOG2),
            slot_bits: Shape::slot_bits_for(slots),
            version: old.version.wrapping_add(1),
            rebuilding: false,
        };
        new.line_offset = growth.index_space(self.number, new.bytes())?;
        Ok(new)
    }

    /// Makes every line of a table empty. No reader may be sent to it meanwhile.
    pub(crate) fn clear_table(&self, shape: &Shape) -> Result<(), Trouble> {
        fence(Ordering::Release); // Whoever sees a cleared line sees the shape that forbids reading it.
        for number in 0..1u64 << shape.lines_log2 {
            let words =
                self.arena.line(shape, number).ok_or(Trouble::Flaw("the index lies outside the file"))?;
            store_line(words, &Line::empty(shape.seed(self.number, number)));
        }
        Ok(())
    }

    /// Adds an entry to a table that no reader uses; whether there was room.
    pub(crate) fn insert_unseen(&self, shape: &Shape, hash: u64, slot: u32) -> Result<bool, Trouble> {
        if !shape.holds(slot) {
            return Ok(false);
        }
        let home = shape.home(hash);
        for n in 0..1u64 << shape.lines_log2 {
            let words =
                self.arena.line(shape, home + n).ok_or(Trouble::Flaw("the index lies outside the file"))?;
            let mut line = load_line(words);
            if let Some(entry) = line.0[..ENTRIES].iter().position(|&e| e == 0) {
                line.set(entry, shape.entry(hash, slot));
                let now = line.words();
                words[entry / 2].store(now[entry / 2], Ordering::Relaxed);
                words[7].store(now[7], Ordering::Relaxed);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stores the counts that a rebuild found.
    pub(crate) fn reset_counts(&self, live: u64, free: u64, retired: u64) {
        self.set(word::LIVE, checked::encode(live));
        self.set(word::MARKERS, checked::encode(0));
        self.set(word::FREE_COUNT, checked::encode(free));
        self.set(word::RETIRED_COUNT, checked::encode(retired));
    }

    /// Puts versions back into the retired queue, in the order of the epochs that replaced them:
    /// `(slot, replaced in, slot of the version before + 1)`.
    pub(crate) fn requeue(&self, retired: &[(u32, u64, u32)]) -> Result<(), Trouble> {
        for (i, &(slot, epoch, before)) in retired.iter().enumerate() {
            let next = retired.get(i + 1).map_or(0, |n| n.0 + 1);
            let link = self.link(slot)?;
            link[0].store(pair(next, before), Ordering::Relaxed);
            link[1].store(checked::encode(epoch), Ordering::Relaxed);
        }
        let ends = match (retired.first(), retired.last()) {
            (Some(first), Some(last)) => pair(first.0 + 1, last.0 + 1),
            _ => 0,
        };
        self.set(word::RETIRED, ends);
        Ok(())
    }

    /// Notes the version before a live one.
    pub(crate) fn set_before(&self, slot: u32, before: u32) -> Result<(), Trouble> {
        self.link(slot)?[0].store(pair(0, before), Ordering::Relaxed);
        Ok(())
    }
}

fn shape_slot(shape: &Shape, entry: u32) -> Option<u32> {
    if entry == 0 { None } else { shape.slot(entry) }
}
