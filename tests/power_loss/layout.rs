//! What a store looks like and what its sectors are: derived bytes, which recovery builds anew, or
//! the truth, from which it does so.

use recstore::Options;

use crate::common::superblock::REGION_TABLE;
use crate::disk::SECTOR;

const PAGE: usize = 4096;
const HEAD_BYTES: usize = 256;
const EXTENT_HEADER_BYTES: usize = 64;
const SLOT_HEADER_BYTES: usize = 32;
const LINK_BYTES: usize = 16;
/// The control page's word for the boot; the whole of it is one sector.
pub(crate) const BOOT: usize = PAGE + 64;
/// That of a flush that failed.
pub(crate) const FLUSH_FAILED: usize = PAGE + 144;
/// The control page's mark of a store that was closed.
pub(crate) const CLEAN: usize = PAGE + 80;
/// The control page's hint that a handle may have pinned an epoch.
pub(crate) const PINNED: usize = PAGE + 192;

/// The geometry of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) record_size: usize,
    pub(crate) regions: u32,
    pub(crate) slots: u32,
    /// Extents that the file may grow to.
    pub(crate) extents: u32,
    /// Slots are of several classes, and extents grow: `slots` counts for nothing.
    pub(crate) grows: bool,
}

/// What a sector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Superblocks: never written again.
    Superblock,
    /// Epochs, counts of extents, boot, marks.
    Control,
    /// Heads, index tables, links, seats.
    Derived,
    /// Headers of extents, and slots.
    Truth,
}

impl Layout {
    pub(crate) const fn new(record_size: usize, regions: u32, slots: u32, extents: u32) -> Self {
        Self { record_size, regions, slots, extents, grows: false }
    }

    pub(crate) fn options(&self) -> Options {
        let max = self.base() + self.extents as usize * self.extent_size();
        let options = Options::new().record_size(self.record_size).regions(self.regions).max_size(max as u64);
        if self.grows { options } else { options.slots_per_extent(self.slots) }
    }

    /// The same with extents that grow.
    pub(crate) const fn growing(self) -> Self {
        Self { grows: true, ..self }
    }

    fn slot_size(&self) -> usize {
        (SLOT_HEADER_BYTES + self.record_size).next_multiple_of(32)
    }

    fn links_offset(&self) -> usize {
        (EXTENT_HEADER_BYTES + self.slots as usize * self.slot_size()).next_multiple_of(PAGE)
    }

    fn extent_size(&self) -> usize {
        self.links_offset() + (self.slots as usize * LINK_BYTES).next_multiple_of(PAGE)
    }

    fn heads_end(&self) -> usize {
        REGION_TABLE as usize + (self.regions as usize * HEAD_BYTES).next_multiple_of(PAGE)
    }

    fn base(&self) -> usize {
        // The class table of two regions, and of records of less than 4096 bytes, is a page.
        self.heads_end() + self.regions as usize * PAGE + if self.grows { PAGE } else { 0 }
    }

    /// What every sector of a file with these bytes is.
    pub(crate) fn parts(&self, bytes: &[u8]) -> Vec<Part> {
        let mut parts = vec![Part::Derived; bytes.len().div_ceil(SECTOR)];
        for (from, part) in
            [(0, Part::Superblock), (PAGE, Part::Control), (REGION_TABLE as usize - PAGE, Part::Superblock)]
        {
            parts[from / SECTOR..(from + PAGE) / SECTOR].fill(part);
        }
        let mut extent = self.base();
        if self.grows {
            self.grown_parts(bytes, &mut parts);
            return parts;
        }
        while extent + self.extent_size() <= bytes.len() {
            let word =
                |at: usize| u32::from_le_bytes(bytes[extent + at..extent + at + 4].try_into().unwrap());
            let is_index = bytes[extent..].starts_with(b"rec-extn") && word(20) == 2;
            let run = if is_index { word(48).max(1) as usize } else { 1 };
            let truth = if is_index { SECTOR } else { self.links_offset() };
            parts[extent / SECTOR..(extent + truth) / SECTOR].fill(Part::Truth);
            extent += run * self.extent_size();
        }
        parts
    }

    /// Data extents are the truth, with the links in them, and so are the headers of index extents and the copies of these.
    fn grown_parts(&self, bytes: &[u8], parts: &mut [Part]) {
        let mut at = self.base();
        while at + PAGE <= bytes.len() {
            let word =
                |field: usize| u32::from_le_bytes(bytes[at + field..at + field + 4].try_into().unwrap());
            let is_extent = bytes[at..].starts_with(b"rec-extn") && word(48) > 0;
            let run = if is_extent { word(48) as usize } else { 1 };
            let end = (at + run * PAGE).min(bytes.len() / PAGE * PAGE);
            if is_extent && word(20) == 2 {
                parts[at / SECTOR] = Part::Truth;
                parts[end / SECTOR - 1] = Part::Truth;
            } else {
                parts[at / SECTOR..end / SECTOR].fill(Part::Truth);
            }
            at = end;
        }
    }

    /// Names a sector for people.
    pub(crate) fn describe(&self, sector: usize) -> String {
        let at = sector * SECTOR;
        let place = match at {
            _ if at < PAGE => "superblock".to_owned(),
            _ if at < 2 * PAGE => "control page".to_owned(),
            _ if at < REGION_TABLE as usize - PAGE => "seats".to_owned(),
            _ if at < REGION_TABLE as usize => "second superblock".to_owned(),
            _ if at < self.heads_end() => "heads".to_owned(),
            _ if at < self.base() => "class table and first index tables".to_owned(),
            _ if self.grows => format!("page {} of the extents", (at - self.base()) / PAGE),
            _ => {
                let (extent, within) =
                    ((at - self.base()) / self.extent_size(), (at - self.base()) % self.extent_size());
                if within >= self.links_offset() {
                    format!("links of extent {extent}")
                } else {
                    let slot = |at: usize| at.saturating_sub(EXTENT_HEADER_BYTES) / self.slot_size();
                    let first = slot(within);
                    let last = slot(within + SECTOR - 1).min(self.slots as usize - 1);
                    let header = if within == 0 { "header and " } else { "" };
                    format!("extent {extent}: {header}slots {first} to {last}")
                }
            }
        };
        format!("sector {sector} ({place})")
    }
}
