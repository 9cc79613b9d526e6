//! One counter in shared memory, and several processes that add to it as fast as they can. It is
//! exact. With `--kill`, processes are killed with `kill -9` at whatever instruction they happen to be,
//! again and again: nothing that was acknowledged is lost, and the others are never held up by a dead one.
//!
//! ```text
//! cargo program shared_counter
//! cargo program shared_counter -- --processes 2 --kill
//! ```
//!
//! By hand, this takes a lock beside the counter. Without the lock updates are lost (the example
//! `race` shows it), and with it a process that is killed while it holds the lock leaves it taken for ever.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use recstore::Store;

use common::arguments::Common;
use common::deaths::{REPORTS, kill_some};
use common::words::Words;
use common::{Failure, Writer, check, memory, program, wait_for_release};

mod common;

/// The record that is the counter.
const COUNTER: u64 = 1;

/// Several processes add to one counter in shared memory; it is exact, also if some of them are killed.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,

    /// Increments by each process [default: 1000000, or 100000 if quick]
    #[arg(long, value_name = "N")]
    increments: Option<u64>,
}

fn main() -> ExitCode {
    program::run(work, demonstrate)
}

/// A worker process: adds 1 to the counter `count` times. What it acknowledges, it notes in a word of
/// bare shared memory, which costs next to nothing and outlives it.
fn work(arguments: &[String]) -> Result<(), Failure> {
    let name: String = program::argument(arguments, 0)?;
    let words = Words::open(&program::argument::<String>(arguments, 1)?)?;
    let acknowledged = words.word(program::argument(arguments, 2)?);
    let (before, count): (u64, u64) =
        (acknowledged.load(Ordering::Acquire), program::argument(arguments, 3)?);

    let store = Store::shared(&name)?;
    let counter = store.counter(COUNTER);
    let mut out = io::stdout();
    writeln!(out, "ready")?;
    wait_for_release()?;
    for n in 1..=count {
        counter.add(1)?;
        // Release: not before the increment is done.
        acknowledged.store(before + n, Ordering::Release);
        if n % count.div_ceil(REPORTS) == 0 {
            writeln!(out, "{n}")?; // Fails if this process's parent is gone; then it ends too.
        }
    }
    Ok(())
}

fn demonstrate(arguments: Arguments) -> Result<(), Failure> {
    let Common { processes, kill, quick } = arguments.common;
    let share = arguments.increments.unwrap_or(if quick { 100_000 } else { 1_000_000 }).max(1);
    let total = share * u64::from(processes);

    let options = Store::options().record_size(8).regions(1);
    let name = memory::fresh_name(&options)?;
    let store = options.shared(&name)?;
    let words = Words::create()?;
    println!("store      {name}, in memory");
    println!("processes  {processes}, {share} increments each");

    let acknowledged = |n: usize| words.word(n).load(Ordering::Acquire);
    // A worker does what those before it in its place have not acknowledged.
    let start = |n: usize| -> Result<Writer, Failure> {
        let rest = share - acknowledged(n);
        let mut worker = Writer::start([&name, &words.address(), &n.to_string(), &rest.to_string()])?;
        check(worker.next_line()?.as_deref() == Some("ready"), || "a worker gets ready".into())?;
        Ok(worker)
    };
    let mut workers = (0..processes as usize).map(start).collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    workers.iter_mut().for_each(|worker| drop(worker.stdin()));
    let mut killed = 0;
    if kill {
        let mut random = StdRng::seed_from_u64(program::seed()?);
        let kills = if quick { 10 } else { 50 };
        killed = kill_some(workers, kills, &mut random, |n| share - acknowledged(n), start)?;
    } else {
        workers.into_iter().try_for_each(Writer::finish)?;
    }
    let took = begin.elapsed();

    let acknowledged: u64 = (0..processes as usize).map(acknowledged).sum();
    let counter = store.counter(COUNTER).get()?;
    check(acknowledged == total, || format!("all {total} increments were acknowledged ({acknowledged})"))?;
    check((acknowledged..=acknowledged + killed).contains(&counter), || {
        format!(
            "the counter, {counter}, is the {acknowledged} acknowledged increments, and at most one for each of {killed} kills"
        )
    })?;
    let locked = store.stats()?.regions.iter().filter(|region| region.lock.is_some()).count();
    check(locked == 0, || "no lock is held".into())?;
    drop(store);
    check(!memory::exists(&name)?, || "the store is gone with its last user".into())?;

    let each = took.as_nanos() / u128::from(total);
    if kill {
        let extra = counter - acknowledged;
        println!(
            "shown: {processes} processes added to one counter, {killed} of them were killed: {acknowledged} acknowledged \
             increments, the counter says {counter} ({extra} died between their increment and its \
             acknowledgement), no lock was left held; {each} ns an increment, kills included"
        );
    } else {
        println!(
            "shown: {processes} processes added to one counter: {acknowledged} increments, the counter says {counter}, \
             none lost; {each} ns an increment"
        );
    }
    Ok(())
}
