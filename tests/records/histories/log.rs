//! What each process did and when, in a file that all of them map: it survives their deaths.
//!
//! Time is one counter that everybody raises: a call that ended before another began has the smaller number.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

use super::check::{Call, Deed};

/// Words of an entry.
const ENTRY_WORDS: usize = 8;
/// Entries of each process.
pub(crate) const ENTRIES: usize = 3000;
/// Processes that a log has room for.
pub(crate) const PROCESSES: usize = 200;

/// In an entry's words.
const BEGUN: usize = 0;
const ENDED: usize = 1;
const KIND: usize = 2;
const REGISTER: usize = 3;
const VALUE: usize = 4;
const BEFORE: usize = 5;
const MAYBE: usize = 6;

const READ: u64 = 1;
const WRITE: u64 = 2;
const DELETE: u64 = 3;
/// In the word of what was there before a write or a deletion.
const UNKNOWN: u64 = u64::MAX;

pub(crate) struct Log {
    map: MmapRaw,
}

impl Log {
    pub(crate) fn create(path: &Path) -> Self {
        let words = 1 + PROCESSES * ENTRIES * ENTRY_WORDS;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        file.set_len(8 * words as u64).unwrap();
        Self::open(path)
    }

    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        Self { map: MmapRaw::map_raw(&file).unwrap() }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.map.len() / 8);
        // SAFETY: inside of the mapping, which is aligned to a page; all processes use it as atomics.
        unsafe { &*self.map.as_ptr().cast::<AtomicU64>().add(at) }
    }

    fn entry(&self, process: usize, n: usize, word: usize) -> &AtomicU64 {
        assert!(process < PROCESSES && n < ENTRIES && word < ENTRY_WORDS);
        self.word(1 + (process * ENTRIES + n) * ENTRY_WORDS + word)
    }

    /// Now.
    pub(crate) fn now(&self) -> u64 {
        self.word(0).fetch_add(1, Ordering::SeqCst) + 1
    }

    /// All calls of a process on a register. `end`: when it died.
    pub(crate) fn calls(&self, process: usize, register: u64, end: u64) -> Vec<Call> {
        let mut calls = Vec::new();
        for n in 0..ENTRIES {
            let get = |word| self.entry(process, n, word).load(Ordering::SeqCst);
            if get(BEGUN) == 0 || get(REGISTER) != register || get(KIND) == 0 {
                continue;
            }
            let cut_off = get(ENDED) == 0 || get(MAYBE) != 0;
            let deed = match (get(KIND), get(BEFORE)) {
                (READ, _) => Deed::Read(get(VALUE)),
                (WRITE, UNKNOWN) => Deed::Write(get(VALUE)),
                (WRITE, before) => Deed::Swap(before, get(VALUE)),
                (_, before) => Deed::Delete((before != UNKNOWN).then_some(before != 0)),
            };
            let ended = if get(ENDED) == 0 { end } else { get(ENDED) };
            calls.push(Call { begun: get(BEGUN), ended, deed, cut_off, by: process as u64 });
        }
        calls
    }
}

/// A process's pen.
pub(crate) struct Pen<'a> {
    pub(crate) log: &'a Log,
    pub(crate) process: usize,
    pub(crate) used: usize,
}

/// Entries of a call that is under way.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    first: usize,
    count: usize,
}

impl Pen<'_> {
    pub(crate) fn is_full(&self) -> bool {
        self.used + 64 > ENTRIES
    }

    fn set(&self, n: usize, word: usize, value: u64) {
        self.log.entry(self.process, n, word).store(value, Ordering::SeqCst);
    }

    /// Begins a call that changes registers, each to a value or, 0, to none.
    pub(crate) fn begin(&mut self, changes: &[(u64, u64)]) -> Begun {
        let first = self.used;
        for (n, &(register, value)) in (first..).zip(changes) {
            self.set(n, KIND, if value == 0 { DELETE } else { WRITE });
            self.set(n, REGISTER, register);
            self.set(n, VALUE, value);
            self.set(n, BEFORE, UNKNOWN);
        }
        self.used += changes.len();
        let now = self.log.now();
        (first..self.used).for_each(|n| self.set(n, BEGUN, now));
        Begun { first, count: changes.len() }
    }

    /// What was there before is known, of a call of one change.
    pub(crate) fn before(&self, begun: Begun, value: u64) {
        self.set(begun.first, BEFORE, value);
    }

    pub(crate) fn end(&self, begun: Begun) {
        let now = self.log.now();
        (begun.first..begun.first + begun.count).for_each(|n| self.set(n, ENDED, now));
    }

    /// The call has ended, and each of its changes was made or was not.
    pub(crate) fn maybe(&self, begun: Begun) {
        (begun.first..begun.first + begun.count).for_each(|n| self.set(n, MAYBE, 1));
        self.end(begun);
    }

    /// The call has changed nothing, by its own word.
    pub(crate) fn undone(&self, begun: Begun) {
        (begun.first..begun.first + begun.count).for_each(|n| self.set(n, KIND, 0));
    }

    /// A register was read.
    pub(crate) fn read(&mut self, begun: u64, ended: u64, register: u64, value: u64) {
        let n = self.used;
        self.used += 1;
        for (word, value) in
            [(KIND, READ), (REGISTER, register), (VALUE, value), (ENDED, ended), (BEGUN, begun)]
        {
            self.set(n, word, value);
        }
    }
}
