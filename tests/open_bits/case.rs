//! A flipped bit, and what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Commit, Error, Options, RepairReport, Store, testing};
use tempfile::TempDir;

use crate::common::{End, in_fork, scratch, wait_for};
use crate::disk;
use crate::layout::CONTROL;
use crate::words::{LAYOUT, place};

/// What a record is, or absent.
type State = Option<Vec<u8>>;

const IDS: u64 = 60;
const SECTOR: usize = 512;

pub(crate) struct Case {
    rng: StdRng,
    dir: TempDir,
    path: PathBuf,
    file: File,
    bit: u64,
    /// What a record may be now: more than one state after a call that failed, or a death.
    now: BTreeMap<u64, BTreeSet<State>>,
    /// What it may be after a crash of the system: all that it was since the last flush.
    since: BTreeMap<u64, BTreeSet<State>>,
    /// All that was ever written to it.
    written: BTreeMap<u64, BTreeSet<State>>,
    /// An error or a report said that records may be gone, so an older version may stand in, or none.
    told: bool,
    next: u64,
}

fn options() -> Options {
    Options::new()
        .record_size(LAYOUT.record_size)
        .regions(LAYOUT.regions as u32)
        .slots_per_extent(LAYOUT.slots as u32)
        .max_size(4 << 20)
        .lock_timeout(Some(Duration::from_millis(200)))
}

impl Case {
    pub(crate) fn new(seed: u64, bit: u64) -> Self {
        let dir = scratch();
        let path = dir.path().join("store");
        disk::begin(&path);
        drop(options().create(&path).expect("a store"));
        let file = File::options().read(true).write(true).open(&path).expect("its file");
        Self {
            rng: StdRng::seed_from_u64(seed),
            dir,
            path,
            file,
            bit,
            now: BTreeMap::new(),
            since: BTreeMap::new(),
            written: BTreeMap::new(),
            told: false,
            next: 0,
        }
    }

    pub(crate) fn run(mut self) {
        let path = self.path.clone();
        let store = options().open(&path).expect("a store");
        (0..IDS).for_each(|id| self.put(&store, id));
        self.sync(&store);
        (0..30).for_each(|_| self.step(&store));
        let before: BTreeMap<u64, BTreeSet<State>> = self.now.clone();
        let held = self.rng.random_bool(0.5);
        let snapshot = held.then(|| store.snapshot().expect("a snapshot"));
        let pin = (held && self.rng.random_bool(0.5)).then(|| store.pin().expect("a pin"));
        let lent_of = self.rng.random_range(0..IDS);
        let lent = pin.as_ref().and_then(|pin| pin.get(lent_of).expect("lent"));
        let lent_was = lent.map(<[u8]>::to_vec);

        let (at, bit, _) = place(self.bit);
        let mut word = [0; 8];
        if self.file.read_exact_at(&mut word, at as u64).is_err() {
            return; // The file has no such extent.
        }
        let word = u64::from_le_bytes(word) ^ 1 << bit;
        self.file.write_all_at(&word.to_le_bytes(), at as u64).expect("a flipped bit");

        for _ in 0..self.rng.random_range(0..40) {
            self.step(&store);
        }
        if let Some(snapshot) = &snapshot {
            for id in 0..IDS {
                match snapshot.get(id) {
                    Ok(found) => self.compare(&before, id, found.map(<[u8]>::to_vec), "snapshot"),
                    Err(error) => self.is_told(&error),
                }
            }
        }
        if self.rng.random_bool(0.5) {
            self.die();
        }
        for _ in 0..self.rng.random_range(0..20) {
            self.step(&store);
        }
        // The bytes that were lent are slot data, and not what was flipped.
        assert_eq!(lent.map(<[u8]>::to_vec), lent_was, "lent bytes of {lent_of} changed");
        drop((snapshot, pin));
        if self.rng.random_bool(0.5) {
            self.repair(&store);
        }
        for _ in 0..self.rng.random_range(0..20) {
            self.step(&store);
        }
        self.crash();
        self.repair(&store);
        self.look(&store, "after the repair");
        (0..IDS).for_each(|id| self.write_surely(&store, id));
        self.look(&store, "after all were written anew");
        drop(store);
        let store = options().open(&path).expect("opened again");
        self.report(store.opened());
        self.look(&store, "opened again");
    }

