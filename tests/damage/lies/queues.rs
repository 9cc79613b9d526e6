//! The free list, and the queues of replaced versions and of parked slots.

use recstore::Commit;

use super::file::{LAYOUT, Lied, checked, head, in_time, link};

/// A region with a free list of 20 slots.
fn with_a_free_list() -> Lied {
    let lied = Lied::new();
    let ids = lied.ids(0, 60);
    ids.iter().for_each(|&id| _ = lied.store.put(id, b"1").unwrap());
    ids[..20].iter().for_each(|&id| _ = lied.store.delete(id).unwrap());
    lied
}

/// A batch of 12 new records is made, all are there, also after a repair.
fn a_batch_is_whole(lied: &Lied, what: &str) {
    let ids = lied.ids(10_000, 12);
    let mut batch = lied.store.batch();
    ids.iter().for_each(|&id| batch.put(id, id.to_le_bytes().to_vec()).unwrap());
    let made = in_time(what, || batch.commit().unwrap());
    assert!(matches!(made, Commit::Done(_)), "{what}");
    for heal in [false, true] {
        if heal {
            lied.store.repair().unwrap();
        }
        for &id in &ids {
            let found = lied.store.get(id).unwrap().map(recstore::Record::into_data);
            assert_eq!(found.as_deref(), Some(&id.to_le_bytes()[..]), "{what}, id {id}, repaired: {heal}");
        }
    }
    assert_eq!(lied.store.verify().unwrap().damage, [], "{what}");
}

#[test]
fn a_flipped_bit_of_a_free_slots_pointer_gives_no_slot_twice() {
    for element in [0, 1, 5] {
        for bit in 0..64 {
            let lied = with_a_free_list();
            let free = lied.free_slots();
            assert_eq!(free.len(), 20);
            lied.flip(LAYOUT.slot(free[element]) + 8, bit);
            a_batch_is_whole(&lied, &format!("next of free slot {element}, bit {bit}"));
        }
    }
}

#[test]
fn a_free_list_that_runs_in_a_circle_gives_no_slot_twice() {
    for (from, to) in [(1, 1), (5, 0), (3, 2)] {
        let lied = with_a_free_list();
        let free = lied.free_slots();
        lied.set(LAYOUT.slot(free[from]) + 8, checked(free[to] as u64 + 1));
        assert!(!lied.store.verify().unwrap().is_clean());
        a_batch_is_whole(&lied, &format!("free slot {from} names {to}"));
    }
}

#[test]
fn flipped_bits_of_the_free_list_and_of_the_fresh_slots_lose_no_write() {
    for word in [head::FREE, head::FREE_COUNT, head::FRESH] {
        for bit in 0..64 {
            let lied = with_a_free_list();
            lied.flip(lied.head(word), bit);
            a_batch_is_whole(&lied, &format!("word {word} of the head, bit {bit}"));
        }
    }
}

#[test]
fn fresh_slots_that_lie_anywhere_are_not_taken() {
    // The last slot of all, slots of the other region, slots outside of the file.
    for lie in [1 << 32, (1 << 32) - 1, 1 << 31, 1, 3, 33, 64, 65, 500, 1 << 33, (1 << 48) - 1] {
        let lied = Lied::new();
        lied.store.put((0..).find(|&id| lied.store.region_of(id) == 0).unwrap(), b"of the other").unwrap();
        let ids = lied.ids(0, 3);
        lied.store.put(ids[0], b"1").unwrap();
        lied.set(lied.head(head::FRESH), checked(lie));
        in_time("puts", || ids.iter().for_each(|&id| _ = lied.store.put(id, b"2").unwrap()));
        lied.kill_writer();
        for &id in &ids {
            assert_eq!(lied.store.get(id).unwrap().unwrap().data(), b"2", "{lie:#x}");
        }
        lied.store.put(ids[0], b"3").unwrap();
        for &id in &ids[1..] {
            assert_eq!(lied.store.get(id).unwrap().unwrap().data(), b"2", "{lie:#x}");
        }
        assert_eq!(lied.store.verify().unwrap().damage, [], "{lie:#x}");
    }
}

