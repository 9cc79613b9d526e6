//! A process that is stopped at any step of its work holds nobody up beyond the time-out, and readers not at all; every
//! error names it.
//!
//! Needs the feature `testing`. A sample of the steps, or with `RECSTORE_LONG=1` all of them. Fails when: a call of another
//! process does not come back; it gives anything but its result or a `Busy` that names the stopped process; a reader is
//! refused; anything is wrong after the stopped one has gone on.

#![cfg(feature = "testing")]

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::common::{self, Me, PATIENCE, Worker};
use nix::sys::signal::{Signal, raise};
use rand::seq::IndexedRandom;
use recstore::testing::set_hook;
use recstore::{Error, Options, Store};

const TIMEOUT: Duration = Duration::from_millis(20);
/// Records that are there all the time.
const KEPT: std::ops::Range<u64> = 0..4;
/// Steps that are tried if not all are.
const SAMPLE: usize = 40;

fn options() -> Options {
    Options::new().record_size(64).regions(2).slots_per_extent(4).lock_timeout(Some(TIMEOUT))
}

/// Everything that takes a lock.
fn work(path: &str) -> Result<(), Error> {
    let store = Store::open(path)?;
    for id in 100..112u64 {
        store.put(id, b"grows")?;
    }
    store.sync()?;
    store.update(100, |_| Some(b"replaced"))?;
    let snapshot = store.snapshot()?;
    store.delete(101)?;
    drop(snapshot);
    let mut batch = store.batch();
    (102..106).try_for_each(|id| batch.put(id, &b"of a batch"[..]))?;
    batch.delete(106);
    let _ = batch.commit()?;
    store.put_with(107, b"durable", recstore::Durability::Disk)?;
    let mut reservation = store.reserve(108, 8)?;
    reservation.fill(1)?;
    reservation.commit()?;
    store.close()
}

/// Does it all, stops itself at a step, and says at last how many there were.
fn stops(me: &mut Me) {
    let at: u64 = me.var("AT").parse().unwrap();
    let steps = Rc::new(Cell::new(0));
    let count = Rc::clone(&steps);
    set_hook(Some(Box::new(move |_| {
        count.set(count.get() + 1);
        if count.get() == at {
            raise(Signal::SIGSTOP).unwrap();
        }
    })));
    work(&me.var("STORE")).unwrap();
    set_hook(None);
    me.say(&steps.get().to_string());
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "stops" => stops(&mut me),
        other => panic!("no role {other}"),
    }
}

fn new_store(path: &Path) {
    let _ = std::fs::remove_file(path);
    let store = options().create(path).unwrap();
    KEPT.for_each(|id| _ = store.put(id, b"kept").unwrap());
    store.close().unwrap();
}

fn at_step(path: &Path, step: u64) -> Worker {
    Worker::spawn("stops", &[("STORE", path.to_str().unwrap()), ("AT", &step.to_string())])
}

/// What another process does beside it; each call, and what came of it.
fn beside(path: &Path) -> Vec<(&'static str, Result<(), Error>)> {
    let read = |store: &Store| {
        KEPT.into_iter().try_for_each(|id| {
            assert_eq!(store.get(id)?.expect("a record").data(), b"kept");
            Ok::<_, Error>(())
        })
    };
    let reader = options().open_read_only(path).unwrap();
    read(&reader).expect("a reader is refused");
    let store = match options().open(path) {
        Ok(store) => store,
        Err(error) => return vec![("open", Err(error))],
    };
    read(&store).expect("a reader that may write is refused");
    let mut done = Vec::new();
    for id in [200, 201, 202, 203] {
        done.push(("put", store.put(id, b"beside").map(drop)));
    }
    done.push(("sync", store.sync()));
    done.push(("snapshot", store.snapshot().map(drop)));
    let mut batch = store.batch();
    (200..204).for_each(|id| batch.put(id, &b"beside"[..]).unwrap());
    done.push(("batch", batch.commit().map(drop)));
    done.push(("durable put", store.put_with(200, b"x", recstore::Durability::Disk).map(drop)));
    done.push(("verify", store.verify().map(drop)));
    done.push(("close", store.close()));
    done
}

#[test]
fn a_process_that_is_stopped_at_any_step_holds_nobody_up_beyond_the_time_out() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    new_store(&path);
    let mut whole = at_step(&path, 0);
    let steps: u64 = whole.hear().parse().unwrap();
    whole.finish();
    let all: Vec<u64> = (1..=steps).collect();
    let tried: Vec<u64> = if common::number_from_env("RECSTORE_LONG").is_some_and(|n| n != 0) {
        all
    } else {
        all.choose_multiple(&mut common::seeded(), SAMPLE).copied().collect()
    };
    let (mut stopped, mut held_up) = (0, 0);
    for &step in &tried {
        new_store(&path);
        let mut worker = at_step(&path, step);
        // Not every run has as many steps: a word may be waited for, or found as it should be.
        if !worker.stops() {
            worker.finish();
            continue;
        }
        stopped += 1;
        let (to, results) = channel();
        let theirs = path.clone();
        std::thread::spawn(move || to.send(beside(&theirs)));
        let results = results
            .recv_timeout(PATIENCE / 2)
            .unwrap_or_else(|e| panic!("step {step}: who comes beside it does not come back ({e})"));
        for (call, result) in results {
            match result {
                Ok(()) => {}
                Err(Error::Busy { owner: Some(holder), .. }) if holder.pid == worker.pid() => held_up += 1,
                Err(other) => panic!("step {step}: {call}: {other}"),
            }
        }
        worker.signal(Signal::SIGCONT);
        worker.hear();
        worker.finish();
        let report = options().open(&path).unwrap().verify().unwrap();
        assert!(report.is_clean(), "step {step}: {report:?}");
    }
    println!("{stopped} of {steps} steps, {held_up} calls held up");
    assert!(stopped * 10 >= tried.len() * 9, "{stopped} of {} steps were reached", tried.len());
    assert!(held_up > 0, "nobody was ever held up: nothing was tried");
}
