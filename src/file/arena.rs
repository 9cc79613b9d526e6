//! The mapped file as typed places: heads, lines, slots, extent headers. Offsets come from the
//! geometry; whether a place lies inside the file is checked at every access.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::file::extents::{Extents, Headers, Reached, twin_offset, uniform};
use crate::file::notice::Notice;
use crate::file::numbers::{Numbers, Spot};
use crate::file::survey::{SlotState, survey};
use crate::format::board::BOARDS;
use crate::format::control::{CONTROL, CONTROL_WORDS, Control};
use crate::format::epoch::Epoch;
use crate::format::extent::{Extent, ExtentHeader, ExtentKind, HEADER_WORDS, Location, NO_CLASS};
use crate::format::geometry::{EXTENT_HEADER_BYTES, Geometry, LINK_BYTES};
use crate::format::region::{CLASS_WORDS, ClassWords, HEAD_WORDS, Head};
use crate::format::seat::{self, SEAT_WORDS, Seat};
use crate::format::slot::{PRESENT, first_of_block};
use crate::format::word::Link;
use crate::format::{PAGE_BYTES, index};
use crate::protocol::lock::Owner;
use crate::protocol::slot::header;
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::deadline::Deadline;
use crate::sys::fork::ForkFile;
use crate::sys::mapping::Mapping;
use crate::sys::step::step;

/// The mapped file of one handle.
pub(crate) struct Arena {
    pub(crate) map: Mapping,
    pub(crate) file: ForkFile,
    pub(crate) geo: Geometry,
    pub(crate) uuid: [u8; 16],
    pub(crate) tag: u64,
    pub(crate) path: PathBuf,
    /// The path of the file, which every flush checks; `None` if the file has no name, or is a shared store's.
    pub(crate) name: Option<PathBuf>,
    /// The handle's claim of a seat; a handle for reading has none.
    pub(crate) owner: Option<Owner>,
    /// The maximum time to wait for a live owner of a lock.
    pub(crate) lock_timeout: Option<Duration>,
    /// The notice for a long wait.
    pub(crate) notice: Option<Notice>,
    /// The extents that are known to be in use. The mutex is held together with the growth byte.
    pub(crate) extents: Mutex<Extents>,
    /// If extents grow: the places of the slot numbers that the handle met.
    pub(crate) numbers: Numbers,
    /// Extents that passes over all extents came to.
    #[cfg(feature = "testing")]
    pub(crate) looks: AtomicU64,
    /// The places of boards that the handle has looked at: see `file::boards`.
    pub(crate) boards: [KnownBoard; BOARDS.len()],
}

/// The places that a handle has looked at, of one kind of board: words of the control page.
#[derive(Debug, Default)]
pub(crate) struct KnownBoard {
    pub(super) believed: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl Arena {
    /// An error of the operating system while `doing` something with the store's file.
    pub(crate) fn io(&self, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        io_error(&self.path, doing)
    }

    /// The deadline for the locks of a call that begins now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::of_call(self.lock_timeout)
    }

    /// The error for a file system that gave no room.
    pub(crate) fn no_room(&self, region: u32, bytes: u64, source: std::io::Error) -> Error {
        no_room(&self.path, region, self.geo.max_size, bytes, source)
    }

    /// The error for a file system that gave no room for blocks that the file lost.
    pub(crate) fn no_blocks(&self, bytes: u64, source: std::io::Error) -> Error {
        let why = format!(
            "the file has holes, or shares blocks with a copy, where a store may have none, and the file system gave no \
             {bytes} bytes for them: {source}; on a disk it can be read with Options::open_read_only"
        );
        Error::Full {
            path: self.path.clone(),
            region: 0,
            limit: self.geo.max_size,
            why,
            source: Some(source),
        }
    }

