//! What a forked child has of its parent's views: nothing. It can let go of all of them, and is refused every call; what
//! was lent is not in its memory.
//!
//! Fails when: a child reads or writes through what was lent to its parent; a call of anything inherited does not give
//! `Forked`; letting go of it hangs, panics, or harms the parent or what the child opened itself.

use std::time::Duration;

use crate::common::{self, End, Me, Worker, in_fork, wait_for};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use recstore::{Error, Options, Store};

fn small(path: &str) -> Store {
    Options::new().record_size(64).regions(1).slots_per_extent(16).create(path).unwrap()
}

/// Drops the child's copy of a value. The original is not used, or dropped, in the child again.
fn let_go<T>(value: &T) {
    // SAFETY: see above; the child ends by `_exit`.
    drop(unsafe { std::ptr::read(value) });
}

fn assert_segmentation_fault(child: Pid) {
    match waitpid(child, None).unwrap() {
        WaitStatus::Signaled(_, Signal::SIGSEGV, _) => {}
        other => panic!("a child that touched what was lent to its parent: {other:?}"),
    }
}

fn lent(me: &mut Me) {
    let store = small(&me.var("STORE"));
    let mut reservation = store.reserve(1, 32).unwrap();
    reservation.fill(b'p').unwrap();
    let child = in_fork(|| {
        let written =
            [reservation.write_at(0, b"c"), reservation.fill(b'c'), reservation.read_at(0, &mut [0])];
        i32::from(!written.iter().all(|written| matches!(written, Err(Error::Forked { .. }))))
    });
    assert_eq!(wait_for(child), End::Exited(0), "a child is refused to write into its parent's room");
    reservation.commit().unwrap();
    assert_eq!(store.get(1).unwrap().unwrap().data(), [b'p'; 32]);
    let (pin, snapshot) = (store.pin().unwrap(), store.snapshot().unwrap());
    let of_pin = pin.get(1).unwrap().unwrap();
    let of_snapshot = snapshot.get(1).unwrap().unwrap();
    assert_segmentation_fault(in_fork(|| i32::from(std::hint::black_box(of_pin)[0])));
    assert_segmentation_fault(in_fork(|| i32::from(std::hint::black_box(of_snapshot)[0])));
    assert_eq!((of_pin[0], of_snapshot[0]), (b'p', b'p'));
}

fn refused(me: &mut Me) {
    let path = me.var("STORE");
    let store = small(&path);
    store.put(1, &7u64.to_le_bytes()).unwrap();
    let counter = store.counter(1);
    let typed = store.typed::<u64>().unwrap();
    let slices = store.slices::<u64>().unwrap();
    let ring = store.ring::<u64>(100, 4).unwrap();
    let mut tail = ring.tail(0).unwrap();
    let mut watch = store.watch(1).unwrap();
    let mut watch_all = store.watch_all().unwrap();
    let mut changes = store.changes().unwrap();
    let mut iter = store.iter();
    let pin = store.pin().unwrap();
    let snapshot = store.snapshot().unwrap();
    let reservation = store.reserve(2, 8).unwrap();
    let mut batch = store.batch();
    batch.put(3, &b"x"[..]).unwrap();
    let checkpoint = store.checkpoint_every(Duration::from_secs(3600)).unwrap();
    let soon = Some(Duration::from_millis(1));
    let child = in_fork(|| {
        let mut calls = vec![
            ("counter", counter.add(1).map(drop)),
            ("typed", typed.get(1).map(drop)),
            ("slices", slices.get(1).map(drop)),
            ("ring", ring.push(&1).map(drop)),
            ("pushed", ring.pushed().map(drop)),
            ("tail", tail.next_timeout(Duration::from_millis(1)).map(drop)),
            ("watch", watch.wait(soon).map(drop)),
            ("watch_all", watch_all.wait(soon).map(drop)),
            ("changes", changes.next_timeout(Duration::from_millis(1)).map(drop)),
            ("iter", iter.next().unwrap().map(drop)),
            ("pin", pin.get(1).map(drop)),
            ("get_many", pin.get_many(&[1]).map(drop)),
            ("snapshot", snapshot.get(1).map(drop)),
            ("iter of a snapshot", snapshot.iter().next().unwrap().map(drop)),
            ("checkpoint", checkpoint.error().map_or(Ok(()), Err)),
        ];
        // SAFETY: the child's copies, which it does not use or drop again.
        unsafe {
            calls.push(("batch", std::ptr::read(&raw const batch).commit().map(drop)));
            calls.push(("reservation", std::ptr::read(&raw const reservation).commit().map(drop)));
            calls.push(("finish", std::ptr::read(&raw const checkpoint).finish()));
        }
        for (call, result) in calls {
            assert!(matches!(result, Err(Error::Forked { .. })), "{call}: {result:?}");
        }
        // What is opened here may lie where the parent's mapping was.
        let anew = Store::open(&path).unwrap();
        let_go(&tail);
        let_go(&iter);
        let_go(&pin);
        let_go(&snapshot);
        let_go(&store);
        anew.put(1, &8u64.to_le_bytes()).unwrap();
        assert_eq!(anew.get(1).unwrap().unwrap().data(), 8u64.to_le_bytes());
        anew.close().unwrap();
        0
    });
    assert_eq!(wait_for(child), End::Exited(0));
    assert_eq!(counter.add(1).unwrap(), 9);
    assert_eq!(snapshot.get(1).unwrap(), Some(&7u64.to_le_bytes()[..]));
    assert_eq!(pin.get(1).unwrap(), Some(&9u64.to_le_bytes()[..]));
    reservation.commit().unwrap();
    checkpoint.finish().unwrap();
    assert_eq!(store.stats().unwrap().attached.iter().filter(|a| a.alive).count(), 1);
    assert!(store.verify().unwrap().is_clean());
}

