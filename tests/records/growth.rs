//! The store grows while it is used: from empty, by four processes at once, with a reader that
//! had it open when it was empty and checks throughout.
//!
//! 60,000 records, or a million with `RECSTORE_LONG=1`; then the file takes less than 150 bytes per
//! 64-byte record. Fails when: a record that was acknowledged is not read back, at any moment; `iter`
//! does not give each once; `verify` finds anything.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::mpsc::sync_channel;

use crate::common::value::{parse, value};
use crate::common::{self, Me, Worker};
use rand::Rng;
use recstore::{Error, Options, Store};

const WRITERS: u64 = 4;
const LEN: usize = 64;
const STRIDE: u64 = 250;
const BYTES_PER_RECORD_MAX: f64 = 150.0;

/// The n-th id of a writer: all over the space.
fn id(writer: u64, n: u64) -> u64 {
    (n * WRITERS + writer).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn writer(me: &mut Me) {
    let number: u64 = me.var("NUMBER").parse().unwrap();
    let count: u64 = me.var("COUNT").parse().unwrap();
    let store = Store::open(me.var("STORE")).unwrap();
    for n in 0..count {
        let id = id(number, n);
        store.put(id, &value(id, number, n, LEN)).unwrap();
        if (n + 1) % STRIDE == 0 || n + 1 == count {
            me.say(&(n + 1).to_string());
        }
    }
}

/// Bytes of an extent.
fn unit(stats: &recstore::Stats) -> u64 {
    stats.extent_size.expect("all extents are of one size")
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "writer" => writer(&mut me),
        other => panic!("no role {other}"),
    }
}

fn check(store: &Store, out: &mut Vec<u8>, writer: u64, n: u64) {
    let id = id(writer, n);
    let found = store.get_into(id, out).unwrap();
    assert!(found.is_some(), "record {n} of writer {writer} (id {id:#x}) is lost");
    assert_eq!(parse(id, out), Ok((writer, n)));
}

#[test]
fn a_store_grows_from_empty_under_four_processes_and_a_reader_sees_all_that_was_acknowledged() {
    let long = common::number_from_env("RECSTORE_LONG") == Some(1);
    let total: u64 = if long { 1_000_000 } else { 60_000 };
    let mut rng = common::seeded();
    let dir = common::scratch();
    let path = dir.path().join("store");
    // The short run has small extents, so that it has as many of them as the long one.
    let options = Options::new().record_size(LEN);
    let options = if long { options } else { options.slots_per_extent(256) };
    let store = options.create(&path).unwrap();
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 4 << 20, "an empty store is small");

    let (to, news) = sync_channel(64);
    let mut workers: Vec<Worker> = Vec::new();
    for number in 0..WRITERS {
        let with = [
            ("STORE", path.to_str().unwrap()),
            ("NUMBER", &number.to_string()),
            ("COUNT", &(total / WRITERS).to_string()),
        ];
        let worker = Worker::spawn("writer", &with);
        let (stream, to) = (worker.stream(), to.clone());
        std::thread::spawn(move || {
            let lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
            for line in lines.map_while(Result::ok) {
                if to.send((number, line.parse::<u64>().unwrap())).is_err() {
                    return;
                }
            }
        });
        workers.push(worker);
    }
    drop(to);

    let mut out = Vec::new();
    let mut done = [0; WRITERS as usize];
    let mut checked = 0u64;
    while let Ok((writer, count)) = news.recv() {
        done[writer as usize] = count;
        check(&store, &mut out, writer, count - 1);
        for _ in 0..20 {
            let writer = rng.random_range(0..WRITERS);
            if done[writer as usize] > 0 {
                check(&store, &mut out, writer, rng.random_range(0..done[writer as usize]));
                checked += 1;
            }
        }
        if count % (STRIDE * 20) == 0 {
            let mut live = 0;
            store
                .scan(|id, _, data| {
                    parse(id, data).unwrap_or_else(|e| panic!("{e}"));
                    live += 1;
                    std::ops::ControlFlow::Continue(())
                })
                .unwrap();
            let before: u64 = done.iter().sum();
            assert!(live >= before, "scan gave {live} of {before} acknowledged records");
        }
    }
    workers.iter_mut().for_each(Worker::finish);

    assert_eq!(store.len().unwrap(), total);
    for writer in 0..WRITERS {
        (0..total / WRITERS).for_each(|n| check(&store, &mut out, writer, n));
    }
    let mut seen = HashSet::new();
    for record in store.iter() {
        let record = record.unwrap();
        assert!(seen.insert(record.id()), "id {:#x} came twice", record.id());
        parse(record.id(), &record).unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(seen.len() as u64, total);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.records, total);

    let file = std::fs::metadata(&path).unwrap();
    let each = file.len() as f64 / total as f64;
    println!(
        "{total} records of {LEN} bytes: {each:.1} bytes of file each ({:.1} allocated), {checked} reads meanwhile",
        (file.blocks() * 512) as f64 / total as f64
    );
    assert!(!long || each < BYTES_PER_RECORD_MAX, "{each:.1} bytes of file per record");
}

