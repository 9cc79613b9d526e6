//! Spaces: records that are found by keys, beside those that are found by ids, in one store.
//!
//! The hash of a key is cut to 8 bits here, so keys share ids all the time.
//!
//! Fails when: any call on a key gives something else than a map does, through two handles that are closed and opened again;
//! keys that share an id are mixed up, or one of them is lost when another is written, deleted or does not fit; what is found
//! by an id is found by a key, or the other way round, or the one is written over the other; a batch, a snapshot, a pin, a
//! watch, a feed, a backup or a salvage does not have keys as it has ids; `verify` finds anything.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use crate::common::superblock::create_seeded;
use crate::common::{Me, Worker};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::bindings::with_patience;
use recstore::{
    Action, Commit, Durability, Error, Event, KeyChange, KeyChanges, Options, Space, Store, Swap, Version,
};

/// The keys of a space and their values.
type Keys = BTreeMap<Vec<u8>, Vec<u8>>;

fn short_hash() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| recstore::testing::shorten_key_hash(8));
}

fn small() -> Options {
    short_hash();
    Options::new().record_size(512).regions(3).slots_per_extent(16)
}

fn new_store() -> (tempfile::TempDir, Store) {
    let dir = crate::common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    (dir, store)
}

/// Keys of the space that have one id, as many as are asked for.
fn of_one_id(space: &Space<'_>, count: usize) -> Vec<String> {
    let id = space.id_of("key 0");
    (0..).map(|n| format!("key {n}")).filter(|key| space.id_of(key) == id).take(count).collect()
}

fn keys_of(space: &Space<'_>) -> Keys {
    let all: Vec<_> = space.iter().map(|found| found.unwrap()).collect();
    let keys: Keys = all.iter().map(|(key, record)| (key.clone(), record.data().to_vec())).collect();
    assert_eq!(keys.len(), all.len(), "a key came twice");
    keys
}

fn get(space: &Space<'_>, key: &str) -> Option<Vec<u8>> {
    space.get(key).unwrap().map(|record| record.into_data())
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    short_hash();
    let store = Store::open(Path::new(&me.var("STORE"))).unwrap();
    let space = store.space("counts").unwrap();
    let mut rng = StdRng::seed_from_u64(me.var("SEED").parse().unwrap());
    me.say("begun");
    loop {
        let key = rng.random_range(0..600u32).to_string();
        let count = |old: Option<&[u8]>| old.map_or(0, |old| u64::from_le_bytes(old.try_into().unwrap())) + 1;
        space.update(&key, |old| Some(count(old).to_le_bytes())).unwrap();
        me.say(&key);
    }
}

#[test]
fn what_is_put_under_a_key_is_found_under_that_key_of_that_space_alone() {
    let (_dir, store) = new_store();
    let (a, b) = (store.space("a").unwrap(), store.space("b").unwrap());
    let long = vec![7; 300];
    for key in [&b""[..], b"k", &[0, 255, b'/'], &long] {
        assert!(a.get(key).unwrap().is_none());
        let version = a.put(key, [&key[..key.len().min(9)], b" in a"].concat()).unwrap();
        assert_eq!(a.version(key).unwrap(), Some(version));
        assert!(!b.contains(key).unwrap());
        b.put(key, b"").unwrap();
        assert_eq!(a.get(key).unwrap().unwrap().data(), [&key[..key.len().min(9)], b" in a"].concat());
        assert_eq!(b.get(key).unwrap().unwrap().data(), b"");
    }
    assert_eq!((a.len().unwrap(), b.len().unwrap()), (4, 4));
    assert_eq!(store.spaces().unwrap(), ["a", "b"]);
    assert!(store.space("c").unwrap().is_empty().unwrap() && !a.is_empty().unwrap());
}

