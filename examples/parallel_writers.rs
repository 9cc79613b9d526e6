//! Several processes write records and count their writes in one shared counter. Again and again one of
//! them is killed with `kill -9` at whatever instruction it happens to be. Everything that was
//! acknowledged is read back, and the counter is exact.
//!
//! ```text
//! cargo run --release --example parallel_writers
//! ```

use std::env;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use recstore::Store;

use common::{Failure, WRITER, Writer, check};

mod common;

/// Writers that work from the beginning to the end.
const SURVIVORS: u64 = 3;
/// Writers that are killed, one after another.
const VICTIMS: u64 = 20;
/// A victim is killed after it has acknowledged so many writes.
const WRITES_OF_A_VICTIM: u64 = 1_000;
/// Records of each writer; it writes them in turn.
const RECORDS: u64 = 500;
/// The record that every writer counts its writes in.
const COUNTER: u64 = u64::MAX;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => demonstrate(),
        [WRITER, store, writer] => write_until_released(store, writer),
        _ => Err("usage: parallel_writers".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("parallel_writers: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The record that a writer's n-th write goes to.
fn id(writer: u64, n: u64) -> u64 {
    (writer << 32) | (n % RECORDS)
}

/// What a writer's n-th write puts there.
fn value(writer: u64, n: u64) -> String {
    format!("write {n} of writer {writer}")
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// A writer process: write, count, acknowledge, until standard input is closed.
fn write_until_released(store: &str, writer: &str) -> Result<(), Failure> {
    let writer = writer.parse()?;
    let store = Store::open(store)?;
    let released = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let released = Arc::clone(&released);
        move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            // Relaxed: a flag that guards no data.
            released.store(true, Ordering::Relaxed);
        }
    });
    let mut out = io::stdout().lock();
    for n in 1.. {
        if released.load(Ordering::Relaxed) {
            break;
        }
        store.put(id(writer, n), value(writer, n).as_bytes())?;
        store.update(COUNTER, |old| Some((number(old) + 1).to_le_bytes()))?;
        writeln!(out, "{n}")?;
    }
    Ok(store.close()?)
}

fn demonstrate() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("parallel.rec");
    Store::options().record_size(64).regions(4).create(&path)?.close()?;

    let mut survivors = Vec::new();
    for writer in 0..SURVIVORS {
        survivors.push(start(&path, writer)?);
    }
    // The pipe of a survivor must be read, or it would soon wait for us.
    let mut releases = Vec::new();
    let mut readers = Vec::new();
    for mut survivor in survivors {
        releases.push(survivor.stdin());
        readers.push(thread::spawn(move || -> Result<u64, Failure> {
            let last = last_acknowledged(&mut survivor, 0, u64::MAX)?;
            survivor.finish()?;
            Ok(last)
        }));
    }

    // Number of writes that each writer acknowledged, and whether it was killed.
    let mut writers = Vec::new();
    for writer in SURVIVORS..SURVIVORS + VICTIMS {
        let mut victim = start(&path, writer)?;
        let last = last_acknowledged(&mut victim, 0, WRITES_OF_A_VICTIM)?;
        check(last == WRITES_OF_A_VICTIM, || format!("writer {writer} was at work"))?;
        victim.kill()?;
        // What it had acknowledged and we had not read yet counts too.
        let last = last_acknowledged(&mut victim, last, u64::MAX)?;
        println!("kill -9 {}: it had acknowledged {last} writes", victim.pid());
        writers.push((writer, last, true));
    }
    drop(releases);
    for (writer, reader) in (0..).zip(readers) {
        let last = reader.join().map_err(|_| "a thread panicked")??;
        println!("writer {writer} went on throughout: {last} writes");
        writers.push((writer, last, false));
    }

    let store = Store::open(&path)?;
    for &(writer, last, killed) in &writers {
        for record in 0..RECORDS {
            let found = store.get(id(writer, record))?;
            let found = found.as_deref();
            // The last write to this record that was acknowledged, if any; or the one that the writer died in.
            let acknowledged = (last + 1).saturating_sub(RECORDS).max(1)..=last;
            let expected = acknowledged.rev().find(|n| n % RECORDS == record);
            let in_flight = (killed && (last + 1) % RECORDS == record).then(|| value(writer, last + 1));
            let holds = found == expected.map(|n| value(writer, n)).as_deref().map(str::as_bytes)
                || in_flight.is_some_and(|value| found == Some(value.as_bytes()));
            check(holds, || {
                format!("record {record} of writer {writer} is at write {expected:?} ({found:?})")
            })?;
        }
    }
    let sum: u64 = writers.iter().map(|(_, last, _)| last).sum();
    let counter = number(store.get(COUNTER)?.as_deref());
    check((sum..=sum + VICTIMS).contains(&counter), || {
        format!(
            "the counter, {counter}, is the {sum} acknowledged writes and at most one more for each victim"
        )
    })?;
    let report = store.verify()?;
    check(report.is_clean(), || format!("verify finds no damage ({:?})", report.damage))?;
    println!(
        "{sum} acknowledged writes by {} processes, of which {VICTIMS} were killed: none is lost, none is torn; \
         the counter says {counter}",
        writers.len()
    );
    Ok(store.close()?)
}

fn start(path: &Path, writer: u64) -> Result<Writer, Failure> {
    Writer::start([path.to_path_buf(), writer.to_string().into()])
}

/// Reads acknowledgements until the writer ends or has acknowledged `enough` writes; gives the last
/// one. They come in order, none left out.
fn last_acknowledged(writer: &mut Writer, mut last: u64, enough: u64) -> Result<u64, Failure> {
    while last < enough {
        let Some(line) = writer.next_line()? else { break };
        check(line.parse() == Ok(last + 1), || format!("acknowledgement {} follows ({line})", last + 1))?;
        last += 1;
    }
    Ok(last)
}
