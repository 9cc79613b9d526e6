//! Random calls against a `BTreeMap`, in geometries down to the tiniest, through two handles on
//! one file that are closed and opened again on the way.
//!
//! Fails when any call gives something else than the model does: data, versions (which rise in a
//! region), lengths, what `iter`, `scan` and `get_many` visit; or when `verify` finds anything.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::common;
use crate::common::superblock::create_seeded;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Durability, Error, Options, Store, Swap, Version};

/// Record size, regions, slots per extent, calls.
const GEOMETRIES: [(usize, u32, u32, u32); 8] = [
    (1, 1, 1, 3000),
    (8, 1, 2, 3000),
    (8, 3, 1, 3000),
    (64, 1, 1, 3000),
    (64, 2, 4, 6000),
    (256, 16, 64, 4000),
    (5000, 1, 2, 2000),
    (70_000, 2, 1, 300),
];

struct Pair {
    options: Options,
    path: PathBuf,
    handles: [Option<Store>; 2],
}

impl Pair {
    /// One of the handles; which one doesn't matter.
    fn any(&self, rng: &mut StdRng) -> &Store {
        self.handles[rng.random_range(0..2)].as_ref().unwrap()
    }

    /// Closes one handle or both, and opens anew.
    fn reopen(&mut self, rng: &mut StdRng) {
        let chosen = rng.random_range(0..3);
        for (n, handle) in self.handles.iter_mut().enumerate() {
            if chosen == 2 || chosen == n {
                let store = handle.take().unwrap();
                if rng.random() { store.close().unwrap() } else { drop(store) }
            }
        }
        for handle in &mut self.handles {
            if handle.is_none() {
                let options = self.options.clone().verify_reads(rng.random());
                let store = options.open(&self.path).unwrap();
                assert!(store.opened().is_empty(), "nothing had happened: {:?}", store.opened());
                *handle = Some(store);
            }
        }
    }
}

/// What is to be in the store.
#[derive(Default)]
struct Model {
    records: BTreeMap<u64, (Vec<u8>, Option<Version>)>,
    newest: HashMap<u32, Version>,
}

impl Model {
    fn version(&self, id: u64) -> Option<Version> {
        self.records.get(&id).and_then(|r| r.1)
    }

    fn put(&mut self, store: &Store, id: u64, data: Vec<u8>, version: Version) {
        let newest = self.newest.insert(store.region_of(id), version);
        assert!(newest < Some(version), "version {version} after {newest:?}");
        self.records.insert(id, (data, Some(version)));
    }

    fn check(&mut self, store: &Store, id: u64) {
        let record = store.get(id).unwrap();
        let model = self.records.get_mut(&id);
        assert_eq!(record.as_ref().map(|r| r.data()), model.as_ref().map(|m| &m.0[..]), "id {id:#x}");
        if let (Some(record), Some((_, version))) = (record, model) {
            // `write_many` doesn't tell the version.
            assert_eq!(record.version(), *version.get_or_insert(record.version()), "id {id:#x}");
            assert_eq!(record.id(), id);
        }
    }
}

fn draw_id(rng: &mut StdRng) -> u64 {
    match rng.random_range(0..20) {
        0 => u64::MAX,
        1 => 0,
        2 => rng.random_range(0..1 << 40) << 24,
        _ => rng.random_range(0..120),
    }
}

fn draw_data(rng: &mut StdRng, max: usize) -> Vec<u8> {
    let len = match rng.random_range(0..6) {
        0 => 0,
        1 => max,
        _ => rng.random_range(0..=max),
    };
    let mut data = vec![0; len];
    rng.fill(&mut data[..]);
    data
}

