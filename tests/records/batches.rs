//! Atomic batches: all of their changes count or none, for whoever reads through a pin, when processes
//! are killed, and after a crash of the operating system.
//!
//! Fails when: a batch is seen in part; a conflict changes anything; the store differs from a model;
//! money is made or lost by transfers whose processes are killed; `verify` finds anything. Deaths at every
//! step are in `kill_points`, losses of power in `power_loss`. Needs the feature `testing`.

#![cfg(feature = "testing")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{self, Me, Worker};
use rand::Rng;
use rand::rngs::StdRng;
use recstore::testing::set_boot_id;
use recstore::{Commit, Durability, Error, Lock, Options, Store, Version};

const REGIONS: u32 = 4;

fn options() -> Options {
    Options::new().record_size(64).regions(REGIONS).slots_per_extent(16)
}

fn is_clean(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

fn done(commit: Commit) -> BTreeMap<u64, Version> {
    match commit {
        Commit::Done(versions) => versions.into_iter().collect(),
        Commit::Conflict { id, current } => panic!("a conflict over {id}, which is at {current:?}"),
    }
}

#[test]
fn all_changes_are_made_at_once() {
    let dir = common::scratch();
    let store = options().create(dir.path().join("s")).unwrap();
    store.put(1, b"one").unwrap();
    store.put(2, b"two").unwrap();
    let mut batch = store.batch();
    assert!(batch.is_empty());
    for id in 10..60 {
        batch.put(id, format!("record {id}").into_bytes()).unwrap();
    }
    batch.put(1, &b"another"[..]).unwrap();
    batch.delete(2);
    batch.delete(3); // There is none.
    batch.put(4, &b"to be deleted again"[..]).unwrap();
    batch.delete(4);
    batch.delete(5);
    batch.put(5, &b"after all"[..]).unwrap();
    assert_eq!(batch.len(), 57);
    assert_eq!(store.len().unwrap(), 2, "nothing happens before the commit");
    let versions = done(batch.commit().unwrap());
    let ids: Vec<u64> = (10..60).chain([1, 5]).collect();
    assert_eq!(versions.keys().copied().collect::<Vec<_>>(), {
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted
    });
    for (&id, &version) in &versions {
        assert_eq!(store.version(id).unwrap(), Some(version));
    }
    assert_eq!(store.get(1).unwrap().unwrap().data(), b"another");
    assert_eq!(store.get(5).unwrap().unwrap().data(), b"after all");
    assert!([2, 3, 4].iter().all(|&id| store.get(id).unwrap().is_none()));
    assert_eq!(store.len().unwrap(), 52);
    is_clean(&store);
}

#[test]
fn a_conflict_changes_nothing() {
    let dir = common::scratch();
    let store = options().create(dir.path().join("s")).unwrap();
    let first = store.put(1, b"one").unwrap();
    let attempt = |expected_1, expected_2| {
        let mut batch = store.batch();
        batch.put(3, &b"three"[..]).unwrap();
        batch.compare_and_swap(1, expected_1, &b"changed"[..]).unwrap();
        batch.require(2, expected_2);
        batch.commit().unwrap()
    };
    assert_eq!(attempt(None, None), Commit::Conflict { id: 1, current: Some(first) });
    let odd = Version::from_u64(77);
    assert_eq!(attempt(Some(first), Some(odd)), Commit::Conflict { id: 2, current: None });
    assert_eq!(store.len().unwrap(), 1);
    assert_eq!(store.version(1).unwrap(), Some(first));
    let versions = done(attempt(Some(first), None));
    assert_eq!(versions.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert!(versions[&1] > first);
    assert_eq!(attempt(Some(first), None), Commit::Conflict { id: 1, current: Some(versions[&1]) });
    // A batch of conditions alone.
    let mut batch = store.batch();
    batch.require(1, Some(versions[&1]));
    batch.require(2, None);
    assert_eq!(done(batch.commit().unwrap()).len(), 0);
    is_clean(&store);
}

#[test]
fn what_cannot_be_written_leaves_all_as_it_was() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = options().max_size(256 << 10).create(&path).unwrap();
    store.put(1, b"one").unwrap();
    let mut batch = store.batch();
    match batch.put(2, vec![0; 65]) {
        Err(Error::RecordTooLong { id: 2, len: 65, max: 64, .. }) => {}
        other => panic!("{other:?}"),
    }
    for id in 1..10_000 {
        batch.put(id, &b"too many for the ceiling"[..]).unwrap();
    }
    match batch.commit() {
        Err(Error::Full { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(store.len().unwrap(), 1);
    assert_eq!(store.get(1).unwrap().unwrap().data(), b"one");
    is_clean(&store);
    let stats = store.stats().unwrap();
    assert_eq!(stats.slots, stats.records + stats.free_slots + stats.retired_slots);
    let mut batch = store.batch();
    batch.put(1, &b"there is room for this"[..]).unwrap();
    done(batch.commit().unwrap());
    let reader = Store::open_read_only(&path).unwrap();
    let mut batch = reader.batch();
    batch.put(2, &b"no"[..]).unwrap();
    assert!(matches!(batch.commit(), Err(Error::ReadOnly { .. })));
    let refused = store.update(1, |_| {
        let mut batch = store.batch();
        batch.delete(2);
        assert!(matches!(batch.commit(), Err(Error::Reentrant { .. })));
        None::<Vec<u8>>
    });
    assert_eq!(refused.unwrap(), None);
}

/// A random batch, and the model after it.
fn random_batch(store: &Store, model: &mut BTreeMap<u64, Vec<u8>>, rng: &mut StdRng, durability: Durability) {
    let mut batch = store.batch();
    let mut after = model.clone();
    for _ in 0..rng.random_range(0..12) {
        let id = rng.random_range(0..60);
        if rng.random_ratio(1, 3) {
            batch.delete(id);
            after.remove(&id);
        } else {
            let data: Vec<u8> = (0..rng.random_range(0..64)).map(|_| rng.random()).collect();
            batch.put(id, data.clone()).unwrap();
            after.insert(id, data);
        }
    }
    let is_refused = rng.random_ratio(1, 6);
    for _ in 0..rng.random_range(0..3) {
        let id = rng.random_range(0..60);
        batch.require(id, store.version(id).unwrap());
    }
    if is_refused {
        batch.require(rng.random_range(0..60), Some(Version::from_u64(1 << 60)));
    }
    match batch.commit_with(durability).unwrap() {
        Commit::Done(_) => {
            assert!(!is_refused);
            *model = after;
        }
        Commit::Conflict { .. } => assert!(is_refused),
    }
}

fn equals(store: &Store, model: &BTreeMap<u64, Vec<u8>>) {
    let content: BTreeMap<u64, Vec<u8>> =
        store.iter().map(|r| r.unwrap()).map(|r| (r.id(), r.into_data())).collect();
    assert_eq!(content, *model);
    assert_eq!(store.len().unwrap(), model.len() as u64);
}

#[test]
fn batches_among_other_writes_equal_a_model() {
    let dir = common::scratch();
    let mut rng = common::seeded();
    let store = options().create(dir.path().join("s")).unwrap();
    let mut model = BTreeMap::new();
    let mut pin = None;
    for step in 0..3_000 {
        let id = rng.random_range(0..60);
        match rng.random_range(0..20) {
            0..8 => random_batch(&store, &mut model, &mut rng, Durability::Process),
            8..12 => {
                store.put(id, &[step as u8; 40]).unwrap();
                model.insert(id, vec![step as u8; 40]);
            }
            12..14 => assert_eq!(store.delete(id).unwrap(), model.remove(&id).is_some()),
            14 => random_batch(&store, &mut model, &mut rng, Durability::Disk),
            15 => store.sync().unwrap(),
            16 => pin = Some(store.pin().unwrap()),
            17 => pin = None,
            _ => {
                let ids: Vec<u64> = (0..60).collect();
                let pin = store.pin().unwrap();
                for (id, data) in ids.iter().zip(pin.get_many(&ids).unwrap()) {
                    assert_eq!(data, model.get(id).map(|data| &data[..]), "id {id}");
                }
            }
        }
        if step % 100 == 0 {
            equals(&store, &model);
            is_clean(&store);
        }
    }
    drop(pin);
    equals(&store, &model);
    is_clean(&store);
}

#[test]
fn batches_without_a_sync_take_no_more_room_than_single_writes() {
    let dir = common::scratch();
    let store = options().create(dir.path().join("s")).unwrap();
    let rounds = |n: u8, with_deletions| {
        for round in 0..n {
            let mut batch = store.batch();
            for id in 0..20 {
                batch.put(id, vec![round; 64]).unwrap();
                if with_deletions && (u64::from(round) + id) % 3 == 0 {
                    batch.delete(id);
                }
            }
            done(batch.commit().unwrap());
        }
    };
    rounds(10, true);
    let early = store.stats().unwrap();
    rounds(200, true);
    let late = store.stats().unwrap();
    assert_eq!((late.slots, late.retired_slots), (early.slots, 0), "{early:?}");
    store.sync().unwrap();
    rounds(100, false);
    let kept = store.stats().unwrap().retired_slots;
    assert!(kept <= 20, "{kept} slots are kept: more than the records of the last sync");
    is_clean(&store);
}

#[test]
fn after_a_crash_of_the_system_a_batch_that_no_sync_made_durable_is_gone_as_a_whole() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let mut rng = common::seeded();
    let mut model = BTreeMap::new();
    options().create(&path).unwrap();
    for _ in 0..60 {
        let store = Store::open(&path).unwrap();
        equals(&store, &model);
        for _ in 0..rng.random_range(0..10) {
            random_batch(&store, &mut model, &mut rng, Durability::Process);
        }
        if rng.random() {
            random_batch(&store, &mut model, &mut rng, Durability::Disk);
        }
        store.sync().unwrap();
        let mut lost = model.clone();
        for _ in 0..rng.random_range(0..10) {
            random_batch(&store, &mut lost, &mut rng, Durability::Process);
        }
        drop(store);
        set_boot_id(&path).unwrap();
        let store = Store::open(&path).unwrap();
        assert!(store.opened().os_crash && store.opened().dropped.is_empty(), "{:?}", store.opened());
        equals(&store, &model);
        is_clean(&store);
        let said = store.opened().fixed.iter().any(|what| what.contains("batches"));
        assert!(said || lost == model, "what is given up is said");
    }
}

const ACCOUNTS: u64 = 40;
const MONEY: u64 = 1_000_000;

fn balance(data: &[u8]) -> u64 {
    u64::from_le_bytes(data[..8].try_into().unwrap())
}

/// Moves money between accounts, and tells of each transfer that it was done.
fn transfer(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    let own: u64 = me.var("WRITER").parse().unwrap();
    let mut rng = common::seeded();
    let mut done = 0u64;
    loop {
        let (from, to) = (rng.random_range(0..ACCOUNTS), rng.random_range(0..ACCOUNTS));
        if from == to {
            continue;
        }
        let [a, b] = [from, to].map(|id| store.get(id).unwrap().expect("an account"));
        let amount = rng.random_range(0..=balance(&a));
        let mut batch = store.batch();
        let (less, more) = (balance(&a) - amount, balance(&b) + amount);
        batch.compare_and_swap(from, Some(a.version()), less.to_le_bytes().to_vec()).unwrap();
        batch.compare_and_swap(to, Some(b.version()), more.to_le_bytes().to_vec()).unwrap();
        batch.put(ACCOUNTS + own, (done + 1).to_le_bytes().to_vec()).unwrap();
        if let Commit::Done(_) = batch.commit().unwrap() {
            done += 1;
            me.say(&done.to_string());
        }
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "transfer" => transfer(&mut me),
        "stop_inside" => stop_inside(&mut me),
        other => panic!("no role {other}"),
    }
}

fn sum(store: &Store) -> u64 {
    let ids: Vec<u64> = (0..ACCOUNTS).collect();
    let pin = store.pin().unwrap();
    let found = pin.get_many(&ids).unwrap();
    found.into_iter().map(|data| balance(data.expect("an account"))).sum()
}

fn accounts(path: &Path) -> Store {
    let store = options().create(path).unwrap();
    for id in 0..ACCOUNTS {
        store.put(id, &(MONEY / ACCOUNTS).to_le_bytes()).unwrap();
    }
    store
}

#[test]
fn transfers_whose_processes_are_killed_neither_make_nor_lose_money() {
    const WRITERS: u64 = 3;
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = accounts(&path);
    let seed = common::seed();
    let start = |writer: u64, life: u64| {
        let (writer, seed) = (writer.to_string(), (seed ^ (life << 8 | writer)).to_string());
        let with = [("STORE", path.to_str().unwrap()), ("WRITER", &writer), ("RECSTORE_SEED", &seed)];
        Worker::spawn("transfer", &with)
    };
    let mut writers: Vec<Worker> = (0..WRITERS).map(|n| start(n, 0)).collect();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !ended.load(Ordering::Relaxed) {
                assert_eq!(sum(&store), MONEY, "a transfer is seen in part");
                reads += 1;
            }
            reads
        });
        for life in 0..30 {
            for n in 0..WRITERS {
                let writer = &mut writers[n as usize];
                let mut acknowledged = 0;
                for _ in 0..1 + (seed ^ life) % 23 {
                    acknowledged = writer.hear().parse().unwrap();
                }
                if life % WRITERS == n {
                    writer.kill();
                    while let Some(line) = writer.line() {
                        acknowledged = line.parse().unwrap();
                    }
                    // The record of its transfers is part of each.
                    let noted = store.get(ACCOUNTS + n).unwrap().map_or(0, |r| balance(&r));
                    assert!(noted == acknowledged || noted == acknowledged + 1, "{noted}, {acknowledged}");
                    *writer = start(n, life + 1);
                }
            }
        }
        for writer in &mut writers {
            writer.kill();
        }
        ended.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(sum(&store), MONEY);
    is_clean(&store);
    let stats = store.stats().unwrap();
    assert_eq!(stats.slots, stats.records + stats.free_slots + stats.retired_slots);
}

/// Stops itself in a batch, when its members are written and do not count yet.
fn stop_inside(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    recstore::testing::set_hook(Some(Box::new(|step| {
        if step == "batch: members written" {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
        }
    })));
    let mut batch = store.batch();
    batch.put(1, &b"stopped"[..]).unwrap();
    done(batch.commit().unwrap());
    me.say("done");
}

#[test]
fn a_stopped_batch_holds_up_batches_and_its_own_regions_and_nothing_else() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let before = (MONEY / ACCOUNTS).to_le_bytes();
    drop(accounts(&path));
    for is_killed in [false, true] {
        let store = Options::new().lock_timeout(Some(Duration::from_millis(20))).open(&path).unwrap();
        store.put(1, &before).unwrap();
        let mut stopped = Worker::spawn("stop_inside", &[("STORE", path.to_str().unwrap())]);
        stopped.wait_until_stopped();
        let other = (0..ACCOUNTS).find(|&id| store.region_of(id) != store.region_of(1)).unwrap();
        let batch = |id| {
            let mut batch = store.batch();
            batch.put(id, &b"mine"[..]).unwrap();
            batch.commit()
        };
        match batch(other) {
            Err(Error::Busy { lock: Lock::Batches, owner: Some(holder), .. }) => {
                assert_eq!(holder.pid, stopped.pid());
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(store.put(1, b"mine"), Err(Error::Busy { lock: Lock::Region(_), .. })));
        store.put(other, &before).unwrap();
        assert_eq!(store.get(1).unwrap().unwrap().data(), before);
        let pin = store.pin().unwrap();
        assert_eq!(pin.get_many(&[1, other]).unwrap(), [Some(&before[..]); 2], "readers are not held up");
        if is_killed {
            stopped.kill();
        } else {
            stopped.signal(nix::sys::signal::Signal::SIGCONT);
            stopped.expect("done");
            stopped.finish();
        }
        let now = pin.get_many(&[1]).unwrap()[0].unwrap();
        assert_eq!(now, if is_killed { &before[..] } else { &b"stopped"[..] });
        done(batch(other).unwrap());
        store.put(other, &before).unwrap();
        is_clean(&store);
    }
}
