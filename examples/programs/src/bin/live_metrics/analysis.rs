//! What the analyzer makes of a series: the ring read without a gap, mean and deviation of a window, and
//! the comparison with the series itself.

use std::collections::VecDeque;

use recstore::Ring;

use crate::common::{Failure, check};
use crate::series::{Sample, Series};

/// A window that slides over a series, with its sums, so that a step costs the same whatever its length.
struct Window {
    len: usize,
    samples: VecDeque<(u64, f64)>,
    /// Is taken off every value, as sums of squares of small numbers lose less.
    origin: f64,
    sum: f64,
    squares: f64,
}

impl Window {
    fn new(len: usize) -> Self {
        Self { len, samples: VecDeque::new(), origin: 0.0, sum: 0.0, squares: 0.0 }
    }

    fn push(&mut self, row: u64, value: f64) {
        if self.samples.is_empty() {
            self.origin = value;
        }
        if self.samples.len() == self.len
            && let Some((_, oldest)) = self.samples.pop_front()
        {
            self.sum -= oldest - self.origin;
            self.squares -= (oldest - self.origin).powi(2);
        }
        self.samples.push_back((row, value));
        self.sum += value - self.origin;
        self.squares += (value - self.origin).powi(2);
    }

    fn mean(&self) -> f64 {
        self.origin + self.sum / self.samples.len() as f64
    }

    fn deviation(&self) -> f64 {
        let n = self.samples.len() as f64;
        (self.squares / n - (self.sum / n).powi(2)).max(0.0).sqrt()
    }
}

/// What the analyzer knows of a series.
pub(crate) struct Analysis<'a> {
    pub(crate) series: &'a Series,
    number: u64,
    /// The place in the ring's series that is read next.
    next: u64,
    /// The row that comes next.
    pub(crate) next_row: u64,
    pub(crate) missed: u64,
    window: Window,
    /// For the view: the latest values, and sum and count of each day.
    pub(crate) latest: VecDeque<f64>,
    pub(crate) days: Vec<(f64, u32)>,
}

impl<'a> Analysis<'a> {
    pub(crate) fn new(series: &'a Series, number: u64, window: usize) -> Self {
        let days = vec![(0.0, 0); series.values.len().div_ceil(24)];
        Self {
            series,
            number,
            next: 0,
            next_row: 0,
            missed: 0,
            window: Window::new(window),
            latest: VecDeque::new(),
            days,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.series.values.len() as u64
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.next_row == self.len()
    }

    /// Takes in what is new in the ring.
    pub(crate) fn read(&mut self, ring: &Ring<'_, Sample>) -> Result<(), Failure> {
        for found in ring.iter_from(self.next) {
            let (number, sample) = found?;
            self.take_in(number, &sample)?;
        }
        Ok(())
    }

    fn take_in(&mut self, number: u64, sample: &Sample) -> Result<(), Failure> {
        let name = &self.series.name;
        check(sample.is_whole() && sample.series == self.number, || {
            format!("{name}: sample {number} is whole")
        })?;
        check(sample.row >= self.next_row, || format!("{name}: row {} comes once", sample.row))?;
        check(number == sample.row, || format!("{name}: no number is without a sample"))?;
        self.missed += sample.row - self.next_row;
        (self.next, self.next_row) = (number + 1, sample.row + 1);

        self.window.push(sample.row, sample.value);
        self.latest.push_back(sample.value);
        if self.latest.len() > 400 {
            self.latest.pop_front();
        }
        let day = self.days.get_mut(sample.row as usize / 24);
        let (sum, count) = day.ok_or_else(|| format!("{name}: there is no row {}", sample.row))?;
        (*sum, *count) = (*sum + sample.value, *count + 1);
        Ok(())
    }

    /// Compares the last window with the series itself, computed in the plain way.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let name = &self.series.name;
        let window = &self.window;
        let first = self.len() - window.samples.len() as u64;
        let rows: Vec<u64> = window.samples.iter().map(|&(row, _)| row).collect();
        check(self.missed > 0 || rows.iter().copied().eq(first..self.len()), || {
            format!("{name}: the last window is the last {} rows", rows.len())
        })?;
        let values: Vec<f64> = rows.iter().map(|&row| self.series.values[row as usize]).collect();
        check(values.iter().eq(window.samples.iter().map(|(_, value)| value)), || {
            format!("{name}: the values are those of the series")
        })?;
        let mean = mean(values.iter().copied());
        let deviation = self::mean(values.iter().map(|value| (value - mean).powi(2))).sqrt();
        let is_near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        check(is_near(mean, window.mean()) && is_near(deviation, window.deviation()), || {
            format!(
                "{name}: mean {mean} and deviation {deviation} of the last window ({} and {})",
                window.mean(),
                window.deviation()
            )
        })
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "{:14} {:5} of {}   mean {:6.2}   deviation {:5.2}   now {:5.1}   missed {}",
            self.series.name,
            self.next_row,
            self.len(),
            self.window.mean(),
            self.window.deviation(),
            self.latest.back().copied().unwrap_or(f64::NAN),
            self.missed,
        )
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}