    /// Fails if the file lost its name: a process that opens the store by its path does not see the writes of this handle. The
    /// error says whether the file was removed or replaced.
    pub(crate) fn check_name(&self) -> Result<()> {
        let Some(name) = &self.name else { return Ok(()) };
        let metadata = self.file.same_metadata().map_err(self.io("looking at the file"))?;
        let is_another =
            || std::fs::metadata(name).is_ok_and(|now| (now.dev(), now.ino()) != self.file.identity());
        let what = if metadata.nlink() == 0 {
            "its file was removed while it was open, and is gone when its last handle closes"
        } else if is_another() {
            "another file was put in its place while it was open; its own file has another name now"
        } else {
            return Ok(());
        };
        Err(Error::Unlinked { path: self.path.clone(), what: what.to_owned() })
    }

    /// Puts the control page on disk. An error is noted there, as that of any flush: see `handle::flush`.
    pub(crate) fn flush_control(&self) -> Result<()> {
        self.map.flush(CONTROL, PAGE_BYTES).map_err(|source| self.note_failed_flush(source))
    }

    /// Notes that a flush failed: no later flush is believed. Returns the error.
    pub(crate) fn note_failed_flush(&self, source: std::io::Error) -> Error {
        let code = source.raw_os_error().filter(|&code| code > 0).unwrap_or(libc::EIO);
        self.control().flush_failed().store(code as u64, Ordering::SeqCst);
        Error::FlushFailed { path: self.path.clone(), source }
    }

    /// The first `seq` of this life of the store. A version with a lower one was written before the last recovery.
    pub(crate) fn first_of_life(&self) -> u64 {
        let life = self.control().life().load(Ordering::SeqCst);
        life.map_or(u64::MAX, first_of_block) // Damaged: as if all versions were older.
    }

