//! Pins: what is borrowed stays as it was, and nothing of it is left when nobody borrows.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Me, Worker};
use recstore::{Error, Options, Store};

fn small() -> Options {
    Options::new().record_size(64).regions(2).slots_per_extent(16)
}

fn is_clean(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

#[test]
fn what_is_borrowed_stays_when_the_record_is_overwritten_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    store.put(1, b"the first").unwrap();
    store.put(2, b"to be deleted").unwrap();
    store.sync().unwrap();
    store.put(3, b"never flushed").unwrap();
    let pin = store.pin().unwrap();
    let one = pin.get(1).unwrap().unwrap();
    let two = pin.get(2).unwrap().unwrap();
    let three = pin.get(3).unwrap().unwrap();
    assert_eq!(pin.get(4).unwrap(), None);
    for round in 0..200u64 {
        for id in 1..10 {
            store.put(id, &round.to_le_bytes()).unwrap();
        }
        assert!(store.delete(2).unwrap());
        if round % 50 == 0 {
            store.sync().unwrap();
        }
    }
    assert_eq!((one, two, three), (&b"the first"[..], &b"to be deleted"[..], &b"never flushed"[..]));
    assert_eq!(pin.get(1).unwrap().unwrap(), 199u64.to_le_bytes(), "each get is of its own moment");
    assert_eq!(pin.get(2).unwrap(), None);
    is_clean(&store);
    let stats = store.stats().unwrap();
    assert_eq!(stats.attached[0].pins, 1);
    assert!(stats.retired_slots > 1000, "all that was replaced is kept: {}", stats.retired_slots);
}

#[test]
fn without_a_pin_nothing_is_kept_and_after_one_everything_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().regions(1).create(dir.path().join("s.rec")).unwrap();
    let fill = |rounds: u64| {
        for round in 0..rounds {
            for id in 0..20 {
                store.put(id, &round.to_le_bytes()).unwrap();
            }
        }
    };
    fill(100);
    assert_eq!(store.stats().unwrap().retired_slots, 0);
    let pin = store.pin().unwrap();
    assert!(pin.get(1).unwrap().is_some());
    fill(10);
    let during = store.stats().unwrap();
    assert!(during.retired_slots >= 100);
    drop(pin);
    for id in 0..during.retired_slots - 64 {
        store.put(1000 + id, b"in the place of one that was kept").unwrap();
    }
    let after = store.stats().unwrap();
    assert!(after.retired_slots <= 64 + 2 * 32, "{} slots are kept still", after.retired_slots);
    assert!(after.slots <= during.slots + 32, "{} slots, then {}", during.slots, after.slots);
    is_clean(&store);
}

/// Overwrites one record `rounds` times; `each` is called before each.
fn overwrite(store: &Store, rounds: u64, mut each: impl FnMut(u64)) {
    for round in 0..rounds {
        each(round);
        store.put(1, &round.to_le_bytes()).unwrap();
    }
}

#[test]
fn pins_that_follow_one_another_without_a_gap_keep_no_more_than_they_can_see() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().regions(1).create(dir.path().join("s.rec")).unwrap();
    store.put(1, b"first").unwrap();
    // The new pin is taken before the old one goes.
    let mut pin = store.pin().unwrap();
    overwrite(&store, 20_000, |round| {
        if round % 10 == 0 {
            pin = store.pin().unwrap();
            assert!(pin.get(1).unwrap().is_some());
        }
    });
    let slots = store.stats().unwrap().slots;
    assert!(slots <= 256, "a pin lives for 10 overwrites, and {slots} slots are used");
    // As threads do whose pins overlap: at no time there is none.
    let mut pins = std::collections::VecDeque::from([pin]);
    overwrite(&store, 20_000, |_| {
        pins.push_back(store.pin().unwrap());
        if pins.len() > 64 {
            pins.pop_front();
        }
    });
    let slots = store.stats().unwrap().slots;
    assert!(slots <= 512, "a pin lives for 64 overwrites, and {slots} slots are used");
    is_clean(&store);
}

#[test]
fn when_long_pins_go_others_that_follow_one_another_give_back_what_those_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().regions(1).create(dir.path().join("s.rec")).unwrap();
    store.put(1, b"first").unwrap();
    let mut pin = store.pin().unwrap();
    let mut long = Vec::new();
    let mut refresh = |long: Option<&mut Vec<_>>| {
        overwrite(&store, 1000, |round| {
            if round % 10 == 0 {
                pin = store.pin().unwrap();
            }
        });
        long.into_iter().for_each(|long| long.push(store.pin().unwrap()));
        store.stats().unwrap()
    };
    (0..5).for_each(|_| _ = refresh(Some(&mut long)));
    let most = refresh(None);
    assert!(most.retired_slots > 4500, "{} are kept for the long pins", most.retired_slots);
    long.clear();
    (0..10).for_each(|_| _ = refresh(None));
    // What is parked still is room for others.
    for id in 0..most.retired_slots - 256 {
        store.put(1000 + id, b"in the place of one that was kept").unwrap();
    }
    let after = store.stats().unwrap();
    assert_eq!(after.slots, most.slots, "the store grows no more");
    assert!(after.retired_slots <= 256, "{} are kept for pins of 10 overwrites", after.retired_slots);
    is_clean(&store);
}

