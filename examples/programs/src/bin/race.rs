//! Several processes add 1 to the same number, in four ways. In bare shared memory, by reading it, adding,
//! and writing it back, updates are lost: two processes read the same number, and one of the two
//! additions disappears. The store's `update`, `counter` and `compare_and_swap` lose none.
//!
//! ```text
//! cargo program race
//! cargo program race -- --processes 2 --kill
//! ```
//!
//! With `--kill`, one process is killed in the middle of each of the four, and a new one takes over. And
//! two more are killed while they hold a lock: one that is made by hand stays taken, the store's does not.

use std::hint::black_box;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Shared, Store, Swap};

use common::arguments::Common;
use common::words::Words;
use common::{Failure, Writer, check, memory, program, wait_for_release};

mod common;

/// The words of bare memory: the number, a lock made by hand, and what each worker acknowledged.
const NUMBER: usize = 0;
const LOCK: usize = 1;
const ACKNOWLEDGED: usize = 2;
/// A worker says so many times on its way how far it has come.
const REPORTS: u64 = 64;
/// Bare memory is fast; with so many times as many increments there is time for a race.
const MORE_IN_BARE_MEMORY: u64 = 40;
/// How often a way is tried, each time with twice the increments, until bare memory loses something
/// and a process is killed in the middle. The processes may have run one after another: the machine
/// may be busy.
const TRIES: u32 = 8;
/// How often a lock is tried before it is believed to be taken for ever.
const KNOCKS: u32 = 10_000_000;

/// A way to add 1.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Bare,
    Update,
    Counter,
    CompareAndSwap,
}

impl Way {
    const ALL: [(Self, &str); 4] = [
        (Self::Bare, "bare memory"),
        (Self::Update, "update"),
        (Self::Counter, "counter"),
        (Self::CompareAndSwap, "compare_and_swap"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(way, _)| *way == self).map_or("", |(_, name)| name)
    }

    /// Each way counts in a record of its own.
    fn record(self) -> u64 {
        self as u64
    }
}

/// Increments of one number by several processes: lost in bare shared memory, none lost in a store.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,

    /// Increments by each process in the store, and 40 times as many in bare memory [default: 250000, or
    /// 50000 if quick]
    #[arg(long, value_name = "N")]
    increments: Option<u64>,
}

