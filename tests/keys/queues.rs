//! Queues: jobs that processes push, claim and finish, in spaces whose keys share ids.
//!
//! Fails when: a job is given to two who live, or is lost, or is done twice where its end is a part of a batch, whoever is killed;
//! a dead holder's job is not given on at once, or a stopped one's not after its lease; an older job is passed over for a
//! younger one; a job that was claimed too often is given out, or is not among the dead letters; what a loss of power can
//! leave of the numbers hides a job.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::common::{Me, PATIENCE, Worker};
use nix::sys::signal::Signal;
use rand::Rng;
use recstore::{Commit, Error, Options, Queue, Store};

const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

fn small() -> Options {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| recstore::testing::shorten_key_hash(8));
    Options::new().record_size(1024).regions(3).slots_per_extent(16)
}

fn new_store() -> (tempfile::TempDir, Store) {
    let dir = crate::common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    (dir, store)
}

fn claimed(queue: &Queue<'_>) -> Option<(u64, Vec<u8>)> {
    queue.claim(AT_ONCE).unwrap().map(|job| {
        let found = (job.number(), job.data().to_vec());
        assert!(job.finish().unwrap());
        found
    })
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    let store = small().open(Path::new(&me.var("STORE"))).unwrap();
    let queue = store.queue("q").unwrap();
    match me.role.as_str() {
        "holds" => {
            let queue = queue.lease(Duration::from_millis(me.var("LEASE").parse().unwrap()));
            let job = queue.claim(Some(PATIENCE)).unwrap().expect("a job");
            me.say(&job.number().to_string());
            assert_eq!(me.line(), "finish");
            me.say(&job.finish().unwrap().to_string());
        }
        "works" => {
            let results = store.space("results").unwrap();
            me.say("begun");
            while let Some(job) = queue.claim(Some(PATIENCE)).unwrap() {
                if job.data() == b"end" {
                    job.release().unwrap();
                    return;
                }
                let mut batch = store.batch();
                let key = job.number().to_string();
                batch.require_in(&results, &key, None).unwrap();
                batch.put_in(&results, &key, job.data().to_vec()).unwrap();
                job.finish_in(&mut batch).unwrap();
                assert!(matches!(batch.commit().unwrap(), Commit::Done(_)), "job {key} is done twice");
            }
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn jobs_come_in_the_order_of_their_numbers_each_once() {
    let (_dir, store) = new_store();
    let queue = store.queue("q").unwrap();
    assert!(queue.claim(AT_ONCE).unwrap().is_none());
    let numbers: Vec<u64> = (0..100u8).map(|n| queue.push([n]).unwrap()).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    assert_eq!(store.queue("another").unwrap().len().unwrap(), 0);
    let first = queue.claim(AT_ONCE).unwrap().unwrap();
    let second = queue.claim(AT_ONCE).unwrap().unwrap();
    assert_eq!((first.number(), first.claims(), second.number()), (0, 1, 1));
    assert_eq!(queue.len().unwrap(), 100);
    assert!(first.release().unwrap());
    let again = queue.claim(AT_ONCE).unwrap().unwrap();
    assert_eq!((again.number(), again.claims()), (0, 2));
    drop(again); // Gives it back as well.
    for n in (0..100).filter(|n| *n != 1) {
        assert_eq!(claimed(&queue), Some((n, vec![n as u8])));
    }
    assert!(queue.claim(AT_ONCE).unwrap().is_none(), "the second is still claimed");
    assert!(second.heartbeat().unwrap());
    assert!(second.finish().unwrap());
    assert!(queue.is_empty().unwrap());
    assert_eq!(queue.push(b"later").unwrap(), 100);
    assert_eq!(claimed(&queue).unwrap().0, 100);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn what_is_claimed_too_often_is_a_dead_letter_until_it_is_revived() {
    let (_dir, store) = new_store();
    let queue = store.queue("q").unwrap().claims_max(3);
    let poison = queue.push(b"poison").unwrap();
    queue.push(b"good").unwrap();
    for claims in 1..=3 {
        let job = queue.claim(AT_ONCE).unwrap().unwrap();
        assert_eq!((job.number(), job.claims()), (poison, claims));
    }
    assert_eq!(claimed(&queue).unwrap().1, b"good");
    assert_eq!(queue.dead_letters().unwrap(), [(poison, b"poison".to_vec())]);
    assert!(queue.is_empty().unwrap());
    assert_eq!(queue.revive(7).unwrap(), None);
    assert_eq!(queue.revive(poison).unwrap(), Some(2));
    assert_eq!(claimed(&queue), Some((2, b"poison".to_vec())));
    assert!(queue.dead_letters().unwrap().is_empty());
}

#[test]
fn pushes_and_ends_in_a_batch_are_there_with_the_rest_of_it_or_not_at_all() {
    let (_dir, store) = new_store();
    let (queue, next) = (store.queue("q").unwrap(), store.queue("next").unwrap());
    let mut batch = store.batch();
    assert_eq!(queue.push_in(&mut batch, b"one").unwrap(), 0);
    assert_eq!(queue.push_in(&mut batch, b"two").unwrap(), 1);
    assert!(queue.is_empty().unwrap());
    assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
    let mut late = store.batch();
    queue.push_in(&mut late, b"late").unwrap();
    queue.push(b"three").unwrap();
    assert!(matches!(late.commit().unwrap(), Commit::Conflict { .. }));
    // A step that takes from one queue and gives to the next.
    for data in [b"one", b"two"] {
        let job = queue.claim(AT_ONCE).unwrap().unwrap();
        assert_eq!(job.data(), data);
        assert!(job.heartbeat().unwrap());
        let mut batch = store.batch();
        next.push_in(&mut batch, job.data()).unwrap();
        job.finish_in(&mut batch).unwrap();
        assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
    }
    assert_eq!((queue.len().unwrap(), next.len().unwrap()), (1, 2));
    let lost = queue.clone().lease(Duration::from_millis(1)).claim(AT_ONCE).unwrap();
    let lost = lost.unwrap();
    let taken = queue.claim(Some(PATIENCE)).unwrap().expect("its lease is over");
    let mut batch = store.batch();
    lost.finish_in(&mut batch).unwrap();
    batch.put(1000, b"the result").unwrap();
    assert!(matches!(batch.commit().unwrap(), Commit::Conflict { .. }));
    assert!(!store.contains(1000).unwrap() && !lost.finish().unwrap());
    assert!(taken.finish().unwrap());
}

#[test]
fn threads_that_push_and_claim_at_once_do_each_job_once_and_those_of_one_in_its_order() {
    let (_dir, store) = new_store();
    const EACH: u64 = 150;
    let done: Vec<Vec<(u64, u64)>> = std::thread::scope(|scope| {
        for pusher in 0..2u64 {
            let queue = store.queue("q").unwrap();
            scope.spawn(move || {
                for n in 0..EACH {
                    queue.push([pusher.to_le_bytes(), n.to_le_bytes()].concat()).unwrap();
                }
            });
        }
        let workers = (0..2).map(|_| {
            let queue = store.queue("q").unwrap();
            scope.spawn(move || {
                let mut done = Vec::new();
                while let Some(job) = queue.claim(Some(Duration::from_millis(500))).unwrap() {
                    let word = |at: usize| u64::from_le_bytes(job.data()[at..at + 8].try_into().unwrap());
                    done.push((word(0), word(8)));
                    assert!(job.finish().unwrap());
                }
                done
            })
        });
        workers.collect::<Vec<_>>().into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let all: BTreeSet<(u64, u64)> = done.iter().flatten().copied().collect();
    assert_eq!(all.len(), done.iter().map(Vec::len).sum::<usize>(), "a job was done twice");
    assert_eq!(all, (0..2).flat_map(|pusher| (0..EACH).map(move |n| (pusher, n))).collect());
    for done in &done {
        for pusher in 0..2 {
            assert!(done.iter().filter(|job| job.0 == pusher).is_sorted(), "a younger job came first");
        }
    }
}

#[test]
fn a_dead_holder_s_job_is_given_on_at_once_and_a_stopped_one_s_after_its_lease() {
    let (dir, store) = new_store();
    let path = dir.path().join("s");
    let queue = store.queue("q").unwrap();
    let hold = |lease: &str| {
        let mut worker = Worker::spawn("holds", &[("STORE", path.to_str().unwrap()), ("LEASE", lease)]);
        let number: u64 = worker.hear().parse().unwrap();
        (worker, number)
    };
    queue.push(b"one").unwrap();
    let (mut worker, number) = hold("3600000");
    assert!(queue.claim(AT_ONCE).unwrap().is_none(), "somebody has it, who lives");
    worker.kill();
    let job = queue.claim(AT_ONCE).unwrap().expect("its holder is dead");
    assert_eq!((job.number(), job.claims()), (number, 2));
    assert!(job.finish().unwrap());

    queue.push(b"two").unwrap();
    let (mut worker, number) = hold("300");
    worker.signal(Signal::SIGSTOP);
    worker.wait_until_stopped();
    let started = Instant::now();
    let job = queue.claim(Some(PATIENCE)).unwrap().expect("its lease is over");
    assert_eq!((job.number(), job.claims()), (number, 2));
    assert!(started.elapsed() < PATIENCE);
    worker.signal(Signal::SIGCONT);
    worker.say("finish");
    worker.expect("false"); // It is not its any more.
    assert!(job.finish().unwrap());
    assert!(queue.is_empty().unwrap());
}

/// After a loss of power the last pushes may be gone, and what tells how far the claims were may be there.
#[test]
fn a_job_is_never_given_a_number_that_nobody_looks_at() {
    let (_dir, store) = new_store();
    let (queue, space) = (store.queue("q").unwrap(), store.space("queue q").unwrap());
    queue.push(b"finished").unwrap();
    claimed(&queue).unwrap();
    space.put("first", 9u64.to_le_bytes()).unwrap();
    assert_eq!(queue.push(b"new").unwrap(), 9);
    assert_eq!(claimed(&queue), Some((9, b"new".to_vec())));
    // And what is no queue says so.
    space.put("next", u64::MAX.to_le_bytes()).unwrap();
    assert!(matches!(queue.push(b"one more"), Err(Error::TypeMismatch { .. })));
    space.put("next", b"text").unwrap();
    assert!(matches!(queue.push(b"one more"), Err(Error::TypeMismatch { .. })));
    assert!(matches!(queue.claim(AT_ONCE), Err(Error::TypeMismatch { .. })));
    space.put("next", 11u64.to_le_bytes()).unwrap();
    space.put(10u64.to_be_bytes(), b"short").unwrap();
    assert!(matches!(queue.claim(AT_ONCE), Err(Error::TypeMismatch { .. })));
}

#[test]
fn each_job_is_done_exactly_once_whoever_is_killed() {
    let (dir, store) = new_store();
    let path = dir.path().join("s");
    let queue = store.queue("q").unwrap();
    let mut rng = crate::common::seeded();
    let spawn = || {
        let mut worker = Worker::spawn("works", &[("STORE", path.to_str().unwrap())]);
        worker.expect("begun");
        worker
    };
    let mut workers: Vec<Worker> = (0..3).map(|_| spawn()).collect();
    let mut pushed = BTreeMap::new();
    for n in 0..1200u32 {
        let number = queue.push(n.to_le_bytes()).unwrap();
        assert!(pushed.insert(number, n).is_none());
        if n % 80 == 79 {
            let one = rng.random_range(0..workers.len());
            assert_eq!(workers[one].kill().signal(), Some(9), "it had failed");
            workers[one] = spawn();
        }
    }
    queue.push(b"end").unwrap();
    for worker in &mut workers {
        worker.finish();
    }
    let results = store.space("results").unwrap();
    let done: BTreeMap<u64, u32> = results
        .iter()
        .map(|found| found.unwrap())
        .map(|(key, record)| {
            let number = str::from_utf8(&key).unwrap().parse().unwrap();
            (number, u32::from_le_bytes(record.data().try_into().unwrap()))
        })
        .collect();
    assert_eq!(done, pushed);
    assert_eq!(queue.len().unwrap(), 1);
    assert!(store.verify().unwrap().is_clean());
}

/// A program that writes to the queue's space can set the number of the next job to anything.
#[test]
fn a_number_of_the_next_job_that_is_far_too_high_holds_no_claim_up() {
    let (_dir, store) = new_store();
    let queue = store.queue("q").unwrap();
    for job in [b"a", b"b", b"c"] {
        queue.push(job).unwrap();
    }
    for next in [1 << 40, u64::MAX] {
        store.space("queue q").unwrap().put("next", &u64::to_le_bytes(next)).unwrap();
        assert_eq!(queue.len().unwrap(), 3, "{next}");
    }
    let pushed = queue.push(b"d");
    assert!(matches!(pushed, Err(Error::TypeMismatch { .. })), "{pushed:?}");
    assert_eq!(claimed(&queue), Some((0, b"a".to_vec())));
    assert_eq!(claimed(&queue), Some((1, b"b".to_vec())));
    assert_eq!(claimed(&queue), Some((2, b"c".to_vec())));
    assert_eq!(claimed(&queue), None);
}
