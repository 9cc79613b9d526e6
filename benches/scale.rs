//! Calls that look at the whole store, by number of records and of regions: what grows with the store, and what with the regions.
//!
//! ```text
//! cargo bench --bench scale                      100 thousand and 1 million records
//! cargo bench --bench scale -- --quick           100 thousand
//! cargo bench --bench scale -- --full            up to 10 million records (2 GB of file)
//! cargo bench --bench scale -- --regions 16,256 --records 1000000 --rounds 5 --dir /dev/shm
//! ```
//!
//! For each number of records there is a store with 16 regions, and one with 16,384: of 100 thousand records, each of these has one
//! small extent. The rounds alternate between the stores, and the tables have medians. Records are 64 bytes.
//!
//! - *load*: `write_many` of random ids, once for each store, 10,000 a call.
//! - *scan*: every record, by `Store::scan`.
//! - *verify*: `Store::verify`, by itself; then beside a thread that overwrites records at random.
//! - *recovery*: the first opening of a copy of the file, which was made while the store was in use. Its bytes are not known to be
//!   those of the last users.
//! - *death*: a process that puts is killed, which nearly always is inside a write. When it is gone, the worst of one put in each region: one
//!   of them finishes the dead one's write. Of stores with up to 64 regions, beside the same puts without a death.
//! - *snapshot*: 1,000 `Snapshot::get` of records that were replaced after the snapshot's moment, and the memory that the process has more
//!   of after them.

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Random, median, shuffled};
use recstore::Store;

mod common;

const SIZE: usize = 64;
const CHANGED: u64 = 1_000;
/// Processes that are killed in a round.
const DEATHS: usize = 10;
/// Stores with more regions are left out where each region gets a put.
const REGIONS_TO_PUT_IN: u32 = 64;
/// In the environment of a process that puts until it is killed: the path of the store, and its records.
const VICTIM: [&str; 2] = ["RECSTORE_SCALE_STORE", "RECSTORE_SCALE_RECORDS"];

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

struct Settings {
    records: Vec<u64>,
    regions: Vec<u32>,
    rounds: usize,
    dir: PathBuf,
}

fn main() -> Fallible<()> {
    if let [Ok(path), Ok(records)] = VICTIM.map(std::env::var) {
        return be_killed(&path, records.parse()?);
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let settings = parse(&arguments)?;
    let begin = Instant::now();
    let mut table = Vec::new();
    for &records in &settings.records {
        table.push((records, measure(&settings, records)?));
    }
    show(&settings, &table);
    println!("{:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn parse(arguments: &[String]) -> Fallible<Settings> {
    let mut settings = Settings {
        records: vec![100_000, 1_000_000],
        regions: vec![16, 16_384],
        rounds: 3,
        dir: std::env::temp_dir(),
    };
    let mut arguments = arguments.iter();
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--quick" => settings.records.truncate(1),
            "--full" => settings.records.push(10_000_000),
            _ => {
                let value = arguments.next().ok_or(format!("{name} takes a value"))?;
                match name.as_str() {
                    "--records" => {
                        settings.records = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
                    }
                    "--regions" => {
                        settings.regions = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
                    }
                    "--rounds" => settings.rounds = value.parse::<usize>()?.max(1),
                    "--dir" => settings.dir = value.into(),
                    _ => return Err(format!("no option {name}").into()),
                }
            }
        }
    }
    Ok(settings)
}

/// What was measured of one store: medians.
#[derive(Clone, Copy)]
struct Row {
    load_s: f64,
    scan_ms: f64,
    verify_ms: f64,
    beside_ms: f64,
    put_p999_us: f64,
    put_worst_us: f64,
    recovery_ms: f64,
    death_us: f64,
    no_death_us: f64,
    snapshot_ms: f64,
    snapshot_mb: f64,
}

