//! A handle does not survive `fork`: in the child every call says so, and the child keeps nothing
//! of the parent's alive.
//!
//! Fails when: a call on an inherited handle does anything but `Error::Forked`; using or dropping
//! one disturbs the parent; a child that was forked inside `update` writes with its parent's lock; a
//! child that lives on makes its dead parent look alive.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::common::{self, End, Me, Worker, in_fork, wait_for};
use recstore::{Durability, Error, Options, Store};

/// Every kind of call, with what it gave.
fn every_call(store: &Store) -> Vec<(&'static str, Result<(), Error>)> {
    let mut out = Vec::new();
    vec![
        ("put", store.put(1, b"child").map(drop)),
        ("put_with", store.put_with(1, b"child", Durability::Disk).map(drop)),
        ("get", store.get(1).map(drop)),
        ("get_into", store.get_into(1, &mut out).map(drop)),
        ("contains", store.contains(1).map(drop)),
        ("version", store.version(1).map(drop)),
        ("delete", store.delete(1).map(drop)),
        ("update", store.update(1, |_| Some(b"child")).map(drop)),
        ("compare_and_swap", store.compare_and_swap(1, None, b"child").map(drop)),
        ("write_many", store.write_many([(1, &b"child"[..])]).map(drop)),
        ("get_many", store.get_many(&[1], |_, _| ())),
        ("iter", store.iter().next().expect("an error").map(drop)),
        ("scan", store.scan(|_, _, _| ControlFlow::Continue(()))),
        ("len", store.len().map(drop)),
        ("is_empty", store.is_empty().map(drop)),
        ("sync", store.sync()),
        ("stats", store.stats().map(drop)),
        ("verify", store.verify().map(drop)),
        ("repair", store.repair().map(drop)),
        ("inspect_region", store.inspect_region(0).map(drop)),
        ("inspect_slot", store.inspect_slot(0).map(drop)),
    ]
}

fn assert_all_forked(store: &Store) {
    for (call, result) in every_call(store) {
        assert!(matches!(result, Err(Error::Forked { .. })), "{call}: {result:?}");
    }
}

fn inherited(me: &mut Me) {
    let path = me.var("STORE");
    let options = Options::new().regions(1);
    let store = options.create(&path).unwrap();
    let closed = options.open(&path).unwrap();
    let read_only = options.open_read_only(&path).unwrap();
    store.put(1, b"parent").unwrap();
    let child = in_fork(|| {
        assert_all_forked(&store);
        assert_all_forked(&read_only);
        assert!(matches!(closed.close(), Err(Error::Forked { .. })));
        let anew = Store::open(&path).unwrap();
        assert_eq!(&anew.get(1).unwrap().unwrap()[..], b"parent");
        anew.put(2, b"child").unwrap();
        drop(store);
        anew.put(3, b"child").unwrap();
        0
    });
    assert_eq!(wait_for(child), End::Exited(0));
    let store = options.open(&path).unwrap();
    assert_eq!(&store.get(2).unwrap().unwrap()[..], b"child");
    store.put(4, b"parent").unwrap();
    assert_eq!(store.len().unwrap(), 4);
    assert!(store.verify().unwrap().is_clean());
}

fn still_good_in_the_parent(me: &mut Me) {
    let store = Options::new().regions(1).create(me.var("STORE")).unwrap();
    let mut iter = store.iter();
    store.put(1, b"parent").unwrap();
    for round in 0..20u64 {
        let child = in_fork(|| {
            assert_all_forked(&store);
            assert!(matches!(iter.next(), Some(Err(Error::Forked { .. }))));
            0
        });
        assert_eq!(wait_for(child), End::Exited(0));
        store.put(round, b"parent").unwrap();
        assert_eq!(&store.get(round).unwrap().unwrap()[..], b"parent");
    }
    // The parent still holds its seat: a second handle takes it for alive.
    let second = Store::open(me.var("STORE")).unwrap();
    let alive = second.stats().unwrap().attached.iter().filter(|a| a.alive).count();
    assert_eq!(alive, 2);
    assert!(store.verify().unwrap().is_clean());
}

fn inside_update(me: &mut Me) {
    let store = Options::new().regions(1).create(me.var("STORE")).unwrap();
    store.put(1, b"before").unwrap();
    let mut child = None;
    let version = store.update(1, |_| {
        let pid = {
            // SAFETY: one thread is at work in this process, and it is this one.
            match unsafe { nix::unistd::fork() }.unwrap() {
                nix::unistd::ForkResult::Parent { child } => child,
                nix::unistd::ForkResult::Child => return Some(&b"the child's"[..]),
            }
        };
        child = Some(pid);
        // The child returns from its copy of the closure while the lock is held here.
        assert_eq!(wait_for(pid), End::Exited(7));
        Some(b"the parent's")
    });
    let Some(_) = child else {
        // The child: it came out of `update` without having written.
        let refused = matches!(version, Err(Error::Forked { .. }));
        // SAFETY: ends the forked child at once.
        unsafe { libc::_exit(if refused { 7 } else { 1 }) }
    };
    let version = version.unwrap().unwrap();
    let record = store.get(1).unwrap().unwrap();
    assert_eq!((&record[..], record.version()), (&b"the parent's"[..], version));
    assert!(store.verify().unwrap().is_clean());
}

