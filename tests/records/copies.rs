//! Copies of a store into another geometry, of all records or of some.
//!
//! Fails when: a copy of all records lacks one, has one more, or another value, deadline or tag; it is not of one moment; it has a record
//! that was not chosen, or the later deadline of one; a record that does not fit, or is damaged, gives anything but an error and no
//! copy; a process that is killed while it copies leaves a file under the name.

#![cfg(feature = "testing")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::Rng;
use recstore::testing::arm;
use recstore::{Candidate, Error, Options, Store, Ttl};

use crate::common::{self, End, Me, in_fork, wait_for};

const TTL: Duration = Duration::from_secs(3600);

/// Records by ids, and keys by space and key, each with whether it has a deadline.
type Content =
    (BTreeMap<u64, Vec<u8>>, BTreeMap<(String, Vec<u8>), (Vec<u8>, Option<std::time::SystemTime>)>);

fn content(store: &Store) -> Content {
    let ids = store.iter().map(|record| record.map(|record| (record.id(), record.data().to_vec())).unwrap());
    let mut keys = BTreeMap::new();
    for name in store.spaces().unwrap() {
        let space = store.space(&name).unwrap();
        for found in space.iter() {
            let (key, record) = found.unwrap();
            let end = space.expires_at(&key).unwrap();
            keys.insert((name.clone(), key), (record.data().to_vec(), end));
        }
    }
    (ids.collect(), keys)
}

fn whole(path: &Path) -> Store {
    let store = Store::open(path).unwrap();
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
    store
}

/// Records of any length, keys with and without deadlines, counters, a ring, a queue, and what was there before.
fn filled(path: &Path, options: &Options) -> Store {
    let mut random = common::seeded();
    let store = options.create(path).unwrap();
    for id in 0..300u64 {
        store.put(id, vec![id as u8; random.random_range(0..2000)]).unwrap();
    }
    (0..300).filter(|id| id % 3 == 0).for_each(|id| _ = store.delete(id).unwrap());
    let space = store.space("sessions").unwrap();
    for n in 0..300u32 {
        let ttl = if n % 2 == 0 { Ttl::NEVER } else { TTL.into() };
        space.put_with(n.to_le_bytes(), vec![n as u8; random.random_range(0..500)], ttl).unwrap();
    }
    for n in (1..300u32).step_by(10) {
        assert!(space.touch(n.to_le_bytes(), 3 * TTL).unwrap());
    }
    store.space("sessions 2").unwrap().put("", b"of an empty key").unwrap();
    store.counter(1000).add(77).unwrap();
    let ring = store.ring::<u64>(2000, 8).unwrap();
    (0..20).for_each(|n| _ = ring.push(&n).unwrap());
    let queue = store.queue("jobs").unwrap();
    ["a", "b", "c"].iter().for_each(|job| _ = queue.push(job).unwrap());
    queue.claim(None).unwrap().unwrap().finish().unwrap();
    store
}

#[test]
fn child_entry() {
    if Me::from_env().is_some() {
        die_at_every_step();
    }
}

#[test]
fn a_copy_has_every_record_in_whatever_geometry() {
    let dir = common::scratch();
    let source = filled(&dir.path().join("s"), &Options::new().regions(4).record_size(4000));
    let is = content(&source);
    let job = source.queue("jobs").unwrap().claim(None).unwrap().unwrap();
    assert_eq!(job.data(), b"b");
    let others = [
        Options::like(&source).unwrap(),
        Options::new(),
        Options::new().regions(1).record_size(3000),
        Options::new().regions(64).record_size(4096).slots_per_extent(16),
    ];
    for (n, options) in others.iter().enumerate() {
        let path = dir.path().join(format!("copy{n}"));
        let copied = source.copy_to(&path, options).unwrap();
        let copy = whole(&path);
        let (ids, mut keys) = content(&copy);
        assert_eq!(ids, is.0, "copy {n}");
        let claimed = |keys: &mut BTreeMap<_, _>| {
            keys.retain(|(name, _): &(String, Vec<u8>), _| !name.starts_with("queue "))
        };
        let mut expected = is.1.clone();
        assert_eq!(copied as usize, ids.len() + keys.len(), "copy {n}");
        claimed(&mut keys);
        claimed(&mut expected);
        assert_eq!(keys, expected, "copy {n}");
        assert_eq!(copy.counter(1000).add(1).unwrap(), 78);
        let ring = copy.ring::<u64>(2000, 8).unwrap();
        assert_eq!(ring.latest(8).unwrap(), (12..20).map(|n| (n, n)).collect::<Vec<_>>());
        assert_eq!(ring.push(&20).unwrap(), 20);
        // The handle that claimed the job is none of the copy.
        let jobs = copy.queue("jobs").unwrap();
        assert_eq!(jobs.claim(Some(Duration::ZERO)).unwrap().unwrap().data(), b"b");
        // A copy goes on as any store does.
        copy.space("sessions").unwrap().put("new", b"new").unwrap();
        copy.close().unwrap();
        whole(&path);
    }
    drop(job);
    let stats = |n| whole(&dir.path().join(format!("copy{n}"))).stats().unwrap();
    assert_eq!((stats(2).regions.len(), stats(2).record_size), (1, 3000));
    assert_eq!((stats(3).regions.len(), stats(3).slots_per_extent), (64, Some(16)));
}

