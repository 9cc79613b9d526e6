//! A process dies at every step of every operation, and the store equals the model before or after
//! that operation; it dies at every step of the repair as well, and again.
//!
//! Needs the feature `testing`. Fails when, after any death: a handle that was open already, a new
//! one or a read-only one sees a record that is neither as before nor as after; two handles differ;
//! `verify` finds anything; a slot is on no list; the next write is not newer than all before.

#![cfg(feature = "testing")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::superblock::create_seeded;
use crate::common::{self, End, Me, in_fork, wait_for};
use rand::Rng;
use recstore::testing::{arm, set_hook, steps_seen};
use recstore::{Change, Commit, Error, Options, Store};

use self::scenarios::{KEYED, SCENARIOS, Scenario, key, put, tiny};

mod scenarios;

type Content = BTreeMap<u64, Vec<u8>>;

fn content(store: &Store) -> Content {
    let space = store.space("keys").unwrap();
    let of_key = |key: &[u8]| KEYED + u64::from_le_bytes(key.try_into().unwrap());
    let of_keys = space.iter().map(|found| found.unwrap()).map(|(key, r)| (of_key(&key), r.into_data()));
    store.iter().map(|r| r.unwrap()).map(|r| (r.id(), r.into_data())).chain(of_keys).collect()
}

/// What is read of a record, or of a key.
fn get(store: &Store, id: u64) -> Result<Option<Vec<u8>>, Error> {
    let found = match id.checked_sub(KEYED) {
        Some(number) => store.space("keys")?.get(key(number)),
        None => store.get(id),
    };
    Ok(found?.map(|record| record.into_data()))
}

/// How many records these are.
fn records(store: &Store, content: &Content) -> u64 {
    let space = store.space("keys").unwrap();
    let id = |&id: &u64| id.checked_sub(KEYED).map_or((false, id), |number| (true, space.id_of(key(number))));
    content.keys().map(id).collect::<BTreeSet<_>>().len() as u64
}

/// The files and the two models of a scenario.
struct Stage {
    scenario: &'static Scenario,
    origin: PathBuf,
    path: PathBuf,
    before: Content,
    after: Content,
    /// The newest version that was given out before the operation, in any region.
    newest: u64,
}

impl Stage {
    fn new(scenario: &'static Scenario, dir: &Path) -> Self {
        recstore::testing::shorten_key_hash(2);
        let (origin, path) = (dir.join("origin"), dir.join("store"));
        let store = create_seeded(&(scenario.options)(), &origin, 1);
        (scenario.prepare)(&store);
        let before = content(&store);
        let newest = store.stats().unwrap().regions.iter().map(|r| r.next_version - 1).max().unwrap();
        if scenario.name.starts_with("closed") {
            store.close().unwrap()
        } else {
            drop(store)
        }
        std::fs::copy(&origin, &path).unwrap();
        let store = Store::open(&path).unwrap();
        (scenario.operate)(&store);
        let after = content(&store);
        assert!(store.verify().unwrap().is_clean());
        Self { scenario, origin, path, before, after, newest }
    }

    /// Sets the store as it was before the operation.
    fn set(&self) {
        std::fs::copy(&self.origin, &self.path).unwrap();
    }

    /// A child operates and dies at its n-th step; whether it did.
    fn dies_at(&self, n: i64) -> bool {
        let child = in_fork(|| {
            let store = Store::open(&self.path).unwrap();
            arm(n);
            (self.scenario.operate)(&store);
            arm(0);
            0
        });
        self.ended(child)
    }

    /// A child opens the store, reads and writes all, and dies at its m-th step; whether it did.
    fn healer_dies_at(&self, m: i64) -> bool {
        let child = in_fork(|| {
            arm(m);
            let store = Store::open(&self.path).unwrap();
            self.check_content(&content(&store));
            arm(0);
            0
        });
        self.ended(child)
    }

    fn ended(&self, child: nix::unistd::Pid) -> bool {
        match wait_for(child) {
            End::Killed => true,
            End::Exited(0) => false,
            End::Exited(code) => panic!("the child failed ({code})"),
        }
    }

