//! Deadlines that are changed while somebody dies, or does something else with the value at the same time.
//!
//! Fails when: a death at any step of a touch, a write or a sweep leaves another deadline than the one before or the one after; a touch
//! that said yes is lost to a writer or a sweep that came at the same time; a snapshot judges by another moment than its own.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, UNIX_EPOCH};

use rand::Rng;
use recstore::testing::{arm, set_hook, steps_seen};
use recstore::{Commit, Error, Space, Store, Swap, Ttl};

use crate::clocks::{BEGIN, Clocks, HOUR, SECOND, end, get, new_store, secs, small, sweep_all};
use crate::common::{self, End, Me, in_fork, wait_for};

type Operation = fn(&Space<'_>);
/// A call that tells whether it found a value.
type Finds = fn(&Store) -> bool;

/// What a death can leave of a key: its value and its deadline.
type Left = (Option<Vec<u8>>, Option<u64>);

#[test]
fn child_entry() {
    match Me::from_env().as_ref().map(|me| &me.role[..]) {
        None => {}
        Some("dies") => die_at_every_step(),
        Some("forks") => touch_in_one_of_two_children(),
        Some(role) => panic!("no such role: {role}"),
    }
}

#[test]
fn a_death_at_any_step_leaves_the_deadline_before_or_after() {
    common::alone("dies", &[]);
}

fn die_at_every_step() {
    let clocks = Clocks::new();
    let operations: [(&str, Operation, u64); 8] = [
        ("touch", |space| _ = space.touch("k", Duration::from_secs(500)).unwrap(), 1),
        ("touch again", |space| _ = space.touch("k", Duration::from_secs(600)).unwrap(), 2),
        ("shorten", |space| _ = space.touch("k", Duration::from_secs(5)).unwrap(), 2),
        ("put", |space| _ = space.put_with("k", b"another", secs(700)).unwrap(), 2),
        ("delete what is over", |space| _ = space.delete("gone").unwrap(), 2),
        ("sweep", |space| _ = sweep_all(space.store()), 2),
        (
            "swap",
            |space| {
                let is = space.version("k").unwrap();
                let _ = space.compare_and_swap_with("k", is, b"another", secs(800)).unwrap();
            },
            2,
        ),
        (
            "batch",
            |space| {
                let mut batch = space.store().batch();
                batch.require_in(space, "gone", None).unwrap();
                batch.put_in(&space.clone().with_ttl(Duration::from_secs(900)), "k", b"another").unwrap();
                assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
            },
            2,
        ),
    ];
    let left = |store: &Store| -> Left {
        let space = store.space("s").unwrap();
        (get(&space, "k"), end(&space, "k"))
    };
    let prepare = |path: &Path, touches: u64| {
        let store = small().create(path).unwrap();
        let space = store.space("s").unwrap();
        space.put_with("k", b"value", secs(100)).unwrap();
        space.put_with("gone", b"value", secs(0)).unwrap();
        store.sync().unwrap();
        if touches > 1 {
            space.touch("k", Duration::from_secs(300)).unwrap();
        }
        store
    };
    for (name, operate, touches) in operations {
        let mut deaths = 0;
        for step in 1.. {
            let dir = common::scratch();
            let path = dir.path().join("s");
            let store = prepare(&path, touches);
            let before = left(&store);
            let dies = wait_for(in_fork(|| {
                let store = small().open(&path).unwrap();
                let space = store.space("s").unwrap();
                arm(step);
                operate(&space);
                assert!(steps_seen() > 0);
                arm(0);
                0
            }));
            let now = left(&store);
            let fresh = small().open(&path).unwrap();
            assert_eq!(left(&fresh), now, "{name}, step {step}");
            assert!(store.verify().unwrap().is_clean(), "{name}, step {step}");
            operate(&store.space("s").unwrap());
            let after = left(&fresh);
            assert!(now == before || now == after, "{name}, step {step}: {before:?}, {now:?}, {after:?}");
            if dies != End::Killed {
                assert_eq!(now, after, "{name}");
                break;
            }
            deaths += 1;
        }
        println!("{name}: {deaths} deaths");
        assert!(deaths > 3, "{name}");
    }
    drop(clocks);
}

/// Between the look at the deadline and the change, somebody else is faster: one of the two comes first.
#[test]
fn a_touch_that_said_yes_is_not_lost_to_a_sweep_or_a_writer_at_the_same_time() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let other = small().open(store.path()).unwrap();
    let (mut lived, mut died) = (0, 0);
    let mut rng = common::seeded();
    for round in 0..300_u32 {
        let space = store.space("s").unwrap();
        space.put_with("k", b"value", secs(10)).unwrap();
        clocks.pass(10 * SECOND - 1);
        let spins = rng.random_range(0..2000);
        let (was_touched, was_written) = std::thread::scope(|scope| {
            let touches = scope.spawn(|| space.touch("k", Duration::from_secs(1000)).unwrap());
            let writes = scope.spawn(|| {
                (0..spins).for_each(|_| std::hint::spin_loop());
                clocks.pass(1);
                if round % 2 == 0 {
                    return sweep_all(&other) != 0;
                }
                let swap = other.space("s").unwrap().put_if_absent("k", b"other").unwrap();
                matches!(swap, Swap::Done(_))
            });
            (touches.join().unwrap(), writes.join().unwrap())
        });
        // A touch that comes after the other writer touches the other value.
        let left = get(&space, "k");
        if was_written && round % 2 == 1 {
            assert_eq!(left.as_deref(), Some(&b"other"[..]), "round {round}");
        } else {
            // A sweep may leave out what others have locked, and a touch may come too late.
            assert!(!(was_touched && was_written), "round {round}");
            assert!(was_touched || was_written || round % 2 == 0, "round {round}");
            assert_eq!(left.as_deref() == Some(b"value"), was_touched, "round {round}");
        }
        (lived, died) = (lived + u32::from(was_touched), died + u32::from(was_written));
        space.delete("k").unwrap();
    }
    println!("touched {lived} times, written {died} times");
    assert!(lived > 0);
}

