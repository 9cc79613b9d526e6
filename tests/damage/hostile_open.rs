//! Whatever the bytes are, the store says something clear or gives what was written: no panic, no
//! fault, no hang, no huge allocation, no wrong data.
//!
//! A worker opens thousands of spoilt files, says what it is about to do, and is bound to 1 GiB of
//! memory; the test sees a death and a minute's silence. Fails when: the worker ends otherwise than well; a
//! record that was in the file is given other bytes, an older version, or none without a word about it
//! from `opened`; a file that is no store gets the wrong error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::common::superblock::{self, REGION_TABLE, create_seeded};
use crate::common::value::{parse, value};
use crate::common::{self, Me, Worker};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Error, Options, RepairReport, Store};

const IDS: u64 = 80;
const PAGE: usize = 4096;

/// Id and counter of every record.
type Model = BTreeMap<u64, u64>;

fn options() -> Options {
    Options::new().record_size(64).regions(2).slots_per_extent(16).max_size(64 << 20)
}

/// A good store of all kinds of slots: live, replaced and kept, deleted, free, fresh.
fn good(path: &Path, seed: u64) -> Model {
    let store = create_seeded(&options(), path, seed);
    let mut model = Model::new();
    let mut put = |id: u64, counter: u64| {
        store.put(id, &value(id, 0, counter, 32 + (id as usize * 5) % 33)).unwrap();
        model.insert(id, counter);
    };
    (0..IDS).for_each(|id| put(id, 1));
    store.sync().unwrap();
    (0..IDS / 3).for_each(|id| put(id, 2));
    (5..IDS / 4).for_each(|id| put(id, 3));
    for id in 50..60 {
        store.delete(id).unwrap();
        model.remove(&id);
    }
    model
}

/// Each record that is gone, or older than it was, is told of by something in the report that tells of no other: a
/// version that was given up and names it, or one bit away from it (the id itself may be what was hit), or names none;
/// or one of the records that are counted as missing.
fn assert_told(report: &RepairReport, not_as_written: &BTreeSet<u64>) {
    let mut dropped: Vec<Option<u64>> = report.dropped.iter().map(|damage| damage.id).collect();
    let mut missing: u64 = report.missing.iter().map(|missing| missing.records).sum();
    let mut take = |id: u64, tells: &dyn Fn(u64, Option<u64>) -> bool| {
        let found = dropped.iter().position(|&named| tells(id, named));
        found.map(|at| dropped.swap_remove(at)).is_some()
    };
    let mut untold: Vec<u64> = not_as_written.iter().copied().collect();
    untold.retain(|&id| !take(id, &|id, named| named == Some(id)));
    untold.retain(|&id| !take(id, &|id, named| named.is_some_and(|named| (named ^ id).is_power_of_two())));
    untold.retain(|&id| !take(id, &|_, named| named.is_none()));
    untold.retain(|_| {
        let told = missing > 0;
        missing = missing.saturating_sub(1);
        !told
    });
    assert!(untold.is_empty(), "{untold:?} are gone, or older, without a word: {report:?}");
}

/// Opens the file, and calls everything. With a model: what was in the file before it was spoilt.
fn probe(path: &Path, model: Option<&Model>) {
    for read_only in [true, false] {
        let opened = if read_only { Store::open_read_only(path) } else { Store::open(path) };
        match opened {
            Ok(store) => probe_open(store, model),
            Err(e) => assert!(e.to_string().contains(path.to_str().unwrap()), "{e}"),
        }
    }
}

fn probe_open(store: Store, model: Option<&Model>) {
    read(&store, model);
    let _ = store.verify();
    let _ = store.stats();
    (0..3).for_each(|r| _ = store.inspect_region(r));
    [0, 1, 17, 1 << 20, u32::MAX].into_iter().for_each(|s| _ = store.inspect_slot(s));
    if store.is_read_only() {
        return;
    }
    let mut out = Vec::new();
    for id in [3, 30, 55, 1 << 40] {
        let now = value(id, 0, 99, 64);
        if store.put(id, &now).is_ok() {
            assert!(store.get_into(id, &mut out).is_ok_and(|v| v.is_some()) && out == now, "a put is lost");
        }
        let _ = store.update(id, |old| old.map(<[u8]>::to_vec));
        if store.delete(id).is_ok() {
            assert!(store.get(id).map_or(true, |r| r.is_none()), "a deleted record is there");
        }
    }
    let _ = store.sync();
    let _ = store.repair();
    let _ = store.iter().take(10_000).count();
    let _ = store.put(7, b"after repair");
    let _ = store.verify();
    let _ = store.close();
}

