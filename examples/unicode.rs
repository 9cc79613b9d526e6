//! Four processes load the Unicode Character Database into one store at the same time. One of them is
//! killed with `kill -9` in the middle of a write. The others heal what it left and go on, a replacement
//! writes what it had not yet acknowledged, and then everything is checked.
//!
//! ```text
//! cargo run --release --example unicode            # the store goes into a temporary directory
//! cargo run --release --example unicode -- u.rec   # the store is kept
//! ```
//!
//! Exit code 0: everything that was claimed on the way was checked and holds.

use std::collections::HashMap;
use std::env;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use recstore::Store;

use common::{Failure, WRITER, Writer, check};

mod common;

const WRITERS: usize = 4;
/// The writer that is killed.
const VICTIM: usize = WRITERS - 1;
const CRAB: u64 = 0x1F980;
/// What a writer says when it has stopped in the middle of its share.
const HALF_WAY: &str = "half way, in region ";

static UNICODE_DATA: &str = include_str!("data/UnicodeData.txt");

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => in_temporary_directory(),
        [WRITER, store, share, skip, stop_at] => write_share(store, share, skip, stop_at),
        [store] if !store.starts_with('-') => demonstrate(Path::new(store)),
        _ => Err("usage: unicode [STORE]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("unicode: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Every line of the database, and its id: the code point that it begins with.
fn records() -> Result<Vec<(u64, &'static str)>, Failure> {
    UNICODE_DATA
        .lines()
        .map(|line| {
            let code_point = line.split(';').next().unwrap_or_default();
            Ok((u64::from_str_radix(code_point, 16)?, line))
        })
        .collect()
}

/// A writer's share of the lines: every fourth one, so that the writers meet in every region.
fn share_of(writer: usize) -> Result<Vec<(u64, &'static str)>, Failure> {
    Ok(records()?.into_iter().skip(writer).step_by(WRITERS).collect())
}

/// A writer process: writes its share from line `skip` on, and acknowledges each line. It stops at line
/// `stop_at`, if that is a number, until its standard input is closed: the victim while it is inside
/// the write of that line, the others before it.
fn write_share(store: &str, writer: &str, skip: &str, stop_at: &str) -> Result<(), Failure> {
    let (writer, skip, stop_at) = (writer.parse()?, skip.parse()?, stop_at.parse::<usize>().ok());
    let store = Store::open(store)?;
    for (n, (id, line)) in share_of(writer)?.into_iter().enumerate().skip(skip) {
        match stop_at == Some(n) {
            true if writer == VICTIM => {
                // `update` runs the closure while this process holds the lock of the record's region.
                let mut stopped = Ok(());
                store.update(id, |_| {
                    stopped = stop(store.region_of(id));
                    Some(line)
                })?;
                stopped?;
            }
            stopping => {
                if stopping {
                    stop(store.region_of(id))?;
                }
                store.put(id, line.as_bytes())?;
            }
        }
        writeln!(io::stdout(), "{id:X}")?;
    }
    Ok(store.close()?)
}

/// Says where this writer is, and waits until its standard input is closed.
fn stop(region: u32) -> io::Result<()> {
    writeln!(io::stdout(), "{HALF_WAY}{region}")?;
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn in_temporary_directory() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    demonstrate(&directory.path().join("unicode.rec"))
}

fn demonstrate(path: &Path) -> Result<(), Failure> {
    let begin = Instant::now();
    let records = records()?;
    let by_id: HashMap<u64, &str> = records.iter().copied().collect();
    Store::create(path)?.close()?;
    println!("store      {}", path.display());
    println!("writers    {WRITERS} processes, {} records", records.len());

    // All four set out. None goes beyond the middle of its share: the victim stops there inside a write,
    // the others before one, or earlier if they need the region that the victim is in.
    let half = records.len() / WRITERS / 2;
    let mut held_back = Vec::new();
    let mut others = Vec::new();
    for writer in (0..WRITERS).filter(|&writer| writer != VICTIM) {
        let mut writer = start(path, writer, 0, Some(half))?;
        held_back.push(writer.stdin());
        others.push(thread::spawn(move || -> Result<Vec<u64>, Failure> {
            let (mut ids, _) = read_acknowledgements(&mut writer)?;
            ids.extend(read_acknowledgements(&mut writer)?.0);
            writer.finish()?;
            Ok(ids)
        }));
    }
    let mut victim = start(path, VICTIM, 0, Some(half))?;
    let (by_victim, region) = read_acknowledgements(&mut victim)?;
    let region = region.ok_or("the victim ended early")?;
    let owner = Store::open_read_only(path)?.stats()?.regions.get(region).and_then(|r| r.lock.clone());
    check(owner.as_ref().is_some_and(|o| o.pid == victim.pid() && o.alive), || {
        format!("the victim, process {}, holds region {region} ({owner:?})", victim.pid())
    })?;
    println!(
        "victim     process {}: has acknowledged {} records, is inside the next write and holds region {region}",
        victim.pid(),
        by_victim.len()
    );

    // The others go on, and need that region for hundreds of records. Then the victim dies.
    drop(held_back);
    victim.kill()?;
    println!("kill -9    {}", victim.pid());
    let (more, _) = read_acknowledgements(&mut victim)?;
    check(more.is_empty(), || "the victim was killed inside the write".into())?;
    let mut all = by_victim.clone();
    for other in others {
        all.extend(other.join().map_err(|_| "a thread panicked")??);
    }

    // This handle can't repair anything: what it sees is what the three writers left.
    let store = Store::open_read_only(path)?;
    let left = store.stats()?.regions.iter().filter(|r| r.lock.is_some()).count();
    check(left == 0, || format!("no region is locked ({left} are)"))?;
    println!("healed     the other {VICTIM} wrote all their records; region {region} is free again");
    for id in &all {
        let record = store.get(*id)?;
        check(record.as_deref() == by_id.get(id).map(|l| l.as_bytes()), || {
            format!("record {id:#X} is what was acknowledged ({record:?})")
        })?;
    }
    let unfinished = records.len() - all.len();
    check(store.len()? == all.len() as u64, || "the unfinished write left no record".into())?;
    println!(
        "read back  {} acknowledged records, {} of them the victim's; {unfinished} are missing: the rest of its share",
        all.len(),
        by_victim.len()
    );
    store.close()?;

    let mut replacement = start(path, VICTIM, by_victim.len(), None)?;
    let (ids, _) = read_acknowledgements(&mut replacement)?;
    replacement.finish()?;
    check(ids.len() == unfinished, || format!("the replacement wrote {unfinished} records ({})", ids.len()))?;
    println!("finished   a replacement wrote the other {unfinished}");

    let store = Store::open(path)?;
    let report = store.verify()?;
    check(report.is_clean(), || format!("verify finds no damage ({:?})", report.damage))?;
    check(report.records == records.len() as u64, || format!("no record is missing ({})", report.records))?;
    for (id, line) in &records {
        let record = store.get(*id)?;
        check(record.as_deref() == Some(line.as_bytes()), || {
            format!("record {id:#X} is whole ({record:?})")
        })?;
    }
    println!("verify     {} records, no damage; every one equals its line", report.records);
    let crab = store.get(CRAB)?.ok_or("the crab is missing")?;
    println!("{CRAB:#X}    {}", String::from_utf8_lossy(&crab));
    store.close()?;
    println!("all of it holds ({:.2?})", begin.elapsed());
    Ok(())
}

fn start(path: &Path, writer: usize, skip: usize, stop_at: Option<usize>) -> Result<Writer, Failure> {
    let stop_at = stop_at.map_or("never".into(), |n| n.to_string());
    Writer::start([PathBuf::from(path), writer.to_string().into(), skip.to_string().into(), stop_at.into()])
}

/// The ids that a writer acknowledges until it stops half way, and the region that it stops in; or
/// until it ends.
fn read_acknowledgements(writer: &mut Writer) -> Result<(Vec<u64>, Option<usize>), Failure> {
    let mut ids = Vec::new();
    while let Some(line) = writer.next_line()? {
        if let Some(region) = line.strip_prefix(HALF_WAY) {
            return Ok((ids, Some(region.parse()?)));
        }
        ids.push(u64::from_str_radix(&line, 16)?);
    }
    Ok((ids, None))
}
