//! The words of a store's file, behind the store's back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recstore::{Options, Store};
use tempfile::TempDir;

use crate::layout::{CONTROL, Layout};

pub(crate) const LAYOUT: Layout = Layout { record_size: 64, regions: 2, slots: 64 };
/// The region that lies.
pub(crate) const REGION: usize = 1;
pub(crate) const PRESENT: u64 = 1 << 63;
pub(crate) const MAX_48: u64 = (1 << 48) - 1;

/// Offsets in a region's head.
pub(crate) mod head {
    pub(crate) const LOCK: usize = 0;
    pub(crate) const NEXT_SEQ: usize = 8;
    pub(crate) const NEXT_SEQ_CHECK: usize = 16;
    pub(crate) const FREE: usize = 24;
    pub(crate) const FREE_COUNT: usize = 32;
    pub(crate) const FRESH: usize = 40;
    pub(crate) const LIVE: usize = 48;
    pub(crate) const RETIRED_LAST: usize = 56;
    pub(crate) const RETIRED_COUNT: usize = 80;
    pub(crate) const RETIRED_FIRST: usize = 112;
    pub(crate) const PARKED_COUNT: usize = 120;
    pub(crate) const PARKED_FIRST: usize = 168;
    pub(crate) const PARKED_LAST: usize = 176;
    pub(crate) const EXTENTS: usize = 184;
    pub(crate) const INTENT: usize = 192;
}

/// A store of two regions in memory, with a lock time-out, and its file.
pub(crate) struct Lied {
    pub(crate) store: Store,
    pub(crate) path: PathBuf,
    file: File,
    dir: TempDir,
}

pub(crate) fn options() -> Options {
    let shape = Store::options().record_size(LAYOUT.record_size).regions(LAYOUT.regions as u32);
    shape.slots_per_extent(LAYOUT.slots as u32).lock_timeout(Some(Duration::from_secs(10)))
}

impl Lied {
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let within = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("recstore-test-").tempdir_in(within).expect("a directory");
        let path = dir.path().join("store");
        let store = options().create(&path).expect("a store");
        let file = File::options().read(true).write(true).open(&path).expect("its file");
        Self { store, path, file, dir }
    }

    /// Ids of the region that lies, from `first` on.
    pub(crate) fn ids(&self, first: u64, count: usize) -> Vec<u64> {
        (first..).filter(|&id| self.store.region_of(id) == REGION as u32).take(count).collect()
    }

    pub(crate) fn get(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, at as u64).expect("a word");
        u64::from_le_bytes(word)
    }

    pub(crate) fn set(&self, at: usize, word: u64) {
        self.file.write_all_at(&word.to_le_bytes(), at as u64).expect("a word");
    }

    pub(crate) fn flip(&self, at: usize, bit: u32) {
        self.set(at, self.get(at) ^ 1 << bit);
    }

    /// A word of the head of the region that lies.
    pub(crate) fn head(&self, word: usize) -> usize {
        LAYOUT.head(REGION) + word
    }

    /// Leaves the region as the owner of a batch does that is killed: the next owner rebuilds the region.
    pub(crate) fn kill_writer(&self) {
        self.set(self.head(head::INTENT), 1 | !1 << 48);
        self.set(self.head(head::LOCK), lock_word(900, 5));
    }

    /// Closes the store; the file stays as long as the directory.
    pub(crate) fn close(self) -> (PathBuf, TempDir) {
        self.store.close().expect("closed");
        (self.path, self.dir)
    }

    /// What the file holds, as a crash of the system leaves it: in a copy of its own, opened.
    pub(crate) fn after_a_crash(&self) -> Store {
        let copy = self.path.with_extension("crashed");
        std::fs::copy(&self.path, &copy).expect("a copy");
        let file = File::options().write(true).open(&copy).expect("the copy");
        file.write_all_at(&[0xaa; 16], CONTROL as u64 + 64).expect("another boot");
        options().open(&copy).expect("a store after a crash")
    }

    /// Slots on the free list of the region, the first first.
    pub(crate) fn free_slots(&self) -> Vec<usize> {
        let mut found = Vec::new();
        let mut next = self.get(self.head(head::FREE)) & MAX_48;
        while next != 0 {
            found.push(next as usize - 1);
            next = self.get(LAYOUT.slot(next as usize - 1) + 8) & MAX_48;
        }
        found
    }

    /// Slots in the retired queue of the region, the first first.
    pub(crate) fn retired_slots(&self) -> Vec<usize> {
        let mut found = Vec::new();
        let mut next = self.get(self.head(head::RETIRED_FIRST)) & MAX_48;
        while next != 0 {
            found.push(next as usize - 1);
            next = self.get(link(next as usize - 1)) & MAX_48;
        }
        found
    }

    /// The slot of a version.
    pub(crate) fn slot_of(&self, id: u64, version: u64) -> usize {
        let extents =
            (self.file.metadata().expect("its length").len() as usize - LAYOUT.base()) / LAYOUT.extent_size();
        let is_it = |&slot: &usize| {
            let at = LAYOUT.slot(slot);
            self.get(at) == PRESENT | version && self.get(at + 8) == id
        };
        (0..extents * LAYOUT.slots).find(is_it).expect("the version's slot")
    }
}

/// Where the links of a slot are.
pub(crate) fn link(slot: usize) -> usize {
    LAYOUT.extent(slot / LAYOUT.slots) + LAYOUT.links_offset() + slot % LAYOUT.slots * 16
}

/// A checked word.
pub(crate) fn checked(number: u64) -> u64 {
    let n = number & MAX_48;
    n | (!(n ^ n >> 16 ^ n >> 32) & 0xffff) << 48
}

/// The lock word of a claim of a seat.
pub(crate) fn lock_word(seat: u64, generation: u64) -> u64 {
    generation << 32 | crate::layout::hash(generation << 32 | seat, 0x5eed) >> 44 << 12 | (seat + 1) << 1
}

/// Fails if a call takes a minute: it hangs. The thread can't be stopped from outside.
pub(crate) fn in_time<T: Send>(what: &str, call: impl FnOnce() -> T + Send) -> T {
    let (done, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
                ended.recv_timeout(Duration::from_secs(60))
            {
                eprintln!("hangs: {what}");
                std::process::abort();
            }
        });
        let result = call();
        drop(done);
        result
    })
}
