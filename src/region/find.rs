//! Searching the index, for the owner of a region's lock.

use crate::format::index::{ENTRIES, LINE_WORDS, Line, Shape};
use crate::format::slot::Header;
use crate::protocol::index::{candidates, load_line};
use crate::protocol::slot::header;
use crate::region::Trouble;
use crate::region::head::Region;
use crate::sys::atomic::AtomicU64;

/// An entry's place in the index.
pub(crate) struct Place<'a> {
    pub(super) words: &'a [AtomicU64; LINE_WORDS],
    pub(super) line: Line,
    pub(super) entry: usize,
}

impl Place<'_> {
    /// The entry that is there.
    #[inline]
    pub(super) fn replaced(&self) -> u32 {
        self.line.0[self.entry]
    }

    /// The entry that stands there when the record is deleted: empty, or a marker if the line is full.
    #[inline]
    pub(super) fn without(&self, shape: &Shape) -> u32 {
        if self.line.has_empty() { 0 } else { shape.deleted() }
    }
}

/// The result of a search by the owner.
pub(crate) enum Found<'a> {
    /// The record's entry, slot and header.
    Hit { place: Place<'a>, slot: u32, header: Header },
    /// No such record; the place for its entry, if the table has room.
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
    /// Searches the index. Nothing is changed.
    #[inline]
    pub(crate) fn find(&self, hash: u64, id: u64) -> Result<Found<'a>, Trouble> {
        let shape = self.shape();
        let mut place = None;
        for number in shape.walk(hash) {
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
                        break; // The entry may name a replaced version.
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

    /// Whether the index leads from `hash` to a slot of another id whose version is damaged: its id may be the damaged part, and the
    /// version one of `id`. A search that finds a record, or a place for one, passes over it.
    pub(crate) fn may_lead_to_damaged(&self, hash: u64, id: u64) -> bool {
        let shape = self.shape();
        for number in shape.walk(hash) {
            let Some(line) = self.arena.line(&shape, number).map(load_line) else { return true };
            let mut matching = candidates(&line, &shape, hash);
            while matching != 0 {
                let entry = line.0[matching.trailing_zeros() as usize];
                matching &= matching - 1;
                let Some(slot) = shape.slot(entry) else { continue };
                let is_other = self.arena.slot(slot).is_none_or(|words| header(words).id() != id);
                if is_other && !self.is_whole(slot) {
                    return true;
                }
            }
            if line.has_empty() {
                break;
            }
        }
        false
    }

    /// Whether the table of `shape` leads from `hash` to `slot`, by lines whose checksums hold.
    pub(crate) fn leads_to(&self, shape: &Shape, hash: u64, slot: u32) -> bool {
        for number in shape.walk(hash) {
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
}
