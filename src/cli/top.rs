//! `recstore top`: a store in use, as htop shows a machine.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table, Wrap};
use recstore::{Stats, Store};
use serde_json::json;

use super::access::Access;
use super::failure::Failure;
use super::ids::size;
use super::output::{Output, counted};
use super::process::{Process, state_of};
use super::stat::verdict;

/// Watch a store in use: writes a second, locks and their holders, attached processes
///
/// Only looks: works beside processes that are stopped, and delays no process. Keys: q quits, s sorts the regions by the
/// next column, r reverses, p pauses, space looks at once.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore top s.rec
  recstore top s.rec --interval 0.2
  recstore top s.rec --json | jq .writes_per_second     one sample")]
pub(crate) struct Top {
    /// The store
    store: PathBuf,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    interval: Duration,
    /// Print one sample as an object, after one interval
    #[arg(long)]
    json: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.05..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("`{text}` is not a number of seconds from 0.05 to 3600"))
}

/// The result of two looks.
struct Sample {
    stats: Stats,
    /// Writes a second of each region.
    rates: Vec<f64>,
    /// For how long the same holder was seen with the lock of each region.
    held: Vec<Option<Duration>>,
    processes: Vec<Attachment>,
}

/// An attached handle.
struct Attachment {
    pid: u32,
    seat: u32,
    state: &'static str,
    pins: u64,
    /// Regions whose lock it holds.
    holds: usize,
    command: String,
}

/// The state that is kept between two looks.
struct Sampler<'s> {
    store: &'s Store,
    at: Instant,
    versions: Vec<u64>,
    /// Since when each holder of a region's lock was seen: by region; seat and generation.
    holders: HashMap<u32, (u32, u32, Instant)>,
}

impl<'s> Sampler<'s> {
    fn new(store: &'s Store) -> Result<Self, Failure> {
        let stats = store.stats()?;
        let mut sampler = Self { store, at: Instant::now(), versions: Vec::new(), holders: HashMap::new() };
        sampler.remember(&stats);
        Ok(sampler)
    }

    fn remember(&mut self, stats: &Stats) {
        self.at = Instant::now();
        self.versions = stats.regions.iter().map(|r| r.next_version).collect();
        let mut holders = HashMap::new();
        for r in &stats.regions {
            if let Some(lock) = &r.lock {
                let same = self
                    .holders
                    .get(&r.region)
                    .filter(|(seat, generation, _)| (*seat, *generation) == (lock.seat, lock.generation));
                let since = same.map_or(self.at, |(_, _, since)| *since);
                holders.insert(r.region, (lock.seat, lock.generation, since));
            }
        }
        self.holders = holders;
    }

    fn sample(&mut self) -> Result<Sample, Failure> {
        let stats = self.store.stats()?;
        let seconds = self.at.elapsed().as_secs_f64().max(1e-3);
        let before = std::mem::take(&mut self.versions);
        let rates = stats
            .regions
            .iter()
            .zip(before)
            .map(|(r, before)| r.next_version.saturating_sub(before) as f64 / seconds)
            .collect();
        self.remember(&stats);
        let held = stats
            .regions
            .iter()
            .map(|r| self.holders.get(&r.region).map(|(_, _, since)| self.at.duration_since(*since)))
            .collect();
        let processes = stats
            .attached
            .iter()
            .map(|a| Attachment {
                pid: a.pid,
                seat: a.seat,
                state: state_of(a.pid, a.pid_exists, a.alive),
                pins: a.pins,
                holds: stats
                    .regions
                    .iter()
                    .filter_map(|r| r.lock.as_ref())
                    .filter(|lock| (lock.seat, lock.generation) == (a.seat, a.generation))
                    .count(),
                command: Process::look(a.pid).filter(|_| a.alive).map(|p| p.command).unwrap_or_default(),
            })
            .collect();
        Ok(Sample { stats, rates, held, processes })
    }
}

/// How the regions are sorted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Region,
    Writes,
    Records,
    Kept,
}

struct View {
    sort: Sort,
    reverse: bool,
    paused: bool,
}

