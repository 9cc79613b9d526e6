//! An atomic batch of two records whose process dies before each of its stores in turn; the next owner of
//! the region rebuilds it; a reader looks for both records all the while: `region::batch`, `rebuild` and
//! `look` are the crate's own. One region: that several decide alike is that one word decides for all.

use std::collections::BTreeSet;

use loom::thread;

use crate::explore::{IN_TURN, Seen, explore, explore_and_tell};
use crate::file::arena::Arena;
use crate::format::slot::Address;
use crate::models::lock::{give_back, lock};
use crate::models::read::{data, look_once, put, set_epochs};
use crate::recovery::rebuild::{Cause, rebuild};
use crate::region::batch::{Member, batch_number, between_batches, commit};
use crate::region::head::Region;
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
        let member = |id, data| Member {
            hash: arena.geo.hash(id),
            id,
            address: Address::Id,
            data,
            slot: None,
            seq: 0,
        };
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
            // As `handle::lock` ends a batch that was cut off.
            let begun = batch_number(&successor, successor.control().begun()).unwrap();
            successor.control().ended().store(begun, Ordering::SeqCst);
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
        let counts = batch_number(&arena, arena.control().committed()).unwrap() == 1;
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

/// Two regions; the batcher died at some store. One heals the second region by taking its lock, as an ordinary writer;
/// one begins the next batch, in the first region. The rebuild of one may be going on when the other comes to it.
mod over_two_regions {
    use super::*;
    use crate::models::lock::{give_back_region, lock_region};
    use crate::region::batch::end_undecided;
    use crate::region::read::{Look, look};

    const OLD: &[u8] = b"old.....";
    const NEW: &[u8] = b"new.....";

    fn id_in(arena: &Arena, region: u32, nth: usize) -> u64 {
        (1..).filter(|&id| arena.geo.region_of(arena.geo.hash(id)) == region).nth(nth).unwrap()
    }

    /// As `handle::lock` takes a region's lock.
    fn enter(arena: &Arena, region: u32) {
        let took_over = lock_region(arena, region);
        let region = Region::new(arena, region);
        if took_over || region.is_marked() {
            rebuild(&region, if took_over { Cause::Death } else { Cause::Process }).unwrap();
        }
    }

    /// What `store::batch` does, with the lock of batches held.
    fn batch(arena: &Arena, ids: &[u64]) {
        let region_of = |id| arena.geo.region_of(arena.geo.hash(id));
        ids.iter().for_each(|&id| enter(arena, region_of(id)));
        let epoch = arena.epoch().unwrap();
        let change = |&id: &u64| Member {
            hash: arena.geo.hash(id),
            id,
            address: Address::Id,
            data: Some(NEW),
            slot: None,
            seq: 0,
        };
        let mut changes: Vec<[Member<'_>; 1]> = ids.iter().map(|id| [change(id)]).collect();
        let mut groups: Vec<_> =
            changes.iter_mut().map(|c| (Region::new(arena, region_of(c[0].id)), &mut c[..])).collect();
        groups.iter_mut().for_each(|(region, changes)| region.prepare(changes, epoch).unwrap());
        commit(arena, &mut groups, epoch).unwrap();
        ids.iter().for_each(|&id| give_back_region(arena, region_of(id)));
    }

    /// What a reader sees that heals nothing: whether it is new; `None`: something moved.
    fn is_new(arena: &Arena, id: u64) -> Option<bool> {
        let mut out = Vec::new();
        match look(arena, arena.geo.hash(id), id, true, Some(&mut out)) {
            Look::Hit(..) => Some(out == NEW),
            Look::Moved | Look::Broken("it is being rebuilt") => None,
            Look::Miss => panic!("missed"),
            Look::Damaged { what, .. } | Look::Broken(what) => panic!("{what}"),
        }
    }

    /// Whether the batcher lived.
    fn run(death: u32, notes: &Seen) -> bool {
        let arena = Arena::of_regions(2, 4);
        let doomed = arena.attach(1);
        let ids = [id_in(&arena, 0, 0), id_in(&arena, 1, 0)];
        for (region, id) in (0..).zip(ids) {
            enter(&doomed, region);
            let content = crate::region::write::Content::Bytes(OLD, Address::Id);
            Region::new(&doomed, region).put(arena.geo.hash(id), id, content, false).unwrap();
            give_back_region(&doomed, region);
        }
        let lived = die_before(death, || batch(&doomed, &ids)).is_some();
        doomed.file.die();
        let counts = batch_number(&arena, arena.control().committed()).unwrap() == 1;
        let (healer, next) = (arena.attach(2), arena.attach(3));
        let look = || {
            for id in ids {
                match is_new(&arena, id) {
                    Some(new) => {
                        assert_eq!(new, counts, "region {}", arena.geo.region_of(arena.geo.hash(id)))
                    }
                    None => notes.note("moved"),
                }
            }
        };
        look();
        let healer = thread::spawn(move || {
            enter(&healer, 1);
            give_back_region(&healer, 1);
        });
        // As `handle::lock` takes the lock of batches from a dead owner.
        let begun = batch_number(&next, next.control().begun()).unwrap();
        if batch_number(&next, next.control().ended()).unwrap() != begun {
            end_undecided(&next, |region| {
                enter(&next, region);
                give_back_region(&next, region);
                Ok(())
            })
            .unwrap();
            next.control().ended().store(begun, Ordering::SeqCst);
        }
        batch(&next, &[id_in(&arena, 0, 1)]);
        look();
        healer.join().unwrap();
        for region in 0..2 {
            enter(&next, region);
            give_back_region(&next, region);
        }
        for id in ids {
            assert_eq!(is_new(&arena, id), Some(counts), "nothing moves any more");
        }
        notes.note(if counts { "counted" } else { "did not count" });
        lived
    }

    #[test]
    fn no_healer_and_no_next_batch_changes_what_was_decided() {
        let (mut executions, mut outcomes) = (0, BTreeSet::new());
        for stores in 0.. {
            let seen = explore(Some(1), move |notes| {
                if run(stores + 1, notes) {
                    notes.note("lived");
                }
            });
            executions += seen.executions();
            outcomes.extend(seen.kinds());
            if seen.has("lived") {
                println!("batch: over two regions: {executions} executions, {stores} deaths, {outcomes:?}");
                assert!(stores > 30, "that was no death before each store of a batch");
                assert!(outcomes.contains("counted") && outcomes.contains("did not count"));
                return;
            }
        }
    }
}
