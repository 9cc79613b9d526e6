//! The operations at whose steps a process dies, each with the store that it begins with.

use recstore::{Commit, Options, Store};

use crate::common::value::value;

/// An operation, and the store that it begins with.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) options: fn() -> Options,
    pub(super) prepare: fn(&Store),
    pub(super) operate: fn(&Store),
}

pub(super) fn tiny() -> Options {
    Options::new().record_size(64).regions(1).slots_per_extent(4)
}

fn tight() -> Options {
    tiny().slots_per_extent(1)
}

fn two_regions() -> Options {
    tiny().regions(2).slots_per_extent(2)
}

/// Records of several keys: two bits are taken of the hash of a key.
fn of_keys() -> Options {
    tiny().record_size(256).regions(2)
}

fn large() -> Options {
    tiny().record_size(70_000).slots_per_extent(1)
}

/// Slots of several classes, in extents that grow from a page.
fn grown() -> Options {
    Options::new().record_size(5000).regions(1)
}

/// Fills the first page of slots of a class, and one slot of another.
fn a_page(store: &Store) {
    let slots = || store.stats().unwrap().free_slots;
    put(store, 0, 1);
    (1..).take_while(|_| slots() > 0).for_each(|id| put(store, id, 1));
    put_long(store, 1000, 1, 900);
}

/// Pages of slots of two classes, of which hardly any is in use.
fn deleted_pages(store: &Store) {
    (0..200).for_each(|id| put(store, id, 1));
    (200..220).for_each(|id| put_long(store, id, 1, 900));
    (1..220).for_each(|id| assert!(store.delete(id).unwrap()));
}

fn put_long(store: &Store, id: u64, counter: u64, len: usize) {
    store.put(id, &value(id, 1, counter, len)).unwrap();
}

pub(super) fn put(store: &Store, id: u64, counter: u64) {
    store.put(id, &value(id, 1, counter, 60)).unwrap();
}

/// In the models, the key of this number is at this beyond it.
pub(super) const KEYED: u64 = 1 << 62;