fn read(store: &Store, model: Option<&Model>) {
    let mut not_as_written = BTreeSet::new();
    for id in 0..IDS {
        let got = store.get(id);
        let Some(model) = model else { continue };
        match got {
            Ok(Some(r)) => {
                let (_, counter) = parse(id, &r).unwrap_or_else(|e| panic!("wrong data: {e}"));
                if model.get(&id) != Some(&counter) {
                    not_as_written.insert(id);
                }
            }
            Ok(None) => {
                if model.contains_key(&id) {
                    not_as_written.insert(id);
                }
            }
            Err(e) => assert!(e.to_string().contains("damaged"), "{e:?}: {e}"),
        }
    }
    let _ = store.len();
    for record in store.iter().take(10_000) {
        if let (Ok(record), Some(model)) = (record, model) {
            let id = record.id();
            let (_, counter) = parse(id, &record).unwrap_or_else(|e| panic!("iter: wrong data: {e}"));
            if model.get(&id) != Some(&counter) {
                not_as_written.insert(id);
            }
        }
    }
    assert_told(store.opened(), &not_as_written);
    let _ = store.get_many(&[1, 2, 3], |_, _| ());
}

/// A worker's files.
struct Bench {
    path: PathBuf,
    good: Vec<u8>,
    model: Model,
    rng: StdRng,
}

impl Bench {
    fn new(me: &Me) -> Self {
        setrlimit(Resource::RLIMIT_DATA, 1 << 30, 1 << 30).unwrap();
        let path = PathBuf::from(me.var("STORE"));
        let seed = common::seed();
        let model = good(&path, seed);
        let bytes = std::fs::read(&path).unwrap();
        Self { path, good: bytes, model, rng: StdRng::seed_from_u64(seed) }
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(&self.path, bytes).unwrap();
    }

    /// Changes the good file in a few places, in one go.
    fn patch(&self, patches: &[(usize, u8)]) {
        self.write(&self.good);
        let file = OpenOptions::new().write(true).open(&self.path).unwrap();
        for &(at, byte) in patches {
            file.write_all_at(&[byte], at as u64).unwrap();
        }
    }
}

/// One bit here, or one in each of a few places.
fn flips(me: &mut Me) {
    let mut bench = Bench::new(me);
    probe_good(&bench);
    let cases: u64 = me.var("CASES").parse().unwrap();
    // Most of the file is holes; flip where something is, or in the parts that are read at open.
    let full: Vec<usize> = (0..bench.good.len()).filter(|&at| bench.good[at] != 0).collect();
    for case in 0..cases {
        let at = match case % 4 {
            0 => bench.rng.random_range(0..bench.good.len()),
            1 => bench.rng.random_range(REGION_TABLE as usize..REGION_TABLE as usize + 512),
            _ => full[bench.rng.random_range(0..full.len())],
        };
        let bit = bench.rng.random_range(0..8);
        me.say(&format!("case {case}: bit {bit} of byte {at} flipped"));
        bench.patch(&[(at, bench.good[at] ^ (1 << bit))]);
        probe(&bench.path, Some(&bench.model));
    }
}

/// One bit, under a handle that had the store open before.
fn flips_under_a_handle(me: &mut Me) {
    let mut bench = Bench::new(me);
    let cases: u64 = me.var("CASES").parse().unwrap();
    let full: Vec<usize> = (0..bench.good.len()).filter(|&at| bench.good[at] != 0).collect();
    for case in 0..cases {
        let at = full[bench.rng.random_range(0..full.len())];
        let bit = bench.rng.random_range(0..8);
        me.say(&format!("case {case}: bit {bit} of byte {at} flipped"));
        bench.write(&bench.good);
        let handles = [Store::open_read_only(&bench.path), Store::open(&bench.path)].map(Result::unwrap);
        let file = OpenOptions::new().read(true).write(true).open(&bench.path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << bit)], at as u64).unwrap();
        for store in handles {
            probe_open(store, Some(&bench.model));
        }
    }
}

