//! Counters, rings and values of a type, under keys.
//!
//! The hash of a key is cut to 8 bits here, so the keys share ids all the time.
//!
//! Fails when: a call gives something else than a model does, through two handles that are closed and opened again; a key that holds one
//! shape is read as another, or the error does not name both; two pushes get one number, a value is lost, or a reader misses one;
//! a death at any step loses a count, a value, or leaves a number without a value; a push after a loss of power stores nothing,
//! or a value that was synced is missing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use recstore::{Durability, Error, KeyRing, Options, Space, Store, Ttl, ValueShape};

use crate::common::{self, Me, lose_power};
use crate::steps::at_every_step;

fn small() -> Options {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| recstore::testing::shorten_key_hash(8));
    Options::new().record_size(1024).regions(3).slots_per_extent(16)
}

fn new_store() -> (tempfile::TempDir, Store) {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    (dir, store)
}

fn space(store: &Store) -> Space<'_> {
    store.space("shapes").unwrap()
}

fn ring<'a>(store: &'a Store, key: &str) -> KeyRing<'a, u64> {
    space(store).ring(key, "<u8", 4).unwrap()
}

fn values(ring: &KeyRing<'_, u64>) -> Vec<(u64, u64)> {
    ring.iter().unwrap().collect::<Result<_, _>>().unwrap()
}

/// What the calls should have made.
#[derive(Default)]
struct Model {
    counts: BTreeMap<String, u64>,
    pairs: BTreeMap<String, [u32; 2]>,
    rings: BTreeMap<String, Vec<u64>>,
}

#[test]
fn any_calls_give_what_a_model_gives() {
    let mut rng = common::seeded();
    for regions in [1, 3] {
        let dir = common::scratch();
        let path = dir.path().join("s");
        let mut handles = [small().regions(regions).create(&path).unwrap(), Store::open(&path).unwrap()];
        let mut model = Model::default();
        for call in 0..3000 {
            if call % 300 == 299 {
                let n = rng.random_range(0..2);
                handles[n] = Store::open(&path).unwrap();
                check(&handles[1 - n], &model);
            }
            let n = rng.random_range(0..2);
            one_call(&mut rng, &handles[n], &mut model);
        }
        handles.iter().for_each(|store| check(store, &model));
        assert!(handles[0].verify().unwrap().is_clean(), "{:?}", handles[0].verify());
    }
}

fn one_call(rng: &mut StdRng, store: &Store, model: &mut Model) {
    let number = rng.random_range(0..60);
    let n = rng.random::<u64>();
    match rng.random_range(0..9) {
        0..=2 => {
            let key = format!("counter {number}");
            let count = model.counts.entry(key.clone()).or_default();
            *count = count.wrapping_add(n);
            assert_eq!(space(store).counter(&key).add(n).unwrap(), *count);
        }
        3 => {
            let key = format!("counter {number}");
            let counter = space(store).counter(&key);
            let old = model.counts.get(&key).copied().unwrap_or(0);
            let new = match rng.random_range(0..3) {
                0 => {
                    assert_eq!(counter.fetch_max(n).unwrap(), old);
                    old.max(n)
                }
                1 => {
                    assert_eq!(counter.set(n).unwrap(), old);
                    n
                }
                _ => {
                    let new = old.checked_add(n);
                    let updated = counter.fetch_update(|old| old.checked_add(n)).unwrap();
                    assert_eq!(updated, new.map(|_| old).ok_or(old));
                    new.unwrap_or(old)
                }
            };
            if new != 0 || model.counts.contains_key(&key) {
                model.counts.insert(key, new);
            }
        }
        4 => {
            let key = format!("pair {number}");
            let pairs = space(store).typed::<[u32; 2]>("pair").unwrap();
            let updated = pairs.update(&key, |old| {
                assert_eq!(old, model.pairs.get(&key).copied());
                (n % 4 != 0).then_some([n as u32, 7])
            });
            if updated.unwrap().is_some() {
                model.pairs.insert(key, [n as u32, 7]);
            }
        }
        5 => {
            let key = format!("pair {number}");
            space(store).typed::<[u32; 2]>("pair").unwrap().put(&key, &[1, n as u32]).unwrap();
            model.pairs.insert(key, [1, n as u32]);
        }
        6 => {
            // Keys of any kind go.
            let key = format!("{} {number}", ["counter", "pair"][number % 2]);
            let was_there = model.counts.remove(&key).is_some() | model.pairs.remove(&key).is_some();
            assert_eq!(space(store).delete(&key).unwrap(), was_there);
        }
        _ => {
            let key = format!("ring {}", number % 6);
            let pushed = model.rings.entry(key.clone()).or_default();
            if n % 40 == 0 {
                assert!(ring(store, &key).delete().unwrap());
                model.rings.remove(&key);
                return;
            }
            assert_eq!(ring(store, &key).push(&n).unwrap(), pushed.len() as u64);
            pushed.push(n);
        }
    }
}

