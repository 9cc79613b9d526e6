//! What people build from shared memory: typed records, counters, rings, waiting, stores by name.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use recstore::{Error, Event, Options, Store};

fn small() -> Options {
    Options::new().record_size(64).regions(2).slots_per_extent(16)
}

/// A name that no other test and no other run of this one has.
fn name(of: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test-memory-{of}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[test]
fn values_come_back_as_they_went_and_other_types_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    let points = store.typed::<[f64; 3]>().unwrap();
    points.put(1, &[1.0, 2.0, 3.0]).unwrap();
    points.update(1, |old| old.map(|[x, y, z]| [z, y, x])).unwrap();
    assert_eq!(points.get(1).unwrap(), Some([3.0, 2.0, 1.0]));
    assert_eq!(points.get(2).unwrap(), None);
    assert_eq!(points.iter().map(Result::unwrap).collect::<Vec<_>>(), [(1, [3.0, 2.0, 1.0])]);
    let bytes = store.typed::<[u8; 5]>().unwrap();
    assert!(matches!(bytes.get(1), Err(Error::TypeMismatch { .. })));
    assert!(matches!(bytes.update(1, |_| Some([0; 5])), Err(Error::TypeMismatch { .. })));
    assert_eq!(points.get(1).unwrap(), Some([3.0, 2.0, 1.0]), "a refused update writes nothing");
    assert!(matches!(store.typed::<[u64; 9]>(), Err(Error::InvalidOption { .. })));

    let rows = store.slices::<u16>().unwrap();
    rows.put(7, &[1, 2, 3]).unwrap();
    assert_eq!(rows.get(7).unwrap(), Some(vec![1, 2, 3]));
    rows.put(8, &[]).unwrap();
    assert_eq!(rows.get(8).unwrap(), Some(vec![]));
    store.put(9, b"odd").unwrap();
    assert!(matches!(rows.get(9), Err(Error::TypeMismatch { .. })));
}

#[test]
fn a_tagged_store_is_of_one_type() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    small().create(&path).unwrap().close().unwrap();
    assert!(matches!(
        Store::open_read_only(&path).unwrap().typed_tagged::<u64>("number"),
        Err(Error::ReadOnly { .. })
    ));
    assert!(Store::open(&path).unwrap().typed_tagged::<u64>("number").unwrap().get(1).unwrap().is_none());
    let again = Store::open(&path).unwrap();
    assert!(again.typed_tagged::<u64>("number").is_ok());
    assert!(matches!(again.typed_tagged::<u64>("other"), Err(Error::TypeMismatch { .. })));
    assert!(Store::open_read_only(&path).unwrap().typed_tagged::<u64>("number").is_ok());
}

#[test]
fn counters_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|n| _ = store.counter(5).add(n % 3).unwrap()));
        }
    });
    assert_eq!(store.counter(5).get().unwrap(), 4 * 999);
    assert_eq!(store.counter(6).fetch_max(10).unwrap(), 0);
    assert_eq!(store.counter(6).fetch_max(3).unwrap(), 10);
    assert_eq!(store.counter(6).get().unwrap(), 10);
    store.put(7, b"no counter").unwrap();
    assert!(matches!(store.counter(7).add(1), Err(Error::TypeMismatch { .. })));
    assert_eq!(store.get(7).unwrap().unwrap().data(), b"no counter");
}

#[test]
fn a_ring_keeps_the_latest_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    let ring = store.ring::<u64>(100, 10).unwrap();
    assert_eq!(ring.latest(5).unwrap(), []);
    for n in 0..25u64 {
        assert_eq!(ring.push(&(n * n)).unwrap(), n);
    }
    assert_eq!(ring.latest(3).unwrap(), [(22, 484), (23, 529), (24, 576)]);
    let all: Vec<_> = ring.iter().unwrap().map(Result::unwrap).collect();
    assert_eq!(all, (15..25).map(|n| (n, n * n)).collect::<Vec<_>>());
    assert_eq!(store.len().unwrap(), 11, "the ring's ids, and the one that counts");
    assert!(matches!(store.ring::<u64>(1, 0), Err(Error::InvalidOption { .. })));
    assert!(matches!(store.ring::<u64>(u64::MAX, 1), Err(Error::InvalidOption { .. })));
    assert!(matches!(store.ring::<[u64; 8]>(1, 1), Err(Error::InvalidOption { .. })));

    let many = store.ring::<[u64; 2]>(1000, 50).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let many = &many;
            scope.spawn(move || (0..500).for_each(|n| _ = many.push(&[thread, n]).unwrap()));
        }
    });
    assert_eq!(many.pushed().unwrap(), 2000);
    let kept: Vec<_> = many.iter().unwrap().map(Result::unwrap).collect();
    assert_eq!(kept.iter().map(|k| k.0).collect::<Vec<_>>(), (1950..2000).collect::<Vec<_>>());
}

