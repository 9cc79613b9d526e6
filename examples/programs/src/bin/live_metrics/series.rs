//! The series that the collectors replay, and the samples that they are made of.

use std::path::Path;

use bytemuck::{Pod, Zeroable};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Ring, Store};

use crate::common::Failure;

/// Samples of a random series: as many as the others have.
const RANDOM_LEN: usize = 8759;

pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
}

impl Series {
    pub(crate) fn open(number: u64, is_random: bool, seed: u64) -> Result<Self, Failure> {
        match number {
            0 if !is_random => Self::read("Seattle", "seattle-temps.csv"),
            1 if !is_random => Self::read("San Francisco", "sf-temps.csv"),
            _ => Ok(Self::random(number, seed)),
        }
    }

    fn read(name: &str, file: &str) -> Result<Self, Failure> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(file);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut lines = text.lines();
        // The files have their columns in different orders.
        let column = lines.next().and_then(|line| line.split(',').position(|title| title == "temp"));
        let column = column.ok_or_else(|| format!("{file}: without a column `temp`"))?;
        let value = |line: &str| line.split(',').nth(column).and_then(|field| field.parse().ok());
        let values =
            lines.map(|line| value(line).ok_or_else(|| format!("{file}: {line:?} has no temperature")));
        Ok(Self { name: name.to_owned(), values: values.collect::<Result<_, _>>()? })
    }

    /// A year of days and nights, with noise.
    fn random(number: u64, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ number);
        let mut drift = 0.0;
        let value = |hour: usize| {
            let turns = |hours: f64| (hour as f64 / hours * std::f64::consts::TAU).cos();
            drift = 0.98 * drift + random.random_range(-0.8..0.8);
            55.0 - 15.0 * turns(8760.0) - 6.0 * turns(24.0) + drift
        };
        Self { name: format!("random {number}"), values: (0..RANDOM_LEN).map(value).collect() }
    }
}

/// What a collector appends.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Sample {
    pub(crate) series: u64,
    pub(crate) row: u64,
    pub(crate) value: f64,
    /// Made of the other three, to tell if they do not belong together.
    seal: u64,
}

impl Sample {
    pub(crate) fn new(series: u64, row: u64, value: f64) -> Self {
        Self { series, row, value, seal: Self::seal(series, row, value) }
    }

    fn seal(series: u64, row: u64, value: f64) -> u64 {
        let odd = 0x9E37_79B9_7F4A_7C15;
        [series, row, value.to_bits()]
            .iter()
            .fold(odd, |seal, word| (seal ^ word).wrapping_mul(odd).rotate_left(29))
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.seal == Self::seal(self.series, self.row, self.value)
    }
}

/// The ring of a series.
pub(crate) fn ring(store: &Store, series: u64, len: u64) -> recstore::Result<Ring<'_, Sample>> {
    store.ring(series << 32, len)
}
