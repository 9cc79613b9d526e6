//! Conducts: boot, check, work, cut the power, again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::disk::{Disk, Flushes, Loss, Lost};
use super::guest::{FAULT, ROLE, ROUND, SEED, STORE, WRITERS};
use super::machine::{Event, Machine, Parts, file_system};
use super::oracle::Oracle;
use super::work::{Batch, End, GEOMETRIES, Round, STREAMS};

const DISK_BYTES: u64 = 64 << 20;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) rounds: u64,
    /// Rounds whose power went before the store had been checked.
    pub(crate) cut_while_opening: u64,
    pub(crate) boot_seconds: Vec<f64>,
    /// Opening after a crash, inside the machine, milliseconds.
    pub(crate) recovery_ms: Vec<f64>,
    pub(crate) recoveries: u64,
    pub(crate) regions_rebuilt: u64,
    pub(crate) slots_dropped: u64,
    pub(crate) syncs: u64,
    pub(crate) reopens: u64,
    pub(crate) durable_writes: u64,
    pub(crate) disk_writes: u64,
    pub(crate) lost: Lost,
    pub(crate) took: Duration,
}

impl Figures {
    pub(crate) fn acknowledged(&self) -> u64 {
        self.syncs + self.reopens + self.durable_writes
    }

    pub(crate) fn print(&self) {
        let spread = |all: &[f64]| {
            let mut all = all.to_vec();
            all.sort_by(f64::total_cmp);
            match all[..] {
                [] => "none".to_string(),
                [least, ..] => {
                    format!("{least:.1} to {:.1}, median {:.1}", all[all.len() - 1], all[all.len() / 2])
                }
            }
        };
        println!(
            "{} rounds in {:.0} s, {} of them cut while opening",
            self.rounds,
            self.took.as_secs_f64(),
            self.cut_while_opening
        );
        println!("seconds to boot: {}", spread(&self.boot_seconds));
        let (syncs, reopens, writes) = (self.syncs, self.reopens, self.durable_writes);
        println!(
            "acknowledged as durable: {} ({syncs} syncs, {reopens} closings, {writes} writes)",
            self.acknowledged()
        );
        println!(
            "recoveries: {} ({} regions), milliseconds in the machine: {}",
            self.recoveries,
            self.regions_rebuilt,
            spread(&self.recovery_ms)
        );
        println!("torn slots dropped: {}", self.slots_dropped);
        let Lost { unflushed, lost, between } = self.lost;
        println!(
            "disk: {} writes and flushes; of {unflushed} unflushed sectors {lost} lost their newest state, {between} of them kept one between",
            self.disk_writes
        );
    }
}

pub(crate) struct Run {
    parts: Parts,
    dir: TempDir,
    seed: u64,
    rng: StdRng,
    flushes: Flushes,
    fault: Option<String>,
    disk: Option<Disk>,
    at_boot: Vec<u8>,
    oracles: Vec<Oracle>,
    existed: Vec<bool>,
    pub(crate) figures: Figures,
}

/// How far a boot has come, and with which batches.
struct Progress {
    store: usize,
    round: Round,
    streams: u64,
    is_checked: bool,
    /// What each stream may be at: the number of a batch, and the batch.
    batches: Vec<(u64, Batch)>,
}

impl Run {
    pub(crate) fn new(kernel: PathBuf, seed: u64, flushes: Flushes, fault: Option<&str>) -> Self {
        let dir = crate::common::scratch();
        let disk = Disk::new(file_system(dir.path(), DISK_BYTES), flushes);
        Self {
            parts: Parts::new(&kernel, dir.path()),
            dir,
            seed,
            rng: StdRng::seed_from_u64(seed),
            flushes,
            fault: fault.map(str::to_string),
            disk: Some(disk),
            at_boot: Vec::new(),
            oracles: GEOMETRIES.map(|_| Oracle::default()).into(),
            existed: vec![false; GEOMETRIES.len()],
            figures: Figures::default(),
        }
    }

    /// Some rounds and the last look; the error says what was lost, or what went wrong.
    pub(crate) fn rounds(&mut self, rounds: u64) -> Result<(), String> {
        let begun = Instant::now();
        let result = (0..rounds).try_for_each(|n| self.round(n).map_err(|e| format!("round {n}: {e}")));
        let result = result.and_then(|()| self.last_look().map_err(|e| format!("last look: {e}")));
        self.figures.took = begun.elapsed();
        result
    }

    fn boot(&mut self, role: &str, round: u64, store: usize, writers: &str) -> Machine {
        let mut environment = vec![
            (ROLE, role.to_string()),
            (SEED, self.seed.to_string()),
            (ROUND, round.to_string()),
            (STORE, store.to_string()),
            (WRITERS, writers.to_string()),
        ];
        environment.extend(self.fault.clone().map(|f| (FAULT, f)));
        let disk = self.disk.take().expect("a disk that is in no machine");
        self.at_boot.clear();
        self.at_boot.extend_from_slice(disk.medium());
        Machine::boot(&self.parts, &environment, disk)
    }

