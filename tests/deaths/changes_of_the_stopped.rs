//! The changes of writers that were stopped or killed before they could tell: told all the same, however busy others are.
//!
//! Needs the feature `testing`. Fails when: a change that a reader can see is not told while its writer is stopped, or after it
//! was killed, while another region is written to all the time; a stopped writer holds up what others change; what is told
//! in the end is not what is there.

#![cfg(feature = "testing")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{self, Me, PATIENCE, Worker};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use recstore::testing::set_hook;
use recstore::{Change, Changes, Options, Store, Version};

type Mirror = BTreeMap<u64, Version>;

/// Does what it is told to one record, and stops itself, or is killed, at the n-th step of it.
fn stops(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    let id = me.var("ID").parse().unwrap();
    let (what, how, mut left): (_, _, u64) = (me.var("DO"), me.var("HOW"), me.var("AT").parse().unwrap());
    set_hook(Some(Box::new(move |_| {
        left = left.wrapping_sub(1);
        if left == 0 {
            raise(if how == "stop" { Signal::SIGSTOP } else { Signal::SIGKILL }).unwrap();
        }
    })));
    match &*what {
        "put" => _ = store.put(id, b"by the one that is stopped").unwrap(),
        "delete" => _ = store.delete(id).unwrap(),
        other => panic!("no operation {other}"),
    }
    set_hook(None);
    me.say("done");
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    stops(&mut me);
}

/// A store of two regions.
struct Scene {
    store: Store,
    /// Ids of the first region: one that is not there, one that is, and one that was there at the last flush.
    ids: [u64; 3],
    /// An id of the other region.
    other: u64,
    _dir: tempfile::TempDir,
}

fn scene() -> Scene {
    let dir = common::scratch();
    let store = Options::new().record_size(64).regions(2).create(dir.path().join("s")).unwrap();
    let mut of_first = (0..).filter(|&id| store.region_of(id) == 0);
    let ids = std::array::from_fn(|_| of_first.next().unwrap());
    let other = (0..).find(|&id| store.region_of(id) == 1).unwrap();
    store.put(ids[2], b"flushed").unwrap();
    store.sync().unwrap();
    store.put(ids[1], b"there").unwrap();
    Scene { store, ids, other, _dir: dir }
}

fn worker(store: &Store, what: &str, id: u64, how: &str, at: u64) -> Worker {
    let (path, id, at) = (store.path().to_str().unwrap(), id.to_string(), at.to_string());
    Worker::spawn("stops", &[("STORE", path), ("DO", what), ("ID", &id), ("HOW", how), ("AT", &at)])
}

/// Whether a worker came to the step at which it stops.
fn has_stopped(worker: &Worker) -> bool {
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(Pid::from_raw(worker.pid() as i32)), flags).unwrap() {
        WaitStatus::Stopped(..) => true,
        WaitStatus::Exited(_, 0) => false,
        other => panic!("{other:?}"),
    }
}

/// Takes in changes until `done` says so of the mirror.
fn follow(changes: &mut Changes<'_>, mirror: &mut Mirror, what: &str, done: impl Fn(&Mirror) -> bool) {
    let began = Instant::now();
    while !done(mirror) {
        assert!(began.elapsed() < PATIENCE, "not told for a minute: {what}");
        match changes.next_timeout(Duration::from_secs(1)).unwrap() {
            Some(Change::Written { id, version }) => {
                let before = mirror.insert(id, version);
                assert!(before < Some(version), "{what}: id {id} went from {before:?} to {version:?}");
            }
            Some(Change::Deleted { id }) => assert!(mirror.remove(&id).is_some(), "{what}: id {id}"),
            _ => {}
        }
    }
}

fn versions(store: &Store) -> Mirror {
    store.iter().map(Result::unwrap).map(|record| (record.id(), record.version())).collect()
}

