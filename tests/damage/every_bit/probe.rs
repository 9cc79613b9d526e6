//! One bit: flipped, looked at by a handle that only reads, used by one that writes, and put back.
//!
//! What must hold of each, whatever the bit (or this panics):
//!
//! 1. A record that is given is the newest one of its id, byte for byte, version included. No record that was
//!    deleted or never was comes up.
//! 2. A record is missing only with an error. `iter` may leave it out only if it gave an error, `len` counts
//!    it.
//! 3. No other record has an error but the one whose bytes were hit.
//! 4. Errors name the damage: they are of the kinds that do.
//! 5. What a handle that writes does after that is done: puts and deletes are seen.
//! 6. `repair` gives up nothing but the record that was hit, says so, and leaves a store without damage.
//! 7. A flip that `verify` says nothing of changes nothing: all of the above, without any error.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use recstore::{Commit, Error, RepairReport, Store};

use super::fixture::{Fixture, LAYOUT, data, options};
use super::parts::Part;
use crate::layout::CONTROL;

/// What came of a flip.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    /// The store was not opened for reading, with an error that says why.
    Refused,
    /// `verify` names it.
    Named,
    /// `verify` says nothing, and all is as if it had not been.
    Harmless,
}

/// What comes after the flip and some writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// Somebody repairs the store.
    Repair,
    /// A process dies with the locks of all regions, in the middle of a batch.
    Death,
    /// The operating system goes down; all that was written is on disk.
    Crash,
}

/// A file of one's own, to flip bits in.
pub(crate) struct Bench<'a> {
    fixture: &'a Fixture,
    path: PathBuf,
    file: File,
    /// The fixture's bytes, as if they had always been in this file.
    good: Vec<u8>,
    /// Live: to be written anew, to be deleted; and the same in region 1.
    used: [u64; 4],
}

impl<'a> Bench<'a> {
    pub(crate) fn new(fixture: &'a Fixture, path: PathBuf) -> Self {
        std::fs::write(&path, &fixture.file).expect("a copy");
        let file = File::options().read(true).write(true).open(&path).expect("the copy");
        recstore::testing::set_continuity(&path).expect("the copy's control page");
        let good = std::fs::read(&path).expect("the copy");
        let store = options().open_read_only(&path).expect("a good store");
        let mut live = [Vec::new(), Vec::new()];
        for (&id, is) in &fixture.model {
            if is.is_some() {
                live[store.region_of(id) as usize].push(id);
            }
        }
        let used = [live[0][1], fixture.first_bit, live[1][2], live[1][7]];
        Self { fixture, path, file, good, used }
    }

    /// Flips a bit, and looks; panics if something does not hold.
    pub(crate) fn flip(&self, bit: usize, part: Part) -> Outcome {
        let byte = self.good[bit / 8] ^ (1 << (bit % 8));
        self.file.write_all_at(&[byte], (bit / 8) as u64).expect("a flipped bit");
        let outcome = self.read(part);
        for ending in [Ending::Repair, Ending::Death, Ending::Crash] {
            if ending == Ending::Repair || !part.is_padding {
                self.write(outcome, part, ending);
                self.restore();
                self.file.write_all_at(&[byte], (bit / 8) as u64).expect("a flipped bit");
            }
        }
        self.restore();
        outcome
    }

    fn restore(&self) {
        self.file.write_all_at(&self.good, 0).expect("the good file");
        self.file.set_len(self.good.len() as u64).expect("its length");
    }

    /// What a handle that only reads finds. It changes nothing.
    fn read(&self, part: Part) -> Outcome {
        let store = match options().open_read_only(&self.path) {
            Ok(store) => store,
            Err(error) => {
                assert!(names_damage(&error), "opening for reading: {error:?}");
                return Outcome::Refused;
            }
        };
        let is_clean = match store.verify() {
            Ok(report) => report.is_clean(),
            Err(error) => {
                assert!(names_damage(&error), "verify: {error:?}");
                false
            }
        };
        let errors = self.look(&store, part, &BTreeSet::new());
        assert!(!(errors && is_clean), "an error that `verify` says nothing of");
        if is_clean { Outcome::Harmless } else { Outcome::Named }
    }