fn probe_good(bench: &Bench) {
    let store = Store::open(&bench.path).unwrap();
    read(&store, Some(&bench.model));
    assert!(store.opened().is_empty() && store.verify().unwrap().is_clean());
    assert_eq!(store.len().unwrap(), bench.model.len() as u64);
}

/// Runs of other bytes: zeros, ones, noise, a piece of the file itself.
fn smears(me: &mut Me) {
    let mut bench = Bench::new(me);
    let cases: u64 = me.var("CASES").parse().unwrap();
    for case in 0..cases {
        let len = 1usize << bench.rng.random_range(0..14);
        let at = bench.rng.random_range(0..bench.good.len() - len);
        let from = bench.rng.random_range(0..bench.good.len() - len);
        let mut bytes = bench.good.clone();
        let how = bench.rng.random_range(0..4);
        match how {
            0 => bytes[at..at + len].fill(0),
            1 => bytes[at..at + len].fill(0xff),
            2 => bench.rng.fill(&mut bytes[at..at + len]),
            _ => bytes.copy_within(from..from + len, at),
        }
        me.say(&format!("case {case}: {len} bytes at {at} replaced (way {how}, from {from})"));
        bench.write(&bytes);
        // A whole version or line put elsewhere may be as good as any: data is still never mixed.
        probe_untorn(&bench.path);
    }
}

/// Records are whole, whatever is there.
fn probe_untorn(path: &Path) {
    if let Ok(store) = Store::open_read_only(path) {
        for id in 0..IDS {
            if let Ok(Some(r)) = store.get(id) {
                parse(id, &r).unwrap_or_else(|e| panic!("wrong data: {e}"));
            }
        }
    }
    probe(path, None);
}

/// Cut off at every page, and grown by nothing.
fn cuts(me: &mut Me) {
    let bench = Bench::new(me);
    for len in (0..bench.good.len()).step_by(PAGE) {
        for len in [len, len + 1, len + 2048] {
            me.say(&format!("cut off at {len} of {}", bench.good.len()));
            bench.write(&bench.good[..len.min(bench.good.len())]);
            probe(&bench.path, Some(&bench.model));
        }
    }
    for more in [1, 100, PAGE as u64, 10 * PAGE as u64 + 8, 16 << 20, 1 << 30] {
        me.say(&format!("{more} bytes longer"));
        bench.write(&bench.good);
        let file = OpenOptions::new().write(true).open(&bench.path).unwrap();
        file.set_len(bench.good.len() as u64 + more).unwrap();
        probe(&bench.path, Some(&bench.model));
    }
}

/// Nothing of ours but perhaps the first bytes.
fn noise(me: &mut Me) {
    let mut bench = Bench::new(me);
    for case in 0..300 {
        let limit = 1 << bench.rng.random_range(4..19);
        let mut bytes = vec![0; bench.rng.random_range(0..limit)];
        bench.rng.fill(&mut bytes[..]);
        let kept = match case % 4 {
            0 => 0,
            1 => 8,
            2 => 128,
            _ => PAGE,
        };
        let kept = kept.min(bytes.len());
        bytes[..kept].copy_from_slice(&bench.good[..kept]);
        me.say(&format!("case {case}: {} bytes of noise after {kept} good ones", bytes.len()));
        bench.write(&bytes);
        probe_untorn(&bench.path);
        assert!(kept > 0 || matches!(Store::open(&bench.path), Err(Error::NotAStore { .. })));
    }
}