impl Top {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.look(&self.store)?;
        let mut sampler = Sampler::new(&store)?;
        if self.json {
            let (_alive, clock) = channel::<()>(); // No message comes: its time-out is the interval.
            let _ = clock.recv_timeout(self.interval.saturating_sub(sampler.at.elapsed()));
            let mut out = Output::new();
            out.line(format_args!("{}", to_json(&sampler.sample()?)))?;
            return out.finish();
        }
        if !std::io::stdout().is_terminal() {
            return Err(Failure::Usage("top needs a terminal; for one sample: --json".into()));
        }
        let mut terminal = ratatui::init();
        let shown = self.show(&mut terminal, &mut sampler);
        ratatui::restore();
        shown
    }

    fn show(
        &self,
        terminal: &mut ratatui::DefaultTerminal,
        sampler: &mut Sampler<'_>,
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::Other(format!("terminal: {error}"));
        let mut view = View { sort: Sort::Region, reverse: false, paused: false };
        let mut sample = sampler.sample()?;
        loop {
            terminal.draw(|frame| draw(frame, &sample, &view)).map_err(failed)?;
            let due = sampler.at + self.interval;
            let left = due.saturating_duration_since(Instant::now());
            if !event::poll(if view.paused { Duration::from_secs(3600) } else { left }).map_err(failed)? {
                if !view.paused {
                    sample = sampler.sample()?;
                }
                continue;
            }
            let Event::Key(key) = event::read().map_err(failed)? else { continue };
            if key.kind != KeyEventKind::Press {
                continue;
            }
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                KeyCode::Char('s') => view.sort = view.sort.next(),
                KeyCode::Char('r') => view.reverse = !view.reverse,
                KeyCode::Char('p') => view.paused = !view.paused,
                KeyCode::Char(' ') => sample = sampler.sample()?,
                _ => {}
            }
        }
    }
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Region => Self::Writes,
            Self::Writes => Self::Records,
            Self::Records => Self::Kept,
            Self::Kept => Self::Region,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Writes => "writes/s",
            Self::Records => "records",
            Self::Kept => "kept",
        }
    }
}

fn state_style(state: &str) -> Style {
    match state {
        "dead" => Style::new().fg(Color::Red),
        "stopped" => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    }
}

fn draw(frame: &mut Frame<'_>, sample: &Sample, view: &View) {
    let Sample { stats: s, rates, held, processes } = sample;
    let attached = (processes.len() as u16 + 1).min(frame.area().height / 3).max(2);
    let parts =
        [Constraint::Length(6), Constraint::Length(attached), Constraint::Fill(1), Constraint::Length(1)];
    let [head, people, body, foot] = Layout::vertical(parts).areas(frame.area());

    let total: f64 = rates.iter().sum();
    let used = s.slots.saturating_sub(s.free_slots);
    let fill = (used * 100).checked_div(s.slots).unwrap_or(0);
    let lag = s.epoch.saturating_sub(s.durable_epoch);
    let lines = vec![
        Line::from(format!("{}: {}", s.path.display(), verdict(s)))
            .style(Style::new().add_modifier(Modifier::BOLD)),
        Line::from(format!(
            "{total:.0} writes/s   {}   {fill} % of {} slots used, {} kept",
            counted(s.records, "record"),
            s.slots,
            s.retired_slots
        )),
        Line::from(format!(
            "file {}, {} on disk, ceiling {}",
            size(s.file_size),
            size(s.allocated_size),
            size(s.max_size)
        )),
        Line::from(format!(
            "epoch {}, {} not durable; {} flushes, {} durable writes",
            s.epoch,
            counted(lag, "epoch"),
            s.flushes,
            s.durable_writes
        )),
    ];
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), head);

    let heading = Style::new().add_modifier(Modifier::REVERSED);
    let rows = processes.iter().map(|p| {
        let cells =
            [p.pid.to_string(), p.state.into(), p.seat.to_string(), p.pins.to_string(), p.holds.to_string()];
        Row::new(cells.into_iter().chain([p.command.clone()])).style(state_style(p.state))
    });
    let widths = [8, 8, 5, 5, 6].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    let header = Row::new(["process", "state", "seat", "pins", "locks", "command"]).style(heading);
    frame.render_widget(Table::new(rows, widths).header(header), people);

    let mut order: Vec<usize> = (0..s.regions.len()).collect();
    match view.sort {
        Sort::Region => {}
        Sort::Writes => order.sort_by(|a, b| rates[*b].total_cmp(&rates[*a])),
        Sort::Records => order.sort_by_key(|n| Reverse(s.regions[*n].records)),
        Sort::Kept => order.sort_by_key(|n| Reverse(s.regions[*n].retired_slots)),
    }
    if view.reverse {
        order.reverse();
    }
    let rows = order.iter().map(|&n| {
        let r = &s.regions[n];
        let fill = (r.slots.saturating_sub(r.free_slots) * 100).checked_div(r.slots);
        let (lock, state) = match (&r.lock, held[n]) {
            (Some(lock), held) => {
                let state = state_of(lock.pid, lock.pid_exists, lock.alive);
                let since = held.map_or(0.0, |held| held.as_secs_f64());
                (format!("process {}, {state}, seen for {since:.1} s", lock.pid), state)
            }
            (None, _) => (String::new(), "alive"),
        };
        Row::new([
            r.region.to_string(),
            format!("{:.0}", rates[n]),
            r.records.to_string(),
            fill.map_or("-".into(), |fill| format!("{fill} %")),
            r.retired_slots.to_string(),
            lock,
        ])
        .style(state_style(state))
    });
    let widths = [7, 10, 11, 6, 7].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    let header = Row::new(["region", "writes/s", "records", "fill", "kept", "lock"]).style(heading);
    frame.render_widget(Table::new(rows, widths).header(header), body);

    let paused = if view.paused { "   PAUSED" } else { "" };
    let arrow = if view.reverse { ", reversed" } else { "" };
    frame.render_widget(
        Paragraph::new(format!("q quit  s sort: {}{arrow}  r reverse  p pause{paused}", view.sort.name())),
        foot,
    );
}