    /// Every record is as before or as after; other than a batch, all of them are the same of these.
    fn check_content(&self, content: &Content) {
        let batch = self.scenario.name == "write_many";
        let ids = || self.before.keys().chain(self.after.keys()).chain(content.keys());
        for id in ids() {
            let is = content.get(id);
            let known = is == self.before.get(id) || is == self.after.get(id);
            assert!(known, "id {id} is neither as before nor as after: {is:?}");
        }
        assert!(
            batch || *content == self.before || *content == self.after,
            "partly as before, partly as after"
        );
    }

    /// The store after a death, looked at by all kinds of handles; `first` chooses who heals.
    fn check(&self, other: &Store, first: u64) {
        let reader = Store::open_read_only(&self.path);
        match reader {
            Ok(reader) => {
                let some = self.before.len() / 20 + 1;
                for id in self.before.keys().step_by(some).chain(self.after.keys().rev().step_by(some)) {
                    match get(&reader, *id) {
                        Ok(is) => {
                            let is = is.as_deref();
                            let (b, a) = (self.before.get(id), self.after.get(id));
                            assert!(
                                is == b.map(|b| &b[..]) || is == a.map(|a| &a[..]),
                                "read-only: id {id}: {is:?}"
                            );
                        }
                        Err(Error::NeedsRepair { .. }) => {}
                        Err(e) => panic!("read-only: {e}"),
                    }
                }
            }
            Err(Error::NeedsRepair { .. }) => {}
            Err(e) => panic!("read-only: {e}"),
        }
        match first % 6 {
            0 => _ = other.get(1).unwrap(),
            1 => _ = other.len().unwrap(),
            2 => _ = Store::open(&self.path).unwrap(),
            3 => _ = other.repair().unwrap(),
            4 => other.sync().unwrap(),
            _ => {}
        }
        let seen = content(other);
        self.check_content(&seen);
        let fresh = Store::open(&self.path).unwrap();
        assert_eq!(content(&fresh), seen, "two handles differ");
        for (id, data) in &seen {
            assert_eq!(get(other, *id).unwrap().as_ref(), Some(data));
        }
        assert_eq!(other.len().unwrap(), records(other, &seen));
        // Every region is written, so every lock that a dead owner left is taken over.
        let one_region = fresh.stats().unwrap().regions.len() == 1;
        for id in 10_000..10_004 {
            let version = other.put(id, b"after all").unwrap();
            assert!(!one_region || version.get() > self.newest, "version {version} was given out before");
            assert!(
                seen.keys()
                    .all(|&id| !one_region || id >= KEYED || fresh.version(id).unwrap().unwrap() < version)
            );
        }
        for store in [other, &fresh] {
            let report = store.verify().unwrap();
            assert!(report.is_clean(), "{report:?}");
        }
        let stats = fresh.stats().unwrap();
        assert_eq!(stats.slots, stats.records + stats.free_slots + stats.retired_slots, "{stats:?}");
    }
}

/// What readers see of some records: those that the operation changes, and some of the others.
type Answers = BTreeMap<u64, Option<Vec<u8>>>;

impl Stage {
    fn answers(&self, store: &Store) -> Answers {
        let ids = || self.before.keys().chain(self.after.keys());
        let changed = ids().filter(|id| self.before.get(id) != self.after.get(id));
        let ids = changed.chain(ids().step_by(self.before.len() / 10 + 1));
        ids.map(|&id| (id, get(store, id).unwrap())).collect()
    }

