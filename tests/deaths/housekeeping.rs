//! Housekeeping that fails, and readers that go on.
//!
//! Needs the feature `testing`. Fails when: an error in a step after a change (park, links, a larger table) brings something
//! back that was replaced or deleted, or leaves a region that can't be rebuilt without room; when a reader waits for an owner
//! that does not go on, or reports damage that is none; when an extent is lost with the header that its writer left half-written.

#![cfg(feature = "testing")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::common::{self, Me, PATIENCE, Worker};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::getpid;
use rand::Rng;
use recstore::testing::{Refusal, fail_surveys, growths_seen, mark_for_rebuild, refuse_growth, set_hook};
use recstore::{Commit, Error, Options, Store};

fn small() -> Options {
    Options::new().record_size(64).regions(1).slots_per_extent(64)
}

fn at_step(at: String, mut act: impl FnMut() + 'static) {
    let mut left = 1;
    set_hook(Some(Box::new(move |step| {
        if step == at && left == 1 {
            left = 0;
            act();
        }
    })));
}

/// Does what `DO` says, and dies or stops at the step `AT`.
fn acts(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    if me.var("HOW") == "dies after" {
        let mut left: u64 = me.var("AT").parse().unwrap();
        set_hook(Some(Box::new(move |_| {
            left -= 1;
            if left == 0 {
                kill(getpid(), Signal::SIGKILL).unwrap();
            }
        })));
    } else if me.var("HOW") == "dies" {
        at_step(me.var("AT"), || {
            kill(getpid(), Signal::SIGKILL).unwrap();
        });
    } else {
        at_step(me.var("AT"), || raise(Signal::SIGSTOP).unwrap());
    }
    fail_surveys(me.var("SURVEYS") == "fail");
    match me.var("DO").as_str() {
        // A healer, whatever comes of it.
        "heal" => drop(store.put(2, b"second")),
        "batch" => {
            let mut batch = store.batch();
            [1, 1_000_000].into_iter().for_each(|id| batch.put(id, &b"by the other"[..]).unwrap());
            batch.delete(5);
            assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
        }
        "reserve" => {
            let mut reservation = store.reserve(1, 12).unwrap();
            reservation.write_at(0, b"by the other").unwrap();
            reservation.commit().unwrap();
        }
        "put" => drop(store.put(1, b"by the other").unwrap()),
        "put another" => drop(store.put(1_000_000, b"by the other").unwrap()),
        "delete" => drop(store.delete(1).unwrap()),
        other => panic!("{other}"),
    }
    set_hook(None);
    me.say("done");
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "acts" => acts(&mut me),
        other => panic!("no role {other}"),
    }
}

fn act(path: &Path, how: &str, what: &str, at: &str) -> Worker {
    act_with(path, how, what, at, "hold")
}

fn act_with(path: &Path, how: &str, what: &str, at: &str, surveys: &str) -> Worker {
    let with = [("HOW", how), ("DO", what), ("AT", at), ("SURVEYS", surveys)];
    Worker::spawn("acts", &[&[("STORE", path.to_str().unwrap())], &with[..]].concat())
}

fn dies(path: &Path, what: &str, at: &str) {
    let mut worker = act(path, "dies", what, at);
    assert_eq!(worker.line(), None, "it did not get to the step {at:?}");
    worker.kill();
}

fn stops(path: &Path, what: &str, at: &str) -> Worker {
    let worker = act(path, "stops", what, at);
    worker.wait_until_stopped();
    worker
}

/// The call's result; fails if it doesn't come back.
fn comes_back<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let (to, result) = channel();
        scope.spawn(move || to.send(call()));
        match result.recv_timeout(PATIENCE / 2) {
            Ok(result) => result,
            Err(_) => {
                eprintln!("held up for {:?}", PATIENCE / 2);
                std::process::exit(101) // The thread that hangs can't be joined.
            }
        }
    })
}

fn assert_is(store: &Store, model: &BTreeMap<u64, Vec<u8>>, when: &str) {
    for (&id, data) in model {
        let found = store.get(id).unwrap_or_else(|e| panic!("{when}: id {id}: {e}"));
        assert_eq!(found.as_deref(), Some(&data[..]), "{when}: id {id}");
    }
    let mut seen: Vec<u64> = store.iter().map(|record| record.unwrap().id()).collect();
    seen.sort_unstable();
    assert_eq!(seen, model.keys().copied().collect::<Vec<_>>(), "{when}: what iter gives");
    assert_eq!(store.len().unwrap(), model.len() as u64, "{when}: the count");
}

