//! Headers of extents that lie, with a right checksum, in a store of several classes whose extents grow: the header alone, or the copy
//! of it alone.
//!
//! Fails when: a record is lost, or is another one than was written, though its slot is whole; the store takes no more records; `verify`
//! does not name the lie; `repair` leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Options, Store};

use super::file::in_time;
use crate::common;
use crate::common::value::{parse, value};

const LENS: [usize; 9] = [32, 40, 90, 120, 200, 300, 700, 1500, 4000];
const IDS: u64 = 700;

/// Offsets of the fields of a header.
const KIND: usize = 20;
const REGION: usize = 24;
const RUN: usize = 48;
const GROUP: usize = 52;
const CLASS: usize = 56;
const CRC: usize = 60;
const FIELDS: [(&str, usize); 5] =
    [("kind", KIND), ("region", REGION), ("run", RUN), ("group", GROUP), ("class", CLASS)];

/// Id, counter and length of every record.
type Model = BTreeMap<u64, (u64, usize)>;

fn options() -> Options {
    Options::new().record_size(6000).regions(3).max_size(64 << 20)
}

fn len_of(id: u64) -> usize {
    LENS[id as usize * 7 % LENS.len()] + id as usize % 5
}

/// A store of all kinds of slots, of many classes.
fn fill(store: &Store) -> Model {
    let mut model = Model::new();
    for (counter, ids) in [(1, 0..IDS), (2, 0..IDS / 3), (3, 5..IDS / 4)] {
        for id in ids {
            let len = len_of(id + counter);
            store.put(id, value(id, 0, counter, len)).unwrap();
            model.insert(id, (counter, len));
        }
        store.sync().unwrap();
    }
    for id in IDS / 2..IDS / 2 + 60 {
        store.delete(id).unwrap();
        model.remove(&id);
    }
    model
}

fn field(header: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(header[at..at + 4].try_into().unwrap())
}

fn with_field(header: &[u8; 64], at: usize, word: u32) -> [u8; 64] {
    let mut forged = *header;
    forged[at..at + 4].copy_from_slice(&word.to_le_bytes());
    let sum = crc32fast::hash(&forged[..CRC]);
    forged[CRC..].copy_from_slice(&sum.to_le_bytes());
    forged
}

/// All headers of a file or, if `twins`, the copies of them, in the order of the file.
fn headers(file: &[u8], twins: bool) -> Vec<(u64, [u8; 64])> {
    let (magic, from) = if twins { (b"rec-twin", 4032) } else { (b"rec-extn", 0) };
    let is_one = |at: &usize| file[*at..].starts_with(magic);
    let found = (from..file.len()).step_by(4096).filter(is_one);
    found.map(|at| (at as u64, file[at..at + 64].try_into().unwrap())).collect()
}

/// Lies about a field of a header.
fn lies(header: &[u8; 64], at: usize, rng: &mut StdRng) -> u32 {
    let is = field(header, at);
    let unit = field(header, 16);
    loop {
        let lie = match (at, rng.random_range(0..8)) {
            (KIND, _) => 3 - is,
            (REGION, _) => rng.random_range(0..3),
            (GROUP, 0) => (1 << 24) - 2,
            (GROUP, 1) => (1 << 24) - 200,
            (GROUP, 2) => unit,
            (GROUP, 3) => unit.saturating_sub(rng.random_range(0..9)),
            (RUN, 0) => is + rng.random_range(1..400),
            (CLASS, 0..4) => rng.random_range(0..30),
            (_, 4) => rng.random(),
            (_, 5) => 0,
            _ => is.wrapping_add_signed(rng.random_range(-9..9)),
        };
        if lie != is {
            return lie;
        }
    }
}

/// What a store whose records are all whole must be.
fn check_all(store: &Store, model: &Model, errors_too: bool) -> Result<(), String> {
    for (&id, &(counter, len)) in model {
        match store.get(id) {
            Ok(Some(record)) => {
                if record.len() != len || parse(id, &record) != Ok((0, counter)) {
                    return Err(format!("id {id}: {:?}", parse(id, &record)));
                }
            }
            Ok(None) => return Err(format!("id {id} is lost")),
            Err(_) if errors_too => {}
            Err(error) => return Err(format!("id {id}: {error}")),
        }
    }
    if errors_too {
        return Ok(());
    }
    let mut found = 0;
    for record in store.iter() {
        let record = record.map_err(|error| format!("iter: {error}"))?;
        if !model.contains_key(&record.id()) {
            return Err(format!("iter: id {} came back", record.id()));
        }
        found += 1;
    }
    if found == model.len() { Ok(()) } else { Err(format!("iter gives {found} of {}", model.len())) }
}

