//! The layers, one by one, through the public API.
//!
//! ```text
//! cargo bench --bench layers                    all of it
//! cargo bench --bench layers -- probe           those whose names have `probe` in them
//! cargo bench --bench layers -- zipf --moka     caches, beside moka and Redis: see `zipf`
//! ```
//!
//! What is inside of the crate is reached by the call that does it and as little else as can be:
//!
//! | benchmark | is | what it isolates |
//! | --- | --- | --- |
//! | `probe_hit` | `version(id)`, random ids | a line of the index and a slot's header; no data, no checksum |
//! | `probe_miss` | `contains` of absent ids | a line of the index alone |
//! | `slot_read` | `get_into` of one id, unverified | the copy out of a slot; everything is in the caches |
//! | `slot_read_verified` | the same, verified | less `slot_read`: the checksum within a read |
//! | `crc` | `crc32fast` of as many bytes | the checksum by itself, what a read cannot get below |
//! | `lock_pair` | `update` of an absent id that writes nothing | a lock and an unlock, and a `probe_miss` |
//! | `slot_publish` | `put` of one id | less `lock_pair`: a slot taken, written, published, and one freed |
//! | `get_by_id`, `get_by_key` | `get_into`, random, values of 64 bytes | side by side: what a key of 16 bytes takes more than an id |
//! | `put_by_id`, `put_by_key` | `put`, likewise | the same of writes |
//! | `add_by_id`, `add_by_key`, `update_by_key` | `add` of one counter; for the last, by hand with `update` | what a counter under a key takes |
//! | `push_by_id`, `push_by_key` | `push` into a ring of 1000 numbers | the same of rings: two writes |
//! | `pin` | `pin`, dropped | begin and end of a borrow |
//! | `pin_get` | `get` from a pin that lasts, unverified | a probe and a slice; the same for every size |
//! | `reserve_commit` | `reserve`, filled, and `commit` | as `slot_publish`, without the copy, with two locks |
//! | `reserve_drop` | `reserve`, dropped | a slot taken and given back |
//! | `batch` | `batch` of n random puts, committed | beside `write_many` and n times `slot_publish`: what all-or-nothing takes |
//! | `write_many` | the same writes without the promise | a lock for each region that is written |
//! | `watch_nobody` | `put` in a region that nobody watches | the notify is one load: see `watch_left` |
//! | `watch_left` | `put` after a watcher left its mark | less `watch_nobody`: a notify with its system call |
//! | `rebuild` | a lock taken that a dead owner holds | the rebuild of one region of n records |
//!
//! Ids are random where the working set is a question, and one id where it is not. What dies in `rebuild` is a
//! lock word that no owner could have written, which a store takes for a dead owner's. The stores lie in the
//! directory of temporary files; `TMPDIR=/dev/shm` keeps the disk out of it.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use recstore::{Commit, Event, Options, Store};

use common::Random;

mod zipf;

#[path = "../../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "other users need more of it")]
#[path = "../../../tests/common/superblock.rs"]
mod superblock;

const SIZES: [usize; 4] = [64, 1024, 65_536, 1 << 20];
/// Records of a store that fits into the caches, and of one that does not.
const RECORDS: [u64; 2] = [1_000, 1_000_000];

fn main() {
    if std::env::args().nth(1).as_deref() == Some("zipf") {
        return zipf::run();
    }
    // Without `--bench`, as `cargo run` starts it, divan would try each once.
    divan::Divan::default().config_with_args().run_benches();
}