pub(super) fn key(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

fn put_key(store: &Store, number: u64, counter: u64) {
    store.space("keys").unwrap().put(key(number), counter.to_le_bytes()).unwrap();
}

/// Keys that share records, some of them durable.
fn six_keys(store: &Store) {
    (0..6).for_each(|number| put_key(store, number, 1));
    assert!(store.len().unwrap() < 5, "they share records");
    store.sync().unwrap();
    (0..3).for_each(|number| put_key(store, number, 2));
}

/// Changes keys 1, 2 and 9, deletes 0 and 5, and writes record 1000.
fn batch_of_keys(store: &Store) {
    let space = store.space("keys").unwrap();
    let mut batch = store.batch();
    for number in [1, 2, 9] {
        batch.put_in(&space, key(number), key(77).to_vec()).unwrap();
    }
    batch.delete_in(&space, key(0)).unwrap();
    batch.delete_in(&space, key(5)).unwrap();
    batch.put(1000, value(1000, 1, 7, 50)).unwrap();
    assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
}

fn three(store: &Store) {
    (0..3).for_each(|id| put(store, id, 1));
}

/// Every record has a durable version before the one that counts.
fn three_replaced_since_a_sync(store: &Store) {
    three(store);
    store.sync().unwrap();
    (0..3).for_each(|id| put(store, id, 2));
}

/// A chain of versions, some of them durable.
fn a_chain(store: &Store) {
    for counter in 1..5 {
        put(store, 1, counter);
        put(store, 2, counter);
        store.sync().unwrap();
        put(store, 1, counter * 10);
        put(store, 1, counter * 10 + 1);
    }
}

/// Versions wait in the retired queue that may be reclaimed, and no other slot is free.
fn reclaimable(store: &Store) {
    three_replaced_since_a_sync(store);
    store.sync().unwrap();
    put(store, 5, 1);
}

/// Deletes 0 by a tombstone, behind a replaced version of 1. With no other slot free, a write frees that version, and the tombstone goes
/// to the end of the retired queue.
fn delete_and_put_a_tombstone_back(store: &Store) {
    put(store, 1, 2);
    assert!(store.delete(0).unwrap());
    store.sync_timeout(std::time::Duration::from_secs(60)).unwrap(); // Frees nothing itself.
    let mut rooms = Vec::new();
    while store.stats().unwrap().free_slots > 0 {
        rooms.push(store.reserve(2, 8).unwrap());
    }
    put(store, 1, 2);
}

/// As many records as the first index table takes.
fn full_index(store: &Store) {
    (0..720).for_each(|id| put(store, id, 1));
}

/// The index has been moved, deleted from and filled again.
fn worn_index(store: &Store) {
    (0..900).for_each(|id| put(store, id, 1));
    (0..880).for_each(|id| _ = store.delete(id).unwrap());
    (0..40).for_each(|id| put(store, id, 2));
}

/// Changes 1, 2 and 9, and deletes 0.
fn batch(store: &Store) {
    let mut batch = store.batch();
    for id in [1, 2, 9] {
        batch.put(id, value(id, 1, 7, 50)).unwrap();
    }
    batch.delete(0);
    assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
}

/// From here on writers tell feeds what they change, for two laps.
fn followed(store: &Store) {
    drop(store.changes_from_now().unwrap());
}

/// All slots of both regions are in use.
fn four(store: &Store) {
    let in_region = |region| (0..).filter(move |&id| store.region_of(id) == region).take(2);
    (0..2).flat_map(in_region).chain([0, 1, 2]).for_each(|id| put(store, id, 1));
}

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "batch", options: two_regions, prepare: three, operate: batch },
    Scenario { name: "batch_in_an_empty_store", options: two_regions, prepare: |_| (), operate: batch },
    Scenario {
        name: "batch_after_sync",
        options: two_regions,
        prepare: three_replaced_since_a_sync,
        operate: batch,
    },
    Scenario {
        name: "batch_over_batches",
        options: two_regions,
        prepare: |s| {
            three(s);
            batch(s);
            s.sync().unwrap();
            batch(s);
            put(s, 0, 3);
        },
        operate: batch,
    },
    Scenario { name: "the_first_feed", options: two_regions, prepare: three, operate: followed },
    Scenario {
        name: "the_first_watch",
        options: two_regions,
        prepare: three,
        operate: |s| _ = s.watch(0).unwrap().wait(Some(std::time::Duration::from_millis(1))).unwrap(),
    },
    Scenario {
        name: "put_that_a_feed_is_told",
        options: two_regions,
        prepare: |s| {
            three(s);
            followed(s);
        },
        operate: |s| put(s, 0, 2),
    },
    Scenario {
        name: "delete_that_a_feed_is_told",
        options: two_regions,
        prepare: |s| {
            three(s);
            followed(s);
        },
        operate: |s| assert!(s.delete(0).unwrap()),
    },
    Scenario {
        name: "batch_that_a_feed_is_told",
        options: two_regions,
        prepare: |s| {
            three(s);
            followed(s);
        },
        operate: batch,
    },
    Scenario {
        name: "room_is_given_back",
        options: grown,
        prepare: deleted_pages,
        operate: |s| s.sync().unwrap(),
    },
    Scenario {
        name: "room_is_used_again",
        options: grown,
        prepare: |s| {
            deleted_pages(s);
            s.sync().unwrap();
        },
        operate: |s| put_long(s, 2000, 1, 3000),
    },
    Scenario { name: "put_in_a_second_page", options: grown, prepare: a_page, operate: |s| put(s, 2000, 1) },
    Scenario {
        name: "put_in_a_class_of_its_own",
        options: grown,
        prepare: a_page,
        operate: |s| put_long(s, 2000, 1, 3000),
    },
    Scenario {
        name: "overwrite_in_another_class",
        options: grown,
        prepare: |s| {
            a_page(s);
            s.sync().unwrap();
        },
        operate: |s| put_long(s, 3, 2, 300),
    },
    Scenario {
        name: "batch_of_several_classes",
        options: grown,
        prepare: a_page,
        operate: |s| {
            let mut batch = s.batch();
            for (id, len) in [(1, 50), (2, 500), (1000, 5000), (2000, 2500)] {
                batch.put(id, value(id, 1, 7, len)).unwrap();
            }
            batch.delete(0);
            assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
        },
    },
    Scenario {
        name: "delete_beside_a_snapshot_with_a_tombstone_in_a_class_of_its_own",
        options: grown,
        prepare: |s| {
            put_long(s, 1, 1, 900);
            s.sync().unwrap();
        },
        operate: |s| {
            let snapshot = s.snapshot().unwrap();
            assert!(s.delete(1).unwrap());
            drop(snapshot);
        },
    },
    Scenario { name: "batch_grows", options: two_regions, prepare: four, operate: batch },
    Scenario {
        name: "batch_in_a_chain",
        options: tiny,
        prepare: a_chain,
        operate: |s| {
            let mut batch = s.batch();
            batch.delete(1);
            batch.put(2, value(2, 1, 77, 50)).unwrap();
            assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
        },
    },
    Scenario {
        name: "sync_of_a_batch",
        options: two_regions,
        prepare: |s| {
            three_replaced_since_a_sync(s);
            batch(s);
        },
        operate: |s| s.sync().unwrap(),
    },
    Scenario {
        name: "overwrite_while_borrowed",
        options: tiny,
        prepare: three,
        operate: |s| {
            let pin = s.pin().unwrap();
            let old = pin.get(1).unwrap().unwrap();
            put(s, 1, 7);
            assert_eq!(old, value(1, 1, 1, 60));
        },
    },
    Scenario {
        name: "delete_while_borrowed_after_sync",
        options: tiny,
        prepare: three_replaced_since_a_sync,
        operate: |s| {
            let pin = s.pin().unwrap();
            assert!(s.delete(1).unwrap());
            drop(pin);
        },
    },
    Scenario {
        name: "batch_while_borrowed",
        options: two_regions,
        prepare: three_replaced_since_a_sync,
        operate: |s| {
            let pin = s.pin().unwrap();
            batch(s);
            drop(pin);
        },
    },
    Scenario {
        name: "snapshot",
        options: two_regions,
        prepare: three_replaced_since_a_sync,
        operate: |s| {
            let snapshot = s.snapshot().unwrap();
            assert_eq!(snapshot.get(1).unwrap().unwrap(), value(1, 1, 2, 60));
            assert_eq!(snapshot.get(9).unwrap(), None);
            assert_eq!(snapshot.iter().count(), 3);
        },
    },
    Scenario {
        name: "overwrite_under_a_snapshot",
        options: tiny,
        prepare: three,
        operate: |s| {
            let snapshot = s.snapshot().unwrap();
            put(s, 1, 7);
            assert_eq!(snapshot.get(1).unwrap().unwrap(), value(1, 1, 1, 60));
        },
    },
    Scenario {
        name: "delete_under_a_snapshot",
        options: tiny,
        prepare: a_chain,
        operate: |s| {
            let snapshot = s.snapshot().unwrap();
            assert!(s.delete(1).unwrap());
            assert_eq!(snapshot.get(1).unwrap().unwrap(), value(1, 1, 41, 60));
        },
    },
    Scenario {
        name: "batch_under_a_snapshot",
        options: two_regions,
        prepare: three_replaced_since_a_sync,
        operate: |s| {
            let snapshot = s.snapshot().unwrap();
            batch(s);
            (0..3).for_each(|id| assert_eq!(snapshot.get(id).unwrap().unwrap(), value(id, 1, 2, 60)));
            assert_eq!(snapshot.get(9).unwrap(), None);
        },
    },
    Scenario {
        name: "reserve_and_commit",
        options: tiny,
        prepare: three,
        operate: |s| {
            let mut room = s.reserve(1, 60).unwrap();
            room.write_at(0, &value(1, 1, 7, 60)).unwrap();
            room.commit().unwrap();
        },
    },
    Scenario {
        name: "reserve_and_commit_after_sync",
        options: tight,
        prepare: three_replaced_since_a_sync,
        operate: |s| {
            let mut room = s.reserve(9, 60).unwrap();
            room.write_at(0, &value(9, 1, 7, 60)).unwrap();
            room.commit().unwrap();
        },
    },
    Scenario {
        name: "reserve_and_drop",
        options: tiny,
        prepare: three,
        operate: |s| drop(s.reserve(1, 60).unwrap()),
    },
    Scenario { name: "put_new", options: tiny, prepare: three, operate: |s| put(s, 9, 7) },
    Scenario { name: "put_first", options: tiny, prepare: |_| (), operate: |s| put(s, 9, 7) },
    Scenario { name: "overwrite", options: tiny, prepare: three, operate: |s| put(s, 1, 7) },
    Scenario {
        name: "overwrite_after_sync",
        options: tiny,
        prepare: |s| {
            three(s);
            s.sync().unwrap();
        },
        operate: |s| put(s, 1, 7),
    },
    Scenario {
        name: "overwrite_twice_after_sync",
        options: tiny,
        prepare: three_replaced_since_a_sync,
        operate: |s| put(s, 1, 7),
    },
    Scenario { name: "overwrite_in_a_chain", options: tiny, prepare: a_chain, operate: |s| put(s, 1, 777) },
    Scenario { name: "delete", options: tiny, prepare: three, operate: |s| _ = s.delete(1).unwrap() },
    Scenario {
        name: "delete_after_sync",
        options: tiny,
        prepare: three_replaced_since_a_sync,
        operate: |s| _ = s.delete(1).unwrap(),
    },
    Scenario {
        name: "delete_a_chain",
        options: tiny,
        prepare: a_chain,
        operate: |s| _ = s.delete(1).unwrap(),
    },
    Scenario {
        name: "delete_the_newest",
        options: tiny,
        prepare: three,
        operate: |s| _ = s.delete(2).unwrap(),
    },
    Scenario { name: "grow", options: tight, prepare: three, operate: |s| put(s, 9, 7) },
    Scenario {
        name: "grow_after_sync",
        options: tight,
        prepare: three_replaced_since_a_sync,
        operate: |s| put(s, 1, 7),
    },
    Scenario {
        name: "grow_large",
        options: large,
        prepare: three,
        operate: |s| _ = s.put(9, &value(9, 1, 7, 70_000)).unwrap(),
    },
    Scenario { name: "reclaim", options: tight, prepare: reclaimable, operate: |s| put(s, 9, 7) },
    Scenario {
        name: "put_a_tombstone_back",
        options: tight,
        prepare: three_replaced_since_a_sync,
        operate: delete_and_put_a_tombstone_back,
    },
    Scenario {
        name: "put_a_tombstone_back_beside_a_pin",
        options: tight,
        prepare: three_replaced_since_a_sync,
        operate: |s| {
            let pin = s.pin().unwrap();
            delete_and_put_a_tombstone_back(s);
            drop(pin);
        },
    },
    Scenario {
        name: "unpark",
        options: tight,
        prepare: three,
        operate: |s| {
            put(s, 1, 7);
            let pin = s.pin().unwrap();
            put(s, 1, 7); // Parks the version of this epoch.
            drop(pin);
            put(s, 1, 7);
        },
    },
    Scenario { name: "move_the_index", options: tiny, prepare: full_index, operate: |s| put(s, 9999, 7) },
    Scenario {
        name: "put_into_a_worn_index",
        options: tiny,
        prepare: worn_index,
        operate: |s| put(s, 9999, 7),
    },
    Scenario {
        name: "delete_from_a_worn_index",
        options: tiny,
        prepare: worn_index,
        operate: |s| _ = s.delete(890).unwrap(),
    },
    Scenario {
        name: "update",
        options: tiny,
        prepare: three,
        operate: |s| _ = s.update(1, |old| old.map(|o| o[..20].to_vec())).unwrap(),
    },
    Scenario {
        name: "compare_and_swap",
        options: tiny,
        prepare: three,
        operate: |s| _ = s.compare_and_swap(1, s.version(1).unwrap(), b"swapped").unwrap(),
    },
    Scenario {
        name: "write_many",
        options: two_regions,
        prepare: three,
        operate: |s| {
            let data: Vec<_> = (1..6).map(|id| (id, value(id, 1, 7, 50))).collect();
            s.write_many(data.iter().map(|(id, d)| (*id, &d[..]))).unwrap();
        },
    },
    Scenario {
        name: "sync",
        options: tiny,
        prepare: three_replaced_since_a_sync,
        operate: |s| s.sync().unwrap(),
    },
    Scenario {
        name: "put_durable",
        options: tiny,
        prepare: three,
        operate: |s| _ = s.put_with(1, b"durable", recstore::Durability::Disk).unwrap(),
    },
    Scenario {
        name: "open_and_close",
        options: tiny,
        prepare: three,
        operate: |s| Store::open(s.path()).unwrap().close().unwrap(),
    },
    Scenario { name: "closed, first write", options: two_regions, prepare: three, operate: |s| put(s, 1, 7) },
    Scenario { name: "closed, batch", options: two_regions, prepare: three, operate: batch },
    Scenario { name: "put_first_key", options: of_keys, prepare: |_| (), operate: |s| put_key(s, 9, 7) },
    Scenario { name: "put_new_key", options: of_keys, prepare: six_keys, operate: |s| put_key(s, 9, 7) },
    Scenario { name: "overwrite_key", options: of_keys, prepare: six_keys, operate: |s| put_key(s, 4, 7) },
    Scenario {
        name: "delete_keys",
        options: of_keys,
        prepare: |s| (0..4).for_each(|number| put_key(s, number, 1)),
        operate: |s| _ = s.space("keys").unwrap().delete(key(2)).unwrap(),
    },
    Scenario {
        name: "delete_the_only_key",
        options: of_keys,
        prepare: |s| put_key(s, 1, 1),
        operate: |s| assert!(s.space("keys").unwrap().delete(key(1)).unwrap()),
    },
    Scenario { name: "batch_of_keys", options: of_keys, prepare: six_keys, operate: batch_of_keys },
    Scenario {
        name: "batch_of_keys_under_a_snapshot",
        options: of_keys,
        prepare: six_keys,
        operate: |s| {
            let snapshot = s.snapshot().unwrap();
            batch_of_keys(s);
            let space = s.space("keys").unwrap();
            assert_eq!(snapshot.get_in(&space, key(0)).unwrap(), Some(&2u64.to_le_bytes()[..]));
            assert_eq!(snapshot.get_in(&space, key(9)).unwrap(), None);
        },
    },
    Scenario {
        name: "repair_when_nothing_is_wrong",
        options: tiny,
        prepare: a_chain,
        operate: |s| _ = s.repair().unwrap(),
    },
];
