//! What looks into a wreck tells the whole truth: what it saves is what the store had, and what it could not save is
//! counted.
//!
//! Fails when: a salvaged store has other records than the store had; a record that was deleted, or that a batch wrote
//! which did not count, comes back; a record is lost and no report counts it.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::common;
use crate::common::superblock::REGION_TABLE;
use recstore::{Commit, Durability, Options, SalvageReport, Store, salvage};

const PAGE: usize = 4096;

fn options() -> Options {
    Options::new().record_size(64).regions(2).slots_per_extent(64).max_size(64 << 20)
}

fn contents(store: &Store) -> BTreeMap<u64, Vec<u8>> {
    store.iter().map(Result::unwrap).map(|record| (record.id(), record.to_vec())).collect()
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: common::scratch() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A store with so many records; its bytes, and what it has.
    fn store(&self, records: u64) -> (Vec<u8>, BTreeMap<u64, Vec<u8>>) {
        let path = self.path("store.rec");
        let store = options().create(&path).unwrap();
        for id in 0..records {
            store.put(id, format!("record {id}").as_bytes()).unwrap();
        }
        let all = contents(&store);
        store.close().unwrap();
        (std::fs::read(path).unwrap(), all)
    }

    fn salvage(&self, bytes: &[u8]) -> (SalvageReport, BTreeMap<u64, Vec<u8>>) {
        let wreck = self.path("wreck.rec");
        std::fs::write(&wreck, bytes).unwrap();
        self.salvage_file(&wreck, None)
    }

    fn salvage_file(
        &self,
        wreck: &Path,
        record_size: Option<usize>,
    ) -> (SalvageReport, BTreeMap<u64, Vec<u8>>) {
        let saved = self.path("saved.rec");
        let _ = std::fs::remove_file(&saved);
        let report = salvage(wreck, &saved, record_size).unwrap();
        let saved = Store::open(&saved).unwrap();
        assert!(saved.verify().unwrap().is_clean());
        let all = contents(&saved);
        assert_eq!(report.records, all.len() as u64);
        (report, all)
    }
}

fn missing(report: &SalvageReport) -> u64 {
    report.missing.iter().map(|missing| missing.records).sum()
}

/// The offset of each extent header.
fn extents(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len()).step_by(PAGE).filter(|&at| bytes[at..].starts_with(b"rec-extn")).collect()
}

/// What is done to three records, which an earlier flush may have put on disk.
type Work = fn(&Store);

#[test]
fn salvage_gives_what_the_store_had_whoever_wrote_it_last() {
    let old = |store: &Store| {
        (1..4).for_each(|id| _ = store.put(id, b"old").unwrap());
        store.sync().unwrap();
    };
    let works: [(&str, Work); 7] = [
        ("a put", |store| {
            store.put(1, b"new").unwrap();
        }),
        ("a batch", |store| {
            let mut batch = store.batch();
            (1..4).for_each(|id| batch.put(id, b"by a batch").unwrap());
            assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
        }),
        ("durable puts", |store| {
            (1..4).for_each(|id| _ = store.put_with(id, b"durable", Durability::Disk).unwrap());
        }),
        ("a batch that deletes", |store| {
            (1..4).for_each(|id| _ = store.put(id, b"later").unwrap());
            let mut batch = store.batch();
            (1..4).for_each(|id| batch.delete(id));
            assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
        }),
        ("deletions after durable puts", |store| {
            for id in 1..4 {
                store.put_with(id, b"durable", Durability::Disk).unwrap();
                store.delete(id).unwrap();
            }
        }),
        ("deletions", |store| (1..3).for_each(|id| _ = store.delete(id).unwrap())),
        ("durable puts of new ids", |store| {
            (10..16).for_each(|id| _ = store.put_with(id, b"durable", Durability::Disk).unwrap());
        }),
    ];
    for (what, work) in works {
        for is_closed in [true, false] {
            let bench = Bench::new();
            let path = bench.path("store.rec");
            let store = options().create(&path).unwrap();
            old(&store);
            work(&store);
            let all = contents(&store);
            if is_closed {
                store.close().unwrap();
            } else {
                std::mem::forget(store); // As if its process had died.
            }
            let (report, saved) = bench.salvage(&std::fs::read(&path).unwrap());
            assert_eq!(saved, all, "{what}, closed: {is_closed}: {report:?}");
            assert!(report.is_complete(), "{what}: {report:?}");
        }
    }
}

#[test]
fn salvage_of_a_file_that_was_cut_off_counts_every_record_that_is_gone() {
    let bench = Bench::new();
    let (bytes, all) = bench.store(1000);
    for parts in 1..10 {
        let (report, saved) = bench.salvage(&bytes[..bytes.len() * parts / 10]);
        assert!(saved.iter().all(|(id, data)| all.get(id) == Some(data)));
        if bytes.len() * parts / 10 > REGION_TABLE as usize + 4 * PAGE {
            assert_eq!(saved.len() as u64 + report.lost_records(), 1000, "{parts} of 10: {report:?}");
        } else {
            assert!(!report.is_complete(), "{report:?}");
        }
    }
}