fn main() -> ExitCode {
    program::run(work, demonstrate)
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Adds 1 in the given way.
fn add(way: Way, store: &Store, words: &Words) -> recstore::Result<()> {
    let record = way.record();
    match way {
        Way::Bare => {
            // As a program that does not think of the others does it: read, add, write. Reading and
            // writing are atomic, each for itself, since Rust has no other access to memory that somebody
            // else may write. `black_box` keeps the compiler from making one instruction of them,
            // which would still lose updates, but more seldom.
            let number = words.word(NUMBER);
            let seen = black_box(number.load(Ordering::Relaxed));
            number.store(seen + 1, Ordering::Relaxed);
        }
        Way::Update => {
            store.update(record, |old| Some((number(old) + 1).to_le_bytes()))?;
        }
        Way::Counter => {
            store.counter(record).add(1)?;
        }
        Way::CompareAndSwap => loop {
            let old = store.get(record)?;
            let new = number(old.as_deref()) + 1;
            let version = old.map(|old| old.version());
            if let Swap::Done(_) = store.compare_and_swap(record, version, new.to_le_bytes())? {
                break;
            }
        },
    }
    Ok(())
}

/// A worker process: adds in one way, or takes a lock and stays there.
fn work(arguments: &[String]) -> Result<(), Failure> {
    let store = Store::shared(&program::argument::<String>(arguments, 0)?)?;
    let words = Words::open(&program::argument::<String>(arguments, 1)?)?;
    let task: String = program::argument(arguments, 2)?;
    let mut out = io::stdout();
    match task.as_str() {
        "hold the lock made by hand" => {
            words.word(LOCK).store(std::process::id().into(), Ordering::Release);
            writeln!(out, "holds it")?;
            return Ok(wait_for_release()?);
        }
        "hold the store's lock" => {
            store.update(Way::Update.record(), |_| -> Option<[u8; 8]> {
                // Without this line the program waits for ever, and nothing else depends on it.
                let _ = writeln!(out, "holds it").and_then(|()| wait_for_release());
                None
            })?;
            return Ok(());
        }
        _ => {}
    }
    let (way, _) = Way::ALL.into_iter().find(|(_, name)| *name == task).ok_or("no such way")?;
    let acknowledged = words.word(ACKNOWLEDGED + program::argument::<usize>(arguments, 3)?);
    let (before, count): (u64, u64) =
        (acknowledged.load(Ordering::Acquire), program::argument(arguments, 4)?);
    writeln!(out, "ready")?;
    wait_for_release()?;
    for n in 1..=count {
        add(way, &store, &words)?;
        // Release: not before the increment is done.
        acknowledged.store(before + n, Ordering::Release);
        if n % count.div_ceil(REPORTS) == 0 {
            writeln!(out, "{n}")?; // Fails if this process's parent is gone; then it ends too.
        }
    }
    Ok(())
}

/// What came of one way.
struct Outcome {
    acknowledged: u64,
    found: u64,
    killed: u64,
    took: Duration,
}

struct Race {
    processes: usize,
    kill: bool,
    name: String,
    store: Shared,
    words: Words,
    random: StdRng,
}

impl Race {
    fn start(&self, task: &[&str]) -> Result<Writer, Failure> {
        let mut worker = Writer::start([&[&*self.name, &*self.words.address()], task].concat())?;
        check(worker.next_line()?.is_some(), || "a worker gets ready".into())?;
        Ok(worker)
    }

    fn start_adding(&self, way: Way, worker: usize, count: u64) -> Result<Writer, Failure> {
        self.start(&[way.name(), &worker.to_string(), &count.to_string()])
    }

    /// All the processes add `share` in one way, beginning at 0.
    fn run(&mut self, way: Way, share: u64) -> Result<Outcome, Failure> {
        self.words.word(NUMBER).store(0, Ordering::Relaxed);
        self.store.delete(way.record())?;
        let mut workers = Vec::new();
        for n in 0..self.processes {
            self.words.word(ACKNOWLEDGED + n).store(0, Ordering::Relaxed);
            workers.push(self.start_adding(way, n, share)?);
        }
        let begin = Instant::now();
        workers.iter_mut().for_each(|worker| drop(worker.stdin()));
        let mut killed = 0;
        if self.kill
            && let Some(mut victim) = workers.pop()
        {
            for _ in 0..self.random.random_range(1..REPORTS / 2) {
                victim.next_line()?;
            }
            victim.kill()?;
            let n = self.processes - 1;
            let rest = share - self.words.word(ACKNOWLEDGED + n).load(Ordering::Acquire);
            killed = u64::from(rest > 0); // Else it was at the end already.
            let mut replacement = self.start_adding(way, n, rest)?;
            drop(replacement.stdin());
            workers.push(replacement);
        }
        for worker in workers {
            worker.finish()?;
        }
        let took = begin.elapsed();
        let acknowledged = |n| self.words.word(ACKNOWLEDGED + n).load(Ordering::Acquire);
        let found = match way {
            Way::Bare => self.words.word(NUMBER).load(Ordering::Relaxed),
            _ => self.store.counter(way.record()).get()?,
        };
        Ok(Outcome { acknowledged: (0..self.processes).map(acknowledged).sum(), found, killed, took })
    }

    /// Kills the holder of a lock made by hand, and the holder of a lock of the store.
    fn kill_the_holders(&self) -> Result<(), Failure> {
        let mut holder = self.start(&["hold the lock made by hand"])?;
        holder.kill()?;
        let lock = self.words.word(LOCK);
        let got =
            (0..KNOCKS).any(|_| lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok());
        check(!got, || "a lock made by hand stays taken".into())?;
        println!(
            "lock made by hand: process {} was killed in it; {KNOCKS} tries later it is taken still",
            holder.pid()
        );

        let mut holder = self.start(&["hold the store's lock"])?;
        let owner = self.store.stats()?.regions.into_iter().find_map(|region| region.lock);
        check(owner.as_ref().is_some_and(|owner| owner.pid == holder.pid()), || {
            format!("process {} holds the lock ({owner:?})", holder.pid())
        })?;
        holder.kill()?;
        let begin = Instant::now();
        add(Way::Update, &self.store, &self.words)?;
        let took = begin.elapsed();
        println!(
            "lock of the store: process {} was killed in it; the next write took {took:.0?}",
            holder.pid()
        );
        Ok(())
    }
}

fn demonstrate(arguments: Arguments) -> Result<(), Failure> {
    let Common { processes, kill, quick } = arguments.common;
    let share = arguments.increments.unwrap_or(if quick { 50_000 } else { 250_000 }).max(REPORTS);
    let options = Store::options().record_size(8).regions(1);
    let name = memory::fresh_name(&options)?;
    let mut race = Race {
        processes: processes as usize,
        kill,
        store: options.shared(&name)?,
        words: Words::create()?,
        random: StdRng::seed_from_u64(if kill { program::seed()? } else { 0 }),
        name,
    };
    println!(
        "processes  {processes}, all of which add 1 to the same number{}",
        if kill { "; one is killed" } else { "" }
    );
    println!("{:<18} {:>12} {:>12} {:>12} {:>10}", "", "increments", "found", "lost", "ns each");

    let (mut lost_in_bare_memory, mut done_in_bare_memory) = (0, 0);
    let mut done = 0;
    for (way, way_name) in Way::ALL {
        let is_bare = way == Way::Bare;
        let mut share = if is_bare { MORE_IN_BARE_MEMORY * share } else { share };
        let mut tries = 0;
        loop {
            let outcome = race.run(way, share)?;
            let Outcome { acknowledged, found, killed, took } = outcome;
            let lost = acknowledged.saturating_sub(found);
            let each = took.as_nanos() as f64 / acknowledged as f64;
            println!("{way_name:<18} {acknowledged:>12} {found:>12} {lost:>12} {each:>10.1}");
            if is_bare {
                (lost_in_bare_memory, done_in_bare_memory) = (lost, acknowledged);
            } else {
                check((acknowledged..=acknowledged + killed).contains(&found), || {
                    format!(
                        "{way_name} gives {acknowledged}, and one more at most if somebody was killed ({found})"
                    )
                })?;
            }
            // A lone process has nobody to race with.
            let raced = !is_bare || lost > 0 || processes == 1;
            if raced && killed == u64::from(kill) {
                done += if is_bare { 0 } else { acknowledged };
                break;
            }
            tries += 1;
            share *= 2;
            check(tries < TRIES, || format!("the race comes about in one of {TRIES} runs"))?;
            println!("by chance {}: once more", if raced { "nobody was killed" } else { "nothing was lost" });
        }
    }
    if kill {
        race.kill_the_holders()?;
    }
    let locked = race.store.stats()?.regions.iter().filter(|region| region.lock.is_some()).count();
    check(locked == 0, || "no lock of the store is held".into())?;
    let Race { name, store, .. } = race;
    drop(store);
    check(!memory::exists(&name)?, || "the store is gone with its last user".into())?;
    println!(
        "shown: {processes} processes lost {lost_in_bare_memory} of {done_in_bare_memory} increments in bare memory, and none of {done} by update, \
         counter and compare_and_swap{}",
        if kill { ", while processes were killed in the middle" } else { "" }
    );
    Ok(())
}