    /// What is read after a death stays so when somebody heals. `n` chooses who reads first.
    fn check_final(&self, other: &Store, n: i64) {
        // The pass over all slots is for the dead; one over a large index for each of them takes long.
        let small = self.before.len() < 100;
        let read_only = || match Store::open_read_only(&self.path) {
            Ok(reader) => {
                let answers = self.answers(&reader);
                if small {
                    let all = content(&reader);
                    let same = |(id, is): (&u64, &Option<Vec<u8>>)| all.get(id) == is.as_ref();
                    assert!(answers.iter().all(same), "read-only: get and iter differ");
                    assert_eq!(reader.len().unwrap(), records(&reader, &all));
                }
                Some(answers)
            }
            Err(Error::NeedsRepair { .. }) => None,
            Err(e) => panic!("read-only: {e}"),
        };
        let first = read_only();
        let seen =
            if n % 2 == 0 { self.answers(other) } else { self.answers(&Store::open(&self.path).unwrap()) };
        assert!(first.is_none_or(|first| first == seen), "readers differ after a death");
        if let Ok(pin) = other.pin() {
            for (&id, is) in &seen {
                let lent = match id.checked_sub(KEYED) {
                    Some(number) => pin.get_in(&other.space("keys").unwrap(), key(number)),
                    None => pin.get(id),
                };
                assert_eq!(lent.unwrap(), is.as_deref(), "a pin differs");
            }
        }
        let then = read_only();
        assert!(then.is_none_or(|then| then == seen), "readers differ after others have read");
        // Every region is written, so every region is healed.
        let regions = other.stats().unwrap().regions.len();
        for region in 0..regions as u32 {
            let id = (20_000..).find(|&id| other.region_of(id) == region).unwrap();
            other.put(id, b"somebody else's").unwrap();
            assert_eq!(self.answers(other), seen, "what was read after a death has changed by healing");
        }
        assert_eq!(self.answers(&Store::open(&self.path).unwrap()), seen);
        assert!(other.verify().unwrap().is_clean());
        if self.scenario.name != "write_many" {
            let is = |model: &Content| seen.iter().all(|(id, is)| model.get(id) == is.as_ref());
            assert!(is(&self.before) || is(&self.after), "partly as before, partly as after");
        }
    }
}

/// After each death, before and after it is healed.
fn finally(me: &mut Me, stage: &Stage) {
    for n in 1.. {
        stage.set();
        let other = Store::open(&stage.path).unwrap();
        if !stage.dies_at(n) {
            break;
        }
        stage.check_final(&other, n);
        me.say(common::GOES_ON);
    }
}

/// The same, when a healer has died as well, at some step.
fn finally_twice(me: &mut Me, stage: &Stage) {
    let mut rng = common::seeded();
    let stride = common::share(if stage.before.len() > 100 { 16 } else { 3 });
    let mut n = 1;
    loop {
        stage.set();
        let other = Store::open(&stage.path).unwrap();
        if !stage.dies_at(n) {
            return;
        }
        let seen = Store::open_read_only(&stage.path).ok().map(|reader| stage.answers(&reader));
        let healer = in_fork(|| {
            let store = Store::open(&stage.path).unwrap();
            arm(rng.random_range(1..60));
            for region in 0..store.stats().unwrap().regions.len() as u32 {
                let id = (30_000..).find(|&id| store.region_of(id) == region).unwrap();
                store.put(id, b"a healer's").unwrap();
            }
            arm(0);
            0
        });
        stage.ended(healer);
        assert!(seen.is_none_or(|seen| stage.answers(&other) == seen), "changed by a healer that died");
        stage.check_final(&other, n);
        me.say(common::GOES_ON);
        n += rng.random_range(1..=stride);
    }
}

fn once(me: &mut Me, stage: &Stage) {
    let mut died = 0;
    for n in 1.. {
        stage.set();
        let other = Store::open(&stage.path).unwrap();
        if !stage.dies_at(n) {
            assert_eq!(content(&other), stage.after);
            break;
        }
        died += 1;
        stage.check(&other, n as u64);
        me.say(common::GOES_ON);
    }
    assert!(died > 0, "no step was passed");
}

/// Operations of which a death may make the next owner look at all slots of a region. After any other death, it looks at a few words.
fn may_be_rebuilt(name: &str) -> bool {
    let is_batch = name.contains("batch");
    let has_a_tombstone_of_its_own =
        ["delete_under_a_snapshot", "delete_beside_a_snapshot"].iter().any(|n| name.starts_with(n));
    is_batch || has_a_tombstone_of_its_own || name == "room_is_given_back"
}

/// After each death, the region is healed without a look at all of its slots.
fn at_once(me: &mut Me, stage: &Stage) {
    static REBUILDS: AtomicU64 = AtomicU64::new(0);
    let mut rebuilt = Vec::new();
    for n in 1.. {
        stage.set();
        let other = Store::open(&stage.path).unwrap();
        if !stage.dies_at(n) {
            break;
        }
        REBUILDS.store(0, Ordering::Relaxed);
        set_hook(Some(Box::new(|step| {
            if step == "rebuild: slots looked at" {
                REBUILDS.fetch_add(1, Ordering::Relaxed);
            }
        })));
        for region in 0..other.stats().unwrap().regions.len() as u32 {
            let id = (20_000..).find(|&id| other.region_of(id) == region).unwrap();
            other.put(id, b"somebody else's").unwrap();
        }
        set_hook(None);
        if REBUILDS.load(Ordering::Relaxed) != 0 {
            rebuilt.push(n);
        }
        assert!(other.verify().unwrap().is_clean());
        me.say(common::GOES_ON);
    }
    let name = stage.scenario.name;
    assert!(
        rebuilt.is_empty() || may_be_rebuilt(name),
        "rebuilt after deaths at the steps {rebuilt:?} of {name}"
    );
}

