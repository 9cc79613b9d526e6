//! Records read where they lie: while a borrow lives, no slot that was current since it began is used
//! again. The crate's own `Borrow`, `look`, `put` and `unpark`; the borrowed words are read as a plain
//! reference would read them, so that loom reports any store that may come at the same time.

use loom::thread;

use crate::error::Error;
use crate::explore::explore_and_tell;
use crate::file::arena::Arena;
use crate::file::borrow::{Borrow, oldest};
use crate::format::slot::HEADER_WORDS;
use crate::models::lock::{give_back, lock};
use crate::models::read::{data, put, try_put};
use crate::region::Trouble;
use crate::region::read::{Look, look};
use crate::sys::atomic::exchanges_are_fences;

const X: u64 = 1;

/// What lies in a slot's data, without the care that racing words need.
fn read_plain(arena: &Arena, slot: u32) -> Vec<u8> {
    let words = &arena.slot(slot).unwrap()[HEADER_WORDS..];
    words.iter().flat_map(|word| word.read_plain().to_le_bytes()).collect()
}

#[test]
fn what_is_borrowed_stays_as_it_is_while_the_record_is_overwritten() {
    exchanges_are_fences();
    let seen = explore_and_tell("borrow: overwritten", Some(3), |notes| {
        let arena = Arena::new(3);
        let borrower = arena.attach(1);
        let writer = arena.attach(2);
        put(&arena, X, 1);
        let writer = thread::spawn(move || {
            let mut version = 2;
            loop {
                lock(&writer);
                let done = try_put(&writer, X, version);
                give_back(&writer);
                // The last of them takes a slot that was given up, if nobody may read it.
                match done {
                    Ok(_) if version < 4 => version += 1,
                    Ok(_) => break true,
                    Err(Trouble::Error(Error::Full { .. })) => break false,
                    Err(trouble) => panic!("{trouble:?}"),
                }
            }
        });
        let borrower = thread::spawn({
            let notes = notes.clone();
            move || {
                let borrow = Borrow::begin(&borrower, borrower.owner.unwrap()).unwrap();
                match look(&borrower, borrower.geo.hash(X), X, false, None) {
                    Look::Hit(header, slot) => {
                        for _ in 0..2 {
                            assert_eq!(read_plain(&borrower, slot), data(X, header.version()));
                        }
                        notes.note(format!("version {}", header.version()));
                    }
                    Look::Moved => notes.note("moved"),
                    Look::Miss => panic!("missed"),
                    Look::Damaged { what, .. } | Look::Broken(what) => panic!("{what}"),
                }
                drop(borrow);
            }
        });
        borrower.join().unwrap();
        let used_again = writer.join().unwrap();
        notes.note(if used_again { "slot used again" } else { "no slot left" });
    });
    seen.expect(&["version 1", "version 2", "version 3", "moved", "slot used again", "no slot left"]);
}

/// A borrow that begins before the one before it ends, when the clock has moved: they are of two generations, and the
/// second one alone keeps what it has seen.
#[test]
fn what_is_borrowed_stays_when_the_borrow_before_it_ends() {
    exchanges_are_fences();
    let seen = explore_and_tell("borrow: one after another", Some(2), |notes| {
        let arena = Arena::new(3);
        let borrower = arena.attach(1);
        let writer = arena.attach(2);
        put(&arena, X, 1);
        let writer = thread::spawn(move || {
            let mut version = 2;
            loop {
                lock(&writer);
                let done = try_put(&writer, X, version);
                give_back(&writer);
                match done {
                    Ok(_) if version < 4 => version += 1,
                    Ok(_) => break true,
                    Err(Trouble::Error(Error::Full { .. })) => break false,
                    Err(trouble) => panic!("{trouble:?}"),
                }
            }
        });
        let borrower = thread::spawn({
            let notes = notes.clone();
            move || {
                let first = Borrow::begin(&borrower, borrower.owner.unwrap()).unwrap();
                oldest(&borrower).unwrap(); // The clock moves.
                let second = Borrow::begin(&borrower, borrower.owner.unwrap()).unwrap();
                drop(first);
                match look(&borrower, borrower.geo.hash(X), X, false, None) {
                    Look::Hit(header, slot) => {
                        for _ in 0..2 {
                            assert_eq!(read_plain(&borrower, slot), data(X, header.version()));
                        }
                        notes.note(format!("version {}", header.version()));
                    }
                    Look::Moved => notes.note("moved"),
                    Look::Miss => panic!("missed"),
                    Look::Damaged { what, .. } | Look::Broken(what) => panic!("{what}"),
                }
                drop(second);
            }
        });
        borrower.join().unwrap();
        let used_again = writer.join().unwrap();
        notes.note(if used_again { "slot used again" } else { "no slot left" });
    });
    seen.expect(&["version 1", "version 2", "version 3", "moved", "slot used again", "no slot left"]);
}