#[test]
fn salvage_of_a_store_with_a_wiped_extent_counts_every_record_that_is_gone() {
    let bench = Bench::new();
    let (bytes, all) = bench.store(1000);
    let begins = extents(&bytes);
    for at in 0..begins.len() - 1 {
        let mut bytes = bytes.clone();
        bytes[begins[at]..begins[at + 1]].fill(0);
        let (report, saved) = bench.salvage(&bytes);
        assert!(saved.iter().all(|(id, data)| all.get(id) == Some(data)));
        assert_eq!(saved.len() as u64 + missing(&report), 1000, "extent {at}: {report:?}");
    }
}

#[test]
fn repair_and_verify_of_a_store_with_a_wiped_extent_count_every_record_that_is_gone() {
    let bench = Bench::new();
    let (bytes, all) = bench.store(1000);
    let begins = extents(&bytes);
    for at in 0..begins.len() - 1 {
        let mut bytes = bytes.clone();
        bytes[begins[at]..begins[at + 1]].fill(0);
        let wreck = bench.path("wreck.rec");
        std::fs::write(&wreck, &bytes).unwrap();
        let told: u64 = {
            let store = Store::open_read_only(&wreck).unwrap();
            store.verify().unwrap().missing.iter().map(|missing| missing.records).sum()
        };
        let store = Store::open(&wreck).unwrap();
        let repaired = store.repair().unwrap();
        let left = contents(&store);
        assert!(left.iter().all(|(id, data)| all.get(id) == Some(data)));
        assert_eq!(left.len() as u64 + repaired.lost(), 1000, "extent {at}: {repaired:?}");
        assert_eq!(told, repaired.lost(), "extent {at}");
        assert!(store.verify().unwrap().is_clean());
    }
}

#[test]
fn a_healthy_store_misses_nothing_whatever_was_done_to_it() {
    let bench = Bench::new();
    let path = bench.path("store.rec");
    let store = options().create(&path).unwrap();
    for round in 0..4u64 {
        (0..1000).for_each(|id| _ = store.put(id, &round.to_le_bytes()).unwrap());
        store.sync().unwrap();
        (0..1000).filter(|id| id % (round + 2) == 0).for_each(|id| _ = store.delete(id).unwrap());
        assert!(store.verify().unwrap().missing.is_empty());
        let (report, saved) = bench.salvage(&std::fs::read(&path).unwrap());
        assert_eq!(saved, contents(&store));
        assert!(report.is_complete(), "{report:?}");
    }
}

#[test]
fn where_all_that_tells_of_the_lost_is_lost_too_salvage_says_that_it_does_not_know() {
    let bench = Bench::new();
    let (mut bytes, all) = bench.store(300);
    let first = extents(&bytes)[0];
    bytes[..first].fill(0xff);
    let (report, saved) = bench.salvage(&bytes);
    assert_eq!(saved, all);
    assert!(report.source.starts_with("the extent header"), "{report:?}");
    assert!(!report.is_complete() && report.unknown[0].contains("2 of 2 regions"), "{report:?}");
}

/// The checksum of a superblock is no secret: who can write the file can forge one.
#[test]
fn salvage_believes_the_superblock_that_the_extents_agree_with() {
    let bench = Bench::new();
    let (bytes, all) = bench.store(900);
    let second = 73728;
    assert_eq!(bytes[..128], bytes[second..second + 128]);
    // Key of the hash; record size and all that follows from it, as of another store.
    let other = bench.path("other.rec");
    Options::new().record_size(200).regions(3).slots_per_extent(32).create(&other).unwrap().close().unwrap();
    let other = std::fs::read(other).unwrap();
    for (forged, name) in [(0, "second"), (second, "first")] {
        let mut bytes = bytes.clone();
        bytes[forged..forged + 128].copy_from_slice(&other[..128]);
        let (report, saved) = bench.salvage(&bytes);
        assert_eq!(saved, all, "{report:?}");
        assert!(report.source.contains("contradict") && report.source.contains(name), "{report:?}");
    }
    // Both are: the extent headers are left.
    let mut bytes = bytes.clone();
    bytes[..128].copy_from_slice(&other[..128]);
    bytes[second..second + 128].copy_from_slice(&other[..128]);
    let (report, saved) = bench.salvage(&bytes);
    assert_eq!(saved, all, "{report:?}");
    assert!(report.source.starts_with("the extent header"), "{report:?}");
}