/// The same, round by round.
#[derive(Default)]
struct Samples {
    scan_ms: Vec<f64>,
    verify_ms: Vec<f64>,
    beside_ms: Vec<f64>,
    put_p999_us: Vec<f64>,
    put_worst_us: Vec<f64>,
    recovery_ms: Vec<f64>,
    death_us: Vec<f64>,
    no_death_us: Vec<f64>,
    snapshot_ms: Vec<f64>,
    snapshot_mb: Vec<f64>,
}

/// One row for each number of regions.
fn measure(settings: &Settings, records: u64) -> Fallible<Vec<Row>> {
    let dir = tempfile::tempdir_in(&settings.dir)?;
    let mut stores = Vec::new();
    for &regions in &settings.regions {
        eprintln!("{records} records in {regions} regions");
        let path = dir.path().join(format!("{regions}.rec"));
        let store = Store::options().record_size(SIZE).regions(regions).create(&path)?;
        let begin = Instant::now();
        let data = [7; SIZE];
        for ids in shuffled(records).chunks(10_000) {
            store.write_many(ids.iter().map(|&id| (id, &data[..])))?;
        }
        stores.push((path, store, begin.elapsed().as_secs_f64(), Samples::default()));
    }
    for round in 0..settings.rounds {
        for (path, store, _, samples) in &mut stores {
            samples.take(path, store, records, round as u64)?;
        }
    }
    let rows = stores.into_iter().map(|(_, _, load_s, samples)| samples.medians(load_s));
    Ok(rows.collect())
}

impl Samples {
    fn take(&mut self, path: &Path, store: &Store, records: u64, round: u64) -> Fallible<()> {
        let mut seen = 0;
        self.scan_ms.push(ms(|| {
            store.scan(|_, _, data| {
                seen += 1;
                black_box(data);
                ControlFlow::Continue(())
            })
        })?);
        assert_eq!(seen, records);
        self.verify_ms.push(ms(|| check(store))?);
        self.verify_beside_a_writer(store, records, round)?;

        let copy = path.with_extension("copy");
        std::fs::copy(path, &copy)?;
        let mut recovered = None;
        self.recovery_ms.push(ms(|| {
            recovered = Some(Store::open(&copy)?);
            Ok(())
        })?);
        assert_eq!(recovered.map(|store| store.len()).transpose()?, Some(records));
        std::fs::remove_file(&copy)?;

        let regions = store.stats()?.regions.len() as u32;
        if regions <= REGIONS_TO_PUT_IN {
            for _ in 0..DEATHS {
                self.no_death_us.push(worst_put_us(store, regions)?);
                kill_one(path, records)?;
                self.death_us.push(worst_put_us(store, regions)?);
            }
        }

        let snapshot = store.snapshot()?;
        let mut random = Random::new(round + 7);
        let changed: Vec<u64> = (0..CHANGED).map(|_| random.below(records)).collect();
        for id in &changed {
            store.put(*id, [round as u8; SIZE])?;
        }
        let before = memory_mb();
        self.snapshot_ms.push(ms(|| {
            for &id in &changed {
                assert!(snapshot.get(id)?.is_some(), "a record is gone");
            }
            Ok(())
        })?);
        self.snapshot_mb.push(memory_mb() - before);
        drop(snapshot);
        store.sync()?;
        Ok(())
    }

    fn verify_beside_a_writer(&mut self, store: &Store, records: u64, round: u64) -> Fallible<()> {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut random = Random::new(round + 100);
                let mut took = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    store.put(random.below(records), [9; SIZE])?;
                    took.push(begin.elapsed().as_secs_f64() * 1e6);
                }
                Ok::<_, recstore::Error>(took)
            });
            let verified = ms(|| check(store));
            is_over.store(true, Ordering::Relaxed);
            let mut took = writer.join().map_err(|_| "the writer failed")??;
            self.beside_ms.push(verified?);
            took.sort_by(f64::total_cmp);
            let nth = |part: f64| took.get((took.len() as f64 * part) as usize).or(took.last()).copied();
            self.put_p999_us.push(nth(0.999).unwrap_or(0.0));
            self.put_worst_us.push(nth(1.0).unwrap_or(0.0));
            Ok(())
        })
    }

    fn medians(self, load_s: f64) -> Row {
        Row {
            load_s,
            scan_ms: median(self.scan_ms),
            verify_ms: median(self.verify_ms),
            beside_ms: median(self.beside_ms),
            put_p999_us: median(self.put_p999_us),
            put_worst_us: median(self.put_worst_us),
            recovery_ms: median(self.recovery_ms),
            death_us: if self.death_us.is_empty() { f64::NAN } else { median(self.death_us) },
            no_death_us: if self.no_death_us.is_empty() { f64::NAN } else { median(self.no_death_us) },
            snapshot_ms: median(self.snapshot_ms),
            snapshot_mb: median(self.snapshot_mb),
        }
    }
}