#[test]
fn the_tag_of_the_type_goes_over_with_a_copy_and_with_a_backup() {
    let dir = common::scratch();
    let store = Store::create(dir.path().join("s")).unwrap();
    store.typed_tagged::<u64>("a.number").unwrap().put(1, &7).unwrap();
    store.copy_to(dir.path().join("copy"), &Options::new()).unwrap();
    store.backup(dir.path().join("backup")).unwrap();
    for name in ["copy", "backup"] {
        let copy = whole(&dir.path().join(name));
        let other = copy.typed_tagged::<u64>("another").err();
        assert!(matches!(other, Some(Error::TypeMismatch { .. })), "{name}: {other:?}");
        assert_eq!(copy.typed_tagged::<u64>("a.number").unwrap().get(1).unwrap(), Some(7));
    }
}

#[test]
fn a_copy_leaves_the_room_behind_that_nobody_needs() {
    let dir = common::scratch();
    let store = Store::create(dir.path().join("s")).unwrap();
    store.write_many((0..20_000).map(|id| (id, [1; 200]))).unwrap();
    (0..20_000).filter(|id| id % 20 != 0).for_each(|id| _ = store.delete(id).unwrap());
    let path = dir.path().join("copy");
    assert_eq!(store.copy_to(&path, &Options::like(&store).unwrap()).unwrap(), 1000);
    let (before, after) = (store.stats().unwrap().file_size, whole(&path).stats().unwrap().file_size);
    assert!(after * 4 < before, "{before} bytes became {after}");
}

#[test]
fn a_copy_has_what_was_chosen_and_the_later_deadlines_of_that() {
    let dir = common::scratch();
    let source = filled(&dir.path().join("s"), &Options::new().regions(4));
    let is = content(&source);
    let choose = |record: Candidate<'_>| match record {
        Candidate::Id { id, data } => id % 2 == 1 && data.len() < 1000,
        Candidate::Key { space, key, .. } => space == "sessions" && key[0] < 50,
    };
    let (path, mut told) = (dir.path().join("copy"), Vec::new());
    let copied =
        source.copy_chosen_to(&path, &Options::new(), choose, |at| told.push((at.done, at.total))).unwrap();
    let expected: Content = (
        is.0.into_iter().filter(|(id, data)| choose(Candidate::Id { id: *id, data })).collect(),
        is.1.into_iter()
            .filter(|((space, key), (value, _))| choose(Candidate::Key { space, key, value }))
            .collect(),
    );
    let copy = whole(&path);
    assert_eq!(content(&copy), expected);
    assert_eq!(copied as usize, expected.0.len() + expected.1.len());
    assert_eq!(told.last().map(|(done, total)| done == total), Some(true), "{told:?}");
    // Of what is not chosen nothing is left, hidden deadlines included: five of 300 were touched and chosen, and one record is the clock.
    let touched = (1..300u32).step_by(10).filter(|n| n.to_le_bytes()[0] < 50).count();
    assert_eq!(copy.stats().unwrap().records as usize, copied as usize + touched + 1);
}

#[test]
fn values_that_are_over_are_left_behind() {
    let dir = common::scratch();
    let store = Store::create(dir.path().join("s")).unwrap();
    let space = store.space("s").unwrap();
    space.put_with("over", b"value", Ttl::from(Duration::from_millis(1))).unwrap();
    space.put_with("touched", b"value", Ttl::from(Duration::from_millis(1))).unwrap();
    // If it was over before it could be touched, it is another value that is over.
    space.touch("touched", Duration::from_millis(2)).unwrap();
    space.put_with("there", b"value", Ttl::from(TTL)).unwrap();
    common::until("two values are over", || space.len().unwrap() == 1);
    let path = dir.path().join("copy");
    assert_eq!(store.copy_to(&path, &Options::new()).unwrap(), 1);
    let copy = whole(&path);
    assert_eq!(copy.stats().unwrap().records, 2, "the value that is there, and the clock");
    assert_eq!(copy.space("s").unwrap().expires_at("there").unwrap(), space.expires_at("there").unwrap());
}

