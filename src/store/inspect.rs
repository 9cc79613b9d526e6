//! Regions and slots as they are in the file, as text for debugging.

use std::fmt::Write;

use crate::error::{Error, Result};
use crate::file::survey::{SlotState, survey};
use crate::format::extent::ExtentKind;
use crate::format::region::Losses;
use crate::format::slot as slot_format;
use crate::format::slot::{HEADER_WORDS, Header, PRESENT, SlotKind};
use crate::format::word::{Checked, ReferenceWord};
use crate::protocol::slot::{header, room};
use crate::store::Store;
use crate::store::stats::lock_owner;
use crate::sys::atomic::Ordering;
use crate::sys::copy::copy_out;

/// Bytes of a slot's data that are shown.
const SHOWN_BYTES_MAX: usize = 4096;

/// The bytes, for people.
impl Store {
    /// A region's head and slots, as text. The form is for people and may change.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// println!("{}", store.inspect_region(0)?);
    /// assert!(store.inspect_region(99).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchPlace`] if there is no such region; [`Error::Io`].
    pub fn inspect_region(&self, region: u32) -> Result<String> {
        self.handle.check()?;
        let arena = &self.handle.arena;
        if region >= arena.geo.regions {
            let what = format!("region {region}: the store has regions 0 to {}", arena.geo.regions - 1);
            return Err(Error::NoSuchPlace { path: arena.path.clone(), what });
        }
        let mut text = String::new();
        self.region_text(region, &mut text)?;
        Ok(text)
    }