#[test]
fn keys_that_share_an_id_do_not_share_a_fate() {
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let keys = of_one_id(&space, 4);
    for key in &keys {
        space.put(key, key).unwrap();
    }
    assert_eq!(store.len().unwrap(), 1, "they do share a record");
    for key in &keys {
        assert_eq!(get(&space, key).as_deref(), Some(key.as_bytes()));
    }
    space.put(&keys[1], b"longer than it was before").unwrap();
    assert!(space.delete(&keys[2]).unwrap() && !space.delete(&keys[2]).unwrap());
    assert_eq!(get(&space, &keys[0]).as_deref(), Some(keys[0].as_bytes()));
    assert_eq!(get(&space, &keys[1]).as_deref(), Some(&b"longer than it was before"[..]));
    assert_eq!(get(&space, &keys[2]), None);
    // There is room for one of them, or the other.
    space.put(&keys[3], [3; 400]).unwrap();
    let version = space.version(&keys[0]).unwrap();
    let too_long = space.put(&keys[0], [0; 100]);
    let Err(Error::EntryTooLong { space: name, key, len, others, max, .. }) = too_long else {
        panic!("{too_long:?}")
    };
    assert_eq!((name.as_str(), &key, max), ("s", &keys[0], 512));
    assert!(len < max && others < max && len + others > max, "{len} and {others}");
    assert_eq!(
        (get(&space, &keys[0]).unwrap(), space.version(&keys[0]).unwrap()),
        (keys[0].clone().into(), version)
    );
    let too_long = space.update(&keys[0], |_| Some([0; 100]));
    assert!(matches!(too_long, Err(Error::EntryTooLong { .. })), "{too_long:?}");
    keys.iter().for_each(|key| _ = space.delete(key).unwrap());
    assert_eq!(store.len().unwrap(), 0);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_value_that_is_written_in_place_is_a_value_like_any_other() {
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let keys = of_one_id(&space, 3);
    let (alone, beside) = ("alone", &keys[1]);
    space.put(&keys[0], b"of another key").unwrap();
    for len in [0, 1, 7, 8, 9, 100] {
        let value: Vec<u8> = (0..len).map(|n| n as u8).collect();
        for key in [alone, beside.as_str()] {
            let before = get(&space, key);
            drop(space.reserve(key, len).unwrap());
            let mut room = space.reserve(key, len).unwrap();
            assert_eq!(room.len(), len);
            room.write_at(0, &value).unwrap();
            assert!(matches!(room.write_at(len, b"x"), Err(Error::RecordTooLong { .. })));
            assert_eq!(get(&space, key), before, "it is seen before it is committed");
            let version = room.commit().unwrap();
            assert_eq!(space.version(key).unwrap(), Some(version));
            assert_eq!(get(&space, key).as_deref(), Some(&value[..]), "{key}, {len} bytes");
        }
    }
    assert_eq!(get(&space, &keys[0]).as_deref(), Some(&b"of another key"[..]));
    let fits = 512 - "s".len() - alone.len() - 8;
    assert!(matches!(space.reserve(alone, fits + 1), Err(Error::EntryTooLong { len: 513, others: 0, .. })));
    let mut room = space.reserve(alone, fits).unwrap();
    room.fill(7).unwrap();
    room.commit().unwrap();
    assert_eq!(get(&space, alone), Some(vec![7; fits]));
    // Alone it fits, and beside the others it does not.
    let fits = 512 - "s".len() - beside.len() - 8;
    let mut room = space.reserve(beside, fits).unwrap();
    room.fill(7).unwrap();
    assert!(matches!(room.commit(), Err(Error::EntryTooLong { .. })));
    assert_eq!(get(&space, beside).map(|value| value.len()), Some(100));
    assert!(store.verify().unwrap().is_clean());
    let stats = store.stats().unwrap();
    assert_eq!(stats.slots, stats.records + stats.free_slots + stats.retired_slots, "a slot was lost");
}

#[test]
fn a_call_with_a_patience_of_its_own_does_not_wait_for_longer() {
    let (_dir, store) = new_store();
    store
        .update(1, |_| {
            std::thread::scope(|scope| {
                let busy =
                    scope.spawn(|| with_patience(Duration::ZERO, || store.put(1, b"two"))).join().unwrap();
                assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
            });
            Some(b"one")
        })
        .unwrap();
    with_patience(Duration::ZERO, || store.put(1, b"two")).unwrap();
    assert_eq!(store.get(1).unwrap().unwrap().data(), b"two");
}

#[test]
fn what_is_found_by_a_key_is_not_found_by_its_id_nor_written_over() {
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let id = space.id_of("k");
    space.put("k", b"value").unwrap();
    assert!(store.get(id).unwrap().is_none() && !store.contains(id).unwrap());
    assert_eq!((store.iter().count(), store.snapshot().unwrap().iter().count()), (0, 0));
    assert_eq!(
        (store.snapshot().unwrap().records().count(), store.snapshot().unwrap().range(..).count()),
        (0, 0)
    );
    assert_eq!(store.pin().unwrap().get(id).unwrap(), None);
    assert_eq!(store.snapshot().unwrap().get(id).unwrap(), None);
    assert!(!store.delete(id).unwrap());
    let taken = |error: Option<Error>| {
        assert!(matches!(error, Some(Error::IdTaken { by_key: true, id: of, .. }) if of == id), "{error:?}");
    };
    taken(store.put(id, b"by id").err());
    taken(store.put_with(id, b"by id", Durability::Disk).err());
    taken(store.update(id, |old| Some(old.map_or(b"absent", |_| b"there!"))).err());
    taken(store.compare_and_swap(id, None, b"by id").err());
    taken(store.write_many([(id, b"by id")]).err());
    taken(store.reserve(id, 3).unwrap().commit().err());
    let mut batch = store.batch();
    batch.put(1000, b"another").unwrap();
    batch.put(id, b"by id").unwrap();
    taken(batch.commit().err());
    assert!(!store.contains(1000).unwrap());
    let mut batch = store.batch();
    batch.put(1000, b"another").unwrap();
    batch.delete(id); // There is no such record.
    batch.require(id, None);
    assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
    assert_eq!(get(&space, "k").as_deref(), Some(&b"value"[..]));
    let mut batch = store.batch();
    batch.put_in(&space, "k", b"by key").unwrap();
    batch.put(id, b"by id").unwrap();
    taken(batch.commit().err());
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn what_is_found_by_its_id_is_not_found_by_a_key_nor_written_over() {
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let id = space.id_of("k");
    let version = store.put(id, b"by id").unwrap();
    assert!(space.get("k").unwrap().is_none() && space.is_empty().unwrap());
    assert!(!space.delete("k").unwrap());
    assert!(store.spaces().unwrap().is_empty());
    let taken = |error: Option<Error>| {
        assert!(matches!(error, Some(Error::IdTaken { by_key: false, id: of, .. }) if of == id), "{error:?}");
    };
    taken(space.put("k", b"by key").err());
    taken(space.update("k", |_| Some(b"by key")).err());
    taken(space.compare_and_swap("k", None, b"by key").err());
    let mut batch = store.batch();
    batch.put_in(&space, "k", b"by key").unwrap();
    taken(batch.commit().err());
    let mut batch = store.batch();
    batch.delete_in(&space, "k").unwrap();
    assert!(matches!(batch.commit().unwrap(), Commit::Done(versions) if versions.is_empty()));
    assert_eq!(store.version(id).unwrap(), Some(version));
    assert!(store.delete(id).unwrap());
    space.put("k", b"by key").unwrap();
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn what_cannot_be_a_name_or_a_key_or_is_another_store_s_is_refused() {
    let (dir, store) = new_store();
    for name in ["", "a/b", "a\nb", &"n".repeat(256)] {
        assert!(matches!(store.space(name), Err(Error::InvalidOption { .. })), "{name:?}");
    }
    let space = store.space(&"ü".repeat(100)).unwrap();
    let key = vec![0; 65_537];
    assert!(matches!(space.put(&key, b""), Err(Error::KeyTooLong { len: 65_537, max: 65_536, .. })));
    assert!(matches!(space.put(&key[1..], b""), Err(Error::EntryTooLong { others: 0, .. })));
    assert!(space.get(&key).unwrap().is_none());
    let fits = 512 - 8 - 200 - 3;
    space.put("key", vec![1; fits]).unwrap();
    assert!(matches!(space.put("key", vec![1; fits + 1]), Err(Error::EntryTooLong { len: 513, .. })));
    let other = small().create(dir.path().join("other")).unwrap();
    let foreign = other.space("s").unwrap();
    let is_refused =
        |error: Option<Error>| assert!(matches!(error, Some(Error::InvalidOption { .. })), "{error:?}");
    is_refused(store.batch().put_in(&foreign, "k", b"v").err());
    is_refused(store.batch().delete_in(&foreign, "k").err());
    is_refused(store.batch().require_in(&foreign, "k", None).err());
    is_refused(store.pin().unwrap().get_in(&foreign, "k").err());
    is_refused(store.snapshot().unwrap().get_in(&foreign, "k").err());
    is_refused(store.snapshot().unwrap().iter_in(&foreign).next().and_then(Result::err));
    let again = Store::open(store.path()).unwrap();
    assert!(store.pin().unwrap().get_in(&again.space("s").unwrap(), "k").unwrap().is_none());
}

/// Random calls against a map, in geometries down to the tiniest, through two handles on one file.
#[test]
fn any_calls_give_what_a_map_gives() {
    short_hash();
    let mut rng = crate::common::seeded();
    for (record_size, regions, slots, calls) in [(300, 1, 1, 1500), (300, 3, 4, 3000), (5000, 2, 16, 1500)] {
        let dir = crate::common::scratch();
        let options = Options::new().record_size(record_size).regions(regions).slots_per_extent(slots);
        let path = dir.path().join("s");
        let mut handles = [create_seeded(&options, &path, rng.random()), Store::open(&path).unwrap()];
        let mut model: [Keys; 2] = Default::default();
        let mut plain: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for call in 0..calls {
            if call % 300 == 299 {
                let n = rng.random_range(0..2);
                handles[n] = Store::open(&path).unwrap();
                check(&handles[1 - n], &model, &plain);
            }
            let store = &handles[rng.random_range(0..2)];
            let of = rng.random_range(0..2);
            let space = store.space(["left", "right"][of]).unwrap();
            one_call(&mut rng, store, &space, of, &mut model, &mut plain);
        }
        for store in &handles {
            check(store, &model, &plain);
            assert!(store.verify().unwrap().is_clean(), "{:?}", store.verify());
        }
    }
}

fn key_of(rng: &mut StdRng) -> Vec<u8> {
    rng.random_range(0..400u16).to_string().into_bytes()
}

fn value_of(rng: &mut StdRng) -> Vec<u8> {
    let len = rng.random_range(0..60);
    (0..len).map(|_| rng.random()).collect()
}

/// One random call; a value that does not fit beside others leaves all as it was.
fn one_call(
    rng: &mut StdRng,
    store: &Store,
    space: &Space<'_>,
    of: usize,
    model: &mut [Keys; 2],
    plain: &mut BTreeMap<u64, Vec<u8>>,
) {
    let (key, value) = (key_of(rng), value_of(rng));
    let there = model[of].get(&key).cloned();
    let fits = |result: Result<(), Error>| match result {
        Ok(()) => true,
        Err(Error::EntryTooLong { others, .. }) if others != 0 => false,
        Err(error) => panic!("{error}"),
    };
    match rng.random_range(0..11) {
        0..=2 => {
            if fits(space.put(&key, &value).map(drop)) {
                model[of].insert(key, value);
            }
        }
        3 => {
            assert_eq!(space.delete(&key).unwrap(), there.is_some());
            model[of].remove(&key);
        }
        4 => {
            let updated = space.update(&key, |old| {
                assert_eq!(old, there.as_deref());
                old.is_some().then_some(&value)
            });
            if fits(updated.map(drop)) && there.is_some() {
                model[of].insert(key, value);
            }
        }
        5 => {
            let taken: Result<Option<Vec<u8>>, Error> =
                space.modify(&key, |old| Ok((Action::<&[u8]>::Delete, old.map(<[u8]>::to_vec))));
            assert_eq!(taken.unwrap(), there);
            model[of].remove(&key);
        }
        6 => {
            let expected =
                if rng.random() { space.version(&key).unwrap() } else { Some(Version::from_u64(1)) };
            let is_it = expected == space.version(&key).unwrap();
            match space.compare_and_swap(&key, expected, &value) {
                Ok(Swap::Done(version)) => {
                    assert!(is_it);
                    assert_eq!(space.version(&key).unwrap(), Some(version));
                    model[of].insert(key, value);
                }
                Ok(Swap::Conflict { .. }) => assert!(!is_it),
                other => assert!(!fits(other.map(drop))),
            }
        }
        7 => {
            // A batch of several keys of both spaces, some of them twice, and of an id.
            let mut batch = store.batch();
            let mut after = (model.clone(), plain.clone());
            for _ in 0..rng.random_range(1..6) {
                let of = rng.random_range(0..2);
                let space = store.space(["left", "right"][of]).unwrap();
                let key = key_of(rng);
                if rng.random_ratio(1, 3) {
                    batch.delete_in(&space, &key).unwrap();
                    after.0[of].remove(&key);
                } else {
                    let value = value_of(rng);
                    batch.put_in(&space, &key, value.clone()).unwrap();
                    after.0[of].insert(key, value);
                }
            }
            let id = 1000 + rng.random_range(0..20);
            batch.put(id, value.clone()).unwrap();
            after.1.insert(id, value);
            let is_met = rng.random_ratio(3, 4);
            let now = space.version(&key).unwrap();
            batch.require_in(space, &key, if is_met { now } else { Some(Version::from_u64(1)) }).unwrap();
            match batch.commit() {
                Ok(Commit::Done(_)) => {
                    assert!(is_met);
                    (*model, *plain) = after;
                }
                Ok(Commit::Conflict { current, .. }) => assert!(!is_met && current == now),
                Err(error) => assert!(!fits(Err(error))),
            }
        }
        8 => {
            let id = 1000 + rng.random_range(0..20);
            store.put(id, &value).unwrap();
            plain.insert(id, value);
        }
        9 => {
            let snapshot = store.snapshot().unwrap();
            let before = model[of].clone();
            if fits(space.put(&key, &value).map(drop)) {
                model[of].insert(key.clone(), value);
            }
            assert_eq!(snapshot.get_in(space, &key).unwrap(), there.as_deref());
            let kept: Keys = snapshot
                .iter_in(space)
                .map(|found| found.unwrap())
                .map(|(key, _, value)| (key.to_vec(), value.to_vec()))
                .collect();
            assert_eq!(kept, before);
        }
        _ => {
            if rng.random_ratio(1, 4) {
                store.sync().unwrap();
            }
            let pin = store.pin().unwrap();
            let lent = pin.get_in(space, &key).unwrap();
            if fits(space.put(&key, &value).map(drop)) {
                model[of].insert(key, value);
            }
            assert_eq!(lent, there.as_deref());
        }
    }
}

fn check(store: &Store, model: &[Keys; 2], plain: &BTreeMap<u64, Vec<u8>>) {
    for (name, keys) in ["left", "right"].into_iter().zip(model) {
        let space = store.space(name).unwrap();
        assert_eq!(keys_of(&space), *keys);
        assert_eq!(space.len().unwrap(), keys.len() as u64);
        let names: Vec<Vec<u8>> = (0..400u16).map(|key| key.to_string().into_bytes()).collect();
        space
            .get_many(&names, |key, found| {
                assert_eq!(found.map(|(_, value)| value), keys.get(key).map(|v| &v[..]))
            })
            .unwrap();
    }
    let found: BTreeMap<u64, Vec<u8>> =
        store.iter().map(|r| r.unwrap()).map(|r| (r.id(), r.into_data())).collect();
    assert_eq!(found, *plain);
}

#[test]
fn a_backup_and_a_salvage_have_every_key() {
    let (dir, store) = new_store();
    let space = store.space("s").unwrap();
    let all: Keys = (0..500u32).map(|n| (n.to_le_bytes().to_vec(), n.to_string().into_bytes())).collect();
    space.write_many(&all).unwrap();
    store.put(7000, b"by id").unwrap();
    let copy = dir.path().join("copy");
    store.backup(&copy).unwrap();
    let path = store.path().to_path_buf();
    store.close().unwrap();
    let saved = dir.path().join("saved");
    assert!(recstore::salvage(&path, &saved, None).unwrap().is_complete());
    // Nothing but slots: the key of the hash is lost, and what is found is found by the copy's.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..4096].fill(0);
    bytes[73_728..77_824].fill(0);
    let headers: Vec<usize> =
        bytes.windows(8).enumerate().filter(|(_, w)| w == b"rec-extn").map(|(at, _)| at).collect();
    headers.iter().for_each(|&at| bytes[at..at + 64].fill(0));
    let wreck = dir.path().join("wreck");
    std::fs::write(&wreck, bytes).unwrap();
    let found = dir.path().join("found");
    recstore::salvage(&wreck, &found, Some(2048)).unwrap();
    for path in [copy, saved, found] {
        let copy = Store::open(&path).unwrap();
        let space = copy.space("s").unwrap();
        assert_eq!(keys_of(&space), all);
        for (key, value) in &all {
            assert_eq!(space.get(key).unwrap().unwrap().data(), value);
        }
        assert_eq!(copy.get(7000).unwrap().unwrap().data(), b"by id");
        assert!(copy.verify().unwrap().is_clean());
    }
}

#[test]
fn a_watch_of_a_key_tells_of_it_and_no_change_of_another_key_makes_it_appear() {
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let keys = of_one_id(&space, 2);
    let mut watch = space.watch(&keys[0]).unwrap();
    let mut nothing = || watch.wait(Some(Duration::ZERO)).unwrap();
    space.put(&keys[1], b"shares the id").unwrap();
    assert_eq!(nothing(), Event::TimedOut);
    let version = space.put(&keys[0], b"1").unwrap();
    assert_eq!(nothing(), Event::Written(version));
    space.delete(&keys[0]).unwrap();
    assert_eq!(nothing(), Event::Deleted);
    space.delete(&keys[1]).unwrap();
    assert_eq!(nothing(), Event::TimedOut);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            watch.wait_until(Some(crate::common::PATIENCE), |value| (value? == b"2").then_some("two"))
        });
        for value in [b"0", b"1", b"2"] {
            space.put(&keys[0], value).unwrap();
        }
        assert_eq!(waiter.join().unwrap().unwrap(), Some("two"));
    });
}

