//! The mapped file as typed places: heads, lines, slots, extent headers. Offsets come from the
//! geometry; whether a place lies inside the file is checked at every access.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::file::extents::Extents;
use crate::file::notice::Notice;
use crate::file::survey::{SlotState, survey};
use crate::format::control::{CONTROL, CONTROL_WORDS, Control};
use crate::format::epoch::Epoch;
use crate::format::extent::{ExtentHeader, ExtentKind, HEADER_WORDS};
use crate::format::geometry::Geometry;
use crate::format::region::{HEAD_WORDS, Head};
use crate::format::seat::{self, SEAT_WORDS, Seat};
use crate::format::slot::first_of_block;
use crate::format::word::Link;
use crate::format::{PAGE_BYTES, index};
use crate::protocol::lock::Owner;
use crate::protocol::slot::header;
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::deadline::Deadline;
use crate::sys::file;
use crate::sys::fork::ForkFile;
use crate::sys::mapping::Mapping;

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

    /// The words of a slot, header and data, or `None` if there is no such slot.
    #[inline]
    pub(crate) fn slot(&self, slot: u32) -> Option<&[AtomicU64]> {
        self.words(self.geo.slot_offset(slot), (self.geo.slot_size / 8) as usize)
    }

    /// The words of `count` slots in a row, from `first` on, all of one extent.
    pub(crate) fn slots(&self, first: u32, count: u32) -> Option<&[AtomicU64]> {
        self.words(self.geo.slot_offset(first), (u64::from(count) * self.geo.slot_size / 8) as usize)
    }

    /// The words of an index line.
    #[inline]
    pub(crate) fn line(&self, shape: &index::Shape, line: u64) -> Option<&[AtomicU64; index::LINE_WORDS]> {
        self.words(shape.line_at(line), index::LINE_WORDS)?.first_chunk()
    }

    /// The links of a slot.
    #[inline]
    pub(crate) fn link(&self, slot: u32) -> Option<Link<'_>> {
        Link::of(self.words(self.geo.link_offset(slot), 2)?)
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

    /// Whole extents in the file now.
    pub(crate) fn extent_count(&self) -> Result<u32> {
        let len = self.map.refresh(&self.file).map_err(self.io("looking at the file's length"))?;
        Ok(self.geo.extents_in(len))
    }

    /// The number of extents in the control page, or `None` if the word is damaged. A number that is higher than this handle
    /// ever saw in the file is wrong, and is counted anew. Otherwise the next opening would refuse the store as one that was cut
    /// off.
    pub(crate) fn extents_noted(&self) -> Result<Option<u64>> {
        let word = self.control().extents();
        let noted = word.load(Ordering::SeqCst);
        // In this order: growth extends the file first.
        let count = u64::from(self.extent_count()?);
        let seen = u64::from(self.geo.extents_in(self.map.len())).max(count);
        match noted {
            Some(noted) if noted > seen => {
                let in_use = u64::from(self.extents_in_use()?);
                word.store(in_use, Ordering::SeqCst);
                Ok(Some(in_use))
            }
            noted => Ok(noted),
        }
    }

    /// The kind of an extent, or `None` if its header is not valid.
    pub(crate) fn extent_kind(&self, extent: u32) -> Option<ExtentKind> {
        let words = self.words(self.geo.extent_offset(extent), HEADER_WORDS)?;
        let mut copy = [0; HEADER_WORDS];
        for (to, from) in copy.iter_mut().zip(words) {
            *to = from.load(Ordering::Acquire);
        }
        ExtentHeader::parse(&copy, self.tag, &self.geo, extent)
    }

    /// Whether an extent's header says that it holds slots of `region`. The checksum is not checked. Two loads.
    #[inline]
    pub(crate) fn says_data_of(&self, extent: u32, region: u32) -> bool {
        let Some(words) = self.words(self.geo.extent_offset(extent), HEADER_WORDS) else { return false };
        let Some([.., at_2, at_3]) = words.first_chunk::<4>() else { return false };
        ExtentHeader::says_data_of(at_2.load(Ordering::Relaxed), at_3.load(Ordering::Relaxed), extent, region)
    }

    /// Writes an extent's header, its first word last: without that word the header is not valid.
    pub(crate) fn write_extent_header(&self, extent: u32, kind: ExtentKind) -> Result<()> {
        let words = self
            .words(self.geo.extent_offset(extent), HEADER_WORDS)
            .ok_or_else(|| self.damaged(format!("extent {extent} is not in the file")))?;
        let header = ExtentHeader::new(self.tag, &self.geo, extent, kind).words();
        for (to, from) in words.iter().zip(header).rev() {
            to.store(from, Ordering::Release);
        }
        Ok(())
    }

    /// Whether an extent is unused: all zeros, or a process died while it wrote the header, whose first word is stored last.
    pub(crate) fn is_unused(&self, extent: u32) -> bool {
        let words = self.words(self.geo.extent_offset(extent), (self.geo.extent_size / 8) as usize);
        let is_zero = |words: &[AtomicU64]| words.iter().all(|word| word.load(Ordering::Relaxed) == 0);
        words.is_some_and(|words| is_zero(&words[..1]) && is_zero(&words[HEADER_WORDS..]))
    }

    /// Visits every extent in order, with its kind. The extents inside an index run are passed over. So are extents behind the
    /// noted ones, and behind one without a header, that were never written to: their number may be large if another program
    /// extended the file, whatever number is noted. Written extents behind the noted ones are visited, because the note may be
    /// damaged.
    pub(crate) fn each_extent(&self, mut visit: impl FnMut(u32, Option<ExtentKind>)) -> Result<()> {
        let count = self.extent_count()?;
        let noted = self.control().extents().load(Ordering::SeqCst).unwrap_or(0);
        let mut extent = 0;
        let mut may_be_hole = false;
        while extent < count {
            if may_be_hole || u64::from(extent) >= noted {
                // Asked before a byte is read there: on a file system in memory, reading a hole takes memory.
                let file = self.file.same().map_err(self.io("looking for extents"))?;
                let at = file::first_data(file, self.geo.extent_offset(extent));
                extent = extent.max(self.geo.extents_in(at));
                if extent >= count {
                    break;
                }
            }
            let kind = self.extent_kind(extent);
            visit(extent, kind);
            may_be_hole = kind.is_none();
            extent += match kind {
                Some(ExtentKind::Index { run }) => run,
                _ => 1,
            };
        }
        Ok(())
    }

    /// The number of extents in use: behind them all bytes are zeros.
    pub(crate) fn extents_in_use(&self) -> Result<u32> {
        let mut end = 0;
        self.each_extent(|extent, kind| {
            let words = self.words(self.geo.extent_offset(extent), (self.geo.extent_size / 8) as usize);
            end = match kind {
                Some(ExtentKind::Index { run }) => extent.saturating_add(run),
                Some(ExtentKind::Data { .. }) => extent + 1,
                None if words.is_some_and(|w| w.iter().any(|w| w.load(Ordering::Relaxed) != 0)) => extent + 1,
                None => end,
            };
        })?;
        Ok(end)
    }

    /// The region of a data extent. An extent with a damaged header belongs to the region whose slots lie in it.
    pub(crate) fn owner_of(&self, extent: u32, kind: Option<ExtentKind>) -> Option<u32> {
        match kind {
            Some(ExtentKind::Data { region }) => Some(region),
            Some(ExtentKind::Index { .. }) => None,
            None => self.region_by_slots(extent),
        }
    }

    /// The data extents of a region, in order.
    pub(crate) fn data_extents(&self, region: u32) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        self.each_extent(|extent, kind| {
            let owner = self.owner_of(extent, kind);
            if owner == Some(region) {
                found.push(extent);
            }
        })?;
        Ok(found)
    }

    /// The data extents of a region, at least as many as its head counts. Fewer are an error: the header of one is wrong.
    pub(crate) fn all_data_extents(&self, region: u32) -> Result<Vec<u32>> {
        // An extent has its header before it is counted (pairs with the Release of the count).
        let counted = self.head(region).extents().load(Ordering::Acquire).unwrap_or(0);
        let found = self.data_extents(region)?;
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
    pub(crate) fn region_by_slots(&self, extent: u32) -> Option<u32> {
        let free_in = |slot| header(self.slot(slot)?).free_in().filter(|&region| region < self.geo.regions);
        self.slots_of(extent).find_map(free_in).or_else(|| self.region_by_versions(extent))
    }

    /// The region whose whole versions lie in an extent, if any does.
    pub(crate) fn region_by_versions(&self, extent: u32) -> Option<u32> {
        let mut buffer = Vec::new();
        self.slots_of(extent).find_map(|slot| {
            let words = self.slot(slot)?;
            let header = header(words);
            let region = self.geo.region_of(self.geo.hash(header.id()));
            let state = survey(words, region, &self.geo, &mut buffer);
            matches!(state, SlotState::Version(_) | SlotState::Tombstone(_)).then_some(region)
        })
    }

    /// The slots of an extent.
    pub(crate) fn slots_of(&self, extent: u32) -> std::ops::Range<u32> {
        let first = self.geo.first_slot(extent);
        first..first.saturating_add(self.geo.slots_per_extent())
    }

    /// The slots of an extent, for a caller that will read all of them.
    pub(crate) fn slots_to_read(&self, extent: u32) -> std::ops::Range<u32> {
        self.map.will_read(self.geo.extent_offset(extent), self.geo.links_offset);
        self.slots_of(extent)
    }

    /// Whether the table of `shape` can be `region`'s: it is the region's first table, or lies in an index run and does not
    /// overlap another region's table.
    pub(crate) fn table_is_sound(&self, region: u32, shape: &index::Shape) -> bool {
        if shape.lines_log2 > index::LINES_LOG2_MAX {
            return false;
        }
        if shape.offset() == self.geo.first_index_offset(region) {
            return shape.lines_log2 == index::FIRST_LINES_LOG2;
        }
        let (from, to) = (shape.offset(), shape.offset() + shape.bytes());
        let mut inside = false;
        let walked = self.each_extent(|extent, kind| {
            if let Some(ExtentKind::Index { run }) = kind {
                let start = self.geo.extent_offset(extent);
                let end = start + u64::from(run) * self.geo.extent_size;
                inside |= from >= start + size_of::<ExtentHeader>() as u64 && to <= end;
            }
        });
        walked.is_ok()
            && inside
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
