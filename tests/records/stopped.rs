//! A stopped owner is alive: nothing is stolen from it. Others get `Busy`, which names region and
//! process, or wait; and go on when it does, or when it dies.
//!
//! Fails when: a call gets into the region of a stopped owner; `Busy` names another region or
//! process, or comes before its time; another region is held up; a waiter is left behind.

use std::time::Duration;

use crate::common::{self, Me, Worker};
use nix::sys::signal::Signal;
use recstore::{Error, Lock, Options, Store};

const TIMEOUT: Duration = Duration::from_millis(200);

/// Holds the lock of `ID`'s region inside `update`.
fn owner(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    let id = me.var("ID").parse().unwrap();
    me.say("ready");
    me.line();
    let version = store.update(id, |_| {
        me.say("inside");
        me.line();
        Some(b"the owner's")
    });
    me.say(&version.unwrap().unwrap().to_string());
}

/// Waits for the lock of `ID`'s region.
fn waiter(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    let id = me.var("ID").parse().unwrap();
    me.say("waiting");
    me.say(&store.put(id, b"the waiter's").unwrap().to_string());
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "owner" => owner(&mut me),
        "waiter" => waiter(&mut me),
        other => panic!("no role {other}"),
    }
}

/// A store of four regions, an id in a region that a stopped process holds, an id in another one.
struct Scene {
    dir: tempfile::TempDir,
    path: String,
    store: Store,
    held: u64,
    other: u64,
    owner: Worker,
}

fn options() -> Options {
    Store::options().regions(4).lock_timeout(Some(TIMEOUT))
}

fn scene() -> Scene {
    let dir = common::scratch();
    let path = dir.path().join("store").to_str().unwrap().to_string();
    let store = options().create(&path).unwrap();
    let held = 1;
    let other = (2..).find(|&id| store.region_of(id) != store.region_of(held)).unwrap();
    store.put(held, b"before").unwrap();
    store.put(other, b"before").unwrap();
    let mut owner = Worker::spawn("owner", &[("STORE", &path), ("ID", &held.to_string())]);
    owner.expect("ready");
    owner.say("go");
    owner.expect("inside");
    owner.stop();
    Scene { dir, path, store, held, other, owner }
}

#[test]
fn a_stopped_owner_is_not_robbed_and_others_get_busy() {
    let Scene { dir: _dir, path, store, held, other, mut owner } = scene();
    let region = store.region_of(held);
    let mut refused = Vec::new();
    refused.push(("put", store.put(held, b"stolen").map(drop)));
    refused.push(("update", store.update(held, |_| Some(b"stolen")).map(drop)));
    refused.push(("delete", store.delete(held).map(drop)));
    let version = store.version(held).unwrap();
    refused.push(("compare_and_swap", store.compare_and_swap(held, version, b"stolen").map(drop)));
    refused.push(("write_many", store.write_many([(held, &b"stolen"[..])]).map(drop)));
    refused.push(("sync", store.sync()));
    refused.push(("verify", store.verify().map(drop)));
    refused.push(("repair", store.repair().map(drop)));
    for (call, result) in refused {
        match result {
            Err(Error::Busy { lock, owner: Some(holder), waited, path: p, .. }) => {
                assert_eq!(lock, Lock::Region(region), "{call}");
                assert_eq!((holder.pid, holder.exists), (owner.pid(), Some(true)), "{call}");
                assert!(waited >= TIMEOUT, "{call} gave up after {waited:?}");
                assert_eq!(p.to_str(), Some(&path[..]), "{call}");
            }
            other => panic!("{call}: {other:?}"),
        }
    }
    // Readers and other regions do not even notice.
    assert_eq!(&store.get(held).unwrap().unwrap()[..], b"before");
    store.put(other, b"after").unwrap();
    assert_eq!(&store.get(other).unwrap().unwrap()[..], b"after");
    let lock = store.stats().unwrap().regions[region as usize].lock.clone().expect("a lock that is held");
    assert_eq!((lock.pid, lock.alive), (owner.pid(), true));

    owner.signal(Signal::SIGCONT);
    owner.say("go");
    let version: u64 = owner.hear().parse().unwrap();
    owner.finish();
    let record = store.get(held).unwrap().unwrap();
    assert_eq!((&record[..], record.version().get()), (&b"the owner's"[..], version));
    assert!(store.put(held, b"later").unwrap().get() > version);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn who_waits_for_a_stopped_owner_comes_after_it() {
    let Scene { dir: _dir, path, store, held, mut owner, .. } = scene();
    let mut waiters: Vec<_> =
        (0..3).map(|_| Worker::spawn("waiter", &[("STORE", &path), ("ID", &held.to_string())])).collect();
    waiters.iter_mut().for_each(|w| w.expect("waiting"));
    // Long enough that all of them have begun to wait, and have judged the owner more than once.
    assert!(matches!(store.put(held, b"stolen"), Err(Error::Busy { .. })));
    assert_eq!(&store.get(held).unwrap().unwrap()[..], b"before");
    owner.signal(Signal::SIGCONT);
    owner.say("go");
    let mut versions: Vec<u64> = vec![owner.hear().parse().unwrap()];
    for w in &mut waiters {
        versions.push(w.hear().parse().unwrap());
        w.finish();
    }
    assert_eq!(versions.iter().min(), Some(&versions[0]), "a waiter came before the owner: {versions:?}");
    let newest = *versions.iter().max().unwrap();
    let record = store.get(held).unwrap().unwrap();
    assert_eq!((&record[..], record.version().get()), (&b"the waiter's"[..], newest));
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_stopped_owner_that_is_killed_is_succeeded() {
    let Scene { dir: _dir, path, store, held, mut owner, .. } = scene();
    let mut waiter = Worker::spawn("waiter", &[("STORE", &path), ("ID", &held.to_string())]);
    waiter.expect("waiting");
    assert!(matches!(store.put(held, b"stolen"), Err(Error::Busy { .. })));
    owner.kill();
    let version: u64 = waiter.hear().parse().unwrap();
    waiter.finish();
    let record = store.get(held).unwrap().unwrap();
    assert_eq!((&record[..], record.version().get()), (&b"the waiter's"[..], version));
    assert!(store.verify().unwrap().is_clean());
}