/// All that is told until it has caught up, or until a key that is written now.
fn follow(changes: &mut KeyChanges<'_>, space: &Space<'_>, mirror: &mut BTreeSet<Vec<u8>>, turn: u32) {
    let end = format!("end {turn}").into_bytes();
    space.put(&end, b"").unwrap();
    loop {
        match changes.next_timeout(crate::common::PATIENCE).unwrap().expect("the end is told") {
            KeyChange::Written { key, .. } if key == end => break,
            KeyChange::Written { key, .. } => _ = mirror.insert(key),
            KeyChange::Deleted { key } => assert!(mirror.remove(&key), "{key:?} was not told of"),
            _ => {}
        }
    }
    // What shares a record with the end is told with it, and what is of other regions may come later.
    while let Some(change) = changes.next_timeout(Duration::ZERO).unwrap() {
        match change {
            KeyChange::Written { key, .. } => _ = mirror.insert(key),
            KeyChange::Deleted { key } => _ = mirror.remove(&key),
            _ => {}
        }
    }
    mirror.retain(|key| !key.starts_with(b"end"));
}

#[test]
fn who_follows_the_changes_of_a_space_knows_its_keys() {
    let (_dir, store) = new_store();
    let (space, other) = (store.space("s").unwrap(), store.space("t").unwrap());
    let mut rng = crate::common::seeded();
    (0..40u32).for_each(|n| _ = space.put(n.to_string(), b"before").unwrap());
    let mut changes = space.changes().unwrap();
    let mut plain = store.changes().unwrap();
    let mut mirror = BTreeSet::new();
    for turn in 0..30 {
        for _ in 0..20 {
            let key = rng.random_range(0..300u32).to_string();
            match rng.random_range(0..4) {
                0 => _ = space.delete(&key).unwrap(),
                1 => _ = other.put(&key, b"of another space").unwrap(),
                2 => _ = other.delete(&key).unwrap(),
                _ => _ = space.put(&key, turn.to_string()).unwrap(),
            }
        }
        follow(&mut changes, &space, &mut mirror, turn);
        let there: BTreeSet<Vec<u8>> =
            keys_of(&space).into_keys().filter(|key| !key.starts_with(b"end")).collect();
        assert_eq!(mirror, there, "turn {turn}");
    }
    assert_eq!(plain.next_timeout(Duration::ZERO).unwrap(), Some(recstore::Change::CaughtUp));
    assert_eq!(
        plain.next_timeout(Duration::ZERO).unwrap(),
        None,
        "keys are no records that are found by ids"
    );
}