    fn value(&mut self, id: u64) -> Vec<u8> {
        self.next += 1;
        let mut bytes = [id.to_le_bytes(), self.next.to_le_bytes()].concat();
        bytes.resize(16 + self.next as usize % 48, id as u8);
        bytes
    }

    /// A write of a state begins.
    fn begin(&mut self, id: u64, state: &State) {
        self.written.entry(id).or_insert_with(|| [None].into()).insert(state.clone());
        self.since.entry(id).or_insert_with(|| [None].into()).insert(state.clone());
        self.now.entry(id).or_insert_with(|| [None].into()).insert(state.clone());
    }

    /// It has ended.
    fn end(&mut self, id: u64, state: State) {
        self.now.insert(id, [state].into());
    }

    fn is_told(&mut self, error: &Error) {
        match error {
            Error::Damaged { .. } | Error::Corrupt { .. } => self.told = true,
            Error::Busy { .. } | Error::Full { .. } | Error::FlushFailed { .. } | Error::Truncated { .. } => {
            }
            other => panic!("an error that says nothing of damage: {other:?}"),
        }
    }

    fn report(&mut self, report: &RepairReport) {
        self.told |= !report.dropped.is_empty() || !report.missing.is_empty();
    }

    fn compare(&mut self, with: &BTreeMap<u64, BTreeSet<State>>, id: u64, found: State, what: &str) {
        let may_be = with.get(&id).is_some_and(|states| states.contains(&found))
            || (!with.contains_key(&id) && found.is_none());
        let was_written = found.is_none() || self.written.get(&id).is_some_and(|all| all.contains(&found));
        assert!(was_written, "{what}: {id} is {found:?}, which nobody wrote");
        assert!(may_be || self.told, "{what}: {id} is {found:?} and not {:?}; told: nothing", with.get(&id));
    }

    fn put(&mut self, store: &Store, id: u64) {
        let bytes = self.value(id);
        self.begin(id, &Some(bytes.clone()));
        match store.put(id, &bytes) {
            Ok(_) => self.end(id, Some(bytes)),
            Err(error) => self.is_told(&error),
        }
    }

    fn write_surely(&mut self, store: &Store, id: u64) {
        let bytes = self.value(id);
        self.begin(id, &Some(bytes.clone()));
        let put = store.put(id, &bytes);
        assert!(put.is_ok(), "a write after a repair: {put:?}");
        self.end(id, Some(bytes));
    }

    fn sync(&mut self, store: &Store) {
        match store.sync() {
            Ok(()) => {
                self.since = self.now.clone();
            }
            Err(error) => self.is_told(&error),
        }
    }

    fn step(&mut self, store: &Store) {
        let id = self.rng.random_range(0..IDS);
        match self.rng.random_range(0..20) {
            0..=6 => self.put(store, id),
            7..=8 => {
                self.begin(id, &None);
                match store.delete(id) {
                    Ok(_) => self.end(id, None),
                    Err(error) => self.is_told(&error),
                }
            }
            9..=10 => {
                let bytes = self.value(id);
                self.begin(id, &Some(bytes.clone()));
                match store.update(id, |_| Some(bytes.clone())) {
                    Ok(_) => self.end(id, Some(bytes)),
                    Err(error) => self.is_told(&error),
                }
            }
            11..=12 => {
                let mut states = Vec::new();
                let mut batch = store.batch();
                for n in 0..self.rng.random_range(1..20) {
                    let id = (id + n) % IDS;
                    let bytes = self.value(id);
                    batch.put(id, bytes.clone()).expect("it fits");
                    self.begin(id, &Some(bytes.clone()));
                    states.push((id, bytes));
                }
                match batch.commit() {
                    Ok(Commit::Done(_)) => {
                        states.into_iter().for_each(|(id, bytes)| self.end(id, Some(bytes)))
                    }
                    Ok(other) => panic!("no condition can fail: {other:?}"),
                    Err(error) => self.is_told(&error),
                }
            }
            13..=15 => match store.get(id) {
                Ok(found) => {
                    let now = self.now.clone();
                    let found = found.map(recstore::Record::into_data);
                    self.compare(&now, id, found, "get");
                }
                Err(error) => self.is_told(&error),
            },
            16 => self.sync(store),
            17 => match store.snapshot() {
                Ok(snapshot) => {
                    let now = self.now.clone();
                    match snapshot.get(id).map(|found| found.map(<[u8]>::to_vec)) {
                        Ok(found) => self.compare(&now, id, found, "a snapshot"),
                        Err(error) => self.is_told(&error),
                    }
                }
                Err(error) => self.is_told(&error),
            },
            18 => {
                let fresh = IDS + self.next;
                (fresh..fresh + 20).for_each(|id| self.put(store, id));
            }
            _ => self.iterate(store, "iter"),
        }
    }