/// After each death, each bit of the intent and of its notes is flipped in turn. No record is then in part as before, in part as after, and a
/// repair leaves a store without damage.
fn flipped(me: &mut Me, stage: &Stage) {
    const LINE: std::ops::Range<usize> = 19 * 4096 + 192..19 * 4096 + 256; // Of region 0.
    let mut rng = common::seeded();
    if may_be_rebuilt(stage.scenario.name) || stage.before.len() > 100 {
        return;
    }
    for n in 1.. {
        stage.set();
        if !stage.dies_at(n) {
            break;
        }
        let left = std::fs::read(&stage.path).unwrap();
        let mut bit = 8 * LINE.start + rng.random_range(0..common::share(16)) as usize;
        while bit < 8 * LINE.end {
            let mut bytes = left.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&stage.path, &bytes).unwrap();
            let store = Store::open(&stage.path).unwrap();
            for id in 20_000..20_004 {
                store.put(id, b"somebody else's").unwrap();
            }
            let found =
                || content(&store).into_iter().filter(|(id, _)| !(20_000..KEYED).contains(id)).collect();
            let before_repair: Content = found();
            stage.check_content(&before_repair);
            store.repair().unwrap();
            assert_eq!(found(), before_repair, "bit {bit} after a death at step {n}: changed by a repair");
            let report = store.verify().unwrap();
            assert!(report.is_clean(), "bit {bit} after a death at step {n}: {report:?}");
            bit += rng.random_range(1..=common::share(32)) as usize;
        }
        me.say(common::GOES_ON);
    }
}

/// The owner of a batch dies at each step, beside a feed from now on that takes what it is told before somebody heals. In the end the feed
/// has told all members of a batch that counts.
fn told(me: &mut Me) {
    let dir = PathBuf::from(me.var("DIR"));
    let members = || 10..16;
    for n in 1.. {
        let path = dir.join(format!("store {n}"));
        let store = Options::new().record_size(64).regions(1).create(&path).unwrap();
        (1..4).for_each(|id| _ = store.put(id, b"before").unwrap());
        let mut feed = store.changes_from_now().unwrap();
        let child = in_fork(|| {
            let store = Store::open(&path).unwrap();
            let mut batch = store.batch();
            batch.delete(1);
            members().for_each(|id| batch.put(id, &b"of the batch"[..]).unwrap());
            arm(n);
            assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
            arm(0);
            0
        });
        let died = wait_for(child) == End::Killed;
        let mut told = BTreeSet::new();
        let mut take = |patience: Duration| {
            let change = feed.next_timeout(patience).unwrap();
            if let Some(Change::Written { id, .. }) = change {
                told.insert(id);
            }
            change.is_some()
        };
        (0..4).for_each(|_| while take(Duration::from_millis(1)) {});
        store.put(99, b"by the healer").unwrap();
        let is_there = store.get(10).unwrap().is_some();
        while take(Duration::from_millis(20)) {}
        let all: BTreeSet<u64> = members().filter(|_| is_there).chain([99]).collect();
        assert!(told.is_superset(&all), "died at step {n}: told are {told:?} and not {all:?}");
        me.say(common::GOES_ON);
        if !died {
            return;
        }
    }
}

fn twice(me: &mut Me, stage: &Stage) {
    let mut rng = common::seeded();
    let stride = common::share(if stage.before.len() > 100 { 4 } else { 2 }); // A look at a large store takes long.
    let mut n = 1;
    loop {
        let mut m = 1;
        loop {
            stage.set();
            if !stage.dies_at(n) {
                return;
            }
            let again = stage.healer_dies_at(m);
            if again && rng.random() {
                stage.healer_dies_at(rng.random_range(1..=m));
            }
            stage.check(&Store::open(&stage.path).unwrap(), rng.random());
            me.say(common::GOES_ON);
            if !again {
                break;
            }
            m += rng.random_range(1..=common::share(m / 4 + 1)); // A rebuild passes a step per free slot.
        }
        n += rng.random_range(1..=stride);
    }
}

