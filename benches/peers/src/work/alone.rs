//! What one worker does, whoever else is there: get, put, scan (W2, W3, W4, W5, W6, W7, W8).

use std::hint::black_box;
use std::ops::Range;

use super::Job;
use crate::clock::{Outcome, rate, time};
use crate::data::{Source, Value, number_of};
use crate::peer::Session;

/// Records in one call or transaction (W7, and the batched get).
const BATCH: usize = 100;

/// Gets records by random ids, one by one.
pub fn get(job: &Job, session: &mut dyn Session, ready: &dyn Fn()) -> Outcome {
    let (mut rng, mut out) = (job.rng(), Vec::new());
    rate(job.span, ready, || {
        let id = rng.below(job.ask.n);
        assert!(session.get(id, &mut out));
        black_box(number_of(&out, id));
    })
}

/// Gets records by random ids, 100 at a time.
pub fn get_batch(job: &Job, session: &mut dyn Session, ready: &dyn Fn()) -> Outcome {
    let (mut rng, mut ids) = (job.rng(), [0; BATCH]);
    let outcome = rate(job.span, ready, || {
        ids.fill_with(|| rng.below(job.ask.n));
        session.get_batch(&ids, &mut |id, data| {
            black_box(number_of(data, id));
        });
    });
    times(outcome, BATCH)
}

/// Overwrites records at random, each as a commit of its own.
pub fn put(job: &Job, session: &mut dyn Session, ready: &dyn Fn(), among: Range<u64>) -> Outcome {
    let (mut rng, mut value, mut number) = (job.rng(), Value::new(job.ask.size), job.numbers());
    rate(job.span, ready, || {
        let id = among.start + rng.below(among.end - among.start);
        number += 1;
        session.put(id, value.stamp(id, number));
    })
}

/// Overwrites each record once, in random order, each as a commit of its own.
pub fn put_once(job: &Job, session: &mut dyn Session, ready: &dyn Fn()) -> Outcome {
    let ids = crate::data::permutation(job.ask.n);
    let (mut value, mut number) = (Value::new(job.ask.size), job.numbers());
    ready();
    time(|| {
        let begin = std::time::Instant::now();
        let mut ops = 0;
        for ids in ids.chunks(100) {
            if begin.elapsed() > 4 * job.span.measure {
                break;
            }
            for &id in ids {
                number += 1;
                session.put(id, value.stamp(id, number));
            }
            ops += ids.len() as u64;
        }
        ops
    })
}

/// Overwrites records at random, 100 a commit.
pub fn put_batch(job: &Job, session: &mut dyn Session, ready: &dyn Fn()) -> Outcome {
    let (mut rng, mut ids, mut number) = (job.rng(), vec![0; BATCH], job.numbers());
    let mut source = Source::of(BATCH, job.ask.size);
    let outcome = rate(job.span, ready, || {
        ids.fill_with(|| rng.below(job.ask.n));
        number += 1;
        source.refill(&ids, number);
        session.put_batch(&source);
    });
    times(outcome, BATCH)
}

/// Goes through all records.
pub fn scan(job: &Job, session: &mut dyn Session, ready: &dyn Fn()) -> Outcome {
    let mut pass = || {
        let (mut records, mut sum) = (0u64, 0u64);
        session.scan(&mut |data| {
            records += 1;
            sum = sum.wrapping_add(u64::from(data[data.len() - 1]));
        });
        black_box(sum);
        assert_eq!(records, job.ask.n);
        records
    };
    pass();
    ready();
    time(|| {
        let begin = std::time::Instant::now();
        let mut records = pass();
        while begin.elapsed() < job.span.measure {
            records += pass();
        }
        records
    })
}

/// An outcome of calls that do `n` operations each.
fn times(mut outcome: Outcome, n: usize) -> Outcome {
    outcome.ops *= n as u64;
    outcome.ops_in_all *= n as u64;
    outcome
}