/// A child that is forked between two records of a pass is refused the next one.
fn inside_scan(me: &mut Me) {
    let store = Options::new().regions(1).create(me.var("STORE")).unwrap();
    (0..3).for_each(|id| _ = store.put(id, b"the parent's").unwrap());
    let (mut is_child, mut given) = (false, 0);
    let scanned = store.scan(|_, _, _| {
        given += 1;
        if given == 2 {
            // SAFETY: one thread is at work in this process, and it is this one.
            match unsafe { nix::unistd::fork() }.unwrap() {
                nix::unistd::ForkResult::Parent { child } => assert_eq!(wait_for(child), End::Exited(7)),
                nix::unistd::ForkResult::Child => is_child = true,
            }
        }
        ControlFlow::Continue(())
    });
    if is_child {
        let refused = matches!(scanned, Err(Error::Forked { .. })) && given == 2;
        // SAFETY: ends the forked child at once.
        unsafe { libc::_exit(if refused { 7 } else { 1 }) }
    }
    scanned.unwrap();
    assert_eq!(given, 3);
}

/// A child that lets go of its copy of a pin, and of a snapshot, takes neither from its parent.
fn pinned(me: &mut Me) {
    let store =
        Options::new().record_size(64).regions(1).slots_per_extent(16).create(me.var("STORE")).unwrap();
    (0..2).for_each(|id| _ = store.put(id, b"the parent's").unwrap());
    let snapshot = store.snapshot().unwrap();
    let pin = store.pin().unwrap();
    let (of_pin, of_snapshot) = (pin.get(0).unwrap(), snapshot.get(1).unwrap());
    let child = in_fork(|| {
        assert!(matches!(store.pin(), Err(Error::Forked { .. })));
        assert!(matches!(pin.get(0), Err(Error::Forked { .. })));
        // SAFETY: the child's copies, which it does not use any more; it ends without dropping them again.
        unsafe {
            drop(std::ptr::read(&raw const pin));
            drop(std::ptr::read(&raw const snapshot));
        }
        0
    });
    assert_eq!(wait_for(child), End::Exited(0));
    assert_eq!(store.stats().unwrap().attached.iter().map(|a| a.pins).sum::<u64>(), 2);
    for n in 0..400u64 {
        store.put(n % 2, &n.to_le_bytes()).unwrap();
    }
    assert_eq!((of_pin, of_snapshot), (Some(&b"the parent's"[..]), Some(&b"the parent's"[..])));
}

/// Opens, forks a child that lives until the test is over, and says so from inside `update`.
fn dies_with_a_child(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    let late = me.var("FORK") == "inside";
    let fork_one = |me: &mut Me| {
        in_fork(|| {
            me.wait_for_the_end();
            0
        })
    };
    if !late {
        fork_one(me);
    }
    store
        .update(1, |_| {
            if late {
                fork_one(me);
            }
            me.say("inside");
            me.wait_for_the_end();
            Some(b"never")
        })
        .unwrap();
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "inherited" => inherited(&mut me),
        "still_good_in_the_parent" => still_good_in_the_parent(&mut me),
        "pinned" => pinned(&mut me),
        "inside_update" => inside_update(&mut me),
        "inside_scan" => inside_scan(&mut me),
        "dies_with_a_child" => dies_with_a_child(&mut me),
        other => panic!("no role {other}"),
    }
}

fn play(role: &str) {
    let dir = common::scratch();
    common::alone(role, &[("STORE", dir.path().join("store").to_str().unwrap())]);
}

#[test]
fn every_call_on_an_inherited_handle_is_refused_and_the_child_can_open_anew() {
    play("inherited");
}

#[test]
fn forks_leave_the_parents_handle_as_it_was() {
    play("still_good_in_the_parent");
}

#[test]
fn a_child_takes_no_pin_from_its_parent() {
    play("pinned");
}

#[test]
fn a_child_forked_inside_update_does_not_write_with_its_parents_lock() {
    play("inside_update");
}

#[test]
fn a_child_forked_inside_scan_gets_no_further() {
    play("inside_scan");
}

fn a_dead_owner_is_succeeded_while_its_child_lives(fork: &str) {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let patient = Options::new().regions(1).lock_timeout(Some(Duration::from_secs(10)));
    let store = patient.create(&path).unwrap();
    store.put(1, b"before").unwrap();
    let with = [("STORE", path.to_str().unwrap()), ("FORK", fork)];
    let mut owner = Worker::spawn("dies_with_a_child", &with);
    owner.expect("inside");
    owner.kill();
    // `Busy` if the child keeps the owner's seat. The child ends when `owner` is dropped.
    store.put(2, b"after").unwrap();
    assert_eq!(&store.get(1).unwrap().unwrap()[..], b"before");
    let stats = store.stats().unwrap();
    assert_eq!(stats.attached.iter().filter(|a| a.alive).count(), 1, "{:?}", stats.attached);
    // The whole file's lock is gone as well: the last handle can close the store.
    store.close().unwrap();
    drop(owner);
    assert!(Store::open(&path).unwrap().verify().unwrap().is_clean());
}

#[test]
fn a_child_does_not_keep_its_dead_parents_lock() {
    a_dead_owner_is_succeeded_while_its_child_lives("before");
}

#[test]
fn a_child_forked_inside_update_does_not_keep_its_dead_parents_lock() {
    a_dead_owner_is_succeeded_while_its_child_lives("inside");
}
