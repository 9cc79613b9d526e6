//! A process that is stopped while it lets the file grow, or while it flushes, holds up others no
//! longer than they are willing to wait; and nothing is taken from it.
//!
//! Needs the feature `testing`. Fails when: a call that needs what the stopped process holds does not
//! come back with `Busy`; a call that doesn't need it is held up; anything is wrong after it goes on, or
//! after it is killed instead.

#![cfg(feature = "testing")]

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::common::value::{parse, value};
use crate::common::{self, Me, PATIENCE, Worker};
use nix::sys::signal::{Signal, raise};
use recstore::testing::set_hook;
use recstore::{Error, Lock, Options, Store};

const TIMEOUT: Duration = Duration::from_millis(200);

/// Stops itself at step `AT`, once, while it puts or syncs.
fn stops(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    let at = me.var("AT");
    let mut left = 1;
    set_hook(Some(Box::new(move |step| {
        if step == at && left == 1 {
            left = 0;
            raise(Signal::SIGSTOP).unwrap();
        }
    })));
    if me.var("DO") == "sync" {
        store.sync().unwrap();
    } else {
        let id = me.var("ID").parse().unwrap();
        store.put(id, &value(id, 1, 1, 60)).unwrap();
    }
    me.say("done");
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "stops" => stops(&mut me),
        other => panic!("no role {other}"),
    }
}

struct Scene {
    dir: tempfile::TempDir,
    store: Store,
    /// An id in each of the two regions, not there yet.
    ids: [u64; 2],
    model: BTreeMap<u64, u64>,
}

/// Two regions whose every slot is taken.
fn scene() -> Scene {
    let dir = common::scratch();
    let options = Options::new().record_size(64).regions(2).slots_per_extent(1).lock_timeout(Some(TIMEOUT));
    let store = options.create(dir.path().join("store")).unwrap();
    let mut model = BTreeMap::new();
    for id in 0..20 {
        store.put(id, &value(id, 0, id, 60)).unwrap();
        model.insert(id, id);
    }
    let ids = [0, 1].map(|region| (100..).find(|&id| store.region_of(id) == region).unwrap());
    Scene { dir, store, ids, model }
}

fn stopped(scene: &Scene, what: &str, at: &str) -> Worker {
    stopped_at_id(scene, what, at, scene.ids[0])
}

fn stopped_at_id(scene: &Scene, what: &str, at: &str, id: u64) -> Worker {
    let path = scene.dir.path().join("store");
    let id = id.to_string();
    let worker =
        Worker::spawn("stops", &[("STORE", path.to_str().unwrap()), ("DO", what), ("AT", at), ("ID", &id)]);
    worker.wait_until_stopped();
    worker
}

/// The call's result; fails if it doesn't come back.
fn comes_back<T: Send>(store: &Store, call: impl FnOnce(&Store) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let (to, result) = channel();
        scope.spawn(move || to.send(call(store)));
        match result.recv_timeout(PATIENCE / 2) {
            Ok(result) => result,
            Err(_) => {
                eprintln!(
                    "held up for {:?} by a stopped process, with a time-out of {TIMEOUT:?}",
                    PATIENCE / 2
                );
                std::process::exit(101) // The thread that hangs can't be joined.
            }
        }
    })
}

/// The error names the lock, and the process that has it.
fn assert_held_by<T: std::fmt::Debug>(result: &Result<T, Error>, lock: Lock, by: &Worker) {
    let holder = match result {
        Err(Error::Busy { lock: held, owner: Some(holder), .. }) if *held == lock => *holder,
        other => panic!("{other:?}"),
    };
    assert_eq!((holder.pid, holder.exists), (by.pid(), Some(true)));
}

fn assert_all(scene: &Scene) {
    for (&id, &counter) in &scene.model {
        let record = scene.store.get(id).unwrap().unwrap_or_else(|| panic!("id {id} is lost"));
        assert_eq!(parse(id, &record).map(|r| r.1), Ok(counter));
    }
    assert_eq!(scene.store.len().unwrap(), scene.model.len() as u64);
    let report = scene.store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// While a process is stopped in the middle of growth: what needs no growth goes on in the other region,
/// what needs it comes back.
fn stopped_in_growth(at: &str, kill: bool) {
    let mut scene = scene();
    let mut worker = stopped(&scene, "put", at);
    let [here, there] = scene.ids;
    let same_region = comes_back(&scene.store, |s| s.put(here, b"stolen"));
    assert!(matches!(same_region, Err(Error::Busy { lock: Lock::Region(0), .. })), "{same_region:?}");
    let growth = comes_back(&scene.store, |s| s.put(there, b"grown"));
    assert_held_by(&growth, Lock::Growth, &worker);
    let victim = *scene.model.keys().find(|&&id| scene.store.region_of(id) == 1).unwrap();
    assert!(comes_back(&scene.store, |s| s.delete(victim)).unwrap());
    scene.model.remove(&victim);
    comes_back(&scene.store, |s| s.put(there, &value(there, 0, 5, 60))).unwrap();
    scene.model.insert(there, 5);
    if kill {
        worker.kill();
    } else {
        worker.signal(Signal::SIGCONT);
        worker.expect("done");
        worker.finish();
        scene.model.insert(here, 1);
    }
    for id in 200..220 {
        comes_back(&scene.store, |s| s.put(id, &value(id, 0, 9, 60))).unwrap();
        scene.model.insert(id, 9);
    }
    assert_all(&scene);
}

#[test]
fn a_process_that_is_stopped_while_it_grows_the_store_holds_up_nobody_beyond_the_time_out() {
    stopped_in_growth("grow: blocks allocated", false);
}

#[test]
fn a_process_that_is_killed_after_it_was_stopped_while_it_grew_the_store_is_succeeded() {
    stopped_in_growth("grow: extent header written", true);
}

fn stopped_in_sync(kill: bool) {
    let mut scene = scene();
    let mut worker = stopped(&scene, "sync", "sync: writers of the old epoch are done");
    let sync = comes_back(&scene.store, Store::sync);
    assert_held_by(&sync, Lock::Sync, &worker);
    for id in 0..40 {
        comes_back(&scene.store, |s| s.put(id, &value(id, 0, id + 7, 60))).unwrap();
        scene.model.insert(id, id + 7);
    }
    assert_all(&scene);
    if kill {
        worker.kill();
    } else {
        worker.signal(Signal::SIGCONT);
        worker.expect("done");
        worker.finish();
    }
    comes_back(&scene.store, Store::sync).unwrap();
    assert_all(&scene);
}

#[test]
fn a_process_that_is_stopped_while_it_flushes_holds_up_no_writer_and_no_flush_beyond_the_time_out() {
    stopped_in_sync(false);
}

#[test]
fn a_process_that_is_killed_after_it_was_stopped_while_it_flushed_is_succeeded() {
    stopped_in_sync(true);
}

/// The version before it is still in its slot, whole.
#[test]
fn a_version_that_a_stopped_writer_has_just_made_visible_is_the_one_that_iter_gives() {
    let mut scene = scene();
    let mut worker = stopped_at_id(&scene, "put", "put: version visible", 3);
    let record = scene.store.get(3).unwrap().unwrap();
    assert_eq!(parse(3, &record), Ok((1, 1)), "the step is not where it was");
    let given: Vec<_> = scene.store.iter().map(Result::unwrap).filter(|r| r.id() == 3).collect();
    assert_eq!(given, [record]);
    worker.signal(Signal::SIGCONT);
    worker.expect("done");
    worker.finish();
    scene.model.insert(3, 1);
    assert_all(&scene);
}
