//! A writer dies before each of its stores in turn, the next owner rebuilds the region in place, and a
//! reader without a lock reads on through all of it: the crate's own `put`, `delete`, `rebuild`, `look`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use loom::thread;

use crate::explore::{IN_TURN, Seen, explore};
use crate::file::arena::Arena;
use crate::format::slot::{Address, HEADER_WORDS, PRESENT};
use crate::models::lock::{give_back, lock};
use crate::models::read::set_epochs;
use crate::recovery::rebuild::{Cause, rebuild};
use crate::region::finish::finish;
use crate::region::head::Region;
use crate::region::read::{Look, look};
use crate::region::write::Content;
use crate::sys::atomic::{Ordering, die_before};

const X: u64 = 1;

/// The data of each version, as far as anybody has seen it. Not part of the model.
type Known = Arc<Mutex<BTreeMap<u64, Vec<u8>>>>;

/// The next owner's way to heal a region.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heals {
    /// By the notes of the dead one, as `handle::lock` does.
    ByNotes,
    /// By a look at all slots, as if there were no notes.
    BySlots,
}

fn enter(arena: &Arena, heals: Heals) {
    let took_over = lock(arena);
    let region = Region::new(arena, 0);
    if took_over && heals == Heals::ByNotes {
        assert!(finish(&region), "the notes don't explain a death");
        return;
    }
    if took_over || region.is_marked() {
        rebuild(&region, if took_over { Cause::Death } else { Cause::Process }).unwrap();
    }
}

fn put(arena: &Arena, heals: Heals, data: &[u8]) -> u64 {
    enter(arena, heals);
    let seq = Region::new(arena, 0)
        .put(arena.geo.hash(X), X, Content::Bytes(data, Address::Id), false)
        .unwrap()
        .seq;
    give_back(arena);
    seq & !PRESENT
}

/// Takes room, fills it without the region's lock, and commits.
fn reserve(arena: &Arena, heals: Heals, data: &[u8]) -> u64 {
    enter(arena, heals);
    let slot = Region::new(arena, 0).reserve(X, 8, arena.owner.unwrap()).unwrap();
    give_back(arena);
    for (word, bytes) in arena.slot(slot).unwrap()[HEADER_WORDS..].iter().zip(data.chunks(8)) {
        word.store(u64::from_le_bytes(bytes.try_into().unwrap()), Ordering::Relaxed);
    }
    let mut sum = crc32fast::Hasher::new();
    sum.update(data);
    enter(arena, heals);
    let region = Region::new(arena, 0);
    region.check_reserved(slot).unwrap();
    let content = Content::Reserved { slot, address: Address::Id, len: data.len(), sum: &sum };
    let seq = region.put(arena.geo.hash(X), X, content, false).unwrap().seq;
    give_back(arena);
    seq & !PRESENT
}

fn delete(arena: &Arena, heals: Heals) {
    enter(arena, heals);
    assert!(Region::new(arena, 0).delete(arena.geo.hash(X), X, Address::Id).unwrap());
    give_back(arena);
}

/// Looks once: the version, which has the same data for all, or `None` for a miss, or why it is neither.
fn look_once(arena: &Arena, known: &Known) -> Result<Option<u64>, &'static str> {
    let mut out = Vec::new();
    match look(arena, arena.geo.hash(X), X, false, Some(&mut out)) {
        Look::Hit(header, _) => {
            let first = known.lock().unwrap().entry(header.version()).or_insert_with(|| out.clone()).clone();
            assert_eq!(first, out, "two contents of version {}", header.version());
            assert!([b"before..", b"doomed..", b"after..."].iter().any(|&whole| out == whole));
            Ok(Some(header.version()))
        }
        Look::Miss => Ok(None),
        Look::Moved => Err("moved"),
        Look::Broken("it is being rebuilt") => Err("being rebuilt"),
        Look::Damaged { what, .. } | Look::Broken(what) => panic!("{what}"),
    }
}

/// What the one that dies does with the record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Put,
    Delete,
    /// Overwrites it in place.
    Reserve,
}

/// What happens in a model.
#[derive(Clone, Copy)]
struct Plan {
    name: &'static str,
    /// A flush has begun since the record was written, so its slot is kept when it is replaced.
    flushed: bool,
    /// What the one that dies does.
    does: Does,
    /// The successor overwrites the record; else it repairs the region, if need be, and that is all.
    writes: bool,
    heals: Heals,
}

