//! A file of records that several processes write at once, and that is still there, whole, when one of
//! them crashes in the middle of a write.
//!
//! ```text
//! cargo program record_file
//! cargo program record_file -- --processes 2 --kill
//! cargo program record_file -- records.rec    # the file is kept; run it again
//! ```
//!
//! By hand it takes a mapped file, and a place for each record that nobody else may write to; a record
//! that was cut off in the middle is read as if it were whole (benches/python/record_file.py).

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::Parser;
use recstore::{LockOwner, Store};

use common::arguments::Common;
use common::scratch::Scratch;
use common::words::Words;
use common::{Failure, Writer, check, program, wait_for_release};

mod common;

/// The record that counts how often this program has run with the file.
const RUNS: u64 = u64::MAX;
/// What a worker says that has stopped inside of a write.
const INSIDE: &str = "inside the write of record ";
/// A worker says so many times on its way how far it has come.
const REPORTS: u64 = 64;

/// A file of records with parallel writers, a crash in the middle, and everything read back.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,

    /// Records of each process [default: 100000, or 10000 if quick]
    #[arg(long, value_name = "N")]
    records: Option<u64>,

    /// File to write to; it is kept, and can be used again [default: one that is removed afterwards]
    file: Option<PathBuf>,
}

fn main() -> ExitCode {
    program::run(work, demonstrate)
}

fn id(process: u64, n: u64) -> u64 {
    process << 32 | n
}

/// The content of a record. Each run writes another.
fn content(out: &mut String, run: u64, process: u64, n: u64) {
    out.clear();
    // Writing to a string can't fail.
    let _ = write!(out, "run {run}, process {process}, record {n}");
}

/// A worker process: writes its records from the first that is not acknowledged yet. It stops inside of
/// the write of record `stop_at`, if that is a number, to be killed there.
fn work(arguments: &[String]) -> Result<(), Failure> {
    let path: PathBuf = program::argument(arguments, 0)?;
    let words = Words::open(&program::argument::<String>(arguments, 1)?)?;
    let [run, process, records]: [u64; 3] = [
        program::argument(arguments, 2)?,
        program::argument(arguments, 3)?,
        program::argument(arguments, 4)?,
    ];
    let stop_at = program::argument::<String>(arguments, 5)?.parse::<u64>().ok();
    let acknowledged = words.word(process as usize);
    let store = Store::open(path)?;
    let mut text = String::new();
    let mut out = io::stdout();
    writeln!(out, "ready")?;
    if stop_at.is_none() {
        wait_for_release()?;
    }
    for n in acknowledged.load(Ordering::Acquire)..records {
        content(&mut text, run, process, n);
        if stop_at == Some(n) {
            let mut stopped = Ok(());
            // `update` runs the closure in the middle of the write, while this process holds the lock.
            store.update(id(process, n), |_| {
                // It is released if its parent is gone; then it ends too.
                stopped = writeln!(out, "{INSIDE}{n}").and_then(|()| wait_for_release());
                Some(&text)
            })?;
            return Ok(stopped?);
        }
        store.put(id(process, n), text.as_bytes())?;
        // Release: not before the record is written.
        acknowledged.store(n + 1, Ordering::Release);
        if n % records.div_ceil(REPORTS) == 0 {
            writeln!(out, "{n}")?; // Fails if this process's parent is gone; then it ends too.
        }
    }
    Ok(store.close()?)
}

fn demonstrate(arguments: Arguments) -> Result<(), Failure> {
    match &arguments.file {
        Some(file) => run(&arguments, file),
        None => {
            let scratch = Scratch::new()?;
            run(&arguments, &scratch.path().join("records.rec"))
        }
    }
}

