//! What is built on records (rings, counters, typed stores, deadlines, queues) after a loss of power: an image is made of what had been synced and
//! any of the sectors that were written since.
//!
//! Fails when: a push after the loss stores nothing, gives a number that was given before, or one between numbers that came
//! back; a value that was synced is missing; a record of a tagged store comes back without its tag; a deadline comes back that its value
//! never had, or one before the synced one; a synced job that nobody finished is gone, or a job is given out twice.

#![cfg(feature = "testing")]

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use crate::common::{self, lose_power};
use rand::Rng;
use recstore::testing::set_boot_id;
use recstore::{Durability, Error, Options, Store, Ttl};

#[test]
fn a_ring_goes_on_behind_all_that_came_back() {
    let mut rng = common::seeded();
    let dir = common::scratch();
    for round in 0..60 {
        let path = dir.path().join(format!("store {round}"));
        let store = Options::new().regions(2).record_size(64).slots_per_extent(64).create(&path).unwrap();
        let ring = store.ring::<u64>(100, 16).unwrap();
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
        let ring = store.ring::<u64>(100, 16).unwrap();
        let back: Vec<(u64, u64)> = ring.iter().unwrap().collect::<Result<_, _>>().unwrap();
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

#[test]
fn a_counter_comes_back_at_no_less_than_it_was_synced_at() {
    let mut rng = common::seeded();
    let dir = common::scratch();
    for round in 0..30 {
        let path = dir.path().join(format!("store {round}"));
        let durability = if round % 2 == 0 { Durability::Process } else { Durability::Disk };
        Options::new().regions(1).record_size(64).create(&path).unwrap();
        let store = Options::new().durability(durability).open(&path).unwrap();
        for _ in 0..10 {
            store.counter(7).add(1).unwrap();
        }
        store.sync().unwrap();
        let synced = std::fs::read(&path).unwrap();
        for _ in 0..10 {
            store.counter(7).add(1).unwrap();
        }
        let now = std::fs::read(&path).unwrap();
        let image = dir.path().join(format!("image {round}"));
        lose_power(&image, &synced, &now, 0.5, &mut rng);
        let count = Store::open(&image).unwrap().counter(7).get().unwrap();
        assert!((10..=20).contains(&count), "round {round}: {count}");
    }
}

#[test]
fn the_tag_of_a_type_is_on_disk_before_a_record_of_it() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    Options::new().regions(1).record_size(64).create(&path).unwrap();
    let store = Options::new().durability(Durability::Disk).open(&path).unwrap();
    store.put(9, b"in use").unwrap();
    store.sync().unwrap();
    // What is on disk: the file as it was at each flush, by the steps around them.
    let flushed = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let (image, seen) = (path.clone(), flushed.clone());
    recstore::testing::set_hook(Some(Box::new(move |step| {
        if step == "tag: flushed" {
            *seen.borrow_mut() = std::fs::read(&image).unwrap();
        }
    })));
    store.typed_tagged::<u64>("number").unwrap();
    recstore::testing::set_hook(None);
    let bytes = flushed.borrow().clone();
    assert!(!bytes.is_empty(), "no flush");
    let image = dir.path().join("image");
    std::fs::write(&image, bytes).unwrap();
    set_boot_id(&image).unwrap();
    let store = Store::open(&image).unwrap();
    assert!(matches!(store.typed_tagged::<f64>("real"), Err(Error::TypeMismatch { .. })));
    assert!(store.typed_tagged::<u64>("number").is_ok());
}

#[test]
fn a_deadline_comes_back_as_it_was_synced_or_as_it_was_given_to_its_value_since() {
    let mut rng = common::seeded();
    let dir = common::scratch();
    // Milliseconds since 1970, in the 22nd century.
    let at = |n: u64| 5_000_000_000_000 + n;
    let ttl = |n: u64| Ttl::at(UNIX_EPOCH + Duration::from_millis(at(n)));
    let mut seen = BTreeSet::new();
    for round in 0..60 {
        let path = dir.path().join(format!("store {round}"));
        let options = Options::new().regions(2).record_size(1200).slots_per_extent(8);
        let store = options.create(&path).unwrap();
        let space = store.space("s").unwrap();
        let give = |n: u64| assert!(space.touch("k", ttl(n)).unwrap());
        space.put_with("k", [1; 1000], ttl(1)).unwrap();
        (2..=rng.random_range(1..5)).for_each(give);
        let end = |store: &Store| {
            let end = store.space("s").unwrap().expires_at("k").unwrap()?;
            Some(end.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 - at(0))
        };
        let synced_end = end(&store).unwrap();
        store.sync().unwrap();
        let synced = std::fs::read(&path).unwrap();
        let last = synced_end + rng.random_range(0..4);
        (synced_end + 1..=last).for_each(give);
        let is_replaced = rng.random_bool(0.5);
        if is_replaced {
            space.put_with("k", [2; 1000], ttl(101)).unwrap();
            (102..=rng.random_range(101..104)).for_each(give);
        }
        let now = std::fs::read(&path).unwrap();
        let image = dir.path().join(format!("image {round}"));
        lose_power(&image, &synced, &now, 0.5, &mut rng);
        let back = Store::open(&image).unwrap();
        let value = back.space("s").unwrap().get("k").unwrap().expect("it was synced").into_data();
        let end = end(&back).expect("a deadline");
        let may_be = if value == [2; 1000] { 101..=103 } else { synced_end..=last };
        assert!(value == [1; 1000] || value == [2; 1000] && is_replaced, "round {round}");
        assert!(may_be.contains(&end), "round {round}: {end}, not in {may_be:?}");
        seen.insert((value[0], end > synced_end));
        assert!(back.space("s").unwrap().touch("k", ttl(200)).unwrap());
        assert!(back.verify().unwrap().is_clean(), "round {round}");
    }
    println!("{seen:?}");
    assert!(seen.len() > 2);
}

#[test]
fn a_synced_job_comes_back_unless_it_was_finished_and_each_is_given_out_once() {
    let mut rng = common::seeded();
    let dir = common::scratch();
    for round in 0..40 {
        let path = dir.path().join(format!("store {round}"));
        let store = Options::new().regions(2).record_size(128).slots_per_extent(16).create(&path).unwrap();
        let queue = store.queue("q").unwrap();
        let synced_jobs = rng.random_range(1..20_u64);
        (0..synced_jobs).for_each(|n| assert_eq!(queue.push(n.to_le_bytes()).unwrap(), n));
        store.sync().unwrap();
        let synced = std::fs::read(&path).unwrap();
        let finished = rng.random_range(0..=synced_jobs);
        for _ in 0..finished {
            assert!(queue.claim(None).unwrap().expect("a job").finish().unwrap());
        }
        let pushed = synced_jobs + rng.random_range(0..10);
        (synced_jobs..pushed).for_each(|n| _ = queue.push(n.to_le_bytes()).unwrap());
        let now = std::fs::read(&path).unwrap();
        let image = dir.path().join(format!("image {round}"));
        lose_power(&image, &synced, &now, 0.5, &mut rng);
        let store = Store::open(&image).unwrap();
        let queue = store.queue("q").unwrap();
        let new = queue.push(b"new").unwrap();
        let mut given = Vec::new();
        while let Some(job) = queue.claim(Some(Duration::ZERO)).unwrap() {
            if job.number() != new {
                assert_eq!(job.data(), job.number().to_le_bytes(), "round {round}");
            }
            given.push(job.number());
            assert!(job.finish().unwrap());
        }
        assert_eq!(given.last(), Some(&new), "round {round}: {given:?}");
        assert!(given.windows(2).all(|two| two[0] < two[1]), "round {round}: {given:?}");
        for number in finished..synced_jobs {
            assert!(given.contains(&number), "round {round}: {number} is not in {given:?}");
        }
    }
}
