//! Feeds that follow the trails of the regions, beside writers.
//!
//! Fails when: a feed that kept up, was behind, or began from now on does not end with the store's content; the version of a record goes
//! back or comes twice; a feed from now on tells a record that was there before, does not say that it may have missed deletions, or does
//! not tell a write; a feed compares regions although it could follow.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Change, Changes, Options, Store, Version};

type Mirror = HashMap<u64, Version>;

const SOON: Duration = Duration::from_secs(60);

/// A store that may not grow much, with many regions, has trails of 256 entries. So laps end all the time.
fn with_short_trails(regions: u32) -> Options {
    Options::new().record_size(64).regions(regions).max_size(2 << 20)
}

fn versions(store: &Store) -> Mirror {
    store.iter().map(Result::unwrap).map(|record| (record.id(), record.version())).collect()
}

/// Takes a change into a mirror.
fn take(mirror: &mut Mirror, change: Change, store: &Store, seed: u64) -> bool {
    match change {
        Change::Written { id, version } => {
            let before = mirror.insert(id, version);
            assert!(before < Some(version), "seed {seed}: id {id} goes from {before:?} to {version:?}");
        }
        Change::Deleted { id } => _ = mirror.remove(&id),
        Change::Behind => {
            // As the documentation says: it looks for records that are not there any more.
            mirror.retain(|id, _| store.version(*id).unwrap().is_some());
            return true;
        }
        _ => {}
    }
    false
}

fn write_at_random(store: &Store, rng: &mut StdRng, ids: u64) {
    let id = rng.random_range(0..ids);
    match rng.random_range(0..20) {
        0..5 => _ = store.delete(id).unwrap(),
        5 => {
            let mut batch = store.batch();
            for id in id..id + rng.random_range(1..30) {
                if rng.random() {
                    batch.put(id, &b"of a batch"[..]).unwrap();
                } else {
                    batch.delete(id);
                }
            }
            let _ = batch.commit().unwrap();
        }
        6 => _ = store.write_many((id..id + 10).map(|id| (id, "many"))).unwrap(),
        7 => _ = store.update(id, |old| old.is_none().then(|| b"new".to_vec())).unwrap(),
        8 if id.is_multiple_of(16) => store.sync().unwrap(),
        _ => _ = store.put(id, vec![7; rng.random_range(0..64)]).unwrap(),
    }
}