/// A region with a queue of 60 replaced versions that are free to go, and a mark that links are there.
fn with_a_queue() -> Lied {
    let lied = Lied::new();
    let ids = lied.ids(0, 60);
    for data in [b"1", b"2"] {
        ids.iter().for_each(|&id| _ = lied.store.put(id, data).unwrap());
        lied.store.sync().unwrap();
    }
    drop(lied.store.pin().unwrap()); // The hint is set.
    lied
}

/// Many writes are made, and the records that were there stay.
fn writes_go_on(lied: &Lied, pinned: bool, what: &str) {
    let held = pinned.then(|| lied.store.pin().unwrap());
    in_time(what, || {
        for id in lied.ids(10_000, 300) {
            lied.store.put(id, b"3").unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    });
    drop(held);
    for (first, count, data) in [(0, 60, b"2"), (10_000, 300, b"3")] {
        for id in lied.ids(first, count) {
            let found = lied.store.get(id).unwrap().map(recstore::Record::into_data);
            assert_eq!(found.as_deref(), Some(&data[..]), "{what}, id {id}");
        }
    }
    let report = lied.store.repair().unwrap();
    assert!(report.dropped.is_empty(), "{what}: {report:?}");
    assert_eq!(lied.store.verify().unwrap().damage, [], "{what}");
}

#[test]
fn a_flipped_bit_of_a_link_stops_no_write() {
    for element in [0, 1, 30, 59] {
        for bit in 0..64 {
            let lied = with_a_queue();
            let queue = lied.retired_slots();
            assert_eq!(queue.len(), 60);
            lied.flip(link(queue[element]) + if bit % 2 == 0 { 0 } else { 8 }, bit);
            assert!(!lied.store.verify().unwrap().is_clean(), "element {element}, bit {bit}");
            writes_go_on(&lied, bit % 4 < 2, &format!("link of element {element}, bit {bit}"));
        }
    }
}

#[test]
fn a_queue_that_runs_in_a_circle_stops_no_write() {
    for (from, to) in [(0, 0), (1, 0), (40, 0), (58, 57), (59, 0), (59, 59)] {
        for pinned in [false, true] {
            let lied = with_a_queue();
            let queue = lied.retired_slots();
            lied.set(link(queue[from]), checked(queue[to] as u64 + 1));
            writes_go_on(&lied, pinned, &format!("element {from} of the queue names {to}"));
        }
    }
}

#[test]
fn a_flipped_bit_of_a_queues_ends_and_counts_stops_no_write() {
    let words = [
        head::RETIRED_FIRST,
        head::RETIRED_LAST,
        head::RETIRED_COUNT,
        head::PARKED_FIRST,
        head::PARKED_LAST,
        head::PARKED_COUNT,
    ];
    for word in words {
        for bit in 0..64 {
            let lied = with_a_queue();
            lied.flip(lied.head(word), bit);
            assert!(!lied.store.verify().unwrap().is_clean(), "word {word}, bit {bit}");
            writes_go_on(&lied, bit % 2 == 0, &format!("word {word} of the head, bit {bit}"));
        }
    }
}

#[test]
fn ends_and_counts_of_queues_that_lie_stop_no_write() {
    for word in [head::RETIRED_FIRST, head::RETIRED_LAST, head::PARKED_FIRST, head::PARKED_LAST] {
        for lie in [0, 1, 2, 40, 63, 64, 65, 66, 1000, 1 << 32, (1 << 48) - 1] {
            let lied = with_a_queue();
            lied.set(lied.head(word), checked(lie));
            writes_go_on(&lied, lie % 2 == 0, &format!("word {word} of the head says {lie}"));
        }
    }
    for word in [head::RETIRED_COUNT, head::PARKED_COUNT, head::FREE_COUNT] {
        for lie in [0, 1, 59, 61, 1 << 32, (1 << 48) - 1] {
            let lied = with_a_queue();
            lied.set(lied.head(word), checked(lie));
            writes_go_on(&lied, lie % 2 == 0, &format!("count {word} of the head says {lie}"));
        }
    }
}
