//! Snapshots: the whole store as of one moment, whatever is written, deleted, flushed, killed or rebuilt meanwhile.
//!
//! Fails when: a snapshot shows anything written after its moment, or lacks anything from before it; a batch is seen
//! in part; what is lent changes; damage is given as data, or an older version in its place; slots stay kept when
//! nobody needs them.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::{self, End, Me, Worker, in_fork, wait_for};
use rand::Rng;
use rand::seq::IndexedRandom;
use recstore::testing::extents_looked_at;
use recstore::{Commit, Error, Options, Result, Snapshot, Store, Version};

type Content = BTreeMap<u64, Vec<u8>>;

fn small() -> Options {
    Options::new().record_size(64).regions(2).slots_per_extent(16)
}

fn is_clean(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

fn content(store: &Store) -> Content {
    store.iter().map(|r| r.unwrap()).map(|r| (r.id(), r.into_data())).collect()
}

/// What a snapshot's iteration gives; no record comes twice.
fn iterated(snapshot: &Snapshot<'_>) -> Content {
    let mut seen = Content::new();
    for record in snapshot.iter() {
        let (id, version, data) = record.unwrap();
        assert!(seen.insert(id, data.to_vec()).is_none(), "id {id} comes twice");
        assert_eq!(snapshot.get_versioned(id).unwrap(), Some((version, data)));
    }
    seen
}

/// Every id below `ids` is as in the model, and the iteration gives all of the model.
fn shows(snapshot: &Snapshot<'_>, model: &Content, ids: u64) {
    for id in 0..ids {
        let seen = snapshot.get(id).unwrap();
        assert_eq!(seen, model.get(&id).map(|data| &data[..]), "id {id}");
    }
    assert_eq!(iterated(snapshot), *model);
}

fn batch(store: &Store, puts: &[u64], deletions: &[u64], data: &[u8]) {
    let mut batch = store.batch();
    puts.iter().for_each(|&id| batch.put(id, data.to_vec()).unwrap());
    deletions.iter().for_each(|&id| batch.delete(id));
    assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
}

#[test]
fn a_snapshot_shows_its_moment_whatever_is_written_afterwards() {
    for synced in [false, true] {
        let dir = common::scratch();
        let store = small().create(dir.path().join("s")).unwrap();
        (0..40).for_each(|id| _ = store.put(id, &[id as u8; 50]).unwrap());
        if synced {
            store.sync().unwrap();
            (0..20).for_each(|id| _ = store.put(id, &[id as u8 + 100; 50]).unwrap());
            assert!(store.delete(30).unwrap());
        }
        let before = content(&store);
        let versions: BTreeMap<u64, Version> =
            store.iter().map(|r| r.unwrap()).map(|r| (r.id(), r.version())).collect();
        let snapshot = store.snapshot().unwrap();
        shows(&snapshot, &before, 100);
        let lent: Vec<(u64, &[u8])> =
            before.keys().map(|&id| (id, snapshot.get(id).unwrap().unwrap())).collect();
        for round in 0..60u8 {
            (0..10).for_each(|id| _ = store.put(id, &[round; 40]).unwrap());
            (10..20).for_each(|id| _ = store.delete(id).unwrap());
            (50..60).for_each(|id| _ = store.put(id, &[round; 60]).unwrap());
            batch(&store, &[20, 21, 60, 61], &[22, 23, 50, 51], &[round; 64]);
            store.update(24, |old| old.map(|old| old.iter().map(|b| b ^ 1).collect::<Vec<u8>>())).unwrap();
            let mut room = store.reserve(25, 8).unwrap();
            room.fill(round).unwrap();
            room.commit().unwrap();
            match round % 20 {
                5 => store.sync().unwrap(),
                9 => store.repair().map(drop).unwrap(),
                13 => (0..600).for_each(|id| _ = store.put(1000 + id, b"so that the index moves").unwrap()),
                17 => (0..600).for_each(|id| _ = store.delete(1000 + id).unwrap()),
                _ => {}
            }
            if round % 10 == 0 {
                shows(&snapshot, &before, 100);
            }
        }
        shows(&snapshot, &before, 100);
        for (id, bytes) in lent {
            assert_eq!(bytes, before[&id], "what was lent of record {id} has changed");
            assert_eq!(snapshot.get_versioned(id).unwrap().unwrap().0, versions[&id]);
        }
        let later = store.snapshot().unwrap();
        shows(&later, &content(&store), 100);
        shows(&snapshot, &before, 100);
        drop((snapshot, later));
        is_clean(&store);
        assert_eq!(store.stats().unwrap().attached.len(), 1, "a snapshot's handle goes with it");
    }
}

/// A snapshot that is not asked before everything is gone, by an iteration alone.
#[test]
fn a_snapshot_that_is_first_read_when_all_is_gone_has_it_all() {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    (0..200).for_each(|id| _ = store.put(id, &[id as u8; 50]).unwrap());
    let before = content(&store);
    let snapshot = store.snapshot().unwrap();
    (0..200).for_each(|id| _ = store.delete(id).unwrap());
    store.sync().unwrap();
    (500..900).for_each(|id| _ = store.put(id, b"in the place of what is free").unwrap());
    store.sync().unwrap();
    assert_eq!(iterated(&snapshot), before);
    shows(&snapshot, &before, 1000);
}

#[test]
fn values_are_lent_where_they_lie() {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    store.typed::<[f64; 2]>().unwrap().put(1, &[1.5, 2.5]).unwrap();
    store.slices::<u32>().unwrap().put(2, &[1, 2, 3]).unwrap();
    store.put(3, b"").unwrap();
    let snapshot = store.snapshot().unwrap();
    (1..4).for_each(|id| _ = store.put(id, b"another").unwrap());
    assert_eq!(snapshot.get_as::<[f64; 2]>(1).unwrap(), Some(&[1.5, 2.5]));
    assert_eq!(snapshot.get_slice::<u32>(2).unwrap(), Some(&[1, 2, 3][..]));
    assert_eq!(snapshot.get(3).unwrap(), Some(&b""[..]));
    assert_eq!(snapshot.get_as::<u64>(9).unwrap(), None);
    assert!(matches!(snapshot.get_as::<[u8; 3]>(1), Err(Error::TypeMismatch { .. })));
    assert!(matches!(snapshot.get_slice::<u64>(2), Err(Error::TypeMismatch { .. })));
    assert_eq!(snapshot.get(1).unwrap().unwrap().as_ptr().addr() % 32, 0);
}

#[test]
fn a_snapshot_is_refused_where_it_could_not_be_kept() {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    store.put(1, b"one").unwrap();
    assert!(matches!(Store::open_read_only(store.path()).unwrap().snapshot(), Err(Error::ReadOnly { .. })));
    let inside = store.update(1, |_| {
        assert!(matches!(store.snapshot(), Err(Error::Reentrant { .. })));
        None::<Vec<u8>>
    });
    assert_eq!(inside.unwrap(), None);
    assert_eq!(store.stats().unwrap().attached.len(), 1);
}

/// Several snapshots of several moments, among random calls by two handles.
#[test]
fn snapshots_among_random_calls_equal_a_model_of_their_moment() {
    const IDS: u64 = 60;
    let mut rng = common::seeded();
    for (regions, slots) in [(1, 1), (2, 16), (7, 4)] {
        let dir = common::scratch();
        let path = dir.path().join("s");
        let options = Options::new().record_size(64).regions(regions).slots_per_extent(slots);
        let handles = [options.create(&path).unwrap(), Store::open(&path).unwrap()];
        let mut model = Content::new();
        let mut snapshots: Vec<(Snapshot<'_>, Content)> = Vec::new();
        for step in 0..3000u64 {
            let store = &handles[rng.random_range(0..2)];
            let id = rng.random_range(0..IDS);
            let data: Vec<u8> = (0..rng.random_range(0..64)).map(|_| rng.random()).collect();
            match rng.random_range(0..40) {
                0..14 => {
                    store.put(id, &data).unwrap();
                    model.insert(id, data);
                }
                14..22 => assert_eq!(store.delete(id).unwrap(), model.remove(&id).is_some()),
                22..28 => {
                    let mut batch = store.batch();
                    for _ in 0..rng.random_range(1..8) {
                        let id = rng.random_range(0..IDS);
                        if rng.random() {
                            batch.put(id, data.clone()).unwrap();
                            model.insert(id, data.clone());
                        } else {
                            batch.delete(id);
                            model.remove(&id);
                        }
                    }
                    assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
                }
                28 => store.sync().unwrap(),
                29 => _ = store.repair().unwrap(),
                30..32 if snapshots.len() < 4 => snapshots.push((store.snapshot().unwrap(), model.clone())),
                32 if !snapshots.is_empty() => {
                    let (snapshot, was) = snapshots.swap_remove(rng.random_range(0..snapshots.len()));
                    shows(&snapshot, &was, IDS);
                }
                33 => {
                    if let Some((snapshot, was)) = snapshots.choose(&mut rng) {
                        assert_eq!(iterated(snapshot), *was);
                    }
                }
                _ => {
                    if let Some((snapshot, was)) = snapshots.choose(&mut rng) {
                        assert_eq!(snapshot.get(id).unwrap(), was.get(&id).map(|d| &d[..]), "id {id}");
                    }
                }
            }
            if step % 500 == 0 {
                assert_eq!(content(store), model);
                is_clean(store);
            }
        }
        snapshots.iter().for_each(|(snapshot, was)| shows(snapshot, was, IDS));
    }
}

const ACCOUNTS: u64 = 30;
const MONEY: u64 = 30_000;

fn balance(data: &[u8]) -> u64 {
    u64::from_le_bytes(data[..8].try_into().unwrap())
}

fn accounts(path: &Path) -> Store {
    let store = small().regions(4).create(path).unwrap();
    (0..ACCOUNTS).for_each(|id| _ = store.put(id, &(MONEY / ACCOUNTS).to_le_bytes()).unwrap());
    store
}

/// Moves money between two accounts, by a batch. An account without money is deleted.
fn transfer(store: &Store, rng: &mut impl Rng) {
    let (from, to) = (rng.random_range(0..ACCOUNTS), rng.random_range(0..ACCOUNTS));
    if from == to {
        return;
    }
    let read = |id| {
        let record = store.get(id).unwrap();
        (record.as_ref().map(|r| r.version()), record.map_or(0, |r| balance(&r)))
    };
    let [(version_a, a), (version_b, b)] = [from, to].map(read);
    let amount = if rng.random_ratio(1, 3) { a } else { rng.random_range(0..=a) };
    let mut batch = store.batch();
    batch.require(from, version_a);
    batch.require(to, version_b);
    for (id, money) in [(from, a - amount), (to, b + amount)] {
        if money == 0 {
            batch.delete(id);
        } else {
            batch.put(id, money.to_le_bytes().to_vec()).unwrap();
        }
    }
    let _ = batch.commit().unwrap();
}

/// The sum by single gets, the one by an iteration, and the one by gets again are the same.
fn sums(snapshot: &Snapshot<'_>) {
    let by_gets = || -> u64 { (0..ACCOUNTS).map(|id| snapshot.get(id).unwrap().map_or(0, balance)).sum() };
    assert_eq!(by_gets(), MONEY, "by gets");
    std::thread::yield_now();
    assert_eq!(snapshot.iter().map(|r| balance(r.unwrap().2)).sum::<u64>(), MONEY, "by an iteration");
    assert_eq!(by_gets(), MONEY, "by gets, again");
}

#[test]
fn sums_are_right_while_threads_transfer() {
    let dir = common::scratch();
    let store = accounts(&dir.path().join("s"));
    let seed = common::seed();
    let done = AtomicBool::new(false);
    let transfers = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (store, done, transfers) = (&store, &done, &transfers);
            scope.spawn(move || {
                let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed ^ thread);
                while !done.load(Ordering::Relaxed) {
                    transfer(store, &mut rng);
                    if transfers.fetch_add(1, Ordering::Relaxed) % 500 == 0 {
                        store.sync().unwrap();
                    }
                }
            });
        }
        for _ in 0..150 {
            let begun = transfers.load(Ordering::Relaxed);
            let snapshot = store.snapshot().unwrap();
            sums(&snapshot);
            common::until("transfers go on", || transfers.load(Ordering::Relaxed) > begun + 10);
            sums(&snapshot);
        }
        done.store(true, Ordering::Relaxed);
    });
    sums(&store.snapshot().unwrap());
    is_clean(&store);
}

