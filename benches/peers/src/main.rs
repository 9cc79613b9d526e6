//! The same work, from the same keys, on recstore and on the stores that people would pick instead.
//!
//! ```text
//! cargo bench --bench peers                    all of it
//! cargo bench --bench peers -- --quick         in less than two minutes
//! cargo bench --bench peers -- --only W2,W4 --sizes 64 --peers recstore,lmdb --rounds 5
//! ```
//!
//! In a round every peer does a workload before any does the next one, and each round begins with another peer;
//! what is shown is the median of the rounds. Every measurement is made by fresh child processes.

mod clock;
mod data;
mod machine;
mod peer;
mod plan;
mod report;
mod run;
mod work;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::clock::Span;
use crate::peer::Peer;
use crate::report::Report;

/// What to run.
pub struct Settings {
    pub quick: bool,
    pub rounds: u64,
    pub sizes: Vec<usize>,
    pub peers: Vec<Peer>,
    /// Workloads whose names begin with one of these; all, if there are none.
    pub only: Vec<String>,
    pub span: Span,
    pub dir: PathBuf,
    pub json: PathBuf,
    /// Processor time instead of time by the clock: for a machine that is busy with other work.
    pub by_cpu: bool,
    /// Records, instead of the number that goes with the size.
    pub records: Option<u64>,
}

impl Settings {
    /// Records of this size.
    pub fn records(&self, size: usize) -> u64 {
        let (full, quick) = match size {
            0..=255 => (1_000_000, 100_000),
            256..=4095 => (250_000, 25_000),
            _ => (8_000, 1_000),
        };
        self.records.unwrap_or(if self.quick { quick } else { full })
    }

    pub fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| workload.split(' ').next() == Some(o))
    }
}

fn target_dir() -> PathBuf {
    // target/release/recstore-peers
    let exe = std::env::current_exe().unwrap();
    exe.ancestors().nth(2).unwrap_or(&exe).to_path_buf()
}

fn parse(arguments: &[String]) -> Result<Settings, String> {
    let mut arguments = arguments.iter();
    let mut settings = Settings {
        quick: false,
        rounds: 0,
        sizes: Vec::new(),
        peers: Peer::ALL.iter().copied().filter(|&peer| peer != Peer::SqliteNormal).collect(),
        only: Vec::new(),
        span: Span { measure: Duration::from_millis(300), warm_up_max: Duration::from_millis(400) },
        dir: target_dir().join("data"),
        json: target_dir().join("peers.json"),
        by_cpu: false,
        records: None,
    };
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} takes a value"));
        let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{name} {text}: {e}"));
        match name.as_str() {
            "--bench" => {} // Cargo's own.
            "--quick" => settings.quick = true,
            "--cpu-time" => settings.by_cpu = true,
            "--rounds" => settings.rounds = number(value()?)?,
            "--records" => settings.records = Some(number(value()?)?),
            "--sizes" => {
                for size in value()?.split(',') {
                    settings.sizes.push(number(size)? as usize);
                }
            }
            "--peers" => {
                let named = |name: &str| Peer::named(name).ok_or(format!("no peer {name}"));
                settings.peers = value()?.split(',').map(named).collect::<Result<_, _>>()?;
            }
            "--only" => settings.only.extend(value()?.split(',').map(str::to_owned)),
            "--dir" => settings.dir = value()?.into(),
            "--json" => settings.json = value()?.into(),
            _ => return Err(format!("no option {name}")),
        }
    }
    if settings.quick {
        settings.span = Span { measure: Duration::from_millis(40), warm_up_max: Duration::from_millis(60) };
    }
    if settings.rounds == 0 {
        settings.rounds = if settings.quick { 2 } else { 3 };
    }
    if settings.sizes.is_empty() {
        settings.sizes = if settings.quick { vec![64, 1024] } else { vec![64, 1024, 65536] };
    }
    if let Some(size) = settings.sizes.iter().find(|&&size| size < 32 || size % 8 != 0) {
        return Err(format!("size {size}: a multiple of 8 from 32"));
    }
    Ok(settings)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, job] = &arguments[..]
        && name == "--child"
    {
        return work::child(job);
    }
    let settings = parse(&arguments).unwrap_or_else(|what| {
        eprintln!("peers: {what}");
        std::process::exit(2);
    });
    let begin = Instant::now();
    machine::touch_memory(if settings.quick { 1 << 30 } else { 4 << 30 });
    let mut report = Report::new(&settings);
    for &size in &settings.sizes {
        for round in 0..settings.rounds {
            plan::round(&settings, size, round, &mut report);
        }
        println!("{}", report.table(size));
    }
    println!("{}", report.promises());
    report.write(&settings.json, begin.elapsed());
    println!("\n{:.0} s; every sample is in {}", begin.elapsed().as_secs_f64(), settings.json.display());
}
