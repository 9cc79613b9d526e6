//! Writing one record, for the owner of a region's lock. The numbered steps are in the chapter on the protocol.

use crate::error::{Error, Result};
use crate::file::grow::next_lines_log2;
use crate::format::epoch::Epoch;
use crate::format::keyed;
use crate::format::slot::{Address, HEADER_WORDS, Header};
use crate::protocol::index::store_entry;
use crate::protocol::slot::{publish, publish_filled};
use crate::region::Trouble;
use crate::region::find::{Found, Place};
use crate::region::head::{COUNT, Region, add, count};
use crate::region::slots::{FreeSlot, Origin};
use crate::region::table::load_max;
use crate::sys::copy::copy_out_at;
use crate::sys::step::step;

const USED_SEQ: Trouble = Trouble::Flaw("the next sequence number was used already");

/// Bytes of the name and the key that are compared where they lie.
const END_BYTES_MAX: usize = 128;

/// The place of a new version.
pub(crate) struct Written {
    pub(crate) seq: u64,
    pub(crate) slot: u32,
}

/// The content of a new version.
#[derive(Clone, Copy)]
pub(crate) enum Content<'c> {
    /// These bytes of a record that is found by this; a slot is taken for them.
    Bytes(&'c [u8], Address),
    /// The bytes that a reserved slot holds already.
    Reserved {
        /// The slot.
        slot: u32,
        /// What the record is found by.
        address: Address,
        /// The length of the data in bytes.
        len: usize,
        /// The checksum of the data alone.
        sum: &'c crc32fast::Hasher,
    },
}

impl Content<'_> {
    /// What the record is found by.
    #[inline]
    fn address(&self) -> Address {
        match self {
            Content::Bytes(_, address) | Content::Reserved { address, .. } => *address,
        }
    }
}

impl<'a> Region<'a> {
    /// Writes a version of `id`. `lone`: the caller will flush it by itself.
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
                // A fuller table is slower, but a full disk does not stop the write.
                Err(Trouble::Error(Error::Full { .. })) if has_place => {}
                moved => moved.map_err(|trouble| self.explain_index(trouble))?,
            }
            found = self.find(hash, id)?;
        }
        self.write(hash, id, epoch, content, lone, found)
    }

    /// Refuses a count of live records that is higher than the number of the store's slots: with such a count each write would
    /// move the index to a table of twice the size.
    #[cold]
    pub(super) fn check_live(&self) -> Result<(), Trouble> {
        if count(self.head.live())? > self.arena.slots_end()? { Err(COUNT) } else { Ok(()) }
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

    /// Steps 1 to 4 of a write (see [`crate::protocol`]). `found` is the result of `find` just now.
    #[inline]
    pub(super) fn write(
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
            if header.address() != content.address() {
                self.check_address(id, header, *slot, content.address())?;
            }
            if header.is_wanted_after(epoch) {
                self.ensure_linked()?;
            }
        }
        let candidate = match content {
            Content::Bytes(data, _) => self.candidate(data.len())?,
            Content::Reserved { slot, .. } => {
                let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a reserved slot outside the file"))?;
                FreeSlot { slot, words, origin: Origin::Reserved }
            }
        };
        let FreeSlot { slot, words, .. } = candidate;
        if !self.shape().holds(slot) {
            // The file outgrew the entries' width.
            let moved = self.widen_index(slot).and_then(|()| self.find(hash, id));
            found = moved.map_err(|trouble| self.explain_index(trouble))?;
        }
        let (place, old) = found.replaces()?;
        let intent = self.begin_put(&candidate, &place, old.map(|(old, _)| old));
        self.take(&candidate)?;
        self.set_next_seq(seq + 1);
        step("put: slot taken");
        let header = |len| {
            let header = Header::record(seq, id, epoch, len).of_address(content.address());
            if lone { header.lone() } else { header }
        };
        match content {
            Content::Bytes(data, _) => publish(words, header(data.len()), data),
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
        self.tell(id, seq, content.address());
        intent.end();
        step("put: done");
        Ok(Written { seq, slot })
    }

    /// Refuses to put a record that is found in one way in place of one that is found in the other. A damaged one may be
    /// either, and is written anew.
    #[cold]
    pub(super) fn check_address(
        &self,
        id: u64,
        old: &Header,
        slot: u32,
        address: Address,
    ) -> Result<(), Trouble> {
        if old.address() == address || !self.is_whole(slot) {
            return Ok(());
        }
        Err(Error::IdTaken { path: self.arena.path.clone(), id, by_key: address == Address::Id }.into())
    }

    /// Whether there is a keyed record with this id that holds more, or something else, than one entry of the key that
    /// `record` is of: a record of one entry. Of a longer key it is not asked.
    pub(crate) fn has_other_keys(&self, hash: u64, id: u64, record: &[u8]) -> Result<bool, Trouble> {
        let Found::Hit { header, slot, .. } = self.find(hash, id)? else { return Ok(false) };
        let words = self.arena.slot(slot).and_then(|words| words.get(HEADER_WORDS..)).unwrap_or_default();
        let mut end = [0; END_BYTES_MAX];
        let Some(end) = end.get_mut(..keyed::end_len(record)) else { return Ok(true) };
        let Some(value_len) = header.len().checked_sub(end.len()) else { return Ok(true) };
        copy_out_at(words, value_len, end);
        Ok(header.address() == Address::Key && !keyed::is_end_of_same(end, value_len, record))
    }

    /// Step 3 of a write. Returns the entry that was there before.
    #[inline]
    pub(super) fn store_visible(&self, mut place: Place<'_>, hash: u64, slot: u32) -> u32 {
        let before = place.replaced();
        store_entry(place.words, &mut place.line, place.entry, self.shape().entry(hash, slot));
        step("put: version visible");
        before
    }

    /// Step 4 of a write that replaced `old`; `before` is the entry that was there.
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
}
