//! Values that end at a deadline, by a clock that the tests set.
//!
//! Fails when: any call finds a value after its deadline, or does not find it before; a later deadline counts for another value, changes
//! the version, or writes the value again; a death at any step of a touch, a write or a sweep leaves another deadline than the one
//! before or the one after; a touch that said yes is lost to a writer or a sweep that came at the same time; a snapshot judges by another
//! moment than its own; a read writes; a sweep looks at more than it was told to, frees a value that is not over, or leaves one that is;
//! a wall clock that jumps expires what lives or keeps what is over.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;
use recstore::mirror::{Directory, Mirror};
use recstore::testing::{arm, set_clocks, set_hook, steps_seen};
use recstore::{Commit, Durability, Error, Options, Space, Store, Swap, Ttl};

use crate::common::{self, End, Me, in_fork, wait_for};

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;
const BEGIN: u64 = 20_000 * DAY;

/// The clocks of the process, for one test at a time. They stand still unless they are set.
struct Clocks {
    boot: u64,
    up: AtomicU64,
    /// The wall clock is this far ahead of what is right; it is right at the boot.
    wrong: i64,
    _alone: MutexGuard<'static, ()>,
}

impl Clocks {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let clocks = Self { boot: 1, up: AtomicU64::new(HOUR), wrong: 0, _alone: alone };
        clocks.set();
        clocks
    }

    fn set(&self) {
        let up = self.up.load(Ordering::SeqCst);
        let wall = (BEGIN + up).saturating_add_signed(self.wrong);
        set_clocks(Some(([self.boot, 9], up, wall)));
    }

    fn pass(&self, ms: u64) {
        self.up.fetch_add(ms, Ordering::SeqCst);
        self.set();
    }

    fn jump(&mut self, by: i64) {
        self.wrong += by;
        self.set();
    }

    /// Another boot, in which the wall clock shows this.
    fn boot(&mut self, wall: u64) {
        self.boot += 1;
        self.up = AtomicU64::new(10 * SECOND);
        self.wrong = wall as i64 - (BEGIN + 10 * SECOND) as i64;
        self.set();
    }
}

impl Drop for Clocks {
    fn drop(&mut self) {
        set_clocks(None);
    }
}

fn small() -> Options {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| recstore::testing::shorten_key_hash(8));
    Options::new().record_size(512).regions(3).slots_per_extent(16)
}

fn new_store() -> (tempfile::TempDir, Store) {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    (dir, store)
}

fn secs(seconds: u64) -> Ttl {
    Ttl::after(Duration::from_secs(seconds))
}

fn get(space: &Space<'_>, key: &str) -> Option<Vec<u8>> {
    space.get(key).unwrap().map(|record| record.into_data())
}

fn end(space: &Space<'_>, key: &str) -> Option<u64> {
    let at = space.expires_at(key).unwrap()?;
    Some(at.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 - BEGIN)
}

fn sweep_all(store: &Store) -> u64 {
    let mut freed = 0;
    loop {
        let swept = store.sweep(7).unwrap();
        freed += swept.freed;
        if swept.is_round_over {
            return freed;
        }
    }
}

#[test]
fn a_value_is_there_until_its_deadline_and_absent_from_then_on_for_every_call() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let version = space.put_with("k", b"value", secs(10)).unwrap();
    assert_eq!(end(&space, "k"), Some(HOUR + 10 * SECOND));
    clocks.pass(10 * SECOND - 1);
    space
        .update("k", |old| {
            assert_eq!(old, Some(&b"value"[..]));
            None::<&[u8]>
        })
        .unwrap();
    assert_eq!(get(&space, "k").as_deref(), Some(&b"value"[..]));
    clocks.pass(1);
    assert_eq!(end(&space, "k"), None);
    assert!(!space.touch("k", Duration::from_secs(9)).unwrap(), "it is not called back to life");
    space
        .update("k", |old| {
            assert_eq!(old, None);
            None::<&[u8]>
        })
        .unwrap();
    assert!(!space.delete("k").unwrap(), "it was not there");
    assert!(space.put_with("k", b"value", secs(10)).unwrap() > version);
    clocks.pass(10 * SECOND);
    assert!(matches!(space.put_if_absent("k", b"new").unwrap(), Swap::Done(_)));
    assert_eq!(end(&space, "k"), None, "without a time to live there is no deadline");
    clocks.pass(DAY);
    assert_eq!(get(&space, "k").as_deref(), Some(&b"new"[..]));
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn batches_snapshots_pins_and_passes_judge_as_get_does() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let version = space.put_with("k", b"value", secs(10)).unwrap();
    let before = store.snapshot().unwrap();
    for is in [true, false] {
        let reader = small().open_read_only(store.path()).unwrap();
        for store in [&store, &reader] {
            let space = store.space("s").unwrap();
            assert_eq!(
                (space.contains("k").unwrap(), space.version("k").unwrap()),
                (is, is.then_some(version))
            );
            assert_eq!((space.len().unwrap(), space.iter().count()), (u64::from(is), usize::from(is)));
            assert_eq!(space.is_empty().unwrap(), !is);
            assert_eq!(store.spaces().unwrap().len(), usize::from(is), "hidden spaces stay hidden");
            let mut many = Vec::new();
            space.get_many(&["k"], |_, value| many.push(value.is_some())).unwrap();
            assert_eq!(many, [is]);
        }
        assert_eq!(store.pin().unwrap().get_in(&space, "k").unwrap().is_some(), is);
        let snapshot = store.snapshot().unwrap();
        assert_eq!(snapshot.get_in(&space, "k").unwrap().is_some(), is);
        assert_eq!(snapshot.iter_in(&space).count(), usize::from(is));
        for expected in [Some(version), None] {
            let mut batch = store.batch();
            batch.require_in(&space, "k", expected).unwrap();
            let is_met = matches!(batch.commit().unwrap(), Commit::Done(_));
            assert_eq!(is_met, expected.is_some() == is);
        }
        clocks.pass(10 * SECOND);
    }
    // A snapshot is of one moment, in this too.
    assert_eq!(before.get_in(&space, "k").unwrap(), Some(&b"value"[..]));
    assert_eq!(before.iter_in(&space).count(), 1);
}

