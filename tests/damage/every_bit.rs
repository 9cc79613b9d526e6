//! Every single bit of a small store's file is flipped in turn: what comes out is the right data or an error
//! that names the damage. Never wrong data, a panic, a hang, a crash, or harm to a neighbour; and `verify`
//! names the bit, or it is harmless.
//!
//! What must hold of each bit stands in `every_bit/probe.rs`, what is in the file in `every_bit/fixture.rs`. How
//! many bits of each part of a sample end how is known exactly: a table. The sample of a release build is all bits of the
//! headers of versions, and one in 29 of the others (padding: 223); that of a debug build is a fifth as large. With
//! `RECSTORE_LONG=1` all are flipped (`--release`, or it takes an hour).
//!
//! Fails when: any of the rules is broken by a bit; a bit that `verify` named is not named any more, or the
//! other way round. If the format has changed, the table that is printed is the new one, after a look at what is
//! different and why.

mod fixture;
mod parts;
mod probe;
mod table;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use crate::common;
use fixture::Fixture;
use parts::{Part, Parts};
use probe::{Bench, Outcome};

/// One in so many bits is taken in an ordinary run: of [`WHOLE`], of what means something, and of what never does. Primes,
/// so that they come to every place of every word.
const STRIDES: [usize; 3] = [1, 29, 223];
/// The same of a part of that run.
const STRIDES_OF_PART: [usize; 3] = [7, 113, 887];
/// Parts of which most bits are taken: what they say of a version, others say of the one that it replaced.
const WHOLE: [&str; 3] = ["live: header", "retired: header", "tombstone: header"];
/// Failures that are kept, to be shown.
const FAILURES_MAX: usize = 40;

/// How many bits of each part ended how.
type Counts = BTreeMap<&'static str, [u32; 3]>;

/// A directory in memory, if there is one: each flip writes the whole file.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("recstore-test-").tempdir_in(dir).expect("a directory")
}

struct Run<'a> {
    fixture: &'a Fixture,
    parts: &'a Parts,
    bits: &'a [usize],
    next: AtomicUsize,
    counts: Mutex<Counts>,
    failures: Mutex<Vec<String>>,
}

impl Run<'_> {
    /// Flips one bit after the other, until there are no more.
    fn work(&self, path: PathBuf, began: &Sender<(usize, usize)>, number: usize) {
        let mut bench = Bench::new(self.fixture, path.clone());
        while let Some(&bit) = self.bits.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            began.send((number, bit)).expect("the test listens");
            let part = self.parts.at(bit / 8);
            match catch_unwind(AssertUnwindSafe(|| bench.flip(bit, part))) {
                Ok(outcome) => self.count(part, outcome),
                Err(panic) => {
                    self.fail(bit, part, &*panic);
                    bench = Bench::new(self.fixture, path.clone());
                }
            }
        }
    }

    fn count(&self, part: Part, outcome: Outcome) {
        let mut counts = self.counts.lock().expect("no panic");
        counts.entry(part.name).or_default()[outcome as usize] += 1;
    }

    fn fail(&self, bit: usize, part: Part, panic: &(dyn std::any::Any + Send)) {
        let what = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref().copied());
        let mut failures = self.failures.lock().expect("no panic");
        failures.push(format!(
            "bit {} of byte {} ({}): {}",
            bit % 8,
            bit / 8,
            part.name,
            what.unwrap_or("?")
        ));
        if failures.len() >= FAILURES_MAX {
            self.next.store(self.bits.len(), Ordering::Relaxed);
        }
    }
}

/// Flips the bits in several threads, each with a file of its own. A bit that takes a minute hangs.
fn flip_all(fixture: &Fixture, parts: &Parts, bits: &[usize], dir: &Path) -> Counts {
    let run = Run {
        fixture,
        parts,
        bits,
        next: AtomicUsize::new(0),
        counts: Mutex::default(),
        failures: Mutex::default(),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        let (began, beginnings) = channel();
        for number in 0..threads {
            let (run, began, path) = (&run, began.clone(), dir.join(number.to_string()));
            scope.spawn(move || run.work(path, &began, number));
        }
        drop(began);
        let mut last = vec![None; threads];
        loop {
            match beginnings.recv_timeout(common::PATIENCE) {
                Ok((number, bit)) => last[number] = Some(bit),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // The threads can't be stopped from outside.
                    eprintln!("one of these bits hangs: {last:?}");
                    std::process::abort();
                }
            }
        }
    });
    let failures = run.failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{} bits:\n{}", failures.len(), failures.join("\n"));
    run.counts.into_inner().expect("no panic")
}

#[test]
fn every_flipped_bit_is_named_or_harmless() {
    let dir = scratch();
    let fixture = fixture::build(&dir.path().join("good"));
    let parts = Parts::of(&fixture.file, &fixture.model);
    let is_long = common::number_from_env("RECSTORE_LONG").is_some();
    let strides = if common::is_whole_search() { STRIDES } else { STRIDES_OF_PART };
    let is_chosen = |bit: &usize| {
        let part = parts.at(bit / 8);
        let kind = if WHOLE.contains(&part.name) { 0 } else { 1 + usize::from(part.is_padding) };
        is_long || bit.is_multiple_of(strides[kind])
    };
    let bits: Vec<usize> = (0..fixture.file.len() * 8).filter(is_chosen).collect();
    println!("{} of {} bits", bits.len(), fixture.file.len() * 8);
    let counts = flip_all(&fixture, &parts, &bits, dir.path());
    table::compare(&counts, is_long);
}