/// Has the owner of a batch die, so that the region is rebuilt by the next call.
fn rebuild(path: &Path) {
    dies(path, "batch", "batch: slots taken");
}

#[test]
fn a_deletion_stands_when_there_was_no_room_to_park_what_it_hides() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = small().create(&path).unwrap();
    for (how, id) in [(Refusal::Full, 1), (Refusal::Busy, 2)] {
        store.put(id, b"first").unwrap();
        // The pin begins when the write has asked whether there is one.
        let pins = Store::open(&path).unwrap();
        let pins: &'static Store = Box::leak(Box::new(pins));
        set_hook(Some(Box::new(move |step| {
            if step == "put: version visible" {
                std::mem::forget(pins.pin().unwrap());
            }
        })));
        refuse_growth(1, Some(how));
        store.put(id, b"second").unwrap();
        set_hook(None);
        let mut model = BTreeMap::from([(id, b"second".to_vec())]);
        assert_is(&store, &model, "after the write");
        assert!(store.delete(id).unwrap());
        model.clear();
        assert_is(&store, &model, "after the deletion");
        rebuild(&path);
        assert_is(&store, &model, "after a rebuild");
        refuse_growth(0, None);
        assert!(store.verify().unwrap().is_clean(), "{:?}", store.verify().unwrap().damage);
    }
}

/// The search: every operation, with growth refused from the n-th on, in both ways, with pins and snapshots; then a death, a
/// rebuild that is refused growth as well, and the model.
#[test]
fn refused_growth_at_every_place_leaves_what_was_acknowledged() {
    let mut rng = common::seeded();
    for how in [Refusal::Full, Refusal::Busy] {
        let mut from = 1;
        loop {
            let dir = common::scratch();
            let path = dir.path().join("store");
            let options = Options::new().record_size(64).regions(1).slots_per_extent(4);
            let store = options.create(&path).unwrap();
            let other = Store::open(&path).unwrap();
            let mut model = BTreeMap::new();
            let mut pin = None;
            let mut snapshot = None;
            refuse_growth(from, Some(how));
            for n in 0u64..300 {
                let id = rng.random_range(0..40);
                let data = n.to_le_bytes().to_vec();
                let refused = |e: Error| {
                    let is_refused = matches!(e, Error::Full { .. } | Error::Busy { .. });
                    assert!(is_refused, "{how:?} from {from}, step {n}: {e}");
                };
                match rng.random_range(0..20) {
                    0..8 => match store.put(id, &data) {
                        Ok(_) => drop(model.insert(id, data)),
                        Err(e) => refused(e),
                    },
                    8..13 => match store.delete(id) {
                        Ok(was) => {
                            assert_eq!(was, model.remove(&id).is_some(), "{how:?} from {from}, step {n}")
                        }
                        Err(e) => refused(e),
                    },
                    13..15 => {
                        let mut batch = store.batch();
                        batch.put(id, &data).unwrap();
                        batch.delete(id + 1);
                        match batch.commit() {
                            Ok(_) => {
                                model.insert(id, data);
                                model.remove(&(id + 1));
                            }
                            Err(e) => refused(e),
                        }
                    }
                    15 => pin = if pin.is_some() { None } else { Some(other.pin().unwrap()) },
                    16 => snapshot = if snapshot.is_some() { None } else { Some(other.snapshot().unwrap()) },
                    17 => store.sync().unwrap(),
                    18 => match store.update(id, |_| Some(data.clone())) {
                        Ok(_) => drop(model.insert(id, data)),
                        Err(e) => refused(e),
                    },
                    _ => {
                        let found = store.get(id).unwrap();
                        assert_eq!(
                            found.as_deref(),
                            model.get(&id).map(|d| &d[..]),
                            "{how:?} from {from}, step {n}"
                        );
                    }
                }
            }
            let was_met = growths_seen() >= from;
            assert_is(&store, &model, &format!("{how:?} from {from}"));
            // A rebuild without room, with and without the pin.
            for when in ["beside a pin", "without one"] {
                mark_for_rebuild(&path, 0).unwrap();
                let _ = store.delete(1_000_000);
                assert_is(&store, &model, &format!("{how:?} from {from}, after a rebuild {when}"));
                drop(pin.take());
                drop(snapshot.take());
            }
            refuse_growth(0, None);
            let report = store.verify().unwrap();
            assert!(report.is_clean(), "{how:?} from {from}: {:?}", report.damage);
            store.put(7, b"goes on").unwrap();
            if !was_met {
                break;
            }
            from += 1;
        }
        assert!(from > 5, "growth was asked for {from} times");
    }
}