#[test]
fn a_touch_changes_the_deadline_and_neither_the_value_nor_its_version() {
    let clocks = Clocks::new();
    // The ids of value and later deadline differ. The version is that of a record, so it would change if they shared one.
    let dir = common::scratch();
    let store = common::superblock::create_seeded(&small(), &dir.path().join("s"), 1);
    let space = store.space("s").unwrap();
    let version = space.put_with("k", [7; 300], secs(10)).unwrap();
    for _ in 0..5 {
        clocks.pass(6 * SECOND);
        assert!(space.touch("k", Duration::from_secs(10)).unwrap());
        assert_eq!(space.version("k").unwrap(), Some(version));
    }
    assert_eq!(end(&space, "k"), Some(HOUR + 40 * SECOND));
    let snapshot = store.snapshot().unwrap();
    clocks.pass(9 * SECOND);
    assert_eq!(get(&space, "k"), Some(vec![7; 300]));
    assert_eq!((space.len().unwrap(), store.snapshot().unwrap().iter_in(&space).count()), (1, 1));
    // A touch of the value before it is none of this one.
    space.put_with("k", b"another", secs(10)).unwrap();
    assert_eq!(end(&space, "k"), Some(HOUR + 49 * SECOND));
    space.touch("k", Duration::from_secs(60)).unwrap();
    space.put_with("k", b"another", secs(10)).unwrap();
    clocks.pass(10 * SECOND);
    assert_eq!((get(&space, "k"), end(&space, "k")), (None, None));
    assert_eq!(snapshot.get_in(&space, "k").unwrap(), Some(&[7; 300][..]));
    drop(snapshot);
    // Earlier; none; and then one again.
    space.put_with("k", b"short", secs(100)).unwrap();
    space.touch("k", Duration::from_secs(200)).unwrap();
    space.touch("k", Duration::from_secs(50)).unwrap();
    assert_eq!(end(&space, "k"), Some(HOUR + 99 * SECOND));
    space.touch("k", Ttl::NEVER).unwrap();
    clocks.pass(DAY);
    assert_eq!((get(&space, "k").as_deref(), end(&space, "k")), (Some(&b"short"[..]), None));
    space.touch("k", Duration::from_secs(1)).unwrap();
    clocks.pass(SECOND);
    assert!(!space.touch("k", Duration::from_secs(1)).unwrap() && !space.touch("no", Ttl::NEVER).unwrap());
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_space_gives_its_time_to_what_it_writes_and_an_update_keeps_the_deadline() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let plain = store.space("s").unwrap();
    let space = plain.clone().with_ttl(Duration::from_secs(10));
    let now = || clocks.up.load(Ordering::SeqCst);
    space.put("put", b"").unwrap();
    space.write_many([("many", "")]).unwrap();
    let _ = space.put_if_absent("absent", b"").unwrap();
    space.update("update", |_| Some(b"made")).unwrap();
    let mut batch = store.batch();
    batch.put_in(&space, "batch", b"").unwrap();
    let _ = batch.commit().unwrap();
    let keys = ["put", "many", "absent", "update", "batch"];
    for key in keys {
        assert_eq!(end(&plain, key), Some(now() + 10 * SECOND), "{key}");
    }
    clocks.pass(5 * SECOND);
    space.update("update", |_| Some(b"kept")).unwrap();
    plain.update("put", |_| Some(b"kept")).unwrap();
    assert_eq!(
        (end(&plain, "update"), end(&plain, "put")),
        (Some(now() + 5 * SECOND), Some(now() + 5 * SECOND))
    );
    // A touch counts for the value that an update has written, too.
    space.touch("put", Duration::from_secs(30)).unwrap();
    plain.update("put", |_| Some(b"kept again")).unwrap();
    assert_eq!(end(&plain, "put"), Some(now() + 30 * SECOND));
    space.put_with("many", b"", Ttl::NEVER).unwrap();
    plain.put("absent", b"").unwrap();
    assert_eq!((end(&plain, "many"), end(&plain, "absent")), (None, None));
    space.put_with("put", b"", (secs(1), Durability::Disk)).unwrap();
    assert_eq!(end(&plain, "put"), Some(now() + SECOND));
}