#[test]
fn values_and_slices_are_borrowed_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    store.typed::<[f64; 2]>().unwrap().put(1, &[1.5, 2.5]).unwrap();
    store.slices::<u32>().unwrap().put(2, &[1, 2, 3]).unwrap();
    let pin = store.pin().unwrap();
    assert_eq!(pin.get_as::<[f64; 2]>(1).unwrap(), Some(&[1.5, 2.5]));
    assert_eq!(pin.get_slice::<u32>(2).unwrap(), Some(&[1, 2, 3][..]));
    assert!(matches!(pin.get_as::<[u8; 3]>(1), Err(Error::TypeMismatch { .. })));
    assert!(matches!(pin.get_slice::<u64>(2), Err(Error::TypeMismatch { .. })));
    assert_eq!(pin.get_as::<u64>(9).unwrap(), None);
    assert_eq!(pin.get(1).unwrap().unwrap().as_ptr().addr() % 32, 0);
    assert!(matches!(Store::open_read_only(store.path()).unwrap().pin(), Err(Error::ReadOnly { .. })));
}

#[test]
fn a_damaged_record_is_not_lent() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    let store = small().create(&path).unwrap();
    store.put(1, b"to be damaged").unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(13).position(|w| w == b"to be damaged").unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"T", at as u64).unwrap();
    let pin = store.pin().unwrap();
    assert!(matches!(pin.get(1), Err(Error::Corrupt { id: 1, .. })));
}

/// Readers hold what they borrowed for a while and look at it again, while writers replace and delete
/// everything all the time, and flush now and then.
#[test]
fn nothing_changes_under_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    let value = |id: u64, round: u64| [id, round, id ^ round, !round, id, round, round, id];
    let ids = 30u64;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                for round in 0..3000u64 {
                    let id = (round * 7 + writer) % ids;
                    store.typed::<[u64; 8]>().unwrap().put(id, &value(id, round)).unwrap();
                    if round % 5 == 0 {
                        store.delete((id + 3) % ids).unwrap();
                    }
                    if round % 300 == 0 {
                        store.sync().unwrap();
                    }
                }
                done.store(true, Ordering::Relaxed);
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let pin = store.pin().unwrap();
                    let held: Vec<(u64, &[u64; 8])> =
                        (0..ids).filter_map(|id| Some((id, pin.get_as(id).unwrap()?))).collect();
                    let copies: Vec<[u64; 8]> = held.iter().map(|(_, value)| **value).collect();
                    std::thread::yield_now();
                    for ((id, held), copy) in held.iter().zip(&copies) {
                        assert_eq!(*held, copy, "record {id} changed while it was borrowed");
                        assert_eq!(*held, &value(*id, held[1]), "record {id} is torn");
                    }
                }
            });
        }
    });
    is_clean(&store);
}

/// The writer dies inside of a region; whoever heals it may not use what somebody borrows.
#[test]
fn a_rebuild_leaves_what_is_borrowed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    let store = small().regions(1).create(&path).unwrap();
    for id in 0..10u64 {
        store.put(id, &[id as u8; 60]).unwrap();
    }
    let pin = store.pin().unwrap();
    let held: Vec<&[u8]> = (0..10).map(|id| pin.get(id).unwrap().unwrap()).collect();
    for id in 0..5 {
        store.put(id, b"anew").unwrap();
    }
    for id in 5..10 {
        assert!(store.delete(id).unwrap());
    }
    let mut worker = Worker::spawn("die inside", &[("STORE", path.to_str().unwrap())]);
    worker.expect("inside");
    worker.kill();
    for round in 0..100u64 {
        for id in 0..20u64 {
            store.put(id, &round.to_le_bytes()).unwrap();
        }
    }
    for (id, held) in held.iter().enumerate() {
        assert_eq!(*held, [id as u8; 60], "record {id} changed while it was borrowed");
    }
    is_clean(&store);
}

#[test]
fn the_pins_of_a_dead_process_count_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    let store = small().regions(1).create(&path).unwrap();
    let fill = || (0..2000u64).for_each(|n| _ = store.put(n % 10, &n.to_le_bytes()).unwrap());
    fill();
    let mut worker = Worker::spawn("pin", &[("STORE", path.to_str().unwrap())]);
    worker.expect("pinned");
    fill();
    let pinned = store.stats().unwrap();
    assert!(pinned.retired_slots > 1900, "{}", pinned.retired_slots);
    assert!(pinned.attached.iter().any(|a| a.pid == worker.pid() && a.pins == 1));
    worker.kill();
    for id in 0..1800u64 {
        store.put(1000 + id, b"in the place of one that was kept").unwrap();
    }
    let after = store.stats().unwrap();
    assert!(after.retired_slots < 300, "{} slots are kept still", after.retired_slots);
    assert!(after.slots <= pinned.slots + 32, "{} slots, then {}", pinned.slots, after.slots);
    is_clean(&store);
}