    /// Writing to a string can't fail, so the result of `writeln!` is ignored.
    fn region_text(&self, region: u32, out: &mut String) -> Result<()> {
        let arena = &self.handle.arena;
        let head = arena.head(region);
        let count = |word: Checked<'_>| {
            word.load(Ordering::Relaxed).map_or_else(|| "damaged".to_owned(), |n| n.to_string())
        };
        let slot = |word: ReferenceWord<'_>| match word.load(Ordering::Relaxed).slot() {
            Ok(None) => "none".to_owned(),
            Ok(Some(slot)) => slot.to_string(),
            Err(_) => "damaged".to_owned(),
        };
        let shape = arena.shape(region);
        let lock_word = head.lock().load(Ordering::Relaxed);
        let lock = match lock_owner(&self.handle, lock_word)? {
            None => "free".to_owned(),
            Some(o) => format!(
                "seat {} generation {} process {} ({})",
                o.seat,
                o.generation,
                o.pid,
                if o.alive { "alive" } else { "dead" }
            ),
        };
        let mut lines = vec![
            format!("region {region}: head at offset {}", arena.geo.head_offset(region)),
            format!("  lock          {:#018x} {lock}", lock_word),
            format!("  next version  {}", head.next_seq().load(Ordering::Relaxed) & !PRESENT),
            format!("  records       {}", count(head.live())),
            format!("  free lists    {} slots", count(head.free_count())),
            format!(
                "  retired       first {}, last {}, {} slots; links {}",
                slot(head.retired_first()),
                slot(head.retired_last()),
                count(head.retired_count()),
                count(head.links())
            ),
            format!(
                "  index         at offset {}, 2^{} lines, {} slot bits, version {}{}, {} deleted entries",
                shape.offset(),
                shape.lines_log2,
                shape.slot_bits,
                shape.version,
                match (shape.rebuilding, shape.batch) {
                    (true, _) => ", being rebuilt",
                    (_, true) => ", in a batch",
                    _ => "",
                },
                count(head.markers())
            ),
        ];
        if !head.damaged().is_zero(Ordering::Relaxed) {
            let losses = head.damaged().load(Ordering::Relaxed).map(Losses::of);
            lines.push(losses.map_or("  damaged slots unknown".to_owned(), |losses| {
                format!("  damaged slots {}, lost records {}", losses.damaged, losses.gone)
            }));
        }
        for line in lines {
            let _ = writeln!(out, "{line}");
        }
        let mut buffer = Vec::new();
        for extent in arena.data_extents(region)? {
            let at = arena.geo.unit_offset(extent.unit);
            let size = extent.slot_size(&arena.geo);
            let _ = writeln!(
                out,
                "  extent {} at offset {at}, {} slots of {size} bytes",
                extent.unit, extent.slots
            );
            let (mut free, mut fresh) = (0, 0);
            arena.will_read(&extent);
            for (n, number) in (0..extent.slots).zip(extent.slot_numbers(&arena.geo)) {
                let Some(words) = arena.slot_in(&extent, n) else { continue };
                match survey(words, region, &arena.geo, &mut buffer) {
                    SlotState::Free => free += 1,
                    SlotState::Fresh => fresh += 1,
                    state => {
                        let _ = writeln!(out, "    slot {number}: {}", describe(&state));
                    }
                }
            }
            let _ = writeln!(out, "    {free} slots free, {fresh} never used");
        }
        Ok(())
    }

    /// A slot's header and bytes, as text. The form is for people and may change.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let first = store.extents()?[0].first_slot.unwrap_or(0);
    /// println!("{}", store.inspect_slot(first)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchPlace`] if there is no such slot; [`Error::Io`].
    pub fn inspect_slot(&self, slot: u32) -> Result<String> {
        self.handle.check()?;
        let arena = &self.handle.arena;
        let count = arena.unit_count()?;
        let place = arena.place(slot).filter(|place| place.unit < count);
        let Some((place, words)) = place.and_then(|place| Some((place, arena.slot(slot)?))) else {
            let what =
                format!("slot {slot}: the slots of the store have numbers below {}", arena.slots_end()?);
            return Err(Error::NoSuchPlace { path: arena.path.clone(), what });
        };
        let header = header(words);
        let extent = place.unit;
        let kind = arena.extent_at(extent).and_then(|extent| extent.kind);
        let region = match kind {
            Some(ExtentKind::Data { region }) => region,
            _ => arena.geo.region_of(arena.geo.hash(header.id())),
        };
        let mut buffer = Vec::new();
        let state = survey(words, region, &arena.geo, &mut buffer);
        let mut out = format!(
            "slot {slot} at offset {} in extent {extent}, {}\n  {}\n",
            arena.geo.slot_within(extent, place.within, place.slot_size),
            match kind {
                Some(ExtentKind::Data { region }) => format!("region {region}"),
                Some(ExtentKind::Index) => "which holds index tables".to_owned(),
                None => "which has no valid header".to_owned(),
            },
            describe(&state)
        );
        for (name, word) in ["seq", "id", "stamp", "len, kind, crc"].iter().zip(header.words()) {
            let _ = writeln!(out, "  {name:<14} {word:#018x}");
        }
        let len = if header.kind() == SlotKind::Free { 0 } else { header.len() };
        let shown = len.min(room(words)).min(SHOWN_BYTES_MAX);
        let mut data = vec![0; shown];
        copy_out(&words[HEADER_WORDS..], &mut data);
        for (i, row) in data.chunks(16).enumerate() {
            let hex: String = row.iter().map(|b| format!("{b:02x} ")).collect();
            let text: String =
                row.iter().map(|&b| if (0x20..0x7f).contains(&b) { char::from(b) } else { '.' }).collect();
            let _ = writeln!(out, "  {:06x}  {hex:<48} {text}", i * 16);
        }
        if shown < len {
            let _ = writeln!(out, "  ... {} bytes more", len - shown);
        }
        Ok(out)
    }
}

fn describe(state: &SlotState) -> String {
    let version = |h: &Header| {
        format!(
            "record {} ({:#x}), version {}, {} bytes, epoch {}",
            h.id(),
            h.id(),
            h.version(),
            h.len(),
            h.epoch().number()
        )
    };
    match state {
        SlotState::Free => "free".to_owned(),
        SlotState::Fresh => "never used".to_owned(),
        SlotState::Reserved(seat, generation) => {
            format!("reserved by seat {seat}, generation {generation}")
        }
        SlotState::CutOff => "a write or a scrub was cut off here".to_owned(),
        SlotState::FreeButForSeq => "free, but its seq is damaged".to_owned(),
        SlotState::Version(h) => version(h),
        SlotState::Tombstone(h) => format!("tombstone of {}", version(h)),
        SlotState::Damaged(h, what) => format!("damaged ({what}): {}", version(h)),
        SlotState::Moved => "being written".to_owned(),
    }
}

const _: () = assert!(slot_format::HEADER_WORDS == 4);
