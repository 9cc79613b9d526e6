//! What `get` and `put` of 64 bytes cost, by number of records, of processes and of regions.
//!
//! ```text
//! cargo bench --bench curves                     1 thousand to 30 million records (4 GB of file)
//! cargo bench --bench curves -- --quick          up to 1 million
//! cargo bench --bench curves -- --regions 64 --records 1000,1000000 --rounds 5 --dir /dev/shm
//! ```
//!
//! For each number of regions one store grows from the least number of records to the most. At every step 1, 2,
//! 4 and 8 processes in turn read records at random, and overwrite them, all within the same
//! stretch of time; the tables have medians of the rounds, after one round that is not counted. Each process has
//! touched every record before, so that no page is new to it. Checksums are verified. The store lies
//! in the directory of temporary files, unless `--dir` or `TMPDIR` names another: with `/dev/shm` the disk has no
//! part in the figures.
//!
//! A last table has what explains the knees: a read of one line at a random place of so many bytes of bare
//! memory, each read waiting for the one before, in pages of 4 KiB as a store has them, and in huge ones,
//! whose translations all lie in the TLB. A `get` of a record that no cache holds waits for two such lines, one
//! of the index and then the slot's.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memmap2::{Advice, MmapMut};
use recstore::Store;

use common::{Random, median, shuffled};

mod common;

const SIZE: usize = 64;
const PROCESSES: [usize; 4] = [1, 2, 4, 8];
const WORKS: [&str; 2] = ["get", "put"];

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

struct Settings {
    records: Vec<u64>,
    regions: Vec<u32>,
    rounds: usize,
    /// How long one figure is measured in one round.
    span: Duration,
    dir: PathBuf,
}

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [name, path] = &arguments[..]
        && name == "--child"
    {
        return child(Path::new(path));
    }
    let settings = parse(&arguments)?;
    let begin = Instant::now();
    let mut steps = Vec::new();
    for &regions in &settings.regions {
        let table = measure(&settings, regions)?;
        show(regions, &table);
        steps.extend(table.into_iter().map(|step| (step.records, step.bytes)));
    }
    show_memory(&settings, &steps)?;
    println!("{:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn parse(arguments: &[String]) -> Fallible<Settings> {
    let mut settings = Settings {
        records: vec![
            1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000,
        ],
        regions: vec![16, 64, 1024],
        rounds: 3,
        span: Duration::from_millis(200),
        dir: std::env::temp_dir(),
    };
    let mut arguments = arguments.iter();
    while let Some(name) = arguments.next() {
        if name == "--quick" {
            settings.records.retain(|&n| n <= 1_000_000);
            settings.rounds = 2;
            settings.span = Duration::from_millis(80);
            continue;
        }
        let value = arguments.next().ok_or(format!("{name} takes a value"))?;
        match name.as_str() {
            "--records" => {
                settings.records = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
                settings.records.sort_unstable();
            }
            "--regions" => settings.regions = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--rounds" => settings.rounds = value.parse::<usize>()?.max(1),
            "--dir" => settings.dir = value.into(),
            _ => return Err(format!("no option {name}").into()),
        }
    }
    Ok(settings)
}

/// Operations by the second: of `get` and of `put`, by number of processes.
type Rates = [[f64; PROCESSES.len()]; WORKS.len()];

/// What was seen with so many records.
struct Step {
    records: u64,
    /// Bytes of their slots and of the index.
    bytes: u64,
    rates: Rates,
}

fn measure(settings: &Settings, regions: u32) -> Fallible<Vec<Step>> {
    let dir = tempfile::tempdir_in(&settings.dir)?;
    let path = dir.path().join("curves.rec");
    let store = Store::options().record_size(SIZE).regions(regions).create(&path)?;
    let most = PROCESSES.into_iter().max().unwrap_or(1);
    let mut workers = (0..most).map(|n| Worker::start(&path, n)).collect::<Fallible<Vec<_>>>()?;
    let mut table = Vec::new();
    let mut loaded = 0;
    for &records in &settings.records {
        eprintln!("{regions} regions, {records} records");
        load(&store, loaded, records)?;
        loaded = records;
        for worker in &mut workers {
            worker.ask("touch")?;
            worker.answer()?; // One after another: there are more of them than processors.
        }
        let mut seen: [[Vec<f64>; PROCESSES.len()]; WORKS.len()] = Default::default();
        for round in 0..=settings.rounds {
            for (n, processes) in PROCESSES.into_iter().enumerate() {
                for (w, work) in WORKS.into_iter().enumerate() {
                    let rate = together(&mut workers[..processes], work, records, settings.span)?;
                    if round > 0 {
                        seen[w][n].push(rate);
                    }
                }
            }
        }
        let stats = store.stats()?;
        let bytes = records * stats.slot_size + stats.index_bytes;
        table.push(Step { records, bytes, rates: seen.map(|by_processes| by_processes.map(median)) });
    }
    Ok(table)
}

/// Writes the records from number `from` on, in random order.
fn load(store: &Store, from: u64, to: u64) -> Fallible<()> {
    let mut ids = shuffled(to - from);
    ids.iter_mut().for_each(|id| *id += from);
    let data = [7; SIZE];
    for ids in ids.chunks(10_000) {
        store.write_many(ids.iter().map(|&id| (id, &data[..])))?;
    }
    Ok(())
}

