//! Salvage into a new store.

use std::path::Path;

use crate::error::{Error, Result};
use crate::format::geometry::Geometry;
use crate::recovery::salvage::{read, search};
use crate::region::arena::io_error;
use crate::report::{Damage, SalvageReport};
use crate::store::Store;
use crate::store::open;
use crate::store::options::Options;
use crate::sys::file;
use crate::sys::mapping::Mapping;

/// Recovers every record that has a good checksum from the file at `from`, whatever else of it is
/// destroyed, into a new store at `to`. `from` is only read. Of each id the newest whole version is
/// taken, and none if the newest is a deletion.
///
/// The geometry is told by a superblock or by any extent header. Where none is left, slots are
/// searched for, with records of up to `record_size` bytes, or 64 KiB if that is `None`; damaged
/// records can't be listed then.
///
/// For what `repair` can put right, repair is better: it knows which versions were replaced.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::AlreadyExists`]; [`Error::NotAStore`] if there is no slot in the
/// file; [`Error::Io`].
pub fn salvage(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    record_size: Option<usize>,
) -> Result<SalvageReport> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let file = file::open(from, false).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound { path: from.to_path_buf() },
        _ => io_error(from, "opening for reading")(e),
    })?;
    let metadata = file.metadata().map_err(io_error(from, "looking at the file"))?;
    let nothing = |why: &str| Error::NotAStore { path: from.to_path_buf(), why: why.to_owned() };
    if !metadata.is_file() || metadata.len() == 0 {
        return Err(nothing("it is empty, or no regular file"));
    }
    let map = Mapping::of_file(&file).map_err(io_error(from, "mapping the file"))?;
    let found = search(&map, record_size.map(|n| n as u64));
    let geometry = match found.geometry {
        Some(geometry) => geometry,
        None if found.records.is_empty() => return Err(nothing("no slot with a good checksum is in it")),
        None => {
            let longest = found.records.iter().map(|r| r.len).max().unwrap_or(0);
            let size = record_size.unwrap_or(0).max(longest).max(1) as u64;
            let drawn = file::random().map_err(io_error(to, "drawing a random number"))?;
            Geometry::new(size, Geometry::default_slots_log2(size), 16, 1 << 40, drawn)
                .map_err(|what| Error::InvalidOption { what })?
        }
    };
    let fill = |copy: &Store| {
        let mut data = Vec::new();
        for remains in &found.records {
            read(&map, remains, &mut data);
            copy.put(remains.id, &data)?;
        }
        Ok(())
    };
    open::create_with(&Options::new(), to, &geometry, Some(fill))?;
    let lost = found.lost.iter().map(|d| Damage {
        region: found.geometry.map(|g| g.region_of(g.hash(d.id))),
        slot: None,
        id: Some(d.id),
        what: format!("its slot at offset {} fails its checksum", d.offset),
    });
    Ok(SalvageReport { records: found.records.len() as u64, lost: lost.collect(), source: found.source })
}
