//! The hand-over of the epoch from writers to a flush: whoever flushes raises the epoch and waits for
//! those who are inside, and from then on nothing is written in the old epoch, and all that was is seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as GhostU64, Ordering as Ghost};

use loom::thread;

use crate::explore::{Seen, explore_and_tell};
use crate::file::arena::Arena;
use crate::file::borrow;
use crate::format::epoch::Epoch;
use crate::format::slot::{FIRST_SEQ, Header};
use crate::models::lock::{give_back, lock};
use crate::protocol::slot::{header, publish};
use crate::sys::atomic::{AtomicU64, Ordering, die_before};

/// Step 2 of a flush, as in `handle::flush`: the old epoch.
fn cut(arena: &Arena) -> Epoch {
    let old = arena.epoch().unwrap();
    arena.control().epoch().store(old.next(), Ordering::SeqCst);
    if arena.head(0).lock().load(Ordering::SeqCst) != 0 {
        lock(arena);
        give_back(arena);
    }
    old
}

/// One slot per writer; the lock and the epoch are the arena's.
struct Slots(Vec<Vec<AtomicU64>>);

impl Slots {
    fn new(writers: usize) -> Arc<Self> {
        Arc::new(Self((0..writers).map(|_| (0..4).map(|_| AtomicU64::new(0)).collect()).collect()))
    }

    /// The writers whose versions are there.
    fn written(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|&n| header(&self.0[n]).seq() != 0).collect()
    }
}

/// Writers write one version each while somebody flushes; the first may die before a store (0: it lives).
fn hand_over(name: &str, preemptions: Option<usize>, writers: usize, death: u32) -> Seen {
    explore_and_tell(name, preemptions, move |notes| {
        let arena = Arena::new(0);
        let slots = Slots::new(writers);
        // The epoch of the cut that is done; what is not part of the model.
        let done = Arc::new(GhostU64::new(0));
        let flusher = arena.attach(9);
        let threads: Vec<_> = (0..writers)
            .map(|n| {
                let arena = arena.attach(n as u32 + 1);
                let (slots, done) = (Arc::clone(&slots), Arc::clone(&done));
                let death = if n == 0 { death } else { 0 };
                thread::spawn(move || {
                    let mut stamp = None;
                    let lived = die_before(death, || {
                        lock(&arena);
                        let epoch = arena.epoch().unwrap();
                        stamp = Some(epoch);
                        publish(&slots.0[n], Header::record(FIRST_SEQ + n as u64, 1, epoch, 0), &[]);
                        assert!(
                            epoch.number() > done.load(Ghost::Relaxed),
                            "written in {epoch:?}, which is over"
                        );
                        give_back(&arena);
                    });
                    if lived.is_none() {
                        arena.file.die();
                    }
                    (n, stamp)
                })
            })
            .collect();
        let flusher = thread::spawn({
            let slots = Arc::clone(&slots);
            move || {
                let old = cut(&flusher);
                done.store(old.number(), Ghost::Relaxed);
                (old, slots.written())
            }
        });
        let (old, flushed) = flusher.join().unwrap();
        for writer in threads {
            let (n, stamp) = writer.join().unwrap();
            let is_there = slots.written().contains(&n);
            if is_there && stamp.unwrap() <= old {
                assert!(flushed.contains(&n), "a write of the old epoch is not flushed");
                notes.note("old epoch, flushed");
            } else {
                notes.note(if is_there { "new epoch" } else { "died" });
            }
        }
    })
}

#[test]
fn nothing_is_written_in_an_epoch_that_is_over() {
    let seen = hand_over("epoch: a writer and a flush", None, 1, 0);
    seen.expect(&["old epoch, flushed", "new epoch"]);
    hand_over("epoch: 2 writers and a flush", Some(2), 2, 0);
    for death in 1..=6 {
        hand_over(&format!("epoch: the writer dies before store {death}"), None, 1, death);
    }
}

/// The same for a pin: a writer of a later epoch knows that there may be pins.
#[test]
fn a_writer_of_a_later_epoch_sees_the_pin() {
    let seen = explore_and_tell("epoch: pinned", None, |notes| {
        let arena = Arena::new(0);
        let writer = arena.attach(1);
        let pinner = arena.attach(2);
        let writer = thread::spawn(move || {
            lock(&writer);
            let found = (writer.epoch().unwrap(), crate::file::seat::may_have_moment(&writer));
            give_back(&writer);
            found
        });
        let pinned = crate::file::seat::set_moment(&pinner, pinner.owner.unwrap()).unwrap();
        assert_eq!(cut(&pinner), pinned);
        let (epoch, sees_pin) = writer.join().unwrap();
        assert!(epoch <= pinned || sees_pin);
        notes.note(format!("{} {sees_pin}", epoch.number()));
    });
    seen.expect(&["2 false", "2 true", "3 true"]);
}

/// The snapshots of a handle share the pin of its seat: the older one stands for the later one, until it goes.
#[test]
fn an_older_pin_of_a_seat_stands_for_a_later_one() {
    use crate::file::seat;
    let seen = explore_and_tell("epoch: a second pin of a seat", Some(3), |notes| {
        let arena = Arena::new(0);
        let looker = arena.attach(1);
        let pinner = arena.attach(2);
        let owner = pinner.owner.unwrap();
        let first = seat::set_moment(&pinner, owner).unwrap();
        cut(&pinner);
        let looking = thread::spawn(move || seat::oldest_moment(&looker).unwrap());
        let second = pinner.epoch().unwrap();
        cut(&pinner);
        seat::move_moment(&pinner, owner, second); // The first snapshot is dropped.
        let oldest = looking.join().unwrap().expect("a pin stands throughout");
        assert!(first <= oldest && oldest <= second);
        notes.note(format!("{}", oldest.number()));
        assert!(seat::may_have_moment(&arena));
    });
    seen.expect(&["2", "3"]);
}

/// The hint that there are borrows (or pins) is not cleared while there is one, whoever looks.
#[test]
fn a_borrow_that_lives_is_hinted_at() {
    let seen = explore_and_tell("borrow: begun while two look for borrows", Some(3), |notes| {
        let arena = Arena::new(0);
        let owner = arena.attach(1);
        // Left by a borrow that has ended.
        drop(borrow::Borrow::begin(&owner, owner.owner.unwrap()).unwrap());
        let lookers = [2, 3].map(|n| {
            let looker = arena.attach(n);
            thread::spawn(move || borrow::oldest(&looker).unwrap())
        });
        let borrower = thread::spawn(move || {
            std::mem::forget(borrow::Borrow::begin(&owner, owner.owner.unwrap()).unwrap());
            owner
        });
        for looker in lookers {
            notes.note(format!("{:?}", looker.join().unwrap().is_some()));
        }
        let _lives = borrower.join().unwrap();
        assert!(borrow::may_be_borrowed(&arena));
    });
    seen.expect(&["false", "true"]);
}
