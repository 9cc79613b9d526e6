//! Values that end at a deadline, by a clock that the tests set. Deaths, and others at the same time: `expiry_races.rs`.
//!
//! Fails when: any call finds a value after its deadline, or does not find it before; a later deadline counts for another value, changes
//! the version, or writes the value again; a read writes; a sweep looks at more than it was told to, frees a value that is not over, or
//! leaves one that is; a wall clock that jumps expires what lives or keeps what is over.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;
use recstore::mirror::{Directory, Mirror};
use recstore::{Commit, Durability, Error, Store, Swap, Ttl};

use crate::clocks::{BEGIN, Clocks, DAY, HOUR, SECOND, end, get, new_store, secs, small, sweep_all};
use crate::common::{self};

#[test]
fn a_value_is_there_until_its_deadline_and_absent_from_then_on_for_every_call() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let version = space.put_with("k", b"value", secs(10)).unwrap();
    assert_eq!(end(&space, "k"), Some(HOUR + 10 * SECOND));
    clocks.pass(10 * SECOND - 1);
    space
        .update("k", |old| {
            assert_eq!(old, Some(&b"value"[..]));
            None::<&[u8]>
        })
        .unwrap();
    assert_eq!(get(&space, "k").as_deref(), Some(&b"value"[..]));
    clocks.pass(1);
    assert_eq!(end(&space, "k"), None);
    assert!(!space.touch("k", Duration::from_secs(9)).unwrap(), "it is not called back to life");
    space
        .update("k", |old| {
            assert_eq!(old, None);
            None::<&[u8]>
        })
        .unwrap();
    assert!(!space.delete("k").unwrap(), "it was not there");
    assert!(space.put_with("k", b"value", secs(10)).unwrap() > version);
    clocks.pass(10 * SECOND);
    assert!(matches!(space.put_if_absent("k", b"new").unwrap(), Swap::Done(_)));
    assert_eq!(end(&space, "k"), None, "without a time to live there is no deadline");
    clocks.pass(DAY);
    assert_eq!(get(&space, "k").as_deref(), Some(&b"new"[..]));
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn batches_snapshots_pins_and_passes_judge_as_get_does() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let version = space.put_with("k", b"value", secs(10)).unwrap();
    let before = store.snapshot().unwrap();
    for is in [true, false] {
        let reader = small().open_read_only(store.path()).unwrap();
        for store in [&store, &reader] {
            let space = store.space("s").unwrap();
            assert_eq!(
                (space.contains("k").unwrap(), space.version("k").unwrap()),
                (is, is.then_some(version))
            );
            assert_eq!((space.len().unwrap(), space.iter().count()), (u64::from(is), usize::from(is)));
            assert_eq!(space.is_empty().unwrap(), !is);
            assert_eq!(store.spaces().unwrap().len(), usize::from(is), "hidden spaces stay hidden");
            let mut many = Vec::new();
            space.get_many(&["k"], |_, value| many.push(value.is_some())).unwrap();
            assert_eq!(many, [is]);
        }
        assert_eq!(store.pin().unwrap().get_in(&space, "k").unwrap().is_some(), is);
        let snapshot = store.snapshot().unwrap();
        assert_eq!(snapshot.get_in(&space, "k").unwrap().is_some(), is);
        assert_eq!(snapshot.iter_in(&space).count(), usize::from(is));
        for expected in [Some(version), None] {
            let mut batch = store.batch();
            batch.require_in(&space, "k", expected).unwrap();
            let is_met = matches!(batch.commit().unwrap(), Commit::Done(_));
            assert_eq!(is_met, expected.is_some() == is);
        }
        clocks.pass(10 * SECOND);
    }
    // A snapshot is of one moment, in this too.
    assert_eq!(before.get_in(&space, "k").unwrap(), Some(&b"value"[..]));
    assert_eq!(before.iter_in(&space).count(), 1);
}

