//! Waiting for a change: whoever sleeps until a record changes is woken by the write that changes it.

use loom::thread;

use crate::explore::explore_and_tell;
use crate::file::arena::Arena;
use crate::models::lock::{give_back, lock};
use crate::models::read::{look_once, put};
use crate::region::watch::{REGION, notify};
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
            notify(&writer, writer.head(0));
        });
        assert_eq!(wait(&arena, 1), 2);
        writer.join().unwrap();
        notes.note("woken");
    });
    seen.expect(&["woken"]);
}
