//! Several processes share a queue of jobs: each job is done by one of them, and its result is written in the step that ends
//! the job. With `--kill`, one process after another is killed with `kill -9` in the middle of that, and another one is
//! started in its place: no job is lost, and none is done twice.
//!
//! ```text
//! cargo run --release --example jobs -- --kill
//! ```

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use recstore::{Commit, Store};

use common::{Failure, WRITER, Writer, check};

mod common;

const WORKERS: usize = 3;
const JOBS: u64 = 20_000;
/// With `--kill`: a worker is killed each time so many jobs were pushed.
const JOBS_PER_DEATH: u64 = 1_000;
/// The job after the last one: it stays in the queue, and each worker that comes to it ends.
const END: &[u8] = b"end";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => demonstrate(false),
        ["--kill"] => demonstrate(true),
        [WRITER, store] => work(store),
        _ => Err("usage: jobs [--kill]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("jobs: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A worker process: claims jobs, and writes each one's result together with its end.
fn work(store: &str) -> Result<(), Failure> {
    let store = Store::open(store)?;
    let (jobs, results) = (store.queue("squares")?, store.space("results")?);
    while let Some(job) = jobs.claim(None)? {
        if job.data() == END {
            break; // Dropped, it goes back to the queue.
        }
        let number = u64::from_le_bytes(job.data().try_into()?);
        let mut batch = store.batch();
        batch.require_in(&results, job.data(), None)?;
        batch.put_in(&results, job.data(), (number * number).to_le_bytes().to_vec())?;
        job.finish_in(&mut batch)?;
        let commit = batch.commit()?;
        check(matches!(commit, Commit::Done(_)), || format!("job {number} is done once ({commit:?})"))?;
    }
    Ok(())
}

fn demonstrate(kill: bool) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("jobs.rec");
    let store = Store::create(&path)?;
    let jobs = store.queue("squares")?;
    let mut workers = (0..WORKERS).map(|_| start(&path)).collect::<Result<Vec<_>, _>>()?;
    let started = Instant::now();
    let mut deaths = 0;
    for number in 0..JOBS {
        jobs.push(number.to_le_bytes())?;
        if kill && number % JOBS_PER_DEATH == JOBS_PER_DEATH - 1 {
            let victim = &mut workers[deaths % WORKERS];
            victim.kill()?;
            *victim = start(&path)?;
            deaths += 1;
        }
    }
    jobs.push(END)?;
    for worker in workers {
        worker.finish()?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let results = store.space("results")?;
    for number in 0..JOBS {
        let result = results.get(number.to_le_bytes())?;
        let square = (number * number).to_le_bytes();
        check(result.as_deref() == Some(&square), || format!("job {number} is done ({result:?})"))?;
    }
    check(results.len()? == JOBS && jobs.len()? == 1, || "nothing else is left".to_owned())?;
    println!(
        "{JOBS} jobs done by {WORKERS} processes at a time, of which {deaths} were killed: none is lost, none was done \
         twice; {:.0} jobs a second",
        JOBS as f64 / seconds
    );
    Ok(store.close()?)
}

fn start(path: &Path) -> Result<Writer, Failure> {
    Writer::start([path])
}
