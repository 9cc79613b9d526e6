//! Waiting for a change: whoever sleeps until a record changes is woken by the write that changes it.

use loom::thread;

use crate::explore::explore_and_tell;
use crate::file::arena::Arena;
use crate::models::lock::{give_back, lock};
use crate::models::read::{look_once, put};
use crate::region::watch::{BELLS, Changed, REGION, notify};
use crate::sys::atomic::{Ordering, exchanges_are_fences, fence};

const X: u64 = 1;

/// Sleeps until the record has another version than `last`; the steps are those of `store::watch`, with no
/// limit to any sleep.
fn wait(arena: &Arena, last: u64) -> u64 {
    let head = arena.head(0);
    let changes = head.changes();
    loop {
        let count = changes.load(Ordering::SeqCst);
        head.watched().fetch_or(REGION, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        loop {
            match look_once(arena, X) {
                Some(Some(version)) if version != last => return version,
                Some(Some(_)) => break,
                Some(None) => panic!("missed"),
                None => thread::yield_now(), // The writer is about it.
            }
        }
        arena.file.futex_wait(changes, count as u32, 0);
    }
}

#[test]
fn a_sleeper_is_woken_by_the_write_that_it_waits_for() {
    exchanges_are_fences();
    let seen = explore_and_tell("watch: one write", Some(3), |notes| {
        let arena = Arena::new(2);
        put(&arena, X, 1);
        let writer = arena.attach(1);
        let writer = thread::spawn(move || {
            lock(&writer);
            put(&writer, X, 2);
            give_back(&writer);
            notify(&writer, writer.head(0), Changed::Any);
        });
        assert_eq!(wait(&arena, 1), 2);
        writer.join().unwrap();
        notes.note("woken");
    });
    seen.expect(&["woken"]);
}

/// The same at the record's bell.
fn wait_at_bell(arena: &Arena, id: u64, last: u64) -> u64 {
    let head = arena.head(0);
    let (bells, hash) = (arena.bells().unwrap(), arena.geo.hash(id));
    loop {
        let count = bells.arm(hash);
        head.watched().fetch_or(BELLS, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        loop {
            match look_once(arena, id) {
                Some(Some(version)) if version != last => return version,
                Some(Some(_)) => break,
                Some(None) => panic!("missed"),
                None => thread::yield_now(), // The writer is about it.
            }
        }
        arena.file.futex_wait(bells.of_record(hash), count, 0);
    }
}

#[test]
fn a_sleeper_at_a_bell_is_woken_by_the_write_of_its_record() {
    exchanges_are_fences();
    let seen = explore_and_tell("watch: at a bell", Some(3), |notes| {
        let arena = Arena::new(2);
        put(&arena, X, 1);
        let writer = arena.attach(1);
        let writer = thread::spawn(move || {
            lock(&writer);
            put(&writer, X, 2);
            give_back(&writer);
            notify(&writer, writer.head(0), Changed::Record(writer.geo.hash(X)));
        });
        assert_eq!(wait_at_bell(&arena, X, 1), 2);
        writer.join().unwrap();
        notes.note("woken");
    });
    seen.expect(&["woken"]);
}

/// Two watchers of two records at one bell: each is woken by the write of its own record, whichever tag is there.
#[test]
fn sleepers_of_two_records_at_one_bell_are_both_woken() {
    exchanges_are_fences();
    const Y: u64 = 2;
    let seen = explore_and_tell("watch: two at a bell", Some(2), |notes| {
        let arena = Arena::new(4);
        put(&arena, X, 1);
        put(&arena, Y, 2);
        let writer = arena.attach(1);
        let other = arena.attach(2);
        let other = thread::spawn(move || wait_at_bell(&other, Y, 2));
        let writer = thread::spawn(move || {
            for (id, version) in [(X, 3), (Y, 4)] {
                lock(&writer);
                put(&writer, id, version);
                give_back(&writer);
                notify(&writer, writer.head(0), Changed::Record(writer.geo.hash(id)));
            }
        });
        assert_eq!(wait_at_bell(&arena, X, 1), 3);
        assert_eq!(other.join().unwrap(), 4);
        writer.join().unwrap();
        notes.note("woken");
    });
    seen.expect(&["woken"]);
}
