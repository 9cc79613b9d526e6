//! A process works through random calls and dies at a random step, over and over, on one store.
//!
//! Needs the feature `testing`. After each death the store equals the model after the calls that were
//! acknowledged, or after one more. Geometries are tiny and syncs frequent, so that old versions
//! lie about everywhere. Fails when one of them comes back, when anything is lost, when a version is
//! given out twice, when `verify` finds anything, or when a slot is on no list.

#![cfg(feature = "testing")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::common::superblock::create_seeded;
use crate::common::value::value;
use crate::common::{self, End, Me, in_fork, wait_for};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::testing::arm;
use recstore::{Durability, Options, Store};

/// Record size, regions, slots per extent, deaths.
const GEOMETRIES: [(usize, u32, u32, u64); 4] =
    [(64, 1, 1, 150), (64, 1, 4, 200), (100, 2, 2, 200), (3000, 1, 2, 80)];
const CALLS: usize = 40;

type Content = BTreeMap<u64, Vec<u8>>;

/// One call, drawn so that the child and the test draw the same.
enum Call {
    Put(u64, Vec<u8>),
    PutDurable(u64, Vec<u8>),
    Delete(u64),
    Update(u64, Vec<u8>),
    Many(Vec<(u64, Vec<u8>)>),
    Sync,
}

fn draw(rng: &mut StdRng, counter: u64, max: usize) -> Call {
    let ids = if rng.random_ratio(1, 50) { 2000 } else { 12 };
    let id = rng.random_range(0..ids);
    let data = |rng: &mut StdRng, id| value(id, 0, counter, rng.random_range(32..=max));
    match rng.random_range(0..100) {
        0..40 => Call::Put(id, data(rng, id)),
        40..43 => Call::PutDurable(id, data(rng, id)),
        43..65 => Call::Delete(id),
        65..80 => Call::Update(id, data(rng, id)),
        80..88 => Call::Many((0..rng.random_range(1..6)).map(|n| (id + n, data(rng, id + n))).collect()),
        _ => Call::Sync,
    }
}

impl Call {
    /// Makes the call; the version that it gives, or 0.
    fn make(&self, store: &Store) -> u64 {
        match self {
            Call::Put(id, data) => return store.put(*id, data).unwrap().get(),
            Call::PutDurable(id, data) => return store.put_with(*id, data, Durability::Disk).unwrap().get(),
            Call::Delete(id) => _ = store.delete(*id).unwrap(),
            Call::Update(id, data) => return store.update(*id, |_| Some(data)).unwrap().unwrap().get(),
            Call::Many(all) => _ = store.write_many(all.iter().map(|(id, d)| (*id, &d[..]))).unwrap(),
            Call::Sync => store.sync().unwrap(),
        }
        0
    }

    fn region(&self, store: &Store) -> u32 {
        match self {
            Call::Put(id, _) | Call::PutDurable(id, _) | Call::Update(id, _) => store.region_of(*id),
            _ => 0,
        }
    }

    fn apply(&self, model: &mut Content) {
        match self {
            Call::Put(id, data) | Call::PutDurable(id, data) | Call::Update(id, data) => {
                _ = model.insert(*id, data.clone());
            }
            Call::Delete(id) => _ = model.remove(id),
            Call::Many(all) => all.iter().for_each(|(id, data)| _ = model.insert(*id, data.clone())),
            Call::Sync => {}
        }
    }
}

fn content(store: &Store) -> Content {
    store.iter().map(|r| r.unwrap()).map(|r| (r.id(), r.into_data())).collect()
}