#[test]
fn a_region_is_read_on_a_full_disk_beside_a_pin_when_its_writer_died() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = small().create(&path).unwrap();
    let mut model = BTreeMap::new();
    // More records than the index is meant to take, as on a disk that is full.
    for id in 0..400 {
        refuse_growth(1, (id >= 100).then_some(Refusal::Full));
        match store.put(id, b"one") {
            Ok(_) => drop(model.insert(id, b"one".to_vec())),
            Err(Error::Full { .. }) => break,
            Err(e) => panic!("{e}"),
        }
    }
    refuse_growth(1, Some(Refusal::Full));
    store.delete(0).unwrap();
    model.remove(&0);
    dies(&path, "put", "publish: header written, seq still 0");
    let pin = store.pin().unwrap();
    assert_is(&store, &model, "beside a pin");
    assert_eq!(pin.get(5).unwrap(), Some(&b"one"[..]));
    // The only slot that is left is the dead writer's, which nobody can have borrowed; then the one that was just replaced.
    store.put(6, b"two").unwrap();
    model.insert(6, b"two".to_vec());
    let said = store.put(5, b"two").unwrap_err().to_string();
    assert!(said.contains("1 slots wait for the end of a pin"), "{said}");
    assert_is(&store, &model, "after a write that was refused beside a pin");
    drop(pin);
    assert_is(&store, &model, "without the pin");
    store.put(5, b"two").unwrap();
    model.insert(5, b"two".to_vec());
    assert_is(&store, &model, "after a write");
    refuse_growth(0, None);
    assert!(store.verify().unwrap().is_clean(), "{:?}", store.verify().unwrap().damage);
}

#[test]
fn every_reader_goes_on_beside_an_owner_that_is_stopped_anywhere() {
    // What the reader must see: the version before, or the one after.
    let steps = [
        ("put", "publish: header written, seq still 0", Some(&b"one"[..])),
        ("put", "index: entry stored, checksum not", Some(b"by the other")),
        ("put", "put: version visible", Some(b"by the other")),
        ("delete", "retract: seq is 0", None),
        ("delete", "index: entry stored, checksum not", None),
        ("put another", "rebuild: slots looked at", Some(b"one")),
        ("put another", "rebuild: marked", Some(b"one")),
        ("put another", "rebuild: versions linked", Some(b"one")),
    ];
    for linked in [false, true] {
        for (what, at, expected) in steps {
            let dir = common::scratch();
            let path = dir.path().join("store");
            let store = small().create(&path).unwrap();
            store.put(1, b"one").unwrap();
            store.put(2, b"two").unwrap();
            if linked {
                store.sync().unwrap();
                store.put(2, b"two, again").unwrap(); // Keeps the one before, so links are there.
                store.put(1, b"one").unwrap();
                if what == "delete" && at.starts_with("retract") {
                    continue; // It is buried instead.
                }
            }
            let snapshot = store.snapshot().unwrap();
            let is_deletion = what == "delete";
            let is_rebuild = at.starts_with("rebuild");
            if is_rebuild {
                rebuild(&path);
            }
            if is_deletion {
                drop(snapshot);
                let worker = stops(&path, what, at);
                let found = comes_back(|| store.get(1).unwrap());
                assert_eq!(found.as_deref(), expected, "{what} at {at}, linked: {linked}");
                comes_back(|| assert_eq!(store.pin().unwrap().get(1).unwrap(), expected, "{at}"));
                drop(worker);
            } else {
                let worker = stops(&path, what, at);
                comes_back(|| {
                    assert_eq!(
                        store.get(1).unwrap().as_deref(),
                        expected,
                        "{what} at {at}, linked: {linked}"
                    );
                    assert_eq!(store.get(3).unwrap(), None, "{what} at {at}");
                    let pin = store.pin().unwrap();
                    assert_eq!(pin.get(1).unwrap(), expected, "{what} at {at}, linked: {linked}, pinned");
                    assert_eq!(snapshot.get(1).unwrap(), Some(&b"one"[..]), "{what} at {at}, the snapshot");
                    assert_eq!(snapshot.get(3).unwrap(), None, "{what} at {at}, the snapshot");
                });
                drop(worker);
            }
            comes_back(|| assert!(store.get(2).unwrap().is_some(), "{what} at {at}, when the owner is dead"));
            let report = store.verify().unwrap();
            assert!(report.is_clean(), "{what} at {at}: {:?}", report.damage);
        }
    }
}