/// Puts random records until somebody kills this process.
fn be_killed(path: &str, records: u64) -> Fallible<()> {
    let store = Store::open(path)?;
    let mut random = Random::new(std::process::id().into());
    println!("ready");
    loop {
        store.put(random.below(records), [8; SIZE])?;
    }
}

/// Starts a process that puts, and kills it when it has begun. Returns when it is gone.
fn kill_one(path: &Path, records: u64) -> Fallible<()> {
    let mut victim = Command::new(std::env::current_exe()?)
        .env(VICTIM[0], path)
        .env(VICTIM[1], records.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(victim.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    std::thread::sleep(Duration::from_millis(5));
    victim.kill()?;
    victim.wait()?;
    Ok(())
}

/// The longest of one put in each region.
fn worst_put_us(store: &Store, regions: u32) -> Fallible<f64> {
    let mut worst = 0.0_f64;
    for region in 0..regions {
        let id = (0..).find(|&id| store.region_of(id) == region).ok_or("no id of the region")?;
        worst = worst.max(1e3 * ms(|| store.put(id, [6; SIZE]).map(drop))?);
    }
    Ok(worst)
}

fn check(store: &Store) -> recstore::Result<()> {
    let report = store.verify()?;
    assert!(report.is_clean(), "{:?}", report.damage);
    Ok(())
}

fn ms(work: impl FnOnce() -> recstore::Result<()>) -> Fallible<f64> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// Memory of the process that is not a file's.
fn memory_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

fn show(settings: &Settings, table: &[(u64, Vec<Row>)]) {
    println!(
        "| records | regions | load, s | scan, ms | verify, ms | beside puts, ms | put then, p99.9, us | worst, us | \
         recovery, ms | first put after a death, us | without one, us | snapshot, ms | MB |"
    );
    println!("|{}", " ---: |".repeat(13));
    for (records, rows) in table {
        for (regions, row) in settings.regions.iter().zip(rows) {
            println!(
                "| {records} | {regions} | {:.2} | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} | {:.2} | {:.1} |",
                row.load_s,
                row.scan_ms,
                row.verify_ms,
                row.beside_ms,
                row.put_p999_us,
                row.put_worst_us,
                row.recovery_ms,
                row.death_us,
                row.no_death_us,
                row.snapshot_ms,
                row.snapshot_mb
            );
        }
    }
    println!("\nMost regions to fewest, and verify to scan\n");
    println!("| records | load | scan | verify | recovery | snapshot | verify to scan, by regions |");
    println!("|{}", " ---: |".repeat(7));
    for (records, rows) in table {
        let [Some(few), Some(many)] = [rows.first(), rows.last()] else { continue };
        let to_scan: Vec<String> =
            rows.iter().map(|row| format!("{:.2}x", row.verify_ms / row.scan_ms)).collect();
        println!(
            "| {records} | {:.2}x | {:.2}x | {:.2}x | {:.2}x | {:.2}x | {} |",
            many.load_s / few.load_s,
            many.scan_ms / few.scan_ms,
            many.verify_ms / few.verify_ms,
            many.recovery_ms / few.recovery_ms,
            many.snapshot_ms / few.snapshot_ms,
            to_scan.join(", ")
        );
    }
    println!();
}