/// Numbers of the superblock that lie, alone and together.
fn lies(me: &mut Me) {
    let mut bench = Bench::new(me);
    let word32 = [0, 1, 2, 24, 25, 31, 64, 255, 4096, 1 << 14, (1 << 14) + 1, 1 << 30, 1 << 31, u32::MAX];
    let word64 = [0, 1, 4096, 1 << 20, 1 << 40, 1 << 44, (1 << 44) + 1, 1 << 62, 1 << 63, u64::MAX];
    let lie = |me: &mut Me, what: String, change: &dyn Fn(&mut [u8])| {
        me.say(&what);
        bench.write(&superblock::with(&bench.good, change));
        probe(&bench.path, None);
    };
    for at in (48..80).step_by(4) {
        for word in word32 {
            lie(me, format!("{word} at {at}"), &|b| b[at..at + 4].copy_from_slice(&word.to_le_bytes()));
        }
    }
    for at in [32, 40, 64, 72] {
        for word in word64 {
            lie(me, format!("{word} at {at}"), &|b| b[at..at + 8].copy_from_slice(&word.to_le_bytes()));
        }
    }
    // Lies that agree with each other.
    for (record_size, log2, regions) in
        [(64, 4, 3), (64, 4, 16384), (96, 4, 2), (64, 24, 2), (1 << 29, 0, 1), (1, 0, 2)]
    {
        let round = |n: u64, to: u64| n.div_ceil(to) * to;
        let slot = round(32 + record_size, 32);
        let links = round(64 + (slot << log2), 4096);
        let extent = links + round(16 << log2, 4096);
        let base = REGION_TABLE + round(regions * 256, 4096) + regions * 4096;
        for max in [base + extent, 64 << 20, 1 << 44] {
            lie(me, format!("record size {record_size}, 2^{log2} slots, {regions} regions, {max}"), &|b| {
                b[40..48].copy_from_slice(&max.to_le_bytes());
                for (at, word) in [(48, record_size), (52, log2), (56, regions), (60, slot)] {
                    b[at..at + 4].copy_from_slice(&(word as u32).to_le_bytes());
                }
                b[64..72].copy_from_slice(&extent.to_le_bytes());
                b[72..80].copy_from_slice(&base.to_le_bytes());
            });
        }
    }
    for case in 0..200 {
        let (at, len) = (bench.rng.random_range(16..80), bench.rng.random_range(1..9));
        let mut noise = [0; 8];
        bench.rng.fill(&mut noise);
        me.say(&format!("case {case}: noise in the superblock at {at}"));
        bench.write(&superblock::with(&bench.good, |b| b[at..at + len].copy_from_slice(&noise[..len])));
        probe(&bench.path, None);
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "flips" => flips(&mut me),
        "flips_under_a_handle" => flips_under_a_handle(&mut me),
        "smears" => smears(&mut me),
        "cuts" => cuts(&mut me),
        "noise" => noise(&mut me),
        "lies" => lies(&mut me),
        other => panic!("no role {other}"),
    }
}

fn run(role: &str, cases: u64) {
    let dir = common::scratch();
    let seed = common::seed().to_string();
    let cases = common::number_from_env("RECSTORE_CASES").unwrap_or(cases).to_string();
    let path = dir.path().join("store");
    let with = [("STORE", path.to_str().unwrap()), ("CASES", &cases), ("RECSTORE_SEED", &seed)];
    let mut worker = Worker::spawn(role, &with);
    let mut last = String::new();
    let heard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while let Some(line) = worker.line() {
            last = line;
        }
    }));
    assert!(heard.is_ok(), "hangs: {last}");
    let status = worker.wait();
    assert!(status.success(), "{status}: {last}");
}

#[test]
fn a_flipped_bit_never_gives_wrong_data() {
    run("flips", 1200);
}

#[test]
fn a_bit_that_flips_under_a_handle_never_gives_wrong_data() {
    run("flips_under_a_handle", 500);
}

#[test]
fn replaced_bytes_never_give_wrong_data() {
    run("smears", 400);
}

#[test]
fn a_file_of_any_length_is_refused_or_right() {
    run("cuts", 0);
}

#[test]
fn noise_is_refused_or_harmless() {
    run("noise", 0);
}

#[test]
fn a_geometry_that_lies_is_refused_or_harmless() {
    run("lies", 0);
}

fn open_both(path: &Path) -> [Error; 2] {
    [Store::open(path), Store::open_read_only(path)].map(|r| match r {
        Err(e) => {
            assert!(e.to_string().contains(path.to_str().unwrap()), "{e}");
            e
        }
        Ok(_) => panic!("{} was opened", path.display()),
    })
}