fn write_some(store: &Store, model: &mut Model, first: u64, count: u64) -> Result<(), String> {
    for id in first..first + count {
        let len = len_of(id);
        store.put(id, value(id, 0, 9, len)).map_err(|error| format!("put {id}: {error}"))?;
        model.insert(id, (9, len));
    }
    Ok(())
}

struct Case<'a> {
    path: &'a Path,
    file: &'a File,
    at: u64,
    forged: [u8; 64],
    of_copy: bool,
}

impl Case<'_> {
    fn forge(&self) {
        self.file.write_all_at(&self.forged, self.at).unwrap();
    }

    fn end(&self, store: Store, mut model: Model) -> Result<(), String> {
        let before = store.verify().map_err(|error| error.to_string())?;
        let lies = {
            let mut now = [0; 64];
            self.file.read_exact_at(&mut now, self.at).unwrap();
            now == self.forged
        };
        if lies && !self.of_copy && before.is_clean() {
            return Err("verify is clean".into());
        }
        let report = store.repair().map_err(|error| error.to_string())?;
        if !report.dropped.is_empty() || !report.missing.is_empty() {
            return Err(format!("repair gives up: {report:?}"));
        }
        let after = store.verify().map_err(|error| error.to_string())?;
        if !after.is_clean() {
            return Err(format!("not clean after a repair: {after:?}, {report:?}"));
        }
        check_all(&store, &model, false).map_err(|error| format!("after the repair: {error}"))?;
        write_some(&store, &mut model, 3_000, 500).map_err(|error| format!("after the repair: {error}"))?;
        store.close().map_err(|error| error.to_string())?;
        let store = Store::open(self.path).map_err(|error| error.to_string())?;
        check_all(&store, &model, false).map_err(|error| format!("at the end: {error}"))?;
        let last = store.verify().map_err(|error| error.to_string())?;
        if last.is_clean() { Ok(()) } else { Err(format!("at the end: {last:?}")) }
    }

    /// The lie is there when the store is opened.
    fn closed(&self, mut model: Model, reads_first: bool) -> Result<(), String> {
        self.forge();
        let saved = self.path.with_extension("saved");
        let _ = std::fs::remove_file(&saved);
        let report = recstore::salvage(self.path, &saved, None).map_err(|error| error.to_string())?;
        if report.records != model.len() as u64 || !report.lost.is_empty() {
            return Err(format!("salvage: {} of {}, {:?}", report.records, model.len(), report.missing));
        }
        let reader = Store::open_read_only(self.path).map_err(|error| error.to_string())?;
        check_all(&reader, &model, true).map_err(|error| format!("a reader: {error}"))?;
        let store = Store::open(self.path).map_err(|error| error.to_string())?;
        if reads_first {
            check_all(&store, &model, true).map_err(|error| format!("opened: {error}"))?;
        }
        write_some(&store, &mut model, 1_000, 200)?;
        check_all(&store, &model, true).map_err(|error| format!("after writes: {error}"))?;
        check_all(&reader, &model, true).map_err(|error| format!("a reader after writes: {error}"))?;
        self.end(store, model)
    }

    /// The lie comes while two handles have the store open, one of which has met the extents. A third one opens it afterwards. Each
    /// writes, so each adds extents.
    fn open(&self, mut model: Model) -> Result<(), String> {
        let [first, second] = [Store::open(self.path), Store::open(self.path)].map(Result::unwrap);
        check_all(&first, &model, false).map_err(|error| format!("before: {error}"))?;
        write_some(&first, &mut model, 900, 50)?;
        self.forge();
        let third = Store::open(self.path).map_err(|error| error.to_string())?;
        for (n, store) in [&second, &first, &third].into_iter().enumerate() {
            write_some(store, &mut model, 1_000 + 200 * n as u64, 100)
                .map_err(|error| format!("handle {n}: {error}"))?;
            check_all(store, &model, true).map_err(|error| format!("handle {n}: {error}"))?;
        }
        [second, third].into_iter().for_each(|store| store.close().unwrap());
        self.end(first, model)
    }
}

