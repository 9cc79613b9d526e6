//! Which part of the file a byte is.

use super::fixture::{LAYOUT, Model};
use crate::layout::{
    CONTROL, EXTENT_HEADER_BYTES, HEAD_BYTES, LINK_BYTES, PAGE, REGION_TABLE, SEAT_BYTES, SEATS,
    SLOT_HEADER_BYTES, SUPERBLOCK_B, SUPERBLOCK_BYTES, word,
};

/// The last word of a parked slot's header.
const PARKED: u64 = 0xffff_ffff_8000_0001;

/// A part of the file, by name, and the record whose bytes are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// The id of the version whose header or data it is.
    pub(crate) id: Option<u64>,
    /// Whether the bytes mean nothing, ever.
    pub(crate) is_padding: bool,
}

/// The parts of a file, byte by byte.
pub(crate) struct Parts {
    parts: Vec<Part>,
}

const CONTROL_WORDS: [(usize, usize, &str); 29] = [
    (0, 8, "control: epoch"),
    (8, 8, "control: durable epoch"),
    (64, 16, "control: boot id"),
    (80, 8, "control: clean mark"),
    (88, 8, "control: extents"),
    (96, 8, "control: durable extents"),
    (104, 8, "control: mount"),
    (112, 8, "control: file"),
    (128, 8, "control: flushes, for people"),
    (136, 8, "control: durable writes, for people"),
    (144, 8, "control: failed flush"),
    (192, 8, "control: hint of pins"),
    (200, 8, "control: hint of borrows"),
    (208, 8, "control: clock of borrows"),
    (216, 8, "control: twin of the clock of borrows"),
    (256, 8, "control: changes"),
    (320, 8, "control: type of the records"),
    (328, 8, "control: type that is on disk"),
    (384, 8, "control: lock of batches"),
    (392, 8, "control: batch that was begun"),
    (400, 8, "control: batch that counts"),
    (408, 8, "control: batch that ended"),
    (416, 8, "control: epoch of the last batch"),
    (424, 8, "control: epoch of settled batches"),
    (448, 8, "control: blocks of versions"),
    (456, 8, "control: first block of this life"),
    (464, 8, "control: layout"),
    (472, 8, "control: epoch of room given back"),
    (480, 8, "control: groups of slots"),
];
const SEAT_WORDS: [&str; 8] = [
    "seat: generation",
    "seat: taken mark",
    "seat: process id, for people",
    "seat: pin",
    "seat: borrows",
    "seat: borrows",
    "seat: borrows",
    "seat: borrows",
];
const HEAD_WORDS: [&str; 25] = [
    "head: lock",
    "head: next seq",
    "head: next seq, its complement",
    "head: free list",
    "head: free slots",
    "head: never used slots",
    "head: live records",
    "head: last retired slot",
    "head: shape of the index",
    "head: mark of links",
    "head: retired slots",
    "head: damaged slots",
    "head: last epoch of a freed slot",
    "head: mark of watchers",
    "head: first retired slot",
    "head: parked slots",
    "head: changes",
    "head: reserved slots",
    "head: batch under way",
    "head: members of a batch",
    "head: deleted entries",
    "head: first parked slot",
    "head: last parked slot",
    "head: extents",
    "head: intent",
];

impl Parts {
    /// The parts of the fixture's file.
    pub(crate) fn of(file: &[u8], model: &Model) -> Self {
        let part = Part { name: "not named", id: None, is_padding: false };
        let mut parts = Self { parts: vec![part; file.len()] };
        parts.fixed(file);
        let mut extent = 0;
        while LAYOUT.extent(extent) < file.len() {
            parts.extent(file, extent, model);
            extent += 1;
        }
        parts
    }

    pub(crate) fn at(&self, byte: usize) -> Part {
        self.parts[byte]
    }

    fn name(&mut self, at: usize, bytes: usize, name: &'static str) {
        self.parts[at..at + bytes].fill(Part { name, id: None, is_padding: false });
    }

    fn padding(&mut self, at: usize, bytes: usize, name: &'static str) {
        self.parts[at..at + bytes].fill(Part { name, id: None, is_padding: true });
    }

    fn record(&mut self, at: usize, bytes: usize, name: &'static str, id: Option<u64>) {
        self.parts[at..at + bytes].fill(Part { name, id, is_padding: false });
    }

