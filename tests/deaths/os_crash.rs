//! After a crash of the operating system every slot is checked before anybody gets in, and what
//! can't be believed is dropped and said.
//!
//! Needs the feature `testing`, which can make a store look as if the machine had gone down with it.
//! Fails when: damage stays in or goes unsaid; anything else is dropped; a read-only handle believes
//! such a store; a recovery that dies half-way can't be done again.

#![cfg(feature = "testing")]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::common::value::{parse, value};
use crate::common::{self, End, Me, in_fork, wait_for};
use recstore::testing::{arm, set_boot_id};
use recstore::{Error, Options, Store};

const IDS: u64 = 200;

fn options() -> Options {
    Options::new().record_size(100).regions(4).slots_per_extent(16)
}

/// A store that was in use, and its bytes.
fn used(path: &Path) {
    let store = options().create(path).unwrap();
    for id in 0..IDS {
        store.put(id, &value(id, 0, id, 90)).unwrap();
    }
    store.sync().unwrap();
    for id in 0..IDS / 4 {
        store.put(id, &value(id, 0, id + 1000, 90)).unwrap();
    }
    for id in IDS / 4..IDS / 2 {
        store.delete(id).unwrap();
    }
}

fn model() -> BTreeMap<u64, u64> {
    (0..IDS / 4).map(|id| (id, id + 1000)).chain((IDS / 2..IDS).map(|id| (id, id))).collect()
}

/// Flips a bit in the middle of the bytes of a version.
fn spoil(path: &Path, id: u64, counter: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    let what = value(id, 0, counter, 90);
    let at: Vec<usize> = (0..bytes.len() - 90).filter(|&at| bytes[at..at + 90] == what).collect();
    assert_eq!(at.len(), 1, "id {id} is in the file once");
    bytes[at[0] + 50] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn assert_model(store: &Store, model: &BTreeMap<u64, u64>) {
    for id in 0..IDS {
        let is = store.get(id).unwrap().map(|r| parse(id, &r).unwrap().1);
        assert_eq!(is, model.get(&id).copied(), "id {id}");
    }
    assert_eq!(store.len().unwrap(), model.len() as u64);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

fn path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("store")
}

#[test]
fn after_a_crash_every_region_is_rebuilt_and_nothing_is_lost() {
    let dir = common::scratch();
    used(&path(&dir));
    set_boot_id(&path(&dir)).unwrap();
    let newest = {
        match Store::open_read_only(path(&dir)) {
            Err(e @ Error::NeedsRepair { .. }) => assert!(e.to_string().contains("repair"), "{e}"),
            other => panic!("believed without repair: {other:?}"),
        }
        let store = Store::open(path(&dir)).unwrap();
        let report = store.opened();
        assert!(report.os_crash && report.dropped.is_empty(), "{report:?}");
        assert_eq!(report.regions_rebuilt.len(), 4, "{report:?}");
        assert_model(&store, &model());
        (0..IDS).filter_map(|id| store.version(id).unwrap()).max().unwrap()
    };
    // The numbers of versions jump ahead, past all that may have been given out and lost.
    let store = Store::open(path(&dir)).unwrap();
    assert!(store.opened().is_empty(), "{:?}", store.opened());
    for id in 0..IDS {
        assert!(store.put(id, b"new").unwrap() > newest);
    }
}

#[test]
fn a_damaged_record_is_dropped_and_named_after_a_crash() {
    let dir = common::scratch();
    used(&path(&dir));
    let lost = IDS - 1;
    spoil(&path(&dir), lost, lost);
    set_boot_id(&path(&dir)).unwrap();
    let store = Store::open(path(&dir)).unwrap();
    let report = store.opened();
    assert!(report.os_crash, "{report:?}");
    assert_eq!(report.dropped.len(), 1, "{report:?}");
    let dropped = &report.dropped[0];
    assert_eq!((dropped.id, dropped.region), (Some(lost), Some(store.region_of(lost))), "{dropped}");
    assert!(dropped.slot.is_some());
    let mut model = model();
    model.remove(&lost);
    assert_model(&store, &model);
    store.put(lost, &value(lost, 0, 7, 90)).unwrap();
    model.insert(lost, 7);
    assert_model(&store, &model);
}

#[test]
fn what_was_synced_comes_back_when_the_version_after_it_is_torn() {
    let dir = common::scratch();
    used(&path(&dir));
    spoil(&path(&dir), 3, 1003);
    set_boot_id(&path(&dir)).unwrap();
    let store = Store::open(path(&dir)).unwrap();
    let report = store.opened();
    assert_eq!(report.dropped.len(), 1, "{report:?}");
    assert_eq!(report.dropped[0].id, Some(3));
    let mut model = model();
    model.insert(3, 3);
    assert_model(&store, &model);
}

#[test]
fn a_store_that_was_closed_is_not_taken_for_crashed() {
    let dir = common::scratch();
    used(&path(&dir));
    Store::open(path(&dir)).unwrap().close().unwrap();
    let store = Store::open(path(&dir)).unwrap();
    assert!(store.opened().is_empty(), "{:?}", store.opened());
    assert_model(&store, &model());
}

/// The machine comes up again after a loss of power, with the file as it is.
fn another_boot(path: &Path) {
    const BOOT: u64 = 4096 + 64;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&0xdead_u128.to_le_bytes(), BOOT).unwrap();
}

