//! Readers without a lock beside one writer: the crate's own `look` beside its own `put`, `delete` and
//! `move_index`. Slots are used again at once, entries change, tables move; what a reader gets must
//! still be one history of each record. The writer alone has the region, so it takes no lock here.

use loom::thread;

use crate::explore::{IN_TURN, Seen, explore_and_tell};
use crate::file::arena::Arena;
use crate::format::epoch::Epoch;
use crate::format::slot::{Address, PRESENT};
use crate::region::Trouble;
use crate::region::head::Region;
use crate::region::read::{Look, look, look_at_every_slot};
use crate::region::write::Content;
use crate::sys::atomic::{AtomicU64, Ordering};

/// The record that is looked for.
const X: u64 = 1;

/// Another record whose entry has the same tag, so that a reader that looks for `X` looks at it too.
fn same_tag(arena: &Arena) -> u64 {
    static FOUND: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let shape = arena.shape(0);
    let tag = shape.tag(arena.geo.hash(X));
    *FOUND.get_or_init(|| (X + 1..).find(|&id| shape.tag(arena.geo.hash(id)) == tag).unwrap())
}

/// The data of a version.
pub(super) fn data(id: u64, version: u64) -> Vec<u8> {
    [id.to_le_bytes(), version.to_le_bytes()].concat()
}

/// Writes the next version of the region, which is to be `version`.
pub(super) fn put(arena: &Arena, id: u64, version: u64) {
    assert_eq!(try_put(arena, id, version).unwrap(), PRESENT | version);
}

pub(super) fn try_put(arena: &Arena, id: u64, version: u64) -> Result<u64, Trouble> {
    let hash = arena.geo.hash(id);
    Region::new(arena, 0)
        .put(hash, id, Content::Bytes(&data(id, version), Address::Id), false)
        .map(|written| written.seq)
}

pub(super) fn delete(arena: &Arena, id: u64) -> bool {
    Region::new(arena, 0).delete(arena.geo.hash(id), id, Address::Id).unwrap()
}

/// What a reader knows of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct State {
    /// Its version, or that of the record before it was deleted.
    version: u64,
    deleted: bool,
}

pub(super) const fn at(version: u64) -> State {
    State { version, deleted: false }
}

const fn deleted(version: u64) -> State {
    State { version, deleted: true }
}

/// Looks once, and checks: data of that version, nothing damaged. `None`: something moved.
pub(super) fn look_once(arena: &Arena, id: u64) -> Option<Option<u64>> {
    let mut out = Vec::new();
    match look(arena, arena.geo.hash(id), id, false, Some(&mut out)) {
        Look::Hit(header, _) => {
            assert_eq!(header.id(), id);
            assert_eq!(out, data(id, header.version()), "data of another version");
            Some(Some(header.version()))
        }
        Look::Miss => Some(None),
        Look::Moved | Look::Broken("it is being rebuilt") => None,
        Look::Damaged { what, .. } | Look::Broken(what) => panic!("{what}"),
    }
}

/// A reader: looks for `id` so many times. What it finds goes through `history` and never back, and is
/// nothing before what was acknowledged (the number of states of `history` that are past for good).
fn reader(arena: &Arena, id: u64, looks: usize, history: &[State], acknowledged: &AtomicU64, notes: &Seen) {
    let mut from = 0;
    for _ in 0..looks {
        from = from.max(acknowledged.load(Ordering::Acquire) as usize);
        match look_once(arena, id) {
            None => notes.note("moved"),
            Some(found) => {
                let fits = |state: &State| found == (!state.deleted).then_some(state.version);
                let place = history[from..].iter().position(fits);
                let place = place.unwrap_or_else(|| panic!("{found:?} after {:?}", history[from]));
                from += place;
                notes.note(format!("{:?}", history[from]));
            }
        }
    }
}

/// A model: `before` has happened when the writer and the reader begin. The writer's steps bring `X` from
/// one state of `history` to the next, each; it acknowledges each.
fn model<const STEPS: usize, const STATES: usize>(
    name: &str,
    looks: usize,
    slots: u32,
    before: fn(&Arena),
    steps: [fn(&Arena); STEPS],
    history: [State; STATES],
) -> Seen {
    assert_eq!(STATES, STEPS + 1);
    explore_and_tell(name, IN_TURN, move |notes| {
        let arena = Arena::new(slots);
        let acknowledged = std::sync::Arc::new(AtomicU64::new(0));
        before(&arena);
        let writer = thread::spawn({
            let arena = arena.clone();
            let acknowledged = std::sync::Arc::clone(&acknowledged);
            move || {
                for (n, step) in (1..).zip(steps) {
                    step(&arena);
                    acknowledged.store(n, Ordering::Release);
                }
            }
        });
        let reader = thread::spawn({
            let notes = notes.clone();
            move || reader(&arena, X, looks, &history, &acknowledged, &notes)
        });
        reader.join().unwrap();
        writer.join().unwrap();
    })
}

#[test]
fn versions_of_a_record_never_go_backwards_for_a_reader() {
    let seen = model(
        "read: overwritten twice",
        2,
        3,
        |arena| put(arena, X, 1),
        [|arena| put(arena, X, 2), |arena| put(arena, X, 3)],
        [at(1), at(2), at(3)],
    );
    seen.expect(&["moved", &format!("{:?}", at(1)), &format!("{:?}", at(2)), &format!("{:?}", at(3))]);
}

