//! Extents that grow, and slots of several classes: the room that records of any length take, and where it is when a header is
//! lost, the disk is full, or another process extended the file.
//!
//! Fails when: a small store takes more room than it needs; a record of some length is lost, torn or found where it does not lie; a lost
//! header loses a record; units that a loss of power left are lost; a store is full while there is room.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Commit, Durability, Error, ExtentUse, Options, Store};

use crate::common;
use crate::common::value::{parse, value};

const LONGEST: usize = 20_000;

fn mixed() -> Options {
    Options::new().record_size(LONGEST).regions(3)
}

/// A length: short ones, long ones, and those at the borders of classes.
fn draw_len(rng: &mut StdRng) -> usize {
    match rng.random_range(0..4) {
        0 => rng.random_range(32..200),
        1 => rng.random_range(32..3000),
        2 => (1 << rng.random_range(6..14)) - rng.random_range(0..3_usize) * 16,
        _ => rng.random_range(32..=LONGEST),
    }
}

fn check_all(store: &Store, model: &BTreeMap<u64, (u64, usize)>) {
    for (&id, &(counter, len)) in model {
        let record = store.get(id).unwrap().unwrap_or_else(|| panic!("id {id} is lost"));
        assert_eq!(record.len(), len, "id {id}");
        assert_eq!(parse(id, &record), Ok((0, counter)), "id {id}");
    }
    let all: BTreeSet<u64> = store.iter().map(|record| record.unwrap().id()).collect();
    assert_eq!(all, model.keys().copied().collect::<BTreeSet<u64>>());
}

fn check_clean(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn a_small_store_is_small() {
    let dir = common::scratch();
    for (records, most) in [(0_u64, 168 << 10), (1, 172 << 10), (100, 256 << 10)] {
        let path = dir.path().join(records.to_string());
        let store = Store::create(&path).unwrap();
        (0..records).for_each(|id| _ = store.put(id, [7; 60]).unwrap());
        store.close().unwrap();
        let bytes = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(bytes <= most, "{records} records take {bytes} bytes of disk");
    }
}

#[test]
fn a_long_record_takes_its_length() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().record_size(16 << 20).regions(2).create(&path).unwrap();
    let (len, count) = (3_100_000, 10);
    (0..count).for_each(|id| _ = store.put(id, vec![id as u8; len]).unwrap());
    (0..count).for_each(|id| assert!(store.get(id).unwrap().unwrap().iter().all(|&b| b == id as u8)));
    check_clean(&store);
    let bytes = std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(bytes < count * len as u64 * 5 / 4, "{bytes} bytes");
}

/// Writes, overwrites with other lengths, deletions, reservations, batches and flushes, through two handles, one of which must learn where the
/// other one put its records.
#[test]
fn records_of_any_length_are_what_a_map_holds() {
    let seed = common::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = common::scratch();
    let path = dir.path().join("store");
    let stores = [mixed().create(&path).unwrap(), mixed().open(&path).unwrap()];
    let mut model = BTreeMap::new();
    for counter in 0..4000 {
        let (store, other) = if rng.random() { (&stores[0], &stores[1]) } else { (&stores[1], &stores[0]) };
        let (id, len) = (rng.random_range(0..300), draw_len(&mut rng));
        let data = value(id, 0, counter, len);
        match rng.random_range(0..20) {
            0..3 => {
                assert_eq!(store.delete(id).unwrap(), model.remove(&id).is_some());
                continue;
            }
            3 => {
                let mut room = store.reserve(id, len).unwrap();
                room.write_at(0, &data).unwrap();
                room.commit().unwrap();
            }
            4 => {
                let mut batch = store.batch();
                batch.put(id, &data).unwrap();
                batch.put(id + 1000, &data[..]).unwrap();
                batch.delete(id + 1000);
                assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
            }
            5 => _ = store.put_with(id, &data, Durability::Disk).unwrap(),
            _ => _ = store.put(id, &data).unwrap(),
        }
        model.insert(id, (counter, len));
        assert_eq!(other.get(id).unwrap().as_deref(), Some(&data[..]), "id {id}");
        let pin = other.pin().unwrap();
        assert_eq!(pin.get(id).unwrap(), Some(&data[..]), "id {id}");
        if counter % 200 == 0 {
            store.sync().unwrap();
            check_all(other, &model);
            check_clean(store);
        }
    }
    let snapshot = stores[0].snapshot().unwrap();
    for (&id, &(counter, len)) in &model {
        stores[1].put(id, value(id, 0, counter + 1, len / 2 + 40)).unwrap();
        assert_eq!(parse(id, snapshot.get(id).unwrap().unwrap()), Ok((0, counter)));
    }
    drop(snapshot);
    let [first, second] = stores;
    first.close().unwrap();
    second.close().unwrap();
    let store = Store::open_read_only(&path).unwrap();
    model.values_mut().for_each(|(counter, len)| (*counter, *len) = (*counter + 1, *len / 2 + 40));
    check_all(&store, &model);
}

