//! A disk: a medium, and a cache that a loss of power empties.
//!
//! What was written since the last flush is in the cache, every state of every 512-byte sector. A
//! loss of power decides for each sector whether the medium keeps the old state or gets one of the
//! later ones, so writes are lost, reordered and torn. A flush puts the cache on the medium.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

pub(crate) const SECTOR: usize = 512;

/// The sectors of the file system's superblock. Its checksum spans two sectors and it is written in
/// place, so ext4 itself trusts that a disk doesn't tear it. So does this one not.
const NEVER_TORN: u64 = 8;

type Sector = [u8; SECTOR];

/// What a loss of power leaves of the writes since the last flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All of them: what the host's own page cache would keep.
    Nothing,
    /// None of them.
    Everything,
    /// Those before some moment.
    Latest,
    /// Any state of each sector.
    Any,
}

/// Whether the disk does what a flush asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushes {
    Honest,
    /// Says yes, and does nothing.
    Lies,
}

/// What losses of power did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lost {
    /// Sectors that were in the cache.
    pub(crate) unflushed: u64,
    /// Sectors that did not get their newest state.
    pub(crate) lost: u64,
    /// Sectors that got a state which was neither the old one nor the newest.
    pub(crate) between: u64,
}

pub(crate) struct Disk {
    medium: Vec<u8>,
    /// States of sectors since the last flush, each with the number of its write.
    cache: BTreeMap<u64, Vec<(u64, Sector)>>,
    writes: u64,
    flushes: Flushes,
}

impl Disk {
    pub(crate) fn new(medium: Vec<u8>, flushes: Flushes) -> Self {
        assert!(medium.len().is_multiple_of(SECTOR));
        Self { medium, cache: BTreeMap::new(), writes: 0, flushes }
    }

    pub(crate) fn medium(&self) -> &[u8] {
        &self.medium
    }

    /// Whether a request for this range can be answered.
    pub(crate) fn holds(&self, offset: u64, len: usize) -> bool {
        let is_whole = offset.is_multiple_of(SECTOR as u64) && len.is_multiple_of(SECTOR);
        is_whole && offset.checked_add(len as u64).is_some_and(|end| end <= self.medium.len() as u64)
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = self.medium[offset as usize..][..len].to_vec();
        let first = offset / SECTOR as u64;
        for (sector, states) in self.cache.range(first..first + (len / SECTOR) as u64) {
            let (_, newest) = states.last().expect("a sector in the cache has a state");
            bytes[(sector - first) as usize * SECTOR..][..SECTOR].copy_from_slice(newest);
        }
        bytes
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.writes += 1;
        for (sector, state) in (offset / SECTOR as u64..).zip(bytes.chunks_exact(SECTOR)) {
            let state = state.try_into().expect("a chunk is a sector");
            self.cache.entry(sector).or_default().push((self.writes, state));
        }
    }

    pub(crate) fn flush(&mut self) {
        if self.flushes == Flushes::Honest {
            for (sector, mut states) in std::mem::take(&mut self.cache) {
                let (_, newest) = states.pop().expect("a sector in the cache has a state");
                put(&mut self.medium, sector, &newest);
            }
        }
    }

    pub(crate) fn lose_power(&mut self, loss: Loss, rng: &mut StdRng) -> Lost {
        let cache = std::mem::take(&mut self.cache);
        let oldest = cache.values().filter_map(|s| s.first()).map(|s| s.0).min().unwrap_or(self.writes);
        let moment = rng.random_range(oldest..=self.writes + 1);
        let mut lost = Lost::default();
        for (sector, states) in cache {
            let before_the_moment = states.iter().filter(|(write, _)| *write < moment).count();
            let survives = match loss {
                Loss::Nothing => states.len(),
                Loss::Everything => 0,
                Loss::Latest => before_the_moment,
                Loss::Any if sector < NEVER_TORN => before_the_moment,
                Loss::Any => rng.random_range(0..=states.len()),
            };
            lost.unflushed += 1;
            lost.lost += u64::from(survives < states.len());
            lost.between += u64::from(survives > 0 && survives < states.len());
            if survives > 0 {
                put(&mut self.medium, sector, &states[survives - 1].1);
            }
        }
        lost
    }
}

fn put(medium: &mut [u8], sector: u64, state: &Sector) {
    medium[sector as usize * SECTOR..][..SECTOR].copy_from_slice(state);
}
