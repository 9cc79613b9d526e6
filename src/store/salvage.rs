//! Salvage into a new store.

use std::collections::HashSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::file::arena::io_error;
use crate::format::geometry::Geometry;
use crate::format::keyed::{NotEntries, entries};
use crate::format::slot::Address;
use crate::record::Durability;
use crate::recovery::salvage::{read, search};
use crate::report::{Damage, Progress, SalvageReport};
use crate::store::Store;
use crate::store::copy::set_tag;
use crate::store::open;
use crate::store::options::Options;
use crate::sys::file;
use crate::sys::mapping::Mapping;

/// Copies every record with a good checksum from the file at `from` into a new store at `to`, even if all other parts of the file
/// are destroyed. `from` is only read. Of each id the newest whole version is taken, or none if the newest is a deletion. The records
/// may include a write in which its process died. They do not include members of a batch that did not count, if the words that
/// decide this can be read. The copy has the [tag](Store::typed_tagged) of the store.
///
/// The report tells the losses: damaged records by their ids, and per region the number of records that the index leads to, or the
/// head counts, and no slot holds. Questions that the file does not answer are in [`unknown`](SalvageReport::unknown).
///
/// Superblocks and extent headers give the geometry. If they contradict each other, the geometry that the most extent headers repeat
/// is used. If none is left, slots are searched for, with records of up to `record_size` bytes, or 64 KiB if that is `None`. Then
/// damaged records can't be listed.
///
/// Time: the file is read once, and the records are written. A search sums each byte once more.
///
/// If `repair` works, it is better: it knows which versions were replaced.
///
/// ```
/// # fn main() -> recstore::Result<()> {
/// # let dir = std::env::temp_dir();
/// # let wreck = dir.join(format!("recstore-wreck-{}.rec", std::process::id()));
/// # let saved = dir.join(format!("recstore-saved-{}.rec", std::process::id()));
/// let store = recstore::Store::create(&wreck)?;
/// store.put(7, b"seven")?;
/// store.close()?;
/// let report = recstore::salvage(&wreck, &saved, None)?;
/// assert_eq!(report.records, 1);
/// assert!(report.is_complete());
/// # std::fs::remove_file(wreck).unwrap();
/// # std::fs::remove_file(saved).unwrap();
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::NotFound`]; [`Error::AlreadyExists`]; [`Error::NotAStore`] if there is no slot in the
/// file; [`Error::Io`].
pub fn salvage(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    record_size: Option<usize>,
) -> Result<SalvageReport> {
    salvage_with_progress(from, to, record_size, |_| {})
}

/// [`salvage`] that says how far it is: the search is half of the work, and writing the records the other half.
///
/// ```
/// # fn main() -> recstore::Result<()> {
/// # let wreck = std::env::temp_dir().join(format!("recstore-wreck-2-{}.rec", std::process::id()));
/// # let saved = std::env::temp_dir().join(format!("recstore-saved-2-{}.rec", std::process::id()));
/// # recstore::Store::create(&wreck)?.put(7, b"seven")?;
/// let tell = |at: recstore::Progress| eprint!("\r{} %", at.done * 100 / at.total);
/// assert_eq!(recstore::salvage_with_progress(&wreck, &saved, None, tell)?.records, 1);
/// # std::fs::remove_file(wreck).unwrap();
/// # std::fs::remove_file(saved).unwrap();
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`salvage`].
pub fn salvage_with_progress(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    record_size: Option<usize>,
    mut tell: impl FnMut(Progress),
) -> Result<SalvageReport> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let file = file::open(from, false).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound { path: from.to_path_buf() },
        _ => io_error(from, "opening for reading")(e),
    })?;
    let metadata = file.metadata().map_err(io_error(from, "looking at the file"))?;
    let nothing = |why: &str| Error::NotAStore { path: from.to_path_buf(), why: why.to_owned() };
    if !metadata.is_file() || metadata.len() == 0 {
        return Err(nothing("it is empty, or not a regular file"));
    }
    let map = Mapping::of_file(&file).map_err(io_error(from, "mapping the file"))?;
    let boot = file::boot_id().map_err(io_error(from, "asking for the boot id"))?;
    let searched = |bytes| tell(Progress::of(bytes, map.len() * 2));
    let found = search(&map, record_size.map(|n| n as u64), boot.unwrap_or_default(), searched);
    let geometry = match found.geometry {
        Some(geometry) => geometry,
        None if found.records.is_empty() => return Err(nothing("it has no slot with a good checksum")),
        None => {
            let longest = found.records.iter().map(|r| r.header.len()).max().unwrap_or(0);
            let size = record_size.unwrap_or(0).max(longest).max(1) as u64;
            let drawn = file::random().map_err(io_error(to, "drawing a random number"))?;
            Geometry::new(size, None, 16, 1 << 40, drawn).map_err(|what| Error::InvalidOption { what })?
        }
    };
    let region_of = |id| found.geometry.map(|g| g.region_of(g.hash(id)));
    let saved: HashSet<u64> = found.records.iter().map(|remains| remains.header.id()).collect();
    let mut lost: Vec<Damage> = Vec::new();
    for remains in &found.lost {
        let id = remains.header.id();
        let older = if saved.contains(&id) { "; an older version of it was saved" } else { "" };
        let what = format!("its slot at offset {} fails its checksum{older}", remains.offset);
        lost.push(Damage { region: region_of(id), slot: remains.slot, id: Some(id), what });
    }
    // Another process may write to the file meanwhile, and use a found slot again.
    let mut moved = Vec::new();
    let fill = |copy: &Store| {
        set_tag(copy, found.type_tag);
        let mut data = Vec::new();
        let count = found.records.len() as u64;
        for (done, remains) in (1..).zip(&found.records) {
            tell(Progress::of(count + done, count * 2));
            if read(&map, remains, &mut data) {
                let (id, address) = (remains.header.id(), remains.header.address());
                if address == Address::Key && found.geometry.is_none() {
                    // The key of the hash is lost, so keys have other ids in the copy.
                    match put_anew(copy, id, &data) {
                        Err(
                            error @ (Error::Corrupt { .. }
                            | Error::EntryTooLong { .. }
                            | Error::InvalidOption { .. }),
                        ) => {
                            let what = format!("its keys can't be written anew: {error}");
                            lost.push(Damage { region: None, slot: remains.slot, id: Some(id), what });
                        }
                        put => put?,
                    }
                } else {
                    copy.write(id, &data, address, Durability::Process)?;
                }
            } else {
                moved.push(*remains);
            }
        }
        Ok(())
    };
    open::create_with(&Options::new(), to, &geometry, Some(fill))?;
    for remains in &moved {
        let id = remains.header.id();
        let what = format!("its slot at offset {} changed while it was saved", remains.offset);
        lost.push(Damage { region: region_of(id), slot: remains.slot, id: Some(id), what });
    }
    Ok(SalvageReport {
        records: (found.records.len() - moved.len()) as u64,
        lost,
        missing: found.missing,
        unknown: found.unknown,
        source: found.source,
    })
}

/// Puts the keys of a record under the ids that they have in another store.
fn put_anew(copy: &Store, id: u64, data: &[u8]) -> Result<()> {
    for entry in entries(data) {
        let entry = entry.map_err(|NotEntries| copy.no_entries(id))?;
        let name = std::str::from_utf8(entry.name).map_err(|_| copy.no_entries(id))?;
        copy.space_of(name).put_entry(entry, copy.handle.durability)?;
    }
    Ok(())
}
