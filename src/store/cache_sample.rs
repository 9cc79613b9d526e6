//! Candidates that go from a cache: values at random places of the index, as Redis draws them.
//!
//! A look takes no lock, and reads only the end of a record: name, key, and the time at which the value was written. It is a hint. The
//! caller deletes the value only if its version is the one that was seen.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;

use crate::error::Result;
use crate::format::keyed;
use crate::format::slot::{Address, HEADER_WORDS, SlotKind};
use crate::protocol::index::load_line;
use crate::protocol::slot::{header, unchanged};
use crate::record::Version;
use crate::store::iter::Cursor;
use crate::store::space::Space;
use crate::sys::copy::copy_out_at;

/// Bytes of the end of a record that are read.
const END_BYTES_MAX: usize = 256;
/// Values that are compared.
const SAMPLES: usize = 5;
/// Lines of the index that are looked at for them.
const LOOKS: usize = 200;
/// Values that are compared if so many lines have too few.
const SEARCHED: usize = 64;
/// Bytes of the time behind a value.
pub(super) const TICK_BYTES: usize = 8;

/// A value that may go.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    pub(super) id: u64,
    pub(super) key: Vec<u8>,
    pub(super) version: Version,
    /// When it was written.
    pub(super) tick: u64,
}

/// The value, and the time when it was written.
pub(super) fn split_tick(value: &[u8]) -> Option<(&[u8], u64)> {
    let (value, tick) = value.split_last_chunk::<TICK_BYTES>()?;
    Some((value, u64::from_le_bytes(*tick)))
}

/// Some values of the space, if it has any. If it has few, or most records of the store are of other spaces, it is a search.
pub(super) fn sample(space: &Space<'_>) -> Result<Vec<Drawn>> {
    let mut found = Vec::with_capacity(SAMPLES);
    let random = RandomState::new();
    for n in 0..LOOKS {
        let mut hasher = random.build_hasher();
        hasher.write_usize(n);
        if let Some(candidate) = look(space, hasher.finish())
            && found.iter().all(|other: &Drawn| other.id != candidate.id)
        {
            found.push(candidate);
            if found.len() == SAMPLES {
                break;
            }
        }
    }
    if found.len() < SAMPLES { search(space) } else { Ok(found) }
}

/// A value of the space in the line of the index that a hash leads to.
fn look(space: &Space<'_>, hash: u64) -> Option<Drawn> {
    let arena = &space.store.handle.arena;
    let shape = arena.shape(arena.geo.region_of(hash));
    let line = load_line(arena.line(&shape, shape.home(hash))?);
    let entries = line.0.len() - 1;
    let first = hash as usize % entries;
    let slots = (0..entries).filter_map(|n| shape.slot(line.0[(first + n) % entries]));
    slots.take(2).find_map(|slot| {
        let words = arena.slot(slot)?;
        let header = header(words);
        let data = words.get(HEADER_WORDS..)?;
        let is_one = header.seq() != 0
            && header.kind() == SlotKind::Record
            && header.address() == Address::Key
            && header.len() <= data.len() * 8;
        if !is_one {
            return None;
        }
        let mut end = [0; END_BYTES_MAX];
        let end = &mut end[..header.len().min(END_BYTES_MAX)];
        copy_out_at(data, header.len() - end.len(), end);
        let (name, key, before) = keyed::last_of_end(end)?;
        let tick = u64::from_le_bytes(*before.last_chunk::<TICK_BYTES>()?);
        let is_ours = name == space.name.as_bytes() && unchanged(words, header);
        is_ours.then(|| Drawn {
            id: header.id(),
            key: key.to_vec(),
            version: Version(header.version()),
            tick,
        })
    })
}

/// The first values of the space.
#[cold]
fn search(space: &Space<'_>) -> Result<Vec<Drawn>> {
    let mut found = Vec::new();
    Cursor::new(Address::Key).each(space.store, |id, version, data| {
        for entry in keyed::entries(data.as_slice()).map_while(std::result::Result::ok) {
            if entry.name == space.name.as_bytes()
                && let Some((_, tick)) = split_tick(entry.value)
            {
                found.push(Drawn { id, key: entry.key.to_vec(), version, tick });
            }
        }
        if found.len() < SEARCHED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}
