//! Workloads: at random, and made by hand.

use rand::Rng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::layout::Layout;
use crate::workload::Op;

/// Where a workload takes place, and what it writes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) layout: Layout,
    /// Ids from 0; few, so that each has a history.
    pub(crate) ids: u64,
}

/// A setting: small, so that every corner is near.
pub(crate) fn setting(rng: &mut StdRng) -> Setting {
    // Every now and then, records enough for the index to move.
    if rng.random_bool(0.04) {
        return Setting { layout: Layout::new(8, 1, 2, 60), ids: 48 };
    }
    let record_size = [8, 8, 64, 100, 300, 480, 600, 1000, 1500][rng.random_range(0..9)];
    let regions = if rng.random_bool(0.75) { 1 } else { 2 };
    let slots = [2, 4, 4, 8][rng.random_range(0..4)];
    let extents = [2, 3, 6, 20, 20][rng.random_range(0..5)];
    let layout = Layout::new(record_size, regions, slots, extents);
    let layout = if rng.random() { layout.growing() } else { layout };
    Setting { layout, ids: rng.random_range(1..=6) }
}

#[derive(Clone, Copy)]
enum Kind {
    Put,
    Delete,
    Sync,
    Death,
    Seldom,
}

/// A workload of so many operations. What it does often, and what hardly ever, is drawn first.
pub(crate) fn ops(rng: &mut StdRng, setting: &Setting, count: usize) -> Vec<Op> {
    let mut weight = || rng.random::<f64>() * rng.random::<f64>();
    let kinds = [
        (Kind::Put, 0.2 + weight()),
        (Kind::Delete, weight()),
        (Kind::Sync, 0.05 + weight()),
        (Kind::Death, 0.2 * weight()),
        (Kind::Seldom, 0.1 * weight()),
    ];
    let kind = WeightedIndex::new(kinds.map(|k| k.1)).expect("weights above 0");
    let busy_flushes = rng.random_bool(0.5);
    let kinds: Vec<Kind> = (0..count).map(|_| kinds[kind.sample(rng)].0).collect();
    kinds
        .into_iter()
        .map(|kind| match kind {
            Kind::Put if rng.random_bool(0.15) => batch(rng, setting),
            Kind::Put if rng.random_bool(0.1) => Op::PutDurable(id(rng, setting), len(rng, setting)),
            Kind::Put => put(rng, setting),
            Kind::Delete => Op::Delete(id(rng, setting)),
            Kind::Sync if rng.random_bool(0.1) => Op::PutDurable(id(rng, setting), len(rng, setting)),
            Kind::Sync if busy_flushes && rng.random_bool(0.5) => Op::Sync(few(rng, setting, 5)),
            Kind::Sync => Op::Sync(vec![]),
            Kind::Death => death(rng, setting),
            Kind::Seldom => seldom(rng, setting),
        })
        .collect()
}

fn seldom(rng: &mut StdRng, setting: &Setting) -> Op {
    match rng.random_range(0..9) {
        0 => Op::PinHint,
        1 => Op::Reopen { closed: true },
        2 => Op::Reopen { closed: false },
        3 => Op::SyncFails,
        4 => Op::Pinned(few(rng, setting, 4)),
        5 => Op::Backup(few(rng, setting, 4)),
        6 => {
            let writes = rng.random_range(1..=setting.ids.max(4));
            Op::Many((0..writes).map(|_| (id(rng, setting), len(rng, setting))).collect())
        }
        _ => Op::Reserve {
            id: id(rng, setting),
            len: len(rng, setting),
            meanwhile: few(rng, setting, 2),
            commit: rng.random_bool(0.7),
        },
    }
}

fn death(rng: &mut StdRng, setting: &Setting) -> Op {
    let op = match rng.random_range(0..6) {
        0 | 1 => put(rng, setting),
        2 => Op::Delete(id(rng, setting)),
        3 => Op::PutDurable(id(rng, setting), len(rng, setting)),
        _ => batch(rng, setting),
    };
    Op::Dies { op: Box::new(op), at: rng.random_range(1..=20), healer_fails: rng.random_bool(0.5) }
}

fn put(rng: &mut StdRng, setting: &Setting) -> Op {
    Op::Put(id(rng, setting), len(rng, setting))
}

fn batch(rng: &mut StdRng, setting: &Setting) -> Op {
    let mut ids: Vec<u64> = (0..setting.ids).collect();
    ids.shuffle(rng);
    ids.truncate(rng.random_range(1..=ids.len().min(5)));
    let change = |id| (id, rng.random_bool(0.7).then(|| len(rng, setting)));
    Op::Batch(ids.into_iter().map(change).collect())
}

fn few(rng: &mut StdRng, setting: &Setting, most: usize) -> Vec<Op> {
    let count = rng.random_range(0..=most);
    (0..count)
        .map(|_| match rng.random_range(0..10) {
            0..3 => Op::Delete(id(rng, setting)),
            3 => batch(rng, setting),
            _ => put(rng, setting),
        })
        .collect()
}

fn id(rng: &mut StdRng, setting: &Setting) -> u64 {
    rng.random_range(0..setting.ids)
}