#[test]
fn sums_are_right_while_the_processes_that_transfer_are_killed() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = accounts(&path);
    let seed = common::seed();
    let start = |life: u64| {
        let seed = (seed ^ life << 8).to_string();
        Worker::spawn("transfer", &[("STORE", path.to_str().unwrap()), ("RECSTORE_SEED", &seed)])
    };
    let mut writers: Vec<Worker> = (0..3).map(start).collect();
    for life in 3..40 {
        let snapshot = store.snapshot().unwrap();
        for writer in &mut writers {
            (0..1 + (seed ^ life) % 7).for_each(|_| _ = writer.hear());
        }
        let victim = life as usize % writers.len();
        writers[victim].kill();
        sums(&snapshot);
        sums(&store.snapshot().unwrap());
        writers[victim] = start(life);
    }
    drop(writers);
    sums(&store.snapshot().unwrap());
    is_clean(&store);
    let attached = store.stats().unwrap().attached;
    assert_eq!(attached.iter().filter(|a| a.alive).count(), 1);
}

/// The writer dies inside of a region. Who heals it keeps what the snapshot needs, with several versions of a record
/// on both sides of its moment.
#[test]
fn a_rebuild_leaves_what_a_snapshot_shows() {
    for synced in [false, true] {
        let dir = common::scratch();
        let path = dir.path().join("s");
        let store = small().regions(1).create(&path).unwrap();
        for round in 0..3u8 {
            (0..20).for_each(|id| _ = store.put(id, &[round * 20 + id as u8; 60]).unwrap());
            if synced {
                store.sync().unwrap();
            }
        }
        let before = content(&store);
        let snapshot = store.snapshot().unwrap();
        let asked_before = store.snapshot().unwrap();
        (0..5).for_each(|id| _ = store.put(id, b"anew").unwrap());
        (0..3).for_each(|id| _ = store.put(id, b"and again").unwrap());
        (5..10).for_each(|id| assert!(store.delete(id).unwrap()));
        (8..10).for_each(|id| _ = store.put(id, b"back").unwrap());
        shows(&asked_before, &before, 40);
        for round in 0..3 {
            let mut worker = Worker::spawn("die inside", &[("STORE", path.to_str().unwrap())]);
            worker.expect("inside");
            worker.kill();
            if round == 1 {
                shows(&snapshot, &before, 40);
            }
            (0..30).for_each(|id| _ = store.put(id, &[round; 30]).unwrap());
            (12..14).for_each(|id| _ = store.delete(id).unwrap());
            if synced {
                store.sync().unwrap(); // So nothing but the pin keeps what was replaced.
            }
        }
        shows(&snapshot, &before, 40);
        shows(&asked_before, &before, 40);
        drop((snapshot, asked_before));
        is_clean(&store);
    }
}