/// A fresh store's clock is 0, and all pins of a thread are counted in one word.
#[test]
fn pins_of_one_thread_count_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().regions(1).create(dir.path().join("s.rec")).unwrap();
    store.put(1, &[1; 60]).unwrap();
    let fill = |from: u64| (from..from + 200).for_each(|n| _ = store.put(1, &n.to_le_bytes()).unwrap());
    let first: Vec<_> = (0..3).map(|_| store.pin().unwrap()).collect();
    let of_first = first[0].get(1).unwrap().unwrap();
    let last = store.pin().unwrap();
    let of_last = last.get(1).unwrap().unwrap();
    assert_eq!(store.stats().unwrap().attached[0].pins, 4);
    fill(0);
    assert_eq!((of_first, of_last), (&[1; 60][..], &[1; 60][..]));
    drop(first);
    assert_eq!(store.stats().unwrap().attached[0].pins, 1);
    fill(1000);
    assert_eq!(of_last, [1; 60], "the last pin's record changed when the others were dropped");
    drop(last);
    assert_eq!(store.stats().unwrap().attached[0].pins, 0);
    is_clean(&store);
}

#[test]
fn more_pins_than_a_handle_can_have_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    store.put(1, b"one").unwrap();
    let mut pins = Vec::new();
    let error = loop {
        match store.pin() {
            Ok(pin) => pins.push(pin),
            Err(error) => break error,
        }
        assert!(pins.len() <= 16_380);
    };
    assert!(matches!(error, Error::TooManyPins { .. }), "{error}");
    assert_eq!(pins.len(), 16_380);
    assert_eq!(store.stats().unwrap().attached[0].pins, 16_380);
    pins.pop();
    assert_eq!(store.pin().unwrap().get(1).unwrap(), Some(&b"one"[..]));
}

/// What was parked before a pin began is freed under it; what it can have been lent is not.
#[test]
fn a_pin_keeps_what_it_can_see_and_nothing_older() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().regions(1).create(dir.path().join("s.rec")).unwrap();
    let overwrite = |rounds: u64| {
        for round in 0..rounds {
            (0..20).for_each(|id| _ = store.put(id, &round.to_le_bytes()).unwrap());
        }
    };
    overwrite(1);
    let first = store.pin().unwrap();
    overwrite(20);
    drop(first);
    // The clock has gone on by now.
    for generation in 0..5u64 {
        (0..20).for_each(|id| _ = store.put(id, &[generation as u8; 60]).unwrap());
        let pin = store.pin().unwrap();
        let held: Vec<&[u8]> = (0..20).map(|id| pin.get(id).unwrap().unwrap()).collect();
        let before = store.stats().unwrap().slots;
        overwrite(20);
        for bytes in held {
            assert_eq!(bytes, [generation as u8; 60]);
        }
        let after = store.stats().unwrap().slots;
        // The slots of the pin before are free again, and take what is replaced now.
        assert!(generation == 0 || after <= before + 40, "{before} slots, then {after}");
    }
    is_clean(&store);
}

/// A deletion under a pin leaves the bytes where they are; a rebuild must not take them for a record.
#[test]
fn a_rebuild_brings_nothing_back_that_was_deleted_under_a_pin() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    let store = small().regions(1).create(&path).unwrap();
    (0..10).for_each(|id| _ = store.put(id, &[id as u8; 60]).unwrap());
    let pin = store.pin().unwrap();
    let held = pin.get(5).unwrap().unwrap();
    assert!(store.delete(5).unwrap());
    let mut worker = Worker::spawn("die inside", &[("STORE", path.to_str().unwrap())]);
    worker.expect("inside");
    worker.kill();
    store.put(100, b"heals the region").unwrap();
    assert_eq!(store.get(5).unwrap(), None);
    assert_eq!(store.len().unwrap(), 10);
    assert_eq!(held, [5; 60]);
    is_clean(&store);
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    let store = Store::open(me.var("STORE")).unwrap();
    match me.role.as_str() {
        "pin" => {
            let pin = store.pin().unwrap();
            assert!(pin.get(1).unwrap().is_some());
            me.say("pinned");
            me.wait_for_the_end();
        }
        "die inside" => {
            store
                .update(1, |_| {
                    me.say("inside");
                    me.wait_for_the_end();
                    None::<Vec<u8>>
                })
                .unwrap();
        }
        other => panic!("no role {other}"),
    }
}