#[test]
fn keys_that_share_an_id_have_deadlines_of_their_own() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let id = space.id_of("key 0");
    let keys: Vec<_> =
        (0..).map(|n| format!("key {n}")).filter(|key| space.id_of(key) == id).take(4).collect();
    for (n, key) in (1..).zip(&keys) {
        space.put_with(key, key, secs(10 * n)).unwrap();
    }
    assert!(space.touch(&keys[0], Duration::from_secs(25)).unwrap());
    for (passed, there) in [(9, [true; 4]), (12, [true, false, true, true]), (5, [false, false, true, true])]
    {
        clocks.pass(passed * SECOND);
        let is: Vec<_> = keys.iter().map(|key| get(&space, key).is_some()).collect();
        assert_eq!(is, there);
    }
    assert_eq!(sweep_all(&store), 2);
    assert_eq!(get(&space, &keys[2]).as_deref(), Some(keys[2].as_bytes()));
    space.put(&keys[0], b"anew").unwrap();
    clocks.pass(DAY);
    assert_eq!(sweep_all(&store), 2);
    assert_eq!(get(&space, &keys[0]).as_deref(), Some(&b"anew"[..]));
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn reads_of_what_is_over_write_nothing() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    space.put_with("k", b"value", secs(10)).unwrap();
    space.touch("k", Duration::from_secs(20)).unwrap();
    clocks.pass(DAY);
    let before = std::fs::read(store.path()).unwrap();
    assert_eq!((get(&space, "k"), end(&space, "k"), space.len().unwrap()), (None, None, 0));
    assert_eq!(space.iter().count(), 0);
    assert!(std::fs::read(store.path()).unwrap() == before);
}

#[test]
fn a_sweep_frees_what_is_over_and_looks_at_no_more_than_it_was_told_to() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    for n in 0..60_u64 {
        space.put_with(n.to_string(), b"value", secs(10 + n % 2 * 100)).unwrap();
        store.put(1000 + n, b"plain").unwrap();
    }
    for n in (0..60_u64).step_by(4) {
        assert!(space.touch(n.to_string(), Duration::from_secs(50)).unwrap());
    }
    clocks.pass(20 * SECOND);
    let mut freed = Vec::new();
    loop {
        let swept = store.sweep(5).unwrap();
        freed.push(swept.freed);
        if swept.is_round_over {
            break;
        }
    }
    assert_eq!(freed.iter().sum::<u64>(), 15, "half of them live, and half of the rest were touched");
    let others = small().open(store.path()).unwrap();
    assert_eq!(sweep_all(&others), 0);
    assert!(freed.len() > 120 / 5, "{} sweeps", freed.len());
    assert_eq!(space.len().unwrap(), 45);
    clocks.pass(DAY);
    assert_eq!(sweep_all(&others), 45);
    assert_eq!(sweep_all(&store), 0);
    // What is left is the anchor of the clock: the later deadlines are gone too.
    assert_eq!(store.len().unwrap(), 60 + 1);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_thread_sweeps_at_intervals() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let sweeping = store.sweep_every(Duration::from_millis(1), 4).unwrap();
    for n in 0..40_u64 {
        space.put_with(n.to_string(), b"value", secs(10)).unwrap();
    }
    clocks.pass(20 * SECOND);
    common::until("all are freed", || store.len().unwrap() == 1);
    assert!(sweeping.error().is_none() && sweeping.failures() == 0);
    sweeping.finish().unwrap();
    assert!(matches!(store.sweep_every(Duration::ZERO, 4), Err(Error::InvalidOption { .. })));
}

