//! Three mirrors of a store, kept by `changes()` alone, in processes of their own: one follows at once, one is slow, one is
//! killed and started again. Beside them writers put, delete, make batches and let the store grow; they die at random steps,
//! are killed and stopped; records are damaged, and repaired.
//!
//! Needs the feature `testing`. Fails when: a mirror differs from the store a while after the last write; a version that a mirror
//! is told of goes back, or is told twice; a feed ends, or gives an error that does not come of a stopped owner.
//!
//! With `RECSTORE_LONG=1`: 50 seeds, and the mirrors must be equal within two seconds in half of the lives at least.

#![cfg(feature = "testing")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufRead;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use crate::common::value::value;
use crate::common::{self, Me, PATIENCE, Worker};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::testing::arm;
use recstore::{Change, Durability, Error, Options, Store, Version};

const IDS: u64 = 300;
const WRITERS: usize = 3;
const MIRRORS: usize = 3;
/// The one that is slow, and the one that is killed.
const SLOW: usize = 1;
const MORTAL: usize = 2;
/// Longer than any lock is held by who runs: who is stopped holds nobody up for longer.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

type Mirror = BTreeMap<u64, Version>;

fn options() -> Options {
    Options::new().record_size(64).regions(3).slots_per_extent(16).lock_timeout(Some(LOCK_TIMEOUT))
}