    /// What a handle that writes finds, and what can be done with it.
    fn write(&self, outcome: Outcome, part: Part, ending: Ending) {
        let store = match options().open(&self.path) {
            Ok(store) => store,
            Err(error) => {
                assert!(names_damage(&error) && outcome == Outcome::Refused, "opening: {error:?}");
                return;
            }
        };
        let given_up = self.given_up(store.opened(), part);
        let errors = self.look(&store, part, &given_up);
        assert!(!(errors && outcome == Outcome::Harmless), "an error that `verify` said nothing of");

        let mut now = self.fixture.model.clone();
        for id in [self.used[0], self.used[2], self.fixture.unused[0], self.fixture.unused[1]] {
            let bytes = data(id, 9);
            match store.put(id, &bytes) {
                Ok(version) => _ = now.insert(id, Some((version.get(), bytes))),
                Err(error) => {
                    assert!(names_damage(&error) && outcome == Outcome::Named, "put {id}: {error:?}")
                }
            }
        }
        for id in [self.used[1], self.used[3]] {
            match store.delete(id) {
                Ok(true) => _ = now.insert(id, None),
                Ok(false) => assert!(given_up.contains(&id), "delete {id}: there was none"),
                Err(error) => {
                    assert!(names_damage(&error) && outcome == Outcome::Named, "delete {id}: {error:?}")
                }
            }
        }
        if ending != Ending::Crash {
            // A crash would take it back: nothing has made it durable.
            let mut batch = store.batch();
            let ids = [self.used[0], self.used[3], self.fixture.unused[1]];
            ids.iter().for_each(|&id| batch.put(id, data(id, 10)).expect("a short record"));
            match batch.commit() {
                Ok(Commit::Done(versions)) => {
                    now.extend(versions.into_iter().map(|(id, v)| (id, Some((v.get(), data(id, 10))))));
                }
                other => assert!(
                    matches!(&other, Err(error) if names_damage(error)) && outcome == Outcome::Named,
                    "batch: {other:?}"
                ),
            }
        }
        let (store, given_up) = self.end(store, ending, &given_up, part);
        let damage = store.verify().expect("a check").damage;
        let may_be = ending != Ending::Repair && outcome != Outcome::Harmless;
        assert!(damage.is_empty() || may_be, "after {ending:?}: {damage:?}");
        let (mut live, mut errors) = (0, 0);
        for (&id, is) in &now {
            let found = match store.get(id) {
                Ok(found) => found,
                Err(error) => {
                    // With what is damaged left in its place, its id may be the damaged part.
                    let is_slot = part.id.is_some() || part.name == "reserved slot: header";
                    let may_be = ending == Ending::Death && is_slot;
                    assert!(names_damage(&error) && may_be, "after {ending:?}, id {id}: {error}");
                    errors += 1;
                    continue;
                }
            };
            let found = found.map(|r| (r.version().get(), r.into_data()));
            live += u64::from(found.is_some());
            // What a repair has an older version stand in as is written anew: no version goes back.
            let is_its = |w, v: &u64| match ending {
                Ending::Repair => is.as_ref().is_none_or(|(last, _)| v > last) && v > w,
                _ => v == w,
            };
            let older = found.as_ref().is_none_or(|(v, data)| {
                self.fixture.written.iter().any(|(i, w, bytes)| *i == id && is_its(w, v) && bytes == data)
            });
            let may_be = found == *is || older && given_up.contains(&id);
            assert!(may_be, "after {ending:?}, id {id}: {found:?} is not {is:?}, given up: {given_up:?}");
        }
        if errors == 0 {
            assert_eq!(store.len().expect("a length"), live, "after {ending:?}");
            assert_eq!(store.iter().filter(Result::is_ok).count() as u64, live, "after {ending:?}");
        }
    }

