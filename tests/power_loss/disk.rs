//! What the disk may hold: per sector, every state that the page cache has had since the last flush.
//!
//! The kernel writes a page back whenever it likes, so each sector is at any one of its states since
//! the flush, whatever the others are at. The file has any of the lengths that it has had.

use std::collections::BTreeMap;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// Bytes that a disk writes as one.
pub(crate) const SECTOR: usize = 512;
const WORDS: usize = SECTOR / 8;

/// The content of a sector.
pub(crate) type Sector = Rc<[u8; SECTOR]>;

/// What is known of the disk, and the page cache above it.
#[derive(Clone)]
pub(crate) struct Disk {
    /// What the last flush left. Beyond its end: zeros.
    base: Vec<u8>,
    /// Sectors that changed since, with their later states: distinct, oldest first.
    states: BTreeMap<usize, Vec<Sector>>,
    /// Lengths since; the first is the base's.
    lens: Vec<usize>,
    /// The page cache: what a process sees.
    now: Vec<u8>,
    /// From the beginning of the flush under way, if one is.
    flushing: Option<Box<Disk>>,
}

/// What a sector is at in an image. States count from 0, the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    State(usize),
    /// Caught while it was changed: the words of the mask from one state, the others from another.
    Torn(usize, usize, u64),
    /// Never reached the disk: zeros.
    Zero,
    /// Never reached the disk: what was there before, which is anything.
    Trash(u64),
    /// The newest state with a few words of garbage.
    Spots(u64),
}

/// One way in which the machine may come back: a length, and what is at the sectors that changed.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) len: usize,
    pub(crate) picks: Vec<(usize, Pick)>,
}

impl Image {
    /// Whether some of it is other than anything that was ever written.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.picks.iter().any(|(_, p)| matches!(p, Pick::Zero | Pick::Trash(_) | Pick::Spots(_)))
    }
}

impl Disk {
    /// A disk with these bytes, all of them flushed.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            lens: vec![bytes.len()],
            base: bytes.clone(),
            states: BTreeMap::new(),
            now: bytes,
            flushing: None,
        }
    }

    /// The page cache changed. Gives the sectors that have a state which they had not had.
    pub(crate) fn change(&mut self, len: usize, changes: &[(usize, Sector)]) -> Vec<usize> {
        if let Some(disk) = &mut self.flushing {
            disk.change(len, changes);
        }
        if !self.lens.contains(&len) {
            self.lens.push(len);
        }
        self.now.resize(len, 0);
        let mut fresh = Vec::new();
        for (sector, content) in changes {
            self.now[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(&content[..]);
            if self.base_of(*sector) == **content {
                continue;
            }
            let states = self.states.entry(*sector).or_default();
            if !states.contains(content) {
                states.push(content.clone());
                fresh.push(*sector);
            }
        }
        fresh
    }

    /// What the page cache holds of these sectors is on disk, and how long the file is.
    pub(crate) fn flush_some(&mut self, sectors: std::ops::Range<usize>) {
        if let Some(disk) = &mut self.flushing {
            disk.flush_some(sectors.clone());
        }
        self.base.resize(self.now.len().max(self.base.len()), 0);
        self.lens = vec![self.now.len()];
        for sector in sectors {
            let bytes = sector * SECTOR..(sector + 1) * SECTOR;
            if let (Some(to), Some(from)) = (self.base.get_mut(bytes.clone()), self.now.get(bytes)) {
                to.copy_from_slice(from);
                self.states.remove(&sector);
            }
        }
    }

    /// A flush begins: what the page cache holds now is on disk when it ends.
    pub(crate) fn flush_begins(&mut self) {
        self.flushing = Some(Box::new(Self::new(self.now.clone())));
    }

    pub(crate) fn flush_ends(&mut self) {
        if let Some(disk) = self.flushing.take() {
            *self = *disk;
        }
    }

    /// The flush under way came to nothing, or whoever waited for it died. The page cache is as it is.
    pub(crate) fn flush_fails(&mut self) {
        self.flushing = None;
    }

    pub(crate) fn now(&self) -> &[u8] {
        &self.now
    }

    pub(crate) fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// The sectors that changed since the last flush, each with the number of its newest state.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.states.iter().map(|(&sector, states)| (sector, states.len()))
    }

    /// Whether the sector held nothing at the last flush.
    pub(crate) fn was_empty(&self, sector: usize) -> bool {
        self.base_of(sector) == [0; SECTOR]
    }

    fn base_of(&self, sector: usize) -> [u8; SECTOR] {
        let at = sector * SECTOR;
        self.base.get(at..at + SECTOR).map_or([0; SECTOR], |s| s.try_into().unwrap())
    }

    fn state(&self, sector: usize, state: usize) -> [u8; SECTOR] {
        match state {
            0 => self.base_of(sector),
            n => *self.states[&sector][n - 1],
        }
    }

    fn content(&self, sector: usize, pick: Pick) -> [u8; SECTOR] {
        match pick {
            Pick::State(n) => self.state(sector, n),
            Pick::Torn(a, b, mask) => {
                let (mut out, other) = (self.state(sector, a), self.state(sector, b));
                for word in (0..WORDS).filter(|w| mask >> w & 1 == 1) {
                    out[word * 8..word * 8 + 8].copy_from_slice(&other[word * 8..word * 8 + 8]);
                }
                out
            }
            Pick::Zero => [0; SECTOR],
            Pick::Trash(seed) => {
                let mut out = [0; SECTOR];
                StdRng::seed_from_u64(seed).fill_bytes(&mut out);
                out
            }
            Pick::Spots(seed) => {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut out = self.state(sector, self.states.get(&sector).map_or(0, Vec::len));
                for _ in 0..rng.random_range(1..4) {
                    let word = rng.random_range(0..WORDS) * 8;
                    out[word..word + 8].copy_from_slice(&rng.next_u64().to_le_bytes());
                }
                out
            }
        }
    }

    /// The bytes of an image.
    pub(crate) fn bytes(&self, image: &Image) -> Vec<u8> {
        let mut bytes = self.base.clone();
        bytes.resize(image.len, 0);
        for &(sector, pick) in &image.picks {
            if let Some(place) = bytes.get_mut(sector * SECTOR..(sector + 1) * SECTOR) {
                place.copy_from_slice(&self.content(sector, pick));
            }
        }
        bytes
    }
}
