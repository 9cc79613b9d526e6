//! One round: every workload in turn, by every peer in turn.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Settings;
use crate::clock::Outcome;
use crate::peer::{Ask, Peer};
use crate::report::{Better, Report};
use crate::run::{Keeper, run, run_and_kill};
use crate::work::Job;

/// How workers are spread: processes, or threads of one.
#[derive(Clone, Copy)]
enum Workers {
    One,
    Processes(u64),
    Threads(u64),
}

struct Round<'a> {
    settings: &'a Settings,
    size: usize,
    n: u64,
    seed: u64,
    jobs: Cell<u64>,
    peers: Vec<Peer>,
    keepers: Vec<Keeper>,
    report: &'a mut Report,
}

pub fn round(settings: &Settings, size: usize, round: u64, report: &mut Report) {
    let mut peers = settings.peers.clone();
    let shift = round as usize % peers.len();
    peers.rotate_left(shift);
    eprintln!("{size} bytes, round {} of {}", round + 1, settings.rounds);
    let n = settings.records(size);
    // No two rounds have a job of the same number.
    let jobs = Cell::new(round << 12);
    Round { settings, size, n, seed: round + 1, jobs, peers, keepers: Vec::new(), report }.run();
    let _ = std::fs::remove_dir_all(&settings.dir);
}

/// Bytes of disk that the files of a directory and of those inside it take.
fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = |e: std::fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => disk_bytes(&e.path()),
        Ok(m) => m.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// The latency that a share of all operations is within, in nanoseconds.
fn quantile(outcomes: &[Outcome], share: f64) -> f64 {
    let mut all: Vec<(u64, u64)> = outcomes.iter().flat_map(|o| o.latencies.iter().copied()).collect();
    all.sort_unstable();
    let total: u64 = all.iter().map(|l| l.1).sum();
    let mut left = (total as f64 * share).ceil() as u64;
    for (latency, count) in all {
        if count >= left {
            return latency as f64;
        }
        left -= count;
    }
    0.0
}

