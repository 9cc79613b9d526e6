//! Power is lost at every step, the disk holds any mix of what the page cache has had since the last
//! flush, and nothing that was synced is lost, or comes back after its synced deletion.
//!
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
mod image;
mod layout;
mod oracle;
mod recorder;
mod search;
mod workload;

use std::time::Instant;

use check::Bench;
use common::{Me, Worker};
use layout::Layout;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::testing::{Fault, switch};
use search::Effort;
use workload::Op;

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
    for n in 0..if long() { 4000 } else { 40 } {
        let case = if n == 0 { seed } else { rng.random() };
        if let Err(found) =
            search::chain(&mut bench, case, Effort { crash_points: 12, images: 5, shrink: true })
        {
            panic!("{found}");
        }
    }
    report("random", &bench, start);
}

/// Workloads made by hand, for what is far from the beaten track.
fn scripts() -> Vec<(&'static str, Layout, Vec<Op>)> {
    let put = |id| Op::Put(id, usize::MAX);
    let sync = || Op::Sync(vec![]);
    let script = |name, layout: Layout, ops: Vec<Op>| {
        let whole = |op| match op {
            Op::Put(id, usize::MAX) => Op::Put(id, layout.record_size),
            Op::Sync(inner) => Op::Sync(
                inner
                    .into_iter()
                    .map(|o| if let Op::Put(id, _) = o { Op::Put(id, layout.record_size) } else { o })
                    .collect(),
            ),
            op => op,
        };
        (name, layout, ops.into_iter().map(whole).collect())
    };
    vec![
        script(
            "an overwritten record, slots across sectors",
            Layout::new(600, 1, 4, 6),
            vec![put(0), sync(), put(0), put(0), sync(), put(0)],
        ),
        script(
            "a chain of overwrites, then reuse",
            Layout::new(480, 1, 2, 6),
            vec![put(0), sync(), put(0), sync(), put(0), put(1), put(1), sync(), put(1), put(0)],
        ),
        script(
            "a deletion, its tombstone reclaimed together with what it hides",
            Layout::new(600, 1, 4, 6),
            vec![
                put(0),
                sync(),
                put(0),
                sync(),
                Op::Delete(0),
                sync(),
                put(1),
                put(2),
                put(3),
                put(4),
                sync(),
            ],
        ),
        script(
            "a deletion before the flush, and again",
            Layout::new(480, 1, 2, 6),
            vec![put(0), sync(), Op::Delete(0), put(0), Op::Delete(0), sync(), put(0), Op::Delete(0), sync()],
        ),
        script(
            "writers that come in during the flush",
            Layout::new(480, 1, 2, 6),
            vec![
                put(0),
                sync(),
                put(0),
                Op::Sync(vec![put(1), put(1), put(1), Op::Delete(0), put(0)]),
                put(1),
            ],
        ),
        script(
            "a deletion while somebody may read",
            Layout::new(480, 1, 2, 6),
            vec![put(0), sync(), put(0), Op::PinHint, Op::Delete(0), sync(), put(1), put(1), put(1), sync()],
        ),
        script(
            "closed and opened again",
            Layout::new(100, 1, 4, 6),
            vec![
                put(0),
                put(1),
                Op::Reopen { closed: true },
                put(0),
                Op::Delete(1),
                Op::Reopen { closed: false },
                sync(),
            ],
        ),
        script(
            "two regions that grow",
            Layout::new(480, 2, 2, 8),
            vec![put(0), put(1), put(2), sync(), put(3), put(4), put(5), sync(), put(0)],
        ),
        script(
            "a record of many sectors",
            Layout::new(1500, 1, 2, 4),
            vec![put(0), sync(), put(0), Op::Put(1, 700), sync(), Op::Put(0, 20), Op::Put(1, 0)],
        ),
    ]
}

#[test]
fn no_image_of_a_scripted_workload_breaks_a_promise() {
    let (mut bench, start) = (Bench::new(), Instant::now());
    let (bound, nth) = if long() { (4096, 40) } else { (48, 400) };
    for (name, layout, ops) in scripts() {
        let before = bench.tally.images;
        if let Err(found) = search::exhaust(&mut bench, &layout, 6, &ops, 0, bound, nth) {
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
    let layout = Layout::new(8, 1, 2, 4);
    let alphabet = |n: usize| match n {
        0 => Op::Put(0, 8),
        1 => Op::Sync(vec![]),
        2 => Op::Delete(0),
        _ => Op::Put(1, 8),
    };
    let longest = if long() { 6 } else { 4 };
    for length in 1..=longest {
        for code in 0..1usize << (2 * length) {
            let ops: Vec<Op> = (0..length).map(|i| alphabet(code >> (2 * i) & 3)).collect();
            // What begins with a deletion or a sync is like what comes after it.
            if length > 1 && !matches!(ops[0], Op::Put(0, _)) {
                continue;
            }
            if let Err(found) = search::exhaust(&mut bench, &layout, 2, &ops, length - 1, 4096, 500) {
                panic!("{found}");
            }
        }
    }
    report(&format!("every workload of up to {longest} operations"), &bench, start);
}

const FAULTS: [Fault; 7] = [
    Fault::ReuseEarly,
    Fault::NoTombstone,
    Fault::TombstoneEarly,
    Fault::DurableEarly,
    Fault::SumWithoutHeader,
    Fault::LowerSeqWins,
    Fault::NoScrub,
];

/// Looks for a counterexample as the tests above do, with a fault switched on, in both ways.
fn search_with(fault: Fault, me: &mut Me) {
    switch(fault);
    let (mut bench, start) = (Bench::new(), Instant::now());
    let by_script = scripts().into_iter().find_map(|(name, layout, ops)| {
        let found = search::exhaust(&mut bench, &layout, 6, &ops, 0, 48, u64::MAX).err()?;
        Some(format!("script {name:?}, {} images: {found}", bench.tally.images))
    });
    let scripted = start.elapsed();
    let (mut bench, start) = (Bench::new(), Instant::now());
    let by_chance = (0..500).find_map(|seed| {
        let found =
            search::chain(&mut bench, seed, Effort { crash_points: 12, images: 5, shrink: false }).err()?;
        Some(format!("chain {seed}, {} images: {found}", bench.tally.images))
    });
    for (found, time) in [(by_script, scripted), (by_chance, start.elapsed())] {
        me.say(&format!(
            "{fault:?} {time:.1?} {}",
            found.unwrap_or("NOTHING".to_owned()).replace('\n', "\x1f")
        ));
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    let fault = FAULTS.into_iter().find(|f| format!("{f:?}") == me.role).expect("a fault");
    search_with(fault, &mut me);
}

fn is_found(fault: Fault) {
    let mut worker = Worker::spawn(&format!("{fault:?}"), &[]);
    while let Some(line) = worker.line() {
        println!("{}", line.replace('\x1f', "\n"));
    }
    worker.finish();
}

#[test]
fn mutations() {
    for fault in FAULTS {
        is_found(fault);
    }
}