#[test]
fn a_store_that_was_closed_stays_so_until_the_first_write() {
    let dir = common::scratch();
    used(&path(&dir));
    Store::open(path(&dir)).unwrap().close().unwrap();
    let flushes = |store: &Store| store.stats().unwrap().flushes;
    let [one, other] = [(), ()].map(|()| Store::open(path(&dir)).unwrap());
    let before = flushes(&one);
    assert_eq!(one.iter().count(), model().len());
    assert_eq!(other.len().unwrap(), model().len() as u64);
    one.sync().unwrap();
    assert_eq!(one.snapshot().unwrap().iter().count(), model().len());
    assert_eq!(flushes(&one), before, "there was nothing to flush");
    drop(one);
    other.close().unwrap();
    another_boot(&path(&dir));
    let [one, other] = [(), ()].map(|()| Store::open(path(&dir)).unwrap());
    assert!(one.opened().is_empty() && other.opened().is_empty(), "nobody had written to it");

    let mut model = model();
    for (id, store) in [(0, &one), (1, &other), (2, &one)] {
        store.put(id, &value(id, 0, 7, 90)).unwrap();
        model.insert(id, 7);
    }
    assert_model(&other, &model);
    drop((one, other));
    another_boot(&path(&dir));
    let store = Store::open(path(&dir)).unwrap();
    assert!(store.opened().os_crash, "it was written to");
    assert_model(&store, &model);
    store.close().unwrap();
    another_boot(&path(&dir));
    assert!(Store::open(path(&dir)).unwrap().opened().is_empty(), "closed again");
}

#[test]
fn twenty_that_open_a_crashed_store_at_once_recover_it_once() {
    let dir = common::scratch();
    used(&path(&dir));
    set_boot_id(&path(&dir)).unwrap();
    let path = path(&dir);
    let recovered: usize = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    let store = Store::open(&path).unwrap();
                    assert_eq!(store.len().unwrap(), model().len() as u64);
                    usize::from(store.opened().os_crash)
                })
            })
            .collect();
        openers.into_iter().map(|o| o.join().unwrap()).sum()
    });
    assert_eq!(recovered, 1);
    assert_model(&Store::open(&path).unwrap(), &model());
}

/// Dies at every step of the recovery; then it is done again.
fn dies_in_recovery(me: &mut Me) {
    let (path, origin) = (PathBuf::from(me.var("STORE")), PathBuf::from(me.var("STORE") + ".origin"));
    used(&path);
    spoil(&path, IDS - 1, IDS - 1);
    set_boot_id(&path).unwrap();
    std::fs::rename(&path, &origin).unwrap();
    let mut model = model();
    model.remove(&(IDS - 1));
    let mut deaths = 0;
    for n in (1..).step_by(3) {
        std::fs::copy(&origin, &path).unwrap();
        let dies = |n| {
            let child = in_fork(|| {
                arm(n);
                let _store = Store::open(&path).unwrap();
                arm(0);
                0
            });
            match wait_for(child) {
                End::Killed => true,
                End::Exited(0) => false,
                other => panic!("{other:?}"),
            }
        };
        let died = dies(n);
        dies(n / 2 + 1);
        let store = Store::open(&path).unwrap();
        assert_model(&store, &model);
        if !died {
            break;
        }
        deaths += 1;
        me.say(common::GOES_ON);
    }
    me.say(&format!("{deaths} deaths"));
    assert!(deaths > 0, "no step was passed");
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "dies_in_recovery" => dies_in_recovery(&mut me),
        other => panic!("no role {other}"),
    }
}

#[test]
fn a_recovery_that_dies_at_any_step_is_done_again() {
    let dir = common::scratch();
    common::alone("dies_in_recovery", &[("STORE", path(&dir).to_str().unwrap())]);
}
