//! A process that dies at any step of a call of a queue.
//!
//! Fails when: a job is lost, is there twice, or is held up by the dead one; a result is there without the end
//! of its job, or is not there with it; a dead letter is in two places or in none; the order is another one.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use recstore::{Commit, Durability, Options, Queue, Store};

use crate::common::{self, Me};

fn small() -> Options {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| recstore::testing::shorten_key_hash(8));
    Options::new().record_size(1024).regions(3).slots_per_extent(16)
}

fn jobs(store: &Store) -> Queue<'_> {
    store.queue("jobs").unwrap()
}

fn now() -> Option<Duration> {
    Some(Duration::ZERO)
}

/// Claims and finishes every job. The bytes of each, and how often it was claimed.
fn drain(queue: &Queue<'_>) -> Vec<(Vec<u8>, u32)> {
    let mut done = Vec::new();
    while let Some(job) = queue.claim(now()).unwrap() {
        done.push((job.data().to_vec(), job.claims()));
        assert!(job.finish().unwrap());
    }
    assert_eq!(queue.len().unwrap(), 0);
    done
}

fn bytes(jobs: &[&str]) -> Vec<Vec<u8>> {
    jobs.iter().map(|job| job.as_bytes().to_vec()).collect()
}

/// Puts the result of the oldest job, and ends the job.
fn work(store: &Store) {
    let queue = jobs(store);
    let job = queue.claim(now()).unwrap().unwrap();
    let mut batch = store.batch();
    batch.put_in(&store.space("results").unwrap(), job.data(), b"done").unwrap();
    job.finish_in(&mut batch).unwrap();
    assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
}

/// A call, and whether the store is as it may be after a death in it.
struct Case {
    name: &'static str,
    prepare: fn(&Store),
    call: fn(&Store),
    /// The jobs that are left, by whether the call took effect.
    left: [&'static [&'static str]; 2],
}

const CASES: [Case; 8] = [
    Case {
        name: "push",
        prepare: |_| {},
        call: |store| _ = jobs(store).push("d").unwrap(),
        left: [&["a", "b", "c"], &["a", "b", "c", "d"]],
    },
    Case {
        name: "durable push",
        prepare: |_| {},
        call: |store| _ = jobs(store).push_with("d", Durability::Disk).unwrap(),
        left: [&["a", "b", "c"], &["a", "b", "c", "d"]],
    },
    Case {
        name: "claim",
        prepare: |_| {},
        call: |store| std::mem::forget(jobs(store).claim(now()).unwrap().unwrap()),
        left: [&["a", "b", "c"], &["a", "b", "c"]],
    },
    Case {
        name: "claim behind finished jobs",
        prepare: |store| {
            (0..20).for_each(|_| _ = jobs(store).push("x").unwrap());
            (0..20).for_each(|_| assert!(jobs(store).claim(now()).unwrap().unwrap().finish().unwrap()));
        },
        call: |store| std::mem::forget(jobs(store).claim(now()).unwrap().unwrap()),
        left: [&["x", "x", "x"], &["x", "x", "x"]],
    },
    Case {
        name: "release",
        prepare: |_| {},
        call: |store| assert!(jobs(store).claim(now()).unwrap().unwrap().release().unwrap()),
        left: [&["a", "b", "c"], &["a", "b", "c"]],
    },
    Case {
        name: "finish",
        prepare: |_| {},
        call: |store| assert!(jobs(store).claim(now()).unwrap().unwrap().finish().unwrap()),
        left: [&["a", "b", "c"], &["b", "c"]],
    },
    Case { name: "finish in a batch", prepare: |_| {}, call: work, left: [&["a", "b", "c"], &["b", "c"]] },
    Case {
        name: "heartbeat",
        prepare: |_| {},
        call: |store| {
            let job = jobs(store).lease(Duration::from_secs(3600)).claim(now()).unwrap().unwrap();
            assert!(job.heartbeat().unwrap());
            std::mem::forget(job);
        },
        left: [&["a", "b", "c"], &["a", "b", "c"]],
    },
];