#[test]
fn what_is_no_store_is_called_that() {
    let dir = common::scratch();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("empty"), b"").unwrap();
    std::fs::write(at("short"), b"recstor").unwrap();
    std::fs::write(at("letter"), b"Dear Sir or Madam,\n".repeat(1000)).unwrap();
    std::fs::write(at("zeros"), vec![0; 200_000]).unwrap();
    std::fs::create_dir(at("directory")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    std::os::unix::fs::symlink("letter", at("link")).unwrap();
    for name in ["empty", "short", "letter", "zeros", "directory", "fifo", "link"] {
        for e in open_both(&at(name)) {
            assert!(matches!(e, Error::NotAStore { .. }), "{name}: {e:?}");
        }
        assert!(Store::open_or_create(at(name)).is_err(), "{name}");
    }
    for device in ["/dev/null", "/dev/zero"] {
        assert!(matches!(Store::open(device), Err(Error::NotAStore { .. })), "{device}");
    }
    for e in open_both(&at("nothing")) {
        assert!(matches!(e, Error::NotFound { .. }), "{e:?}");
    }
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    for e in open_both(&at("dangling")) {
        assert!(matches!(e, Error::NotAStore { .. }), "{e:?}");
        assert!(e.to_string().contains("symbolic link to nowhere"), "{e}");
    }
}

#[test]
fn another_version_and_another_byte_order_are_named() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    good(&path, 0);
    let bytes = std::fs::read(&path).unwrap();
    let version = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
    for other in [version + 1, version + 77, 0] {
        std::fs::write(&path, superblock::with(&bytes, |b| b[8..12].copy_from_slice(&other.to_le_bytes())))
            .unwrap();
        for e in open_both(&path) {
            match e {
                Error::UnsupportedVersion { found, supported, .. } => {
                    assert_eq!((found, supported), (other, version))
                }
                e => panic!("version {other}: {e:?}"),
            }
        }
    }
    // As a big-endian machine would have written it.
    let n = superblock::len(&bytes);
    let mut swapped = bytes.clone();
    for at in (8..n).step_by(4).filter(|at| !(16..32).contains(at)) {
        swapped[at..at + 4].reverse();
    }
    swapped.copy_within(..n, superblock::SECOND);
    std::fs::write(&path, swapped).unwrap();
    for e in open_both(&path) {
        assert!(matches!(e, Error::WrongByteOrder { .. }), "{e:?}");
    }
}

#[test]
fn one_superblock_of_the_two_is_enough() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let model = good(&path, 0);
    let bytes = std::fs::read(&path).unwrap();
    let n = superblock::len(&bytes);
    for at in [20, superblock::SECOND + 20, superblock::SECOND + n - 1, n - 1] {
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 0x40;
        std::fs::write(&path, spoilt).unwrap();
        let store = Store::open(&path).unwrap_or_else(|e| panic!("byte {at}: {e}"));
        read(&store, Some(&model));
    }
    let mut spoilt = bytes.clone();
    spoilt[20] ^= 1;
    spoilt[superblock::SECOND + 20] ^= 1;
    std::fs::write(&path, spoilt).unwrap();
    for e in open_both(&path) {
        assert!(matches!(e, Error::NotAStore { .. } | Error::Damaged { .. }), "{e:?}");
    }
}

/// A handle for reading goes around an index that can't be used, slot by slot. What is damaged there may be a
/// newer version of anything, so nothing older is given in its place.
#[test]
fn who_reads_around_an_index_gives_nothing_older_than_what_is_damaged() {
    const SHAPE: u64 = REGION_TABLE + 64;
    const REBUILDING: u64 = 1 << 63;
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = options().regions(1).create(&path).unwrap();
    store.put(1, &value(1, 0, 1, 60)).unwrap();
    store.put(2, &value(2, 0, 1, 60)).unwrap();
    store.sync().unwrap();
    store.put(1, &value(1, 0, 2, 60)).unwrap(); // The one before it is kept until the next flush.
    drop(store);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut shape = [0; 8];
    file.read_exact_at(&mut shape, SHAPE).unwrap();
    file.write_all_at(&(u64::from_le_bytes(shape) | REBUILDING).to_le_bytes(), SHAPE).unwrap();
    let reader = Store::open_read_only(&path).unwrap();
    assert_eq!(parse(1, &reader.get(1).unwrap().unwrap()), Ok((0, 2)));
    assert_eq!(parse(2, &reader.get(2).unwrap().unwrap()), Ok((0, 1)));

    let newest = value(1, 0, 2, 60);
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(60).position(|window| window == newest).unwrap();
    file.write_all_at(&[bytes[at + 30] ^ 1], at as u64 + 30).unwrap();
    let reader = Store::open_read_only(&path).unwrap();
    for id in [1, 2, 3] {
        assert!(matches!(reader.get(id), Err(Error::Corrupt { .. })), "id {id}: {:?}", reader.get(id));
    }
}