#[test]
fn a_touch_changes_the_deadline_and_neither_the_value_nor_its_version() {
    let clocks = Clocks::new();
    // The ids of value and later deadline differ. The version is that of a record, so it would change if they shared one.
    let dir = common::scratch();
    let store = common::superblock::create_seeded(&small(), &dir.path().join("s"), 1);
    let space = store.space("s").unwrap();
    let version = space.put_with("k", [7; 300], secs(10)).unwrap();
    for _ in 0..5 {
        clocks.pass(6 * SECOND);
        assert!(space.touch("k", Duration::from_secs(10)).unwrap());
        assert_eq!(space.version("k").unwrap(), Some(version));
    }
    assert_eq!(end(&space, "k"), Some(HOUR + 40 * SECOND));
    let snapshot = store.snapshot().unwrap();
    clocks.pass(9 * SECOND);
    assert_eq!(get(&space, "k"), Some(vec![7; 300]));
    assert_eq!((space.len().unwrap(), store.snapshot().unwrap().iter_in(&space).count()), (1, 1));
    // A touch of the value before it is none of this one.
    space.put_with("k", b"another", secs(10)).unwrap();
    assert_eq!(end(&space, "k"), Some(HOUR + 49 * SECOND));
    space.touch("k", Duration::from_secs(60)).unwrap();
    space.put_with("k", b"another", secs(10)).unwrap();
    clocks.pass(10 * SECOND);
    assert_eq!((get(&space, "k"), end(&space, "k")), (None, None));
    assert_eq!(snapshot.get_in(&space, "k").unwrap(), Some(&[7; 300][..]));
    drop(snapshot);
    // Earlier; none; and then one again.
    space.put_with("k", b"short", secs(100)).unwrap();
    space.touch("k", Duration::from_secs(200)).unwrap();
    space.touch("k", Duration::from_secs(50)).unwrap();
    assert_eq!(end(&space, "k"), Some(HOUR + 99 * SECOND));
    space.touch("k", Ttl::NEVER).unwrap();
    clocks.pass(DAY);
    assert_eq!((get(&space, "k").as_deref(), end(&space, "k")), (Some(&b"short"[..]), None));
    space.touch("k", Duration::from_secs(1)).unwrap();
    clocks.pass(SECOND);
    assert!(!space.touch("k", Duration::from_secs(1)).unwrap() && !space.touch("no", Ttl::NEVER).unwrap());
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_space_gives_its_time_to_what_it_writes_and_an_update_keeps_the_deadline() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let plain = store.space("s").unwrap();
    let space = plain.clone().with_ttl(Duration::from_secs(10));
    let now = || clocks.up.load(Ordering::SeqCst);
    space.put("put", b"").unwrap();
    space.write_many([("many", "")]).unwrap();
    let _ = space.put_if_absent("absent", b"").unwrap();
    space.update("update", |_| Some(b"made")).unwrap();
    let mut batch = store.batch();
    batch.put_in(&space, "batch", b"").unwrap();
    let _ = batch.commit().unwrap();
    let keys = ["put", "many", "absent", "update", "batch"];
    for key in keys {
        assert_eq!(end(&plain, key), Some(now() + 10 * SECOND), "{key}");
    }
    clocks.pass(5 * SECOND);
    space.update("update", |_| Some(b"kept")).unwrap();
    plain.update("put", |_| Some(b"kept")).unwrap();
    assert_eq!(
        (end(&plain, "update"), end(&plain, "put")),
        (Some(now() + 5 * SECOND), Some(now() + 5 * SECOND))
    );
    // A touch counts for the value that an update has written, too.
    space.touch("put", Duration::from_secs(30)).unwrap();
    plain.update("put", |_| Some(b"kept again")).unwrap();
    assert_eq!(end(&plain, "put"), Some(now() + 30 * SECOND));
    space.put_with("many", b"", Ttl::NEVER).unwrap();
    plain.put("absent", b"").unwrap();
    assert_eq!((end(&plain, "many"), end(&plain, "absent")), (None, None));
    space.put_with("put", b"", (secs(1), Durability::Disk)).unwrap();
    assert_eq!(end(&plain, "put"), Some(now() + SECOND));
}

#[test]
fn keys_that_share_an_id_have_deadlines_of_their_own() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let id = space.id_of("key 0");
    let keys: Vec<_> =
        (0..).map(|n| format!("key {n}")).filter(|key| space.id_of(key) == id).take(4).collect();
    for (n, key) in (1..).zip(&keys) {
        space.put_with(key, key, secs(10 * n)).unwrap();
    }
    assert!(space.touch(&keys[0], Duration::from_secs(25)).unwrap());
    for (passed, there) in [(9, [true; 4]), (12, [true, false, true, true]), (5, [false, false, true, true])]
    {
        clocks.pass(passed * SECOND);
        let is: Vec<_> = keys.iter().map(|key| get(&space, key).is_some()).collect();
        assert_eq!(is, there);
    }
    assert_eq!(sweep_all(&store), 2);
    assert_eq!(get(&space, &keys[2]).as_deref(), Some(keys[2].as_bytes()));
    space.put(&keys[0], b"anew").unwrap();
    clocks.pass(DAY);
    assert_eq!(sweep_all(&store), 2);
    assert_eq!(get(&space, &keys[0]).as_deref(), Some(&b"anew"[..]));
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn reads_of_what_is_over_write_nothing() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    space.put_with("k", b"value", secs(10)).unwrap();
    space.touch("k", Duration::from_secs(20)).unwrap();
    clocks.pass(DAY);
    let before = std::fs::read(store.path()).unwrap();
    assert_eq!((get(&space, "k"), end(&space, "k"), space.len().unwrap()), (None, None, 0));
    assert_eq!(space.iter().count(), 0);
    assert!(std::fs::read(store.path()).unwrap() == before);
}