/// A store with three jobs.
fn prepared(path: &Path, prepare: fn(&Store)) -> Store {
    let store = small().create(path).unwrap();
    for job in ["a", "b", "c"] {
        jobs(&store).push(job).unwrap();
    }
    prepare(&store);
    store
}

fn at_every_step(name: &str, prepare: fn(&Store), call: fn(&Store), check: impl Fn(&Store, bool)) {
    crate::steps::at_every_step(
        name,
        |path| prepared(path, prepare),
        |path| small().open(path).unwrap(),
        call,
        check,
    );
}

fn die_in_calls() {
    for Case { name, prepare, call, left } in CASES {
        at_every_step(name, prepare, call, |store, is_done| {
            let queue = jobs(store);
            let result = store.space("results").unwrap().contains("a").unwrap();
            let done = drain(&queue);
            let is: Vec<Vec<u8>> = done.iter().map(|(job, _)| job.clone()).collect();
            let [before, after] = left.map(bytes);
            assert!(is == after || !is_done && is == before, "{name}: {is:?}");
            assert!(done.iter().all(|(_, claims)| *claims <= 2), "{name}: {done:?}");
            assert_eq!(result, name == "finish in a batch" && is == after, "{name}");
            // The next one comes behind.
            let number = queue.push("next").unwrap();
            assert!(number >= is.len() as u64, "{name}");
            assert_eq!(drain(&queue), [(b"next".to_vec(), 1)], "{name}");
        });
    }
}

/// The oldest job was claimed as often as it may be, and its claims ended.
fn with_one_too_often(store: &Store) {
    drop(jobs(store).claims_max(1).claim(now()).unwrap().unwrap());
}

fn die_with_dead_letters() {
    let bury = |store: &Store| drop(jobs(store).claims_max(1).claim(now()).unwrap().unwrap());
    at_every_step("bury", with_one_too_often, bury, |store, is_done| {
        let queue = jobs(store);
        let dead: Vec<Vec<u8>> = queue.dead_letters().unwrap().into_iter().map(|(_, job)| job).collect();
        let left: Vec<Vec<u8>> = drain(&queue).into_iter().map(|(job, _)| job).collect();
        if dead.is_empty() {
            assert!(!is_done && left == bytes(&["a", "b", "c"]), "{left:?}");
        } else {
            assert_eq!((dead, left), (bytes(&["a"]), bytes(&["b", "c"])));
        }
    });
    fn with_a_dead_letter(store: &Store) {
        with_one_too_often(store);
        jobs(store).claims_max(1).claim(now()).unwrap().unwrap().finish().unwrap();
        assert_eq!(jobs(store).dead_letters().unwrap().len(), 1);
    }
    let revive = |store: &Store| assert!(jobs(store).revive(0).unwrap().is_some());
    at_every_step("revive", with_a_dead_letter, revive, |store, is_done| {
        let queue = jobs(store);
        let dead = queue.dead_letters().unwrap().len();
        let left: Vec<Vec<u8>> = drain(&queue).into_iter().map(|(job, _)| job).collect();
        match dead {
            0 => assert_eq!(left, bytes(&["c", "a"])),
            _ => assert!(dead == 1 && !is_done && left == bytes(&["c"]), "{dead}, {left:?}"),
        }
    });
}

#[test]
fn child_entry() {
    match Me::from_env().as_ref().map(|me| &me.role[..]) {
        None => {}
        Some("calls") => die_in_calls(),
        Some("dead letters") => die_with_dead_letters(),
        Some(role) => panic!("no such role: {role}"),
    }
}

#[test]
fn a_death_at_any_step_loses_no_job_and_doubles_none() {
    common::alone("calls", &[]);
}

#[test]
fn a_death_at_any_step_leaves_a_dead_letter_in_one_place() {
    common::alone("dead letters", &[]);
}