fn tiny() -> Options {
    Options::new().record_size(LEN).regions(1).slots_per_extent(4)
}

/// Puts the ids and checks that all are there.
fn put_all(store: &Store, ids: std::ops::Range<u64>) {
    ids.clone().for_each(|id| _ = store.put(id, &value(id, 0, id, LEN)).unwrap());
    check_all(store, ids);
}

fn check_all(store: &Store, ids: std::ops::Range<u64>) {
    for id in ids {
        let record = store.get(id).unwrap().unwrap_or_else(|| panic!("record {id} is lost"));
        assert_eq!(parse(id, &record), Ok((0, id)));
    }
}

/// Has this thread fail when it rebuilds a region: a rebuild would put right what a growth did wrong.
#[cfg(feature = "testing")]
pub(crate) fn forbid_rebuilds(forbid: bool) {
    let hook = |step: &str| assert!(!step.starts_with("rebuild"), "a region is rebuilt");
    recstore::testing::set_hook(if forbid { Some(Box::new(hook)) } else { None });
}

#[cfg(not(feature = "testing"))]
pub(crate) fn forbid_rebuilds(_: bool) {}

/// Offsets of the headers of all extents.
fn headers(path: &Path) -> Vec<usize> {
    let bytes = std::fs::read(path).unwrap();
    (0..bytes.len()).step_by(4096).filter(|&at| bytes[at..].starts_with(b"rec-extn")).collect()
}

/// Where a region's slots were never used is told by one word. Pages of large slots are made
/// by writing zeros to them: a word that lies must not have them made where records lie, on disk or in memory.
#[test]
fn a_wrong_word_about_slots_never_used_costs_no_record() {
    const FRESH: u64 = 76 * 1024 + 5 * 8; // Of the first region's head.
    let dir = common::scratch();
    for (flush, next) in [true, false].into_iter().flat_map(|flush| [0, 5, 20, 38].map(|next| (flush, next)))
    {
        let path = dir.path().join(format!("store-{flush}-{next}"));
        let options = Options::new().record_size(16 << 10).regions(1).slots_per_extent(64);
        let store = options.create(&path).unwrap();
        let put = |id| _ = store.put(id, &value(id, 0, id, 16 << 10)).unwrap();
        (0..40).for_each(put);
        if flush {
            store.sync().unwrap();
        }
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut word = [0; 8];
        file.read_exact_at(&mut word, FRESH).unwrap();
        let reference = |slot: u64| ((slot + 1) | ((!(slot + 1) & 0xffff) << 48)).to_le_bytes();
        assert_eq!(word, reference(40), "the word is elsewhere");
        file.write_all_at(&reference(next), FRESH).unwrap();
        put(40);
        check_all(&store, 0..41);
        assert!(store.verify().unwrap().is_clean());
    }
}

