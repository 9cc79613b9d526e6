//! The mapped file of the model: one region or two, a few slots of 16 bytes in each, and two places for an index table of
//! one line. The same words for all threads, as one mapping is for all processes; each handle is an
//! `Arena` of its own, with its own seat.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::control::{Control, SeenThrough, empty_control};
use crate::format::epoch::Epoch;
use crate::format::extent::{Extent, ExtentKind, Location};
use crate::format::geometry::Geometry;
use crate::format::region::{ClassWords, Head, empty_head};
use crate::format::slot::HEADER_WORDS;
use crate::format::word::{Link, Reference};
use crate::format::{index, seat};
use crate::protocol::bell::Bells;
use crate::protocol::lock::Owner;
use crate::protocol::trail::{self, Trail};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::file_lock::Kernel;

/// Capacity of a record of the models.
pub(crate) const RECORD_BYTES: usize = 16;
/// Places for an index table of each region.
const TABLES: u64 = 2;

/// All words of the file.
pub(crate) struct Words {
    heads: Vec<Vec<AtomicU64>>,
    tables: Vec<Vec<AtomicU64>>,
    /// Of each region.
    slots: Vec<Vec<Vec<AtomicU64>>>,
    links: Vec<Vec<Vec<AtomicU64>>>,
    control: Vec<AtomicU64>,
    seats: Vec<Vec<AtomicU64>>,
    bells: Vec<AtomicU64>,
    /// Of each region, with two entries.
    trails: Vec<Vec<AtomicU64>>,
}

/// One handle's view.
#[derive(Clone)]
pub(crate) struct Arena {
    words: Arc<Words>,
    pub(crate) file: Kernel,
    pub(crate) map: Mapping,
    pub(crate) geo: Geometry,
    pub(crate) path: PathBuf,
    pub(crate) owner: Option<Owner>,
    pub(crate) numbers: Numbers,
}

/// In the models no extent is given back, so the layout stays.
#[derive(Clone)]
pub(crate) struct Numbers;

impl Numbers {
    pub(crate) fn layout(&self) -> u64 {
        0
    }
}

/// Asked for pages and lines; there are none.
#[derive(Clone)]
pub(crate) struct Mapping;

impl Mapping {
    pub(crate) fn prefetch(&self, _offset: u64) {}
}

fn words(values: impl IntoIterator<Item = u64>) -> Vec<AtomicU64> {
    values.into_iter().map(AtomicU64::new).collect()
}

fn head_of(words: &[AtomicU64]) -> Head<'_> {
    Head::of(words).unwrap()
}

fn control_of(words: &[AtomicU64]) -> Control<'_> {
    Control::of(words).unwrap()
}

impl Arena {
    /// An empty store with `slots` fresh slots, seen by a handle without a seat.
    pub(crate) fn new(slots: u32) -> Self {
        Self::of_regions(1, slots)
    }

