//! One handle and many threads, several handles and one process: as exact as many processes.
//!
//! Fails when: an increment is lost or doubled; a reader sees a torn value or an older one after a
//! newer one; a call from inside `update` deadlocks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common;
use crate::common::value::{parse, value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Error, Options, Store, Swap};

const THREADS: u64 = 8;

fn count(bytes: Option<&[u8]>, id: u64) -> u64 {
    bytes.map_or(0, |b| parse(id, b).unwrap_or_else(|e| panic!("{e}")).1)
}

#[test]
fn a_store_is_send_and_sync() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Store>();
    shared::<Options>();
    shared::<Error>();
}

/// Increments counters through `handles`, in turn by `update` and by `compare_and_swap`.
fn increments_are_exact(handles: &[Store]) {
    const EACH: u64 = 2000;
    const IDS: u64 = 3;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &handles[thread as usize % handles.len()];
            scope.spawn(move || {
                for n in 0..EACH {
                    let id = n % IDS;
                    if n % 8 != 0 {
                        store.update(id, |old| Some(value(id, thread, count(old, id) + 1, 64))).unwrap();
                        continue;
                    }
                    loop {
                        let old = store.get(id).unwrap();
                        let now = value(id, thread, count(old.as_deref(), id) + 1, 64);
                        let expected = old.map(|r| r.version());
                        if let Swap::Done(_) = store.compare_and_swap(id, expected, &now).unwrap() {
                            break;
                        }
                    }
                }
            });
        }
    });
    let total: u64 = (0..IDS).map(|id| count(handles[0].get(id).unwrap().as_deref(), id)).sum();
    assert_eq!(total, THREADS * EACH);
    assert!(handles[0].verify().unwrap().is_clean());
}

#[test]
fn increments_by_many_threads_of_one_handle_are_exact() {
    let dir = common::scratch();
    increments_are_exact(&[Options::new().regions(2).create(dir.path().join("store")).unwrap()]);
}

#[test]
fn increments_through_many_handles_of_one_process_are_exact() {
    let dir = common::scratch();
    let first = Options::new().regions(1).create(dir.path().join("store")).unwrap();
    let mut handles = vec![first];
    handles.extend((0..3).map(|_| Store::open(dir.path().join("store")).unwrap()));
    increments_are_exact(&handles);
}

#[test]
fn readers_never_see_a_torn_or_older_value_while_it_is_overwritten() {
    const IDS: u64 = 4;
    const LOOKS: u64 = 4000;
    let seed = common::seed();
    let dir = common::scratch();
    // Large enough that a copy takes a while; few slots, so that they are reused at once.
    let options = Options::new().regions(1).record_size(9000).slots_per_extent(2);
    let store = options.create(dir.path().join("store")).unwrap();
    let second = options.open(dir.path().join("store")).unwrap();
    let unchecked = options.clone().verify_reads(false).open(dir.path().join("store")).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let (store, over) = (if writer == 0 { &store } else { &second }, &over);
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed ^ writer);
                for counter in 1.. {
                    let id = rng.random_range(0..IDS);
                    store.put(id, &value(id, writer, counter, rng.random_range(32..=9000))).unwrap();
                    if rng.random_ratio(1, 20) {
                        store.delete(rng.random_range(0..IDS)).unwrap();
                    }
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        let readers: Vec<_> = [&store, &second, &unchecked]
            .into_iter()
            .enumerate()
            .map(|(n, store)| {
                scope.spawn(move || {
                    let mut rng = StdRng::seed_from_u64(seed ^ 100 ^ n as u64);
                    let mut newest = HashMap::new();
                    let mut out = Vec::new();
                    let mut hits = 0;
                    while hits < LOOKS {
                        let id = rng.random_range(0..IDS);
                        let Some(version) = store.get_into(id, &mut out).unwrap() else { continue };
                        parse(id, &out).unwrap_or_else(|e| panic!("{e}"));
                        let before = newest.insert(id, version);
                        assert!(before <= Some(version), "{version} after {before:?}");
                        hits += 1;
                    }
                })
            })
            .collect();
        let results: Vec<_> = readers.into_iter().map(|r| r.join()).collect();
        over.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|r| r.unwrap());
    });
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_write_from_inside_update_is_refused_and_a_read_is_not() {
    let dir = common::scratch();
    let store = Options::new().regions(2).create(dir.path().join("store")).unwrap();
    let here = 1;
    let there = (2..).find(|&id| store.region_of(id) != store.region_of(here)).unwrap();
    store.put(here, b"old").unwrap();
    store
        .update(here, |old| {
            assert_eq!(old, Some(&b"old"[..]));
            let refused = [
                store.put(here, b"x").map(drop),
                store.delete(here).map(drop),
                store.update(here, |_| Some(b"x")).map(drop),
                store.compare_and_swap(here, None, b"x").map(drop),
                store.write_many([(there, &b"x"[..]), (here, &b"x"[..])]).map(drop),
                store.put(there, b"x").map(drop),
            ];
            for result in refused {
                match result {
                    Err(Error::Reentrant { .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(&store.get(here).unwrap().unwrap()[..], b"old");
            assert!(store.get(there).unwrap().is_none());
            Some(b"new")
        })
        .unwrap();
    assert_eq!(&store.get(here).unwrap().unwrap()[..], b"new");
    assert!(store.get(there).unwrap().is_none());
    store.put(there, b"another region").unwrap();
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_closure_that_panics_gives_the_region_back_unchanged() {
    let dir = common::scratch();
    let store = Options::new().regions(1).create(dir.path().join("store")).unwrap();
    store.put(1, b"old").unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.update(1, |_| -> Option<Vec<u8>> { std::panic::resume_unwind(Box::new("on purpose")) })
    }));
    assert!(result.is_err());
    assert_eq!(&store.get(1).unwrap().unwrap()[..], b"old");
    // From this thread, another thread and another handle.
    store.put(1, b"new").unwrap();
    std::thread::scope(|scope| scope.spawn(|| store.put(2, b"new").unwrap()).join().unwrap());
    Store::open(dir.path().join("store")).unwrap().put(3, b"new").unwrap();
    assert_eq!(store.len().unwrap(), 3);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn handles_that_come_and_go_while_others_write_disturb_nobody() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().regions(2).create(&path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let path = &path;
            scope.spawn(move || {
                for n in 0..50 {
                    let own = Store::open(path).unwrap();
                    own.put(1000 * thread + n, &value(1000 * thread + n, thread, n, 50)).unwrap();
                    if n % 3 == 0 {
                        own.close().unwrap();
                    }
                }
            });
        }
        for n in 0..5000 {
            let id = 100_000 + n % 50;
            store.put(id, &value(id, 9, n, 40)).unwrap();
        }
    });
    assert_eq!(store.len().unwrap(), 4 * 50 + 50);
    for record in store.iter() {
        let record = record.unwrap();
        parse(record.id(), &record).unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(store.stats().unwrap().attached.iter().filter(|a| a.alive).count(), 1);
    assert!(store.verify().unwrap().is_clean());
}