/// A store with records of many lengths, closed, and what it holds.
fn closed(dir: &Path) -> (PathBuf, BTreeMap<u64, (u64, usize)>) {
    let path = dir.join("store");
    let store = mixed().create(&path).unwrap();
    let mut rng = StdRng::seed_from_u64(7);
    let mut model = BTreeMap::new();
    for id in 0..400 {
        let len = draw_len(&mut rng);
        store.put(id, value(id, 0, id, len)).unwrap();
        model.insert(id, (id, len));
    }
    store.close().unwrap();
    (path, model)
}

/// Offsets of all headers of extents, and of the copies of these.
fn headers(bytes: &[u8]) -> (Vec<usize>, Vec<usize>) {
    let at = |what: &'static [u8; 8]| {
        (0..bytes.len()).step_by(64).filter(move |&at| bytes[at..].starts_with(what)).collect()
    };
    (at(b"rec-extn"), at(b"rec-twin"))
}

#[test]
fn a_lost_header_or_a_lost_copy_of_it_loses_nothing() {
    let dir = common::scratch();
    let (path, model) = closed(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let (headers, twins) = headers(&whole);
    assert_eq!(headers.len(), twins.len());
    assert!(headers.len() > 50);
    for (n, (&header, &twin)) in headers.iter().zip(&twins).enumerate().step_by(5) {
        for (lost, is_damage) in [(header, true), (twin, false)] {
            let mut bytes = whole.clone();
            bytes[lost..lost + 64].fill(0xee);
            std::fs::write(&path, &bytes).unwrap();
            let store = Store::open(&path).unwrap();
            check_all(&store, &model);
            let report = store.verify().unwrap();
            assert_eq!(report.is_clean(), !is_damage, "extent {n}: {report:?}");
            for id in 1000..1020 {
                store.put(id, value(id, 0, 1, 100 + 37 * (id as usize % 9))).unwrap();
            }
            store.repair().unwrap();
            check_clean(&store);
            (1000..1020).for_each(|id| assert!(store.delete(id).unwrap()));
            check_all(&store, &model);
            store.close().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert!(
                bytes[header..].starts_with(b"rec-extn") && bytes[twin..].starts_with(b"rec-twin"),
                "extent {n}"
            );
        }
    }
}

#[test]
fn an_extent_without_header_and_copy_is_found_by_its_slots() {
    let dir = common::scratch();
    let (path, model) = closed(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let (headers, twins) = headers(&whole);
    let last = headers.len() - 1;
    for n in (0..=last).filter(|n| n % 7 == 0 || *n == last) {
        let mut bytes = whole.clone();
        bytes[headers[n]..headers[n] + 64].fill(0);
        bytes[twins[n]..twins[n] + 64].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let saved = dir.path().join(format!("saved-{n}"));
        let report = recstore::salvage(&path, &saved, None).unwrap();
        assert_eq!(report.records, model.len() as u64, "extent {n}: {report:?}");
        check_all(&Store::open(&saved).unwrap(), &model);
        let store = Store::open(&path).unwrap();
        assert!(!store.verify().unwrap().is_clean(), "extent {n}");
        store.repair().unwrap();
        check_all(&store, &model);
        check_clean(&store);
    }
}

/// Two extents beside each other lose their headers and the copies: the records of both are saved.
#[test]
fn salvage_searches_where_nothing_tells_the_length_of_slots() {
    let dir = common::scratch();
    let (path, model) = closed(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let (headers, twins) = headers(&bytes);
    for n in [10, 11, 12, 30, 31] {
        bytes[headers[n]..headers[n] + 64].fill(0);
        bytes[twins[n]..twins[n] + 64].fill(0);
    }
    std::fs::write(&path, &bytes).unwrap();
    let saved = dir.path().join("saved");
    let report = recstore::salvage(&path, &saved, None).unwrap();
    assert_eq!(report.records, model.len() as u64, "{report:?}");
    check_all(&Store::open(&saved).unwrap(), &model);
}

/// A loss of power can leave units without a byte between two extents: their blocks and the file's length were on disk, their
/// header was not.
#[test]
fn units_that_a_loss_of_power_left_are_used_again() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().record_size(1000).regions(1).create(&path).unwrap();
    (0..200).for_each(|id| _ = store.put(id, value(id, 0, 1, 900)).unwrap());
    let extents = store.extents().unwrap();
    let of_slots = |usage: &ExtentUse| matches!(usage, ExtentUse::Slots { .. });
    let lost = &extents[extents.len() / 2];
    assert!(of_slots(&lost.usage));
    store.close().unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0; lost.bytes as usize], lost.offset).unwrap();
    let store = Store::open(&path).unwrap();
    store.repair().unwrap();
    check_clean(&store);
    let before = store.stats().unwrap();
    assert_eq!(before.records, 200 - u64::from(lost.used_slots));
    // Handles that have passed the gap: one that reads only can't repair anything.
    let [reader, writer] = [Store::open_read_only(&path).unwrap(), Store::open(&path).unwrap()];
    [&reader, &writer].into_iter().for_each(|passed| assert!(passed.get(199).unwrap().is_some()));
    let mut id = 1000;
    while !store.extents().unwrap().iter().any(|e| e.offset == lost.offset && of_slots(&e.usage)) {
        // The first extents of another class are no longer than the gap.
        store.put(id, value(id, 0, 1, 500)).unwrap();
        id += 1;
        assert!(id < 3000, "the gap was not used");
    }
    for handle in [&store, &reader, &writer] {
        (1000..id).for_each(|id| assert_eq!(parse(id, &handle.get(id).unwrap().unwrap()), Ok((0, 1))));
    }
    crate::growth::forbid_rebuilds(true);
    (1000..id).for_each(|id| _ = writer.put(id, value(id, 0, 2, 500)).unwrap());
    crate::growth::forbid_rebuilds(false);
    writer.close().unwrap();
    check_clean(&store);
    store.close().unwrap();
    check_clean(&Store::open(&path).unwrap());
}