/// How a player waits until something has changed.
type Wait<'a> = Box<dyn FnMut() + 'a>;

/// Two threads throw a record to and fro: each waits for the other's version. Who is not woken looks again
/// after half a second by itself, so lost wake-ups are seen by the time that they take together.
fn throw_to_and_fro(rounds: u64, watch: for<'a> fn(&'a Store, u64) -> Wait<'a>) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    drop(small().create(&path).unwrap());
    let start = Barrier::new(2);
    let play = |mine: u64, theirs: u64, first: bool| {
        let store = Store::open(&path).unwrap();
        let mut wait = watch(&store, theirs);
        start.wait();
        let began = Instant::now();
        for round in 0..rounds {
            if first {
                store.put(mine, &round.to_le_bytes()).unwrap();
            }
            while store.get(theirs).unwrap().is_none_or(|r| *r != round.to_le_bytes()) {
                wait();
                assert!(began.elapsed() < PATIENCE, "in round {round} after a minute: wake-ups are lost");
            }
            if !first {
                store.put(mine, &round.to_le_bytes()).unwrap();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| play(2, 1, false));
        play(1, 2, true);
    });
}

const HALF_A_SECOND: Option<Duration> = Some(Duration::from_millis(500));

#[test]
fn no_wake_up_is_lost() {
    throw_to_and_fro(2000, |store, theirs| {
        let mut watch = store.watch(theirs).unwrap();
        Box::new(move || _ = watch.wait(HALF_A_SECOND).unwrap())
    });
}

#[test]
fn no_wake_up_of_who_watches_all_is_lost() {
    throw_to_and_fro(500, |store, _| {
        let mut watch = store.watch_all().unwrap();
        Box::new(move || _ = watch.wait(HALF_A_SECOND).unwrap())
    });
}

#[test]
fn a_watch_tells_writes_deletions_and_the_end_of_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    let mut watch = store.watch(1).unwrap();
    assert_eq!(watch.wait(Some(Duration::from_millis(1))).unwrap(), Event::TimedOut);
    let version = store.put(1, b"x").unwrap();
    assert_eq!(watch.wait(None).unwrap(), Event::Written(version));
    store.put(2, b"another").unwrap();
    assert_eq!(watch.wait(Some(Duration::from_millis(1))).unwrap(), Event::TimedOut);
    store.delete(1).unwrap();
    assert_eq!(watch.wait(None).unwrap(), Event::Deleted);
    assert_eq!(watch.version(), None);
    let reader = Store::open_read_only(store.path()).unwrap();
    assert!(matches!(reader.watch(1), Err(Error::ReadOnly { .. })));
    assert!(matches!(reader.watch_all(), Err(Error::ReadOnly { .. })));
}