/// What a call may end with here: others are stopped, and records are damaged.
fn may_fail<T>(result: recstore::Result<T>) {
    match result {
        Ok(_) | Err(Error::Busy { .. } | Error::Corrupt { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
}

fn change(store: &Store, rng: &mut StdRng, counter: u64) {
    let id = rng.random_range(0..IDS);
    let bytes = |id, len| value(id, 1, counter, len);
    match rng.random_range(0..20) {
        0..10 => may_fail(store.put(id, &bytes(id, 60))),
        10..15 => may_fail(store.delete(id)),
        15 => may_fail(store.put_with(id, &bytes(id, 40), Durability::Disk)),
        16 => {
            let mut room = match store.reserve(id, 60) {
                Ok(room) => room,
                other => return may_fail(other),
            };
            room.write_at(0, &bytes(id, 60)).unwrap();
            may_fail(room.commit());
        }
        17 => {
            let mut batch = store.batch();
            batch.delete(id);
            for id in [id / 2, id / 3] {
                batch.put(id, bytes(id, 50)).unwrap();
            }
            may_fail(batch.commit());
        }
        18 if rng.random_ratio(1, 4) => may_fail(store.sync()),
        // A crowd comes and goes, so that the store grows, and its index.
        19 if rng.random_ratio(1, 8) => {
            let from = IDS + rng.random_range(0..10) * 100;
            (from..from + 100).for_each(|id| may_fail(store.put(id, &bytes(id, 40))));
        }
        19 if rng.random_ratio(1, 8) => {
            let from = IDS + rng.random_range(0..10) * 100;
            (from..from + 100).for_each(|id| may_fail(store.delete(id)));
        }
        _ => {}
    }
}

/// Writes until it is told to end, or comes to the step at which it dies.
fn writes(me: &mut Me) {
    let store = options().open(me.var("STORE")).unwrap();
    let mut rng = common::seeded();
    if rng.random_ratio(1, 2) {
        arm(rng.random_range(1..5000));
    }
    let lines = heard();
    for counter in 0.. {
        change(&store, &mut rng, counter);
        if counter % 20 == 0 {
            if !matches!(lines.try_recv(), Err(TryRecvError::Empty)) {
                return;
            }
            me.say("some");
        }
    }
}

/// What the test says, as it comes.
fn heard() -> Receiver<String> {
    let (to, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || to.send(line.unwrap_or_default()).is_err() {
                break;
            }
        }
    });
    lines
}

/// Keeps a mirror, and shows it when it is asked to.
fn mirrors(me: &mut Me) {
    let store = options().open(me.var("STORE")).unwrap();
    let is_slow = me.var("SLOW") == "1";
    let lines = heard();
    let mut mirror = Mirror::new();
    let mut changes = store.changes().unwrap();
    loop {
        match changes.next_timeout(Duration::from_millis(10)) {
            Ok(Some(Change::Written { id, version })) => {
                let before = mirror.insert(id, version);
                assert!(before < Some(version), "id {id} goes from {before:?} to {version:?}");
                if let Ok(Some(now)) = store.version(id) {
                    assert!(now >= version, "id {id} goes back from {version:?} to {now:?}");
                }
                if is_slow {
                    std::thread::sleep(Duration::from_micros(300)); // So slow it is.
                }
            }
            Ok(Some(Change::Deleted { id })) => {
                assert!(mirror.remove(&id).is_some(), "id {id} was not told of");
            }
            // It answers when it has taken in what there was; else the questions would make it late.
            Ok(None) => match lines.try_recv() {
                Ok(_) => {
                    let pairs = mirror.iter().map(|(id, version)| format!("{id}:{version}"));
                    me.say(&format!("mirror {}", pairs.collect::<Vec<_>>().join(" ")));
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            },
            Ok(_) => {}
            other => may_fail(other),
        }
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "writes" => writes(&mut me),
        "mirrors" => mirrors(&mut me),
        other => panic!("no role {other}"),
    }
}

fn writer(path: &Path, rng: &mut StdRng) -> Worker {
    let seed = rng.random::<u64>().to_string();
    Worker::spawn("writes", &[("STORE", path.to_str().unwrap()), ("RECSTORE_SEED", &seed)])
}

fn mirror(path: &Path, number: usize) -> Worker {
    let is_slow = if number == SLOW { "1" } else { "0" };
    Worker::spawn("mirrors", &[("STORE", path.to_str().unwrap()), ("SLOW", is_slow)])
}

/// Flips a bit in the data of a record, if it finds it in the file.
fn damage(store: &Store, id: u64) {
    let Ok(Some(record)) = store.get(id) else { return };
    let file = File::options().read(true).write(true).open(store.path()).unwrap();
    let mut all = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut all, 0).unwrap();
    if let Some(at) = all.windows(record.len()).rposition(|bytes| bytes == record.data()) {
        file.write_all_at(&[all[at + 20] ^ 1], at as u64 + 20).unwrap();
    }
}

fn versions(store: &Store) -> Mirror {
    store.iter().map(Result::unwrap).map(|record| (record.id(), record.version())).collect()
}

fn shown(line: &str) -> Mirror {
    let pairs = line.strip_prefix("mirror").expect("a mirror").split_whitespace();
    let number = |text: &str| text.parse::<u64>().unwrap();
    pairs
        .map(|pair| pair.split_once(':').unwrap())
        .map(|(id, v)| (number(id), Version::from_u64(number(v))))
        .collect()
}

/// One life; how long after the last write the last mirror was equal.
fn life(seed: u64) -> Duration {
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = options().create(&path).unwrap();
    (0..IDS / 2).for_each(|id| _ = store.put(id, &value(id, 1, 0, 60)).unwrap());
    store.sync().unwrap();
    let mut writers: Vec<Worker> = (0..WRITERS).map(|_| writer(&path, &mut rng)).collect();
    let mut mirrors: Vec<Worker> = (0..MIRRORS).map(|number| mirror(&path, number)).collect();
    for _ in 0..40 {
        let n = rng.random_range(0..WRITERS);
        match rng.random_range(0..8) {
            0 => {
                writers[n].kill();
                writers[n] = writer(&path, &mut rng);
            }
            1 | 2 => {
                let next = (n + 1) % WRITERS;
                writers[n].signal(Signal::SIGSTOP);
                for _ in 0..4 {
                    if writers[next].line().is_none() {
                        writers[next] = writer(&path, &mut rng);
                    }
                }
                writers[n].signal(Signal::SIGCONT);
            }
            3 => {
                mirrors[MORTAL].kill();
                mirrors[MORTAL] = mirror(&path, MORTAL);
            }
            4 | 5 => {
                (0..3).for_each(|_| damage(&store, rng.random_range(0..IDS)));
                may_fail(store.repair());
            }
            _ => may_fail(store.sync()),
        }
        for writes in &mut writers {
            while writes.line().is_none() {
                *writes = writer(&path, &mut rng);
            }
        }
    }
    for writer in &mut writers {
        writer.say("end");
        while writer.line().is_some() {}
        writer.wait();
    }
    store.repair().unwrap();
    let last = Instant::now();
    let is = versions(&store);
    let mut late: Vec<usize> = (0..MIRRORS).collect();
    while !late.is_empty() {
        late.retain(|&n| {
            mirrors[n].say("show");
            let mirror = shown(&mirrors[n].hear());
            if last.elapsed() > PATIENCE {
                let differ = |id: &u64| is.get(id) != mirror.get(id);
                let ids: Vec<u64> = is.keys().chain(mirror.keys()).copied().filter(differ).collect();
                panic!("seed {seed}: mirror {n} differs after a minute in {ids:?}");
            }
            mirror != is
        });
    }
    let took = last.elapsed();
    assert!(store.verify().unwrap().is_clean(), "seed {seed}");
    took
}

#[test]
fn mirrors_equal_the_store_whatever_dies_stops_grows_and_is_repaired() {
    let first = common::seed();
    let is_long = common::number_from_env("RECSTORE_LONG").is_some();
    let mut all = Vec::new();
    for seed in (first..).take(if is_long { 50 } else { 2 }) {
        let took = life(seed);
        println!("seed {seed}: equal {took:.0?} after the last write");
        all.push(took);
    }
    all.sort_unstable();
    let half = all[all.len() / 2];
    println!(
        "equal after {half:.1?} in half of {} lives, after {:.1?} in all",
        all.len(),
        all[all.len() - 1]
    );
    // On a busy machine a single one may wait for its turn.
    assert!(!is_long || half <= Duration::from_secs(2));
}