/// A store in a directory that goes when it does.
struct Scratch {
    store: Store,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

/// A store with records of `size` bytes under ids 0 to `records` - 1, and the same places in every run.
fn store(options: Options, size: usize, records: u64) -> Scratch {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("layers.rec");
    let store = superblock::create_seeded(&options.record_size(size), &path, 1);
    let data = vec![7; size];
    let ids: Vec<u64> = (0..records).collect();
    for ids in ids.chunks(10_000) {
        store.write_many(ids.iter().map(|&id| (id, &data[..]))).expect("room");
    }
    Scratch { store, path, _dir: dir }
}

#[divan::bench(args = RECORDS, sample_size = 1_000)]
fn probe_hit(bencher: Bencher, records: u64) {
    let (s, mut random) = (store(Store::options(), 64, records), Random::new(1));
    bencher.bench_local(|| s.store.version(random.below(records)).unwrap());
}

#[divan::bench(args = RECORDS, sample_size = 1_000)]
fn probe_miss(bencher: Bencher, records: u64) {
    let (s, mut random) = (store(Store::options(), 64, records), Random::new(1));
    bencher.bench_local(|| s.store.contains(records + random.below(records)).unwrap());
}

fn read_one(bencher: Bencher, size: usize, verify: bool) {
    let s = store(Store::options().verify_reads(verify), size, 1);
    let mut out = Vec::new();
    bencher.counter(BytesCount::new(size)).bench_local(move || s.store.get_into(0, &mut out).unwrap());
}

#[divan::bench(args = SIZES, sample_size = 100)]
fn slot_read(bencher: Bencher, size: usize) {
    read_one(bencher, size, false);
}

#[divan::bench(args = SIZES, sample_size = 100)]
fn slot_read_verified(bencher: Bencher, size: usize) {
    read_one(bencher, size, true);
}

#[divan::bench(args = SIZES, sample_size = 100)]
fn crc(bencher: Bencher, size: usize) {
    let data = vec![7; size];
    bencher.counter(BytesCount::new(size)).bench_local(|| crc32fast::hash(black_box(&data)));
}

#[divan::bench(sample_size = 1_000)]
fn lock_pair(bencher: Bencher) {
    let s = store(Store::options(), 64, 1_000);
    bencher.bench_local(|| s.store.update(1_000, |_| None::<[u8; 0]>).unwrap());
}

#[divan::bench(args = SIZES, sample_size = 100)]
fn slot_publish(bencher: Bencher, size: usize) {
    let s = store(Store::options(), size, 1);
    let data = vec![7; size];
    bencher.counter(BytesCount::new(size)).bench_local(|| s.store.put(0, black_box(&data)).unwrap());
}

/// The same number of values of 64 bytes, under ids and under keys of 16 bytes.
fn keyed(records: u64) -> Scratch {
    let s = store(Store::options(), 64 + 16 + 1 + 8, 0);
    let space = s.store.space("s").expect("a name");
    for id in 0..records {
        space.put(u128::from(id).to_le_bytes(), [7; 64]).expect("room");
    }
    s
}

#[divan::bench(args = RECORDS, sample_size = 1_000)]
fn get_by_id(bencher: Bencher, records: u64) {
    let (s, mut random, mut out) = (store(Store::options(), 64, records), Random::new(1), Vec::new());
    bencher.bench_local(|| s.store.get_into(random.below(records), &mut out).unwrap());
}

#[divan::bench(args = RECORDS, sample_size = 1_000)]
fn get_by_key(bencher: Bencher, records: u64) {
    let (s, mut random, mut out) = (keyed(records), Random::new(1), Vec::new());
    let space = s.store.space("s").expect("a name");
    let mut key = || u128::from(random.below(records)).to_le_bytes();
    bencher.bench_local(|| space.get_into(key(), &mut out).unwrap());
}

#[divan::bench(args = RECORDS, sample_size = 1_000)]
fn put_by_id(bencher: Bencher, records: u64) {
    let (s, mut random) = (store(Store::options(), 64, records), Random::new(1));
    bencher.bench_local(|| s.store.put(random.below(records), [8; 64]).unwrap());
}

#[divan::bench(args = RECORDS, sample_size = 1_000)]
fn put_by_key(bencher: Bencher, records: u64) {
    let (s, mut random) = (keyed(records), Random::new(1));
    let space = s.store.space("s").expect("a name");
    bencher.bench_local(|| space.put(u128::from(random.below(records)).to_le_bytes(), [8; 64]).unwrap());
}

#[divan::bench(sample_size = 1_000)]
fn add_by_id(bencher: Bencher) {
    let s = store(Store::options(), 64, 1);
    let counter = s.store.counter(7);
    bencher.bench_local(|| counter.add(1).unwrap());
}

#[divan::bench(sample_size = 1_000)]
fn add_by_key(bencher: Bencher) {
    let s = keyed(1);
    let counter = s.store.space("counters").expect("a name").counter("a key of 16 byt");
    bencher.bench_local(|| counter.add(1).unwrap());
}

#[divan::bench(sample_size = 1_000)]
fn update_by_key(bencher: Bencher) {
    let s = keyed(1);
    let space = s.store.space("counters").expect("a name");
    let next = |old: Option<&[u8]>| old.and_then(|old| old.try_into().ok()).map_or(0, u64::from_le_bytes) + 1;
    bencher.bench_local(|| space.update("a key of 16 byt", |old| Some(next(old).to_le_bytes())).unwrap());
}

#[divan::bench(sample_size = 1_000)]
fn push_by_id(bencher: Bencher) {
    let s = store(Store::options(), 64, 1);
    let ring = s.store.ring::<u64>(1000, 1000).expect("a ring");
    bencher.bench_local(|| ring.push(&7).unwrap());
}

#[divan::bench(sample_size = 1_000)]
fn push_by_key(bencher: Bencher) {
    let s = keyed(1);
    let ring = s.store.space("rings").expect("a name").ring::<u64>("ring", "<u8", 1000).expect("a ring");
    bencher.bench_local(|| ring.push(&7).unwrap());
}

#[divan::bench(sample_size = 1_000)]
fn pin(bencher: Bencher) {
    let s = store(Store::options(), 64, 1);
    bencher.bench_local(|| drop(black_box(s.store.pin().unwrap())));
}

#[divan::bench(args = SIZES, sample_size = 100)]
fn pin_get(bencher: Bencher, size: usize) {
    let s = store(Store::options().verify_reads(false), size, 1);
    let pin = s.store.pin().unwrap();
    bencher.bench_local(|| pin.get(black_box(0)).unwrap().map(<[u8]>::as_ptr));
}

#[divan::bench(args = SIZES, sample_size = 100)]
fn reserve_commit(bencher: Bencher, size: usize) {
    let s = store(Store::options(), size, 1);
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let mut room = s.store.reserve(0, size).unwrap();
        room.fill(black_box(7)).unwrap();
        room.commit().unwrap()
    });
}