/// How often the kernel has put a thread of this process to sleep.
fn sleeps(thread: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Fails when a write wakes the watchers of other records, or a kind of write does not wake those of its own.
#[test]
fn a_watcher_sleeps_while_other_records_are_written_and_every_kind_of_write_of_its_own_wakes_it() {
    const PUTS: u64 = 5000;
    let dir = tempfile::tempdir().unwrap();
    let store = &small().regions(1).create(dir.path().join("s.rec")).unwrap();
    let writes: [(&str, &dyn Fn()); 8] = [
        ("put", &|| _ = store.put(1, b"put").unwrap()),
        ("update", &|| _ = store.update(1, |_| Some(b"update".to_vec())).unwrap()),
        ("swap", &|| _ = store.compare_and_swap(1, store.version(1).unwrap(), b"swap").unwrap()),
        ("delete", &|| assert!(store.delete(1).unwrap())),
        ("many", &|| _ = store.write_many((0..3).map(|id| (id, "many"))).unwrap()),
        ("batch", &|| {
            let mut batch = store.batch();
            batch.put(1, &b"batch"[..]).unwrap();
            batch.put(2, &b"batch"[..]).unwrap();
            let _ = batch.commit().unwrap();
        }),
        ("deleting batch", &|| {
            let mut batch = store.batch();
            batch.delete(1);
            let _ = batch.commit().unwrap();
        }),
        ("reservation", &|| {
            let mut room = store.reserve(1, 4).unwrap();
            room.write_at(0, b"room").unwrap();
            let _ = room.commit().unwrap();
        }),
    ];
    std::thread::scope(|scope| {
        let (told, tells) = std::sync::mpsc::channel();
        let count = writes.len();
        scope.spawn(move || {
            let mut watch = store.watch(1).unwrap();
            // SAFETY: the call has no arguments and changes nothing.
            told.send(unsafe { libc::gettid() }).unwrap();
            for _ in 0..count {
                watch.wait(None).unwrap();
                told.send(0).unwrap();
            }
        });
        let thread = tells.recv().unwrap();
        for (name, write) in writes {
            let before = sleeps(thread);
            for n in 0..PUTS {
                store.put(10 + n % 50, b"another").unwrap();
            }
            let woken = sleeps(thread) - before;
            assert!(woken < PUTS / 20, "woken {woken} times by {PUTS} writes of other records");
            write();
            tells.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("not woken by: {name}"));
        }
    });
}

#[test]
fn who_watches_all_is_told_of_a_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    store.put(1000, b"before").unwrap();
    let mut all = store.watch_all().unwrap();
    assert!(!all.wait(Some(Duration::from_millis(1))).unwrap());
    store.delete(1000).unwrap();
    assert!(all.wait(None).unwrap());
}

#[test]
fn a_store_in_memory_is_gone_with_its_last_user() {
    let name = name("last");
    let path = std::path::PathBuf::from(format!("/dev/shm/recstore.{name}"));
    let first = Store::shared(&name).unwrap();
    let second = small().shared(&name).unwrap();
    first.put(1, b"shared").unwrap();
    assert_eq!(second.get(1).unwrap().unwrap().data(), b"shared");
    assert!(Store::shared_names().unwrap().iter().any(|(n, p)| *n == name && *p == path));
    drop(first);
    assert!(path.exists());
    assert_eq!(second.get(1).unwrap().unwrap().data(), b"shared");
    drop(second);
    assert!(!path.exists());
    assert!(!Store::remove_shared(&name).unwrap());
    for wrong in ["", "a/b", "a\0b", &"x".repeat(201)] {
        assert!(matches!(Store::shared(wrong), Err(Error::InvalidOption { .. })), "{wrong:?}");
    }
}

#[test]
fn what_the_dead_left_in_memory_is_not_found_again() {
    let name = name("dead");
    let path = std::path::PathBuf::from(format!("/dev/shm/recstore.{name}"));
    // A file that nobody is attached to is what is left when all users were killed.
    let left = Store::create(&path).unwrap();
    left.put(1, b"old").unwrap();
    drop(left);
    assert!(path.exists());
    let store = Store::shared(&name).unwrap();
    assert!(store.is_empty().unwrap());
    assert!(Store::remove_shared(&name).unwrap());
    store.put(1, b"still mine").unwrap();
    let other = Store::shared(&name).unwrap();
    assert!(other.is_empty().unwrap(), "another store under the same name");
    drop(store);
    assert!(path.exists(), "the other's file is not removed");
    drop(other);
    assert!(!path.exists());
}

/// Many come and go at once; whoever is in sees one store with all others who are in.
#[test]
fn coming_and_going_at_once_never_splits_the_store() {
    let name = name("crowd");
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let name = &name;
            scope.spawn(move || {
                for round in 0..100u64 {
                    let store = small().shared(name).unwrap();
                    let same = small().shared(name).unwrap();
                    store.put(thread, &round.to_le_bytes()).unwrap();
                    assert_eq!(same.get(thread).unwrap().unwrap().data(), round.to_le_bytes());
                }
            });
        }
    });
    assert!(!std::path::Path::new(&format!("/dev/shm/recstore.{name}")).exists());
}