    /// The same with several regions, each with so many slots.
    pub(crate) fn of_regions(regions: u32, slots: u32) -> Self {
        let slots_log2 = slots.next_power_of_two().ilog2();
        let geo = Geometry::new(RECORD_BYTES as u64, Some(slots_log2), regions, 1 << 30, 0).unwrap();
        let shape = |region| Self::shape_of(&geo, u64::from(region) * TABLES, 1, regions << slots_log2);
        let heads: Vec<_> = (0..regions).map(|region| words(*empty_head(shape(region)).words())).collect();
        for (region, head) in (0..).zip(&heads) {
            let fresh = Reference::to(geo.first_of_group(region));
            head_of(head).class().fresh.store(fresh, Ordering::Relaxed);
        }
        let seats = (0..seat::SEATS).map(|_| words([0; seat::SEAT_WORDS])).collect();
        let seen = SeenThrough { boot: [0; 2], mount: 0, file: 0 };
        let tables = (0..regions).flat_map(|region| {
            let first = index::Line::empty(shape(region).seed(region, 0)).words();
            std::iter::once(words(first)).chain((1..TABLES).map(|_| words([0; index::LINE_WORDS])))
        });
        let of_each = |len: usize| -> Vec<Vec<Vec<AtomicU64>>> {
            (0..regions).map(|_| (0..slots).map(|_| words(std::iter::repeat_n(0, len))).collect()).collect()
        };
        let all = Words {
            heads,
            tables: tables.collect(),
            slots: of_each(HEADER_WORDS + RECORD_BYTES / 8),
            links: of_each(2),
            control: words(empty_control(&seen)),
            seats,
            bells: words([0]),
            trails: (0..regions).map(|_| words([0; trail::HEAD_WORDS + 2 * trail::ENTRY_WORDS])).collect(),
        };
        // Loom lets a SeqCst load see the value that a word was made with for ever; what is stored
        // as SeqCst it knows to be older than a later SeqCst store.
        let locks = all.heads.iter().map(|head| head_of(head).lock());
        let control = control_of(&all.control);
        let hints = [control.moments(), control.borrowed(), control.changes()];
        for word in all.seats.iter().flatten().chain(locks).chain(hints).chain(&all.bells) {
            word.store(word.load(Ordering::Relaxed), Ordering::SeqCst);
        }
        control.epoch().store(Epoch::FIRST.next(), Ordering::SeqCst);
        control.durable().store(Epoch::FIRST, Ordering::SeqCst);
        control.version_blocks().store(1, Ordering::SeqCst);
        for number in control.batch_numbers().into_iter().chain(control.clocks()) {
            number.store(0, Ordering::SeqCst);
        }
        for epoch in [control.batched(), control.settled()] {
            epoch.store(Epoch::BEFORE, Ordering::SeqCst);
        }
        Self {
            words: Arc::new(all),
            file: Kernel::new(),
            map: Mapping,
            geo,
            path: PathBuf::from("model"),
            owner: None,
            numbers: Numbers,
        }
    }

    /// The same store, seen by the next handle that attaches.
    pub(crate) fn attach(&self, handle: u32) -> Self {
        let mut attached = Self { file: self.file.opened_by(handle), ..self.clone() };
        attached.owner = Some(crate::file::seat::claim(&attached).unwrap());
        attached
    }

    /// The shape of the table in place `table`.
    fn shape_of(geo: &Geometry, table: u64, version: u32, slots: u32) -> index::Shape {
        index::Shape {
            line_offset: geo.first_index_offset(0) / index::LINE_BYTES + table,
            lines_log2: 0,
            slot_bits: index::Shape::slot_bits_for(u64::from(slots)),
            version,
            rebuilding: false,
            batch: false,
        }
    }

