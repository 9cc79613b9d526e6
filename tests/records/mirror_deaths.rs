//! A mirror into a directory that dies, and one whose store or place gives less than it should.
//!
//! Needs the feature `testing`. Fails when: after a death at any step, or an error, the mirror says that the place is equal and it is not, or
//! never says so; two mirrors of one place run at once; two places can't be mirrored to at once.

#![cfg(feature = "testing")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use recstore::mirror::{
    Answer, Directory, DirectoryError, KeyState, Mirror, MirrorError, RecordKey, Sink, Wanted, compare,
};
use recstore::testing::arm;
use recstore::{Error, Options, Store};

use crate::common::{self, End, Me, in_fork, wait_for};

type DirectoryMirror<'a> = Mirror<'a, Directory>;

fn start<'a>(store: &'a Store, place: &Path, space: Option<&str>) -> DirectoryMirror<'a> {
    Mirror::start(store, space, Directory::open(place, store, space).unwrap()).unwrap()
}

/// Goes on until the mirror says that the place is equal. Returns the errors on the way.
fn until_equal<S: Sink>(mirror: &mut Mirror<'_, S>) -> Vec<MirrorError<S::Error>> {
    let (started, mut errors) = (Instant::now(), Vec::new());
    loop {
        match mirror.step(Duration::ZERO) {
            Ok(wave) if wave.is_equal => return errors,
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
        assert!(started.elapsed() < common::PATIENCE, "{:?}, {} errors", mirror.stats(), errors.len());
    }
}

fn small() -> Options {
    Options::new().record_size(64).regions(2).slots_per_extent(16)
}

#[test]
fn child_entry() {
    if Me::from_env().is_some() {
        die_at_every_step();
    }
}

#[test]
fn a_directory_equals_the_store_after_a_mirror_that_died_at_any_step() {
    common::alone("dies", &[]);
}

fn die_at_every_step() {
    let mut deaths = 0;
    for step in 1.. {
        let dir = common::scratch();
        let (path, place) = (dir.path().join("s"), dir.path().join("copy"));
        let store = small().create(&path).unwrap();
        store.write_many((0..4).map(|id| (id, "first"))).unwrap();
        assert!(until_equal(&mut start(&store, &place, None)).is_empty());
        store.put(1, "second").unwrap();
        store.delete(2).unwrap();
        store.put(9, "second").unwrap();
        let ends = wait_for(in_fork(|| {
            let store = small().open(&path).unwrap();
            arm(step);
            until_equal(&mut start(&store, &place, None));
            arm(0);
            0
        }));
        // Meanwhile the store goes on.
        store.put(1, "third").unwrap();
        store.put(2, "back").unwrap();
        store.delete(9).unwrap();
        let mut mirror = start(&store, &place, None);
        assert!(until_equal(&mut mirror).is_empty());
        let found = compare(&store, None, mirror.sink(), Duration::ZERO).unwrap();
        assert!(found.is_equal(), "step {step}: {found:?}");
        let files = fs::read_dir(&place).unwrap().count();
        assert!(
            (5..=6).contains(&files),
            "step {step}: {files} files of 4 records, their owner and what is left"
        );
        if ends != End::Killed {
            assert_eq!(ends, End::Exited(0));
            break;
        }
        deaths += 1;
    }
    println!("{deaths} deaths");
    assert!(deaths > 10);
}

/// A place that leaves out the last answer or state of the first calls.
struct Short {
    place: Directory,
    answers: u32,
    states: u32,
}

impl Sink for Short {
    type Error = DirectoryError;

    fn label(&self) -> String {
        self.place.label()
    }

    fn list(
        &mut self,
        with_data: bool,
        each: &mut dyn FnMut(RecordKey, KeyState, &[u8]),
    ) -> Result<(), DirectoryError> {
        self.place.list(with_data, each)
    }

    fn apply(&mut self, writes: &[Wanted]) -> Result<Vec<Answer>, DirectoryError> {
        let short = usize::from(self.answers > 0);
        self.answers = self.answers.saturating_sub(1);
        self.place.apply(&writes[..writes.len() - short])
    }

    fn read(&mut self, keys: &[RecordKey]) -> Result<Vec<KeyState>, DirectoryError> {
        let mut states = self.place.read(keys)?;
        if self.states > 0 {
            self.states -= 1;
            states.pop();
        }
        Ok(states)
    }
}

#[test]
fn what_a_place_gives_no_answer_for_is_sent_again() {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    store.write_many((0..9).map(|id| (id, "data"))).unwrap();
    let place = Directory::open(dir.path().join("copy"), &store, None).unwrap();
    let mut mirror = Mirror::start(&store, None, Short { place, answers: 3, states: 3 }).unwrap();
    until_equal(&mut mirror);
    mirror.sink().states = 0;
    let found = compare(&store, None, mirror.sink(), Duration::ZERO).unwrap();
    assert!(found.is_equal(), "{found:?}");
    assert_eq!(mirror.sink().answers, 0);
}

/// Flips a bit of a value in the file.
fn damage(path: &Path, value: &[u8]) {
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(value.len()).position(|is| is == value).expect("the value");
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
}

#[test]
fn a_damaged_record_keeps_no_other_from_being_mirrored() {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    let (space, place) = (store.space("s").unwrap(), dir.path().join("copy"));
    let keys = ["a", "b", "c", "d", "e"];
    space.write_many(keys.map(|key| (key, format!("the value of {key}")))).unwrap();
    assert!(until_equal(&mut start(&store, &place, Some("s"))).is_empty());
    // While no mirror runs.
    space.delete("b").unwrap();
    damage(store.path(), b"the value of d");
    assert!(matches!(space.get("d"), Err(Error::Corrupt { .. })));
    let mut mirror = start(&store, &place, Some("s"));
    for error in until_equal(&mut mirror) {
        assert!(matches!(error, MirrorError::Store(Error::Corrupt { .. })), "{error}");
    }
    let there = |mirror: &mut DirectoryMirror<'_>| {
        let mut there = Vec::new();
        mirror.sink().list(false, &mut |key, _, _| there.push(key.to_name())).unwrap();
        there.sort();
        there
    };
    assert_eq!(there(&mut mirror), ["a", "c", "d", "e"]);
    space.put("d", "anew").unwrap();
    let started = Instant::now();
    while !mirror.step(Duration::from_millis(1)).unwrap().is_equal || mirror.stats().refused != 0 {
        assert!(started.elapsed() < common::PATIENCE, "{:?}", mirror.stats());
    }
    let found = compare(&store, Some("s"), mirror.sink(), Duration::ZERO).unwrap();
    assert!(found.is_equal(), "{found:?}");
}

#[test]
fn one_mirror_of_a_place_runs_by_whatever_name_the_store_was_opened() {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    symlink(store.path(), dir.path().join("link")).unwrap();
    let linked = small().open(dir.path().join("link")).unwrap();
    let place = dir.path().join("copy");
    let _first = start(&store, &place, None);
    let second = Mirror::start(&linked, None, Directory::open(&place, &linked, None).unwrap());
    assert!(matches!(second, Err(MirrorError::Running { .. })));
    // Places with names that are long, or have letters that the name of a file may not have.
    let deep = dir.path().join("d".repeat(120));
    let places = ["a b", "a_b", "a+b"].map(|name| deep.join(name));
    let _all = places.map(|place| start(&store, &place, None));
    let twins = ["x", "y"].map(|name| dir.path().join(name).join("d".repeat(120)));
    let _both = twins.map(|place| start(&store, &place, None));
}