#[test]
fn when_a_snapshot_is_gone_the_slots_that_it_kept_are_used_again() {
    let dir = common::scratch();
    let store = small().regions(1).create(dir.path().join("s")).unwrap();
    let rounds = |n: u64| {
        for round in 0..n {
            let snapshot = store.snapshot().unwrap();
            (0..50).for_each(|id| _ = store.put(id, &round.to_le_bytes()).unwrap());
            (0..50).step_by(5).for_each(|id| assert!(store.delete(id).unwrap()));
            assert_eq!(snapshot.iter().count(), if round == 0 && n == 5 { 0 } else { 40 });
            drop(snapshot);
            store.sync().unwrap();
        }
    };
    rounds(5);
    let early = store.stats().unwrap().slots;
    rounds(100);
    assert_eq!(store.stats().unwrap().slots, early);
    is_clean(&store);
}

#[test]
fn the_snapshot_of_a_dead_process_keeps_nothing() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = small().regions(1).create(&path).unwrap();
    let fill = || (0..2000u64).for_each(|n| _ = store.put(n % 200, &n.to_le_bytes()).unwrap());
    fill();
    let mut worker = Worker::spawn("snapshot", &[("STORE", path.to_str().unwrap())]);
    worker.expect("taken");
    fill();
    store.sync().unwrap();
    (0..200).for_each(|id| _ = store.put(id, b"another").unwrap());
    let pinned = store.stats().unwrap();
    assert!(pinned.retired_slots >= 200, "{}", pinned.retired_slots);
    let of_worker = |a: &&recstore::Attached| a.alive && a.pid == worker.pid();
    assert_eq!(pinned.attached.iter().filter(of_worker).map(|a| a.pins).sum::<u64>(), 1);
    worker.kill();
    store.sync().unwrap();
    (1000..1150).for_each(|id| _ = store.put(id, b"in the place of what was kept").unwrap());
    let after = store.stats().unwrap();
    assert!(after.slots <= pinned.slots, "{} slots are kept still", after.retired_slots);
    is_clean(&store);
}