/// The value's record and that of its later deadline lie in any two regions: while the deadline is written, no writer gets at the
/// value.
#[test]
fn a_touch_has_the_lock_of_the_value_while_it_writes_the_later_deadline() {
    let _clocks = Clocks::new();
    let (dir, store) = new_store();
    let beside = small().lock_timeout(Some(Duration::from_millis(20))).open(dir.path().join("s")).unwrap();
    for n in 0..16 {
        let key = format!("user:{n}");
        store.space("sessions").unwrap().put_with(&key, b"value", secs(60)).unwrap();
        let (inside, is_inside) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let (store, at) = (&store, &key);
        let written = std::thread::scope(|scope| {
            scope.spawn(move || {
                set_hook(Some(Box::new(move |step| {
                    if step == "put: slot taken" && inside.send(()).is_ok() {
                        let _ = may_go_on.recv();
                    }
                })));
                let touched = store.space("sessions").unwrap().touch(at, secs(3600));
                set_hook(None);
                assert!(touched.unwrap());
            });
            is_inside.recv().unwrap();
            let written = beside.space("sessions").unwrap().put(&key, b"another");
            drop((go_on, is_inside));
            written
        });
        assert!(matches!(written, Err(Error::Busy { .. })), "{key}: {written:?}");
        store.sync().unwrap(); // The next touch may write over this one's record, which another key may share.
    }
}

