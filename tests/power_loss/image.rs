//! Which images are made of what a disk may hold: at random, or all of them.

use std::ops::ControlFlow;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::disk::{Disk, Image, Pick};
use crate::layout::{Layout, Part};

/// An image drawn at random. How it is drawn is drawn first: faults hide from an even mix.
pub(crate) fn random(rng: &mut StdRng, disk: &Disk, layout: &Layout) -> Image {
    let parts = layout.parts(disk.now());
    let mut changed: Vec<(usize, usize)> = disk.changed().collect();
    let way = rng.random_range(0..6);
    let few = rng.random_range(1..=3.min(changed.len().max(1)));
    changed.shuffle(rng);
    let torn = if rng.random_bool(0.3) { 0.3 } else { 0.0 };
    let trash = if rng.random_bool(0.3) { 0.5 } else { 0.0 };
    let spoil = if rng.random_bool(0.15) { 0.4 } else { 0.0 };
    let picks = changed.iter().enumerate().map(|(n, &(sector, newest))| {
        let part = parts.get(sector).copied().unwrap_or(Part::Truth);
        let any = rng.random_range(0..=newest);
        let state = match way {
            0 => any,
            1 => {
                if rng.random_bool(0.8) {
                    0
                } else {
                    any
                }
            }
            2 => {
                if rng.random_bool(0.8) {
                    newest
                } else {
                    any
                }
            }
            3 => {
                if n < few {
                    any
                } else {
                    0
                }
            }
            4 => {
                if n < few {
                    any
                } else {
                    newest
                }
            }
            // All of it as it was at one moment, more or less.
            _ => newest * few / 3,
        };
        // A page that was never flushed may hold anything, and so may what is derived.
        let is_spoilt = part == Part::Truth && disk.was_empty(sector) && rng.random_bool(trash)
            || part == Part::Derived && rng.random_bool(spoil);
        let pick = if is_spoilt {
            match rng.random_range(0..3) {
                0 => Pick::Zero,
                1 => Pick::Trash(rng.random()),
                _ => Pick::Spots(rng.random()),
            }
        } else if rng.random_bool(torn) {
            Pick::Torn(state, rng.random_range(0..=newest), mask(rng))
        } else {
            Pick::State(state)
        };
        (sector, pick)
    });
    let mut picks: Vec<_> = picks.collect();
    picks.sort_unstable_by_key(|p| p.0);
    let lens = disk.lens();
    let len = if rng.random_bool(0.2) { lens[rng.random_range(0..lens.len())] } else { disk.now().len() };
    Image { len, picks }
}

/// The words of a sector that were caught earlier than the others: those before some place, those
/// after it, or any.
fn mask(rng: &mut StdRng) -> u64 {
    let cut = u64::MAX << rng.random_range(1..64);
    match rng.random_range(0..3) {
        0 => cut,
        1 => !cut,
        _ => rng.random(),
    }
}

/// Every image that has become possible with the new states of `fresh`, in as far as the truth is
/// concerned; for what is derived, a few of the mixes. Beyond `bound` images: as many at random.
pub(crate) fn every<B>(
    rng: &mut StdRng,
    disk: &Disk,
    layout: &Layout,
    fresh: &[usize],
    bound: u64,
    mut each: impl FnMut(Image) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let parts = layout.parts(disk.now());
    let (truth, derived): (Vec<_>, Vec<_>) =
        disk.changed().partition(|&(s, _)| parts.get(s).is_none_or(|&p| p == Part::Truth));
    let is_fresh = |sector: usize| fresh.contains(&sector);
    // A sector of the truth is at any state, or trash if there was nothing in it.
    let choices: Vec<usize> =
        truth.iter().map(|&(s, newest)| newest + 1 + usize::from(disk.was_empty(s))).collect();
    let product = choices.iter().try_fold(1u64, |p, &c| p.checked_mul(c as u64)).unwrap_or(u64::MAX);
    let fresh_truth: Vec<usize> = (0..truth.len()).filter(|&i| is_fresh(truth[i].0)).collect();
    let fresh_derived = derived.iter().any(|&(s, _)| is_fresh(s));
    if fresh_truth.is_empty() && !fresh_derived {
        return ControlFlow::Continue(());
    }
    let ways = if bound < 64 { 2 } else { 4 };
    let mut emit = |rng: &mut StdRng, at: &[usize]| {
        let picks: Vec<(usize, Pick)> = truth
            .iter()
            .zip(at)
            .map(|(&(sector, newest), &n)| {
                (sector, if n > newest { Pick::Trash(rng.random()) } else { Pick::State(n) })
            })
            .collect();
        for way in 0..ways {
            let mut picks = picks.clone();
            picks.extend(derived.iter().map(|&(sector, newest)| {
                let state = match way {
                    _ if fresh_truth.is_empty() && is_fresh(sector) => newest,
                    0 => 0,
                    1 => newest,
                    _ => rng.random_range(0..=newest),
                };
                let spoiled = way + 1 == ways && parts[sector] == Part::Derived && rng.random_bool(0.2);
                (sector, if spoiled { Pick::Trash(rng.random()) } else { Pick::State(state) })
            }));
            let lens = disk.lens();
            let len = if way == 0 { disk.now().len() } else { lens[rng.random_range(0..lens.len())] };
            each(Image { len, picks })?;
        }
        ControlFlow::Continue(())
    };
    if fresh_truth.is_empty() {
        let newest: Vec<usize> = truth.iter().map(|t| t.1).collect();
        emit(rng, &vec![0; truth.len()])?;
        emit(rng, &newest)?;
        let any: Vec<usize> = choices.iter().map(|&c| rng.random_range(0..c)).collect();
        return emit(rng, &any);
    }
    let accepted = |at: &[usize]| fresh_truth.iter().any(|&i| at[i] == truth[i].1);
    if product <= bound * ways {
        let mut at = vec![0; truth.len()];
        loop {
            if accepted(&at) {
                emit(rng, &at)?;
            }
            let Some(i) = (0..at.len()).find(|&i| at[i] + 1 < choices[i]) else { break };
            at[i] += 1;
            at[..i].fill(0);
        }
    } else {
        for _ in 0..bound / ways {
            let mut at: Vec<usize> = choices.iter().map(|&c| rng.random_range(0..c)).collect();
            let i = fresh_truth[rng.random_range(0..fresh_truth.len())];
            at[i] = truth[i].1;
            emit(rng, &at)?;
        }
    }
    // And sectors that were caught while they were changed.
    for &i in &fresh_truth {
        for _ in 0..2 {
            let (sector, newest) = truth[i];
            let mut picks: Vec<_> =
                disk.changed().map(|(s, n)| (s, Pick::State(rng.random_range(0..=n)))).collect();
            let place = picks.iter_mut().find(|p| p.0 == sector).expect("it changed");
            place.1 = Pick::Torn(rng.random_range(0..newest), newest, mask(rng));
            each(Image { len: disk.now().len(), picks })?;
        }
    }
    ControlFlow::Continue(())
}