/// Two writers, and a feed that rests now and then, so that it is behind sometimes.
fn life(seed: u64, from_now: bool) -> [u32; 2] {
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = common::scratch();
    let path = dir.path().join("s");
    let (regions, ids) = (rng.random_range(16..22), rng.random_range(50..1000));
    let store = with_short_trails(regions).create(&path).unwrap();
    let (mut mirror, mut was_behind) = (Mirror::new(), 0);
    let mut changes = if from_now { store.changes_from_now() } else { store.changes() }.unwrap();
    if !from_now {
        (0..ids / 2).for_each(|id| _ = store.put(id, b"before").unwrap());
    }
    let (done, written) = (&AtomicBool::new(false), &AtomicU64::new(0));
    let mut told = 0;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (path, mut rng) = (&path, StdRng::seed_from_u64(rng.random()));
                scope.spawn(move || {
                    let store = Store::open(path).unwrap();
                    for _ in 0..8000 {
                        write_at_random(&store, &mut rng, ids);
                        written.fetch_add(1, Ordering::Relaxed);
                        if rng.random_ratio(1, 100) {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let rests = rng.random_ratio(1, 30);
            for _ in 0..rng.random_range(1..100) {
                let Some(change) = changes.next_timeout(Duration::ZERO).unwrap() else { break };
                was_behind += u32::from(take(&mut mirror, change, &store, seed));
                told += 1;
            }
            // Others write meanwhile, some laps of each trail.
            let until = written.load(Ordering::Relaxed) + 3000;
            while rests && !done.load(Ordering::Acquire) && written.load(Ordering::Relaxed) < until {
                std::thread::yield_now();
            }
        }
    });
    while let Some(change) = changes.next_timeout(Duration::from_millis(20)).unwrap() {
        was_behind += u32::from(take(&mut mirror, change, &store, seed));
    }
    let is = versions(&store);
    let differ = |id: &&u64| is.get(id) != mirror.get(id);
    let ids: Vec<_> = is.keys().chain(mirror.keys()).filter(differ).collect();
    assert!(ids.is_empty(), "seed {seed}, from now: {from_now}: these differ: {ids:?}");
    assert!(store.verify().unwrap().is_clean(), "seed {seed}");
    [was_behind, told]
}

#[test]
fn a_feed_equals_the_store_whether_it_follows_or_is_behind() {
    let first = common::seed();
    for seed in first..first + 2 {
        println!("seed {seed}");
        life(seed, false);
    }
}

#[test]
fn a_feed_from_now_on_tells_every_write_and_says_when_it_may_have_missed_deletions() {
    let first = common::seed();
    let (mut told, mut behind) = (0, 0);
    for seed in first..first + 2 {
        println!("seed {seed}");
        let of_life = life(seed, true);
        (behind, told) = (behind + of_life[0], told + of_life[1]);
    }
    println!("{told} changes told, {behind} times behind");
    assert!(told > 1000);
}

fn all_of(changes: &mut Changes<'_>) -> Vec<Change> {
    std::iter::from_fn(|| changes.next_timeout(Duration::ZERO).unwrap()).collect()
}

#[test]
fn from_now_on_nothing_is_told_of_what_was_there() {
    let dir = common::scratch();
    let store = Options::new().record_size(64).regions(3).create(dir.path().join("s")).unwrap();
    (0..1000).for_each(|id| _ = store.put(id, b"before").unwrap());
    let mut changes = store.changes_from_now().unwrap();
    assert_eq!(all_of(&mut changes), []);
    let version = store.put(7, b"new").unwrap();
    store.delete(8).unwrap();
    store.put(2000, b"comes").unwrap();
    store.delete(2000).unwrap();
    let mut told = all_of(&mut changes);
    told.sort_by_key(|change| match change {
        Change::Written { id, .. } | Change::Deleted { id } => *id,
        _ => u64::MAX,
    });
    let written = Change::Written { id: 7, version };
    assert_eq!(told, [written, Change::Deleted { id: 8 }, Change::Deleted { id: 2000 }]);
    // Keyed records are no records with an id.
    store.space("s").unwrap().put("key", b"value").unwrap();
    assert_eq!(all_of(&mut changes), []);
    assert_eq!(changes.next_timeout(Duration::from_millis(1)).unwrap(), None);
}

/// Fails when a feed is behind that followed, or is not behind that did not look for more than a trail.
#[test]
fn a_feed_is_behind_after_more_changes_than_a_trail_has_and_not_before() {
    let dir = common::scratch();
    const LAP: u64 = 4096;
    let store = Options::new().record_size(64).regions(1).create(dir.path().join("s")).unwrap();
    store.put(1, b"there").unwrap();
    let mut changes = store.changes_from_now().unwrap();
    let put_a_lap = || (0..LAP).map(|n| store.put(10 + n % 64, b"x").unwrap()).last().unwrap();
    for _ in 0..5 {
        let last = put_a_lap();
        let told = all_of(&mut changes);
        assert_eq!((told.len(), told.last()), (64, Some(&Change::Written { id: 73, version: last })));
    }
    store.delete(1).unwrap();
    let last = put_a_lap();
    let told = all_of(&mut changes);
    assert_eq!((told[0], told.len()), (Change::Behind, 65));
    assert_eq!(told.last(), Some(&Change::Written { id: 73, version: last }));
    // Nobody looks for many laps, so writers stop telling. Then the feed looks again.
    (0..3 * LAP).for_each(|_| _ = store.put(5, b"many").unwrap());
    let version = store.version(5).unwrap().unwrap();
    assert_eq!(all_of(&mut changes), [Change::Behind, Change::Written { id: 5, version }]);
    store.delete(5).unwrap();
    assert_eq!(all_of(&mut changes), [Change::Deleted { id: 5 }]);
    // A second feed brings the telling back. The first one has not seen the changes between, and knows that.
    (0..3 * LAP).for_each(|_| _ = store.put(6, b"many").unwrap());
    let mut second = store.changes_from_now().unwrap();
    let version = store.put(6, b"last").unwrap();
    assert_eq!(all_of(&mut second), [Change::Written { id: 6, version }]);
    assert_eq!(all_of(&mut changes), [Change::Behind, Change::Written { id: 6, version }]);
}

/// Fails when a feed that sleeps is not woken by a write, or does not give up in time.
#[test]
fn a_feed_that_sleeps_is_woken() {
    let dir = common::scratch();
    let store = &with_short_trails(2).create(dir.path().join("s")).unwrap();
    let mut changes = store.changes_from_now().unwrap();
    let (asks, asked) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for id in asked {
                store.put(id, b"x").unwrap();
            }
        });
        for id in 0..500 {
            asks.send(id).unwrap();
            let told = changes.next_timeout(SOON).unwrap();
            assert!(matches!(told, Some(Change::Written { id: told, .. }) if told == id), "{told:?}");
        }
        drop(asks);
    });
    assert_eq!(changes.next_timeout(Duration::from_millis(5)).unwrap(), None);
}