/// A call that waits for a lock meanwhile. A reader has seen then that the value is over, and nothing calls it back to life.
#[test]
fn what_a_reader_found_over_stays_over_for_a_call_that_began_before() {
    let clocks = Clocks::new();
    let (dir, store) = new_store();
    let reader = small().open(dir.path().join("s")).unwrap();
    // Each gives whether it found the value.
    let calls: [(&str, Finds); 6] = [
        ("touch", |store| store.space("s").unwrap().touch("k", secs(1000)).unwrap()),
        ("touch with the value", |store| store.space("s").unwrap().touch("k", Ttl::NEVER).unwrap()),
        ("update", |store| {
            let mut was_there = false;
            let space = store.space("s").unwrap();
            let updated = space.update_with("k", secs(1000), |old| {
                was_there = old.is_some();
                old.map(<[u8]>::to_vec)
            });
            updated.unwrap();
            was_there
        }),
        ("put_if_absent", |store| {
            let swap = store.space("s").unwrap().put_if_absent("k", b"other").unwrap();
            matches!(swap, Swap::Conflict { .. })
        }),
        ("delete", |store| store.space("s").unwrap().delete("k").unwrap()),
        ("batch", |store| {
            let space = store.space("s").unwrap();
            let mut batch = store.batch();
            batch.require_in(&space, "k", None).unwrap();
            batch.put_in(&space, "k", b"other").unwrap();
            matches!(batch.commit().unwrap(), Commit::Conflict { .. })
        }),
    ];
    for (name, call) in calls {
        for nth in 1.. {
            let space = reader.space("s").unwrap();
            space.put_with("k", b"value", secs(10)).unwrap();
            reader.sync().unwrap(); // So that a touch need not write the value.
            clocks.pass(10 * SECOND - 1);
            let (inside, is_inside) = channel();
            let (go_on, may_go_on) = channel::<()>();
            let store = &store;
            let (was_held_up, found) = std::thread::scope(|scope| {
                let calls = scope.spawn(move || {
                    let mut locks = 0;
                    set_hook(Some(Box::new(move |step| {
                        locks += i32::from(step == "lock: taken");
                        if step == "lock: taken" && locks == nth && inside.send(()).is_ok() {
                            let _ = may_go_on.recv();
                        }
                    })));
                    let found = call(store);
                    set_hook(None);
                    found
                });
                let was_held_up = is_inside.recv().is_ok();
                clocks.pass(1);
                assert!(!was_held_up || get(&space, "k").is_none());
                drop(go_on);
                (was_held_up, calls.join().unwrap())
            });
            if !was_held_up {
                assert!(nth > 1, "{name} took no lock");
                break;
            }
            assert!(!found, "{name} found the value, at lock {nth}");
            assert_ne!(get(&space, "k").as_deref(), Some(&b"value"[..]), "{name}, at lock {nth}");
        }
    }
}

#[test]
fn a_touch_in_one_forked_child_is_none_of_a_value_of_another() {
    common::alone("forks", &[]);
}

/// Two children of one process, which do the same.
fn touch_in_one_of_two_children() {
    let _clocks = Clocks::new();
    // The thread has drawn its random numbers, as in most programs before they fork.
    drop(std::hash::RandomState::new());
    let (dir, store) = new_store();
    let path = dir.path().join("s");
    let at = |seconds| Ttl::at(UNIX_EPOCH + Duration::from_millis(BEGIN + HOUR + seconds * SECOND));
    for touches in [true, false] {
        let end = wait_for(in_fork(|| {
            let store = small().open(&path).unwrap();
            let space = store.space("s").unwrap();
            space.put_with("k", b"value", at(100)).unwrap();
            if touches {
                assert!(space.touch("k", at(1000)).unwrap());
            }
            0
        }));
        assert_eq!(end, End::Exited(0));
    }
    assert_eq!(end(&store.space("s").unwrap(), "k"), Some(HOUR + 100 * SECOND));
}

/// A snapshot is of the moment at which it parts the writes, in this too: a touch that comes after that is not in it, so the time is
/// none after it either.
#[test]
fn a_snapshot_has_a_value_that_was_never_over() {
    let clocks = Clocks::new();
    let (dir, store) = new_store();
    let other = small().open(dir.path().join("s")).unwrap();
    let space = store.space("s").unwrap();
    space.put_with("k", b"value", secs(10)).unwrap();
    let (inside, is_inside) = channel();
    let (go_on, may_go_on) = channel::<()>();
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| {
            set_hook(Some(Box::new(move |step| {
                if step == "sync: epoch raised" && inside.send(()).is_ok() {
                    let _ = may_go_on.recv();
                }
            })));
            let snapshot = other.snapshot();
            set_hook(None);
            let snapshot = snapshot.unwrap();
            let space = other.space("s").unwrap();
            let found = snapshot.get_in(&space, "k").unwrap().map(<[u8]>::to_vec);
            (found, snapshot.iter_in(&space).count())
        });
        is_inside.recv().unwrap();
        assert!(space.touch("k", secs(1000)).unwrap());
        clocks.pass(20 * SECOND);
        assert!(space.contains("k").unwrap());
        drop(go_on);
        assert_eq!(reads.join().unwrap(), (Some(b"value".to_vec()), 1));
    });
}