#[test]
fn a_sweep_frees_what_is_over_and_looks_at_no_more_than_it_was_told_to() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    for n in 0..60_u64 {
        space.put_with(n.to_string(), b"value", secs(10 + n % 2 * 100)).unwrap();
        store.put(1000 + n, b"plain").unwrap();
    }
    for n in (0..60_u64).step_by(4) {
        assert!(space.touch(n.to_string(), Duration::from_secs(50)).unwrap());
    }
    clocks.pass(20 * SECOND);
    let mut freed = Vec::new();
    loop {
        let swept = store.sweep(5).unwrap();
        freed.push(swept.freed);
        if swept.is_round_over {
            break;
        }
    }
    assert_eq!(freed.iter().sum::<u64>(), 15, "half of them live, and half of the rest were touched");
    let others = small().open(store.path()).unwrap();
    assert_eq!(sweep_all(&others), 0);
    assert!(freed.len() > 120 / 5, "{} sweeps", freed.len());
    assert_eq!(space.len().unwrap(), 45);
    clocks.pass(DAY);
    assert_eq!(sweep_all(&others), 45);
    assert_eq!(sweep_all(&store), 0);
    // What is left is the anchor of the clock: the later deadlines are gone too.
    assert_eq!(store.len().unwrap(), 60 + 1);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_thread_sweeps_at_intervals() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let sweeping = store.sweep_every(Duration::from_millis(1), 4).unwrap();
    for n in 0..40_u64 {
        space.put_with(n.to_string(), b"value", secs(10)).unwrap();
    }
    clocks.pass(20 * SECOND);
    common::until("all are freed", || store.len().unwrap() == 1);
    assert!(sweeping.error().is_none() && sweeping.failures() == 0);
    sweeping.finish().unwrap();
    assert!(matches!(store.sweep_every(Duration::ZERO, 4), Err(Error::InvalidOption { .. })));
}

#[test]
fn a_wall_clock_that_jumps_expires_nothing_and_keeps_nothing() {
    let mut clocks = Clocks::new();
    let (_dir, store) = new_store();
    for jump in [(DAY * 1000) as i64, -((DAY * 1000) as i64)] {
        let space = store.space("s").unwrap();
        space.put_with("k", b"value", secs(1000)).unwrap();
        clocks.pass(60 * SECOND);
        clocks.jump(jump);
        let (mut lived, other) = (60, small().open(store.path()).unwrap());
        while get(&space, "k").is_some() {
            assert!(other.space("s").unwrap().contains("k").unwrap(), "after {lived} s");
            clocks.pass(SECOND);
            lived += 1;
            // Writers set the anchor.
            other.space("other").unwrap().put_with("k", b"", secs(1)).unwrap();
        }
        println!("{lived} s");
        assert!((500..=2000).contains(&lived), "{lived} s");
        clocks.jump(-jump);
        clocks.pass(DAY);
    }
}

#[test]
fn deadlines_outlive_a_boot_whatever_the_wall_clock_shows_then() {
    let mut clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    space.put_with("hour", b"value", secs(3600)).unwrap();
    space.put_with("day", b"value", secs(86_400)).unwrap();
    let now = BEGIN + HOUR;
    // Off for two hours.
    clocks.boot(now + 2 * HOUR);
    let there = |store: &Store| ["hour", "day"].map(|key| store.space("s").unwrap().contains(key).unwrap());
    assert_eq!(there(&store), [false, true]);
    // A clock that begins in 1970, one that is behind, and one that is years ahead.
    for wall in [0, now - DAY, now + 3650 * DAY] {
        clocks.boot(wall);
        assert_eq!(there(&small().open(store.path()).unwrap()), [true, true], "{wall}");
    }
    // A writer sets the anchor, and the time goes on from there.
    clocks.boot(0);
    let other = small().open(store.path()).unwrap();
    other.space("other").unwrap().put_with("k", b"", secs(1)).unwrap();
    for _ in 0..300 {
        clocks.pass(30 * SECOND);
        other.space("other").unwrap().put_with("k", b"", secs(1)).unwrap();
    }
    assert_eq!(there(&other), [false, true]);
}