fn show(regions: u32, table: &[Step]) {
    let several =
        || WORKS.iter().flat_map(|work| PROCESSES[1..].iter().map(move |n| format!("{work} {n} p., M/s")));
    println!("{regions} regions: one process, then so many in all\n");
    println!(
        "| records | slots and index, MB | get, ns | put, ns | {} |",
        several().collect::<Vec<_>>().join(" | ")
    );
    println!("|{}", " ---: |".repeat(4 + several().count()));
    for Step { records, bytes, rates } in table {
        let size = std::iter::once(format!("{:.1}", *bytes as f64 / 1e6));
        let alone = rates.iter().map(|by_processes| format!("{:.0}", 1e9 / by_processes[0]));
        let all = rates.iter().flat_map(|by| &by[1..]).map(|rate| format!("{:.2}", rate / 1e6));
        let cells: Vec<String> = size.chain(alone).chain(all).collect();
        println!("| {} | {} |", in_groups(*records), cells.join(" | "));
    }
    println!();
}

/// The bare memory's times for the sizes that stores with the first number of regions had.
fn show_memory(settings: &Settings, steps: &[(u64, u64)]) -> Fallible<()> {
    println!("One line of bare memory, by its size\n");
    println!("| records | MB | 4 KiB pages, ns | huge pages, ns |\n| ---: | ---: | ---: | ---: |");
    for &(records, bytes) in &steps[..settings.records.len()] {
        eprintln!("{bytes} bytes of bare memory");
        let mut seen = [Vec::new(), Vec::new()];
        let memory = [Advice::NoHugePage, Advice::HugePage].map(|pages| bare_memory(bytes, pages));
        for _ in 0..settings.rounds {
            for (memory, seen) in memory.iter().zip(&mut seen) {
                seen.push(line_time(memory.as_ref().map_err(ToString::to_string)?, settings.span));
            }
        }
        let [small, huge] = seen.map(median);
        println!("| {} | {:.1} | {small:.1} | {huge:.1} |", in_groups(records), bytes as f64 / 1e6);
    }
    println!();
    Ok(())
}

/// So many bytes of memory, all of them touched.
fn bare_memory(bytes: u64, pages: Advice) -> std::io::Result<MmapMut> {
    let mut memory = MmapMut::map_anon((bytes as usize).next_multiple_of(1 << 21))?;
    memory.advise(pages)?;
    for page in memory.chunks_mut(4096) {
        page[0] = 0;
        page[1] = 1;
    }
    Ok(memory)
}

/// Nanoseconds of a read whose place depends on what the last one gave.
fn line_time(memory: &[u8], span: Duration) -> f64 {
    let lines = (memory.len() / 64) as u64;
    let mut random = Random::new(1);
    let mut last = 0;
    let (begin, mut done) = (Instant::now(), 0u64);
    while begin.elapsed() < span {
        for _ in 0..1_000 {
            // The first byte of a line is 0, which neither compiler nor processor knows.
            let line = random.below(lines) + u64::from(last);
            last = black_box(memory[line as usize * 64]);
        }
        done += 1_000;
    }
    begin.elapsed().as_secs_f64() * 1e9 / done as f64
}

/// A number with commas.
fn in_groups(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(",")
}

/// Operations by the second of all these workers, who begin and end at the same times.
fn together(workers: &mut [Worker], work: &str, records: u64, span: Duration) -> Fallible<f64> {
    let begin = now() + Duration::from_millis(5);
    let ask = format!("{work} {records} {} {}", begin.as_nanos(), span.as_nanos());
    for worker in &mut *workers {
        worker.ask(&ask)?;
    }
    let mut rate = 0.0;
    for worker in workers {
        rate += worker.answer()?;
    }
    Ok(rate)
}

/// A process that works on a store.
struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(path: &Path, number: usize) -> Fallible<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--child")
            .arg(path)
            .env("RECSTORE_WORKER", number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no pipe")?;
        let output = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, input, output })
    }

    fn ask(&mut self, what: &str) -> Fallible<()> {
        Ok(writeln!(self.input, "{what}")?)
    }

    fn answer(&mut self) -> Fallible<f64> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It would end by itself, when its input does; but not before a store that it uses is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn child(path: &Path) -> Fallible<()> {
    let number: u64 = std::env::var("RECSTORE_WORKER")?.parse()?;
    let store = Store::open(path)?;
    let mut random = Random::new(number + 1);
    let mut out = Vec::with_capacity(SIZE);
    let mut data = [number as u8; SIZE];
    let mut writes = 0u64;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let done = match words[..] {
            ["touch"] => {
                store.scan(|_, _, _| ControlFlow::Continue(()))?;
                0.0
            }
            ["get", records, begin, span] => {
                let records = records.parse()?;
                during(begin.parse()?, span.parse()?, || {
                    let found = store.get_into(random.below(records), &mut out)?;
                    black_box(&out);
                    assert!(found.is_some(), "a record is gone");
                    Ok(())
                })?
            }
            ["put", records, begin, span] => {
                let records = records.parse()?;
                during(begin.parse()?, span.parse()?, || {
                    // No write is of what is there already.
                    writes += 1;
                    data[..8].copy_from_slice(&writes.to_le_bytes());
                    store.put(random.below(records), &data).map(drop)
                })?
            }
            _ => return Err(format!("asked for {line}").into()),
        };
        println!("{done}");
    }
    Ok(())
}

/// Repeats `work` from `begin` on (nanoseconds of the clock) for `span` nanoseconds; how often in a second.
fn during(begin: u64, span: u64, mut work: impl FnMut() -> recstore::Result<()>) -> Fallible<f64> {
    let (begin, span) = (Duration::from_nanos(begin), Duration::from_nanos(span));
    std::thread::sleep(begin.saturating_sub(now()));
    let mut done = 0u64;
    while now() < begin + span {
        for _ in 0..32 {
            work()?;
        }
        done += 32;
    }
    Ok(done as f64 / span.as_secs_f64())
}
