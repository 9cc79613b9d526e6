//! Strict linearizability: processes make random calls on a store, are killed inside of them, at a step or at any
//! time, and stopped; what all of them told is then shown to have an order. See `check`.
//!
//! Needs the feature `testing`. Fails when: a call tells what cannot have been so (an old value after a new
//! one, a value from a batch beside one from before it, a swap that should have failed); a write of a process
//! appears after its death, or what was seen goes away again; an iteration gives a record twice; `verify` finds anything.
//!
//! `RECSTORE_TORTURE_SECONDS` (3) is how long, `RECSTORE_SEED` what is drawn.

#![cfg(feature = "testing")]

mod check;
mod log;
mod work;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::common::superblock::create_seeded;
use crate::common::{self, Me, Worker};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::Store;

use check::Call;
use log::{Log, PROCESSES};
use work::{IDS, RECORD_SIZE, TOGETHER, register, value_of};

const PLACES: usize = 4;
/// Between two kills or stops.
const TICK: Duration = Duration::from_millis(15);
const TICKS: usize = 14;

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "work" => work::work(&mut me),
        other => panic!("no role {other}"),
    }
}

#[test]
fn the_checker_tells_good_histories_from_bad_ones() {
    check::checks_itself();
}

/// What one place of a round's processes shares with the one that kills.
#[derive(Default)]
struct Place {
    /// The process that lives, and is not waited for yet.
    worker: Mutex<Option<Worker>>,
}

/// One round's arguments.
struct Round<'a> {
    path: &'a Path,
    log_path: &'a Path,
    log: &'a Log,
    seed: u64,
    serial: AtomicUsize,
    over: AtomicBool,
    /// When each process died.
    deaths: Mutex<Vec<(usize, u64)>>,
}

impl Round<'_> {
    /// Keeps a place filled until the round is over.
    fn keep(&self, place: &Place) {
        while !self.over.load(Ordering::SeqCst) {
            let serial = self.serial.fetch_add(1, Ordering::SeqCst);
            if serial >= PROCESSES {
                return;
            }
            let with = [
                ("STORE", self.path.to_str().unwrap()),
                ("LOG", self.log_path.to_str().unwrap()),
                ("SEED", &self.seed.to_string()),
                ("SERIAL", &serial.to_string()),
            ];
            let worker = Worker::spawn("work", &with);
            let mut ends = std::io::BufReader::new(worker.stream());
            *place.worker.lock().unwrap() = Some(worker);
            // Its end, or that its part of the log is full.
            let mut line = String::new();
            let _ = std::io::BufRead::read_line(&mut ends, &mut line);
            let mut worker = place.worker.lock().unwrap().take().expect("nobody else takes it");
            worker.kill();
            let died = self.log.now();
            self.deaths.lock().unwrap().push((serial, died));
        }
    }
}

/// Processes work on the store for a while; gives how many calls were looked at.
fn round(path: &Path, log_path: &Path, rng: &mut StdRng) -> usize {
    let log = Log::create(log_path);
    let store = Store::open(path).unwrap();
    let registers: Vec<u64> = IDS.chain([TOGETHER[0]]).collect();
    let now = |id: u64| value_of(id, store.get(id).unwrap().as_deref());
    let before: Vec<u64> = registers.iter().map(|&id| now(id)).collect();
    let seed = rng.random();
    let (serial, over, deaths) = (AtomicUsize::new(1), AtomicBool::new(false), Mutex::default());
    let round = Round { path, log_path, log: &log, seed, serial, over, deaths };
    let places: [Place; PLACES] = Default::default();
    std::thread::scope(|scope| {
        let keepers: Vec<_> = places.iter().map(|place| scope.spawn(|| round.keep(place))).collect();
        let (_alive, clock) = channel::<()>(); // Nobody sends: its time-out is the tick.
        let mut stopped: Option<usize> = None;
        for _ in 0..TICKS {
            let _ = clock.recv_timeout(TICK);
            if let Some(place) = stopped.take()
                && let Some(worker) = &*places[place].worker.lock().unwrap()
            {
                worker.signal(Signal::SIGCONT);
            }
            let place = rng.random_range(0..PLACES);
            let worker = places[place].worker.lock().unwrap();
            let Some(worker) = &*worker else { continue };
            if rng.random_ratio(1, 3) {
                worker.signal(Signal::SIGSTOP);
                stopped = Some(place);
            } else {
                worker.signal(Signal::SIGKILL);
            }
        }
        round.over.store(true, Ordering::SeqCst);
        while keepers.iter().any(|keeper| !keeper.is_finished()) {
            for place in &places {
                if let Some(worker) = &*place.worker.lock().unwrap() {
                    worker.signal(Signal::SIGKILL);
                }
            }
            std::thread::yield_now();
        }
        for keeper in keepers {
            keeper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let deaths = round.deaths.into_inner().unwrap();
    let mut count = 0;
    for (&id, &before) in registers.iter().zip(&before) {
        let mut calls: Vec<Call> =
            deaths.iter().flat_map(|&(serial, died)| log.calls(serial, register(id), died)).collect();
        for id in if id == TOGETHER[0] { TOGETHER.to_vec() } else { vec![id] } {
            let begun = log.now();
            let deed = check::Deed::Read(now(id));
            calls.push(Call { begun, ended: log.now(), deed, cut_off: false, by: 0 });
        }
        count += calls.len();
        if let Err(why) = check::check(&calls, before) {
            let order = &why.order[why.order.len().saturating_sub(12)..];
            let around: Vec<_> = {
                let mut near: Vec<_> = calls
                    .iter()
                    .filter(|c| c.ended + 60 > why.stuck.begun && c.begun < why.stuck.ended + 60)
                    .collect();
                near.sort_by_key(|c| c.begun);
                near.into_iter().map(|c| format!("process {}: {c:?}", c.by)).collect()
            };
            panic!(
                "register {id}: no order explains {:?}; the state was {:#x} before it, after\n{order:#?}\nnear it:\n{}",
                why.stuck,
                why.state,
                around.join("\n")
            );
        }
    }
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    count
}

fn torture(max_size: u64) {
    let lasting = Duration::from_secs(common::number_from_env("RECSTORE_TORTURE_SECONDS").unwrap_or(3));
    let seed = common::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = common::scratch();
    let (path, log_path) = (dir.path().join("histories.rec"), dir.path().join("log"));
    let options =
        Store::options().record_size(RECORD_SIZE).regions(2).slots_per_extent(16).max_size(max_size);
    drop(create_seeded(&options, &path, seed));
    let begun = Instant::now();
    let (mut rounds, mut calls) = (0, 0);
    while rounds == 0 || begun.elapsed() < lasting {
        calls += round(&path, &log_path, &mut rng);
        rounds += 1;
    }
    println!("{calls} calls in {rounds} rounds have an order, seed {seed}");
    assert!(calls > 100, "nothing was tried");
}

#[test]
fn calls_of_processes_that_die_and_stop_have_an_order() {
    torture(1 << 40);
}

#[test]
fn they_have_one_in_a_store_that_is_full_as_well() {
    torture(256 << 10);
}