/// Plays some of the scenarios; says which one failed.
fn play(me: &mut Me, how: fn(&mut Me, &Stage)) {
    let (share, of): (usize, usize) = (me.var("SHARE").parse().unwrap(), me.var("OF").parse().unwrap());
    let dir = PathBuf::from(me.var("DIR"));
    for scenario in SCENARIOS.iter().skip(share).step_by(of) {
        let begun = std::time::Instant::now();
        me.say(&format!("{} ...", scenario.name));
        how(me, &Stage::new(scenario, &dir));
        me.say(&format!("{} in {:?}", scenario.name, begun.elapsed()));
        std::fs::remove_file(dir.join("origin")).unwrap();
    }
}

fn create(me: &mut Me) {
    let dir = PathBuf::from(me.var("DIR"));
    let path = dir.join("store");
    for n in 1.. {
        let child = in_fork(|| {
            arm(n);
            let store = tiny().create(&path).unwrap();
            put(&store, 1, 1);
            0
        });
        let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        let ended = wait_for(child);
        match Store::open(&path) {
            Ok(store) => assert!(store.len().unwrap() <= 1 && store.verify().unwrap().is_clean()),
            Err(Error::NotFound { .. }) => assert!(names.is_empty(), "left behind: {names:?}"),
            Err(e) => panic!("{e}"),
        }
        let _ = std::fs::remove_file(&path);
        if ended != End::Killed {
            assert_eq!(ended, End::Exited(0));
            return;
        }
    }
}

/// An operation that passes no step can't be tested by these tests.
fn steps(me: &mut Me) {
    let path = me.var("DIR") + "/store";
    let store = tiny().create(&path).unwrap();
    arm(0);
    put(&store, 1, 1);
    assert!(steps_seen() > 3, "{} steps in a put", steps_seen());
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "once" => play(&mut me, once),
        "twice" => play(&mut me, twice),
        "finally" => play(&mut me, finally),
        "at once" => play(&mut me, at_once),
        "flipped" => play(&mut me, flipped),
        "finally twice" => play(&mut me, finally_twice),
        "create" => create(&mut me),
        "told" => told(&mut me),
        "steps" => steps(&mut me),
        other => panic!("no role {other}"),
    }
}

fn run(role: &str, share: usize, of: usize) {
    let dir = common::scratch();
    let seed = common::seed().to_string();
    let with = [
        ("DIR", dir.path().to_str().unwrap()),
        ("SHARE", &share.to_string()),
        ("OF", &of.to_string()),
        ("RECSTORE_SEED", &seed),
    ];
    common::alone(role, &with);
}

#[test]
fn a_process_that_dies_at_any_step_leaves_the_model_before_or_after() {
    run("once", 0, 1);
}

#[test]
fn what_is_read_after_a_death_at_any_step_does_not_change_when_somebody_heals() {
    run("finally", 0, 1);
}

#[test]
fn after_a_death_the_next_owner_looks_at_a_few_words() {
    run("at once", 0, 1);
}

#[test]
fn after_a_death_no_flipped_bit_of_the_notes_loses_or_mixes_a_record() {
    run("flipped", 0, 1);
}

#[test]
fn what_is_read_after_a_death_does_not_change_when_the_healer_dies_too() {
    run("finally twice", 0, 1);
}

#[test]
fn a_process_that_dies_in_the_repair_of_another_leaves_the_same() {
    run("twice", 0, 2);
}

#[test]
fn a_process_that_dies_in_the_repair_of_another_leaves_the_same_second_half() {
    run("twice", 1, 2);
}

#[test]
fn a_process_that_dies_while_it_creates_a_store_leaves_a_whole_one_or_none() {
    run("create", 0, 1);
}

#[test]
fn a_feed_tells_all_of_a_batch_whose_owner_died_at_any_step() {
    run("told", 0, 1);
}

#[test]
fn a_write_passes_steps_to_die_at() {
    run("steps", 0, 1);
}