/// Processes count keys, and are killed in the middle of it.
#[test]
fn no_count_is_lost_where_processes_that_write_keys_of_one_id_are_killed() {
    let (dir, store) = new_store();
    let path = dir.path().join("s");
    let mut rng = crate::common::seeded();
    let mut counted: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut deaths = 0u64;
    for _ in 0..15 {
        let spawn = |seed: u64| {
            Worker::spawn("counts", &[("STORE", path.to_str().unwrap()), ("SEED", &seed.to_string())])
        };
        let mut workers: Vec<Worker> = (0..2).map(|_| spawn(rng.random())).collect();
        for worker in &mut workers {
            worker.expect("begun");
        }
        for worker in &mut workers {
            for _ in 0..rng.random_range(1..200) {
                *counted.entry(worker.hear().into_bytes()).or_default() += 1;
            }
            worker.kill();
            deaths += 1;
            while let Some(key) = worker.line() {
                *counted.entry(key.into_bytes()).or_default() += 1;
            }
        }
    }
    let space = store.space("counts").unwrap();
    let mut more = 0;
    for (key, found) in keys_of(&space) {
        let found = u64::from_le_bytes(found.try_into().unwrap());
        let told = counted.remove(&key).unwrap_or_default();
        assert!(found >= told, "{key:?}: {found} of {told} are left");
        more += found - told;
    }
    assert!(counted.is_empty(), "keys are gone: {counted:?}");
    assert!(more <= deaths, "{more} counts that nobody told of, by {deaths} deaths");
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn an_older_version_that_stands_in_after_a_repair_is_found_by_its_key() {
    let dir = crate::common::scratch();
    let path = dir.path().join("store");
    let store = small().create(&path).unwrap();
    let space = store.space("a").unwrap();
    space.put("key", b"the older value").unwrap();
    store.sync().unwrap();
    space.put("key", b"the newer value").unwrap();
    let at = std::fs::read(&path).unwrap().windows(15).position(|bytes| bytes == b"the newer value").unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"T", at as u64).unwrap();
    assert!(matches!(space.get("key"), Err(Error::Corrupt { .. })));
    let report = store.repair().unwrap();
    assert_ne!(report.dropped, []);
    assert_eq!(space.get("key").unwrap().unwrap().data(), b"the older value");
    assert_eq!(store.get(space.id_of("key")).unwrap(), None);
    assert_eq!(store.verify().unwrap().damage, []);
}

