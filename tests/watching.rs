//! The changes of a whole store, as an iterator: whoever follows them knows the store, deletions included.
//!
//! Fails when: a record that was written or deleted is not told of; a mirror that is kept by the changes alone differs
//! from the store, while threads and processes write, and processes are killed.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Me, Worker};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Change, Changes, Event, Options, Store, Version};

const IDS: u64 = 200;

fn small() -> Options {
    Options::new().record_size(64).regions(3).slots_per_extent(16)
}

fn next(changes: &mut Changes<'_>) -> (u64, Event) {
    let Change { id, event } = changes.next().expect("it has no end").unwrap();
    (id, event)
}

/// What is told before the write of a record that has nothing to do with it: so nothing that is missing is waited for.
fn told(changes: &mut Changes<'_>, store: &Store) -> Vec<(u64, Event)> {
    let end = (1000, Event::Written(store.put(1000, b"all before this").unwrap()));
    std::iter::from_fn(|| Some(next(changes)).filter(|told| *told != end)).collect()
}

#[test]
fn writes_and_deletions_are_told() {
    let dir = common::scratch();
    let store = small().regions(1).create(dir.path().join("s")).unwrap();
    store.put(1, b"before").unwrap();
    store.put(2, b"before").unwrap();
    let watch = store.watch_all().unwrap();
    let between = store.put(3, b"between").unwrap();
    let mut changes = watch.changes();
    assert_eq!(next(&mut changes), (3, Event::Written(between)), "nothing is told of what was there before");
    let new = store.put(4, b"new").unwrap();
    assert_eq!(told(&mut changes, &store), [(4, Event::Written(new))]);
    assert!(store.delete(1).unwrap());
    assert_eq!(told(&mut changes, &store), [(1, Event::Deleted)]);
    // Deleted and written again: what it is now.
    assert!(store.delete(4).unwrap());
    let again = store.put(4, b"again").unwrap();
    // Written and deleted again: it was not there, and it isn't.
    store.put(5, b"comes").unwrap();
    assert!(store.delete(5).unwrap());
    assert!(store.delete(3).unwrap());
    let another = store.put(2, b"another").unwrap();
    let all = [(3, Event::Deleted), (4, Event::Written(again)), (2, Event::Written(another))];
    assert_eq!(told(&mut changes, &store), all);
    let mut batch = store.batch();
    batch.delete(2);
    batch.put(1, &b"back"[..]).unwrap();
    let _ = batch.commit().unwrap();
    let back = store.version(1).unwrap().unwrap();
    assert_eq!(told(&mut changes, &store), [(2, Event::Deleted), (1, Event::Written(back))]);
    assert_eq!(told(&mut changes, &store), []);
    assert!(store.delete(1000).unwrap());
    store.put(6, b"in its place").unwrap();
    assert_eq!(told(&mut changes, &store).len(), 1);
}

/// An id of each region that nobody else uses.
fn last_of_each_region(store: &Store) -> Vec<u64> {
    (0..3).map(|region| (IDS..).find(|&id| store.region_of(id) == region).unwrap()).collect()
}

fn versions(store: &Store) -> BTreeMap<u64, Version> {
    store.iter().map(|r| r.unwrap()).map(|r| (r.id(), r.version())).collect()
}

/// Follows the changes until each region has told its last one, and compares with the store.
fn follow(mut mirror: BTreeMap<u64, Version>, mut changes: Changes<'_>, store: &Store) {
    let mut last = last_of_each_region(store);
    while !last.is_empty() {
        match next(&mut changes) {
            (id, Event::Written(version)) => {
                assert_ne!(mirror.insert(id, version), Some(version), "id {id} is told twice");
                last.retain(|last| *last != id);
            }
            (id, Event::Deleted) => _ = mirror.remove(&id),
            (id, Event::TimedOut) => panic!("id {id}"),
        }
    }
    assert_eq!(mirror, versions(store));
}

fn change(store: &Store, rng: &mut StdRng) {
    let id = rng.random_range(0..IDS);
    match rng.random_range(0..10) {
        0..5 => _ = store.put(id, &id.to_le_bytes()).unwrap(),
        5..8 => _ = store.delete(id).unwrap(),
        8 => {
            let mut batch = store.batch();
            batch.delete(id);
            batch.put(id / 2, &b"of a batch"[..]).unwrap();
            let _ = batch.commit().unwrap();
        }
        _ if rng.random_ratio(1, 20) => store.sync().unwrap(),
        _ => {}
    }
}

fn begin(path: &Path) -> Store {
    let store = small().create(path).unwrap();
    (0..IDS / 2).for_each(|id| _ = store.put(id, b"at first").unwrap());
    store
}

#[test]
fn a_mirror_that_is_kept_by_the_changes_equals_the_store() {
    let dir = common::scratch();
    let store = begin(&dir.path().join("s"));
    let seed = common::seed();
    let (at_first, watch) = (versions(&store), store.watch_all().unwrap());
    let changes = watch.changes();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(at_first, changes, &store));
        std::thread::scope(|writers| {
            for thread in 0..3 {
                let store = &store;
                writers.spawn(move || {
                    let mut rng = StdRng::seed_from_u64(seed ^ thread);
                    (0..5000).for_each(|_| change(store, &mut rng));
                });
            }
        });
        last_of_each_region(&store).into_iter().for_each(|id| _ = store.put(id, b"last").unwrap());
        follower.join().unwrap();
    });
}

#[test]
fn what_killed_writers_left_is_told() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = begin(&path);
    let seed = common::seed();
    let (at_first, watch) = (versions(&store), store.watch_all().unwrap());
    let changes = watch.changes();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(at_first, changes, &store));
        for life in 0..20 {
            let with = [("STORE", path.to_str().unwrap()), ("RECSTORE_SEED", &(seed ^ life).to_string())];
            let mut writer = Worker::spawn("write", &with);
            (0..1 + (seed ^ life) % 5).for_each(|_| _ = writer.hear());
            writer.kill();
        }
        last_of_each_region(&store).into_iter().for_each(|id| _ = store.put(id, b"last").unwrap());
        follower.join().unwrap();
    });
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    let store = Store::open(me.var("STORE")).unwrap();
    let mut rng = common::seeded();
    loop {
        (0..50).for_each(|_| change(&store, &mut rng));
        me.say("some");
    }
}