#[test]
fn an_anchor_that_is_no_anchor_is_replaced() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    space.put_with("k", b"value", Ttl::at(UNIX_EPOCH + Duration::from_millis(BEGIN + 2 * HOUR))).unwrap();
    assert_eq!(end(&space, "k"), Some(2 * HOUR));
    space.put_with("gone", b"value", Ttl::at(SystemTime::UNIX_EPOCH)).unwrap();
    assert_eq!(get(&space, "gone"), None);
    // A store without any deadline has no anchor, and a read makes none.
    clocks.pass(HOUR);
    assert_eq!(get(&space, "k"), None);
}

#[test]
fn any_calls_give_what_a_map_with_deadlines_gives() {
    let mut clocks = Clocks::new();
    let mut rng = common::seeded();
    let (_dir, store) = new_store();
    let mut stores = [store, small().open(_dir.path().join("s")).unwrap()];
    let mut model: BTreeMap<String, (u64, Option<u64>)> = BTreeMap::new();
    for counter in 0..4000_u64 {
        let which = rng.random_range(0..2);
        let now = clocks.up.load(Ordering::SeqCst);
        model.retain(|_, (_, end)| end.is_none_or(|end| end > now));
        let key = rng.random_range(0..12u32).to_string();
        let ttl = rng.random_range(1..50u64);
        let space = stores[which].space("s").unwrap();
        let old = model.get(&key).copied();
        match rng.random_range(0..13) {
            0 | 1 => {
                space.put_with(&key, counter.to_le_bytes(), secs(ttl)).unwrap();
                model.insert(key, (counter, Some(now + ttl * SECOND)));
            }
            2 => {
                space.put(&key, counter.to_le_bytes()).unwrap();
                model.insert(key, (counter, None));
            }
            3 | 4 => {
                assert_eq!(space.touch(&key, Duration::from_secs(ttl)).unwrap(), old.is_some());
                if let Some((value, _)) = old {
                    model.insert(key, (value, Some(now + ttl * SECOND)));
                }
            }
            5 => {
                space
                    .update(&key, |is| {
                        assert_eq!(is.map(<[u8]>::to_vec), old.map(|old| old.0.to_le_bytes().to_vec()));
                        Some(counter.to_le_bytes())
                    })
                    .unwrap();
                model.insert(key, (counter, old.and_then(|old| old.1)));
            }
            6 => assert_eq!(space.delete(&key).unwrap(), model.remove(&key).is_some()),
            7 => {
                let made = matches!(space.put_if_absent(&key, counter.to_le_bytes()).unwrap(), Swap::Done(_));
                assert_eq!(made, old.is_none());
                if made {
                    model.insert(key, (counter, None));
                }
            }
            8 => _ = stores[which].sweep(rng.random_range(1..20)).unwrap(),
            9 => {
                let mut batch = stores[which].batch();
                batch.require_in(&space, &key, None).unwrap();
                batch
                    .put_in(
                        &space.clone().with_ttl(Duration::from_secs(ttl)),
                        &key,
                        counter.to_le_bytes().to_vec(),
                    )
                    .unwrap();
                let made = matches!(batch.commit().unwrap(), Commit::Done(_));
                assert_eq!(made, old.is_none());
                if made {
                    model.insert(key, (counter, Some(now + ttl * SECOND)));
                }
            }
            10 => {
                let path = stores[which].path().to_path_buf();
                stores[which] = small().open(path).unwrap();
            }
            _ => clocks.pass(rng.random_range(1..20) * SECOND),
        }
        let now = clocks.up.load(Ordering::SeqCst);
        model.retain(|_, (_, end)| end.is_none_or(|end| end > now));
        let space = stores[1 - which].space("s").unwrap();
        for key in (0..12u32).map(|key| key.to_string()) {
            let is = get(&space, &key).map(|value| u64::from_le_bytes(value.try_into().unwrap()));
            assert_eq!(
                (is, end(&space, &key)),
                model.get(&key).map_or((None, None), |is| (Some(is.0), is.1)),
                "{key} after call {counter}"
            );
        }
        assert_eq!(space.len().unwrap(), model.len() as u64);
    }
    clocks.jump(0);
    assert!(stores[0].verify().unwrap().is_clean());
}