    fn iterate(&mut self, store: &Store, what: &str) {
        let mut given: BTreeMap<u64, State> = BTreeMap::new();
        for record in store.iter() {
            match record {
                Ok(record) => {
                    let id = record.id();
                    assert!(given.insert(id, Some(record.into_data())).is_none(), "{what} gives {id} twice");
                }
                Err(error) => return self.is_told(&error),
            }
        }
        let now = self.now.clone();
        let ids: BTreeSet<u64> = now.keys().chain(given.keys()).copied().collect();
        ids.into_iter().for_each(|id| self.compare(&now, id, given.get(&id).cloned().flatten(), what));
    }

    /// A process opens the store, and is killed in a write.
    fn die(&mut self) {
        let id = self.rng.random_range(0..IDS);
        let bytes = self.value(id);
        self.begin(id, &Some(bytes.clone()));
        let (steps, path) = (self.rng.random_range(1..20), self.path.clone());
        let child = in_fork(|| {
            let Ok(store) = options().open(&path) else { return 1 };
            testing::arm(steps);
            i32::from(store.put(id, &bytes).is_err())
        });
        match wait_for(child) {
            End::Exited(0) => self.end(id, Some(bytes)),
            End::Exited(1) | End::Killed => {}
            End::Exited(code) => panic!("the writer ended with {code}"),
        }
    }

    fn repair(&mut self, store: &Store) {
        match store.repair() {
            Ok(report) => {
                self.report(&report);
                let left = store.verify().expect("verified").damage;
                assert!(left.is_empty(), "a repair leaves {left:?}");
                self.sync(store);
            }
            // A lock word that names a live seat.
            Err(error @ Error::Busy { .. }) => panic!("a repair can't get in: {error}"),
            Err(error) => panic!("a repair fails: {error:?}"),
        }
    }

    fn look(&mut self, store: &Store, when: &str) {
        let ids: Vec<u64> = self.now.keys().copied().collect();
        for id in ids {
            let found = store.get(id).unwrap_or_else(|error| panic!("{when}: {error:?}"));
            let found = found.map(recstore::Record::into_data);
            let now = self.now.clone();
            self.compare(&now, id, found.clone(), when);
            self.end(id, found); // One of several, and it stays so.
        }
        self.iterate(store, when);
        let left = store.verify().expect("verified").damage;
        assert!(left.is_empty(), "{when}: {left:?}");
    }

    /// What a crash of the system leaves: a sector is as it was at the last flush, or as it was last.
    fn crash(&mut self) {
        let mut bytes = std::fs::read(&self.path).expect("the file");
        for (n, sector) in disk::end().chunks(SECTOR).enumerate() {
            if self.rng.random_bool(0.5) {
                bytes[n * SECTOR..n * SECTOR + sector.len()].copy_from_slice(sector);
            }
        }
        let at = CONTROL + 64;
        bytes[at..at + 16].fill(0xaa);
        let path = self.dir.path().join("crashed");
        std::fs::write(&path, bytes).expect("an image");
        let told = self.told;
        match options().open(&path) {
            Ok(store) => {
                self.report(store.opened());
                let may_be = self.since.clone();
                let ids: Vec<u64> = may_be.keys().copied().collect();
                for id in ids {
                    match store.get(id) {
                        Ok(found) => {
                            let found = found.map(recstore::Record::into_data);
                            self.compare(&may_be, id, found, "after a crash");
                        }
                        Err(error) => self.is_told(&error),
                    }
                }
                let report = store.repair().expect("repaired after a crash");
                self.report(&report);
                let left = store.verify().expect("verified").damage;
                assert!(left.is_empty(), "a repair after a crash leaves {left:?}");
                store.put(1, b"again").expect("a write after a crash");
            }
            Err(error) => self.is_told(&error),
        }
        self.told = told; // It was another file.
    }
}