fn inherited(me: &mut Me) {
    let store = small().regions(1).create(me.var("STORE")).unwrap();
    store.put(1, b"the parent's").unwrap();
    let snapshot = store.snapshot().unwrap();
    let lent = snapshot.get(1).unwrap().unwrap();
    let child = in_fork(|| {
        assert!(matches!(store.snapshot(), Err(Error::Forked { .. })));
        assert!(matches!(snapshot.get(1), Err(Error::Forked { .. })));
        assert!(matches!(snapshot.iter().next(), Some(Err(Error::Forked { .. }))));
        // SAFETY: what is borrowed of it is the parent's copy, and not used here any more.
        drop(unsafe { std::ptr::read(&raw const snapshot) });
        0
    });
    assert_eq!(wait_for(child), End::Exited(0));
    for n in 0..200u64 {
        store.put(1, &n.to_le_bytes()).unwrap();
    }
    assert_eq!(lent, b"the parent's", "the child has taken the parent's pin back");
    assert_eq!(snapshot.get(1).unwrap(), Some(&b"the parent's"[..]));
}

#[test]
fn a_forked_child_is_refused_and_leaves_its_parents_snapshot_alone() {
    let dir = common::scratch();
    common::alone("inherited", &[("STORE", dir.path().join("s").to_str().unwrap())]);
}

