//! What writers do, drawn so that the machine and the host draw the same.
//!
//! Three streams of batches; a stream has ids of its own. A batch is some calls and one at its end that
//! returns when something is durable; then it is acknowledged, and the next one begins only when the
//! acknowledgement has left the machine. So the host knows the calls that may have been made.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::common::value::{LEAST, value};

pub(crate) const STREAMS: u64 = 3;

/// Record size, regions, slots per extent; each is a store.
pub(crate) const GEOMETRIES: [(usize, u32, u32); 3] = [(64, 2, 4), (700, 4, 8), (3000, 1, 4)];

/// A version's name: which stream of which round wrote it, and its number there.
pub(crate) type Name = (u64, u64);

/// One round's draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) seed: u64,
    pub(crate) number: u64,
}

pub(crate) enum Call {
    Put(u64, Name),
    Update(u64, Name),
    Delete(u64),
    Many(Vec<(u64, Name)>),
}

/// The call that makes a batch durable.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// All of it.
    Sync,
    /// All of it, by closing the store; it is opened again.
    Reopen,
    /// No more than this one write.
    Durable(u64, Name),
}

pub(crate) struct Batch {
    pub(crate) stream: u64,
    pub(crate) calls: Vec<Call>,
    pub(crate) end: End,
}

impl Round {
    pub(crate) fn batch(self, stream: u64, number: u64) -> Batch {
        let mut rng = StdRng::seed_from_u64(mix(mix(mix(self.seed, self.number), stream), number));
        let mut counter = number * 10_000;
        let mut name = || {
            counter += 1;
            (self.number << 8 | stream, counter)
        };
        let calls = if rng.random_ratio(1, 4) { rng.random_range(60..200) } else { rng.random_range(0..12) };
        let calls = (0..calls)
            .map(|_| {
                let id = draw_id(&mut rng, stream);
                match rng.random_range(0..100) {
                    0..50 => Call::Put(id, name()),
                    50..65 => Call::Update(id, name()),
                    65..90 => Call::Delete(id),
                    _ => {
                        Call::Many((0..rng.random_range(1..6)).map(|n| (id + n * STREAMS, name())).collect())
                    }
                }
            })
            .collect();
        let end = match rng.random_range(0..100) {
            0..60 => End::Sync,
            60..75 => End::Reopen,
            _ => End::Durable(draw_id(&mut rng, stream), name()),
        };
        Batch { stream, calls, end }
    }
}

impl Batch {
    /// What the calls leave, in order: each id, and the version or that there is none.
    pub(crate) fn effects(&self) -> Vec<(u64, Option<Name>)> {
        let mut effects = Vec::new();
        for call in &self.calls {
            match call {
                Call::Put(id, name) | Call::Update(id, name) => effects.push((*id, Some(*name))),
                Call::Delete(id) => effects.push((*id, None)),
                Call::Many(all) => effects.extend(all.iter().map(|(id, name)| (*id, Some(*name)))),
            }
        }
        if let End::Durable(id, name) = self.end {
            effects.push((id, Some(name)));
        }
        effects
    }
}

/// The bytes of a version.
pub(crate) fn bytes(id: u64, (writer, counter): Name, record_size: usize) -> Vec<u8> {
    let len = LEAST + (mix(mix(id, writer), counter) % (record_size - LEAST + 1) as u64) as usize;
    value(id, writer, counter, len)
}

fn draw_id(rng: &mut StdRng, stream: u64) -> u64 {
    let ids = if rng.random_ratio(1, 20) { 400 } else { 24 };
    rng.random_range(0..ids) * STREAMS + stream
}

fn mix(a: u64, b: u64) -> u64 {
    (a.rotate_left(25) ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
}
