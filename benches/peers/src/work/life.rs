//! A store's life: filling it, its size, growth, opening it, the death of who writes it (W1, W9, W10, W11, W14).

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use memmap2::{MmapOptions, MmapRaw};

use super::{Job, ready_and_wait};
use crate::clock::{Outcome, latencies, time};
use crate::data::{Source, Value, number_of, permutation};

/// Loads all records into a new store.
pub fn load(job: &Job) -> Outcome {
    let ascending = job.work == "load-ascending";
    let ids = if ascending { (0..job.ask.n).collect() } else { permutation(job.ask.n) };
    let db = job.peer.open(&job.dir, job.ask);
    ready_and_wait();
    let outcome = time(|| {
        db.session().load(&mut Source::new(&ids, job.ask.size), ascending);
        job.ask.n
    });
    db.leave();
    outcome
}

/// Opens the store, waits for the word, and closes it cleanly.
pub fn close(job: &Job) -> Outcome {
    let db = job.peer.open(&job.dir, job.ask);
    ready_and_wait();
    db.close();
    Outcome::default()
}

/// Memory of this process in bytes: of its own, and of files that it maps.
fn resident() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
    };
    (line("RssAnon:"), line("RssFile:") + line("RssShmem:"))
}

/// Memory that a process has when it has read every record once.
pub fn memory(job: &Job) -> Outcome {
    let ids = permutation(job.ask.n);
    let before = resident();
    let db = job.open();
    let mut session = db.session();
    let mut out = Vec::new();
    for &id in &ids {
        assert!(session.get(id, &mut out));
    }
    let after = resident();
    drop(session);
    ready_and_wait();
    db.leave();
    let extra = vec![("own".to_owned(), after.0 - before.0), ("mapped".to_owned(), after.1 - before.1)];
    Outcome { ops: job.ask.n, seconds: 1.0, extra, ..Outcome::default() }
}

/// Opens a store that was closed cleanly, and gets one record; several times, and the median of them.
pub fn open(job: &Job) -> Outcome {
    let mut rng = job.rng();
    ready_and_wait();
    let mut each: Vec<Outcome> = (0..15)
        .map(|_| {
            let id = rng.below(job.ask.n);
            let mut db = None;
            let outcome = time(|| {
                let opened = db.insert(job.peer.open(&job.dir, job.ask));
                let mut out = Vec::new();
                assert!(opened.session().get(id, &mut out));
                black_box(number_of(&out, id));
                1
            });
            db.unwrap().close();
            outcome
        })
        .collect();
    // The first one pays for what a process does once: pages of its code, a look at the processor's features.
    let first = each[0].seconds;
    each.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let mut median = each.swap_remove(each.len() / 2);
    median.extra.push(("first".to_owned(), first));
    median
}

/// What was acknowledged, kept where the death of a process does not touch it: for each id the number of its
/// last write; after them the id that is being written.
struct Acknowledged(MmapRaw);

impl Acknowledged {
    fn new(job: &Job) -> Self {
        let path = job.dir.join("acknowledged");
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap();
        file.set_len((job.ask.n + 1) * 8).unwrap();
        Self(MmapOptions::new().map_raw(&file).unwrap())
    }

    fn words(&self, n: u64) -> &[AtomicU64] {
        // SAFETY: the mapping has n + 1 words, which are accessed by atomics alone.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), n as usize + 1) }
    }
}

/// Overwrites records until it is killed, and notes what was acknowledged.
pub fn die(job: &Job) -> Vec<Outcome> {
    let db = job.peer.open(&job.dir, job.ask);
    let mut session = db.session();
    let (mut rng, mut value, mut number) = (job.rng(), Value::new(job.ask.size), job.numbers());
    let acknowledged = Acknowledged::new(job);
    let words = acknowledged.words(job.ask.n);
    ready_and_wait();
    loop {
        let id = rng.below(job.ask.n);
        number += 1;
        words[job.ask.n as usize].store(id, Ordering::SeqCst);
        session.put(id, value.stamp(id, number));
        words[id as usize].store(number, Ordering::SeqCst);
    }
}

/// Opens a store whose writer was killed and gets a record; then writes the record that was being written;
/// then looks whether anything that was acknowledged is lost.
pub fn after_death(job: &Job) -> Outcome {
    let acknowledged = Acknowledged::new(job);
    let words = acknowledged.words(job.ask.n);
    let mut value = Value::new(job.ask.size);
    let mut out = Vec::new();
    let victim = words[job.ask.n as usize].load(Ordering::SeqCst);
    ready_and_wait();
    let mut db = None;
    let mut outcome = time(|| {
        let opened = db.insert(job.peer.open(&job.dir, job.ask));
        assert!(opened.session().get((victim + 1) % job.ask.n, &mut out));
        1
    });
    let db = db.unwrap();
    let mut session = db.session();
    let before = if session.get(victim, &mut out) { number_of(&out, victim) } else { 0 };
    let begin = Instant::now();
    session.put(victim, value.stamp(victim, job.numbers()));
    let heal = begin.elapsed().as_secs_f64();
    let (mut lost, mut written) = (0, 0);
    for id in 0..job.ask.n {
        let at_least = words[id as usize].load(Ordering::SeqCst);
        let found = match id == victim {
            true => before,
            false if session.get(id, &mut out) => number_of(&out, id),
            false => 0,
        };
        written += u64::from(at_least != 0);
        lost += u64::from(found < at_least);
    }
    drop(session);
    db.leave();
    outcome.extra = vec![
        ("first write ms".to_owned(), heal * 1e3),
        ("lost".to_owned(), lost as f64),
        ("overwritten".to_owned(), written as f64),
    ];
    outcome
}

/// Fills a store record by record, each a commit of its own, and gives the latency of each.
pub fn grow(job: &Job) -> Outcome {
    let ids = permutation(job.ask.n);
    let db = job.peer.open(&job.dir, job.ask);
    let mut session = db.session();
    let mut value = Value::new(job.ask.size);
    let mut next = ids.iter();
    let outcome = latencies(
        job.span,
        job.ask.n,
        &ready_and_wait,
        || *next.next().unwrap(),
        |id| {
            session.put(id, value.stamp(id, 1));
        },
    );
    drop(session);
    db.leave();
    outcome
}