/// Flips a bit of the first occurrence of `text`.
fn flip(path: &Path, text: &[u8]) {
    let bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(text.len()).position(|w| w == text).expect("the text is in the file");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
}

fn is_corrupt<T>(result: Result<T>, of: u64) {
    match result {
        Err(Error::Corrupt { id, slot: Some(_), .. }) if id == of => {}
        Err(error) => panic!("record {of}: {error}"),
        Ok(_) => panic!("record {of} is given, and may be wrong"),
    }
}

#[test]
fn damage_is_an_error_and_nothing_older_stands_in_for_it() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = small().regions(1).create(&path).unwrap();
    (1..5).for_each(|id| _ = store.put(id, b"of the last sync").unwrap());
    store.sync().unwrap();
    store.put(1, b"the first, which stays").unwrap();
    store.put(2, b"the second, which is replaced").unwrap();
    store.put(3, b"the third, which is replaced").unwrap();
    let snapshot = store.snapshot().unwrap();
    flip(&path, b"the first, which stays");
    is_corrupt(snapshot.get(1), 1);
    // Of this one an older version is there, whole, from the last sync.
    let (whole, damaged): (Vec<_>, Vec<_>) = snapshot.iter().partition(|r| r.is_ok());
    let mut whole: Vec<u64> = whole.into_iter().map(|r| r.unwrap().0).collect();
    whole.sort_unstable();
    assert_eq!(whole, [2, 3, 4]);
    damaged.into_iter().for_each(|r| is_corrupt(r, 1));
    store.put(2, b"anew").unwrap();
    store.put(3, b"anew").unwrap();
    store.put(5, b"a newcomer").unwrap();
    assert_eq!(snapshot.get(3).unwrap(), Some(&b"the third, which is replaced"[..]));
    assert_eq!(snapshot.get(5).unwrap(), None);
    // A pass after the damage: of the second record an older version is there, whole.
    let late = store.snapshot().unwrap();
    store.put(4, b"anew").unwrap();
    let snapshot_late = {
        flip(&path, b"the second, which is replaced");
        is_corrupt(snapshot.get(2), 2);
        late
    };
    // The damaged version was replaced before the later moment, so it is not theirs: those replaced since are whole.
    assert_eq!(snapshot_late.get(4).unwrap(), Some(&b"of the last sync"[..]));
    assert_eq!(snapshot_late.get(6).unwrap(), None);
    assert_eq!(snapshot_late.get(2).unwrap(), Some(&b"anew"[..]), "the index leads to it: nothing is newer");
    let all: Vec<_> = snapshot_late.iter().collect();
    let whole: Vec<u64> = all.iter().filter_map(|r| r.as_ref().ok()).map(|r| r.0).collect();
    assert_eq!(whole.len(), 4, "{all:?}");
    assert!([2, 3, 4, 5].iter().all(|id| whole.contains(id)), "{all:?}");
    assert!(all.iter().flat_map(|r| r.as_ref().err()).all(|e| matches!(e, Error::Corrupt { .. })), "{all:?}");
    assert!(all.iter().filter(|r| r.is_err()).count() >= 2, "{all:?}");
    // One that was replaced since is damaged: its id is not known, so nothing tells that it is not theirs.
    store.put(3, b"once more").unwrap();
    store.put(5, b"once more").unwrap();
    flip(&path, b"a newcomer");
    is_corrupt(snapshot_late.get(5), 5);
    is_corrupt(snapshot_late.get(6), 6);
}