#[test]
fn a_wall_clock_that_jumps_expires_nothing_and_keeps_nothing() {
    let mut clocks = Clocks::new();
    let (_dir, store) = new_store();
    for jump in [(DAY * 1000) as i64, -((DAY * 1000) as i64)] {
        let space = store.space("s").unwrap();
        space.put_with("k", b"value", secs(1000)).unwrap();
        clocks.pass(60 * SECOND);
        clocks.jump(jump);
        let (mut lived, other) = (60, small().open(store.path()).unwrap());
        while get(&space, "k").is_some() {
            assert!(other.space("s").unwrap().contains("k").unwrap(), "after {lived} s");
            clocks.pass(SECOND);
            lived += 1;
            // Writers set the anchor.
            other.space("other").unwrap().put_with("k", b"", secs(1)).unwrap();
        }
        println!("{lived} s");
        assert!((500..=2000).contains(&lived), "{lived} s");
        clocks.jump(-jump);
        clocks.pass(DAY);
    }
}

#[test]
fn deadlines_outlive_a_boot_whatever_the_wall_clock_shows_then() {
    let mut clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    space.put_with("hour", b"value", secs(3600)).unwrap();
    space.put_with("day", b"value", secs(86_400)).unwrap();
    let now = BEGIN + HOUR;
    // Off for two hours.
    clocks.boot(now + 2 * HOUR);
    let there = |store: &Store| ["hour", "day"].map(|key| store.space("s").unwrap().contains(key).unwrap());
    assert_eq!(there(&store), [false, true]);
    // A clock that begins in 1970, one that is behind, and one that is years ahead.
    for wall in [0, now - DAY, now + 3650 * DAY] {
        clocks.boot(wall);
        assert_eq!(there(&small().open(store.path()).unwrap()), [true, true], "{wall}");
    }
    // A writer sets the anchor, and the time goes on from there.
    clocks.boot(0);
    let other = small().open(store.path()).unwrap();
    other.space("other").unwrap().put_with("k", b"", secs(1)).unwrap();
    for _ in 0..300 {
        clocks.pass(30 * SECOND);
        other.space("other").unwrap().put_with("k", b"", secs(1)).unwrap();
    }
    assert_eq!(there(&other), [false, true]);
}

#[test]
fn an_anchor_that_is_no_anchor_is_replaced() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    space.put_with("k", b"value", Ttl::at(UNIX_EPOCH + Duration::from_millis(BEGIN + 2 * HOUR))).unwrap();
    assert_eq!(end(&space, "k"), Some(2 * HOUR));
    space.put_with("gone", b"value", Ttl::at(SystemTime::UNIX_EPOCH)).unwrap();
    assert_eq!(get(&space, "gone"), None);
    // A store without any deadline has no anchor, and a read makes none.
    clocks.pass(HOUR);
    assert_eq!(get(&space, "k"), None);
}

