//! Power is lost at every step, the disk holds any mix of what the page cache has had since the last
//! flush, and nothing that was synced is lost, or comes back after its synced deletion.
//!
//! * [`workload`]: what is done, [`generate`]d at random or made by hand.
//! * [`recorder`]: watches a workload on a real file: its bytes at every step, and its flushes.
//! * [`disk`]: from that, per sector the states that the disk may be at.
//! * [`image`]: the mixes of them; [`check`]: opens each, and holds it against the [`oracle`].
//! * [`search`]: chains of workload, crash, recovery and crash, at random or exhaustively.
//!
//! `RECSTORE_LONG=1` makes it minutes, and wants `--release`; `RECSTORE_SEED=n` replays. The images
//! are counted under `--nocapture`.
//!
//! Fails when: a record comes back older than it was synced, or other than it was ever written; a
//! deletion that was synced is undone; `verify` finds anything after a recovery; writing does not go
//! on; a mistake that is switched on in the crate goes unnoticed.

#![cfg(feature = "testing")]

#[path = "../common/mod.rs"]
mod common;

mod check;
mod disk;
mod generate;
mod image;
mod layout;
mod oracle;
mod recorder;
mod search;
mod workload;

use std::time::Instant;

use check::Bench;
use common::{Me, Worker};
use generate::Setting;
use layout::Layout;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::testing::{Fault, switch};
use search::Effort;
use workload::Op;

/// What is looked at of each life of a chain.
const EFFORT: Effort = Effort { crash_points: 12, images: 5, shrink: true };
/// Chains in which a mistake must be found. Most are found in the first ones.
const FAULTY_CHAINS: u64 = 200;

/// What a process says that has not found anything yet.
const LOOKING: &str = "looking";

fn long() -> bool {
    common::number_from_env("RECSTORE_LONG").is_some_and(|n| n != 0)
}

fn report(what: &str, bench: &Bench, start: Instant) {
    println!("{what}: {:?} in {:.1?}", bench.tally, start.elapsed());
}

#[test]
fn no_random_image_breaks_a_promise() {
    let (mut bench, start) = (Bench::new(), Instant::now());
    let seed = common::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    for n in 0..if long() { 2000 } else { 20 } {
        let case = if n == 0 { seed } else { rng.random() };
        if let Err(found) = search::chain(&mut bench, case, EFFORT) {
            panic!("{found}");
        }
    }
    report("random", &bench, start);
}

#[test]
fn no_image_of_a_scripted_workload_breaks_a_promise() {
    let (mut bench, start) = (Bench::new(), Instant::now());
    let (bound, nth) = if long() { (1024, 40) } else { (8, 800) };
    for (name, setting, ops) in generate::scripts() {
        let before = bench.tally.images;
        if let Err(found) = search::exhaust(&mut bench, &setting, &ops, 0, bound, nth) {
            panic!("{name}: {found}");
        }
        println!("{name}: {} images", bench.tally.images - before);
    }
    report("scripts", &bench, start);
}

/// All workloads of so many operations on two records: at each step of the last operation, all images
/// (those of the operations before are of a shorter workload, which comes on its own).
#[test]
fn no_image_of_any_short_workload_breaks_a_promise() {
    let (mut bench, start) = (Bench::new(), Instant::now());
    let alphabet = |n: usize| match n {
        0 => Op::Put(0, 8),
        1 => Op::Sync(vec![]),
        2 => Op::Delete(0),
        _ => Op::Put(1, 8),
    };
    let with_batches = |n: usize| match n {
        0 => Op::Put(0, 8),
        1 => Op::Sync(vec![]),
        2 => Op::Batch(vec![(0, Some(8)), (1, Some(8))]),
        _ => Op::Batch(vec![(0, None), (1, Some(8))]),
    };
    let longest = if long() { 6 } else { 3 };
    every_workload(&mut bench, 1, longest, alphabet);
    every_workload(&mut bench, 2, if long() { 5 } else { 3 }, with_batches);
    let with_durable_ones = |n: usize| match n {
        0 => Op::PutDurable(0, 8),
        1 => Op::Put(1, 8),
        2 => Op::Delete(0),
        _ => Op::Put(0, 8),
    };
    every_workload(&mut bench, 1, if long() { 5 } else { 3 }, with_durable_ones);
    report(&format!("every workload of up to {longest} operations"), &bench, start);
}