fn to_json(sample: &Sample) -> serde_json::Value {
    let Sample { stats: s, rates, held, processes } = sample;
    let regions: Vec<_> = s
        .regions
        .iter()
        .zip(rates)
        .zip(held)
        .map(|((r, rate), held)| {
            json!({
                "region": r.region, "writes_per_second": rate, "records": r.records, "slots": r.slots,
                "free_slots": r.free_slots, "retired_slots": r.retired_slots,
                "lock": r.lock.as_ref().map(|lock| json!({
                    "pid": lock.pid, "seat": lock.seat, "state": state_of(lock.pid, lock.pid_exists, lock.alive),
                    "seen_for_seconds": held.map(|held| held.as_secs_f64()),
                })),
            })
        })
        .collect();
    let processes: Vec<_> = processes
        .iter()
        .map(|p| {
            json!({"pid": p.pid, "seat": p.seat, "state": p.state, "pins": p.pins, "locks": p.holds,
                   "command": p.command})
        })
        .collect();
    json!({
        "path": s.path.to_string_lossy(), "verdict": verdict(s), "records": s.records,
        "writes_per_second": rates.iter().sum::<f64>(), "file_size": s.file_size,
        "epoch": s.epoch, "durable_epoch": s.durable_epoch, "regions": regions, "processes": processes,
    })
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn screen(width: u16, height: u16, sample: &Sample, view: &View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, sample, view)).expect("a drawing");
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_rates_and_processes_at_any_width() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::options().regions(3).create(dir.path().join("s.rec")).expect("a store");
        let mut sampler = Sampler::new(&store).expect("a sampler");
        (0..100).for_each(|id| _ = store.put(id, b"x").expect("a put"));
        let sample = sampler.sample().expect("a sample");
        assert!(sample.rates.iter().all(|rate| *rate > 0.0), "{:?}", sample.rates);
        let mut view = View { sort: Sort::Region, reverse: false, paused: false };
        for width in [60, 80, 200] {
            let shown = screen(width, 24, &sample, &view);
            for part in ["100 records", "writes/s", "alive", "q quit"] {
                assert!(shown.contains(part), "{part} is not on\n{shown}");
            }
        }
        for height in [1, 3, 8] {
            let _ = screen(20, height, &sample, &view); // Too small for all of it, and no panic.
        }
        view.sort = Sort::Writes;
        view.reverse = true;
        view.paused = true;
        let shown = screen(100, 24, &sample, &view);
        assert!(shown.contains("sort: writes/s, reversed") && shown.contains("PAUSED"), "{shown}");
    }
}
