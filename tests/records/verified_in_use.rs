//! `verify` beside writers.
//!
//! Fails when: a healthy store that is written to is reported as damaged; damage of a region that is written to is not found; the lock of a
//! region that is at rest is taken; progress is told twice, or not for all regions.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::testing::set_hook;
use recstore::{Options, Store};

const IDS: u64 = 3_000;

/// Writes, deletes, flushes and takes snapshots until it is told to stop. Counts what it does in `done`.
fn work(store: &Store, seed: u64, stop: &AtomicBool, ids: std::ops::Range<u64>, done: &AtomicU64) {
    let mut random = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let snapshot = random.random_bool(0.5).then(|| store.snapshot().unwrap());
        for _ in 0..random.random_range(50..500) {
            let id = random.random_range(ids.clone());
            match random.random_range(0..10) {
                0..2 => _ = store.delete(id).unwrap(),
                2 => {
                    let mut batch = store.batch();
                    (id..ids.end).take(5).for_each(|id| batch.put(id, &b"of a batch"[..]).unwrap());
                    _ = batch.commit().unwrap();
                }
                3 => drop(store.reserve(id, 20)),
                len => _ = store.put(id, vec![7; 30 * len]).unwrap(),
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        drop(snapshot);
        if random.random_bool(0.3) {
            store.sync().unwrap();
        }
    }
}

#[test]
fn a_healthy_store_that_is_written_to_is_never_reported_as_damaged() {
    let seed = common::seed();
    println!("seed {seed}");
    for regions in [1, 4] {
        let dir = common::scratch();
        let store =
            Options::new().record_size(512).regions(regions).create(dir.path().join("a.rec")).unwrap();
        let reader = Store::options().open_read_only(dir.path().join("a.rec")).unwrap();
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|n| {
                    scope.spawn({
                        let (store, stop, done) = (&store, &stop, &done);
                        move || work(store, seed + n, stop, n * IDS..(n + 1) * IDS, done)
                    })
                })
                .collect();
            // Also if the writers begin late.
            for _ in (0..).take_while(|&n| n < 40 || done.load(Ordering::Relaxed) < 1000) {
                let report = store.verify().unwrap();
                let read = reader.verify().unwrap();
                if !report.is_clean() || !read.is_clean() {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{:?} {:?}", report.damage, read.damage);
                }
            }
            stop.store(true, Ordering::Relaxed);
            writers.into_iter().for_each(|writer| writer.join().unwrap());
        });
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{:?}", report.damage);
        assert_eq!(report.records, store.len().unwrap());
    }
}

#[test]
fn a_region_at_rest_is_verified_without_its_lock() {
    let dir = common::scratch();
    let store = Options::new().regions(1).create(dir.path().join("a.rec")).unwrap();
    (0..IDS).for_each(|id| _ = store.put(id, [7; 50]).unwrap());
    let taken = Arc::new(AtomicU64::new(0));
    set_hook(Some(Box::new({
        let taken = Arc::clone(&taken);
        move |step| _ = taken.fetch_add(u64::from(step == "lock: taken"), Ordering::Relaxed)
    })));
    store.put(0, [8; 50]).unwrap();
    let by_put = taken.swap(0, Ordering::Relaxed);
    let report = store.verify().unwrap();
    set_hook(None);
    assert_eq!(by_put, 1);
    assert!(report.is_clean(), "{:?}", report.damage);
    assert_eq!((report.records, taken.load(Ordering::Relaxed)), (IDS, 0));
}

/// Changes the last byte of the first occurrence of `text`.
fn flip(path: &Path, text: &[u8]) {
    let bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(text.len()).position(|w| w == text).expect("the text is in the file");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at + text.len() - 1] ^ 4], (at + text.len() - 1) as u64).unwrap();
}

#[test]
fn damage_of_a_region_that_is_written_to_is_found() {
    let seed = common::seed();
    println!("seed {seed}");
    let dir = common::scratch();
    let path = dir.path().join("a.rec");
    let store = Options::new().record_size(512).regions(1).create(&path).unwrap();
    store.put(IDS + 1, b"a record that stays as it is").unwrap();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, after) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| work(&store, seed, &stop, 0..IDS, &done));
        let mut before = store.verify().unwrap();
        while before.is_clean() && done.load(Ordering::Relaxed) < 1000 {
            before = store.verify().unwrap();
        }
        flip(&path, b"a record that stays as it is");
        let after = store.verify().unwrap();
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        (before, after)
    });
    assert!(before.is_clean(), "{:?}", before.damage);
    assert!(after.damage.iter().any(|damage| damage.id == Some(IDS + 1)), "{:?}", after.damage);
}

#[test]
fn progress_is_told_for_each_region_once() {
    let dir = common::scratch();
    let store = Options::new().regions(50).create(dir.path().join("a.rec")).unwrap();
    let mut told = Vec::new();
    store.verify_with_progress(|progress| told.push((progress.done, progress.total))).unwrap();
    assert_eq!(told, (1..=50).map(|done| (done, 50)).collect::<Vec<_>>());
}