#[test]
fn an_extent_whose_header_is_half_written_is_used_by_the_next_growth() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = small().slots_per_extent(4).create(&path).unwrap();
    store.put(1000, b"one").unwrap();
    let extent_size = store.stats().unwrap().extent_size.expect("extents of one size");
    let before = std::fs::metadata(&path).unwrap().len();
    let first = before - extent_size;
    // As a death between two of the eight stores leaves it, the last word first.
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for words in 1..8u64 {
        let at = std::fs::metadata(&path).unwrap().len();
        let mut header = [0; 64];
        file.read_exact_at(&mut header, first).unwrap();
        for number in [16..20, 52..56] {
            header[number].copy_from_slice(&(((at - first) / extent_size) as u32).to_le_bytes());
        }
        header[..64 - 8 * words as usize].fill(0);
        file.set_len(at + extent_size).unwrap();
        file.write_all_at(&header, at).unwrap();
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{words} words: {:?}", report.damage);
        for id in 0..5 {
            store.put(100 * words + id, b"two").unwrap();
        }
        assert!(store.verify().unwrap().is_clean(), "{words} words");
        let stats = store.stats().unwrap();
        let whole = (std::fs::metadata(&path).unwrap().len() - first) / extent_size;
        assert_eq!(stats.slots, 4 * whole, "{words} words: an extent was lost");
    }
}

/// Writes through a handle when its bytes are asked for.
struct Writes<'a>(&'a Store, &'a RefCell<Option<Error>>);

impl AsRef<[u8]> for Writes<'_> {
    fn as_ref(&self) -> &[u8] {
        self.1.replace(self.0.put(3, b"from as_ref").err());
        b"two"
    }
}

#[test]
fn a_write_from_inside_of_update_is_refused_through_every_handle_of_the_file() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let link = dir.path().join("link");
    let store = small().create(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let [second, third] = [&path, &link].map(|path: &PathBuf| Store::open(path).unwrap());
    let elsewhere = small().create(dir.path().join("another")).unwrap();
    comes_back(|| {
        let changed = store.update(1, |_| {
            for other in [&store, &second, &third] {
                assert!(matches!(other.put(2, b"x"), Err(Error::Reentrant { .. })));
                assert!(matches!(other.snapshot().map(drop), Err(Error::Reentrant { .. })));
                assert_eq!(other.get(1).unwrap(), None);
            }
            elsewhere.put(2, b"x").unwrap();
            Some(b"one")
        });
        assert!(changed.unwrap().is_some());
        let said = RefCell::default();
        store.update(1, |_| Some(Writes(&second, &said))).unwrap();
        assert!(matches!(said.take(), Some(Error::Reentrant { .. })));
    });
    assert_eq!(store.get(3).unwrap(), None);
    second.put(2, b"after it").unwrap();
}