impl Round<'_> {
    fn run(&mut self) {
        self.load();
        self.size_and_memory();
        self.each("W2 random get", "get", Workers::One, false);
        self.each("W2b random get, 100 a call", "get-batch", Workers::One, false);
        self.scan();
        self.each("W4 overwrite, own commit", "put", Workers::One, false);
        self.each("W7 overwrite, 100 a commit", "put-batch", Workers::One, false);
        self.each("W3 random get, 2 processes", "get", Workers::Processes(2), false);
        self.each("W3w get beside a writer", "read-beside-writer", Workers::Processes(2), false);
        self.each("W5 overwrite, 2 processes, own ids", "put-disjoint", Workers::Processes(2), false);
        self.each("W5 overwrite, 2 processes, same ids", "put", Workers::Processes(2), false);
        self.mixed();
        self.counters();
        self.flushed();
        self.flush_all();
        self.each("W6 durable overwrite, 1 writer", "put", Workers::One, true);
        self.each("W6 durable overwrite, 2 processes", "put", Workers::Processes(2), true);
        for threads in [4, 8, 16] {
            let name = format!("W6 durable overwrite, {threads} threads");
            self.each(&name, "put", Workers::Threads(threads), true);
        }
        self.growth();
        self.open();
        self.wake();
    }

    fn dir(&self, peer: Peer) -> PathBuf {
        self.settings.dir.join(format!("{}-{}", peer.name(), self.size))
    }

    fn job(&self, peer: Peer, work: &str) -> Job {
        self.jobs.set(self.jobs.get() + 1);
        Job {
            peer,
            dir: self.dir(peer),
            work: work.to_owned(),
            ask: Ask { size: self.size, n: self.n, durable: false, create: false },
            span: self.settings.span,
            worker: 0,
            workers: 1,
            threads: 1,
            seed: self.seed,
            number: self.jobs.get(),
        }
    }

    /// A job for each child.
    fn jobs(&self, peer: Peer, work: &str, workers: Workers, durable: bool) -> Vec<Job> {
        let mut job = self.job(peer, work);
        job.ask.durable = durable;
        if durable {
            // A flush takes a thousand times as long as a store.
            job.span.measure = (3 * job.span.measure).max(Duration::from_millis(150));
        }
        match workers {
            Workers::One => {}
            Workers::Processes(count) | Workers::Threads(count)
                if if let Workers::Threads(_) = workers { !peer.has_threads() } else { peer.is_shared() } =>
            {
                job.workers = count;
                return (0..count).map(|worker| Job { worker, ..job.clone() }).collect();
            }
            Workers::Processes(count) | Workers::Threads(count) => {
                job.workers = count;
                job.threads = count;
            }
        }
        vec![job]
    }

    /// In the peer's own directory, empty.
    fn fresh(&self, peer: Peer, work: &str, dir: PathBuf) -> Job {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let mut job = self.job(peer, work);
        job.ask.create = true;
        Job { dir, ..job }
    }

    fn seconds(&self, outcome: &Outcome) -> f64 {
        if self.settings.by_cpu { outcome.cpu_seconds } else { outcome.seconds }
    }

    /// Operations in a second by all workers.
    fn rate(&self, outcomes: &[Outcome]) -> f64 {
        outcomes.iter().map(|o| o.ops as f64 / self.seconds(o)).sum()
    }

    fn add(&mut self, name: &str, unit: &'static str, better: Better, peer: Peer, value: f64) {
        self.report.add(name, unit, better, self.size, peer, value);
    }

    fn note(&mut self, name: &str, peer: Peer, what: &str, value: f64) {
        self.report.note(name, self.size, peer, what, value);
    }

    /// A workload that has nothing special about it.
    fn each(&mut self, name: &str, work: &str, workers: Workers, durable: bool) {
        if !self.settings.wants(name) {
            return;
        }
        for peer in self.peers.clone() {
            if durable && !peer.has_durable_mode() {
                continue;
            }
            let jobs = self.jobs(peer, work, workers, durable);
            let Some(outcomes) = run(&jobs) else {
                self.report.fail(name, self.size, peer);
                continue;
            };
            let all = self.rate(&outcomes);
            match workers {
                _ if durable => self.add(name, "a second", Better::More, peer, all),
                Workers::One => self.add(name, "ns", Better::Less, peer, 1e9 / all),
                _ if work == "read-beside-writer" => {
                    let reader = self.rate(&outcomes[..1]);
                    self.add(name, "M/s", Better::More, peer, reader / 1e6);
                    self.note(name, peer, ".writer M/s", (all - reader) / 1e6);
                }
                _ => self.add(name, "M/s", Better::More, peer, all / 1e6),
            }
            for o in &outcomes {
                if let Some((_, flushes)) = o.extra.iter().find(|e| e.0 == "flushes")
                    && durable
                {
                    let writes: u64 = outcomes.iter().map(|o| o.ops_in_all).sum();
                    self.note(name, peer, "flushes a write", flushes / writes as f64);
                    break;
                }
            }
        }
    }

    fn load(&mut self) {
        let name = "W1 bulk load, random ids";
        for peer in self.peers.clone() {
            let job = self.fresh(peer, "load", self.dir(peer));
            if peer.needs_keeper() {
                self.keepers.push(Keeper::start(&Job { work: "keep".to_owned(), ..job.clone() }));
            }
            match run(&[job]) {
                Some(outcomes) => {
                    let rate = self.rate(&outcomes) / 1e6;
                    self.add(name, "M/s", Better::More, peer, rate);
                }
                None => self.report.fail(name, self.size, peer),
            }
        }
        let name = "W1 bulk load, ascending ids";
        if !self.settings.wants(name) {
            return;
        }
        for peer in self.peers.clone() {
            let dir = self.settings.dir.join("ascending");
            if let Some(outcomes) = run(&[self.fresh(peer, "load-ascending", dir.clone())]) {
                let rate = self.rate(&outcomes) / 1e6;
                self.add(name, "M/s", Better::More, peer, rate);
            }
            let _ = std::fs::remove_dir_all(dir);
        }
    }

    fn size_and_memory(&mut self) {
        let (file, memory) = ("W11 file", "W11 memory of a process that read all");
        if !self.settings.wants(file) {
            return;
        }
        for peer in self.peers.clone() {
            let per_record = |bytes: f64| bytes / self.n as f64;
            if peer.is_kept() {
                let bytes = per_record(disk_bytes(&self.dir(peer)) as f64);
                self.add(file, "bytes a record", Better::Less, peer, bytes);
            }
            if let Some(outcomes) = run(&[self.job(peer, "memory")]) {
                let of = |what| outcomes[0].extra.iter().find(|e| e.0 == what).map_or(0.0, |e| e.1);
                let (own, mapped) = (of("own"), of("mapped"));
                self.add(memory, "bytes a record", Better::Less, peer, (own + mapped) / self.n as f64);
                self.note(memory, peer, "own", own / self.n as f64);
            }
        }
    }

    fn scan(&mut self) {
        let name = "W8 full scan";
        if !self.settings.wants(name) {
            return;
        }
        for peer in self.peers.clone() {
            match run(&[self.job(peer, "scan")]) {
                Some(outcomes) => {
                    let bytes = self.rate(&outcomes) * self.size as f64;
                    self.add(name, "GB/s", Better::More, peer, bytes / 1e9);
                }
                None => self.report.fail(name, self.size, peer),
            }
        }
    }

    /// Has every store on disk, so that no durable write pays for what was there before.
    fn flush_all(&mut self) {
        if self.settings.wants("W6") {
            for peer in self.peers.clone().into_iter().filter(|peer| peer.has_durable_mode()) {
                run(&[self.job(peer, "close")]);
            }
        }
    }

    /// The first overwrite of each record since a flush.
    fn flushed(&mut self) {
        let name = "W4f overwrite, first since a flush";
        if !self.settings.wants(name) {
            return;
        }
        for peer in self.peers.clone() {
            if peer.is_bound() || run(&[self.job(peer, "close")]).is_none() {
                continue;
            }
            match run(&[self.job(peer, "put-once")]) {
                Some(outcomes) => {
                    let ns = 1e9 / self.rate(&outcomes);
                    self.add(name, "ns", Better::Less, peer, ns);
                }
                None => self.report.fail(name, self.size, peer),
            }
        }
    }

    fn counters(&mut self) {
        let works = [
            ("W12 counters, 2 processes, one hot", "count-hot"),
            ("W12 counters, 2 processes, 10,000", "count-spread"),
        ];
        if !self.settings.wants(works[0].0) {
            return;
        }
        for peer in self.peers.clone() {
            let mut added = 0;
            for (name, work) in works {
                match run(&self.jobs(peer, work, Workers::Processes(2), false)) {
                    Some(outcomes) => {
                        let rate = self.rate(&outcomes) / 1e6;
                        self.add(name, "M/s", Better::More, peer, rate);
                        added += outcomes.iter().map(|o| o.ops_in_all).sum::<u64>();
                    }
                    None => self.report.fail(name, self.size, peer),
                }
            }
            if peer.is_kept()
                && let Some(sum) = run(&[self.job(peer, "count-sum")])
                && sum[0].ops != added
            {
                eprintln!("{}: counters add up to {} and not to {added}", peer.name(), sum[0].ops);
                self.note(works[0].0, peer, "LOST", added as f64 - sum[0].ops as f64);
            }
        }
    }

    fn mixed(&mut self) {
        if !self.settings.wants("W13") {
            return;
        }
        for (what, work) in [("95/5", "mixed-5"), ("50/50", "mixed-50")] {
            for peer in self.peers.clone() {
                let Some(outcomes) = run(&self.jobs(peer, work, Workers::Processes(2), false)) else {
                    self.report.fail(&format!("W13 {what}"), self.size, peer);
                    continue;
                };
                for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
                    let name = format!("W13 {what}, Zipf, 2 processes, {name}");
                    self.add(&name, "ns", Better::Less, peer, quantile(&outcomes, share));
                }
            }
        }
    }

    fn growth(&mut self) {
        if !self.settings.wants("W14") {
            return;
        }
        for peer in self.peers.clone() {
            if peer == Peer::Floor {
                continue;
            }
            let dir = self.settings.dir.join("growing");
            let mut job = self.fresh(peer, "grow", dir.clone());
            job.span.measure = Duration::from_millis(if self.settings.quick { 500 } else { 5000 });
            let Some(outcomes) = run(&[job]) else {
                self.report.fail("W14", self.size, peer);
                continue;
            };
            for (name, share) in [("p50", 0.5), ("p99.99", 0.9999), ("worst", 1.0)] {
                let name = format!("W14 put while growing, {name}");
                self.add(&name, "ns", Better::Less, peer, quantile(&outcomes, share));
            }
            if outcomes[0].ops < self.n {
                self.note("W14 put while growing, p50", peer, "stopped at", outcomes[0].ops as f64);
            }
            let _ = std::fs::remove_dir_all(dir);
        }
    }

    /// After `kill -9` there is one open to time, the first one of a process: the first after a clean close is
    /// what it compares with.
    fn open(&mut self) {
        let (clean, killed) = ("W9 open after a clean close", "W10 open after kill -9");
        let first = "W9 the same, the first open of a process";
        let peers: Vec<Peer> =
            self.peers.iter().copied().filter(|peer| !peer.is_bound() && !peer.needs_keeper()).collect();
        if self.settings.wants(clean) {
            for &peer in &peers {
                run(&[self.job(peer, "close")]);
                match run(&[self.job(peer, "open")]) {
                    Some(outcomes) => {
                        self.add(clean, "ms", Better::Less, peer, 1e3 * self.seconds(&outcomes[0]));
                        self.add(first, "ms", Better::Less, peer, 1e3 * outcomes[0].extra[0].1);
                    }
                    None => self.report.fail(clean, self.size, peer),
                }
            }
        }
        if self.settings.wants(killed) {
            for &peer in &peers {
                let _ = std::fs::remove_file(self.dir(peer).join("acknowledged"));
                run_and_kill(&self.job(peer, "die"), Duration::from_millis(100 + 37 * self.seed));
                let Some(outcomes) = run(&[self.job(peer, "after-death")]) else {
                    self.report.fail(killed, self.size, peer);
                    continue;
                };
                self.add(killed, "ms", Better::Less, peer, 1e3 * self.seconds(&outcomes[0]));
                for (what, value) in &outcomes[0].extra {
                    let shown = if what == "overwritten" { ".overwritten" } else { what };
                    self.note(killed, peer, shown, *value);
                }
            }
        }
    }

    fn wake(&mut self) {
        let name = "W15 wake-up, one way";
        if !self.settings.wants(name) {
            return;
        }
        for (peer, work) in [(Peer::Recstore, "wake"), (Peer::Floor, "futex")] {
            if self.peers.contains(&peer)
                && let Some(outcomes) = run(&self.jobs(peer, work, Workers::Processes(2), false))
            {
                self.add(name, "ns", Better::Less, peer, 1e9 * outcomes[0].seconds / outcomes[0].ops as f64);
            }
        }
    }
}
