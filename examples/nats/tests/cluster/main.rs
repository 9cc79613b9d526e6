//! Mirrors and replicas beside real servers.
//!
//! `RECSTORE_NATS_SECONDS=N`: the random tests run for N seconds each, and not for a few. They print their seed, and take it back in
//! `RECSTORE_SEED`.

mod commands;
mod cuts;
mod mirror;
mod options;
mod pull;
mod servers;

use std::time::Duration;

/// The seed of this run.
fn seed() -> u64 {
    let seed = std::env::var("RECSTORE_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("RECSTORE_SEED={seed}");
    seed
}

/// The length of a random test.
fn length(by_default: u64) -> Duration {
    let given = std::env::var("RECSTORE_NATS_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(given.unwrap_or(by_default))
}