    pub(crate) fn seat(&self, number: u32) -> seat::Seat<'_> {
        seat::Seat::of(&self.words.seats[number as usize]).unwrap()
    }

    /// The model's file is its own disk.
    pub(crate) fn flush_control(&self) -> Result<()> {
        Ok(())
    }

    pub(crate) fn head(&self, region: u32) -> Head<'_> {
        head_of(&self.words.heads[region as usize])
    }

    pub(crate) fn control(&self) -> Control<'_> {
        control_of(&self.words.control)
    }

    /// All records have one bell, and their tags differ.
    pub(crate) fn bells(&self) -> Option<Bells<'_>> {
        Bells::of(&self.words.bells)
    }

    pub(crate) fn withdraw_trails(&self) {}

    pub(crate) fn trail(&self, region: u32) -> Option<Trail<'_>> {
        Trail::of(&self.words.trails[region as usize])
    }

    pub(crate) fn slot(&self, slot: u32) -> Option<&[AtomicU64]> {
        self.of_slot(&self.words.slots, slot)
    }

    /// A region has one extent, with its number.
    fn of_slot<'a>(&self, all: &'a [Vec<Vec<AtomicU64>>], slot: u32) -> Option<&'a [AtomicU64]> {
        let (extent, within) = self.geo.uniform_place(slot);
        let words = all.get(extent as usize)?.get(within as usize)?;
        Some(&words[..])
    }

    pub(crate) fn line(&self, shape: &index::Shape, line: u64) -> Option<&[AtomicU64; index::LINE_WORDS]> {
        let first = self.geo.first_index_offset(0);
        let table = (shape.line_at(line).checked_sub(first)?) / index::LINE_BYTES;
        self.words.tables.get(table as usize)?.first_chunk()
    }

    pub(crate) fn link(&self, slot: u32) -> Option<Link<'_>> {
        Link::of(self.of_slot(&self.words.links, slot)?)
    }

    pub(crate) fn epoch(&self) -> Result<Epoch> {
        self.control().epoch().load(Ordering::SeqCst).ok_or_else(|| self.damaged("the epoch"))
    }

    pub(crate) fn durable(&self) -> Result<Epoch> {
        self.control().durable().load(Ordering::SeqCst).ok_or_else(|| self.damaged("the durable epoch"))
    }

    pub(crate) fn class(&self, region: u32, _class: u32) -> ClassWords<'_> {
        self.head(region).class()
    }

    pub(crate) fn slot_and_class(&self, slot: u32) -> Option<(&[AtomicU64], u32)> {
        Some((self.slot(slot)?, 0))
    }

    pub(crate) fn slots_end(&self) -> Result<u64> {
        Ok(u64::from(self.geo.regions) << self.geo.slots_log2)
    }

    pub(crate) fn has_layout(&self, _layout: u64) -> bool {
        true
    }

    pub(crate) fn still_has(&self, _extent: &Extent) -> bool {
        true
    }

    pub(crate) fn meet_again(&self) -> Result<()> {
        Ok(())
    }

    pub(crate) fn place(&self, slot: u32) -> Option<Location> {
        let (unit, within) = self.geo.uniform_place(slot);
        let slots = self.words.slots.get(unit as usize)?.len() as u32;
        Some(Location { unit, run: 1, slots, slot_size: self.geo.slot_size, within })
    }

    pub(crate) fn slot_offset(&self, slot: u32) -> Option<u64> {
        self.place(slot).map(|place| self.geo.slot_within(place.unit, place.within, place.slot_size))
    }

    pub(crate) fn extent_at(&self, extent: u32) -> Option<Extent> {
        let slots = self.words.slots.get(extent as usize)?.len() as u32;
        let kind = Some(ExtentKind::Data { region: extent });
        Some(Extent { unit: extent, run: 1, group: extent, kind, slots, class: 0, is_stray: false })
    }

    pub(crate) fn says_data_of(&self, extent: u32, region: u32) -> bool {
        extent == region
    }

    pub(crate) fn data_extents(&self, region: u32) -> Result<Vec<Extent>> {
        Ok(self.extent_at(region).into_iter().collect())
    }

    pub(crate) fn all_data_extents(&self, region: u32) -> Result<Vec<Extent>> {
        self.data_extents(region)
    }

    pub(crate) fn slot_in(&self, extent: &Extent, within: u32) -> Option<&[AtomicU64]> {
        Some(&self.words.slots.get(extent.unit as usize)?.get(within as usize)?[..])
    }

    pub(crate) fn will_read(&self, _extent: &Extent) {}

    pub(crate) fn table_is_sound(&self, _region: u32, shape: &index::Shape) -> bool {
        shape.lines_log2 == 0 && self.line(shape, 0).is_some()
    }

    pub(crate) fn shape(&self, number: u32) -> index::Shape {
        self.head(number).shape().load(Ordering::Acquire)
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Damaged { path: self.path.clone(), what: what.into() }
    }

    pub(crate) fn io(&self, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = self.path.clone();
        move |source| Error::Io { path, doing, source }
    }

    /// The line that the table in use has not: where a moved table goes.
    pub(crate) fn other_table(&self, shape: &index::Shape) -> u64 {
        let first = self.geo.first_index_offset(0) / index::LINE_BYTES;
        let place = shape.line_offset - first;
        first + place / TABLES * TABLES + (place + 1) % TABLES
    }
}
