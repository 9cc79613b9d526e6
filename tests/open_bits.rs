//! Every bit of every word that is not data, flipped in a store that is open and lives on.
//!
//! A case is a seed and a bit. A store is filled, the bit is flipped behind its back, and a run of all operations
//! follows, drawn from the seed: writes, deletions, batches, snapshots, pins, passes, flushes, growth; a writer that is
//! killed at some step; a repair; a crash of the system, after which each sector is as it was at the last flush or as
//! it was last. All of it is compared with a model.
//!
//! Fails when: a read gives what nobody wrote; an acknowledged write is gone and neither an error nor a report says so;
//! a repair leaves damage or a store that takes no writes; lent bytes change; a call panics or hangs.
//!
//! A sample of the bits is flipped; `RECSTORE_LONG=1` flips all. A failure says with which `RECSTORE_SEED` and
//! `RECSTORE_BIT` the case runs alone.

#![cfg(feature = "testing")]

#[path = "open_bits/case.rs"]
mod case;
mod common;
#[path = "open_bits/disk.rs"]
mod disk;
#[path = "common/layout.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod layout;
#[path = "open_bits/words.rs"]
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::case::Case;

/// Cases of the sample.
const SAMPLE: u64 = 400;
/// No case takes so long, unless it hangs.
const HANGS: Duration = Duration::from_secs(60);

#[test]
fn a_flipped_bit_in_an_open_store_is_never_silently_wrong() {
    let seed = common::seed();
    let bits = words::bits();
    let one = common::number_from_env("RECSTORE_BIT");
    let is_long = std::env::var_os("RECSTORE_LONG").is_some();
    let cases: Vec<(u64, u64)> = match one {
        Some(bit) => vec![(seed, bit)],
        None if is_long => (0..bits).map(|bit| (seed.wrapping_add(bit), bit)).collect(),
        None => (0..SAMPLE).map(|n| (seed.wrapping_add(n), layout::hash(n, seed) % bits)).collect(),
    };
    let now = Arc::new(AtomicU64::new(0));
    let watched = Arc::clone(&now);
    std::thread::spawn(move || {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            std::thread::park_timeout(Duration::from_secs(1));
            let case = watched.load(Ordering::Relaxed);
            if case != last {
                (last, since) = (case, Instant::now());
            } else if case != 0 && since.elapsed() > HANGS {
                eprintln!("hangs: the {case}th case from seed {seed}");
                std::process::abort();
            }
        }
    });
    let mut failed = Vec::new();
    for (n, &(seed, bit)) in cases.iter().enumerate() {
        now.store(n as u64 + 1, Ordering::Relaxed);
        let run = std::panic::catch_unwind(|| Case::new(seed, bit).run());
        if run.is_err() {
            println!("FAILED: RECSTORE_SEED={seed} RECSTORE_BIT={bit}: {}", words::name(bit));
            failed.push(words::name(bit));
        }
    }
    now.store(0, Ordering::Relaxed);
    println!("{} cases, {} failed", cases.len(), failed.len());
    assert!(failed.is_empty(), "{failed:?}");
}
