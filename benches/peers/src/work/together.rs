//! What several workers do to one store (W3w, W5, W12, W13), and how fast they wake each other (W15).

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{COUNTERS, Job, alone, ready_and_wait};
use crate::clock::{Outcome, latencies, rate, time};
use crate::data::{Value, Zipf, number_of};
use crate::peer::Session;

/// Overwrites records that no other worker overwrites.
pub fn put_disjoint(job: &Job, session: &mut dyn Session, ready: &dyn Fn()) -> Outcome {
    let share = job.ask.n / job.workers;
    alone::put(job, session, ready, job.worker * share..(job.worker + 1) * share)
}

/// The first worker reads, the others overwrite all the time.
pub fn read_beside_writer(job: &Job, session: &mut dyn Session, ready: &dyn Fn()) -> Outcome {
    if job.worker == 0 {
        alone::get(job, session, ready)
    } else {
        alone::put(job, session, ready, 0..job.ask.n)
    }
}

/// Adds to counters: to one, or to one of many at random.
pub fn count(job: &Job, session: &mut dyn Session, ready: &dyn Fn(), hot: bool) -> Outcome {
    let mut rng = job.rng();
    rate(job.span, ready, || {
        let number = if hot { COUNTERS } else { rng.below(COUNTERS) };
        session.add_one(job.ask.n + number);
    })
}

/// What all counters add up to.
pub fn count_sum(job: &Job, session: &mut dyn Session, ready: &dyn Fn()) -> Outcome {
    ready();
    time(|| (0..=COUNTERS).map(|number| session.count(job.ask.n + number)).sum())
}

/// Reads and writes records by a Zipf distribution; `writes` in 100 are writes.
pub fn mixed(job: &Job, session: &mut dyn Session, ready: &dyn Fn(), writes: u64) -> Outcome {
    let zipf = Zipf::new(job.ask.n);
    let (mut rng, mut out) = (job.rng(), Vec::new());
    let (mut value, mut number) = (Value::new(job.ask.size), job.numbers());
    let prepare = || {
        let id = zipf.next(&mut rng);
        (id, rng.below(100) < writes)
    };
    latencies(job.span, u64::MAX, ready, prepare, |(id, write)| {
        if write {
            number += 1;
            session.put(id, value.stamp(id, number));
        } else {
            assert!(session.get(id, &mut out));
            black_box(number_of(&out, id));
        }
    })
}

/// Two children wake each other in turn: each waits for a change of its record and writes the other's. An
/// operation is one way.
pub fn wake(job: &Job) -> Outcome {
    let store = recstore::Store::open(job.dir.join("store.rec")).unwrap();
    let (own, other) = (job.worker, 1 - job.worker);
    let mut watch = store.watch(own).unwrap();
    let (mut value, mut number) = (Value::new(job.ask.size), job.numbers());
    ready_and_wait();
    // The first child stops at the end, by the number 0; the other is woken a last time by that.
    ping_pong(
        job,
        |last| {
            number = if last { 0 } else { number + 1 };
            store.put(other, value.stamp(other, number)).unwrap();
        },
        || {
            watch.wait(Some(Duration::from_secs(5))).unwrap();
            store.get(own).unwrap().is_some_and(|record| number_of(&record, own) == 0)
        },
    )
}

/// The bound: the same with two bare futexes in shared memory.
pub fn futex(job: &Job) -> Outcome {
    let path = job.dir.join("futex");
    let file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    file.set_len(4096).unwrap();
    let map = memmap2::MmapOptions::new().map_raw(&file).unwrap();
    // SAFETY: the mapping is a page long and lives to the end; it is accessed by atomics alone.
    let words = unsafe { std::slice::from_raw_parts(map.as_ptr().cast::<AtomicU32>(), 32) };
    // Lines of their own. Bit 31: the end.
    let (own, other) = (&words[16 * job.worker as usize], &words[16 * (1 - job.worker as usize)]);
    let mut seen = own.load(Ordering::SeqCst);
    ready_and_wait();
    ping_pong(
        job,
        |last| {
            if last {
                other.fetch_or(1 << 31, Ordering::SeqCst);
            } else {
                other.fetch_add(1, Ordering::SeqCst);
            }
            // SAFETY: the address is that of a live, aligned word.
            unsafe { libc::syscall(libc::SYS_futex, other.as_ptr(), libc::FUTEX_WAKE, 1) };
        },
        || {
            while own.load(Ordering::SeqCst) == seen {
                // SAFETY: as above.
                unsafe { libc::syscall(libc::SYS_futex, own.as_ptr(), libc::FUTEX_WAIT, seen, 0) };
            }
            seen = own.load(Ordering::SeqCst);
            seen >> 31 != 0
        },
    )
}

/// `wake(last)` wakes the other, `wait` waits for the other and says whether it was the last time.
fn ping_pong(job: &Job, mut wake: impl FnMut(bool), mut wait: impl FnMut() -> bool) -> Outcome {
    let mut ways = 0;
    if job.worker == 1 {
        while !wait() {
            wake(false);
        }
        return Outcome::default();
    }
    let mut outcome = time(|| {
        let begin = std::time::Instant::now();
        while begin.elapsed() < job.span.measure {
            wake(false);
            wait();
            ways += 2;
        }
        ways
    });
    wake(true);
    outcome.extra.push(("ways".to_owned(), outcome.ops as f64));
    outcome
}