#[test]
fn a_store_in_memory_does_not_grow_by_its_snapshots() {
    let store = small().shared(&format!("housekeeping-{}", std::process::id())).unwrap();
    let round = || {
        for id in 0..50 {
            store.put(id, b"over and over").unwrap();
        }
        store.delete(49).unwrap();
        drop(store.snapshot().unwrap());
    };
    (0..10).for_each(|_| round());
    let before = store.stats().unwrap().slots;
    (0..200).for_each(|_| round());
    let after = store.stats().unwrap().slots;
    assert_eq!(before, after, "the store grew");
    // What a snapshot reads stays.
    let snapshot = store.snapshot().unwrap();
    for _ in 0..20 {
        store.put(7, b"something else").unwrap();
        drop(store.snapshot().unwrap());
    }
    assert_eq!(snapshot.get(7).unwrap(), Some(&b"over and over"[..]));
    drop(snapshot);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_full_store_says_what_there_is_no_room_for_and_why_free_slots_are_no_help() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().record_size(64).regions(2).slots_per_extent(16).create(&path).unwrap();
    let in_region = |&id: &u64, region| store.region_of(id) == region;
    let of = |region: u32| (0u64..).filter(move |id| in_region(id, region));
    let (there, here) = (of(1).next().unwrap(), of(0).take(16).collect::<Vec<_>>());
    store.put(there, b"one").unwrap();
    store.delete(there).unwrap();
    for &id in &here {
        store.put(id, b"one").unwrap();
    }
    store.sync().unwrap();
    let error = |result: Result<recstore::Version, Error>| match result {
        Err(error @ Error::Full { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let snapshot = store.snapshot().unwrap();
    store.put(here[0], b"two").unwrap(); // Takes an extent, and keeps the one before, which the snapshot may read.
    for id in of(0).skip(16).take(15) {
        store.put(id, b"one").unwrap();
    }
    refuse_growth(1, Some(Refusal::Full));
    let said = error(store.put(of(0).nth(40).unwrap(), b"no room"));
    refuse_growth(0, None);
    assert!(said.contains("an extent of slots"), "{said}");
    assert!(said.contains("1 slots are free in other regions"), "{said}");
    assert!(said.contains("1 slots hold replaced versions"), "{said}");
    // Without the snapshot the store makes room by a flush.
    drop(snapshot);
    refuse_growth(1, Some(Refusal::Full));
    store.put(of(0).nth(40).unwrap(), b"in the place of one").unwrap();
    refuse_growth(0, None);
}

#[test]
fn a_reader_waits_no_longer_than_a_moment_whatever_the_lock_time_out_is() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = small().lock_timeout(Some(Duration::from_secs(3600))).create(&path).unwrap();
    store.put(1, b"one").unwrap();
    rebuild(&path);
    let worker = stops(&path, "put another", "rebuild: marked");
    comes_back(|| assert_eq!(store.get(1).unwrap().as_deref(), Some(&b"one"[..])));
    drop(worker);
}

/// A reader finds a dead owner, and another process takes the lock before it, and is stopped while it heals.
#[test]
fn a_reader_that_would_heal_does_not_wait_for_another_healer() {
    let heals = [
        ("put another", "publish: data written", "finish: work finished"),
        ("batch", "batch: slots taken", "rebuild: slots looked at"),
    ];
    for (what, (does, dies_at, stops_at)) in
        ["len", "iter", "watch_all"].into_iter().flat_map(|w| heals.map(|h| (w, h)))
    {
        let dir = common::scratch();
        let path = dir.path().join("store");
        let store = small().create(&path).unwrap();
        store.put(1, b"one").unwrap();
        dies(&path, does, dies_at);
        let (to, healers) = channel();
        let theirs = path.clone();
        let found = comes_back(|| {
            at_step("heal: the owner is dead".to_owned(), move || {
                to.send(stops(&theirs, "put another", stops_at)).unwrap();
            });
            let found = match what {
                "len" => store.len().unwrap(),
                "iter" => store.iter().map(Result::unwrap).count() as u64,
                _ => {
                    let timeout = Some(Duration::from_millis(700));
                    u64::from(store.watch_all().unwrap().wait(timeout).is_ok())
                }
            };
            set_hook(None);
            found
        });
        assert_eq!(found, 1, "{what}");
        drop(healers.recv().expect("a healer that was stopped"));
        assert!(store.verify().unwrap().is_clean(), "{what}");
    }
}

/// The mark of a rebuild says that the dead owner's last write was decided; a healer that fails before that leaves it open.
/// Tried with a death at each step of a write, a deletion, a batch and a reservation, of what a flush has covered and of what
/// none has; and then with healers that fail, that die while they fail, and that die while they heal.
#[test]
fn a_healer_that_fails_leaves_the_last_write_of_the_dead_to_the_next() {
    let mut rng = common::seeded();
    let dir = common::scratch();
    let (mut failed, mut died_healing) = (0, 0);
    let whats = ["put", "put another", "delete", "batch", "reserve"];
    for (what, synced) in whats.into_iter().flat_map(|w| [(w, false), (w, true)]) {
        for step in 1.. {
            let when = format!("{what}, synced: {synced}, step {step}");
            let path = dir.path().join(format!("{what}-{synced}-{step}"));
            let store = small().create(&path).unwrap();
            store.put(1, b"first").unwrap();
            store.put(5, b"fifth").unwrap();
            if synced {
                store.sync().unwrap();
            }
            let mut writer = act(&path, "dies after", what, &step.to_string());
            let died = writer.line().is_none();
            writer.kill();
            if !died {
                break;
            }
            let seen = || {
                [1, 5, 1_000_000]
                    .map(|id| store.get(id).unwrap_or_else(|e| panic!("{when}: {e}")).map(|r| r.to_vec()))
            };
            fail_surveys(true);
            let after_the_death = seen();
            for _ in 0..2 {
                match store.put(2, b"second") {
                    Err(Error::Damaged { .. }) => failed += 1,
                    other => assert!(other.is_ok(), "{when}: {other:?}"), // It died with no lock held.
                }
            }
            assert_eq!(seen(), after_the_death, "{when}: after healers that failed");
            for (surveys, steps) in [("fail", 1..=4), ("hold", 1..=16), ("hold", 1..=16)] {
                let at = rng.random_range(steps);
                let mut healer = act_with(&path, "dies after", "heal", &at.to_string(), surveys);
                died_healing += u64::from(healer.line().is_none());
                healer.kill();
                assert_eq!(
                    seen(),
                    after_the_death,
                    "{when}: after a healer that died at step {at}; surveys {surveys}"
                );
            }
            fail_surveys(false);
            assert_eq!(seen(), after_the_death, "{when}: after healers that failed or died");
            // By a handle that was not there, too.
            Store::open(&path).unwrap().put(3, b"third").unwrap();
            assert_eq!(seen(), after_the_death, "{when}: after one that healed");
            rebuild(&path);
            let mut batch = store.batch();
            batch.put(2, &b"second"[..]).unwrap();
            assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
            assert_eq!(seen(), after_the_death, "{when}: after another death, and a batch");
            assert!(store.verify().unwrap().is_clean(), "{when}");
        }
    }
    assert!(failed > 100, "{failed} healers failed: nothing was tried");
    assert!(died_healing > 100, "{died_healing} healers died: nothing was tried");
}

/// Tombstones that hide versions on disk go to the back of the queue, all of them. No write has to do that for the others.
#[test]
fn a_write_looks_at_few_tombstones_however_many_there_are() {
    const RECORDS: u64 = 3000;
    // Frees nothing itself.
    let flush = |store: &Store| store.sync_timeout(Duration::from_secs(60)).unwrap();
    let dir = common::scratch();
    let store = small().create(dir.path().join("store")).unwrap();
    for data in [b"to be replaced", b"to be deleted "] {
        for id in 0..RECORDS {
            store.put(id, data).unwrap();
        }
        flush(&store);
    }
    for id in 0..RECORDS {
        store.delete(id).unwrap();
    }
    flush(&store);
    assert_eq!(store.stats().unwrap().retired_slots, 2 * RECORDS);
    let looks = Rc::new(Cell::new(0));
    let counted = looks.clone();
    set_hook(Some(Box::new(move |step| {
        counted.set(counted.get() + u64::from(step == "queue: first slot taken"))
    })));
    for round in 0..4 {
        for id in 0..RECORDS {
            looks.set(0);
            store.put(RECORDS + round * RECORDS + id, b"another").unwrap();
            assert!(looks.get() <= 128, "round {round}: one write took {} slots from the queue", looks.get());
        }
        flush(&store);
        if round % 2 == 0 {
            for id in 0..RECORDS {
                looks.set(0);
                store.delete(RECORDS + round * RECORDS + id).unwrap();
                assert!(looks.get() <= 128);
            }
            flush(&store);
        }
    }
    set_hook(None);
    let stats = store.stats().unwrap();
    assert!(stats.slots < 8 * RECORDS, "the slots of tombstones are used again: {stats:?}");
    assert!(store.verify().unwrap().is_clean());
}