#[test]
fn a_key_is_made_deleted_or_kept_by_what_is_there() {
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let keys = of_one_id(&space, 3);
    let made = space.get_or_insert_with(&keys[0], || "made").unwrap();
    assert_eq!((made.data(), Some(made.version())), (&b"made"[..], space.version(&keys[0]).unwrap()));
    let there = space.get_or_insert_with(&keys[0], || -> &str { panic!("it is there") }).unwrap();
    assert_eq!((there.data(), there.version()), (made.data(), made.version()));
    for (n, key) in keys.iter().enumerate() {
        space.update_with(key, Durability::Disk, |_| Some([n as u8])).unwrap();
    }
    let version = space.version(&keys[0]).unwrap().unwrap();
    space.put(&keys[0], [9]).unwrap();
    assert!(!space.compare_and_delete(&keys[0], version).unwrap());
    assert!(!space.compare_and_delete("no key", version).unwrap());
    let version = space.version(&keys[0]).unwrap().unwrap();
    assert!(space.compare_and_delete(&keys[0], version).unwrap() && !space.contains(&keys[0]).unwrap());
    store.space("other").unwrap().put(&keys[1], [1]).unwrap();
    // A value that changes while it is looked at is looked at again.
    let mut looks = 0;
    let deleted = space
        .retain(|key, value| {
            looks += 1;
            if looks == 1 {
                space.put(key, [77]).unwrap();
            }
            value == [77]
        })
        .unwrap();
    assert!(deleted == 1 && (3..=4).contains(&looks), "{deleted} after {looks} looks");
    assert_eq!(keys_of(&space).into_values().collect::<Vec<_>>(), [[77]]);
    assert!(store.space("other").unwrap().contains(&keys[1]).unwrap());
    let failed: Result<(), Error> = space.modify_with(&keys[1], Durability::Disk, |_| {
        Err::<(Action<&[u8]>, ()), _>(Error::InvalidOption { what: "no".into() })
    });
    assert!(matches!(failed, Err(Error::InvalidOption { .. })));
    let swap = space.compare_and_swap_with(&keys[0], None, [5], Durability::Disk).unwrap();
    assert!(matches!(swap, Swap::Done(_)));
}
