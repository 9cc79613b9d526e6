//! The workloads, as a child process does them. A child opens the store, warms up, says `ready`, waits for a
//! line, measures, and prints what it measured. So all that run side by side begin together, and each
//! store is seen by a fresh process.

mod alone;
mod life;
mod together;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Barrier;

use serde_json::{Value as Json, json};

use crate::clock::{Outcome, Span};
use crate::peer::{Ask, Db, Peer, Session};

/// Counters in W12 when they are spread; one more is the hot one.
pub const COUNTERS: u64 = 10_000;

/// What one child is to do.
#[derive(Clone)]
pub struct Job {
    pub peer: Peer,
    pub dir: PathBuf,
    pub work: String,
    pub ask: Ask,
    pub span: Span,
    /// The first of this child's workers, and how many there are in all children.
    pub worker: u64,
    pub workers: u64,
    /// Threads of this child.
    pub threads: u64,
    /// The ids to come: the same for every peer in a round.
    pub seed: u64,
    /// Which job of all it is.
    pub number: u64,
}

impl Job {
    pub fn to_json(&self) -> Json {
        json!({
            "peer": self.peer.name(), "dir": self.dir, "work": self.work, "size": self.ask.size,
            "n": self.ask.n, "durable": self.ask.durable,
            "create": self.ask.create, "measure": self.span.measure.as_secs_f64(),
            "warm": self.span.warm_up_max.as_secs_f64(), "worker": self.worker, "workers": self.workers,
            "threads": self.threads, "seed": self.seed, "number": self.number,
        })
    }

    fn from_json(j: &Json) -> Self {
        let number = |name: &str| j[name].as_u64().unwrap();
        let span = |name: &str| std::time::Duration::from_secs_f64(j[name].as_f64().unwrap());
        Self {
            peer: Peer::named(j["peer"].as_str().unwrap()).unwrap(),
            dir: j["dir"].as_str().unwrap().into(),
            work: j["work"].as_str().unwrap().to_owned(),
            ask: Ask {
                size: number("size") as usize,
                n: number("n"),
                durable: j["durable"].as_bool().unwrap(),
                create: j["create"].as_bool().unwrap(),
            },
            span: Span { measure: span("measure"), warm_up_max: span("warm") },
            worker: number("worker"),
            workers: number("workers"),
            threads: number("threads"),
            seed: number("seed"),
            number: number("number"),
        }
    }

    /// The job of the `thread`-th thread.
    fn of_thread(&self, thread: u64) -> Self {
        Self { worker: self.worker + thread, ..self.clone() }
    }

    /// A generator that no other worker and no other round has.
    fn rng(&self) -> crate::data::Rng {
        crate::data::Rng::new(self.seed * 1000 + self.worker + 1)
    }

    /// Numbers of writes that no other worker and no other job has: they begin after this one. (Jobs of a round
    /// write the same ids in the same order: with the same numbers, the values would be there already.)
    fn numbers(&self) -> u64 {
        (self.number * 64 + self.worker + 1) << 36
    }

    /// The store; one that is not kept is filled first.
    fn open(&self) -> Box<dyn Db> {
        let mut ask = self.ask;
        ask.create |= !self.peer.is_kept();
        let db = self.peer.open(&self.dir, ask);
        if !self.peer.is_kept() && !self.ask.create {
            let ids = crate::data::permutation(ask.n);
            db.session().load(&mut crate::data::Source::new(&ids, ask.size), false);
        }
        db
    }
}

/// Says `ready`, and waits for the word.
fn ready_and_wait() {
    let mut out = std::io::stdout().lock();
    out.write_all(b"ready\n").and_then(|()| out.flush()).unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn print(outcomes: &[Outcome]) {
    let all: Vec<Json> = outcomes
        .iter()
        .map(|o| {
            json!({
                "ops": o.ops, "seconds": o.seconds, "cpu_seconds": o.cpu_seconds, "ops_in_all": o.ops_in_all,
                "latencies": o.latencies, "extra": o.extra,
            })
        })
        .collect();
    println!("{}", Json::Array(all));
}

/// Runs `work` in as many threads as the job says, each with a session of its own.
fn in_threads(
    job: &Job,
    db: &dyn Db,
    work: impl Fn(&Job, &mut dyn Session, &dyn Fn()) -> Outcome + Sync,
) -> Vec<Outcome> {
    let warm = Barrier::new(job.threads as usize + 1);
    let go = Barrier::new(job.threads as usize + 1);
    let ready = || {
        warm.wait();
        go.wait();
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..job.threads)
            .map(|t| {
                let (job, work, ready) = (job.of_thread(t), &work, &ready);
                scope.spawn(move || work(&job, &mut *db.session(), ready))
            })
            .collect();
        warm.wait();
        ready_and_wait();
        go.wait();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// A child's whole life.
pub fn child(arguments: &str) {
    // A thread that panics would leave the others at a barrier.
    std::panic::set_hook(Box::new(|what| {
        eprintln!("{what}");
        std::process::exit(101);
    }));
    let job = Job::from_json(&serde_json::from_str(arguments).unwrap());
    let outcomes = match job.work.as_str() {
        "load" | "load-ascending" => vec![life::load(&job)],
        "memory" => vec![life::memory(&job)],
        "open" => vec![life::open(&job)],
        "close" => vec![life::close(&job)],
        "keep" => vec![life::close(&job)],
        "die" => life::die(&job),
        "after-death" => vec![life::after_death(&job)],
        "grow" => vec![life::grow(&job)],
        "wake" => vec![together::wake(&job)],
        "futex" => vec![together::futex(&job)],
        work => {
            let db = job.open();
            let flushes = db.flushes();
            let mut outcomes = in_threads(&job, &*db, |job, session, ready| match work {
                "get" => alone::get(job, session, ready),
                "get-batch" => alone::get_batch(job, session, ready),
                "scan" => alone::scan(job, session, ready),
                "put" => alone::put(job, session, ready, 0..job.ask.n),
                "put-once" => alone::put_once(job, session, ready),
                "put-batch" => alone::put_batch(job, session, ready),
                "put-disjoint" => together::put_disjoint(job, session, ready),
                "read-beside-writer" => together::read_beside_writer(job, session, ready),
                "count-hot" => together::count(job, session, ready, true),
                "count-spread" => together::count(job, session, ready, false),
                "count-sum" => together::count_sum(job, session, ready),
                "mixed-5" => together::mixed(job, session, ready, 5),
                "mixed-50" => together::mixed(job, session, ready, 50),
                _ => panic!("no workload {work}"),
            });
            if let (Some(before), Some(after)) = (flushes, db.flushes()) {
                outcomes[0].extra.push(("flushes".to_owned(), (after - before) as f64));
            }
            db.leave();
            outcomes
        }
    };
    print(&outcomes);
}