/// All workloads of up to `longest` operations of an alphabet of four.
fn every_workload(bench: &mut Bench, regions: u32, longest: usize, alphabet: impl Fn(usize) -> Op) {
    let setting = Setting { layout: Layout::new(8, regions, 2, 2 * regions + 2), ids: 2 };
    for length in 1..=longest {
        for code in 0..1usize << (2 * length) {
            let ops: Vec<Op> = (0..length).map(|i| alphabet(code >> (2 * i) & 3)).collect();
            // What begins with a deletion or a sync is like what comes after it.
            if length > 1 && matches!(ops[0], Op::Sync(_) | Op::Delete(_) | Op::Put(1, _)) {
                continue;
            }
            if let Err(found) = search::exhaust(bench, &setting, &ops, length - 1, 4096, 500) {
                panic!("{found}");
            }
        }
    }
}

const FAULTS: [Fault; 11] = [
    Fault::ReuseEarly,
    Fault::NoTombstone,
    Fault::TombstoneEarly,
    Fault::DurableEarly,
    Fault::SumWithoutHeader,
    Fault::LowerSeqWins,
    Fault::NoScrub,
    Fault::PartOfBatch,
    Fault::SettledEarly,
    Fault::LoneReplaced,
    Fault::LoneDeleted,
];

/// Looks for a counterexample in random chains and in the scripts by turns, as the tests do, but with a mistake switched on.
fn search_with(fault: Fault, me: &mut Me) {
    switch(fault);
    let (mut bench, start) = (Bench::new(), Instant::now());
    let scripts = generate::scripts();
    assert!(scripts.len() as u64 <= FAULTY_CHAINS);
    for case in 0..FAULTY_CHAINS {
        me.say(LOOKING);
        let mut found = search::chain(&mut bench, case, Effort { shrink: false, ..EFFORT });
        if let (Ok(_), Some((_, setting, ops))) = (&found, scripts.get(case as usize)) {
            me.say(LOOKING);
            found = search::exhaust(&mut bench, setting, ops, 0, 64, 200);
        }
        if let Err(found) = found {
            let (images, took) = (bench.tally.images, start.elapsed());
            me.say(
                &format!("{fault:?}: found in image {images} after {took:.1?}: {found}")
                    .replace('\n', "\x1f"),
            );
            return;
        }
    }
    me.say(&format!("{fault:?}: not found in {} images", bench.tally.images));
}

/// Has a mistake made by another process, for the switch is the process's.
fn is_found(fault: Fault) {
    let mut worker = Worker::spawn(&format!("{fault:?}"), &[]);
    let mut said = worker.hear();
    while said == LOOKING {
        said = worker.hear();
    }
    let said = said.replace('\x1f', "\n");
    worker.finish();
    println!("{said}");
    assert!(said.contains(": found in image "), "{said}");
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    let fault = FAULTS.into_iter().find(|f| format!("{f:?}") == me.role).expect("a fault");
    search_with(fault, &mut me);
}

#[test]
fn a_durable_slot_that_is_used_again_early_is_found() {
    is_found(Fault::ReuseEarly);
}

#[test]
fn a_deletion_without_a_tombstone_is_found() {
    is_found(Fault::NoTombstone);
}

#[test]
fn a_tombstone_that_goes_early_is_found() {
    is_found(Fault::TombstoneEarly);
}

#[test]
fn a_durable_epoch_that_is_raised_before_the_flush_is_found() {
    is_found(Fault::DurableEarly);
}

#[test]
fn a_checksum_that_leaves_out_the_header_is_found() {
    is_found(Fault::SumWithoutHeader);
}

#[test]
fn a_recovery_that_picks_the_lower_seq_is_found() {
    is_found(Fault::LowerSeqWins);
}

#[test]
fn a_slot_that_is_free_and_not_scrubbed_is_found() {
    is_found(Fault::NoScrub);
}

#[test]
fn a_part_of_a_batch_that_is_kept_is_found() {
    is_found(Fault::PartOfBatch);
}

#[test]
fn a_batch_that_counts_as_durable_before_the_flush_is_found() {
    is_found(Fault::SettledEarly);
}

#[test]
fn a_version_that_was_flushed_by_itself_and_loses_its_slot_early_is_found() {
    is_found(Fault::LoneReplaced);
}

#[test]
fn a_version_that_was_flushed_by_itself_and_is_deleted_without_a_tombstone_is_found() {
    is_found(Fault::LoneDeleted);
}
