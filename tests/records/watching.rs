//! The changes of a whole store, as an iterator: whoever follows them knows the store, deletions included.
//!
//! Fails when: a record that was there, or was written or deleted, is not told of; a mirror that is kept by the changes alone
//! differs from the store, while threads and processes write, and processes are killed or stopped; what a dead or a stopped
//! writer made visible is not told while others write; a repair is not told, or takes a version back.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::common::{self, Me, Worker};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Change, Changes, Error, Options, Store, Version};

const IDS: u64 = 200;

fn small() -> Options {
    Options::new().record_size(64).regions(3).slots_per_extent(16)
}

fn next(changes: &mut Changes<'_>) -> Change {
    changes.next().expect("it has no end").unwrap()
}

fn written(id: u64, version: Version) -> Change {
    Change::Written { id, version }
}

fn deleted(id: u64) -> Change {
    Change::Deleted { id }
}

/// What is told before the write of a record that has nothing to do with it: so nothing that is missing is waited for.
fn told(changes: &mut Changes<'_>, store: &Store) -> Vec<Change> {
    let end = written(1000, store.put(1000, b"all before this").unwrap());
    std::iter::from_fn(|| Some(next(changes)).filter(|told| *told != end)).collect()
}

#[test]
fn what_is_there_is_told_and_then_that_it_was_all_and_then_writes_and_deletions() {
    let dir = common::scratch();
    let store = small().regions(1).create(dir.path().join("s")).unwrap();
    let one = store.put(1, b"before").unwrap();
    let two = store.put(2, b"before").unwrap();
    let mut changes = store.changes().unwrap();
    assert_eq!([next(&mut changes), next(&mut changes)], [written(1, one), written(2, two)]);
    assert_eq!(next(&mut changes), Change::CaughtUp);
    let new = store.put(4, b"new").unwrap();
    let three = store.put(3, b"another").unwrap();
    assert_eq!(told(&mut changes, &store), [written(4, new), written(3, three)]);
    assert!(store.delete(1).unwrap());
    assert_eq!(told(&mut changes, &store), [deleted(1)]);
    // Deleted and written again: what it is now.
    assert!(store.delete(4).unwrap());
    let again = store.put(4, b"again").unwrap();
    // Written and deleted again: it was not there, and it isn't.
    store.put(5, b"comes").unwrap();
    assert!(store.delete(5).unwrap());
    assert!(store.delete(3).unwrap());
    let another = store.put(2, b"another").unwrap();
    assert_eq!(told(&mut changes, &store), [deleted(3), written(4, again), written(2, another)]);
    let mut batch = store.batch();
    batch.delete(2);
    batch.put(1, &b"back"[..]).unwrap();
    let _ = batch.commit().unwrap();
    let back = store.version(1).unwrap().unwrap();
    assert_eq!(told(&mut changes, &store), [deleted(2), written(1, back)]);
    assert_eq!(told(&mut changes, &store), []);
    assert!(store.delete(1000).unwrap());
    store.put(6, b"in its place").unwrap();
    assert_eq!(told(&mut changes, &store).len(), 1);
}

#[test]
fn a_record_that_comes_and_goes_before_the_first_look_stays_in_no_mirror() {
    let dir = common::scratch();
    let store = small().regions(1).create(dir.path().join("s")).unwrap();
    store.put(1, b"stays").unwrap();
    let changes = store.changes().unwrap();
    store.put(2, b"comes").unwrap();
    let mut mirror = BTreeMap::new();
    let mut end = None;
    for change in changes.map(Result::unwrap) {
        match change {
            Change::Written { id, .. } => {
                mirror.insert(id, store.get(id).unwrap());
                store.delete(2).unwrap();
            }
            Change::Deleted { id } => _ = mirror.remove(&id),
            _ => end = Some(written(1, store.put(1, b"the last").unwrap())),
        }
        if end == Some(change) {
            break;
        }
    }
    assert_eq!(mirror.into_keys().collect::<Vec<_>>(), [1]);
}