fn play(me: &mut Me) {
    let seed = common::seed();
    let path = me.var("STORE");
    for (n, (record_size, regions, slots, deaths)) in GEOMETRIES.into_iter().enumerate() {
        me.say(&format!("record size {record_size}, {regions} regions, {slots} slots per extent"));
        let mut rng = StdRng::seed_from_u64(seed ^ n as u64);
        let options = Options::new().record_size(record_size).regions(regions).slots_per_extent(slots);
        let store = create_seeded(&options, Path::new(&path), seed);
        let mut model = Content::new();
        let mut counter = 0;
        let mut newest = vec![0; regions as usize];
        for death in 0..deaths {
            let calls: Vec<Call> = (0..CALLS)
                .map(|_| {
                    counter += 1;
                    draw(&mut rng, counter, record_size)
                })
                .collect();
            let at = rng.random_range(1..300);
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            let child = in_fork(|| {
                if at % 4 == 0 {
                    arm(at);
                }
                let store = Store::open(&path).unwrap();
                arm(at);
                for call in &calls {
                    let version = call.make(&store);
                    theirs.write_all(&version.to_le_bytes()).unwrap();
                }
                arm(0);
                0
            });
            drop(theirs);
            let mut acknowledged = Vec::new();
            ours.read_to_end(&mut acknowledged).unwrap();
            let ended = wait_for(child);
            assert!(matches!(ended, End::Killed | End::Exited(0)), "death {death}: {ended:?}");
            let done = acknowledged.len() / 8;
            for (call, version) in calls.iter().zip(acknowledged.chunks_exact(8)) {
                let version = u64::from_le_bytes(version.try_into().unwrap());
                let newest = &mut newest[call.region(&store) as usize];
                assert!(version == 0 || version > *newest, "death {death}: {version} after {newest}");
                *newest = version.max(*newest);
            }
            calls[..done].iter().for_each(|call| call.apply(&mut model));
            let mut further = model.clone();
            if let Some(call) = calls.get(done) {
                call.apply(&mut further);
            }
            // The handle that was open all the time heals, or a new one, or the next child.
            let fresh;
            let healer = match rng.random_range(0..3) {
                0 => {
                    fresh = Store::open(&path).unwrap();
                    &fresh
                }
                1 => &store,
                _ => continue_with(&path, &mut rng, &store),
            };
            let now = content(healer);
            for id in model.keys().chain(further.keys()).chain(now.keys()) {
                let is = now.get(id);
                assert!(
                    is == model.get(id) || is == further.get(id),
                    "death {death} at step {at} after {done} calls: id {id} is {is:?}, was {:?}, was to be {:?}",
                    model.get(id),
                    further.get(id)
                );
            }
            if !matches!(calls.get(done), Some(Call::Many(_))) {
                assert!(now == model || now == further, "death {death}: partly done");
            }
            model = now;
            assert_eq!(content(&store), model);
            let report = store.verify().unwrap();
            assert!(report.is_clean(), "death {death}: {report:?}");
            me.say(common::GOES_ON);
        }
        // What lies about unseen must not count as used.
        for region in 0..regions {
            let id = (0..).find(|&id| store.region_of(id) == region).unwrap();
            store.put(id, b"last").unwrap();
        }
        let stats = store.stats().unwrap();
        assert_eq!(stats.slots, stats.records + stats.free_slots + stats.retired_slots, "{stats:?}");
        drop(store);
        std::fs::remove_file(&path).unwrap();
    }
}

/// Another child heals, and dies doing it.
fn continue_with<'a>(path: &str, rng: &mut StdRng, store: &'a Store) -> &'a Store {
    let at = rng.random_range(1..20);
    let child = in_fork(|| {
        arm(at);
        content(&Store::open(path).unwrap());
        arm(0);
        0
    });
    assert!(matches!(wait_for(child), End::Killed | End::Exited(0)));
    store
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "play" => play(&mut me),
        other => panic!("no role {other}"),
    }
}

#[test]
fn a_process_that_dies_at_random_leaves_what_was_acknowledged_or_one_call_more() {
    let dir = common::scratch();
    let seed = common::seed().to_string();
    common::alone("play", &[("STORE", dir.path().join("store").to_str().unwrap()), ("RECSTORE_SEED", &seed)]);
}
