//! An atomic batch of two records whose process dies before each of its stores in turn; the next owner of
//! the region rebuilds it; a reader looks for both records all the while: `region::batch`, `rebuild` and
//! `look` are the crate's own. One region: that several decide alike is that one word decides for all.

use std::collections::BTreeSet;

use loom::thread;

use crate::explore::{IN_TURN, Seen, explore, explore_and_tell};
use crate::format::control;
use crate::models::lock::{give_back, lock};
use crate::models::read::{data, look_once, put, set_epochs};
use crate::recovery::rebuild::{Cause, rebuild};
use crate::region::arena::Arena;
use crate::region::batch::{Change, batch_number, between_batches, commit};
use crate::region::owned::Region;
use crate::sys::atomic::{Ordering, die_before};

const X: u64 = 1;
const Y: u64 = 2;

/// Both records at the versions that were there before the batch.
const BEFORE: [Option<u64>; 2] = [Some(1), Some(2)];

#[derive(Clone, Copy)]
struct Plan {
    name: &'static str,
    /// A flush has begun since the records were written.
    flushed: bool,
    /// The batch deletes `Y`; else it writes both.
    deletes: bool,
}

impl Plan {
    fn after(self) -> [Option<u64>; 2] {
        [Some(3), if self.deletes { None } else { Some(4) }]
    }

    /// What `store::batch` does, for the one region.
    fn batch(self, arena: &Arena) {
        assert!(!lock(arena));
        let epoch = arena.epoch().unwrap();
        let bytes = [data(X, 3), data(Y, 4)];
        let member = |id, data| Change { hash: arena.geo.hash(id), id, data, slot: None, seq: 0 };
        let mut members =
            [member(X, Some(&bytes[0][..])), member(Y, (!self.deletes).then_some(&bytes[1][..]))];
        let region = Region::new(arena, 0);
        region.prepare(&mut members, epoch).unwrap();
        commit(arena, &mut [(region, &mut members[..])], epoch).unwrap();
        give_back(arena);
    }

    fn explore(self) {
        let (mut executions, mut outcomes) = (0, BTreeSet::new());
        for stores in 0.. {
            let seen = explore(IN_TURN, move |notes| self.run(stores + 1, notes));
            executions += seen.executions();
            outcomes.extend(seen.kinds());
            if seen.has("lived") {
                println!("batch: {}: {executions} executions, {stores} deaths, {outcomes:?}", self.name);
                assert!(stores > 20, "that was no death before each store of a batch");
                assert!([BEFORE, self.after()].iter().all(|both| outcomes.contains(&format!("{both:?}"))));
                return;
            }
        }
    }

    fn run(self, death: u32, notes: &Seen) {
        let arena = Arena::new(4);
        let doomed = arena.attach(1);
        let successor = arena.attach(2);
        put(&doomed, X, 1);
        put(&doomed, Y, 2);
        if self.flushed {
            set_epochs(&arena, 3, 2);
        }
        let doomed = thread::spawn({
            let notes = notes.clone();
            move || {
                let lived = die_before(death, || self.batch(&doomed)).is_some();
                notes.note(if lived { "lived" } else { "died" });
                doomed.file.die();
                lived
            }
        });
        let successor = thread::spawn(move || {
            let took_over = lock(&successor);
            if took_over || Region::new(&successor, 0).is_marked() {
                let cause = if took_over { Cause::Death } else { Cause::Process };
                rebuild(&Region::new(&successor, 0), cause).unwrap();
            }
            give_back(&successor);
            // As `store::handle` ends a batch that was cut off.
            let begun = successor.word(control::BEGUN).load(Ordering::SeqCst);
            successor.word(control::ENDED).store(begun, Ordering::SeqCst);
        });
        let reader = thread::spawn({
            let (arena, notes) = (arena.clone(), notes.clone());
            move || match look_at_both(&arena) {
                Some(found) => {
                    assert!(found == BEFORE || found == self.after(), "in part: {found:?}");
                    notes.note(format!("{found:?}"));
                }
                None => notes.note("moved"),
            }
        });
        reader.join().unwrap();
        let lived = doomed.join().unwrap();
        successor.join().unwrap();
        let found = look_at_both(&arena).expect("nothing moves any more");
        let counts = batch_number(&arena, control::COMMITTED).unwrap() == 1;
        assert_eq!(found, if counts { self.after() } else { BEFORE });
        assert!(counts || !lived);
    }
}

/// As `Pin::get_many`.
fn look_at_both(arena: &Arena) -> Option<[Option<u64>; 2]> {
    let both = between_batches(arena, || Ok([look_once(arena, X), look_once(arena, Y)])).unwrap()?;
    Some([both[0]?, both[1]?])
}

#[test]
fn a_batch_that_dies_before_any_store_is_there_or_not() {
    Plan { name: "two puts", flushed: false, deletes: false }.explore();
    Plan { name: "two puts, old versions kept", flushed: true, deletes: false }.explore();
    Plan { name: "a put and a deletion", flushed: false, deletes: true }.explore();
}

/// The reader runs in between.
#[test]
fn a_batch_is_seen_as_a_whole_or_not_at_all() {
    let plan = Plan { name: "seen", flushed: false, deletes: false };
    let seen = explore_and_tell("batch: seen by a reader", Some(2), move |notes| {
        let arena = Arena::new(4);
        let writer = arena.attach(1);
        put(&writer, X, 1);
        put(&writer, Y, 2);
        let writer = thread::spawn(move || plan.batch(&writer));
        match look_at_both(&arena) {
            Some(found) => {
                assert!(found == BEFORE || found == plan.after(), "in part: {found:?}");
                notes.note(format!("{found:?}"));
            }
            None => notes.note("moved"),
        }
        writer.join().unwrap();
        assert_eq!(look_at_both(&arena), Some(plan.after()));
    });
    seen.expect(&["moved", &format!("{BEFORE:?}"), &format!("{:?}", plan.after())]);
}