/// Forks while the checkpoint's thread is at any point of its work.
fn checkpointed(me: &mut Me) {
    let store = small(&me.var("STORE"));
    for n in 0..100u64 {
        let checkpoint = store.checkpoint_every(Duration::from_micros(1)).unwrap();
        store.put(n, b"x").unwrap();
        let flushes = store.stats().unwrap().flushes;
        common::until("the checkpoint's thread at work", || store.stats().unwrap().flushes > flushes);
        let child = in_fork(|| {
            let_go(&checkpoint);
            0
        });
        assert_eq!(wait_for(child), End::Exited(0));
        checkpoint.finish().unwrap();
    }
}

/// A child that no handler of `fork` told: it may let go of the handle.
fn cloned(me: &mut Me) {
    let path = me.var("STORE");
    let store = small(&path);
    store.put(1, b"the parent's").unwrap();
    // SAFETY: one thread is at work here; the child makes system calls, and ends by `_exit`.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        let_go(&store);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) }
    }
    assert_eq!(wait_for(Pid::from_raw(child as i32)), End::Exited(0));
    let second = Store::open(&path).unwrap();
    let alive = second.stats().unwrap().attached.iter().filter(|a| a.alive).count();
    assert_eq!(alive, 2, "the child gave its parent's seat back");
}

/// Is inside of `update` with a child that keeps the descriptor.
fn leaks(me: &mut Me) {
    let store = small(&me.var("STORE"));
    // SAFETY: the child makes system calls alone.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: sleeps until it is killed, with its parent or by the test.
        unsafe {
            loop {
                libc::pause();
            }
        }
    }
    store
        .update(1, |_| {
            me.say(&child.to_string());
            me.wait_for_the_end();
            Some(b"never")
        })
        .unwrap();
}

#[test]
fn the_error_says_that_the_holder_has_ended_and_another_process_has_its_descriptor() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let mut owner = Worker::spawn("leaks", &[("STORE", path.to_str().unwrap())]);
    let child = Pid::from_raw(owner.hear().parse().unwrap());
    let store = Options::new().lock_timeout(Some(Duration::from_millis(50))).open(&path).unwrap();
    let held = |result: Result<_, Error>| match result {
        Err(error @ Error::Busy { owner: Some(holder), .. }) => {
            (holder.pid, holder.exists, error.to_string())
        }
        other => panic!("{other:?}"),
    };
    let (pid, exists, _) = held(store.put(2, b"x"));
    assert_eq!((pid, exists), (owner.pid(), Some(true)));
    owner.kill();
    let (pid, exists, says) = held(store.put(2, b"x"));
    assert_eq!((pid, exists), (owner.pid(), Some(false)));
    let due = format!("process {pid}, which has ended, while another process has its descriptor");
    assert!(says.contains(&due) && says.contains("fuser"), "{says}");
    let lock = store.stats().unwrap().regions[0].lock.clone().unwrap();
    assert_eq!((lock.pid, lock.pid_exists, lock.alive), (pid, Some(false), true));
    nix::sys::signal::kill(child, Signal::SIGKILL).unwrap();
    common::until("the descriptor's end", || store.put(2, b"x").is_ok());
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "lent" => lent(&mut me),
        "refused" => refused(&mut me),
        "checkpointed" => checkpointed(&mut me),
        "cloned" => cloned(&mut me),
        "leaks" => leaks(&mut me),
        other => panic!("no role {other}"),
    }
}

fn play(role: &str) {
    let dir = common::scratch();
    common::alone(role, &[("STORE", dir.path().join("store").to_str().unwrap())]);
}

#[test]
fn a_child_neither_reads_nor_writes_through_what_was_lent_to_its_parent() {
    play("lent");
}

#[test]
fn every_call_of_what_was_made_from_an_inherited_handle_is_refused_and_all_of_it_can_be_dropped() {
    play("refused");
}

#[test]
fn a_child_lets_go_of_a_checkpoint_at_any_point_of_its_work() {
    play("checkpointed");
}

#[test]
fn a_child_that_no_handler_told_does_not_give_its_parents_seat_back() {
    play("cloned");
}