type Operation = fn(&Space<'_>);

/// A call that tells whether it found a value.
type Finds = fn(&Store) -> bool;

/// What a death can leave of a key: its value and its deadline.
type Left = (Option<Vec<u8>>, Option<u64>);

#[test]
fn child_entry() {
    match Me::from_env().as_ref().map(|me| &me.role[..]) {
        None => {}
        Some("dies") => die_at_every_step(),
        Some("forks") => touch_in_one_of_two_children(),
        Some(role) => panic!("no such role: {role}"),
    }
}

#[test]
fn a_death_at_any_step_leaves_the_deadline_before_or_after() {
    common::alone("dies", &[]);
}

fn die_at_every_step() {
    let clocks = Clocks::new();
    let operations: [(&str, Operation, u64); 8] = [
        ("touch", |space| _ = space.touch("k", Duration::from_secs(500)).unwrap(), 1),
        ("touch again", |space| _ = space.touch("k", Duration::from_secs(600)).unwrap(), 2),
        ("shorten", |space| _ = space.touch("k", Duration::from_secs(5)).unwrap(), 2),
        ("put", |space| _ = space.put_with("k", b"another", secs(700)).unwrap(), 2),
        ("delete what is over", |space| _ = space.delete("gone").unwrap(), 2),
        ("sweep", |space| _ = sweep_all(space.store()), 2),
        (
            "swap",
            |space| {
                let is = space.version("k").unwrap();
                let _ = space.compare_and_swap_with("k", is, b"another", secs(800)).unwrap();
            },
            2,
        ),
        (
            "batch",
            |space| {
                let mut batch = space.store().batch();
                batch.require_in(space, "gone", None).unwrap();
                batch.put_in(&space.clone().with_ttl(Duration::from_secs(900)), "k", b"another").unwrap();
                assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
            },
            2,
        ),
    ];
    let left = |store: &Store| -> Left {
        let space = store.space("s").unwrap();
        (get(&space, "k"), end(&space, "k"))
    };
    let prepare = |path: &Path, touches: u64| {
        let store = small().create(path).unwrap();
        let space = store.space("s").unwrap();
        space.put_with("k", b"value", secs(100)).unwrap();
        space.put_with("gone", b"value", secs(0)).unwrap();
        store.sync().unwrap();
        if touches > 1 {
            space.touch("k", Duration::from_secs(300)).unwrap();
        }
        store
    };
    for (name, operate, touches) in operations {
        let mut deaths = 0;
        for step in 1.. {
            let dir = common::scratch();
            let path = dir.path().join("s");
            let store = prepare(&path, touches);
            let before = left(&store);
            let dies = wait_for(in_fork(|| {
                let store = small().open(&path).unwrap();
                let space = store.space("s").unwrap();
                arm(step);
                operate(&space);
                assert!(steps_seen() > 0);
                arm(0);
                0
            }));
            let now = left(&store);
            let fresh = small().open(&path).unwrap();
            assert_eq!(left(&fresh), now, "{name}, step {step}");
            assert!(store.verify().unwrap().is_clean(), "{name}, step {step}");
            operate(&store.space("s").unwrap());
            let after = left(&fresh);
            assert!(now == before || now == after, "{name}, step {step}: {before:?}, {now:?}, {after:?}");
            if dies != End::Killed {
                assert_eq!(now, after, "{name}");
                break;
            }
            deaths += 1;
        }
        println!("{name}: {deaths} deaths");
        assert!(deaths > 3, "{name}");
    }
    drop(clocks);
}

/// Between the look at the deadline and the change, somebody else is faster: one of the two comes first.
#[test]
fn a_touch_that_said_yes_is_not_lost_to_a_sweep_or_a_writer_at_the_same_time() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let other = small().open(store.path()).unwrap();
    let (mut lived, mut died) = (0, 0);
    let mut rng = common::seeded();
    for round in 0..300_u32 {
        let space = store.space("s").unwrap();
        space.put_with("k", b"value", secs(10)).unwrap();
        clocks.pass(10 * SECOND - 1);
        let spins = rng.random_range(0..2000);
        let (was_touched, was_written) = std::thread::scope(|scope| {
            let touches = scope.spawn(|| space.touch("k", Duration::from_secs(1000)).unwrap());
            let writes = scope.spawn(|| {
                (0..spins).for_each(|_| std::hint::spin_loop());
                clocks.pass(1);
                if round % 2 == 0 {
                    return sweep_all(&other) != 0;
                }
                let swap = other.space("s").unwrap().put_if_absent("k", b"other").unwrap();
                matches!(swap, Swap::Done(_))
            });
            (touches.join().unwrap(), writes.join().unwrap())
        });
        // A touch that comes after the other writer touches the other value.
        let left = get(&space, "k");
        if was_written && round % 2 == 1 {
            assert_eq!(left.as_deref(), Some(&b"other"[..]), "round {round}");
        } else {
            // A sweep may leave out what others have locked, and a touch may come too late.
            assert!(!(was_touched && was_written), "round {round}");
            assert!(was_touched || was_written || round % 2 == 0, "round {round}");
            assert_eq!(left.as_deref() == Some(b"value"), was_touched, "round {round}");
        }
        (lived, died) = (lived + u32::from(was_touched), died + u32::from(was_written));
        space.delete("k").unwrap();
    }
    println!("touched {lived} times, written {died} times");
    assert!(lived > 0);
}