#[test]
fn who_waits_for_a_change_can_wait_for_a_time_and_an_empty_store_is_caught_up_with_at_once() {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    let mut changes = store.changes().unwrap();
    let mut next = |timeout| changes.next_timeout(timeout).unwrap();
    assert_eq!(next(Duration::ZERO), Some(Change::CaughtUp));
    assert_eq!(next(Duration::ZERO), None);
    assert_eq!(next(Duration::from_millis(1)), None);
    let version = store.put(1, b"x").unwrap();
    assert_eq!(next(Duration::ZERO), Some(written(1, version)));
    let reader = Store::open_read_only(store.path()).unwrap();
    assert!(matches!(reader.changes(), Err(Error::ReadOnly { .. })));
}

/// An id of each region that nobody else uses.
fn last_of_each_region(store: &Store) -> Vec<u64> {
    (0..3).map(|region| (IDS..).find(|&id| store.region_of(id) == region).unwrap()).collect()
}

fn versions(store: &Store) -> BTreeMap<u64, Version> {
    store.iter().map(|r| r.unwrap()).map(|r| (r.id(), r.version())).collect()
}

/// Follows the changes until each region has told its last one, and compares with the store.
fn follow(mut changes: Changes<'_>, store: &Store) {
    let mut mirror = BTreeMap::new();
    let mut last = last_of_each_region(store);
    while !last.is_empty() {
        match next(&mut changes) {
            Change::Written { id, version } => {
                assert!(mirror.insert(id, version) < Some(version), "id {id} is told twice, or goes back");
                last.retain(|last| *last != id);
            }
            Change::Deleted { id } => assert!(mirror.remove(&id).is_some(), "id {id} was not told of"),
            _ => {}
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
    let changes = store.changes().unwrap();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(changes, &store));
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
    let changes = store.changes().unwrap();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(changes, &store));
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

/// Flips a bit of a record's data in the file.
fn damage(store: &Store, data: &[u8]) {
    let file = File::options().read(true).write(true).open(store.path()).unwrap();
    let mut all = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut all, 0).unwrap();
    let at = all.windows(data.len()).rposition(|bytes| bytes == data).expect("the data is in the file");
    file.write_all_at(&[data[0] ^ 1], at as u64).unwrap();
}

#[test]
fn a_repair_writes_anew_what_stands_in_for_a_damaged_version_and_that_is_told() {
    let dir = common::scratch();
    let store = small().regions(1).create(dir.path().join("s")).unwrap();
    store.put(1, b"the first, which is kept").unwrap();
    store.put(2, b"has none before it").unwrap();
    store.put(3, b"of no concern").unwrap();
    store.put(4, b"deleted, and kept").unwrap();
    store.sync().unwrap();
    let second = store.put(1, b"the second, which gets damaged").unwrap();
    let two = store.version(2).unwrap();
    let three = store.version(3).unwrap();
    assert!(store.delete(4).unwrap());
    let mut changes = store.changes().unwrap();
    while next(&mut changes) != Change::CaughtUp {}
    damage(&store, b"the second, which gets damaged");
    damage(&store, b"has none before it");
    assert!(matches!(store.get(1), Err(Error::Corrupt { .. })));
    let report = store.repair().unwrap();
    assert_eq!(report.dropped.len(), 3, "two versions, and one that stands in: {report:?}");
    let record = store.get(1).unwrap().unwrap();
    assert_eq!(record.data(), b"the first, which is kept");
    assert!(record.version() > second, "{:?} is not later than {second:?}", record.version());
    assert_eq!(store.version(3).unwrap(), three, "what is whole stays as it is");
    assert!(two.is_some() && store.version(2).unwrap().is_none());
    let mut now = told(&mut changes, &store);
    now.retain(|change| *change != deleted(4));
    assert_eq!(now, [deleted(2), written(1, record.version())]);
    let third = store.put(1, b"the third").unwrap();
    assert!(third > record.version());
    assert_eq!(told(&mut changes, &store), [written(1, third)]);
    assert!(store.verify().unwrap().is_clean());
    // The old one is there until the new one is on disk, and then no more.
    store.sync().unwrap();
    assert!(store.repair().unwrap().dropped.is_empty());
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