/// At the ceiling a record lies in a longer slot, if one is free, and a smaller extent is taken than usual.
#[test]
fn a_full_store_has_used_its_room() {
    let seed = common::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = common::scratch();
    for ceiling in [600 << 10, 2 << 20] {
        let path = dir.path().join(ceiling.to_string());
        let store = mixed().max_size(ceiling).create(&path).unwrap();
        let mut model = BTreeMap::new();
        let (mut bytes, mut refused) = (0, 0);
        for id in 0.. {
            let len = draw_len(&mut rng).min(2000);
            match store.put(id, value(id, 0, id, len)) {
                Ok(_) => {
                    model.insert(id, (id, len));
                    bytes += len + 32;
                }
                Err(Error::Full { .. }) if refused < 20 => refused += 1,
                Err(Error::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(bytes as u64 > (ceiling - (250 << 10)) * 6 / 10, "{bytes} bytes of {ceiling}");
        check_all(&store, &model);
        check_clean(&store);
        // What is given back can be used for other lengths.
        let ids: Vec<u64> = model.keys().copied().filter(|id| id % 2 == 0).collect();
        ids.iter().for_each(|id| assert!(store.delete(*id).unwrap()));
        ids.iter().for_each(|id| _ = model.remove(id));
        store.sync().unwrap();
        let mut put = 0;
        for id in 100_000..100_000 + ids.len() as u64 / 4 {
            let len = rng.random_range(40..300);
            if store.put(id, value(id, 0, id, len)).is_ok() {
                model.insert(id, (id, len));
                put += 1;
            }
        }
        assert!(put * 8 > ids.len(), "{put} of {}", ids.len());
        check_all(&store, &model);
        check_clean(&store);
    }
}

/// The slots that the end of a pin frees may be of other classes than the one that is wanted, and many.
#[test]
fn a_full_store_gives_every_slot_that_waits_for_a_pin() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().record_size(LONGEST).regions(1).max_size(3 << 20).create(&path).unwrap();
    let lens = [(0..150, 4000), (1000..1040, 15_000)];
    for (ids, len) in lens.clone() {
        ids.for_each(|id| _ = store.put(id, vec![1; len]).unwrap());
    }
    let mut id = 10_000;
    while store.put(id, [1; 60]).map_err(|error| assert!(matches!(error, Error::Full { .. }))).is_ok() {
        id += 1;
    }
    (10_000..id.min(10_500)).for_each(|id| assert!(store.delete(id).unwrap()));
    store.sync().unwrap();
    let pin = store.pin().unwrap();
    for (ids, _) in lens {
        ids.for_each(|id| assert!(store.delete(id).unwrap()));
    }
    store.sync().unwrap();
    drop(pin);
    for id in 1000..1040 {
        store.put(id, vec![2; 15_000]).unwrap_or_else(|error| panic!("id {id}: {error}"));
    }
    check_clean(&store);
}

/// Some pin is always there, but none for long. Each write frees a version that a pin may show.
#[test]
fn a_store_that_is_always_pinned_and_flushed_does_not_grow() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().record_size(LONGEST).regions(1).create(&path).unwrap();
    let mut pin = store.pin().unwrap();
    let mut lens = Vec::new();
    for round in 0..6000_u64 {
        // One length, and another one after it.
        let len = if round % 100 < 50 { 1000 } else { 3000 };
        store.put(round % 10, vec![round as u8; len]).unwrap();
        store.sync().unwrap();
        pin = store.pin().unwrap(); // The one before it ends after this.
        lens.push(std::fs::metadata(&path).unwrap().len());
    }
    drop(pin);
    assert_eq!(lens[4500], lens[5999], "bytes of the file after 4,500 and after 6,000 writes");
    check_clean(&store);
}
