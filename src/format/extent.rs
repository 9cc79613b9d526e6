//! The extent header: the kind of an extent, and its region.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use super::geometry::{FILE_SIZE_MAX, Geometry};

const MAGIC: u64 = u64::from_le_bytes(*b"rec-extn");

/// The `kind` of a data extent's header, and of an index run's.
const DATA: u64 = 1;
const INDEX: u32 = 2;

/// The content of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtentKind {
    /// Slots of one region.
    Data {
        /// The region.
        region: u32,
    },
    /// Index tables, in this extent and the ones after it, `run` in all.
    Index {
        /// Extents in the run.
        run: u32,
    },
}

/// An extent header's bytes. `crc` is CRC-32 (IEEE) of all bytes before it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ExtentHeader {
    magic: u64,
    store: u64,
    extent: u32,
    kind: u32,
    region_or_run: u32,
    record_size: u32,
    slots_log2: u32,
    regions: u32,
    hash_key: u64,
    reserved: [u32; 3],
    crc: u32,
}

const _: () = assert!(
    offset_of!(ExtentHeader, extent) == 16
        && offset_of!(ExtentHeader, kind) == 20
        && offset_of!(ExtentHeader, region_or_run) == 24
);

/// 8-byte words of an extent header.
pub(crate) const HEADER_WORDS: usize = size_of::<ExtentHeader>() / 8;
const _: () = assert!(size_of::<ExtentHeader>() == 64);

impl ExtentHeader {
    /// The header of `extent`. It repeats the geometry, for salvage.
    pub(crate) fn new(store: u64, geometry: &Geometry, extent: u32, kind: ExtentKind) -> Self {
        let (kind, region_or_run) = match kind {
            ExtentKind::Data { region } => (DATA as u32, region),
            ExtentKind::Index { run } => (INDEX, run),
        };
        let mut h = Self {
            magic: MAGIC,
            store,
            extent,
            kind,
            region_or_run,
            record_size: geometry.record_size,
            slots_log2: geometry.slots_log2,
            regions: geometry.regions,
            hash_key: geometry.hash_key,
            reserved: [0; 3],
            crc: 0,
        };
        h.crc = h.sum();
        h
    }

    fn sum(&self) -> u32 {
        crc32fast::hash(&bytemuck::bytes_of(self)[..size_of::<Self>() - 4])
    }

    /// The header as words, in the order in which they are stored.
    pub(crate) fn words(&self) -> [u64; HEADER_WORDS] {
        bytemuck::cast(*self)
    }

    /// The geometry that the words tell, if they are any store's extent header, and the extent's number. The
    /// ceiling of the file's size is not told: it is taken to be the highest.
    pub(crate) fn geometry(words: &[u64; HEADER_WORDS]) -> Option<(Geometry, u32)> {
        let h: Self = bytemuck::cast(*words);
        if h.magic != MAGIC || h.crc != h.sum() {
            return None;
        }
        let (record_size, key) = (u64::from(h.record_size), h.hash_key);
        let geometry = Geometry::new(record_size, h.slots_log2, h.regions, FILE_SIZE_MAX, key).ok()?;
        Some((geometry, h.extent))
    }

    /// Whether the third and the fourth word of a header say that `extent` holds slots of `region`.
    #[inline]
    pub(crate) fn says_data_of(third: u64, fourth: u64, extent: u32, region: u32) -> bool {
        third == u64::from(extent) | DATA << 32 && fourth as u32 == region
    }

    /// The kind of `extent` by these words, or `None` if they are not its header.
    pub(crate) fn parse(
        words: &[u64; HEADER_WORDS],
        store: u64,
        geometry: &Geometry,
        extent: u32,
    ) -> Option<ExtentKind> {
        let h: Self = bytemuck::cast(*words);
        if h.magic != MAGIC || h.store != store || h.extent != extent || h.crc != h.sum() {
            return None;
        }
        match h.kind {
            data if u64::from(data) == DATA && h.region_or_run < geometry.regions => {
                Some(ExtentKind::Data { region: h.region_or_run })
            }
            INDEX if h.region_or_run > 0 && h.region_or_run <= geometry.extents_max() => {
                Some(ExtentKind::Index { run: h.region_or_run })
            }
            _ => None,
        }
    }
}
