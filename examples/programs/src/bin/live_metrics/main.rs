//! Collectors, a process each, replay a year of hourly temperatures: each appends its samples to a ring
//! in a store in memory. The program analyses them as they come, as mean and deviation of a sliding
//! window, and shows them live. It sleeps until something changes, without polling. With `--kill` a
//! collector is killed between two samples or inside one, and another takes its place: it finds out
//! from the ring where to go on.
//!
//! ```text
//! cargo program live_metrics -- --kill
//! cargo program live_metrics -- --rate 0 --ring 64 | cat   # too fast for the ring
//! ```
//!
//! A ring keeps the newest samples. A collector never waits for the analyzer, so one that is slow misses
//! some; they are counted. In the end everything is compared with the series themselves.

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

use clap::Parser;
use ratatui::crossterm::event::{self, KeyCode, KeyModifiers};
use recstore::{Shared, Store};

use analysis::Analysis;
use collectors::{Collectors, NOTICE, collect};
use common::arguments::Common;
use common::{Failure, check, memory, program};
use series::{Sample, Series, ring};
use view::View;

mod analysis;
mod collectors;
#[path = "../common/mod.rs"]
mod common;
mod series;
mod view;

/// Analyse live series of several collector processes
///
/// The first two collectors replay the temperatures of Seattle and San Francisco, the others random ones.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,

    /// All series are random
    #[arg(long)]
    random: bool,

    /// Samples that each collector appends in a second; 0: as fast as it can [default: 2000; quick: 0]
    #[arg(long, value_name = "SAMPLES")]
    rate: Option<u32>,

    /// Samples that the ring of a series keeps [default: 1024; quick: 16384, more than there are]
    #[arg(long, value_name = "SAMPLES", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    ring: Option<u64>,

    /// Samples of the window: so many hours
    #[arg(long, default_value_t = 168, value_name = "SAMPLES", value_parser = clap::value_parser!(u32).range(1..=8000))]
    window: u32,

    /// Lines instead of a live view, as in a pipe
    #[arg(long)]
    plain: bool,

    /// Print the last screen as text
    #[arg(long, hide = true)]
    screenshot: bool,
}

fn main() -> ExitCode {
    program::run(collect, demonstrate)
}

fn demonstrate(arguments: Arguments) -> Result<(), Failure> {
    let seed = program::seed()?;
    let options = Store::options().record_size(8 + size_of::<Sample>());
    let name = memory::fresh_name(&options)?;
    let store = Arc::new(options.shared(&name)?);
    let quit = Arc::new(AtomicBool::new(false));
    let shown = analyse(&arguments, &name, seed, &store, &quit)?;
    drop(store);
    let Some(shown) = shown else {
        println!("stopped before the end: nothing is shown");
        return Ok(());
    };
    check(!memory::exists(&name)?, || "nothing is left in memory".into())?;
    println!("{shown}");
    Ok(())
}