/// Stops a writer at each of its steps in turn.
fn stopped_at_each_step(what: &str, id: usize) {
    let mut told_early = 0;
    for at in 1.. {
        let Scene { store, ids, other, .. } = &scene();
        let id = ids[id];
        let before = store.version(id).unwrap();
        let mut changes = store.changes().unwrap();
        let mut mirror = Mirror::new();
        let all = versions(store);
        follow(&mut changes, &mut mirror, "what was there", |mirror| *mirror == all);
        let mut worker = worker(store, what, id, "stop", at);
        if !has_stopped(&worker) {
            assert!(at > 5 && told_early > 0, "{what}: {at} steps, and at {told_early} it was visible");
            return;
        }
        let version = store.put(*other, b"in the other region").unwrap();
        let name = format!("{what} of {id}, stopped at step {at}: a change in the other region");
        follow(&mut changes, &mut mirror, &name, |mirror| mirror.get(other) == Some(&version));
        // What a reader sees without a lock, and so without waiting, is told.
        let reader = Store::open_read_only(store.path()).unwrap();
        if let Ok(now) = reader.version(id)
            && now != before
        {
            told_early += 1;
            let name = format!("{what} of {id}, stopped at step {at}: what is visible already");
            follow(&mut changes, &mut mirror, &name, |mirror| mirror.get(&id) == now.as_ref());
        }
        worker.signal(Signal::SIGCONT);
        worker.expect("done");
        let all = versions(store);
        follow(&mut changes, &mut mirror, "all in the end", |mirror| *mirror == all);
    }
}

#[test]
fn what_a_stopped_writer_has_put_is_told_as_soon_as_it_is_visible() {
    stopped_at_each_step("put", 0);
    stopped_at_each_step("put", 2);
}

#[test]
fn what_a_stopped_writer_has_deleted_is_told_as_soon_as_it_is_visible() {
    stopped_at_each_step("delete", 1);
    stopped_at_each_step("delete", 2);
}

/// A writer is killed when its change is visible, and nobody heals it but the feed, while the other region is written to all
/// the time.
fn killed_when_it_is_visible(what: &str, id: usize) {
    // At which step that is.
    let at = (1..).find(|&at| {
        let Scene { store, ids, .. } = &scene();
        let before = store.version(ids[id]).unwrap();
        let stopped = worker(store, what, ids[id], "stop", at);
        assert!(has_stopped(&stopped), "{what}: visible at no step");
        Store::open_read_only(store.path()).unwrap().version(ids[id]).is_ok_and(|now| now != before)
    });
    let Scene { store, ids, other, .. } = &scene();
    let id = ids[id];
    let mut changes = store.changes().unwrap();
    let mut mirror = Mirror::new();
    let all = versions(store);
    follow(&mut changes, &mut mirror, "what was there", |mirror| *mirror == all);
    worker(store, what, id, "kill", at.unwrap()).wait();
    let now = Store::open_read_only(store.path()).unwrap().version(id).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            while !done.load(Ordering::Acquire) && began.elapsed() < 2 * PATIENCE {
                store.put(*other, b"busy").unwrap();
            }
        });
        let is_told = |mirror: &Mirror| mirror.get(&id) == now.as_ref();
        follow(&mut changes, &mut mirror, "what the dead one made visible", is_told);
        done.store(true, Ordering::Release);
    });
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn what_a_dead_writer_made_visible_is_told_while_others_write_all_the_time() {
    killed_when_it_is_visible("put", 1);
    killed_when_it_is_visible("put", 2);
    killed_when_it_is_visible("delete", 1);
    killed_when_it_is_visible("delete", 2);
}

#[test]
fn who_waits_for_any_change_is_told_of_one_whose_writer_is_stopped() {
    // The record is visible, or gone, and not counted.
    for (what, at) in [("put", 8), ("delete", 4)] {
        let Scene { store, ids, .. } = &scene();
        let mut watch = store.watch_all().unwrap();
        let mut worker = worker(store, what, ids[1], "stop", at);
        assert!(has_stopped(&worker));
        assert!(watch.wait(Some(PATIENCE)).unwrap());
        worker.signal(Signal::SIGCONT);
        worker.expect("done");
        assert!(watch.wait(Some(PATIENCE)).unwrap(), "once more, when it is done");
        assert!(!watch.wait(Some(Duration::ZERO)).unwrap());
    }
}