fn whole(store: &Store, model: &Model) {
    assert_eq!(store.len().unwrap(), model.records.len() as u64);
    assert_eq!(store.is_empty().unwrap(), model.records.is_empty());
    let mut seen = BTreeMap::new();
    for record in store.iter() {
        let record = record.unwrap();
        assert!(seen.insert(record.id(), record.into_data()).is_none());
    }
    assert!(seen.iter().eq(model.records.iter().map(|(id, r)| (id, &r.0))), "iter differs");
    let mut seen = BTreeMap::new();
    let mut stop_after = seen.len() + model.records.len() / 2 + 1;
    store
        .scan(|id, _, data| {
            assert_eq!(model.records.get(&id).map(|r| &r.0[..]), Some(data));
            assert!(seen.insert(id, ()).is_none());
            stop_after -= 1;
            if stop_after == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen.len(), model.records.len().min(model.records.len() / 2 + 1));
}

fn step(pair: &mut Pair, model: &mut Model, rng: &mut StdRng, max: usize) {
    let id = draw_id(rng);
    let data = draw_data(rng, max);
    match rng.random_range(0..1000) {
        0..300 => {
            let store = pair.any(rng);
            let version = store.put(id, &data).unwrap();
            model.put(store, id, data, version);
        }
        300..450 => {
            assert_eq!(pair.any(rng).delete(id).unwrap(), model.records.remove(&id).is_some());
        }
        450..550 => {
            let old = model.records.get(&id).map(|r| r.0.clone());
            let write = rng.random::<bool>();
            let store = pair.any(rng);
            let version = store
                .update(id, |bytes| {
                    assert_eq!(bytes, old.as_deref());
                    write.then_some(&data[..])
                })
                .unwrap();
            assert_eq!(version.is_some(), write);
            if let Some(version) = version {
                model.put(store, id, data, version);
            }
        }
        550..650 => {
            model.check(pair.any(rng), id);
            let current = model.version(id);
            let expected = match rng.random_range(0..4) {
                0 => None,
                1 => Some(Version::from_u64(rng.random_range(1..100))),
                _ => current,
            };
            let store = pair.any(rng);
            match store.compare_and_swap(id, expected, &data).unwrap() {
                Swap::Done(version) => {
                    assert_eq!(expected, current);
                    model.put(store, id, data, version);
                }
                Swap::Conflict { current: is } => {
                    assert_ne!(expected, current);
                    assert_eq!(is, current);
                }
            }
        }
        650..700 => {
            let mut writes = Vec::new();
            for _ in 0..rng.random_range(0..30) {
                writes.push((draw_id(rng), draw_data(rng, max)));
            }
            let store = pair.any(rng);
            let written = store.write_many(writes.iter().map(|(id, data)| (*id, &data[..]))).unwrap();
            assert_eq!(written, writes.len());
            for (id, data) in writes {
                model.records.insert(id, (data, None));
            }
        }
        700..900 => {
            let store = pair.any(rng);
            model.check(store, id);
            assert_eq!(store.contains(id).unwrap(), model.records.contains_key(&id));
            assert_eq!(store.version(id).unwrap(), model.version(id));
        }
        900..930 => {
            let ids: Vec<u64> = (0..rng.random_range(0..40)).map(|_| draw_id(rng)).collect();
            let mut given = Vec::new();
            pair.any(rng)
                .get_many(&ids, |id, found| {
                    assert_eq!(found.map(|f| f.1), model.records.get(&id).map(|r| &r.0[..]));
                    given.push(id);
                })
                .unwrap();
            given.sort_unstable();
            let mut ids = ids;
            ids.sort_unstable();
            assert_eq!(given, ids);
        }
        930..945 => {
            match pair.any(rng).put(id, &vec![1; max + 1]) {
                Err(Error::RecordTooLong { id: i, len, max: m, .. }) => {
                    assert_eq!((i, len, m), (id, max + 1, max))
                }
                other => panic!("{other:?}"),
            }
            model.check(pair.any(rng), id);
        }
        945..955 => pair.any(rng).sync().unwrap(),
        955..960 => {
            let store = pair.any(rng);
            let version = store.put_with(id, &data, Durability::Disk).unwrap();
            model.put(store, id, data, version);
        }
        960..970 => pair.reopen(rng),
        970..980 => whole(pair.any(rng), model),
        980..990 => {
            let report = pair.any(rng).verify().unwrap();
            assert!(report.is_clean(), "{report:?}");
            let report = pair.any(rng).repair().unwrap();
            assert!(report.is_empty(), "{report:?}");
        }
        _ => {
            let stats = pair.any(rng).stats().unwrap();
            assert_eq!(stats.records, model.records.len() as u64);
            assert_eq!(stats.slots, stats.records + stats.free_slots + stats.retired_slots, "{stats:?}");
            assert_eq!(stats.attached.len(), 2);
        }
    }
}

#[test]
fn any_sequence_of_calls_gives_what_a_map_gives() {
    let seed = common::seed();
    for (n, (record_size, regions, slots, calls)) in GEOMETRIES.into_iter().enumerate() {
        let mut rng = StdRng::seed_from_u64(seed ^ n as u64);
        let dir = common::scratch();
        let path = dir.path().join("store");
        let options = Options::new().record_size(record_size).regions(regions).slots_per_extent(slots);
        let first = create_seeded(&options, &path, seed);
        let second = options.open(&path).unwrap();
        let mut pair = Pair { options, path, handles: [Some(first), Some(second)] };
        let mut model = Model::default();
        let running = std::panic::AssertUnwindSafe(|| {
            for _ in 0..calls {
                step(&mut pair, &mut model, &mut rng, record_size);
            }
            for _ in 0..2 {
                let store = pair.any(&mut rng);
                whole(store, &model);
                let ids: Vec<u64> = model.records.keys().copied().collect();
                ids.into_iter().for_each(|id| model.check(store, id));
                let report = store.verify().unwrap();
                assert!(report.is_clean(), "{report:?}");
                assert_eq!(report.records, model.records.len() as u64);
                pair.reopen(&mut rng);
            }
        });
        if let Err(panic) = std::panic::catch_unwind(running) {
            println!("record size {record_size}, {regions} regions, {slots} slots per extent");
            std::panic::resume_unwind(panic);
        }
    }
}