#[test]
fn a_salvaged_store_has_the_deadlines() {
    let clocks = Clocks::new();
    let (dir, store) = new_store();
    let space = store.space("s").unwrap();
    space.put_with("k", b"value", secs(10)).unwrap();
    space.put_with("touched", b"value", secs(10)).unwrap();
    space.touch("touched", Duration::from_secs(1000)).unwrap();
    store.backup(dir.path().join("backup")).unwrap();
    store.close().unwrap();
    recstore::salvage(dir.path().join("s"), dir.path().join("salvaged"), None).unwrap();
    for name in ["backup", "salvaged"] {
        let copy = small().open(dir.path().join(name)).unwrap();
        let space = copy.space("s").unwrap();
        assert_eq!(
            (end(&space, "k"), end(&space, "touched")),
            (Some(HOUR + 10 * SECOND), Some(HOUR + 1000 * SECOND)),
            "{name}"
        );
    }
    drop(clocks);
}

/// A mirror learns deadlines from writes, and so does a reader that keeps one.
#[test]
fn an_earlier_deadline_is_a_write_of_the_value_even_if_a_touch_is_shortened() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let version = space.put_with("k", b"value", secs(10)).unwrap();
    space.touch("k", secs(300)).unwrap();
    assert_eq!(space.version("k").unwrap(), Some(version));
    space.touch("k", secs(20)).unwrap();
    assert!(space.version("k").unwrap() > Some(version));
    assert_eq!(end(&space, "k"), Some(HOUR + 20 * SECOND));
    clocks.pass(20 * SECOND);
    assert_eq!(get(&space, "k"), None);
}

/// Containers may show boot ids of their own on one kernel, and one clock since boot.
#[test]
fn processes_that_see_two_boot_ids_on_one_kernel_agree_on_the_time() {
    let mut clocks = Clocks::new();
    let (dir, store) = new_store();
    let other = small().open(dir.path().join("s")).unwrap();
    clocks.pass(100 * DAY); // since the boot
    store.space("s").unwrap().put_with("k", b"value", secs(3600)).unwrap();
    let mut lived = 0;
    loop {
        clocks.boot = 1 + lived % 2;
        clocks.set();
        let store = if lived % 2 == 0 { &store } else { &other };
        store.space("s").unwrap().put_with("other", b"", secs(1)).unwrap();
        if !store.space("s").unwrap().contains("k").unwrap() {
            break;
        }
        clocks.pass(61 * SECOND);
        lived += 1;
    }
    assert_eq!(lived, 3600_u64.div_ceil(61));
}

/// The record of the later deadline is one byte longer than that of an empty value.
#[test]
fn a_touch_of_a_value_that_just_fits_is_no_error() {
    let clocks = Clocks::new();
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    let space = store.space("s").unwrap();
    let fits = |key: &str| match space.put_with(key, b"", secs(10)) {
        Ok(_) => true,
        Err(Error::EntryTooLong { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    let longest = (1..).map(|len| "k".repeat(len)).take_while(|key| fits(key)).last().unwrap();
    assert!(space.touch(&longest, secs(100)).unwrap());
    clocks.pass(99 * SECOND);
    assert!(space.contains(&longest).unwrap());
}

/// The wall clock is far ahead, and is set back: the clock of the store goes on.
#[test]
fn a_mirror_ends_a_value_by_the_clock_of_the_store() {
    let mut clocks = Clocks::new();
    clocks.jump((40 * 366 * DAY) as i64);
    let (dir, store) = new_store();
    let space = store.space("s").unwrap();
    space.put("stays", b"value").unwrap();
    space.put_with("ends", b"value", secs(10)).unwrap();
    let place = Directory::open(dir.path().join("copy"), &store, Some("s")).unwrap();
    let mut mirror = Mirror::start(&store, Some("s"), place).unwrap();
    while !mirror.step(Duration::ZERO).unwrap().is_equal {}
    assert_eq!(mirror.stats().records, 2);
    clocks.jump(-(DAY as i64));
    clocks.pass(100 * SECOND);
    assert!(!space.contains("ends").unwrap());
    for _ in 0..3 {
        mirror.step(Duration::ZERO).unwrap();
    }
    assert_eq!(mirror.stats().records, 1);
}

#[test]
fn a_store_with_records_that_are_too_small_for_its_clock_says_so() {
    let _clocks = Clocks::new();
    let dir = common::scratch();
    for (record_size, is_enough) in [(40, false), (56, true)] {
        let store =
            small().record_size(record_size).create(dir.path().join(record_size.to_string())).unwrap();
        let put = store.space("s").unwrap().put_with("k", b"value", secs(10));
        match put {
            Ok(_) => assert!(is_enough),
            Err(Error::InvalidOption { what }) => {
                assert!(!is_enough && what.contains("larger record size"), "{what}")
            }
            Err(error) => panic!("{error}"),
        }
    }
}