    fn round(&mut self, number: u64) -> Result<(), String> {
        let store = number as usize % GEOMETRIES.len();
        let writers = ["processes", "threads", "alone"][self.rng.random_range(0..3)];
        let cut_early = number >= 3 && self.rng.random_ratio(1, 4);
        let loss = match (self.flushes, self.rng.random_range(0..10)) {
            (Flushes::Lies, _) => Loss::Latest, // the file system stays whole, only too old
            (_, 0) => Loss::Nothing,
            (_, 1) => Loss::Everything,
            (_, 2..4) => Loss::Latest,
            _ => Loss::Any,
        };
        let before = self.figures.acknowledged();
        let mut machine = self.boot("init", number, store, writers);
        if cut_early {
            machine.fuse.set(self.rng.random_range(1..80), self.rng.random());
        }
        let round = Round { seed: self.seed, number };
        let streams = if writers == "alone" { 1 } else { STREAMS };
        let mut progress = Progress { store, round, streams, is_checked: false, batches: Vec::new() };
        let result = self.until_blown(&mut machine, &mut progress, !cut_early);
        let writes = machine.fuse.served();
        let mut disk = machine.take_disk();
        let lost = disk.lose_power(loss, &mut self.rng);
        self.disk = Some(disk);
        result?;
        self.oracles[store].cut_off();
        let figures = &mut self.figures;
        let when = if progress.is_checked { "working" } else { "opening" };
        let acknowledged = figures.acknowledged() - before;
        println!(
            "round {number}: store {store}, {writers}, cut while {when} at disk write {writes}, {acknowledged} acknowledged; \
             {loss:?} of {} sectors: {} lost, {} between",
            lost.unflushed, lost.lost, lost.between
        );
        figures.rounds += 1;
        figures.cut_while_opening += u64::from(!progress.is_checked);
        figures.disk_writes += writes;
        figures.lost.unflushed += lost.unflushed;
        figures.lost.lost += lost.lost;
        figures.lost.between += lost.between;
        Ok(())
    }

    /// Hears what the machine has to say until its power is cut: at a random moment of its work, if that
    /// was not set before.
    fn until_blown(
        &mut self,
        machine: &mut Machine,
        progress: &mut Progress,
        set: bool,
    ) -> Result<(), String> {
        let mut is_blown = false;
        loop {
            match machine.next()? {
                Event::Line(line) => {
                    let was_checked = progress.is_checked;
                    self.hear(machine, &line, progress)?;
                    if set && progress.is_checked && !was_checked {
                        machine.fuse.set(self.rng.random_range(1..=1500), self.rng.random());
                    }
                }
                Event::Blown => {
                    machine.kill();
                    is_blown = true;
                }
                Event::Off if is_blown => return Ok(()),
                Event::Off => return Err(self.ended("the machine went off")),
            }
        }
    }

    /// Boots once more, looks at all stores, and has the machine switched off in good order.
    fn last_look(&mut self) -> Result<(), String> {
        let machine = self.boot("final", 0, 0, "none");
        let round = Round { seed: self.seed, number: 0 };
        let mut progress = Progress { store: 0, round, streams: 0, is_checked: false, batches: Vec::new() };
        let mut is_done = false;
        loop {
            match machine.next()? {
                Event::Line(line) if line == "done" => is_done = true,
                Event::Line(line) => {
                    self.hear(&machine, &line, &mut progress)?;
                    progress.store += usize::from(std::mem::take(&mut progress.is_checked));
                }
                Event::Off if is_done && progress.store == GEOMETRIES.len() => break,
                other => return Err(self.ended(&format!("{other:?}"))),
            }
        }
        self.figures.disk_writes += machine.fuse.served();
        Ok(())
    }

    fn ended(&self, how: &str) -> String {
        format!("{how}; console:\n{}", self.parts.last_words())
    }

    /// One line of the machine's, as [`super::guest`] lists them.
    fn hear(&mut self, machine: &Machine, line: &str, progress: &mut Progress) -> Result<(), String> {
        let store = progress.store;
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let numbers: Vec<u64> = rest.split(' ').filter_map(|n| n.parse().ok()).collect();
        let (figures, oracle) = (&mut self.figures, &mut self.oracles[store]);
        match (verb, &numbers[..]) {
            ("booted", []) => figures.boot_seconds.push(machine.started.elapsed().as_secs_f64()),
            ("mounted", []) => {}
            ("created", []) => {
                if std::mem::replace(&mut self.existed[store], true) {
                    return Err("the store is gone".to_string());
                }
            }
            ("opened", [crash, regions, dropped, micros]) => {
                self.existed[store] = true;
                figures.recoveries += crash;
                figures.regions_rebuilt += regions;
                figures.slots_dropped += dropped;
                if *crash == 1 {
                    figures.recovery_ms.push(*micros as f64 / 1000.0);
                }
            }
            ("holds", [id, writer, counter]) => oracle.found(*id, (*writer, *counter))?,
            ("checked", [_, _]) => {
                oracle.nothing_else()?;
                progress.is_checked = true;
                progress.batches = (0..progress.streams).map(|s| (0, progress.round.batch(s, 0))).collect();
                progress.batches.iter().for_each(|(_, batch)| oracle.begun(batch));
            }
            ("ack", [stream, number]) => {
                let (expected, batch) = &mut progress.batches[*stream as usize];
                assert_eq!(expected, number, "batches are acknowledged in order");
                match batch.end {
                    End::Sync => figures.syncs += 1,
                    End::Reopen => figures.reopens += 1,
                    End::Durable(..) => figures.durable_writes += 1,
                }
                oracle.acknowledged(batch);
                *expected += 1;
                *batch = progress.round.batch(*stream, *expected);
                oracle.begun(batch);
            }
            _ => return Err(self.ended(line)),
        }
        Ok(())
    }

    /// Keeps the disk for whoever looks into it, and says where.
    pub(crate) fn keep_disk(self) -> String {
        let path = self.dir.keep().join("disk-at-boot");
        match std::fs::write(&path, self.at_boot) {
            Ok(()) => format!("the disk as the last boot found it: {}", path.display()),
            Err(e) => format!("the disk could not be kept: {e}"),
        }
    }
}
