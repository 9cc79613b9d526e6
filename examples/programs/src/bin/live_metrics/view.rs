//! Where the analysis is shown: a live view on a terminal, lines elsewhere.

use std::time::{Duration, Instant};

use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Sparkline};
use ratatui::{DefaultTerminal, Frame, Terminal};

use crate::analysis::Analysis;
use crate::collectors::State;
use crate::common::Failure;

/// At most this often is the screen drawn.
const FRAME: Duration = Duration::from_millis(40);

/// Where the analysis is shown.
pub(crate) enum View {
    /// A line for each quarter of a series, and the number of notes and quarters that were printed.
    Lines {
        notes: usize,
        quarters: Vec<u64>,
    },
    Screen {
        terminal: DefaultTerminal,
        drawn: Instant,
    },
}

impl View {
    pub(crate) fn lines(series: usize) -> Self {
        Self::Lines { notes: 0, quarters: vec![0; series] }
    }

    pub(crate) fn screen() -> Self {
        Self::Screen { terminal: ratatui::init(), drawn: Instant::now() }
    }

    pub(crate) fn show(
        &mut self,
        analyses: &[Analysis<'_>],
        state: &State,
        is_last: bool,
    ) -> Result<(), Failure> {
        match self {
            Self::Lines { notes, quarters } => {
                for note in &state.notes[*notes..] {
                    println!("{note}");
                }
                *notes = state.notes.len();
                for (analysis, shown) in analyses.iter().zip(quarters) {
                    let quarter = 4 * analysis.next_row / analysis.len();
                    if quarter > *shown {
                        println!("{}", analysis.line());
                    }
                    *shown = quarter;
                }
            }
            Self::Screen { terminal, drawn } => {
                if drawn.elapsed() >= FRAME || is_last {
                    terminal.draw(|frame| draw(frame, analyses, state))?;
                    *drawn = Instant::now();
                }
            }
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Self::Screen { .. } = self {
            ratatui::restore();
        }
    }
}

fn draw(frame: &mut Frame<'_>, analyses: &[Analysis<'_>], state: &State) {
    let rows = [Constraint::Fill(1), Constraint::Length(1)];
    let [body, foot] = Layout::vertical(rows).areas(frame.area());
    let areas = Layout::vertical(analyses.iter().map(|_| Constraint::Fill(1))).split(body);
    let colors = [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta];
    for ((analysis, pid), (&area, color)) in
        analyses.iter().zip(&state.pids).zip(areas.iter().zip(colors.into_iter().cycle()))
    {
        let block = Block::bordered()
            .title(Line::from(format!(" {} ", analysis.line())).style(Style::new().fg(color).bold()))
            .title_bottom(Line::from(format!(" process {pid} ")).right_aligned());
        let inside = block.inner(area);
        frame.render_widget(block, area);
        let columns = [Constraint::Fill(3), Constraint::Length(1), Constraint::Fill(2)];
        let [hours, _, year] = Layout::horizontal(columns).areas(inside);
        let count = analysis.latest.len().min(hours.width as usize);
        let latest = analysis.latest.iter().skip(analysis.latest.len() - count).map(|&value| Some(value));
        frame.render_widget(sparkline(latest, color), hours);
        let width = year.width.max(1) as usize;
        let of_year = (0..width).map(|n| {
            let days = &analysis.days[n * analysis.days.len() / width..(n + 1) * analysis.days.len() / width];
            let (sum, count) = days.iter().fold((0.0, 0), |(sum, count), day| (sum + day.0, count + day.1));
            (count > 0).then(|| sum / f64::from(count))
        });
        frame.render_widget(sparkline(of_year, Color::DarkGray), year);
    }
    let seen: u64 = analyses.iter().map(|a| a.next_row - a.missed).sum();
    let note = state.notes.last().map_or("q: quit", String::as_str);
    frame.render_widget(Paragraph::new(format!("{seen} samples   hours | year   {note}")), foot);
}

/// Bars from the smallest value to the largest.
fn sparkline(values: impl Iterator<Item = Option<f64>>, color: Color) -> Sparkline<'static> {
    let values: Vec<Option<f64>> = values.collect();
    let known = || values.iter().flatten().copied();
    let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    let height = |value: f64| 1 + ((value - low) / (high - low).max(1e-9) * 1000.0) as u64;
    let bars: Vec<u64> = values.iter().map(|value| value.map_or(0, height)).collect();
    Sparkline::default().data(bars).max(1001).style(Style::new().fg(color))
}

/// The screen as text.
pub(crate) fn screenshot(analyses: &[Analysis<'_>], state: &State) -> Result<String, Failure> {
    let mut terminal = Terminal::new(TestBackend::new(110, 30))?;
    terminal.draw(|frame| draw(frame, analyses, state))?;
    Ok(terminal.backend().to_string())
}