#[test]
fn a_slot_that_another_record_takes_over_is_not_taken_for_the_first() {
    model(
        "read: slot taken over",
        1,
        3,
        |arena| put(arena, X, 1),
        // Version 3, of the other record, is written into the slot of version 1.
        [|arena| put(arena, X, 2), |arena| put(arena, same_tag(arena), 3), |arena| put(arena, X, 4)],
        [at(1), at(2), at(2), at(4)],
    );
}

#[test]
fn a_deleted_record_is_gone_and_a_present_one_is_never_missed() {
    let seen = model(
        "read: deleted and written anew",
        2,
        3,
        |arena| put(arena, X, 1),
        [|arena| assert!(delete(arena, X)), |arena| put(arena, X, 2)],
        [at(1), deleted(1), at(2)],
    );
    seen.expect(&["moved", &format!("{:?}", deleted(1))]);
    model(
        "read: deleted, slot taken over",
        2,
        2,
        |arena| put(arena, X, 1),
        [|arena| assert!(delete(arena, X)), |arena| put(arena, same_tag(arena), 2)],
        [at(1), deleted(1), deleted(1)],
    );
}

pub(super) fn set_epochs(arena: &Arena, epoch: u64, durable: u64) {
    arena.control().epoch().store(Epoch::of(epoch), Ordering::SeqCst);
    arena.control().durable().store(Epoch::of(durable), Ordering::SeqCst);
}

#[test]
fn a_version_that_is_kept_for_durability_is_not_taken_for_the_current_one() {
    model(
        "read: replaced versions kept",
        1,
        4,
        |arena| {
            put(arena, X, 1);
            set_epochs(arena, 3, 2);
        },
        [|arena| put(arena, X, 2), |arena| put(arena, X, 3)],
        [at(1), at(2), at(3)],
    );
    model(
        "read: buried",
        1,
        4,
        |arena| {
            put(arena, X, 1);
            set_epochs(arena, 3, 2);
            put(arena, X, 2);
        },
        [|arena| assert!(delete(arena, X)), |arena| put(arena, X, 3)],
        [at(2), deleted(2), at(3)],
    );
}

fn move_index(arena: &Arena) {
    Region::new(arena, 0).move_index(0).unwrap();
}

#[test]
fn a_miss_while_the_index_moves_is_never_believed() {
    let seen = model(
        "read: index moved",
        2,
        3,
        |arena| put(arena, X, 1),
        [move_index, |arena| put(arena, X, 2)],
        [at(1), at(1), at(2)],
    );
    seen.expect(&["moved", &format!("{:?}", at(1)), &format!("{:?}", at(2))]);
    // The second move is into the place that the reader may still be in.
    model(
        "read: index moved there and back",
        1,
        3,
        |arena| put(arena, X, 1),
        [move_index, move_index],
        [at(1), at(1), at(1)],
    );
}

/// For handles that may not repair: the slots alone are looked at.
#[test]
fn a_look_at_every_slot_never_misses_a_record_that_is_there() {
    every_slot("read: every slot", 2, |arena| put(arena, X, 1), &[2, 3], 1);
}

/// The first version is kept, since it may be the one on disk, and was replaced before anybody looked. The
/// slot between the two is free, so the next version goes to where a reader may have been already.
#[test]
fn a_look_at_every_slot_gives_no_version_that_was_replaced_before_it_began() {
    let two_are_there = |arena: &Arena| {
        put(arena, X, 1);
        arena.control().epoch().store(arena.epoch().unwrap().next(), Ordering::SeqCst);
        let other = same_tag(arena);
        put(arena, other, 2);
        put(arena, X, 3);
        put(arena, other, 4);
    };
    every_slot("read: every slot, one of them kept", 4, two_are_there, &[5], 3);
}

/// A store of `slots` slots, in which one thread writes `versions`, and another looks at every slot: it
/// finds `oldest` or a later version.
fn every_slot(name: &'static str, slots: u32, before: fn(&Arena), versions: &'static [u64], oldest: u64) {
    explore_and_tell(name, IN_TURN, move |notes| {
        let arena = Arena::new(slots);
        before(&arena);
        let writer = thread::spawn({
            let arena = arena.clone();
            move || versions.iter().for_each(|&version| put(&arena, X, version))
        });
        let reader = thread::spawn({
            let notes = notes.clone();
            move || {
                let mut out = Vec::new();
                match look_at_every_slot(&arena, arena.geo.hash(X), X, Some(&mut out)).unwrap() {
                    Look::Hit(header, _) => {
                        assert!(header.version() >= oldest, "version {}", header.version());
                        assert_eq!(out, data(X, header.version()));
                        notes.note(format!("{:?}", at(header.version())));
                    }
                    Look::Moved => notes.note("moved"),
                    Look::Miss => panic!("missed"),
                    Look::Damaged { what, .. } | Look::Broken(what) => panic!("{what}"),
                }
            }
        });
        reader.join().unwrap();
        writer.join().unwrap();
    });
}
