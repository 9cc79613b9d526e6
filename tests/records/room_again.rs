//! Room that was given back is used again: by any region, and for records of any length. Handles that knew the place before are not
//! misled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Error, Options, Store};

use crate::common;
use crate::common::value::{parse, value};

fn check_all(store: &Store, model: &BTreeMap<u64, (u64, usize)>) {
    for (&id, &(counter, len)) in model {
        let record = store.get(id).unwrap().unwrap_or_else(|| panic!("id {id} is lost"));
        assert_eq!((record.len(), parse(id, &record)), (len, Ok((0, counter))), "id {id}");
    }
    let all: Vec<u64> = store.iter().map(|record| record.unwrap().id()).collect();
    assert_eq!(all.len(), model.len());
    assert_eq!(all.into_iter().collect::<BTreeSet<u64>>(), model.keys().copied().collect());
}

fn check_clean(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

fn disk_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

/// Puts records of this length until the store is full; returns how many.
fn fill(store: &Store, len: usize) -> u64 {
    let put = (0..).find(|&id| match store.put(id, vec![id as u8; len]) {
        Ok(_) => false,
        Err(Error::Full { .. }) => true,
        Err(error) => panic!("{error}"),
    });
    put.unwrap()
}

#[test]
fn a_full_store_that_is_emptied_takes_records_of_another_length() {
    let dir = common::scratch();
    for slots in [None, Some(64)] {
        let lens = if slots.is_some() { [600, 500, 600, 40, 300] } else { [5000, 600, 40, 20_000, 60] };
        let options = || match slots {
            None => Options::new().record_size(20_000).regions(3).max_size(3 << 20),
            Some(slots) => {
                Options::new().record_size(600).slots_per_extent(slots).regions(3).max_size(3 << 20)
            }
        };
        let path = dir.path().join(format!("{slots:?}"));
        let store = options().create(&path).unwrap();
        for (round, len) in lens.into_iter().chain(lens).enumerate() {
            let fresh = options().create(dir.path().join(format!("{slots:?} {round}"))).unwrap();
            let (put, of_fresh) = (fill(&store, len), fill(&fresh, len));
            // Index tables keep the size that many short records needed.
            assert!(
                put >= of_fresh * 17 / 20,
                "{put} records of {len} bytes, and a new store has {of_fresh}"
            );
            assert_eq!(store.len().unwrap(), put);
            check_clean(&store);
            (0..put).for_each(|id| assert!(store.get(id).unwrap().unwrap().iter().all(|&b| b == id as u8)));
            (0..put).for_each(|id| assert!(store.delete(id).unwrap()));
            store.sync().unwrap();
            check_clean(&store);
        }
        store.close().unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(store.len().unwrap(), 0);
    }
}

#[test]
fn the_blocks_of_deleted_records_are_given_back_by_a_flush() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Store::create(&path).unwrap();
    (0..20_000).for_each(|id| _ = store.put(id, vec![3; 1000]).unwrap());
    store.sync().unwrap();
    let before = disk_bytes(&path);
    (0..20_000).for_each(|id| assert!(store.delete(id).unwrap()));
    store.sync().unwrap();
    let after = disk_bytes(&path);
    assert!(after < before / 10, "{before} bytes, then {after}");
    check_clean(&store);
    // Another opening leaves the holes as they are.
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    store.put(1, b"one").unwrap();
    assert!(disk_bytes(&path) < before / 9);
    check_clean(&store);
    store.repair().unwrap();
    check_clean(&store);
}

/// A store that is overwritten again and again, with flushes, keeps the slots that it needs.
#[test]
fn slots_that_are_used_again_are_not_given_back() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Store::create(&path).unwrap();
    let mut bytes = Vec::new();
    for round in 0..6 {
        (0..5000).for_each(|id| _ = store.put(id, vec![round; 300]).unwrap());
        store.sync().unwrap();
        bytes.push(disk_bytes(&path));
    }
    assert_eq!(bytes[2..].iter().min(), bytes[2..].iter().max(), "{bytes:?}");
}