fn len(rng: &mut StdRng, setting: &Setting) -> usize {
    let most = setting.layout.record_size;
    match rng.random_range(0..10) {
        0 => 0,
        1..=3 => rng.random_range(1..=most),
        _ => most,
    }
}

/// Workloads made by hand, for what is far from the beaten track.
pub(crate) fn scripts() -> Vec<(&'static str, Setting, Vec<Op>)> {
    let set = |record_size, regions, slots, extents| Setting {
        layout: Layout::new(record_size, regions, slots, extents),
        ids: 6,
    };
    let sync = || Op::Sync(vec![]);
    let delete = Op::Delete;
    let durable = Op::PutDurable;
    let a = |id| Op::Put(id, 480);
    let b = |id| Op::Put(id, 600);
    let wide = Setting { ids: 36, ..set(8, 1, 2, 60) };
    vec![
        (
            "an overwritten record, slots across sectors",
            set(600, 1, 4, 6),
            vec![b(0), sync(), b(0), b(0), sync(), b(0)],
        ),
        (
            "a chain of overwrites, then reuse",
            set(480, 1, 2, 6),
            vec![a(0), sync(), a(0), sync(), a(0), a(1), a(1), sync(), a(1), a(0)],
        ),
        (
            "a deletion, its tombstone reclaimed together with what it hides",
            set(600, 1, 4, 6),
            vec![b(0), sync(), b(0), sync(), delete(0), sync(), b(1), b(2), b(3), b(4), sync()],
        ),
        (
            "deleted before the flush, and again",
            set(480, 1, 2, 6),
            vec![a(0), sync(), delete(0), a(0), delete(0), sync(), a(0), delete(0), sync()],
        ),
        (
            "writers that come in during the flush",
            set(480, 1, 2, 6),
            vec![a(0), sync(), a(0), Op::Sync(vec![a(1), a(1), a(1), delete(0), a(0)]), a(1)],
        ),
        (
            "deleted during a backup",
            set(480, 1, 2, 6),
            vec![a(0), sync(), a(0), Op::Backup(vec![delete(0), a(1)]), sync(), a(1), a(1), sync()],
        ),
        (
            "replaced and deleted under a pin",
            set(480, 1, 2, 6),
            vec![a(0), a(1), sync(), a(0), Op::Pinned(vec![a(0), delete(1), a(2)]), sync(), a(2), a(3)],
        ),
        (
            "written in place",
            set(480, 1, 2, 6),
            vec![
                a(0),
                sync(),
                Op::Reserve { id: 0, len: 400, meanwhile: vec![a(1)], commit: true },
                Op::Reserve { id: 1, len: 80, meanwhile: vec![delete(1)], commit: false },
                sync(),
            ],
        ),
        (
            "closed and opened again",
            set(480, 1, 4, 6),
            vec![
                a(0),
                a(1),
                Op::Reopen { closed: true },
                a(0),
                delete(1),
                Op::Reopen { closed: false },
                sync(),
            ],
        ),
        (
            "a flush that failed",
            set(480, 1, 2, 6),
            vec![a(0), sync(), a(0), Op::SyncFails, a(0), sync(), Op::Reopen { closed: false }, a(0), sync()],
        ),
        (
            "two regions that grow",
            set(480, 2, 2, 8),
            vec![a(0), a(1), a(2), sync(), a(3), a(4), a(5), sync(), a(0)],
        ),
        (
            "batches over two regions",
            set(480, 2, 2, 8),
            vec![
                a(0),
                a(1),
                sync(),
                Op::Batch(vec![(0, Some(480)), (1, None), (2, Some(300))]),
                a(0),
                Op::Batch(vec![(1, Some(10)), (3, Some(480))]),
                sync(),
                Op::Batch(vec![(0, None), (3, None), (1, Some(20))]),
            ],
        ),
        (
            "batches during a flush",
            set(480, 1, 4, 6),
            vec![
                a(0),
                Op::Batch(vec![(0, Some(480)), (1, Some(480))]),
                Op::Sync(vec![Op::Batch(vec![(0, Some(30)), (1, None)]), a(1), delete(0)]),
                a(2),
                sync(),
            ],
        ),
        (
            "a record of many sectors",
            set(1500, 1, 2, 4),
            vec![Op::Put(0, 1500), sync(), Op::Put(0, 1500), Op::Put(1, 700), sync(), Op::Put(0, 20)],
        ),
        (
            "flushed by themselves, and replaced",
            set(480, 1, 4, 6),
            vec![
                a(0),
                sync(),
                durable(0, 480),
                a(0),
                durable(0, 480),
                durable(1, 8),
                a(1),
                a(0),
                sync(),
                a(1),
            ],
        ),
        (
            "flushed by itself, and deleted",
            set(8000, 1, 4, 6),
            vec![a(0), sync(), a(1), durable(1, 8000), delete(1), a(2), a(3), sync(), a(1)],
        ),
        (
            "an index that moves",
            wide,
            vec![
                Op::Many((0..30).map(|id| (id, 8)).collect()),
                sync(),
                Op::Many((28..36).map(|id| (id, 8)).collect()),
            ],
        ),
    ]
}
