//! The region lock, whose owner may die before any of its stores: `protocol::lock` and the crate's own
//! judging of seats, with the kernel's answers (see `stand_in/kernel.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering as Ghost};

use loom::thread;

use crate::explore::{ALL, Seen, explore_and_tell};
use crate::file::arena::Arena;
use crate::file::seat;
use crate::protocol::lock::{LockState, SLEEPERS, mark_sleeper, state, take_over, try_lock, unlock};
use crate::sys::atomic::{AtomicU64, Ordering, die_before};
use crate::sys::futex;

/// Takes the region's lock; whether it was a dead owner's. The steps are those of `handle::lock`, but
/// that nobody spins before it sleeps: it would be the same steps again.
pub(super) fn lock(arena: &Arena) -> bool {
    lock_region(arena, 0)
}

pub(super) fn lock_region(arena: &Arena, region: u32) -> bool {
    let lock = arena.head(region).lock();
    let own = arena.owner.unwrap().word();
    if try_lock(lock, own) {
        return false;
    }
    let mut slept = 0;
    loop {
        let word = lock.load(Ordering::Relaxed);
        let owner = match state(word) {
            LockState::Free if take_over(lock, 0, own | slept) => return false,
            LockState::Free => continue,
            LockState::Held(owner) => owner,
            LockState::Clean | LockState::Damaged => panic!("{word:x} is no word of this model"),
        };
        let news = arena.file.news();
        if !seat::is_alive(arena, owner).unwrap() {
            if take_over(lock, word, own | (word & SLEEPERS) | slept) {
                return true;
            }
            continue;
        }
        if mark_sleeper(lock, word) {
            arena.file.futex_wait(lock, (word | SLEEPERS) as u32, news);
            slept = SLEEPERS;
        }
    }
}

pub(super) fn give_back(arena: &Arena) {
    give_back_region(arena, 0);
}

pub(super) fn give_back_region(arena: &Arena, region: u32) {
    let lock = arena.head(region).lock();
    if unlock(lock) {
        futex::wake(lock, 1);
    }
}

/// What the lock is to protect, and what is known outside of the model.
struct Region {
    /// Raised by each owner, with plain loads and stores.
    count: AtomicU64,
    /// Somebody who lives is inside.
    inside: AtomicBool,
    taken_over: AtomicUsize,
    finished: AtomicUsize,
}

impl Region {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            count: AtomicU64::new(0),
            inside: AtomicBool::new(false),
            taken_over: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
        })
    }

    /// Takes the lock, raises the count, gives the lock back.
    fn visit(&self, arena: &Arena) {
        if lock(arena) {
            self.taken_over.fetch_add(1, Ghost::Relaxed);
            self.inside.store(false, Ghost::Relaxed); // The dead one's.
        }
        assert!(!self.inside.swap(true, Ghost::Relaxed), "two owners");
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Relaxed);
        self.inside.store(false, Ghost::Relaxed);
        self.finished.fetch_add(1, Ghost::Relaxed);
        give_back(arena);
    }
}

/// Several handles visit at once; each may die before a store, the n-th of its visit (0: it lives).
fn visits<const HANDLES: usize>(name: &str, preemptions: Option<usize>, deaths: [u32; HANDLES]) -> Seen {
    explore_and_tell(name, preemptions, move |notes| {
        let arena = Arena::new(0);
        let region = Region::new();
        let handles: Vec<_> = (0..HANDLES as u32).map(|n| arena.attach(n + 1)).collect();
        let threads: Vec<_> = handles
            .into_iter()
            .zip(deaths)
            .map(|(arena, death)| {
                let region = Arc::clone(&region);
                thread::spawn(move || {
                    let lived = die_before(death, || region.visit(&arena)).is_some();
                    if !lived {
                        arena.file.die();
                    }
                    lived
                })
            })
            .collect();
        let lived = threads.into_iter().map(|t| usize::from(t.join().unwrap())).sum::<usize>();
        let taken_over = region.taken_over.load(Ghost::Relaxed);
        notes.note(format!("{lived} of {HANDLES} lived, {taken_over} took over"));
        // Each that lived has counted itself; one that died may have.
        let count = region.count.load(Ordering::Relaxed) as usize;
        assert!((lived..=HANDLES).contains(&count), "{count} of {lived}");
        assert!(count >= region.finished.load(Ghost::Relaxed), "a visit was lost");
        assert!(taken_over <= HANDLES - lived, "one death, and {taken_over} successors");
    })
}

#[test]
fn owners_exclude_each_other_and_wake_each_other() {
    visits("lock: 3 handles", Some(3), [0, 0, 0]);
}

#[test]
fn a_dead_owner_has_one_successor_whenever_it_dies() {
    for death in 1..=4 {
        visits(&format!("lock: 2 handles, one dies before its store {death}"), ALL, [death, 0]);
        visits(&format!("lock: 3 handles, one dies before its store {death}"), Some(2), [death, 0, 0]);
    }
}

#[test]
fn a_successor_that_dies_has_a_successor() {
    for second in 1..=5 {
        let name = format!("lock: 3 handles, one dies inside, one before its store {second}");
        visits(&name, Some(2), [3, second, 0]);
    }
}

/// While one waits for a dead owner, another process comes in, and may take the dead one's seat.
#[test]
fn who_sits_in_a_dead_owners_seat_is_not_taken_for_it() {
    for visits_too in [false, true] {
        let seen = explore_and_tell("lock: the seat is taken again", Some(2), move |notes| {
            let arena = Arena::new(0);
            let region = Region::new();
            let dead = arena.attach(1);
            assert!(die_before(3, || region.visit(&dead)).is_none());
            let waiter = arena.attach(2);
            dead.file.die();
            let waiter = thread::spawn({
                let region = Arc::clone(&region);
                move || region.visit(&waiter)
            });
            let newcomer = thread::spawn({
                let region = Arc::clone(&region);
                move || {
                    let newcomer = arena.attach(3);
                    assert_eq!(newcomer.owner.unwrap().seat, dead.owner.unwrap().seat);
                    newcomer.file.time_passes();
                    if visits_too {
                        region.visit(&newcomer);
                    }
                    newcomer
                }
            });
            waiter.join().unwrap();
            newcomer.join().unwrap();
            assert_eq!(region.taken_over.load(Ghost::Relaxed), 1);
            assert_eq!(region.count.load(Ordering::Relaxed), 2 + u64::from(visits_too));
            notes.note("done");
        });
        seen.expect(&["done"]);
    }
}