/// Bytes that look like slots of 1 MB each, at every place where one can begin. What a search costs is bounded by the
/// file's length, so the test does not end if each of them is summed: that takes 4 TB.
#[test]
fn a_search_among_lookalikes_sums_every_byte_once() {
    let bench = Bench::new();
    let len: u32 = 1 << 20;
    let mut header = [0; 32];
    header[..8].copy_from_slice(&(1u64 << 63 | 5).to_le_bytes());
    header[8] = 7;
    header[16] = 1;
    header[24..28].copy_from_slice(&len.to_le_bytes());
    let mut bytes = header.repeat((128 << 20) / 32);
    // Among them the slots of a store.
    let (store, all) = bench.store(200);
    let slots = &store[extents(&store)[0]..];
    let mut slots = slots.to_vec();
    for at in extents(&slots) {
        slots[at..at + 8].fill(0);
    }
    bytes[PAGE..PAGE + slots.len()].copy_from_slice(&slots);
    let wreck = bench.path("wreck.rec");
    std::fs::write(&wreck, &bytes).unwrap();
    let (report, saved) = bench.salvage_file(&wreck, Some(len as usize));
    assert_eq!(saved, all);
    assert!(report.source.contains("searched"), "{report:?}");
}

/// Records of all lengths about the pieces that a search sums.
#[test]
fn a_search_finds_records_of_every_length() {
    let bench = Bench::new();
    let path = bench.path("store.rec");
    let store = Options::new().record_size(300).regions(1).create(&path).unwrap();
    for len in 0..=300 {
        store.put(len, &vec![len as u8; len as usize]).unwrap();
    }
    let all = contents(&store);
    store.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let first = extents(&bytes)[0];
    bytes[..first].fill(0);
    for at in extents(&bytes) {
        bytes[at..at + 8].fill(0);
    }
    let (report, saved) = bench.salvage(&bytes);
    assert_eq!(saved, all, "{report:?}");
}

#[test]
fn an_older_version_that_stands_in_is_reported_as_a_loss() {
    let bench = Bench::new();
    let path = bench.path("store.rec");
    let store = options().create(&path).unwrap();
    store.put(1, b"the older one").unwrap();
    store.sync().unwrap();
    store.put(1, b"the newer one").unwrap();
    std::mem::forget(store);
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|window| window == b"the newer").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"X", at as u64).unwrap();
    let (report, saved) = bench.salvage(&std::fs::read(&path).unwrap());
    assert_eq!(saved[&1], b"the older one");
    assert_eq!(report.lost_records(), 1, "{report:?}");
    assert!(report.lost[0].what.contains("an older version of it was saved"), "{report:?}");
}

/// The verifier looks at an extent right before its header is written, and at its slots right after.
#[test]
fn verify_of_a_store_that_grows_finds_no_extent_without_a_header() {
    use std::sync::mpsc::channel;
    let bench = Bench::new();
    let path = bench.path("store.rec");
    let store = options().create(&path).unwrap();
    let (grower, verifier) = (Store::open(&path).unwrap(), Store::open_read_only(&path).unwrap());
    let (allocated, wait_allocated) = channel();
    let (go_on, wait_go_on) = channel();
    let (done, wait_done) = channel();
    let thread = std::thread::spawn(move || {
        let mut stopped = false;
        recstore::testing::set_hook(Some(Box::new(move |step| {
            if step == "grow: page of the extent header there" && !stopped {
                stopped = true;
                allocated.send(()).unwrap();
                wait_go_on.recv().unwrap();
            }
        })));
        grower.put(1, b"in the new extent").unwrap();
        recstore::testing::set_hook(None);
        done.send(()).unwrap();
    });
    wait_allocated.recv().unwrap();
    let mut seen = false;
    recstore::testing::set_hook(Some(Box::new(move |step| {
        if step == "headless: an extent has no header" && !seen {
            seen = true;
            go_on.send(()).unwrap();
            wait_done.recv().unwrap();
        }
    })));
    let report = verifier.verify().unwrap();
    recstore::testing::set_hook(None);
    thread.join().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn salvage_gives_the_copy_the_tag_of_the_store_unless_its_words_contradict_each_other() {
    /// The two words of the tag.
    const TAGS: [usize; 2] = [PAGE + 320, PAGE + 328];
    let bench = Bench::new();
    let path = bench.path("store.rec");
    let store = options().create(&path).unwrap();
    store.typed_tagged::<u64>("price").unwrap().put(1, &7).unwrap();
    store.close().unwrap();
    let good = std::fs::read(&path).unwrap();
    let saved = |bytes: &[u8]| {
        let (wreck, saved) = (bench.path("tagged.rec"), bench.path("tagged copy.rec"));
        let _ = std::fs::remove_file(&saved);
        std::fs::write(&wreck, bytes).unwrap();
        let report = salvage(&wreck, &saved, None).unwrap();
        assert_eq!(report.records, 1);
        let said = report.unknown.iter().any(|unknown| unknown.contains("tag"));
        let is_tagged = Store::open(&saved).unwrap().typed_tagged::<f64>("price of another type").is_err();
        assert_eq!(Store::open(&saved).unwrap().typed_tagged::<u64>("price").is_ok(), is_tagged);
        (is_tagged, said)
    };
    assert_eq!(saved(&good), (true, false));
    for at in TAGS {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(saved(&bad), (false, true));
    }
    let mut without = good.clone();
    TAGS.iter().for_each(|&at| without[at..at + 8].fill(0));
    assert_eq!(saved(&without), (false, false));
}