#[divan::bench(sample_size = 1_000)]
fn reserve_drop(bencher: Bencher) {
    let s = store(Store::options(), 64, 1);
    bencher.bench_local(|| drop(black_box(s.store.reserve(0, 64).unwrap())));
}

#[divan::bench(args = [2, 10, 100], sample_size = 100)]
fn batch(bencher: Bencher, writes: usize) {
    let (s, mut random) = (store(Store::options(), 64, 1_000), Random::new(1));
    let data = [7; 64];
    bencher.bench_local(|| {
        let mut batch = s.store.batch();
        for _ in 0..writes {
            batch.put(random.below(1_000), &data[..]).unwrap();
        }
        assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
    });
}

#[divan::bench(args = [2, 10, 100], sample_size = 100)]
fn write_many(bencher: Bencher, writes: usize) {
    let (s, mut random) = (store(Store::options(), 64, 1_000), Random::new(1));
    let data = [7; 64];
    bencher
        .bench_local(|| s.store.write_many((0..writes).map(|_| (random.below(1_000), &data[..]))).unwrap());
}

// One put a sample, in both: the mark of a watcher serves for one.
#[divan::bench(sample_size = 1, sample_count = 2_000)]
fn watch_nobody(bencher: Bencher) {
    let s = store(Store::options(), 64, 1);
    bencher.bench_local(|| s.store.put(0, [7; 64]).unwrap());
}

#[divan::bench(sample_size = 1, sample_count = 2_000)]
fn watch_left(bencher: Bencher) {
    let s = store(Store::options(), 64, 1);
    let leave_a_mark = || {
        assert_eq!(s.store.watch(0).unwrap().wait(Some(Duration::ZERO)).unwrap(), Event::TimedOut);
    };
    bencher.with_inputs(leave_a_mark).bench_local_values(|()| s.store.put(0, [7; 64]).unwrap());
}

#[divan::bench(args = [1_000, 10_000, 100_000], sample_size = 1, sample_count = 20)]
fn rebuild(bencher: Bencher, records: u64) {
    let s = store(Store::options().regions(1), 64, records);
    let file = OpenOptions::new().write(true).open(&s.path).unwrap();
    // Seat 0 without the check that belongs to it, in the first word of the first region's head.
    let die = || file.write_all_at(&2_u64.to_le_bytes(), superblock::REGION_TABLE).unwrap();
    bencher.with_inputs(die).bench_local_values(|()| s.store.update(records, |_| None::<[u8; 0]>).unwrap());
    assert_eq!(s.store.len().unwrap(), records);
}