impl Plan {
    /// Runs the plan with a death before each store in turn, until it outlives them all.
    fn explore(self) {
        let mut executions = 0;
        for stores in 0.. {
            let seen = explore(IN_TURN, move |notes| self.run(stores + 1, notes));
            executions += seen.executions();
            if seen.has("lived") {
                println!("death: {}: {executions} executions, {stores} deaths", self.name);
                assert!(stores > 10, "that was no death before each store of a write");
                return;
            }
        }
    }

    fn run(self, death: u32, notes: &Seen) {
        let arena = Arena::new(3);
        let known = Known::default();
        let doomed = arena.attach(1);
        let successor = arena.attach(2);
        assert_eq!(put(&doomed, self.heals, b"before.."), 1);
        known.lock().unwrap().insert(1, b"before..".to_vec());
        if self.flushed {
            set_epochs(&arena, 3, 2);
        }
        let doomed = thread::spawn({
            let notes = notes.clone();
            move || {
                let done = die_before(death, || match self.does {
                    Does::Delete => delete(&doomed, self.heals),
                    Does::Put => assert_eq!(put(&doomed, self.heals, b"doomed.."), 2),
                    Does::Reserve => assert_eq!(reserve(&doomed, self.heals, b"doomed.."), 2),
                });
                notes.note(if done.is_some() { "lived" } else { "died" });
                doomed.file.die();
                done.is_some()
            }
        });
        let successor = thread::spawn(move || {
            if self.writes {
                return Some(put(&successor, self.heals, b"after..."));
            }
            enter(&successor, self.heals);
            give_back(&successor);
            None
        });
        let reader = thread::spawn({
            let (arena, known, notes) = (arena.clone(), Arc::clone(&known), notes.clone());
            move || {
                let mut last = Some(1);
                for _ in 0..if self.writes { 1 } else { 2 } {
                    match look_once(&arena, &known) {
                        Ok(found) => {
                            check_order(last, found, self.does == Does::Delete);
                            last = found;
                            notes.note(format!("{found:?}"));
                        }
                        Err(why) => notes.note(why),
                    }
                }
                last
            }
        });
        let last = reader.join().unwrap();
        let lived = doomed.join().unwrap();
        let written = successor.join().unwrap();
        // All are done: what was acknowledged is there, and nothing that was seen is gone.
        let found = look_once(&arena, &known).expect("nothing moves any more");
        match written {
            Some(version) => assert_eq!(found, Some(version)),
            None => check_order(last, found, self.does == Does::Delete),
        }
        if lived && !self.writes {
            assert_eq!(found, (self.does != Does::Delete).then_some(2));
        }
    }
}

/// Versions rise; a deletion is seen only if there is one, and hides version 1 for good.
fn check_order(last: Option<u64>, found: Option<u64>, deletes: bool) {
    match (last, found) {
        (Some(last), Some(found)) => assert!(found >= last, "{found} after {last}"),
        (None, Some(found)) => assert!(found > 1, "what was deleted is back"),
        (_, None) => assert!(deletes, "missed"),
    }
}

/// Explores a plan with each way to heal.
fn both_ways(name: &'static str, flushed: bool, does: Does, writes: bool) {
    for heals in [Heals::ByNotes, Heals::BySlots] {
        Plan { name, flushed, does, writes, heals }.explore();
    }
}

#[test]
fn a_writer_that_dies_before_any_store_leaves_the_old_version_or_the_new_one() {
    both_ways("put, then repaired", false, Does::Put, false);
    both_ways("put, old version kept, then repaired", true, Does::Put, false);
    both_ways("put, then put", false, Does::Put, true);
}

#[test]
fn a_deleter_that_dies_before_any_store_leaves_the_record_or_none() {
    both_ways("delete, then repaired", false, Does::Delete, false);
    both_ways("delete, then put", false, Does::Delete, true);
}

#[test]
fn who_dies_while_it_writes_in_place_leaves_the_old_version_or_the_new_one() {
    both_ways("reserve, then repaired", false, Does::Reserve, false);
    both_ways("reserve, then put", false, Does::Reserve, true);
}