#[test]
fn any_calls_give_what_a_map_with_deadlines_gives() {
    let mut clocks = Clocks::new();
    let mut rng = common::seeded();
    let (_dir, store) = new_store();
    let mut stores = [store, small().open(_dir.path().join("s")).unwrap()];
    let mut model: BTreeMap<String, (u64, Option<u64>)> = BTreeMap::new();
    for counter in 0..4000_u64 {
        let which = rng.random_range(0..2);
        let now = clocks.up.load(Ordering::SeqCst);
        model.retain(|_, (_, end)| end.is_none_or(|end| end > now));
        let key = rng.random_range(0..12u32).to_string();
        let ttl = rng.random_range(1..50u64);
        let space = stores[which].space("s").unwrap();
        let old = model.get(&key).copied();
        match rng.random_range(0..13) {
            0 | 1 => {
                space.put_with(&key, counter.to_le_bytes(), secs(ttl)).unwrap();
                model.insert(key, (counter, Some(now + ttl * SECOND)));
            }
            2 => {
                space.put(&key, counter.to_le_bytes()).unwrap();
                model.insert(key, (counter, None));
            }
            3 | 4 => {
                assert_eq!(space.touch(&key, Duration::from_secs(ttl)).unwrap(), old.is_some());
                if let Some((value, _)) = old {
                    model.insert(key, (value, Some(now + ttl * SECOND)));
                }
            }
            5 => {
                space
                    .update(&key, |is| {
                        assert_eq!(is.map(<[u8]>::to_vec), old.map(|old| old.0.to_le_bytes().to_vec()));
                        Some(counter.to_le_bytes())
                    })
                    .unwrap();
                model.insert(key, (counter, old.and_then(|old| old.1)));
            }
            6 => assert_eq!(space.delete(&key).unwrap(), model.remove(&key).is_some()),
            7 => {
                let made = matches!(space.put_if_absent(&key, counter.to_le_bytes()).unwrap(), Swap::Done(_));
                assert_eq!(made, old.is_none());
                if made {
                    model.insert(key, (counter, None));
                }
            }
            8 => _ = stores[which].sweep(rng.random_range(1..20)).unwrap(),
            9 => {
                let mut batch = stores[which].batch();
                batch.require_in(&space, &key, None).unwrap();
                batch
                    .put_in(
                        &space.clone().with_ttl(Duration::from_secs(ttl)),
                        &key,
                        counter.to_le_bytes().to_vec(),
                    )
                    .unwrap();
                let made = matches!(batch.commit().unwrap(), Commit::Done(_));
                assert_eq!(made, old.is_none());
                if made {
                    model.insert(key, (counter, Some(now + ttl * SECOND)));
                }
            }
            10 => {
                let path = stores[which].path().to_path_buf();
                stores[which] = small().open(path).unwrap();
            }
            _ => clocks.pass(rng.random_range(1..20) * SECOND),
        }
        let now = clocks.up.load(Ordering::SeqCst);
        model.retain(|_, (_, end)| end.is_none_or(|end| end > now));
        let space = stores[1 - which].space("s").unwrap();
        for key in (0..12u32).map(|key| key.to_string()) {
            let is = get(&space, &key).map(|value| u64::from_le_bytes(value.try_into().unwrap()));
            assert_eq!(
                (is, end(&space, &key)),
                model.get(&key).map_or((None, None), |is| (Some(is.0), is.1)),
                "{key} after call {counter}"
            );
        }
        assert_eq!(space.len().unwrap(), model.len() as u64);
    }
    clocks.jump(0);
    assert!(stores[0].verify().unwrap().is_clean());
}

#[test]
fn a_salvaged_store_has_the_deadlines() {
    let clocks = Clocks::new();
    let (dir, store) = new_store();
    let space = store.space("s").unwrap();
    space.put_with("k", b"value", secs(10)).unwrap();
    space.put_with("touched", b"value", secs(10)).unwrap();
    space.touch("touched", Duration::from_secs(1000)).unwrap();
    store.backup(dir.path().join("backup")).unwrap();
    store.close().unwrap();
    recstore::salvage(dir.path().join("s"), dir.path().join("salvaged"), None).unwrap();
    for name in ["backup", "salvaged"] {
        let copy = small().open(dir.path().join(name)).unwrap();
        let space = copy.space("s").unwrap();
        assert_eq!(
            (end(&space, "k"), end(&space, "touched")),
            (Some(HOUR + 10 * SECOND), Some(HOUR + 1000 * SECOND)),
            "{name}"
        );
    }
    drop(clocks);
}

/// The value's record and that of its later deadline lie in any two regions: while the deadline is written, no writer gets at the
/// value.
#[test]
fn a_touch_has_the_lock_of_the_value_while_it_writes_the_later_deadline() {
    let _clocks = Clocks::new();
    let (dir, store) = new_store();
    let beside = small().lock_timeout(Some(Duration::from_millis(20))).open(dir.path().join("s")).unwrap();
    for n in 0..16 {
        let key = format!("user:{n}");
        store.space("sessions").unwrap().put_with(&key, b"value", secs(60)).unwrap();
        let (inside, is_inside) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let (store, at) = (&store, &key);
        let written = std::thread::scope(|scope| {
            scope.spawn(move || {
                set_hook(Some(Box::new(move |step| {
                    if step == "put: slot taken" && inside.send(()).is_ok() {
                        let _ = may_go_on.recv();
                    }
                })));
                let touched = store.space("sessions").unwrap().touch(at, secs(3600));
                set_hook(None);
                assert!(touched.unwrap());
            });
            is_inside.recv().unwrap();
            let written = beside.space("sessions").unwrap().put(&key, b"another");
            drop((go_on, is_inside));
            written
        });
        assert!(matches!(written, Err(Error::Busy { .. })), "{key}: {written:?}");
        store.sync().unwrap(); // The next touch may write over this one's record, which another key may share.
    }
}