/// Starts the collectors and analyses what they append, until all is analysed; what that has shown.
/// `None` if the user quits.
fn analyse(
    arguments: &Arguments,
    name: &str,
    seed: u64,
    store: &Arc<Shared>,
    quit: &Arc<AtomicBool>,
) -> Result<Option<String>, Failure> {
    let Common { processes, kill, quick } = arguments.common;
    let rate = arguments.rate.unwrap_or(if quick { 0 } else { 2000 });
    let ring_len = arguments.ring.unwrap_or(if quick { 16_384 } else { 1024 });
    let is_random = arguments.random;
    let all = (0..u64::from(processes))
        .map(|number| Series::open(number, is_random, seed))
        .collect::<Result<Vec<Series>, _>>()?;
    let rings = (0..all.len() as u64).map(|n| ring(store, n, ring_len)).collect::<Result<Vec<_>, _>>()?;
    let window = arguments.window as usize;
    let mut analyses: Vec<Analysis<'_>> =
        (0..).zip(&all).map(|(number, series)| Analysis::new(series, number, window)).collect();

    // It watches before there is a collector, so that nothing happens unseen.
    let mut watch = store.watch_all()?;
    let settings = [rate.to_string(), ring_len.to_string(), is_random.to_string(), seed.to_string()];
    let collectors = Collectors::new(store, name, settings, all.len());
    let is_plain = arguments.plain || arguments.screenshot || !stdout().is_terminal();
    let mut view = if is_plain { View::lines(all.len()) } else { View::screen() };
    let keyboard = (!is_plain).then(|| {
        let (store, quit) = (Arc::downgrade(store), Arc::clone(quit));
        thread::spawn(move || listen_for_quit(&store, &quit))
    });

    let begin = Instant::now();
    let mut wake_ups = 0u64;
    let mut until_all_is_analysed = || -> Result<bool, Failure> {
        loop {
            for (analysis, ring) in analyses.iter_mut().zip(&rings) {
                analysis.read(ring)?;
            }
            let is_complete = analyses.iter().all(Analysis::is_complete);
            view.show(&analyses, &collectors.state(), is_complete)?;
            if let Some(failure) = collectors.state().failure.take() {
                return Err(failure);
            }
            // Relaxed: a flag that guards no data; the store's own change woke us.
            if is_complete || quit.load(Ordering::Relaxed) {
                return Ok(is_complete);
            }
            watch.wait(None)?;
            wake_ups += 1;
        }
    };
    let done = thread::scope(|scope| {
        for (number, series) in all.iter().enumerate() {
            let collectors = &collectors;
            scope.spawn(move || collectors.run(number, series, kill && number == 0));
        }
        let done = until_all_is_analysed();
        collectors.release();
        done
    });
    let took = begin.elapsed();
    let mut state = collectors.state();
    if matches!(done, Ok(true)) {
        view.show(&analyses, &state, true)?; // a last time, as collectors may have died at the end
    }
    drop(view);
    if !done? {
        // It holds the store for a moment.
        keyboard.map(thread::JoinHandle::join);
        return Ok(None);
    }
    if let Some(failure) = state.failure.take() {
        return Err(failure);
    }
    if arguments.screenshot {
        print!("{}", view::screenshot(&analyses, &state)?);
    }

    for analysis in &analyses {
        analysis.check()?;
    }
    check(!kill || state.replaced.iter().any(|&first| first > 0), || {
        "a collector was killed, and another went on from what was in the ring".into()
    })?;
    let report = store.verify()?;
    check(report.is_clean(), || format!("verify finds no damage ({:?})", report.damage))?;
    let (mut rows, mut missed) = (0, 0);
    for analysis in &analyses {
        rows += analysis.len();
        missed += analysis.missed;
    }
    let longest = all.iter().map(|series| series.values.len() as u64).max().unwrap_or_default();
    check(missed == 0 || ring_len < longest, || format!("a ring that keeps all loses none ({missed})"))?;
    println!(
        "analysed   {} of {rows} samples, {missed} missed; {:.0} ms, {wake_ups} wake-ups",
        rows - missed,
        took.as_secs_f64() * 1e3
    );
    let killed = if kill { ", one of which was killed and replaced in the middle," } else { "" };
    let all_of_them = program::count(processes, "collector", "collectors");
    let rows_seen = if missed == 0 { "" } else { ", at the hours that were seen" };
    Ok(Some(format!(
        "shown: {all_of_them}{killed} appended {rows} samples and the analyzer took in {}, {missed} missed, none twice, \
         none torn; mean and deviation of the last window of each series are those of the series itself{rows_seen}",
        rows - missed
    )))
}

/// Reads the keyboard until the user wants to quit.
fn listen_for_quit(store: &Weak<Shared>, quit: &AtomicBool) {
    while let Ok(event) = event::read() {
        let quits = event.as_key_press_event().is_some_and(|key| {
            matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
                || key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
        });
        if quits {
            break;
        }
    }
    quit.store(true, Ordering::Relaxed);
    if let Some(store) = store.upgrade() {
        // If this fails, the analyzer fails too.
        let _ = store.put(NOTICE, []);
    }
}
