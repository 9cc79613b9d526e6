//! Matrices in the memory of one process, dense or sparse, the kernel that multiplies them, and the panels that
//! they are cut into for the store.

use std::collections::HashMap;
use std::ops::Range;

use bytemuck::Pod;
use rand::Rng;
use rand::rngs::StdRng;
use recstore::{Pin, Store};

use crate::common::Failure;

// Ids of the panels' records, from the first panel on.
const VALUES: u64 = 1 << 32;
const BEGINS: u64 = 2 << 32;
const COLUMNS: u64 = 3 << 32;
pub(crate) const OF_B: u64 = 4 << 32;

/// Some rows of A.
pub(crate) enum Rows<'a> {
    /// One after another.
    Dense(&'a [f64]),
    /// `begins[i]..begins[i + 1]` are the entries of row `i` in `columns` and `values`.
    Sparse { begins: &'a [u32], columns: &'a [u32], values: &'a [f64] },
}

impl Rows<'_> {
    /// The kernel: `out` = these rows times `b`. `b` has `k` rows of `n`, and `out` has rows of `n`.
    pub(crate) fn times(&self, k: usize, b: &[f64], n: usize, out: &mut [f64]) {
        let m = out.len() / n;
        assert_eq!((b.len(), out.len()), (k * n, m * n));
        match *self {
            Self::Dense(a) => {
                assert_eq!(a.len(), m * k);
                // SAFETY: the lengths are as asserted, for matrices that lie row after row; `out` is borrowed
                // mutably, so it is apart from the others. With a beta of 0 it is not read.
                unsafe {
                    let (k_stride, n_stride) = (k as isize, n as isize);
                    matrixmultiply::dgemm(
                        m,
                        k,
                        n,
                        1.0,
                        a.as_ptr(),
                        k_stride,
                        1,
                        b.as_ptr(),
                        n_stride,
                        1,
                        0.0,
                        out.as_mut_ptr(),
                        n_stride,
                        1,
                    );
                }
            }
            Self::Sparse { begins, columns, values } => {
                for (range, out) in begins.windows(2).zip(out.chunks_exact_mut(n)) {
                    out.fill(0.0);
                    for entry in range[0] as usize..range[1] as usize {
                        let row = &b[columns[entry] as usize * n..][..n];
                        let value = values[entry];
                        for (sum, factor) in out.iter_mut().zip(row) {
                            *sum += value * factor;
                        }
                    }
                }
            }
        }
    }
}

/// All of A, in this process's memory.
pub(crate) struct Matrix {
    /// Length of a row.
    pub(crate) width: usize,
    /// Of a sparse matrix, the ends of the rows, from 0, and the columns.
    sparse: Option<(Vec<u32>, Vec<u32>)>,
    pub(crate) values: Vec<f64>,
}

impl Matrix {
    pub(crate) fn dense(m: usize, k: usize, random: &mut StdRng) -> Self {
        Self { width: k, sparse: None, values: (0..m * k).map(|_| random.random_range(-1.0..1.0)).collect() }
    }

    pub(crate) fn sparse(m: usize, k: usize, density: f64, random: &mut StdRng) -> Self {
        let (mut begins, mut columns) = (vec![0], Vec::new());
        for _ in 0..m {
            columns.extend((0..k as u32).filter(|_| random.random_bool(density)));
            begins.push(columns.len() as u32);
        }
        let values = columns.iter().map(|_| random.random_range(-1.0..1.0)).collect();
        Self { width: k, sparse: Some((begins, columns)), values }
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        match &self.sparse {
            None => Rows::Dense(&self.values),
            Some((begins, columns)) => Rows::Sparse { begins, columns, values: &self.values },
        }
    }

    /// The columns and values of a row, without those that are known to be 0.
    pub(crate) fn row(&self, i: usize) -> Box<dyn Iterator<Item = (usize, f64)> + '_> {
        match &self.sparse {
            None => Box::new(self.values[i * self.width..][..self.width].iter().copied().enumerate()),
            Some((begins, columns)) => {
                let entries = begins[i] as usize..begins[i + 1] as usize;
                Box::new(entries.map(|entry| (columns[entry] as usize, self.values[entry])))
            }
        }
    }

    /// Stores a panel of rows.
    pub(crate) fn put(&self, store: &Store, panel: usize, rows: &Range<usize>) -> Result<(), Failure> {
        let Some((begins, columns)) = &self.sparse else {
            store
                .slices()?
                .put(VALUES + panel as u64, &self.values[rows.start * self.width..rows.end * self.width])?;
            return Ok(());
        };
        let begins = &begins[rows.start..=rows.end];
        let entries = begins[0] as usize..begins[rows.len()] as usize;
        let moved: Vec<u32> = begins.iter().map(|begin| begin - begins[0]).collect();
        store.slices()?.put(BEGINS + panel as u64, &moved)?;
        store.slices()?.put(COLUMNS + panel as u64, &columns[entries.clone()])?;
        store.slices()?.put(VALUES + panel as u64, &self.values[entries])?;
        Ok(())
    }

    /// Bytes of the longest record that the panels take.
    pub(crate) fn record_bytes(&self, panels: &[Range<usize>]) -> usize {
        let longest = |rows: &Range<usize>| match &self.sparse {
            None => 8 * rows.len() * self.width,
            Some((begins, _)) => {
                (8 * (begins[rows.end] - begins[rows.start]) as usize).max(4 * (rows.len() + 1))
            }
        };
        panels.iter().map(longest).max().unwrap_or_default()
    }
}

/// The matrices as a worker sees them. Each panel is looked up, and its checksum checked, once; from then
/// on it is read where it lies.
pub(crate) struct Panels<'p> {
    pin: &'p Pin<'p>,
    is_sparse: bool,
    a: HashMap<usize, Rows<'p>>,
    b: HashMap<usize, &'p [f64]>,
}

impl<'p> Panels<'p> {
    pub(crate) fn new(pin: &'p Pin<'p>, is_sparse: bool) -> Self {
        Self { pin, is_sparse, a: HashMap::new(), b: HashMap::new() }
    }

    /// A panel of A and one of B.
    pub(crate) fn get(&mut self, (i, j): (usize, usize)) -> Result<(&Rows<'p>, &'p [f64]), Failure> {
        if !self.a.contains_key(&i) {
            let values = slice(self.pin, VALUES, i)?;
            let rows = match self.is_sparse {
                false => Rows::Dense(values),
                true => {
                    let (begins, columns) = (slice(self.pin, BEGINS, i)?, slice(self.pin, COLUMNS, i)?);
                    Rows::Sparse { begins, columns, values }
                }
            };
            self.a.insert(i, rows);
        }
        if !self.b.contains_key(&j) {
            self.b.insert(j, slice(self.pin, OF_B, j)?);
        }
        Ok((&self.a[&i], self.b[&j]))
    }
}

fn slice<'p, T: Pod>(pin: &'p Pin<'p>, of: u64, panel: usize) -> Result<&'p [T], Failure> {
    pin.get_slice(of + panel as u64)?.ok_or_else(|| format!("panel {panel} is missing").into())
}
