//! Changing one number of a record, for the owner of a region's lock.

use crate::error::Error;
use crate::format::slot::{Address, HEADER_WORDS, SlotKind};
use crate::region::Trouble;
use crate::region::find::Found;
use crate::region::head::Region;
use crate::region::write::{Content, Written};
use crate::sys::copy::copy_out;

/// The result of a change of a number.
pub(crate) enum Rewritten {
    /// The record is absent, damaged, or other than expected: nothing was changed.
    Other,
    /// The number was kept.
    Kept(u64),
    /// The number was replaced.
    Done { old: u64, new: u64, written: Written },
}

impl Region<'_> {
    /// Writes a version of a keyed record that differs only in its first 8 bytes, a number: `to` gives the next one, or `None` to keep
    /// it. The record has to be `expected` but for these bytes. One search of the index. `record`: room for the bytes, as many.
    pub(crate) fn rewrite_number(
        &self,
        (hash, id): (u64, u64),
        expected: &[u8],
        record: &mut [u8],
        lone: bool,
        to: impl FnOnce(u64) -> Result<Option<u64>, Error>,
    ) -> Result<Rewritten, Trouble> {
        let epoch = self.arena.epoch()?;
        let found = self.find(hash, id)?;
        let Found::Hit { header, slot, .. } = &found else { return Ok(Rewritten::Other) };
        let is_alike = header.len() == expected.len()
            && header.kind() == SlotKind::Record
            && header.address() == Address::Key;
        let words = self.arena.slot(*slot).and_then(|words| words.get(HEADER_WORDS..)).unwrap_or_default();
        if !is_alike || words.len() * 8 < expected.len() {
            return Ok(Rewritten::Other);
        }
        copy_out(words, record);
        let (Some((number, end)), Some((_, expected_end))) =
            (record.split_first_chunk_mut::<8>(), expected.split_first_chunk::<8>())
        else {
            return Ok(Rewritten::Other);
        };
        let old = u64::from_le_bytes(*number);
        if end != expected_end || !header.holds(record) {
            return Ok(Rewritten::Other);
        }
        let Some(new) = to(old)? else { return Ok(Rewritten::Kept(old)) };
        record[..8].copy_from_slice(&new.to_le_bytes());
        let written = self.write(hash, id, epoch, Content::Bytes(record, Address::Key), lone, found)?;
        Ok(Rewritten::Done { old, new, written })
    }
}
