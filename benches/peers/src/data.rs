//! Ids and values: the same for every peer, from fixed seeds.
//!
//! Ids are 0 to n - 1. A value says whose it is and which write it was, at both ends, so that a wrong, torn
//! or lost value is seen, and so that no two writes of one id are equal (a store that notices an
//! equal value writes nothing, and looks fast).

/// A small fast generator (xorshift64*): what it costs is not what is measured.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// 0 to n - 1, shuffled by a fixed seed.
pub fn permutation(n: u64) -> Vec<u64> {
    let mut ids: Vec<u64> = (0..n).collect();
    let mut rng = Rng::new(20_240_607);
    for i in (1..ids.len()).rev() {
        ids.swap(i, rng.below(i as u64 + 1) as usize);
    }
    ids
}

/// A Zipf distribution over 0 to n - 1 with exponent 0.99 (Gray et al., "Quickly generating billion-record
/// synthetic databases", 1994), the frequent ones scattered.
pub struct Zipf {
    n: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    const THETA: f64 = 0.99;

    pub fn new(n: u64) -> Self {
        let zeta = (1..=n).map(|i| (i as f64).powf(-Self::THETA)).sum::<f64>();
        let zeta2 = 1.0 + 0.5f64.powf(Self::THETA);
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - Self::THETA)) / (1.0 - zeta2 / zeta);
        Self { n, zeta, alpha: 1.0 / (1.0 - Self::THETA), eta }
    }

    pub fn next(&self, rng: &mut Rng) -> u64 {
        let u = rng.unit();
        let uz = u * self.zeta;
        let rank = if uz < 1.0 {
            0
        } else if uz < 1.0 + 0.5f64.powf(Self::THETA) {
            1
        } else {
            (self.n as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64
        };
        // Neighbours in rank are no neighbours in the store.
        (rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16) % self.n
    }
}

/// A value that is stamped for one write after another.
pub struct Value(Vec<u8>);

impl Value {
    pub fn new(size: usize) -> Self {
        let mut rng = Rng::new(77);
        Self((0..size).map(|_| rng.next() as u8).collect())
    }

    /// The value of write `number` of `id`.
    #[inline]
    pub fn stamp(&mut self, id: u64, number: u64) -> &[u8] {
        let len = self.0.len();
        self.0[..8].copy_from_slice(&id.to_le_bytes());
        self.0[8..16].copy_from_slice(&number.to_le_bytes());
        self.0[len - 8..].copy_from_slice(&number.to_le_bytes());
        &self.0
    }
}

fn word(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().unwrap())
}

/// The number of the write that made `data`, which must be one of `id`.
#[inline]
pub fn number_of(data: &[u8], id: u64) -> u64 {
    let number = word(data, 8);
    assert!(word(data, 0) == id && word(data, data.len() - 8) == number, "wrong data for id {id}");
    number
}

/// What a bulk load loads, batch by batch.
pub struct Source<'a> {
    ids: &'a [u64],
    values: Vec<Value>,
    now: Vec<u64>,
}

impl<'a> Source<'a> {
    pub fn new(ids: &'a [u64], size: usize) -> Self {
        let batch = ((256 << 10) / size).clamp(4, 1000);
        Self { ids, values: (0..batch).map(|_| Value::new(size)).collect(), now: Vec::new() }
    }

    /// Batches of `batch` records, which [`refill`](Self::refill) gives it.
    pub fn of(batch: usize, size: usize) -> Self {
        Self { ids: &[], values: (0..batch).map(|_| Value::new(size)).collect(), now: Vec::new() }
    }

    /// Makes write `number` of `ids` the batch.
    pub fn refill(&mut self, ids: &[u64], number: u64) {
        self.now.clear();
        self.now.extend_from_slice(ids);
        for (value, &id) in self.values.iter_mut().zip(ids) {
            value.stamp(id, number);
        }
    }

    /// Goes on to the next batch; its length, 0 at the end.
    pub fn fill(&mut self) -> usize {
        let (now, rest) = self.ids.split_at(self.values.len().min(self.ids.len()));
        self.ids = rest;
        self.refill(now, 1);
        now.len()
    }

    /// The batch.
    pub fn batch(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.now.iter().zip(&self.values).map(|(&id, value)| (id, &value.0[..]))
    }
}