    /// Damage of something that is not a record.
    pub(crate) fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Damaged { path: self.path.clone(), what: what.into() }
    }

    /// Words of the parts before the first extent, which are in every file that opens.
    #[inline]
    pub(crate) fn fixed(&self, offset: u64, count: usize) -> &[AtomicU64] {
        self.map.words(offset, count).expect("open refuses files that end before the first extent")
    }

    /// A seat, whose number is less than [`seat::SEATS`].
    #[inline]
    pub(crate) fn seat(&self, number: u32) -> Seat<'_> {
        Seat::of(self.fixed(seat::offset(number), SEAT_WORDS)).expect("so many words are a seat")
    }

    /// A region's head.
    #[inline]
    pub(crate) fn head(&self, region: u32) -> Head<'_> {
        Head::of(self.fixed(self.geo.head_offset(region), HEAD_WORDS)).expect("so many words are a head")
    }

    /// The words of a region for a class of slots.
    #[inline]
    pub(crate) fn class(&self, region: u32, class: u32) -> ClassWords<'_> {
        if !self.geo.grows {
            return self.head(region).class();
        }
        let class = class.min(self.geo.classes - 1);
        let words = self.fixed(self.geo.class_offset(region, class), CLASS_WORDS);
        ClassWords::of(words).expect("so many words are those of a class")
    }

    /// The control page.
    #[inline]
    pub(crate) fn control(&self) -> Control<'_> {
        Control::of(self.fixed(CONTROL, CONTROL_WORDS)).expect("so many words are a control page")
    }

    /// Words anywhere in the file, or `None` outside it.
    #[inline]
    pub(crate) fn words(&self, offset: u64, count: usize) -> Option<&[AtomicU64]> {
        match self.map.words(offset, count) {
            Some(words) => Some(words),
            None => self.words_after_growth(offset, count),
        }
    }

    #[cold]
    fn words_after_growth(&self, offset: u64, count: usize) -> Option<&[AtomicU64]> {
        self.map.refresh(&self.file).ok()?;
        self.map.words(offset, count)
    }

    /// Offset, bytes and class of a slot, or `None` if no extent has such a slot.
    #[inline(always)]
    pub(crate) fn find(&self, slot: u32) -> Option<Spot> {
        if self.geo.grows {
            match self.numbers.find(slot) {
                Some(spot) => Some(spot),
                None => self.learn(slot),
            }
        } else {
            let (unit, within) = self.geo.uniform_place(slot);
            let slot_size = self.geo.slot_size;
            Some(Spot { offset: self.geo.slot_within(unit, within, slot_size), slot_size, class: 0 })
        }
    }

    /// A slot of an extent that the handle has not met yet: behind those that it met, or in a gap between them.
    #[cold]
    fn learn(&self, slot: u32) -> Option<Spot> {
        let _learning = self.numbers.learn();
        self.learn_all().ok()?;
        if self.numbers.find(slot).is_none() {
            for gap in self.numbers.gaps() {
                self.learn_gap(&gap);
            }
        }
        self.keep_layout_learning().ok()?;
        self.numbers.find(slot)
    }

    /// Whether the layout of the file is still the one that the notes had: see [`Numbers`]. For a reader that has read a slot.
    #[inline]
    pub(crate) fn has_layout(&self, layout: u64) -> bool {
        fence(Ordering::Acquire); // Pairs with the Release fences of `publish` and `scrub`: the change of the layout came before.
        self.control().layout().load(Ordering::Relaxed) == layout || self.is_still(layout)
    }

    #[cold]
    fn is_still(&self, layout: u64) -> bool {
        self.look_again().is_ok() && self.numbers.layout() == layout
    }

    /// Makes every handle look at the headers again. Returns the layout before, and the one now. The caller holds the growth lock, or
    /// the whole store.
    pub(crate) fn change_layout(&self) -> [u64; 2] {
        // No two of these values are near each other, so a flipped bit makes none of them another.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let word = self.control().layout();
        let was = word.load(Ordering::SeqCst);
        let now = was.wrapping_add(STEP);
        word.store(now, Ordering::SeqCst);
        step("grow: layout changed");
        [was, now]
    }

    /// Whether an extent was not given back since it was found. For a reader without a lock that has read its slots. If no header told
    /// the extent, none was given back.
    pub(crate) fn still_has(&self, extent: &Extent) -> bool {
        fence(Ordering::Acquire); // As in `has_layout`.
        let is_told = |told: Option<Extent>| told == Some(*extent);
        extent.kind.is_none()
            || is_told(self.extent_at(extent.unit))
            || is_told(self.headers().twin_of(extent))
    }

    /// Makes the notes those of the layout of the file. For the owner of a region's lock.
    #[inline]
    pub(crate) fn keep_layout(&self) -> Result<()> {
        if self.control().layout().load(Ordering::Acquire) == self.numbers.layout() {
            return Ok(());
        }
        self.look_again()
    }

    #[cold]
    fn look_again(&self) -> Result<()> {
        let _learning = self.numbers.learn();
        self.keep_layout_learning()
    }

    /// The same, for a thread that excludes others that note extents.
    fn keep_layout_learning(&self) -> Result<()> {
        loop {
            let layout = self.control().layout().load(Ordering::SeqCst);
            if layout == self.numbers.layout() {
                return Ok(());
            }
            let notes = Numbers::new(&self.geo, layout);
            if self.geo.grows {
                let count = self.unit_count()?;
                self.learn_up_to(&notes, count);
            }
            step("layout: headers looked at");
            if self.control().layout().load(Ordering::SeqCst) == layout {
                self.numbers.replace(notes, layout);
            }
        }
    }

    /// Notes an extent that this handle has added.
    pub(crate) fn note_added(&self, extent: &Extent) {
        if self.geo.grows {
            let _learning = self.numbers.learn();
            self.numbers.note(&self.geo, extent);
        }
    }

    /// Meets the extents that were put into a gap since the handle passed it.
    fn learn_gap(&self, gap: &Extent) {
        let mut passed = Reached { unit: gap.unit, group: gap.group, has_strays: false };
        while let Some(extent) = self.headers().next(passed, gap.end()).filter(|extent| extent.kind.is_some())
        {
            self.numbers.note(&self.geo, &extent);
            passed = passed.with(&extent, &self.geo);
        }
    }

    /// The place of a slot in its extent, or `None` if no extent has such a slot.
    pub(crate) fn place(&self, slot: u32) -> Option<Location> {
        let slot_size = self.find(slot)?.slot_size;
        if self.geo.grows {
            return self.numbers.place(&self.geo, slot);
        }
        let (unit, within) = self.geo.uniform_place(slot);
        Some(Location { unit, run: 1, slots: 1 << self.geo.slots_log2, slot_size, within })
    }

    /// Meets all extents of the file. What follows the last header is not passed: an extent may be on its way. A number leads only
    /// to extents that are noted, unless the note is damaged. So units behind these are read only if they were written.
    fn learn_all(&self) -> Result<()> {
        let count = self.unit_count()?;
        let noted = self.control().units().load(Ordering::SeqCst).and_then(|noted| u32::try_from(noted).ok());
        let passed = self.learn_up_to(&self.numbers, noted.map_or(count, |noted| noted.min(count)));
        if passed.unit < count && self.headers().first_written(passed.unit) < count {
            self.learn_up_to(&self.numbers, count);
        }
        Ok(())
    }

    fn learn_up_to(&self, notes: &Numbers, end: u32) -> Reached {
        let mut passed = notes.passed();
        while let Some(extent) = self.headers().next(passed, end) {
            if extent.kind.is_none() && extent.end() == end {
                break;
            }
            let guess = self.guessed(extent, false);
            if extent.kind.is_none() && guess.kind.is_some() {
                continue; // It has a header by now.
            }
            passed = passed.with(&extent, &self.geo);
            if guess.class == NO_CLASS {
                notes.note_gap(&guess);
            }
            notes.note(&self.geo, &guess);
            notes.pass(passed);
        }
        passed
    }

    /// A gap between headers as the extent that its slots show, if they show one.
    fn guessed(&self, extent: Extent, is_last: bool) -> Extent {
        if extent.class != NO_CLASS || self.is_unused(&extent) {
            return extent;
        }
        let headers = self.headers();
        let mut all = headers.may_have_been(extent, is_last);
        let guess = all.find(|guess| self.region_by_slots(guess).is_some()).unwrap_or(extent);
        // A growth may have added an extent meanwhile. Its header is stored before any of its slots.
        fence(Ordering::Acquire);
        let told =
            self.extent_at(extent.unit).filter(|told| told.end() <= extent.end() && told.kind.is_some());
        told.unwrap_or(guess)
    }

    /// Looks at all headers anew. The handle may have met one that was wrong.
    pub(crate) fn meet_again(&self) -> Result<()> {
        if self.geo.grows {
            let _learning = self.numbers.learn();
            self.each_extent(|extent| self.numbers.note(&self.geo, extent))?;
            self.learn_all()?;
            self.keep_layout_learning()?;
        }
        Ok(())
    }

    /// A number above those of all slots.
    pub(crate) fn slots_end(&self) -> Result<u64> {
        if !self.geo.grows {
            return Ok(u64::from(self.unit_count()?) << self.geo.slots_log2);
        }
        let _learning = self.numbers.learn();
        self.learn_all()?;
        self.keep_layout_learning()?;
        Ok(u64::from(self.numbers.end()) << self.geo.slots_log2)
    }

    /// File offset of a slot, or `None` if no extent has such a slot.
    #[inline]
    pub(crate) fn slot_offset(&self, slot: u32) -> Option<u64> {
        self.find(slot).map(|spot| spot.offset)
    }

    /// The words of a slot, header and data, or `None` if there is no such slot.
    #[inline(always)]
    pub(crate) fn slot(&self, slot: u32) -> Option<&[AtomicU64]> {
        let Spot { offset, slot_size, .. } = self.find(slot)?;
        self.words(offset, (slot_size / 8) as usize)
    }

    /// The words of a slot, and its class.
    #[inline(always)]
    pub(crate) fn slot_and_class(&self, slot: u32) -> Option<(&[AtomicU64], u32)> {
        let Spot { offset, slot_size, class } = self.find(slot)?;
        Some((self.words(offset, (slot_size / 8) as usize)?, class))
    }

    /// The words of `count` slots in a row of an extent, from the one that is `within` on.
    pub(crate) fn slots_in(&self, extent: &Extent, within: u32, count: u32) -> Option<&[AtomicU64]> {
        let bytes = u64::from(count) * extent.slot_size(&self.geo);
        self.words(extent.slot_at(&self.geo, within), (bytes / 8) as usize)
    }

    /// The words of a slot by its place in an extent.
    pub(crate) fn slot_in(&self, extent: &Extent, within: u32) -> Option<&[AtomicU64]> {
        if extent.class == NO_CLASS { None } else { self.slots_in(extent, within, 1) }
    }

    /// The words of an index line.
    #[inline]
    pub(crate) fn line(&self, shape: &index::Shape, line: u64) -> Option<&[AtomicU64; index::LINE_WORDS]> {
        self.words(shape.line_at(line), index::LINE_WORDS)?.first_chunk()
    }

    /// The links of a slot.
    #[inline]
    pub(crate) fn link(&self, slot: u32) -> Option<Link<'_>> {
        let Location { unit, slots, slot_size, within, .. } = self.place(slot)?;
        let links = self.geo.unit_offset(unit) + self.geo.links_offset(u64::from(slots), slot_size);
        Link::of(self.words(links + u64::from(within) * LINK_BYTES, 2)?)
    }

    /// The current epoch.
    #[inline]
    pub(crate) fn epoch(&self) -> Result<Epoch> {
        self.control()
            .epoch()
            .load(Ordering::SeqCst)
            .ok_or_else(|| self.damaged("the epoch in the control page"))
    }

    /// The durable epoch: everything up to it is on disk. If the stored one is damaged, or not below the current epoch, nothing
    /// is taken to be on disk until the next flush.
    #[inline]
    pub(crate) fn durable(&self) -> Result<Epoch> {
        let durable = self.control().durable().load(Ordering::SeqCst);
        // In this order: a flush raises the epoch first.
        let epoch = self.epoch()?;
        match durable {
            Some(durable) if durable < epoch => Ok(durable),
            _ => Ok(Epoch::BEFORE),
        }
    }

    /// Whole units in the file now.
    pub(crate) fn unit_count(&self) -> Result<u32> {
        let len = self.map.refresh(&self.file).map_err(self.io("looking at the file's length"))?;
        Ok(self.geo.units_in(len))
    }

    /// The number of units in the control page, or `None` if the word is damaged. A number that is higher than this handle
    /// ever saw in the file is wrong, and is counted anew. Otherwise the next opening would refuse the store as one that was cut
    /// off.
    pub(crate) fn units_noted(&self) -> Result<Option<u64>> {
        let word = self.control().units();
        let noted = word.load(Ordering::SeqCst);
        // In this order: growth extends the file first.
        let count = u64::from(self.unit_count()?);
        let seen = u64::from(self.geo.units_in(self.map.len())).max(count);
        match noted {
            Some(noted) if noted > seen => {
                let in_use = u64::from(self.units_in_use()?);
                word.store(in_use, Ordering::SeqCst);
                Ok(Some(in_use))
            }
            noted => Ok(noted),
        }
    }

    /// The headers of the extents.
    pub(crate) fn headers(&self) -> Headers<'_> {
        Headers { map: &self.map, geo: &self.geo, tag: self.tag, file: self.file.same().ok() }
    }

    /// The extent whose header lies at the beginning of a unit, if a valid one does.
    pub(crate) fn extent_at(&self, unit: u32) -> Option<Extent> {
        self.words(self.geo.unit_offset(unit), HEADER_WORDS)?; // Looks at the file's length if need be.
        let told = self.headers().at(unit);
        // Which numbers are possible depends on the length, too.
        let given_back = || self.control().given_back().load(Ordering::Relaxed) != Some(Epoch::BEFORE);
        if told.is_none() && self.geo.grows && given_back() {
            self.unit_count().ok()?;
            return self.headers().at(unit);
        }
        told
    }

    /// Whether the header of an extent says that it holds slots of `region`. The checksum is not checked. Two loads.
    #[inline]
    pub(crate) fn says_data_of(&self, unit: u32, region: u32) -> bool {
        let Some(words) = self.words(self.geo.unit_offset(unit), HEADER_WORDS) else { return false };
        let Some([.., at_2, at_3]) = words.first_chunk::<4>() else { return false };
        ExtentHeader::says_data_of(at_2.load(Ordering::Relaxed), at_3.load(Ordering::Relaxed), unit, region)
    }

    /// Writes an extent's header, its first word last: without that word the header is not valid. Then its copy, if it has one.
    pub(crate) fn write_extent_header(&self, extent: &Extent, kind: ExtentKind) -> Result<()> {
        let header = ExtentHeader::new(self.tag, &self.geo, extent, kind);
        let write = |offset: u64, header: ExtentHeader| {
            let words = self
                .words(offset, HEADER_WORDS)
                .ok_or_else(|| self.damaged(format!("extent {} is not in the file", extent.unit)))?;
            for (to, from) in words.iter().zip(header.words()).rev() {
                to.store(from, Ordering::Release);
            }
            Ok(())
        };
        write(self.geo.unit_offset(extent.unit), header)?;
        if let Some(twin) = twin_offset(&self.geo, extent, kind) {
            step("grow: the copy of the header not yet written");
            write(twin, header.twin())?;
        }
        Ok(())
    }

    /// Whether the header of an extent, and its copy, are as they should be.
    pub(crate) fn headers_hold(&self, extent: &Extent) -> bool {
        let twin = extent.kind.and_then(|kind| twin_offset(&self.geo, extent, kind));
        let unit = twin.map(|twin| self.geo.units_in(twin + EXTENT_HEADER_BYTES));
        self.extent_at(extent.unit) == Some(*extent)
            && unit.is_none_or(|unit| self.headers().twin_before(unit) == Some(*extent))
    }

    /// Whether an extent is unused: all zeros, but for headers that a process died in, whose first word is stored last. Room that was
    /// given back may lie before such a header.
    pub(crate) fn is_unused(&self, extent: &Extent) -> bool {
        let range = extent.range(&self.geo);
        let words = self.words(range.start, ((range.end - range.start) / 8) as usize);
        let is_zero = |words: &[AtomicU64]| words.iter().all(|word| word.load(Ordering::Relaxed) == 0);
        let is_unused_unit = |unit: &[AtomicU64]| {
            let header_of_slot = unit[HEADER_WORDS / 2].load(Ordering::Relaxed);
            is_zero(&unit[..1]) && header_of_slot & PRESENT == 0 && is_zero(&unit[HEADER_WORDS..])
        };
        // Room that was given back is a hole. It is not read: that would take memory.
        let is_hole = || self.headers().first_written(extent.unit) >= extent.end();
        words.is_some_and(|words| {
            is_zero(&words[..1])
                && (is_hole() || words.chunks((self.geo.unit / 8) as usize).all(is_unused_unit))
        })
    }

    /// Clears what is left of headers that a process died in, in an extent that is unused.
    pub(crate) fn clear_half_headers(&self, extent: &Extent) {
        let mut unit = self.headers().first_written(extent.unit);
        while unit < extent.end() {
            let words = self.words(self.geo.unit_offset(unit), HEADER_WORDS).unwrap_or_default();
            let is_set = |word: &&AtomicU64| word.load(Ordering::Relaxed) != 0;
            words.iter().filter(is_set).for_each(|word| word.store(0, Ordering::Relaxed));
            unit = self.headers().first_written(unit + 1);
        }
    }

    /// Visits every extent in order. One without a kind has no valid header. Units are passed over behind the noted ones, and behind
    /// an extent without a header, if they were never written to: their number may be large if another program extended the file,
    /// whatever number is noted. Written units behind the noted ones are visited, because the note may be damaged.
    pub(crate) fn each_extent(&self, visit: impl FnMut(&Extent)) -> Result<()> {
        self.each_extent_from(Reached::default(), visit).map(drop)
    }

    /// The same for the extents behind those that were passed. Returns the place behind the last one that has a header.
    pub(crate) fn each_extent_from(&self, from: Reached, mut visit: impl FnMut(&Extent)) -> Result<Reached> {
        let count = self.unit_count()?;
        let headers = self.headers();
        let noted = self.control().units().load(Ordering::SeqCst).unwrap_or(0);
        let noted = u32::try_from(noted).unwrap_or(u32::MAX).min(count);
        let (mut passed, mut told) = (from, from);
        let mut may_be_hole = false;
        while passed.unit < count {
            if may_be_hole || passed.unit >= noted {
                passed.unit = headers.first_written(passed.unit);
                if passed.unit >= count {
                    break;
                }
            }
            let Some(mut extent) = headers.next(passed, count) else { break };
            self.count_look();
            may_be_hole = extent.kind.is_none();
            if may_be_hole && self.geo.grows && (extent.unit + 1..extent.end()).contains(&noted) {
                // Nothing was in use behind the noted units when the number was noted.
                extent.run = noted - extent.unit;
                // An extent has no more groups than units, so the other numbers are those of what lies behind it.
                extent.slots = extent.slots.min(self.geo.slots_of_groups(extent.run));
            }
            let is_last = extent.end() >= noted;
            let guess = self.guessed(extent, is_last);
            passed = passed.with(if guess.kind.is_some() { &guess } else { &extent }, &self.geo);
            if guess.kind.is_some() {
                told = passed;
            }
            visit(&guess);
        }
        Ok(told)
    }

    /// Counts an extent that a pass over all extents comes to, for tests.
    #[inline(always)]
    fn count_look(&self) {
        #[cfg(feature = "testing")]
        self.looks.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of units in use: behind them all bytes are zeros.
    pub(crate) fn units_in_use(&self) -> Result<u32> {
        let mut end = 0;
        self.each_extent(|extent| {
            let range = extent.range(&self.geo);
            let words = || self.words(range.start, ((range.end - range.start) / 8) as usize);
            let is_hole = || self.headers().first_written(extent.unit) >= extent.end();
            let is_written =
                || !is_hole() && words().is_some_and(|w| w.iter().any(|w| w.load(Ordering::Relaxed) != 0));
            if extent.kind.is_some() || is_written() {
                end = extent.end();
            }
        })?;
        Ok(end)
    }

    /// The group of slot numbers behind those of all extents.
    pub(crate) fn groups_in_use(&self) -> Result<u32> {
        let mut end = 0;
        self.each_extent(|extent| end = end.max(extent.end_group(&self.geo)))?;
        Ok(end)
    }

    /// The region of a data extent. An extent with a damaged header belongs to the region whose slots lie in it.
    pub(crate) fn owner_of(&self, extent: &Extent) -> Option<u32> {
        match extent.kind {
            Some(ExtentKind::Data { region }) => Some(region),
            Some(ExtentKind::Index) => None,
            None => self.region_by_slots(extent),
        }
    }

    /// The data extents of a region, in order.
    pub(crate) fn data_extents(&self, region: u32) -> Result<Vec<Extent>> {
        let mut found = Vec::new();
        self.each_extent(|extent| {
            if self.owner_of(extent) == Some(region) {
                found.push(*extent);
            }
        })?;
        Ok(found)
    }

    /// The data extents of a region, at least as many as its head counts. Fewer are an error: the header of one is wrong. A pass over all
    /// regions asks [`ByRegion`](crate::file::by_region::ByRegion).
    pub(crate) fn all_data_extents(&self, region: u32) -> Result<Vec<Extent>> {
        // An extent has its header before it is counted (pairs with the Release of the count).
        let count = || self.head(region).extents().load(Ordering::Acquire).unwrap_or(0);
        let layout = || self.control().layout().load(Ordering::Acquire);
        let (found, counted) = loop {
            let (before, counted) = (layout(), count());
            let found = self.data_extents(region)?;
            // Some may have been given back meanwhile, and others added.
            if found.len() as u64 >= counted || count() == counted && layout() == before {
                break (found, counted);
            }
        };
        if (found.len() as u64) < counted {
            let what = format!(
                "region {region} has {} of its {counted} extents of records: run `recstore repair`",
                found.len()
            );
            return Err(self.damaged(what));
        }
        Ok(found)
    }

    /// The region whose slots lie in an extent, if any slot tells: a whole version by its id, a free slot
    /// by its stamp.
    pub(crate) fn region_by_slots(&self, extent: &Extent) -> Option<u32> {
        let free_in =
            |n| header(self.slot_in(extent, n)?).free_in().filter(|&region| region < self.geo.regions);
        (0..extent.slots).find_map(free_in).or_else(|| self.region_by_versions(extent))
    }

    /// Whether a free slot or a whole version of the region lies at a place of an extent.
    pub(crate) fn holds_slot_of(&self, extent: &Extent, within: u32, region: u32) -> bool {
        let Some(words) = self.slot_in(extent, within) else { return false };
        let state = survey(words, region, &self.geo, &mut Vec::new());
        matches!(state, SlotState::Version(_) | SlotState::Tombstone(_))
            || header(words).free_in() == Some(region)
    }

    /// The region whose whole versions lie in an extent, if any does.
    pub(crate) fn region_by_versions(&self, extent: &Extent) -> Option<u32> {
        let mut buffer = Vec::new();
        (0..extent.slots).find_map(|n| {
            let words = self.slot_in(extent, n)?;
            let header = header(words);
            let region = self.geo.region_of(self.geo.hash(header.id()));
            let state = survey(words, region, &self.geo, &mut buffer);
            matches!(state, SlotState::Version(_) | SlotState::Tombstone(_)).then_some(region)
        })
    }

    /// Whether something shows that a data extent lies at, or ends with, a unit inside of an index extent.
    pub(crate) fn hides_slots(&self, unit: u32) -> bool {
        if self.extent_at(unit).is_some_and(|extent| extent.region().is_some()) {
            return true;
        }
        if self.geo.grows {
            return self.headers().twin_before(unit + 1).is_some_and(|twin| twin.region().is_some());
        }
        self.region_by_slots(&uniform(&self.geo, unit)).is_some()
    }

    /// Makes the kernel begin to read the slots of an extent, for a caller that will read all of them. A short extent is not worth the
    /// call.
    pub(crate) fn will_read(&self, extent: &Extent) {
        const SHORT: u64 = 4 * PAGE_BYTES;
        let bytes = extent.filled_bytes(&self.geo);
        if bytes > SHORT {
            self.map.will_read(self.geo.unit_offset(extent.unit), bytes);
        }
    }

    /// Whether the table of `shape` can be `region`'s: it is the region's first table, or lies in an index run and does not
    /// overlap another region's table, or a board.
    pub(crate) fn table_is_sound(&self, region: u32, shape: &index::Shape) -> bool {
        if shape.lines_log2 > index::LINES_LOG2_MAX {
            return false;
        }
        if shape.offset() == self.geo.first_index_offset(region) {
            return shape.lines_log2 == index::FIRST_LINES_LOG2;
        }
        let (from, to) = (shape.offset(), shape.offset() + shape.bytes());
        let mut inside = false;
        let walked = self.each_extent(|extent| {
            if extent.kind == Some(ExtentKind::Index) {
                let range = extent.range(&self.geo);
                inside |= from >= range.start + EXTENT_HEADER_BYTES && to <= range.end;
            }
        });
        walked.is_ok()
            && inside
            && !self.has_board_in(&(from..to))
            && self.words(to - 8, 1).is_some()
            && (0..self.geo.regions).filter(|&r| r != region).all(|r| {
                let other = self.shape(r);
                other.offset() + other.bytes() <= from || to <= other.offset()
            })
    }

    /// A region's shape as it is now.
    #[inline]
    pub(crate) fn shape(&self, region: u32) -> index::Shape {
        self.head(region).shape().load(Ordering::Acquire)
    }
}

/// An error of the operating system while `doing` something with the file at `path`.
pub(crate) fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { path: path.to_path_buf(), doing, source }
}

/// The error for a file system that gave a store no room for `bytes` bytes.
pub(crate) fn no_room(path: &Path, region: u32, limit: u64, bytes: u64, source: std::io::Error) -> Error {
    let why = if source.kind() == std::io::ErrorKind::FileTooLarge {
        source.to_string()
    } else {
        let room =
            fs2::available_space(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(path));
        let room = room.map_or_else(|_| "unknown".to_owned(), |bytes| bytes.to_string());
        format!("the file system gave no {bytes} bytes: {source}; available: {room}")
    };
    Error::Full { path: path.to_path_buf(), region, limit, why, source: Some(source) }
}
