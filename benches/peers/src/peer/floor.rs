//! The floor: what a mapping of a file can do at all. Slots are addressed by number; each has a CRC and a
//! sequence lock whose odd values exclude other writers. No index, no growth, no recovery: a bound.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use super::{Ask, Db, Session};
use crate::data::Source;

/// Words before a slot's data: sequence, CRC.
const HEADER: usize = 2;
/// Counters have slots of the same size, after the records.
const COUNTERS: u64 = crate::work::COUNTERS + 1;

pub struct Floor {
    map: MmapRaw,
    n: u64,
    slot_words: usize,
    data_words: usize,
}

pub fn open(dir: &Path, ask: Ask) -> Floor {
    let data_words = ask.size / 8;
    let slot_words = (HEADER + data_words).next_multiple_of(4);
    let bytes = (ask.n + COUNTERS) * slot_words as u64 * 8;
    let path = dir.join("slots");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    if ask.create {
        // SAFETY: the descriptor is open; the call touches no memory.
        assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) }, 0);
    }
    let map = MmapOptions::new().map_raw(&file).unwrap();
    if ask.create {
        // SAFETY: the advice changes no content of the mapping.
        unsafe { libc::madvise(map.as_mut_ptr().cast(), bytes as usize, libc::MADV_POPULATE_WRITE) };
    }
    Floor { map, n: ask.n, slot_words, data_words }
}

impl Floor {
    fn slot(&self, number: u64) -> &[AtomicU64] {
        assert!(number < self.n + COUNTERS);
        // SAFETY: inside the mapping (checked), aligned, and only ever accessed by atomics.
        unsafe {
            let at = self.map.as_ptr().cast::<AtomicU64>().add(number as usize * self.slot_words);
            std::slice::from_raw_parts(at, self.slot_words)
        }
    }

    /// Takes a slot's sequence lock; the even number before.
    fn lock(slot: &[AtomicU64]) -> u64 {
        loop {
            let seq = slot[0].load(Ordering::Relaxed);
            if seq % 2 == 0
                && slot[0].compare_exchange(seq, seq + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                fence(Ordering::Release);
                return seq;
            }
            std::hint::spin_loop();
        }
    }
}

impl Db for Floor {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(self)
    }
}

impl Session for &Floor {
    fn load(&mut self, source: &mut Source<'_>, _ascending: bool) {
        while source.fill() > 0 {
            self.put_batch(source);
        }
    }

    #[inline]
    fn get(&mut self, id: u64, out: &mut Vec<u8>) -> bool {
        let slot = self.slot(id);
        out.resize(self.data_words * 8, 0);
        loop {
            let seq = slot[0].load(Ordering::Acquire);
            if seq == 0 {
                return false;
            }
            let crc = slot[1].load(Ordering::Relaxed);
            for (to, from) in out.as_chunks_mut::<8>().0.iter_mut().zip(&slot[HEADER..]) {
                *to = from.load(Ordering::Relaxed).to_le_bytes();
            }
            fence(Ordering::Acquire);
            if seq % 2 == 0 && slot[0].load(Ordering::Relaxed) == seq {
                assert_eq!(u64::from(crc32fast::hash(out)), crc);
                return true;
            }
            std::hint::spin_loop();
        }
    }

    fn get_batch(&mut self, ids: &[u64], each: &mut dyn FnMut(u64, &[u8])) {
        let mut out = Vec::new();
        for &id in ids {
            self.get(id, &mut out);
            each(id, &out);
        }
    }

    #[inline]
    fn put(&mut self, id: u64, data: &[u8]) {
        let slot = self.slot(id);
        let crc = crc32fast::hash(data);
        let seq = Floor::lock(slot);
        for (from, to) in data.as_chunks::<8>().0.iter().zip(&slot[HEADER..]) {
            to.store(u64::from_le_bytes(*from), Ordering::Relaxed);
        }
        slot[1].store(u64::from(crc), Ordering::Relaxed);
        slot[0].store(seq + 2, Ordering::Release);
    }

    fn put_batch(&mut self, source: &Source<'_>) {
        for (id, data) in source.batch() {
            self.put(id, data);
        }
    }

    fn scan(&mut self, each: &mut dyn FnMut(&[u8])) {
        let mut out = Vec::new();
        for id in 0..self.n {
            self.get(id, &mut out);
            each(&out);
        }
    }

    fn add_one(&mut self, id: u64) {
        let slot = self.slot(id);
        let seq = Floor::lock(slot);
        let n = slot[HEADER].load(Ordering::Relaxed) + 1;
        slot[HEADER].store(n, Ordering::Relaxed);
        slot[1].store(u64::from(crc32fast::hash(&n.to_le_bytes())), Ordering::Relaxed);
        slot[0].store(seq + 2, Ordering::Release);
    }

    fn count(&mut self, id: u64) -> u64 {
        self.slot(id)[HEADER].load(Ordering::Relaxed)
    }
}
