//! The collectors: their own side, a process that appends a series to its ring, and the program's, which
//! starts them and replaces those that are killed.

use std::io::{self, Read, Write, stdout};
use std::os::unix::process::ExitStatusExt;
use std::process::ChildStdin;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use recstore::Store;

use crate::common::program::argument;
use crate::common::{Failure, Writer, check};
use crate::series::{Sample, Series, ring};

/// A collector says from where it goes on, and, if it is the victim, when it has come half the way.
const BEGINS_AT: &str = "begins at ";
const HALF_WAY: &str = "half way";
/// The record by which the program's own threads wake the analyzer.
pub(crate) const NOTICE: u64 = u64::MAX;

/// A collector process: appends its series from where the ring ends.
pub(crate) fn collect(arguments: &[String]) -> Result<(), Failure> {
    let (name, number): (String, u64) = (argument(arguments, 0)?, argument(arguments, 1)?);
    let (is_victim, rate): (bool, u32) = (argument(arguments, 2)?, argument(arguments, 3)?);
    let series = Series::open(number, argument(arguments, 5)?, argument(arguments, 6)?)?;
    let left_alone = listen_for_the_end();

    let store = Store::shared(&name)?;
    let ring = ring(&store, number, argument(arguments, 4)?)?;
    let first = match ring.iter()?.last() {
        None => 0,
        Some(last) => last?.1.row + 1,
    };
    writeln!(stdout(), "{BEGINS_AT}{first}")?;
    let begin = Instant::now();
    let len = series.values.len() as u64;
    for (row, &value) in (0..).zip(&series.values).skip(first as usize) {
        // The time until the sample is due.
        let due = match rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64((row - first) as f64 / f64::from(rate)),
        };
        if left_alone.recv_timeout(due.saturating_sub(begin.elapsed())) == Err(RecvTimeoutError::Disconnected)
        {
            break;
        }
        if is_victim && row == len / 2 {
            writeln!(stdout(), "{HALF_WAY}")?;
        }
        if is_victim && row + 1 == len {
            // It was to be killed long before.
            let _ = left_alone.recv();
            break;
        }
        ring.push(&Sample::new(number, row, value))?;
    }
    Ok(())
}

/// What is disconnected when the program ends, or wants its collectors to: they read its pipe.
fn listen_for_the_end() -> Receiver<()> {
    let (alive, left_alone) = mpsc::channel();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        drop(alive);
    });
    left_alone
}

/// The program's side of the collectors: a thread for each listens to it and replaces it when it was killed.
pub(crate) struct Collectors<'a> {
    store: &'a Store,
    arguments: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    /// The collectors leave when these are closed; `None` once they are.
    leashes: Option<Vec<ChildStdin>>,
    pub(crate) pids: Vec<u32>,
    /// For the user, in the order of time.
    pub(crate) notes: Vec<String>,
    /// From where each replacement went on.
    pub(crate) replaced: Vec<u64>,
    pub(crate) failure: Option<Failure>,
}

impl<'a> Collectors<'a> {
    /// None yet. `settings` are what all have in common.
    pub(crate) fn new(
        store: &'a Store,
        name: &str,
        settings: impl IntoIterator<Item = String>,
        count: usize,
    ) -> Self {
        let arguments = [name.to_owned()].into_iter().chain(settings).collect();
        let state = State { leashes: Some(Vec::new()), pids: vec![0; count], ..State::default() };
        Self { store, arguments, state: Mutex::new(state) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the collector of a series, and its replacements, to the end.
    pub(crate) fn run(&self, number: usize, series: &Series, is_victim: bool) {
        if let Err(failure) = self.replay(number, series, is_victim) {
            self.state().failure.get_or_insert(failure);
        }
        // If this fails, the analyzer fails too.
        let _ = self.store.put(NOTICE, []);
    }

    fn replay(&self, number: usize, series: &Series, mut is_victim: bool) -> Result<(), Failure> {
        let mut died = None;
        loop {
            let own = [self.arguments[0].clone(), number.to_string(), is_victim.to_string()];
            let mut collector = Writer::start(own.iter().chain(&self.arguments[1..]))?;
            let leash = collector.stdin();
            {
                let mut state = self.state();
                state.pids[number] = collector.pid();
                // If all is over, it is closed here, and the collector leaves.
                if let Some(leashes) = &mut state.leashes {
                    leashes.extend(leash);
                }
            }
            while let Some(line) = collector.next_line()? {
                if line == HALF_WAY {
                    collector.kill()?;
                }
                if let (Some(first), Some(died)) = (line.strip_prefix(BEGINS_AT), died.take()) {
                    let pid = collector.pid();
                    let mut state = self.state();
                    state.replaced.push(first.parse()?);
                    state.notes.push(format!(
                        "kill -9 {died}, the collector of {}; {pid} went on from sample {first}",
                        series.name
                    ));
                    drop(state);
                    self.store.put(NOTICE, [])?;
                }
            }
            let status = collector.wait()?;
            if status.signal().is_none() {
                return check(status.success(), || {
                    format!("the collector of {} ended well ({status})", series.name)
                });
            }
            died = Some(collector.pid());
            is_victim = false;
        }
    }

    /// Lets all collectors leave.
    pub(crate) fn release(&self) {
        self.state().leashes = None;
    }
}
