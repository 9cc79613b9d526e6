//! Timing: warm up until it gets no faster, then measure for a while.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// What was measured.
#[derive(Default, Clone)]
pub struct Outcome {
    pub ops: u64,
    pub seconds: f64,
    /// Processor time of the thread, which other work on the machine disturbs less.
    pub cpu_seconds: f64,
    /// Operations with those of the warm-up.
    pub ops_in_all: u64,
    /// Latencies in nanoseconds, with how often each was seen.
    pub latencies: Vec<(u64, u64)>,
    pub extra: Vec<(String, f64)>,
}

/// How long to measure.
#[derive(Clone, Copy)]
pub struct Span {
    pub measure: Duration,
    pub warm_up_max: Duration,
}

/// Processor time of this thread in seconds.
pub fn thread_cpu() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the struct that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// Time and processor time of one piece of work, which does `ops` operations.
pub fn time(work: impl FnOnce() -> u64) -> Outcome {
    let (cpu, begin) = (thread_cpu(), Instant::now());
    let ops = work();
    let seconds = begin.elapsed().as_secs_f64();
    Outcome { ops, seconds, cpu_seconds: thread_cpu() - cpu, ops_in_all: ops, ..Outcome::default() }
}

/// Repeats `op` until it gets no faster (after an open each mapped page faults once); a number of repetitions
/// that takes about a millisecond, and how many there were in all.
fn warm_up(span: Span, op: &mut dyn FnMut()) -> (u64, u64) {
    let started = Instant::now();
    let (mut batch, mut done, mut best, mut no_better) = (1u64, 0, f64::INFINITY, 0);
    let window = span.warm_up_max / 12;
    loop {
        let (begin, before) = (Instant::now(), done);
        while begin.elapsed() < window {
            let b = Instant::now();
            for _ in 0..batch {
                op();
            }
            done += batch;
            let took = b.elapsed();
            if took < Duration::from_micros(500) {
                batch = (batch * 2).min(1 << 20);
            } else if took > Duration::from_millis(2) && batch > 1 {
                batch /= 2;
            }
        }
        let each = begin.elapsed().as_secs_f64() / (done - before) as f64;
        no_better = if each < best * 0.97 { 0 } else { no_better + 1 };
        best = best.min(each);
        if no_better == 2 || started.elapsed() >= span.warm_up_max {
            return (batch, done);
        }
    }
}

/// Warms up, says so, and measures how often `op` can be done.
pub fn rate(span: Span, ready: &dyn Fn(), mut op: impl FnMut()) -> Outcome {
    let (batch, warm) = warm_up(span, &mut op);
    ready();
    let mut outcome = time(|| {
        let begin = Instant::now();
        let mut ops = 0;
        while begin.elapsed() < span.measure {
            for _ in 0..batch {
                op();
            }
            ops += batch;
        }
        ops
    });
    outcome.ops_in_all += warm;
    outcome
}

/// As `rate`, with the latency of each operation; `prepare` is not part of it. `limit`: operations at most.
pub fn latencies<T>(
    span: Span,
    limit: u64,
    ready: &dyn Fn(),
    mut prepare: impl FnMut() -> T,
    mut op: impl FnMut(T),
) -> Outcome {
    let mut warm = 0;
    if limit == u64::MAX {
        (_, warm) = warm_up(span, &mut || op(prepare()));
    }
    ready();
    let mut seen = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    let mut outcome = time(|| {
        let begin = Instant::now();
        let mut ops = 0;
        let mut now = begin;
        while ops < limit && now - begin < span.measure {
            let what = prepare();
            let before = Instant::now();
            op(what);
            now = Instant::now();
            seen.saturating_record((now - before).as_nanos() as u64);
            ops += 1;
        }
        ops
    });
    outcome.ops_in_all += warm;
    outcome.latencies = seen.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
    outcome
}