/// Two handles and one for reading, under a ceiling that makes each round use the room of the one before for records of other lengths.
#[test]
fn handles_that_knew_a_place_before_find_what_is_there_now() {
    let seed = common::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = common::scratch();
    let path = dir.path().join("store");
    let options = || Options::new().record_size(20_000).regions(3).max_size(3 << 20);
    let stores = [options().create(&path).unwrap(), options().open(&path).unwrap()];
    let reader = Store::open_read_only(&path).unwrap();
    let mut model: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
    let mut counter = 0;
    for round in 0..20 {
        let longest = [100, 700, 3000, 20_000][rng.random_range(0..4)];
        let snapshot =
            if round % 5 == 4 { Some((stores[1].snapshot().unwrap(), model.clone())) } else { None };
        for _ in 0..rng.random_range(1..600) {
            counter += 1;
            let (store, other) =
                if rng.random() { (&stores[0], &stores[1]) } else { (&stores[1], &stores[0]) };
            let (id, len) = (rng.random_range(0..2000), rng.random_range(32..=longest));
            match store.put(id, value(id, 0, counter, len)) {
                Ok(_) => _ = model.insert(id, (counter, len)),
                Err(Error::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
            for store in [other, &reader] {
                let found = store.get(id).unwrap().unwrap();
                assert_eq!(parse(id, &found), Ok((0, counter)), "id {id} in round {round}");
            }
        }
        if round % 3 == 0 {
            check_all(&reader, &model);
        }
        let kept = rng.random_range(0..=3);
        let gone: Vec<u64> = model.keys().copied().filter(|_| rng.random_range(0..4) >= kept).collect();
        for id in gone {
            match stores[rng.random_range(0..2)].delete(id) {
                Ok(was_there) => assert!(was_there && model.remove(&id).is_some()),
                // What a snapshot reads is kept, and a tombstone takes a slot.
                Err(Error::Full { .. }) => assert!(snapshot.is_some()),
                Err(error) => panic!("{error}"),
            }
        }
        stores[rng.random_range(0..2)].sync().unwrap();
        if let Some((snapshot, then)) = snapshot {
            for (&id, &(counter, len)) in &then {
                let data = snapshot.get(id).unwrap().unwrap();
                assert_eq!(
                    (data.len(), parse(id, data)),
                    (len, Ok((0, counter))),
                    "id {id} in round {round}"
                );
            }
            assert_eq!(snapshot.records().count(), then.len());
        }
        check_all(&stores[rng.random_range(0..2)], &model);
        check_clean(&stores[0]);
    }
    drop(stores);
    let store = Store::open(&path).unwrap();
    check_all(&store, &model);
    check_clean(&store);
}

/// A process that dies in a growth may leave all words of a header but the first one. Extents before it may be given back later.
#[test]
fn a_header_that_a_process_died_in_does_not_spoil_the_room_around_it() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().record_size(1000).regions(1).create(&path).unwrap();
    (0..2000).for_each(|id| _ = store.put(id, [7; 60]).unwrap());
    let extents = store.extents().unwrap();
    let middle = &extents[extents.len() / 2];
    (1..2000).for_each(|id| assert!(store.delete(id).unwrap()));
    store.sync().unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut half = [0x11; 56]; // Words 1 to 7. The fourth has the number of regions in its upper half.
    half[31] = 0;
    file.write_all_at(&half, middle.offset + 8).unwrap();
    check_clean(&store);
    let size = store.stats().unwrap().file_size;
    for id in 0..400 {
        store.put(id, value(id, 0, 1, 900)).unwrap();
    }
    assert!(store.stats().unwrap().file_size < size * 4, "{size} bytes before");
    (0..400).for_each(|id| assert_eq!(parse(id, &store.get(id).unwrap().unwrap()), Ok((0, 1))));
    check_clean(&store);
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    assert!(store.opened().fixed.is_empty());
    check_clean(&store);
}