/// Large enough for several threads, each of which meets writers.
#[test]
fn a_large_copy_is_of_one_moment_beside_writers() {
    let dir = common::scratch();
    let store = Options::new().regions(4).create(dir.path().join("s")).unwrap();
    let pairs = 4000u64;
    let bytes = |step: u64| [step.to_le_bytes().as_slice(), &[7; 1000]].concat();
    store.write_many((0..2 * pairs).map(|id| (id, bytes(0)))).unwrap();
    assert!(store.stats().unwrap().file_size > 5 << 20, "one thread is enough for it");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in 1u64.. {
                // Both of a pair, or none: a batch.
                let pair = step * 7 % pairs;
                let mut batch = store.batch();
                batch.put(pair, bytes(step)).unwrap();
                batch.put(pair + pairs, bytes(step)).unwrap();
                let _ = batch.commit().unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for n in 0..3 {
            let path = dir.path().join(format!("copy{n}"));
            let copied = store.copy_to(&path, &Options::new().regions(3 + n)).unwrap();
            assert_eq!(copied, 2 * pairs);
            let copy = whole(&path);
            for pair in 0..pairs {
                let two = [pair, pair + pairs].map(|id| copy.get(id).unwrap().unwrap().data()[..8].to_vec());
                assert_eq!(two[0], two[1], "pair {pair}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_can_not_be_copied_is_an_error_and_leaves_no_copy() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = Options::new().regions(2).create(&path).unwrap();
    let to = dir.path().join("copy");
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    store.put(7, [1; 500]).unwrap();
    let narrow = Options::new().record_size(499);
    let error = store.copy_to(&to, &narrow).unwrap_err();
    assert!(matches!(error, Error::RecordTooLong { id: 7, len: 500, max: 499, .. }), "{error:?}");
    store.delete(7).unwrap();
    store.space("s").unwrap().put("key", [1; 500]).unwrap();
    let error = store.copy_to(&to, &narrow).unwrap_err();
    assert!(matches!(&error, Error::EntryTooLong { key, len: 512, .. } if key == "key"), "{error:?}");
    let error = store.copy_to(&to, &Options::new().max_size(1)).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { .. }), "{error:?}");
    let error = store.copy_to(&path, &Options::new()).unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
    assert_eq!(files(), 1);
    let full = store.copy_to(&to, &Options::new().regions(1).max_size(200 << 10));
    assert!(matches!(full, Err(Error::InvalidOption { .. } | Error::Full { .. }) | Ok(_)), "{full:?}");
    let _ = std::fs::remove_file(&to);

    store.put(9, b"a record to be damaged").unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(12).position(|w| w == b"to be damage").unwrap();
    bytes[at] ^= 4;
    {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    let error = store.copy_to(&to, &Options::new()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { id: 9, .. }), "{error:?}");
    assert_eq!(files(), 1);
    let reader = Store::open_read_only(&path).unwrap();
    let error = reader.copy_to(&to, &Options::new()).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
}

#[test]
fn a_copy_that_dies_at_any_step_leaves_nothing_under_the_name() {
    common::alone("dies", &[]);
}

/// The process that copies is killed at each step, and the store beside it has a writer that was killed.
fn die_at_every_step() {
    let mut deaths = 0;
    for step in 1.. {
        let dir = common::scratch();
        let (path, to) = (dir.path().join("s"), dir.path().join("copy"));
        let store = Options::new().regions(2).create(&path).unwrap();
        store.write_many((0..5).map(|id| (id, "first"))).unwrap();
        store.space("s").unwrap().put("key", b"value").unwrap();
        let _ = wait_for(in_fork(|| {
            let store = Store::open(&path).unwrap();
            arm(3);
            let _ = store.put(2, "of a process that dies");
            0
        }));
        let ends = wait_for(in_fork(|| {
            let store = Store::open(&path).unwrap();
            arm(step);
            store.copy_to(&to, &Options::new().regions(1)).unwrap();
            arm(0);
            0
        }));
        if to.exists() {
            assert_eq!(content(&whole(&to)), content(&store), "step {step}");
        }
        store.put(4, "the store goes on").unwrap();
        assert!(store.verify().unwrap().is_clean());
        if ends != End::Killed {
            assert_eq!(ends, End::Exited(0));
            assert!(to.exists());
            break;
        }
        deaths += 1;
        let _ = std::fs::remove_file(&to);
        assert_eq!(store.copy_to(&to, &Options::new()).unwrap(), 6, "step {step}");
    }
    println!("{deaths} deaths");
    assert!(deaths > 30);
}