    fn fixed(&mut self, file: &[u8]) {
        for (at, name, rest) in [
            (0, "first superblock", "first superblock: rest of the page"),
            (SUPERBLOCK_B, "second superblock", "second superblock: rest of the page"),
        ] {
            self.padding(at, PAGE, rest);
            self.name(at, SUPERBLOCK_BYTES, name);
        }
        self.padding(CONTROL, PAGE, "control: rest of the page");
        for (at, bytes, name) in CONTROL_WORDS {
            self.name(CONTROL + at, bytes, name);
        }
        self.padding(SEATS, SUPERBLOCK_B - SEATS, "seats that were never taken");
        for seat in (SEATS..SUPERBLOCK_B).step_by(SEAT_BYTES).filter(|&at| word(file, at) != 0) {
            for (i, name) in SEAT_WORDS.into_iter().enumerate() {
                self.name(seat + i * 8, 8, name);
            }
        }
        self.padding(REGION_TABLE, LAYOUT.first_index(0) - REGION_TABLE, "region table: rest of the page");
        for region in 0..LAYOUT.regions {
            let head = LAYOUT.head(region);
            self.padding(head, HEAD_BYTES, "head: rest");
            for (i, name) in HEAD_WORDS.into_iter().enumerate() {
                self.name(head + i * 8, 8, name);
            }
            // Bits 0 to 37 of the shape are the table's offset in lines.
            let table = (word(file, head + 64) & ((1 << 38) - 1)) as usize * 64;
            match table == LAYOUT.first_index(region) {
                true => self.name(table, PAGE, "index: first table, in use"),
                false => self.padding(LAYOUT.first_index(region), PAGE, "index: first table, left over"),
            }
        }
    }

    fn extent(&mut self, file: &[u8], extent: usize, model: &Model) {
        let at = LAYOUT.extent(extent);
        let kind = word(file, at + 16) >> 32;
        if kind == 2 {
            self.padding(at, LAYOUT.extent_size(), "index extent: room that is not in use");
            self.name(at, EXTENT_HEADER_BYTES, "index extent: header");
            for region in 0..LAYOUT.regions {
                let shape = word(file, LAYOUT.head(region) + 64);
                let table = (shape & ((1 << 38) - 1)) as usize * 64;
                let bytes = 64 << (shape >> 38 & 31);
                if (at..at + LAYOUT.extent_size()).contains(&table) {
                    self.name(table, bytes, "index: moved table, in use");
                }
            }
            return;
        }
        assert_eq!(kind, 1, "extent {extent}");
        self.padding(at, LAYOUT.extent_size(), "data extent: between slots and links, behind links");
        self.name(at, EXTENT_HEADER_BYTES, "data extent: header");
        for i in 0..LAYOUT.slots {
            let slot = LAYOUT.slot(extent * LAYOUT.slots + i);
            self.slot(file, slot, at + LAYOUT.links_offset() + i * LINK_BYTES, model);
        }
    }

    fn slot(&mut self, file: &[u8], at: usize, link: usize, model: &Model) {
        let (seq, id, last) = (word(file, at), word(file, at + 8), word(file, at + 24));
        let len = (last & ((1 << 30) - 1)) as usize;
        let data = at + SLOT_HEADER_BYTES;
        let end = at + LAYOUT.slot_size();
        if seq == 0 {
            let is_new = (at..data).step_by(8).all(|at| word(file, at) == 0);
            let (header, links, rest) = match last >> 30 & 3 {
                _ if is_new => {
                    ("never used slot: header", "links of a never used slot", "never used slot: rest")
                }
                _ if last == PARKED => ("parked slot: header", "links of a parked slot", "parked slot: rest"),
                2 => ("free slot: header", "links of a free slot", "free slot: rest"),
                3 => ("reserved slot: header", "links of a reserved slot", "reserved slot: rest"),
                _ => panic!("slot at {at}: neither free nor a record"),
            };
            self.padding(data, end - data, rest);
            self.name(at, SLOT_HEADER_BYTES, header);
            self.padding(link, LINK_BYTES, links);
            return;
        }
        if last >> 30 & 3 == 1 {
            self.padding(data, end - data, "tombstone: rest");
            self.record(at, SLOT_HEADER_BYTES, "tombstone: header", Some(id));
            self.name(link, 8, "links of a tombstone: next");
            self.name(link + 8, 8, "links of a tombstone: epoch");
            return;
        }
        let version = seq & !(1 << 63);
        let is_live = matches!(model.get(&id), Some(Some((v, _))) if *v == version);
        if is_live {
            self.padding(data, end - data, "live: behind the data");
            self.record(at, SLOT_HEADER_BYTES, "live: header", Some(id));
            self.record(data, len, "live: data", Some(id));
            self.padding(link, LINK_BYTES, "links of a live version");
        } else {
            self.padding(data, end - data, "retired: behind the data");
            self.record(at, SLOT_HEADER_BYTES, "retired: header", Some(id));
            self.record(data, len, "retired: data", Some(id));
            self.name(link, 8, "links of a retired version: next");
            self.name(link + 8, 8, "links of a retired version: epoch");
        }
    }
}
