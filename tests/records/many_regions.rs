//! Calls that go through all regions of a store that has many.
//!
//! Fails when: such a call looks at all extents once for each region; a pass leaves out records in extents that were added after it
//! began.

use std::ops::ControlFlow;

use recstore::testing::extents_looked_at;
use recstore::{Options, Store};

use crate::common;

const REGIONS: u32 = 256;
const RECORDS: u64 = 4_000;
/// A call may look at all extents so many times. If it did so for each region, it would be 256 times.
const LOOKS_MAX: u64 = 12;

fn store(dir: &tempfile::TempDir) -> Store {
    let store = Options::new().record_size(512).regions(REGIONS).create(dir.path().join("a.rec")).unwrap();
    store.write_many((0..RECORDS).map(|id| (id, [7; 40]))).unwrap();
    store
}

/// How often all extents were looked at since so many looks.
fn looks_since(store: &Store, before: u64) -> u64 {
    let extents = store.extents().unwrap().len() as u64;
    assert!(extents >= u64::from(REGIONS), "{extents} extents");
    (extents_looked_at(store) - before) / extents
}

#[test]
fn no_call_that_goes_through_all_regions_looks_at_all_extents_for_each() {
    type Call = fn(&Store);
    let calls: [(&str, Call); 8] = [
        ("scan", |store| store.scan(|_, _, _| ControlFlow::Continue(())).unwrap()),
        ("iter", |store| assert_eq!(store.iter().count() as u64, RECORDS)),
        ("verify", |store| assert!(store.verify().unwrap().is_clean())),
        ("repair", |store| assert!(store.repair().unwrap().is_empty())),
        ("stats", |store| assert_eq!(store.stats().unwrap().records, RECORDS)),
        ("snapshot", |store| assert_eq!(store.snapshot().unwrap().iter().count() as u64, RECORDS)),
        ("copy", |store| {
            let dir = common::scratch();
            let options = Options::new().record_size(512).regions(4);
            store.copy_to(dir.path().join("copy.rec"), &options).unwrap();
        }),
        ("changed while it is scanned", |store| {
            let mut seen = 0;
            let scanned = store.scan(|id, _, _| {
                seen += 1;
                if seen % 16 == 0 {
                    store.put(id, [8; 40]).unwrap();
                }
                ControlFlow::Continue(())
            });
            scanned.unwrap();
            assert_eq!(seen, RECORDS);
        }),
    ];
    let dir = common::scratch();
    let store = store(&dir);
    for (name, call) in calls {
        let before = extents_looked_at(&store);
        call(&store);
        let looks = looks_since(&store, before);
        assert!(looks <= LOOKS_MAX, "{name} looked at all extents {looks} times");
    }
}

#[test]
fn a_recovery_looks_at_all_extents_a_few_times() {
    let dir = common::scratch();
    let first = store(&dir);
    first.sync().unwrap();
    (0..RECORDS / 2).for_each(|id| assert!(first.delete(id).unwrap())); // Leaves tombstones: all regions are rebuilt twice.
    // The copy is another file: its memory is not known to be that of the last users.
    std::fs::copy(dir.path().join("a.rec"), dir.path().join("b.rec")).unwrap();
    let copy = Store::open(dir.path().join("b.rec")).unwrap();
    let report = copy.opened().clone();
    assert!(report.os_crash, "{report:?}");
    assert_eq!(report.regions_rebuilt.len() as u32, REGIONS);
    let looks = looks_since(&copy, 0);
    assert!(looks <= 2 * LOOKS_MAX, "the recovery looked at all extents {looks} times");
    assert_eq!(copy.iter().count() as u64, RECORDS / 2);
    assert!(copy.verify().unwrap().is_clean());
}

#[test]
fn a_pass_gives_records_that_move_to_new_extents_after_it_began() {
    let dir = common::scratch();
    let store = store(&dir);
    let mut seen = std::collections::HashSet::new();
    let scanned = store.scan(|id, _, data| {
        assert!(seen.insert(id), "record {id} comes twice");
        assert!(data.len() == 40 || data.len() == 400);
        if seen.len() == 1 {
            // They need slots of another length: each region gets another extent.
            for id in 0..RECORDS {
                store.put(id, [9; 400]).unwrap();
            }
        }
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    assert_eq!(seen.len() as u64, RECORDS);
}

#[test]
fn bytes_behind_a_store_that_are_none_of_its_own_are_tried_a_few_times() {
    const UNITS: usize = 64;
    let dir = common::scratch();
    let path = dir.path().join("a.rec");
    store(&dir).close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend((0..UNITS * 4096).map(|n| (n * n + 7) as u8 | 1));
    std::fs::write(&path, bytes).unwrap();
    let store = Store::open(&path).unwrap();
    for (name, call) in [
        ("verify", &(|| drop(store.verify().unwrap())) as &dyn Fn()),
        ("repair", &|| drop(store.repair().unwrap())),
    ] {
        let before = extents_looked_at(&store);
        call();
        let looks = looks_since(&store, before);
        assert!(looks <= LOOKS_MAX, "{name} tried them {looks} times");
    }
    assert_eq!(store.iter().count() as u64, RECORDS);
}