/// A call that waits for a lock meanwhile. A reader has seen then that the value is over, and nothing calls it back to life.
#[test]
fn what_a_reader_found_over_stays_over_for_a_call_that_began_before() {
    let clocks = Clocks::new();
    let (dir, store) = new_store();
    let reader = small().open(dir.path().join("s")).unwrap();
    // Each gives whether it found the value.
    let calls: [(&str, Finds); 6] = [
        ("touch", |store| store.space("s").unwrap().touch("k", secs(1000)).unwrap()),
        ("touch with the value", |store| store.space("s").unwrap().touch("k", Ttl::NEVER).unwrap()),
        ("update", |store| {
            let mut was_there = false;
            let space = store.space("s").unwrap();
            let updated = space.update_with("k", secs(1000), |old| {
                was_there = old.is_some();
                old.map(<[u8]>::to_vec)
            });
            updated.unwrap();
            was_there
        }),
        ("put_if_absent", |store| {
            let swap = store.space("s").unwrap().put_if_absent("k", b"other").unwrap();
            matches!(swap, Swap::Conflict { .. })
        }),
        ("delete", |store| store.space("s").unwrap().delete("k").unwrap()),
        ("batch", |store| {
            let space = store.space("s").unwrap();
            let mut batch = store.batch();
            batch.require_in(&space, "k", None).unwrap();
            batch.put_in(&space, "k", b"other").unwrap();
            matches!(batch.commit().unwrap(), Commit::Conflict { .. })
        }),
    ];
    for (name, call) in calls {
        for nth in 1.. {
            let space = reader.space("s").unwrap();
            space.put_with("k", b"value", secs(10)).unwrap();
            reader.sync().unwrap(); // So that a touch need not write the value.
            clocks.pass(10 * SECOND - 1);
            let (inside, is_inside) = channel();
            let (go_on, may_go_on) = channel::<()>();
            let store = &store;
            let (was_held_up, found) = std::thread::scope(|scope| {
                let calls = scope.spawn(move || {
                    let mut locks = 0;
                    set_hook(Some(Box::new(move |step| {
                        locks += i32::from(step == "lock: taken");
                        if step == "lock: taken" && locks == nth && inside.send(()).is_ok() {
                            let _ = may_go_on.recv();
                        }
                    })));
                    let found = call(store);
                    set_hook(None);
                    found
                });
                let was_held_up = is_inside.recv().is_ok();
                clocks.pass(1);
                assert!(!was_held_up || get(&space, "k").is_none());
                drop(go_on);
                (was_held_up, calls.join().unwrap())
            });
            if !was_held_up {
                assert!(nth > 1, "{name} took no lock");
                break;
            }
            assert!(!found, "{name} found the value, at lock {nth}");
            assert_ne!(get(&space, "k").as_deref(), Some(&b"value"[..]), "{name}, at lock {nth}");
        }
    }
}

#[test]
fn a_touch_in_one_forked_child_is_none_of_a_value_of_another() {
    common::alone("forks", &[]);
}

/// Two children of one process, which do the same.
fn touch_in_one_of_two_children() {
    let _clocks = Clocks::new();
    // The thread has drawn its random numbers, as in most programs before they fork.
    drop(std::hash::RandomState::new());
    let (dir, store) = new_store();
    let path = dir.path().join("s");
    let at = |seconds| Ttl::at(UNIX_EPOCH + Duration::from_millis(BEGIN + HOUR + seconds * SECOND));
    for touches in [true, false] {
        let end = wait_for(in_fork(|| {
            let store = small().open(&path).unwrap();
            let space = store.space("s").unwrap();
            space.put_with("k", b"value", at(100)).unwrap();
            if touches {
                assert!(space.touch("k", at(1000)).unwrap());
            }
            0
        }));
        assert_eq!(end, End::Exited(0));
    }
    assert_eq!(end(&store.space("s").unwrap(), "k"), Some(HOUR + 100 * SECOND));
}

/// A mirror learns deadlines from writes, and so does a reader that keeps one.
#[test]
fn an_earlier_deadline_is_a_write_of_the_value_even_if_a_touch_is_shortened() {
    let clocks = Clocks::new();
    let (_dir, store) = new_store();
    let space = store.space("s").unwrap();
    let version = space.put_with("k", b"value", secs(10)).unwrap();
    space.touch("k", secs(300)).unwrap();
    assert_eq!(space.version("k").unwrap(), Some(version));
    space.touch("k", secs(20)).unwrap();
    assert!(space.version("k").unwrap() > Some(version));
    assert_eq!(end(&space, "k"), Some(HOUR + 20 * SECOND));
    clocks.pass(20 * SECOND);
    assert_eq!(get(&space, "k"), None);
}

