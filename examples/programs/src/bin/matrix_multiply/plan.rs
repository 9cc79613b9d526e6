//! How the product is cut into tiles, and the tiles into tasks.

use std::ops::Range;

use clap::ValueEnum;

use crate::common::Failure;
use crate::common::program::argument;

/// What a worker takes at a time.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Partition {
    Rows,
    Columns,
    Tiles,
}

/// How the product is cut.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// Number of panels that A and B are cut into.
    pub(crate) cuts: (usize, usize),
    pub(crate) partition: Partition,
    pub(crate) is_sparse: bool,
}

impl Plan {
    pub(crate) fn to_arguments(&self, store: &str) -> Vec<String> {
        let partition = self.partition.to_possible_value().map_or(String::new(), |p| p.get_name().to_owned());
        let numbers = [self.m, self.k, self.n, self.cuts.0, self.cuts.1].map(|n| n.to_string());
        [store.to_owned(), partition, self.is_sparse.to_string()].into_iter().chain(numbers).collect()
    }

    pub(crate) fn from_arguments(arguments: &[String]) -> Result<Self, Failure> {
        let number = |n| argument::<usize>(arguments, n);
        Ok(Self {
            m: number(3)?,
            k: number(4)?,
            n: number(5)?,
            cuts: (number(6)?, number(7)?),
            partition: Partition::from_str(&arguments[1], false)?,
            is_sparse: argument(arguments, 2)?,
        })
    }

    pub(crate) fn tasks(&self) -> usize {
        match self.partition {
            Partition::Rows => self.cuts.0,
            Partition::Columns => self.cuts.1,
            Partition::Tiles => self.cuts.0 * self.cuts.1,
        }
    }

    /// The task that a tile belongs to.
    pub(crate) fn task_of(&self, (i, j): (usize, usize)) -> usize {
        match self.partition {
            Partition::Rows => i,
            Partition::Columns => j,
            Partition::Tiles => self.tile(i, j) as usize,
        }
    }

    pub(crate) fn tiles(&self) -> impl Iterator<Item = (usize, usize)> {
        let columns = self.cuts.1;
        (0..self.cuts.0 * columns).map(move |tile| (tile / columns, tile % columns))
    }

    /// The id of a tile of the result.
    pub(crate) fn tile(&self, i: usize, j: usize) -> u64 {
        (i * self.cuts.1 + j) as u64
    }

    pub(crate) fn rows(&self, i: usize) -> Range<usize> {
        cut(self.m, self.cuts.0, i)
    }

    pub(crate) fn columns(&self, j: usize) -> Range<usize> {
        cut(self.n, self.cuts.1, j)
    }
}

/// Part `n` of `len`, cut into so many parts, as equal as can be.
pub(crate) fn cut(len: usize, parts: usize, n: usize) -> Range<usize> {
    n * len / parts..(n + 1) * len / parts
}