#[test]
fn a_forged_header_or_a_forged_copy_of_it_loses_nothing() {
    let seed = common::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let memory = Path::new("/dev/shm");
    let within = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let dir = tempfile::Builder::new().prefix("recstore-test-").tempdir_in(within).unwrap();
    let path = dir.path().join("store");
    let store = common::superblock::create_seeded(&options(), &path, seed);
    let model = fill(&store);
    store.close().unwrap();
    let good = std::fs::read(&path).unwrap();
    assert!(headers(&good, false).len() > 100);
    assert_eq!(headers(&good, false).len(), headers(&good, true).len());
    let cases =
        common::number_from_env("RECSTORE_CASES").unwrap_or(if common::is_whole_search() { 120 } else { 40 });
    for case in 0..cases {
        let of_copy = rng.random_range(0..3) == 0;
        let all = headers(&good, of_copy);
        let (at, header) = all[rng.random_range(0..all.len())];
        let (name, field) = FIELDS[rng.random_range(0..FIELDS.len())];
        let lie = lies(&header, field, &mut rng);
        std::fs::write(&path, &good).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let forged = Case { path: &path, file: &file, at, forged: with_field(&header, field, lie), of_copy };
        let mode = case % 3;
        let what = format!("case {case}: copy {of_copy}, at {at}: {name} {lie}, mode {mode}");
        let result = in_time(&what, || match mode {
            0 => forged.closed(model.clone(), true),
            1 => forged.closed(model.clone(), false),
            _ => forged.open(model.clone()),
        });
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// Other bytes over a run of extents, or over their headers and the copies alone: a gap of several extents. What lay there may be lost.
/// The loss is told, also if writes come first and build the index anew. No other record is lost.
#[test]
fn what_is_lost_with_a_run_of_extents_is_told() {
    let seed = common::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = common::superblock::create_seeded(&options(), &path, seed);
    let model = fill(&store);
    store.close().unwrap();
    let good = std::fs::read(&path).unwrap();
    let all: Vec<(usize, usize)> = headers(&good, false)
        .into_iter()
        .map(|(at, header)| (at as usize, field(&header, RUN) as usize * 4096))
        .collect();
    let mut rounds = 0;
    for case in 0..common::number_from_env("RECSTORE_CASES").unwrap_or(12) {
        let first = rng.random_range(0..all.len() - 1);
        let last = (first + rng.random_range(1..12)).min(all.len() - 1);
        let end = all[last].0 + all[last].1;
        let (filler, headers_only) = (if rng.random() { 0 } else { 0xee }, case % 2 == 0);
        let mut bytes = good.clone();
        if headers_only {
            for &(at, len) in &all[first..=last] {
                bytes[at..at + 64].fill(filler);
                let twins = (at + 4032..at + len).step_by(4096);
                twins
                    .filter(|&twin| good[twin..].starts_with(b"rec-twin"))
                    .for_each(|twin| bytes[twin..twin + 64].fill(filler));
            }
        } else {
            bytes[all[first].0..rng.random_range(all[last].0 + 64..=end)].fill(filler);
        }
        let what = format!("case {case}: extents {first} to {last}, {filler}, headers only: {headers_only}");
        std::fs::write(&path, &bytes).unwrap();
        let hit = |id: u64, counter: u64, len: usize| {
            let data = value(id, 0, counter, len);
            good[all[first].0..end].windows(len).any(|window| window == data)
        };
        let within: BTreeSet<u64> = model
            .iter()
            .filter(|(id, (counter, len))| hit(**id, *counter, *len))
            .map(|(id, _)| *id)
            .collect();
        let saved = path.with_extension("saved");
        let _ = std::fs::remove_file(&saved);
        let report = recstore::salvage(&path, &saved, None).unwrap();
        let left = model.len() - if headers_only { 0 } else { within.len() };
        assert!(report.records as usize >= left, "{what}: salvage of {}", report.records);
        let store = Store::open(&path).unwrap();
        let mut model = model.clone();
        // How many records are gone, or older, without an error.
        let check = |store: &Store, model: &Model, when: &str| {
            let is_gone = |(&id, &(counter, len)): (&u64, &(u64, usize))| {
                let found = store.get(id);
                if let Err(error) = &found {
                    assert!(["opened", "written"].contains(&when), "{what}: {when}: {error}");
                    assert!(error.to_string().contains("damaged"), "{what}: {when}: {error}");
                    return false;
                }
                let record = found.unwrap();
                let told = record.as_ref().map(|record| parse(id, record));
                assert!(!matches!(told, Some(Err(_))), "{what}: {when}: {told:?}");
                let is_there = told == Some(Ok((0, counter))) && record.is_some_and(|r| r.len() == len);
                assert!(is_there || within.contains(&id), "{what}: {when}: id {id} is {told:?}");
                !is_there
            };
            model.iter().filter(|record| is_gone(*record)).count()
        };
        check(&store, &model, "opened");
        write_some(&store, &mut model, 1_000, 200).unwrap_or_else(|error| panic!("{what}: {error}"));
        check(&store, &model, "written");
        let report = store.repair().unwrap();
        let gone = check(&store, &model, "repaired");
        rounds += usize::from(gone > 0);
        let missing: u64 = report.missing.iter().map(|missing| missing.records).sum();
        assert!(gone == 0 || missing > 0 || !report.dropped.is_empty(), "{what}: {gone} gone: {report:?}");
        write_some(&store, &mut model, 3_000, 500).unwrap_or_else(|error| panic!("{what}: {error}"));
        check(&store, &model, "at the end");
        store.close().unwrap();
        check(&Store::open(&path).unwrap(), &model, "opened again");
    }
    assert!(rounds > 0, "nothing was lost");
}