fn check(store: &Store, model: &Model) {
    let space = space(store);
    for (key, count) in &model.counts {
        assert_eq!(space.counter(key).get().unwrap(), *count, "{key}");
        assert_eq!(space.shape_of(key).unwrap(), Some(ValueShape::Counter));
    }
    let pairs = space.typed::<[u32; 2]>("pair").unwrap();
    let found: BTreeMap<String, [u32; 2]> =
        pairs.iter().map(|found| found.unwrap()).map(|(key, pair)| (text(&key), pair)).collect();
    assert_eq!(found, model.pairs);
    for (key, pushed) in &model.rings {
        let ring = ring(store, key);
        assert_eq!(ring.pushed().unwrap(), pushed.len() as u64);
        let all: Vec<(u64, u64)> = (0..).zip(pushed.iter().copied()).collect();
        assert_eq!(values(&ring), all[all.len().saturating_sub(4)..], "{key}");
        assert_eq!(ring.latest(2).unwrap(), all[all.len().saturating_sub(2)..]);
    }
    let places: usize = model.rings.values().map(|pushed| pushed.len().min(4)).sum();
    let keys = model.counts.len() + model.pairs.len() + model.rings.len() + places;
    assert_eq!(space.len().unwrap(), keys as u64);
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// The error of a call on a key that holds something else.
#[track_caller]
fn refused<T: std::fmt::Debug>(call: Result<T, Error>, words: [&str; 2]) {
    let error = call.unwrap_err();
    let Error::OtherShape { found, wanted, space, .. } = &error else { panic!("{error}") };
    assert_eq!((&found[..], &wanted[..], &space[..]), (words[0], words[1], "shapes"));
    let said = error.to_string();
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn what_is_of_one_shape_is_refused_as_any_other_and_the_error_names_both() {
    let (_dir, store) = new_store();
    let space = space(&store);
    space.put("text", b"8 bytes!").unwrap();
    space.put("text of 16 bytes", b"that is no count").unwrap();
    let plain = ["8 bytes without a shape", "a counter"];
    refused(space.counter("text").add(1), plain);
    refused(space.counter("text").get(), plain);
    refused(space.counter("text").fetch_update(|_| panic!("not called")), plain);
    refused(space.counter("text of 16 bytes").add(1), ["16 bytes without a shape", "a counter"]);
    assert_eq!(space.get("text").unwrap().unwrap().data(), b"8 bytes!");
    let of_u64 = "a ring of 8 values of type \"<u8\" (8 bytes each)";
    space.ring::<u64>("ring", "<u8", 8).unwrap().push(&7).unwrap();
    let of_4 = space.ring::<u64>("ring", "<u8", 4);
    refused(of_4, [of_u64, "a ring of 4 values of type \"<u8\" (8 bytes each)"]);
    let of_f64 = space.ring::<f64>("ring", "<f8", 8);
    refused(of_f64, [of_u64, "a ring of 8 values of type \"<f8\" (8 bytes each)"]);
    refused(space.counter("ring").add(1), [of_u64, "a counter"]);
    let place = [&b"ring\0"[..], &[0; 8]].concat();
    refused(space.counter(&place).add(1), ["value number 0 of a ring (8 bytes)", "a counter"]);
    space.counter("count").add(1).unwrap();
    let of_ring = space.ring::<u64>("count", "<u8", 8);
    refused(of_ring, ["a counter", of_u64]);
    let numbers = space.typed::<u64>("u64").unwrap();
    refused(numbers.get("count"), ["a counter", "a value of type \"u64\" (8 bytes)"]);
    let not_called = numbers.update("text", |_| panic!("not called"));
    refused(not_called, [plain[0], "a value of type \"u64\" (8 bytes)"]);
    numbers.put("number", &5).unwrap();
    let of_another = space.typed::<f64>("f64").unwrap().get("number");
    refused(of_another, ["a value of type \"u64\" (8 bytes)", "a value of type \"f64\" (8 bytes)"]);
    let of_another_size = space.typed::<u32>("u64").unwrap().get("number");
    refused(of_another_size, ["a value of type \"u64\" (8 bytes)", "a value of type \"u64\" (4 bytes)"]);
    // A ring that was deleted behind the back of another handle, with its places left, is not read as one of another type.
    space.delete("ring").unwrap();
    let of_f64 = space.ring::<f64>("ring", "<f8", 8).unwrap();
    assert_eq!(of_f64.iter().unwrap().count(), 0);
    assert_eq!(of_f64.push(&1.5).unwrap(), 0);
    assert_eq!(of_f64.latest(8).unwrap(), [(0, 1.5)]);
    // What is no place of a ring is not written over.
    space.put([&b"ring\0"[..], &1u64.to_be_bytes()].concat(), b"text").unwrap();
    refused(of_f64.push(&2.5), ["4 bytes without a shape", "value number 1 of a ring (8 bytes)"]);
    for (name, capacity) in [("", 8), (&"n".repeat(256)[..], 8), ("<u8", 0)] {
        let invalid = space.ring::<u64>("another", name, capacity);
        assert!(matches!(invalid, Err(Error::InvalidOption { .. })), "{invalid:?}");
    }
    assert!(matches!(space.typed::<[u64; 128]>("large"), Err(Error::InvalidOption { .. })));
    let long = space.ring::<u64>([7; 65_530], "<u8", 8);
    assert!(matches!(long, Err(Error::KeyTooLong { .. })), "{long:?}");
    assert!(!space.contains("another").unwrap());
}

#[test]
fn a_counter_with_a_deadline_keeps_it_and_begins_anew_behind_it() {
    let (_dir, store) = new_store();
    let hour = Ttl::after(Duration::from_secs(3600));
    let limited = space(&store).with_ttl(hour);
    limited.counter("user").add(2).unwrap();
    let end = limited.expires_at("user").unwrap();
    assert!(end.is_some());
    assert_eq!(limited.counter("user").add(3).unwrap(), 5);
    assert_eq!(limited.expires_at("user").unwrap(), end);
    assert_eq!(space(&store).counter("user").add(1).unwrap(), 6);
    assert_eq!(limited.expires_at("user").unwrap(), end);
    let over = space(&store).with_ttl(Ttl::after(Duration::ZERO));
    assert_eq!(over.counter("another").add(7).unwrap(), 7);
    assert_eq!(over.counter("another").get().unwrap(), 0);
    assert_eq!(limited.counter("another").add(1).unwrap(), 1);
    // Rings have none.
    let ring = over.ring::<u64>("ring", "<u8", 4).unwrap();
    ring.push(&7).unwrap();
    assert_eq!(ring.latest(4).unwrap(), [(0, 7)]);
}

#[test]
fn a_reader_that_may_not_write_reads_all_shapes_and_makes_none() {
    let (dir, store) = new_store();
    space(&store).counter("count").add(7).unwrap();
    ring(&store, "ring").push(&5).unwrap();
    let reader = Store::open_read_only(dir.path().join("s")).unwrap();
    assert_eq!(space(&reader).counter("count").get().unwrap(), 7);
    assert!(matches!(space(&reader).counter("count").add(1), Err(Error::ReadOnly { .. })));
    assert_eq!(values(&ring(&reader, "ring")), [(0, 5)]);
    assert!(matches!(ring(&reader, "ring").push(&1), Err(Error::ReadOnly { .. })));
    assert!(values(&ring(&reader, "absent")).is_empty());
    assert_eq!(space(&store).shape_of("absent").unwrap(), None);
}

#[test]
fn producers_at_once_lose_no_value_and_a_reader_meets_each_in_its_order() {
    const EACH: u64 = 400;
    let (_dir, store) = new_store();
    let all = space(&store).ring::<u64>("ring", "<u8", 3 * EACH).unwrap();
    let read = std::thread::scope(|scope| {
        for thread in 0..3 {
            let (ring, counter) = (all.clone(), space(&store).counter("count"));
            scope.spawn(move || {
                for n in 0..EACH {
                    ring.push(&(thread << 32 | n)).unwrap();
                    counter.add(1).unwrap();
                }
            });
        }
        all.tail(0).unwrap().take(3 * EACH as usize).collect::<Result<Vec<_>, _>>().unwrap()
    });
    assert!(read.iter().map(|(number, _)| *number).eq(0..3 * EACH));
    for thread in 0..3 {
        let of_thread: Vec<u64> =
            read.iter().filter(|found| found.1 >> 32 == thread).map(|found| found.1 & 0xffff_ffff).collect();
        assert!(of_thread.into_iter().eq(0..EACH));
    }
    assert_eq!(space(&store).counter("count").get().unwrap(), 3 * EACH);
}

#[test]
fn a_copy_a_backup_and_a_snapshot_have_all_shapes() {
    let (dir, store) = new_store();
    let numbers = space(&store).typed::<u64>("u64").unwrap();
    let snapshot = store.snapshot().unwrap();
    for n in 0..10 {
        ring(&store, "ring").push(&n).unwrap();
        space(&store).counter("count").add(n).unwrap();
        numbers.put("number", &n).unwrap();
    }
    assert!(snapshot.get_in(&space(&store), "count").unwrap().is_none());
    drop(snapshot);
    store.copy_to(dir.path().join("copy"), &small().regions(2)).unwrap();
    store.backup(dir.path().join("backup")).unwrap();
    recstore::salvage(dir.path().join("s"), dir.path().join("salvaged"), None).unwrap();
    for name in ["copy", "backup", "salvaged"] {
        let copy = Store::open(dir.path().join(name)).unwrap();
        assert_eq!(values(&ring(&copy, "ring")), [(6, 6), (7, 7), (8, 8), (9, 9)], "{name}");
        assert_eq!(space(&copy).counter("count").add(1).unwrap(), 46);
        assert_eq!(space(&copy).typed::<u64>("u64").unwrap().get("number").unwrap(), Some(9));
        assert_eq!(ring(&copy, "ring").push(&10).unwrap(), 10);
        assert_eq!(values(&ring(&copy, "ring")), [(7, 7), (8, 8), (9, 9), (10, 10)], "{name}");
    }
}

fn die_in_counters() {
    // Absent, alone in its record, beside others with its id, and with a deadline.
    let others = |store: &Store| -> Vec<String> {
        let space = space(store);
        let id = space.id_of("count");
        (0..).map(|n| n.to_string()).filter(|key| space.id_of(key) == id).take(3).collect()
    };
    let prepare = |case: usize| {
        move |path: &Path| {
            let store = small().create(path).unwrap();
            if case != 0 {
                let hour = Ttl::after(Duration::from_secs(3600));
                let of = if case == 3 { space(&store).with_ttl(hour) } else { space(&store) };
                of.counter("count").add(7).unwrap();
            }
            if case == 2 {
                others(&store).iter().for_each(|key| _ = space(&store).counter(key).add(1).unwrap());
            }
            store
        }
    };
    for (case, before) in [0, 7, 7, 7].into_iter().enumerate() {
        for durability in [Durability::Process, Durability::Disk] {
            let open = |path: &Path| small().durability(durability).open(path).unwrap();
            let call = |store: &Store| _ = space(store).counter("count").add(5).unwrap();
            at_every_step("add", prepare(case), open, call, |store, is_done| {
                let count = space(store).counter("count").get().unwrap();
                assert!(count == before + 5 || !is_done && count == before, "{count}");
                assert_eq!(space(store).counter("count").add(1).unwrap(), count + 1);
                if case == 2 {
                    others(store).iter().for_each(|key| {
                        assert_eq!(space(store).counter(key).get().unwrap(), 1);
                    });
                }
            });
        }
    }
}

fn die_in_rings() {
    for pushed in [0, 1, 9] {
        let prepare = |path: &Path| {
            let store = small().create(path).unwrap();
            (0..pushed).for_each(|n| _ = ring(&store, "ring").push(&n).unwrap());
            store
        };
        let open = |path: &Path| small().open(path).unwrap();
        let call = |store: &Store| assert_eq!(ring(store, "ring").push(&pushed).unwrap(), pushed);
        at_every_step("push", prepare, open, call, |store, is_done| {
            let ring = ring(store, "ring");
            let end = ring.pushed().unwrap();
            assert!(end == pushed + 1 || !is_done && end == pushed, "{end}");
            let last = |end: u64| (end.saturating_sub(4)..end).map(|n| (n, n)).collect::<Vec<_>>();
            assert_eq!(values(&ring), last(end));
            assert_eq!(ring.push(&end).unwrap(), end);
            assert_eq!(values(&ring), last(end + 1));
        });
    }
    let prepare = |path: &Path| {
        let store = small().create(path).unwrap();
        (0..9).for_each(|n| _ = ring(&store, "ring").push(&n).unwrap());
        store
    };
    let open = |path: &Path| small().open(path).unwrap();
    let call = |store: &Store| assert!(ring(store, "ring").delete().unwrap());
    at_every_step("delete", prepare, open, call, |store, is_done| {
        let is_there = space(store).contains("ring").unwrap();
        assert!(is_there || space(store).is_empty().unwrap());
        assert!(!(is_done && is_there));
        let ring = ring(store, "ring");
        let end = ring.pushed().unwrap();
        assert_eq!(ring.push(&1000).unwrap(), end);
        assert_eq!(ring.latest(1).unwrap(), [(end, 1000)]);
    });
}

#[test]
fn child_entry() {
    match Me::from_env().as_ref().map(|me| &me.role[..]) {
        None => {}
        Some("counters") => die_in_counters(),
        Some("rings") => die_in_rings(),
        Some(role) => panic!("no such role: {role}"),
    }
}

#[test]
fn a_death_at_any_step_of_a_change_of_a_counter_leaves_one_of_two_counts() {
    common::alone("counters", &[]);
}

#[test]
fn a_death_at_any_step_of_a_push_leaves_no_number_without_a_value() {
    common::alone("rings", &[]);
}

#[test]
fn a_ring_goes_on_behind_all_that_came_back_with_power() {
    let mut rng = common::seeded();
    let dir = common::scratch();
    for round in 0..60 {
        let path = dir.path().join(format!("store {round}"));
        let store = small().slots_per_extent(64).create(&path).unwrap();
        let ring_of = |store| space(store).ring::<u64>("ring", "<u8", 16).unwrap();
        let space_of = space(&store);
        let ring = ring_of(&store);
        let durable = rng.random_range(0..40);
        for n in 0..durable {
            assert_eq!(ring.push(&n).unwrap(), n);
        }
        store.sync().unwrap();
        let synced = std::fs::read(&path).unwrap();
        let pushed = durable + rng.random_range(0..60);
        for n in durable..pushed {
            assert_eq!(ring.push(&n).unwrap(), n);
        }
        let now = std::fs::read(&path).unwrap();
        let image = dir.path().join(format!("image {round}"));
        lose_power(&image, &synced, &now, 0.5, &mut rng);
        let store = Store::open(&image).unwrap();
        // Before the ring is opened, a key with its id is written: the record of the ring is of this life, and its count is not.
        let id = space_of.id_of("ring");
        let beside = (0..).map(|n| n.to_string()).find(|key| space_of.id_of(key) == id).unwrap();
        if round % 2 == 0 {
            space(&store).put(&beside, b"beside").unwrap();
        }
        assert!(space(&store).contains("ring").unwrap(), "round {round}: the ring was on disk");
        let ring = ring_of(&store);
        let back = values(&ring);
        assert!(back.iter().all(|(number, value)| number == value), "round {round}: {back:?}");
        let highest = back.last().map_or(0, |(number, _)| number + 1);
        assert!(ring.pushed().unwrap() >= durable, "round {round}");
        // A value that was synced is there, unless later ones took its place: one that came back, or so many that were counted.
        let first = ring.pushed().unwrap().saturating_sub(16);
        for number in first..durable {
            let is_there = back.iter().any(|(there, _)| *there >= number && (there - number) % 16 == 0);
            assert!(is_there, "round {round}: {number} was synced: {back:?}");
        }
        let mut numbers = Vec::new();
        for n in 0..20 {
            let number = ring.push(&(1000 + n)).unwrap();
            assert!(number >= highest.max(durable), "round {round}: {number}, and {highest} had come back");
            numbers.push((number, 1000 + n));
            assert_eq!(ring.latest(1).unwrap().last(), numbers.last(), "round {round}: it stored nothing");
        }
        assert!(numbers.windows(2).all(|two| two[0].0 + 1 == two[1].0), "round {round}: {numbers:?}");
        assert_eq!(ring.latest(16).unwrap(), numbers[4..], "round {round}");
    }
}