/// An extent whose header is damaged is nobody's to overwrite: there are good slots in it.
#[test]
fn growth_leaves_extents_alone_whose_headers_are_damaged() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = tiny().create(&path).unwrap();
    put_all(&store, 0..40);
    store.close().unwrap();
    let headers = headers(&path);
    assert_eq!(headers.len(), 10);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for &at in &headers[4..6] {
        file.write_all_at(&[0xee; 64], at as u64).unwrap();
    }
    let store = Store::open(&path).unwrap();
    forbid_rebuilds(true);
    put_all(&store, 1000..1040);
    forbid_rebuilds(false);
    check_all(&store, 0..40);
    assert_eq!(store.stats().unwrap().extents, 20);
    store.repair().unwrap();
    check_all(&store, 0..40);
    check_all(&store, 1000..1040);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// An extent of zeros, which a loss of power may leave in the middle, is too small for an index; what comes
/// after it is not, and is somebody's.
#[test]
fn an_index_passes_over_a_gap_that_is_too_small_for_it() {
    for damaged in [0, 1, 2] {
        let dir = common::scratch();
        let path = dir.path().join("store");
        let store = tiny().create(&path).unwrap();
        put_all(&store, 0..720);
        // Free slots, so that no data extent goes into the gap.
        drop((0..40).map(|id| store.reserve(id, LEN).unwrap()).collect::<Vec<_>>());
        let extent = unit(&store.stats().unwrap()) as usize;
        store.close().unwrap();
        let headers = headers(&path);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&vec![0; extent], headers[4] as u64).unwrap();
        for &at in &headers[5..5 + damaged] {
            file.write_all_at(&[0xee; 64], at as u64).unwrap();
        }
        let store = Store::open(&path).unwrap();
        // The records of that extent are lost, and until a repair any absent record may be one of them.
        assert!(matches!(store.get(16), Err(Error::Corrupt { .. })));
        let rest = || (0..16).chain(20..720).chain(1000..1010);
        let before = store.stats().unwrap();
        put_all(&store, 1000..1010);
        let after = store.stats().unwrap();
        assert!(after.index_bytes > before.index_bytes && after.index_bytes >= 2 * extent as u64);
        for id in rest() {
            check_all(&store, id..id + 1);
        }
        let report = store.repair().unwrap();
        assert_eq!(report.missing.iter().map(|missing| missing.records).sum::<u64>(), 4, "{report:?}");
        assert_eq!(store.get(16).unwrap(), None);
        for id in rest() {
            check_all(&store, id..id + 1);
        }
        assert_eq!(store.len().unwrap(), rest().count() as u64);
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[test]
fn growth_needs_no_rebuild() {
    let dir = common::scratch();
    let store = tiny().create(dir.path().join("store")).unwrap();
    forbid_rebuilds(true);
    put_all(&store, 0..3000);
    store.sync().unwrap();
    put_all(&store, 1000..3500);
    (0..3000).for_each(|id| assert!(store.delete(id).unwrap()));
    put_all(&store, 0..1000);
    forbid_rebuilds(false);
}

/// What a process added to the file before it died is used by the next one that grows, also for an index
/// that takes more than there is.
#[test]
fn growth_begins_with_what_a_dead_one_left() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = tiny().create(&path).unwrap();
    put_all(&store, 0..40);
    let before = store.stats().unwrap();
    let len = before.file_size + 3 * unit(&before);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
    put_all(&store, 40..52);
    assert_eq!(store.stats().unwrap().file_size, len, "three extents for twelve records");
    put_all(&store, 52..53);
    assert_eq!(store.stats().unwrap().file_size, len + unit(&before));

    // As many records as the first index takes, and one extent too few for the next index.
    put_all(&store, 53..720);
    let before = store.stats().unwrap();
    let next = before.file_size + unit(&before);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(next).unwrap();
    put_all(&store, 720..721);
    let after = store.stats().unwrap();
    assert!(after.index_bytes > before.index_bytes && after.index_bytes > unit(&before));
    let run = (after.index_bytes + 64).div_ceil(unit(&before));
    let data = after.slots / 4 - before.slots / 4;
    assert_eq!(after.file_size, before.file_size + (run + data) * unit(&before));
    check_all(&store, 0..721);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn the_room_of_indexes_that_moved_is_used_again() {
    let dir = common::scratch();
    let store = tiny().slots_per_extent(64).create(dir.path().join("store")).unwrap();
    let extents_of_indexes = || {
        let stats = store.stats().unwrap();
        u64::from(stats.extents) - stats.slots / 64
    };
    let mut after_two = 0;
    for round in 0..12 {
        put_all(&store, round * 10_000..round * 10_000 + 2500);
        (round * 10_000..round * 10_000 + 2500).for_each(|id| assert!(store.delete(id).unwrap()));
        if round == 1 {
            after_two = extents_of_indexes();
        }
    }
    assert!(after_two > 0);
    assert_eq!(extents_of_indexes(), after_two);
}

/// A handle finds what another one put into extents that it has not seen yet, and rebuilds nothing for it.
#[cfg(feature = "testing")]
#[test]
fn the_growth_of_others_is_seen_without_a_repair() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = tiny().create(&path).unwrap();
    put_all(&store, 0..4);
    let (reader, writer) = (Store::open_read_only(&path).unwrap(), Store::open(&path).unwrap());
    put_all(&store, 4..2000);
    recstore::testing::set_hook(Some(Box::new(|step| panic!("a read has come to: {step}"))));
    check_all(&reader, 0..2000);
    check_all(&writer, 0..2000);
    recstore::testing::set_hook(None);
}

