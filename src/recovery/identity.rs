//! The geometry of a file whose parts contradict each other. Two superblocks and every extent header give a geometry.
//!
//! A superblock with a good checksum may be another store's, or forged. The superblock with which the most extent headers agree
//! is believed: each header repeats the geometry, and lies where that geometry puts it.

use crate::format::PAGE_BYTES;
use crate::format::extent::{ExtentHeader, HEADER_WORDS};
use crate::format::geometry::{Geometry, SUPERBLOCK_B};
use crate::format::superblock::{SUPERBLOCK_BYTES, Superblock, store_tag};
use crate::sys::copy::copy_out;
use crate::sys::mapping::Mapping;

/// The part of a file that gives its geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToldBy {
    /// The first superblock.
    First,
    /// The second superblock.
    Second,
    /// An extent header, at this offset.
    Extent(u64),
}

/// A geometry, and the part of the file that gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// The geometry.
    pub(crate) geometry: Geometry,
    /// The part that gives it.
    pub(crate) witness: ToldBy,
    /// The number that ties extent headers to the store.
    pub(crate) tag: u64,
    /// Extent headers that agree.
    pub(crate) agreeing: u64,
    /// Whether both superblocks hold and contradict each other.
    pub(crate) is_disputed: bool,
}

impl Identity {
    /// The part that gives the geometry, in words.
    pub(crate) fn source(&self) -> String {
        let what = match self.witness {
            ToldBy::First => "the first superblock tells the geometry".to_owned(),
            ToldBy::Second => "the second superblock tells the geometry".to_owned(),
            ToldBy::Extent(at) => format!("the extent header at offset {at} tells the geometry"),
        };
        if self.is_disputed {
            format!(
                "the superblocks contradict each other; {what}, and {} extent headers agree",
                self.agreeing
            )
        } else {
            what
        }
    }
}

/// The geometry of a file for which there is the most evidence. One look at each extent header. If no header agrees with a
/// superblock, one look at the first bytes of each page of the file.
pub(crate) fn identify(map: &Mapping) -> Option<Identity> {
    let mut told: Vec<(Geometry, u64, ToldBy)> = Vec::new();
    for (witness, at) in [(ToldBy::First, 0), (ToldBy::Second, SUPERBLOCK_B)] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let Some(words) = map.words(at, SUPERBLOCK_BYTES / 8) else { continue };
        copy_out(words, &mut bytes);
        if let Ok((geometry, uuid)) = Superblock::parse(&bytes) {
            told.push((geometry, store_tag(&uuid), witness));
        }
    }
    let is_disputed = matches!(told[..], [(a, ..), (b, ..)] if a != b);
    if let Some(best) = most_agreed(map, &told, is_disputed).filter(|best| best.agreeing != 0) {
        return Some(best);
    }
    let by_headers = told_by_headers(map);
    most_agreed(map, &by_headers, false)
        .filter(|best| best.agreeing != 0)
        .or_else(|| most_agreed(map, &told, is_disputed))
}

/// The first geometry with which the most extent headers agree.
fn most_agreed(map: &Mapping, told: &[(Geometry, u64, ToldBy)], is_disputed: bool) -> Option<Identity> {
    let mut best: Option<Identity> = None;
    for &(geometry, tag, witness) in told {
        let agreeing = agreeing(map, &geometry);
        if best.is_none_or(|best| best.agreeing < agreeing) {
            best = Some(Identity { geometry, witness, tag, agreeing, is_disputed });
        }
    }
    best
}

/// Extent headers that lie where a geometry puts them, and repeat it.
fn agreeing(map: &Mapping, geometry: &Geometry) -> u64 {
    let agrees = |&unit: &u32| {
        header_at(map, geometry.unit_offset(unit))
            .is_some_and(|(told, number, _)| number == unit && is_same(&told, geometry))
    };
    (0..units_begun(map, geometry)).filter(agrees).count() as u64
}

/// The number of units of which the file has at least the beginning.
pub(crate) fn units_begun(map: &Mapping, geometry: &Geometry) -> u32 {
    geometry.units_in(map.len()).saturating_add(1).min(geometry.units_max())
}

/// Whether two geometries are the same, apart from the ceiling of the file's size, which no extent header repeats.
fn is_same(a: &Geometry, b: &Geometry) -> bool {
    Geometry { max_size: 0, ..*a } == Geometry { max_size: 0, ..*b }
}

/// The extent header at an offset, if there is one: its geometry, the number of its extent, and the number that ties it to its store.
fn header_at(map: &Mapping, offset: u64) -> Option<(Geometry, u32, u64)> {
    let mut bytes = [0; HEADER_WORDS * 8];
    copy_out(map.words(offset, HEADER_WORDS)?, &mut bytes);
    let words = bytemuck::cast(bytes);
    ExtentHeader::geometry(&words).map(|(geometry, unit)| (geometry, unit, ExtentHeader::store(&words)))
}

/// The geometries of extent headers that lie where their geometry puts them: the first few different ones.
fn told_by_headers(map: &Mapping) -> Vec<(Geometry, u64, ToldBy)> {
    const DIFFERENT_MAX: usize = 8;
    let mut told: Vec<(Geometry, u64, ToldBy)> = Vec::new();
    for offset in (0..map.len()).step_by(PAGE_BYTES as usize) {
        if let Some((geometry, unit, tag)) = header_at(map, offset)
            && unit < geometry.units_max()
            && geometry.unit_offset(unit) == offset
            && !told.iter().any(|(known, known_tag, _)| is_same(known, &geometry) && *known_tag == tag)
        {
            told.push((geometry, tag, ToldBy::Extent(offset)));
            if told.len() == DIFFERENT_MAX {
                break;
            }
        }
    }
    told
}
