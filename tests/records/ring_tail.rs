//! The end of a ring, followed by a reader: the obvious loop loses nothing.
//!
//! Fails when: a value that was pushed is not read by who waits for the count, or for the next value, though the ring keeps it;
//! a producer that dies leaves a number without a value, or a value that nobody is told of; a count that went back with
//! the power loses values.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{self, Me, Worker};
use recstore::{Error, Event, Options, Ring, Store};

const BASE: u64 = 1000;
const PRODUCERS: u64 = 3;

fn small() -> Options {
    Options::new().record_size(64).regions(4)
}

/// Values that each producer pushes.
fn each() -> u64 {
    common::number_from_env("RECSTORE_LONG").map_or(20_000, |_| 60_000)
}

/// Starts the producers, and has `read` take what they push.
fn all_come_in_order(read: impl FnOnce(&Store, &Ring<'_, [u64; 2]>, &mut dyn FnMut(u64, [u64; 2]) -> bool)) {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    let all = PRODUCERS * each();
    let ring = store.ring::<[u64; 2]>(BASE, all).unwrap();
    let mut expected = [0; PRODUCERS as usize];
    let mut next = 0;
    let mut take = |number, [producer, n]: [u64; 2]| {
        assert_eq!(number, next, "no number is passed over: the ring keeps them all");
        assert_eq!(n, expected[producer as usize], "producer {producer}: its values come in its order");
        expected[producer as usize] += 1;
        next += 1;
        next < all
    };
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            scope.spawn(move || (0..each()).for_each(|n| _ = ring.push(&[producer, n]).unwrap()));
        }
        read(&store, &ring, &mut take);
    });
    assert_eq!(ring.pushed().unwrap(), all);
    assert_eq!(expected, [each(); PRODUCERS as usize]);
}

#[test]
fn who_waits_for_the_count_and_reads_on_loses_no_value() {
    all_come_in_order(|store, ring, take| {
        let mut watch = store.watch(BASE).unwrap();
        let mut next = 0;
        loop {
            for found in ring.iter_from(next) {
                let (number, value) = found.unwrap();
                if !take(number, value) {
                    return;
                }
                next = number + 1;
            }
            watch.wait(None).unwrap();
        }
    });
}

#[test]
fn the_tail_loses_no_value() {
    all_come_in_order(|_, ring, take| {
        for found in ring.tail(0).unwrap() {
            let (number, value) = found.unwrap();
            if !take(number, value) {
                return;
            }
        }
    });
}

#[test]
fn a_tail_that_is_overtaken_goes_on_with_the_oldest_value_there_is_and_can_wait_for_a_time() {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    let ring = store.ring::<u64>(BASE, 10).unwrap();
    let mut tail = ring.tail(0).unwrap();
    assert_eq!(tail.next_timeout(Duration::ZERO).unwrap(), None);
    (0..25).for_each(|n| _ = ring.push(&n).unwrap());
    let next = |tail: &mut recstore::Tail<'_, u64>| tail.next_timeout(Duration::ZERO).unwrap();
    assert_eq!(next(&mut tail), Some((15, 15)));
    (25..27).for_each(|n| _ = ring.push(&n).unwrap());
    let rest: Vec<u64> = std::iter::from_fn(|| next(&mut tail)).map(|(number, _)| number).collect();
    assert_eq!(rest, (17..27).collect::<Vec<_>>(), "15 and 16 were overwritten");
    let reader = Store::open_read_only(store.path()).unwrap();
    let ring = reader.ring::<u64>(BASE, 10).unwrap();
    assert!(matches!(ring.tail(0), Err(Error::ReadOnly { .. })));
    assert_eq!(ring.iter_from(26).map(Result::unwrap).collect::<Vec<_>>(), [(26, 26)]);
}

#[test]
fn no_value_is_lost_where_the_count_is_behind() {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    let ring = store.ring::<u64>(BASE, 10).unwrap();
    (0..25).for_each(|n| _ = ring.push(&n).unwrap());
    for lost in [24, 15, 3, 0] {
        // As after a loss of power, or the death of a producer that was not done.
        store.put(BASE, &u64::to_le_bytes(lost)).unwrap();
        let pushed = ring.pushed().unwrap();
        assert_eq!(ring.push(&pushed).unwrap(), pushed, "the count said {lost}");
        assert_eq!(ring.latest(1).unwrap(), [(pushed, pushed)]);
        assert_eq!(ring.iter().unwrap().count(), 10);
    }
    assert_eq!(ring.pushed().unwrap(), 29);
}

#[test]
fn producers_that_are_killed_leave_no_number_without_a_value_and_all_values_are_told() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = small().create(&path).unwrap();
    let seed = common::seed();
    let ring = store.ring::<[u64; 2]>(BASE, 1 << 20).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut tail = ring.tail(0).unwrap();
            let mut read = 0;
            while !done.load(Ordering::Acquire) || read < ring.pushed().unwrap() {
                let Some((number, _)) = tail.next_timeout(Duration::from_millis(20)).unwrap() else {
                    continue;
                };
                assert_eq!(number, read, "a number without a value");
                read += 1;
            }
        });
        for life in 0..20 {
            let mut producer = Worker::spawn("push", &[("STORE", path.to_str().unwrap())]);
            (0..1 + (seed ^ life) % 5).for_each(|_| _ = producer.hear());
            producer.kill();
        }
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
}

#[test]
fn a_value_whose_producer_died_before_it_was_counted_is_told() {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    let ring = store.ring::<u64>(BASE, 10).unwrap();
    let mut tail = ring.tail(0).unwrap();
    // What the first half of a push leaves: the value in its place.
    let mut place = [0; 16];
    place[8..].copy_from_slice(&7u64.to_le_bytes());
    store.put(BASE + 1, &place).unwrap();
    let mut count = store.watch(BASE).unwrap();
    assert_eq!(tail.next().unwrap().unwrap(), (0, 7));
    assert_eq!(count.wait(Some(Duration::ZERO)).unwrap(), Event::TimedOut, "nobody counted it");
    assert_eq!(ring.push(&8).unwrap(), 1);
    assert_eq!(tail.next().unwrap().unwrap(), (1, 8));
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    let store = Store::open(me.var("STORE")).unwrap();
    let ring = store.ring::<[u64; 2]>(BASE, 1 << 20).unwrap();
    loop {
        (0..50).for_each(|n| _ = ring.push(&[0, n]).unwrap());
        me.say("some");
    }
}