/// Replaced versions are queued by links, which are holes in the file until the first is: then all of the
/// region's are allocated, so that no later one meets a full disk.
#[test]
fn the_first_replaced_version_allocates_all_links_of_its_region() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = tiny().slots_per_extent(1024).create(&path).unwrap();
    put_all(&store, 0..2500);
    store.sync().unwrap();
    let size = || {
        let file = std::fs::metadata(&path).unwrap();
        (file.len(), file.blocks() * 512)
    };
    let ((len, allocated), before) = (size(), store.stats().unwrap());
    store.put(7, b"replaces a version that is on disk").unwrap();
    assert_eq!(store.stats().unwrap().extents, before.extents);
    let links = before.slots * 16;
    assert!(links >= 3 << 14);
    let (now, more) = (size().0, size().1 - allocated);
    assert_eq!(now, len);
    assert!((links..=links + (64 << 10)).contains(&more), "{more} bytes allocated, for {links} of links");
}

#[test]
fn a_store_takes_records_up_to_its_ceiling_and_not_beyond() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = tiny().create(&path).unwrap();
    put_all(&store, 0..4);
    let stats = store.stats().unwrap();
    let ceiling = stats.file_size + 4 * unit(&stats);
    store.close().unwrap();
    std::fs::remove_file(&path).unwrap();
    for over in [0, unit(&stats) - 4096] {
        let store = tiny().max_size(ceiling + over).create(&path).unwrap();
        put_all(&store, 0..20);
        let why = || match store.put(20, b"one too many") {
            Err(recstore::Error::Full { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert!(!why().contains("until a sync"), "{}", why());
        check_all(&store, 0..20);
        assert_eq!(store.stats().unwrap().file_size, ceiling);
        // Whoever keeps replaced versions is told how to be rid of them.
        assert!(store.delete(0).unwrap());
        store.sync().unwrap();
        let snapshot = store.snapshot().unwrap();
        store.put(1, b"anew").unwrap();
        assert!(why().contains("until a sync"), "{}", why());
        drop(snapshot); // The write flushes, if that gives room.
        store.put(20, b"in the place of what was replaced").unwrap();
        store.close().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