/// A snapshot is of the moment at which it parts the writes, in this too: a touch that comes after that is not in it, so the time is
/// none after it either.
#[test]
fn a_snapshot_has_a_value_that_was_never_over() {
    let clocks = Clocks::new();
    let (dir, store) = new_store();
    let other = small().open(dir.path().join("s")).unwrap();
    let space = store.space("s").unwrap();
    space.put_with("k", b"value", secs(10)).unwrap();
    let (inside, is_inside) = channel();
    let (go_on, may_go_on) = channel::<()>();
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| {
            set_hook(Some(Box::new(move |step| {
                if step == "sync: epoch raised" && inside.send(()).is_ok() {
                    let _ = may_go_on.recv();
                }
            })));
            let snapshot = other.snapshot();
            set_hook(None);
            let snapshot = snapshot.unwrap();
            let space = other.space("s").unwrap();
            let found = snapshot.get_in(&space, "k").unwrap().map(<[u8]>::to_vec);
            (found, snapshot.iter_in(&space).count())
        });
        is_inside.recv().unwrap();
        assert!(space.touch("k", secs(1000)).unwrap());
        clocks.pass(20 * SECOND);
        assert!(space.contains("k").unwrap());
        drop(go_on);
        assert_eq!(reads.join().unwrap(), (Some(b"value".to_vec()), 1));
    });
}

/// Containers may show boot ids of their own on one kernel, and one clock since boot.
#[test]
fn processes_that_see_two_boot_ids_on_one_kernel_agree_on_the_time() {
    let mut clocks = Clocks::new();
    let (dir, store) = new_store();
    let other = small().open(dir.path().join("s")).unwrap();
    clocks.pass(100 * DAY); // since the boot
    store.space("s").unwrap().put_with("k", b"value", secs(3600)).unwrap();
    let mut lived = 0;
    loop {
        clocks.boot = 1 + lived % 2;
        clocks.set();
        let store = if lived % 2 == 0 { &store } else { &other };
        store.space("s").unwrap().put_with("other", b"", secs(1)).unwrap();
        if !store.space("s").unwrap().contains("k").unwrap() {
            break;
        }
        clocks.pass(61 * SECOND);
        lived += 1;
    }
    assert_eq!(lived, 3600_u64.div_ceil(61));
}

/// The record of the later deadline is one byte longer than that of an empty value.
#[test]
fn a_touch_of_a_value_that_just_fits_is_no_error() {
    let clocks = Clocks::new();
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    let space = store.space("s").unwrap();
    let fits = |key: &str| match space.put_with(key, b"", secs(10)) {
        Ok(_) => true,
        Err(Error::EntryTooLong { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    let longest = (1..).map(|len| "k".repeat(len)).take_while(|key| fits(key)).last().unwrap();
    assert!(space.touch(&longest, secs(100)).unwrap());
    clocks.pass(99 * SECOND);
    assert!(space.contains(&longest).unwrap());
}

/// The wall clock is far ahead, and is set back: the clock of the store goes on.
#[test]
fn a_mirror_ends_a_value_by_the_clock_of_the_store() {
    let mut clocks = Clocks::new();
    clocks.jump((40 * 366 * DAY) as i64);
    let (dir, store) = new_store();
    let space = store.space("s").unwrap();
    space.put("stays", b"value").unwrap();
    space.put_with("ends", b"value", secs(10)).unwrap();
    let place = Directory::open(dir.path().join("copy"), &store, Some("s")).unwrap();
    let mut mirror = Mirror::start(&store, Some("s"), place).unwrap();
    while !mirror.step(Duration::ZERO).unwrap().is_equal {}
    assert_eq!(mirror.stats().records, 2);
    clocks.jump(-(DAY as i64));
    clocks.pass(100 * SECOND);
    assert!(!space.contains("ends").unwrap());
    for _ in 0..3 {
        mirror.step(Duration::ZERO).unwrap();
    }
    assert_eq!(mirror.stats().records, 1);
}

#[test]
fn a_store_with_records_that_are_too_small_for_its_clock_says_so() {
    let _clocks = Clocks::new();
    let dir = common::scratch();
    for (record_size, is_enough) in [(40, false), (56, true)] {
        let store =
            small().record_size(record_size).create(dir.path().join(record_size.to_string())).unwrap();
        let put = store.space("s").unwrap().put_with("k", b"value", secs(10));
        match put {
            Ok(_) => assert!(is_enough),
            Err(Error::InvalidOption { what }) => {
                assert!(!is_enough && what.contains("larger record size"), "{what}")
            }
            Err(error) => panic!("{error}"),
        }
    }
}