#[test]
fn what_is_damaged_and_then_replaced_is_not_forgotten() {
    for before in [false, true] {
        let dir = common::scratch();
        let path = dir.path().join("s");
        let store = small().regions(1).create(&path).unwrap();
        if before {
            store.put(1, b"of the last sync").unwrap();
            store.sync().unwrap();
        }
        store.put(1, b"what is damaged").unwrap();
        let snapshot = store.snapshot().unwrap();
        flip(&path, b"what is damaged");
        store.put(1, b"anew").unwrap();
        (10..40).for_each(|id| _ = store.put(id, b"in the place of what is free").unwrap());
        is_corrupt(snapshot.get(1), 1);
        assert!(snapshot.iter().all(|r| r.is_err()));
        assert_eq!(store.get(1).unwrap().unwrap().data(), b"anew");
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "inherited" => inherited(&mut me),
        "snapshot" => {
            let store = Store::open(me.var("STORE")).unwrap();
            let snapshot = store.snapshot().unwrap();
            assert!(snapshot.get(1).unwrap().is_some());
            me.say("taken");
            me.wait_for_the_end();
        }
        "die inside" => {
            let store = Store::open(me.var("STORE")).unwrap();
            let stopped = store.update(11, |_| {
                me.say("inside");
                me.wait_for_the_end();
                None::<Vec<u8>>
            });
            stopped.unwrap();
        }
        "transfer" => {
            let store = Store::open(me.var("STORE")).unwrap();
            let mut rng = common::seeded();
            loop {
                (0..20).for_each(|_| transfer(&store, &mut rng));
                me.say("some");
            }
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn changed_and_absent_records_are_found_without_a_pass_over_their_regions() {
    let dir = common::scratch();
    let store = Options::new().record_size(64).create(dir.path().join("s")).unwrap();
    store.write_many((0..20_000u64).map(|id| (id, id.to_le_bytes()))).unwrap();
    store.sync().unwrap();
    let snapshot = store.snapshot().unwrap();
    (0..1000u64).for_each(|id| _ = store.put(id, b"another").unwrap());
    (1000..1500).for_each(|id| assert!(store.delete(id).unwrap()));
    (30_000..30_100).for_each(|id| _ = store.put(id, b"new").unwrap());
    let before = extents_looked_at(&store);
    for id in 0..1500u64 {
        assert_eq!(snapshot.get(id).unwrap(), Some(&id.to_le_bytes()[..]), "record {id}");
        if id % 10 == 0 {
            store.put(id, b"once more").unwrap();
        }
    }
    for id in (20_000..20_100).chain(30_000..30_100) {
        assert_eq!(snapshot.get(id).unwrap(), None, "record {id}");
    }
    assert_eq!(extents_looked_at(&store), before, "a region was passed over");
}

/// Several snapshots, each with what it must show, beside writes, deletions, batches, flushes, rebuilds, and reads of single records
/// in between: what a snapshot learned of a region goes on to hold.
#[test]
fn what_a_snapshot_learned_of_a_region_holds_whatever_happens_to_the_region() {
    const IDS: u64 = 60;
    let mut random = common::seeded();
    for _ in 0..30 {
        let dir = common::scratch();
        let path = dir.path().join("s");
        let store = Options::new().record_size(64).regions(2).create(&path).unwrap();
        let mut now = Content::new();
        let mut snapshots: Vec<(Snapshot<'_>, Content)> = Vec::new();
        for step in 0..600u64 {
            let id = random.random_range(0..IDS);
            let data = step.to_le_bytes()[..random.random_range(1..8)].to_vec();
            match random.random_range(0..100) {
                0..45 => {
                    store.put(id, &data).unwrap();
                    now.insert(id, data);
                }
                45..60 => assert_eq!(store.delete(id).unwrap(), now.remove(&id).is_some()),
                60..64 => {
                    let other = (id + 1) % IDS;
                    batch(&store, &[id], &[other], &data);
                    now.insert(id, data);
                    now.remove(&other);
                }
                64..69 => store.sync().unwrap(),
                69..72 => recstore::testing::mark_for_rebuild(&path, random.random_range(0..2)).unwrap(),
                72..76 if snapshots.len() < 4 => {
                    snapshots.push((store.snapshot().unwrap(), now.clone()));
                }
                76..78 if !snapshots.is_empty() => {
                    drop(snapshots.swap_remove(random.random_range(0..snapshots.len())));
                }
                _ => {
                    if let Some((snapshot, then)) = snapshots.choose(&mut random) {
                        let seen = snapshot.get(id).unwrap();
                        assert_eq!(seen, then.get(&id).map(|data| &data[..]), "id {id} in step {step}");
                    }
                }
            }
        }
        for (snapshot, then) in &snapshots {
            shows(snapshot, then, IDS);
        }
        drop(snapshots);
        is_clean(&store);
    }
}