    /// What comes after the work; the store then, and what was given up until then.
    fn end(
        &self,
        store: Store,
        ending: Ending,
        given_up: &BTreeSet<u64>,
        part: Part,
    ) -> (Store, BTreeSet<u64>) {
        match ending {
            Ending::Repair => {
                let report = store.repair().unwrap_or_else(|e| panic!("repair: {e}"));
                return (store, given_up | &self.given_up(&report, part));
            }
            Ending::Death => {
                drop(store);
                for region in 0..LAYOUT.regions {
                    let lock = LAYOUT.head(region) as u64;
                    self.file.write_all_at(&2_u64.to_le_bytes(), lock).expect("a dead owner's lock");
                    // Of its work nothing is noted, as of a batch: the region is rebuilt.
                    let unnoted = (1 | !1_u64 << 48).to_le_bytes();
                    self.file.write_all_at(&unnoted, lock + 192).expect("its intent");
                }
            }
            Ending::Crash => {
                drop(store);
                let words = [0_u64.to_le_bytes(); 3].concat();
                self.file.write_all_at(&words, CONTROL as u64 + 64).expect("another boot, and no clean mark");
            }
        }
        let store = options().open(&self.path).unwrap_or_else(|e| panic!("after {ending:?}: {e}"));
        let given_up = given_up | &self.given_up(store.opened(), part);
        (store, given_up)
    }

    /// What a report says was given up: the record that was hit, or something that was none.
    fn given_up(&self, report: &RepairReport, part: Part) -> BTreeSet<u64> {
        // The damaged version; and the older one of the same id that comes up in its place, if there is one.
        assert!(report.dropped.len() <= 2, "{report:?}");
        for (i, damage) in report.dropped.iter().enumerate() {
            let is_its = i == 0 || damage.id == part.id;
            // Room that was reserved may be given up too: it is nobody's.
            let is_slot = part.id.is_some() || part.name == "reserved slot: header";
            assert!(is_slot && damage.slot.is_some() && is_its, "{report:?}");
        }
        part.id.filter(|_| !report.dropped.is_empty()).into_iter().collect()
    }

    /// Reads everything, in every way; whether there was an error.
    fn look(&self, store: &Store, part: Part, given_up: &BTreeSet<u64>) -> bool {
        let mut errors = false;
        let mut missing = BTreeSet::new();
        for (&id, is) in &self.fixture.model {
            let found = match store.get(id) {
                Ok(found) => found.map(|r| (r.version().get(), r.into_data())),
                Err(error) => {
                    assert!(names_damage(&error), "id {id}: {error:?}");
                    assert!(is.is_none() || part.id == Some(id), "id {id}, a neighbour: {error}");
                    errors = true;
                    missing.extend(is.is_some().then_some(id));
                    continue;
                }
            };
            if found.is_none() && given_up.contains(&id) {
                missing.insert(id);
                continue;
            }
            assert!(found == *is, "id {id}: {found:?} is not {is:?}");
        }
        let mut seen = BTreeSet::new();
        let mut iter_errors = 0;
        for record in store.iter() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    assert!(names_damage(&error), "iter: {error:?}");
                    iter_errors += 1;
                    continue;
                }
            };
            let id = record.id();
            let is = self.fixture.model.get(&id).and_then(|is| is.as_ref());
            assert!(
                is.is_some_and(|(v, data)| *v == record.version().get() && data == record.data()),
                "iter: id {id}: {record:?} is not {is:?}"
            );
            assert!(seen.insert(id), "iter: id {id} comes twice");
        }
        for (&id, _) in self.fixture.model.iter().filter(|(_, is)| is.is_some()) {
            let may_be = part.id == Some(id) && (iter_errors > 0 || given_up.contains(&id));
            assert!(seen.contains(&id) || may_be, "iter leaves id {id} out ({iter_errors} errors)");
        }
        let live = self.fixture.model.values().filter(|is| is.is_some()).count() as u64;
        match store.len() {
            Ok(len) => assert_eq!(len, live - given_up.len() as u64, "len"),
            Err(error) => {
                assert!(names_damage(&error), "len: {error:?}");
                errors = true;
            }
        }
        errors || iter_errors > 0
    }
}

/// Whether an error is of a kind that says what is damaged.
fn names_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Corrupt { .. }
            | Error::Damaged { .. }
            | Error::NeedsRepair { .. }
            | Error::Truncated { .. }
            | Error::NotAStore { .. }
    )
}