fn run(arguments: &Arguments, path: &Path) -> Result<(), Failure> {
    let Common { processes, kill, quick } = arguments.common;
    let records = arguments.records.unwrap_or(if quick { 10_000 } else { 100_000 }).max(2);
    let processes = u64::from(processes);

    let store = Store::options().record_size(64).open_or_create(path)?;
    let run = store.counter(RUNS).add(1)?;
    println!("file       {}, {} records; run {run} with it", path.display(), store.len()?);

    // One process alone, for the time that a record takes.
    let mut text = String::new();
    let mut write_all = || {
        per_record(records, |n| {
            content(&mut text, run, processes, n);
            Ok(store.put(id(processes, n), text.as_bytes()).map(drop)?)
        })
    };
    let (write_first, write) = (write_all()?, write_all()?);
    let mut data = Vec::new();
    let read = per_record(records, |n| Ok(store.get_into(id(processes, n), &mut data).map(drop)?))?;
    for n in 0..records {
        read_back(&store, run, processes, n)?;
    }
    println!(
        "alone      {records} records: write {write_first} ns, write again {write} ns, read {read} ns each"
    );

    let words = Words::create()?;
    let start = |process: u64, stop_at: Option<u64>| -> Result<Writer, Failure> {
        let numbers = [run, process, records].map(|number| number.to_string());
        let stop_at = stop_at.map_or("never".into(), |n| n.to_string());
        let arguments = [path.into(), words.address().into()];
        let arguments =
            arguments.into_iter().chain(numbers.into_iter().map(PathBuf::from)).chain([stop_at.into()]);
        let mut worker = Writer::start(arguments)?;
        check(worker.next_line()?.as_deref() == Some("ready"), || "a worker gets ready".into())?;
        Ok(worker)
    };
    let mut workers = Vec::new();
    for process in 0..processes {
        let is_victim = kill && process == processes - 1;
        workers.push(start(process, is_victim.then_some(records / 2))?);
    }
    let begin = Instant::now();
    // The victim is not released: it waits inside of its write.
    let victim = if kill { workers.pop() } else { None };
    workers.iter_mut().for_each(|worker| drop(worker.stdin()));
    if let Some(mut victim) = victim {
        let mut inside = None;
        while inside.is_none() {
            let line = victim.next_line()?.ok_or("the victim ended early")?;
            inside = line.strip_prefix(INSIDE).map(str::parse::<u64>).transpose()?;
        }
        let is_its = |lock: &LockOwner| lock.pid == victim.pid() && lock.alive;
        let held = store.stats()?.regions.into_iter().find(|region| region.lock.as_ref().is_some_and(is_its));
        let region = held.ok_or("the victim is not inside of a write")?.region;
        victim.kill()?;
        let acknowledged = words.word(processes as usize - 1).load(Ordering::Acquire);
        println!(
            "kill -9    process {} inside of its write {}, while it held the lock of region {region}",
            victim.pid(),
            acknowledged + 1
        );
        check(inside == Some(acknowledged), || "the write it died in was not acknowledged".into())?;
        for n in 0..acknowledged {
            read_back(&store, run, processes - 1, n)?;
        }
        println!(
            "recovered  its {acknowledged} acknowledged records are there, and a new process takes over the rest"
        );
        let mut replacement = start(processes - 1, None)?;
        drop(replacement.stdin());
        workers.push(replacement);
    }
    for worker in workers {
        worker.finish()?;
    }
    let total = processes * records;
    let together = begin.elapsed().as_nanos() / u128::from(total);
    println!("together   {processes} processes, {total} records: a record every {together} ns");
    store.close()?;

    // What is in the file, for somebody who opens it afterwards.
    let store = Store::open(path)?;
    let report = store.verify()?;
    check(report.is_clean(), || format!("verify finds no damage ({:?})", report.damage))?;
    for process in 0..processes {
        let acknowledged = words.word(process as usize).load(Ordering::Acquire);
        check(acknowledged == records, || {
            format!("process {process} wrote all its records ({acknowledged})")
        })?;
        for n in 0..records {
            read_back(&store, run, process, n)?;
        }
    }
    let locked = store.stats()?.regions.iter().filter(|region| region.lock.is_some()).count();
    check(locked == 0, || "no lock is held".into())?;
    store.close()?;
    println!(
        "shown: {processes} processes wrote {total} records to one file{}; all of them were read back whole after it was \
         opened again; write {write} ns, read {read} ns each",
        if kill { ", one was killed inside of a write" } else { "" }
    );
    Ok(())
}

/// Fails unless the record is what the run wrote.
fn read_back(store: &Store, run: u64, process: u64, n: u64) -> Result<(), Failure> {
    let mut text = String::new();
    content(&mut text, run, process, n);
    let record = store.get(id(process, n))?;
    check(record.as_deref() == Some(text.as_bytes()), || {
        let found = record.as_deref().map(String::from_utf8_lossy);
        format!("record {n} of process {process} is what was acknowledged ({found:?})")
    })
}

/// Does something with every record; nanoseconds for each.
fn per_record(records: u64, each: impl FnMut(u64) -> Result<(), Failure>) -> Result<u128, Failure> {
    let begin = Instant::now();
    (0..records).try_for_each(each)?;
    Ok(begin.elapsed().as_nanos() / u128::from(records))
}
