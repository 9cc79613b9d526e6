//! A batch counts as a whole or not at all, for every reader, from the store of one word on; and what was
//! decided stays decided, whoever heals which region when.
//!
//! Three parties each: a batcher that dies or is stopped at a step, a healer that is stopped while it heals,
//! and a bystander that reads, makes the next batch, repairs or flushes.
//!
//! Needs the feature `testing`. Fails when: a reader of any kind sees one member of a batch as before and
//! another one as after; a member changes after it was read and its batcher was dead; a batch that was never
//! decided comes back after a crash of the operating system.

#![cfg(feature = "testing")]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::{self, Me, Worker};
use nix::sys::signal::{Signal, raise};
use recstore::testing::{set_boot_id, set_hook};
use recstore::{Commit, Error, Lock, Options, Store};

const TIMEOUT: Duration = Duration::from_millis(50);
/// Members of a batch that the head of a region lists, and one more.
const MANY: usize = 40;
/// Where the head of the second region is in the file, and in a head the number of the batch that has members in the region.
const HEAD_OF_SECOND: u64 = 19 * 4096 + 256;
const PENDING: u64 = 144;

/// Makes a batch of the ids in `IDS`, and is killed, or stops itself, at the step `AT`.
fn batcher(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    let ids = me.var("IDS");
    let (at, signal) = (me.var("AT"), me.var("SIGNAL"));
    let signal = if signal == "stop" { Signal::SIGSTOP } else { Signal::SIGKILL };
    set_hook(Some(Box::new(move |step| {
        if step == at {
            raise(signal).unwrap();
        }
    })));
    let mut batch = store.batch();
    for id in ids.split(' ').map(|id| id.parse().unwrap()) {
        batch.put(id, &b"new"[..]).unwrap();
    }
    assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
    set_hook(None);
    me.say("done");
}

/// Puts one record, and stops itself at the step `AT`, once.
fn writer(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    let at = me.var("AT");
    let mut left = 1;
    set_hook(Some(Box::new(move |step| {
        if step == at && left == 1 {
            left = 0;
            raise(Signal::SIGSTOP).unwrap();
        }
    })));
    store.put(me.var("ID").parse().unwrap(), b"other").unwrap();
    me.say("done");
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "batcher" => batcher(&mut me),
        "writer" => writer(&mut me),
        other => panic!("no role {other}"),
    }
}

/// Three regions: the batch has members in the first two.
struct Scene {
    _dir: tempfile::TempDir,
    path: PathBuf,
    store: Store,
    members: Vec<u64>,
    /// In the second region, no member.
    beside: u64,
    /// In the third region.
    elsewhere: u64,
}

impl Scene {
    /// `each`: members in each of two regions, of which the first are there before.
    fn new(each: usize) -> Self {
        let dir = common::scratch();
        let path = dir.path().join("s");
        let options = Options::new().record_size(64).regions(3).slots_per_extent(16);
        let store = options.lock_timeout(Some(TIMEOUT)).create(&path).unwrap();
        let of = |region| (0..10_000).filter(|&id| store.region_of(id) == region).collect::<Vec<u64>>();
        let members: Vec<u64> = of(0)[..each].iter().chain(&of(1)[..each]).copied().collect();
        members.iter().for_each(|&id| _ = store.put(id, b"old").unwrap());
        let (beside, elsewhere) = (of(1)[each], of(2)[0]);
        Self { _dir: dir, path, store, members, beside, elsewhere }
    }

    fn batcher(&self, at: &str, signal: &str) -> Worker {
        let ids: Vec<String> = self.members.iter().map(u64::to_string).collect();
        let with =
            [("STORE", self.path.to_str().unwrap()), ("IDS", &ids.join(" ")), ("AT", at), ("SIGNAL", signal)];
        let mut batcher = Worker::spawn("batcher", &with);
        if signal == "stop" {
            batcher.wait_until_stopped();
        } else {
            assert!(!batcher.wait().success(), "it was to die at {at:?}");
        }
        batcher
    }

    /// Somebody who heals the second region, and is stopped in it.
    fn healer(&self, at: &str) -> Worker {
        let id = self.beside.to_string();
        let with = [("STORE", self.path.to_str().unwrap()), ("AT", at), ("ID", &id)];
        let healer = Worker::spawn("writer", &with);
        healer.wait_until_stopped();
        healer
    }

    fn next_batch(&self) -> Result<Commit, Error> {
        let mut batch = self.store.batch();
        batch.put(self.elsewhere, &b"unrelated"[..]).unwrap();
        batch.commit()
    }

    /// What all members are, as every kind of reader sees them that heals nothing.
    fn seen_by_all(&self) -> String {
        let mut seen = BTreeSet::new();
        let mut see = |who: &str, id: u64, data: Option<&[u8]>| {
            let data = data.map_or("nothing".into(), String::from_utf8_lossy);
            seen.insert(data.to_string());
            assert_eq!(seen.len(), 1, "{who} sees {data} of id {id}, and something else was seen before");
        };
        let read_only = Store::open_read_only(&self.path).unwrap();
        let fresh = Options::new().lock_timeout(Some(TIMEOUT)).open(&self.path).unwrap();
        for (name, store) in [("a reader", &read_only), ("a new handle", &fresh), ("the handle", &self.store)]
        {
            for &id in &self.members {
                see(name, id, store.get(id).unwrap().as_ref().map(|r| r.data()));
            }
            store.get_many(&self.members, |id, found| see(name, id, found.map(|f| f.1))).unwrap();
        }
        for record in read_only.iter().map(Result::unwrap).filter(|r| self.members.contains(&r.id())) {
            see("an iteration", record.id(), Some(record.data()));
        }
        assert_eq!(read_only.len().unwrap(), read_only.iter().count() as u64);
        let pin = self.store.pin().unwrap();
        self.members.iter().for_each(|&id| see("a pin", id, pin.get(id).unwrap()));
        for (&id, data) in self.members.iter().zip(pin.get_many(&self.members).unwrap()) {
            see("a pin of many", id, data);
        }
        seen.pop_first().unwrap()
    }

    /// Everybody goes on: the members are what they were.
    fn ends_as(&self, what: &str) {
        for id in [self.beside, self.elsewhere, self.members[0]] {
            let data = if id == self.members[0] { what } else { "after all" };
            self.store.put(id, data.as_bytes()).unwrap();
        }
        assert!(matches!(self.next_batch().unwrap(), Commit::Done(_)));
        assert_eq!(self.seen_by_all(), what);
        let report = self.store.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
        let stats = self.store.stats().unwrap();
        assert_eq!(stats.slots, stats.records + stats.free_slots + stats.retired_slots, "{stats:?}");
    }
}

fn goes_on(mut worker: Worker) {
    worker.signal(Signal::SIGCONT);
    worker.expect("done");
    worker.finish();
}

/// The next batch would raise the number that decides beyond that of the dead one.
#[test]
fn a_batch_that_never_counted_stays_so_while_a_living_healer_of_a_region_is_slow() {
    for at in ["lock: taken over", "rebuild: slots looked at", "rebuild: marked", "rebuild: index filled"] {
        let scene = Scene::new(2);
        scene.batcher("batch: members written", "kill");
        let healer = scene.healer(at);
        match scene.next_batch() {
            Err(Error::Busy { lock: Lock::Region(1), owner: Some(holder), .. }) => {
                assert_eq!(holder.pid, healer.pid())
            }
            other => panic!("the healer has not decided yet, and the next batch made {other:?}"),
        }
        assert_eq!(scene.store.get(scene.elsewhere).unwrap(), None, "nothing is changed by what is busy");
        goes_on(healer);
        assert_eq!(scene.seen_by_all(), "old");
        scene.ends_as("old");
    }
}

/// The word in the head that says which batch has members in the region is damaged: the mark of the region and the number of the
/// last batch stand in for it.
#[test]
fn a_flipped_bit_of_the_number_in_a_head_decides_nothing() {
    for (at, what) in [("batch: members written", "old"), ("batch: committed", "new")] {
        for bit in [0, 1, 17, 47, 48, 63] {
            for is_next_batch_first in [false, true] {
                let scene = Scene::new(2);
                scene.batcher(at, "kill");
                let file = File::options().read(true).write(true).open(&scene.path).unwrap();
                let pending = HEAD_OF_SECOND + PENDING;
                let mut word = [0; 8];
                file.read_exact_at(&mut word, pending).unwrap();
                file.write_all_at(&(u64::from_le_bytes(word) ^ 1 << bit).to_le_bytes(), pending).unwrap();
                if is_next_batch_first {
                    assert!(matches!(scene.next_batch().unwrap(), Commit::Done(_)));
                }
                assert_eq!(scene.seen_by_all(), what, "{at}, bit {bit}");
                scene.ends_as(what);
            }
        }
    }
}

#[test]
fn a_repair_does_not_decide_for_a_batch_while_a_living_healer_is_slow() {
    let scene = Scene::new(2);
    scene.batcher("batch: members written", "kill");
    let healer = scene.healer("lock: taken over");
    match scene.store.repair() {
        Err(Error::Busy { lock: Lock::Region(1), owner: Some(holder), .. }) => {
            assert_eq!(holder.pid, healer.pid())
        }
        other => panic!("{other:?}"),
    }
    goes_on(healer);
    scene.store.repair().unwrap();
    scene.ends_as("old");
}

#[test]
fn a_batch_that_was_decided_is_seen_as_a_whole_while_a_living_healer_is_slow() {
    for at in ["batch: committed", "batch: region done"] {
        let scene = Scene::new(2);
        scene.batcher(at, "kill");
        let healer = scene.healer("lock: taken over");
        assert_eq!(scene.seen_by_all(), "new", "{at}");
        assert!(
            matches!(scene.next_batch().unwrap(), Commit::Done(_)),
            "it does not wait for what is decided"
        );
        goes_on(healer);
        scene.ends_as("new");
    }
}

/// "index: entry stored, checksum not" is inside of the first member.
#[test]
fn whoever_reads_beside_a_dead_batcher_sees_what_the_one_word_decided() {
    for each in [2, MANY] {
        for (at, what) in [
            ("batch: begun", "old"),
            ("batch: region marked", "old"),
            ("publish: seq stored", "old"),
            ("batch: members written", "old"),
            ("batch: committed", "new"),
            ("index: entry stored, checksum not", "new"),
            ("put: version visible", "new"),
            ("free: slot on the free list", "new"),
            ("batch: region done", "new"),
        ] {
            let scene = Scene::new(each);
            scene.batcher(at, "kill");
            assert_eq!(scene.seen_by_all(), what, "{at}, {each} members a region");
            scene.ends_as(what);
        }
    }
}

#[test]
fn no_reader_waits_for_a_stopped_batcher_nor_sees_its_batch_in_part() {
    for (at, what) in [
        ("batch: region marked", "old"),
        ("batch: members written", "old"),
        ("batch: committed", "new"),
        ("put: version visible", "new"),
        ("batch: region done", "new"),
    ] {
        let scene = Scene::new(2);
        let mut batcher = scene.batcher(at, "stop");
        assert_eq!(scene.seen_by_all(), what, "{at}");
        batcher.kill();
        assert_eq!(scene.seen_by_all(), what, "{at}, then killed");
        scene.ends_as(what);
    }
}

/// A healer that can't get the lock of growth leaves the region free, with the batch pending; a flush that
/// then took all that is written for whole would bring half of it back after a loss of power.
#[test]
fn a_batch_that_never_counted_does_not_come_back_by_a_flush_after_its_healer_failed() {
    let scene = Scene::new(2);
    let store = &scene.store;
    store.sync().unwrap();
    for &id in &scene.members {
        store.put(id, b"old").unwrap(); // The version before is kept for the disk, in a queue.
    }
    scene.batcher("batch: members written", "kill");
    let filling = {
        // Somebody is stopped while it holds the lock of growth.
        let region_2 = (0..).filter(|&id| store.region_of(id) == 2);
        let id = region_2.skip(1).find(|&id| {
            let full = store.stats().unwrap().regions[2].free_slots == 0;
            if !full {
                store.put(id, b"filler").unwrap();
            }
            full
        });
        let with = [
            ("STORE", scene.path.to_str().unwrap()),
            ("AT", "grow: blocks allocated"),
            ("ID", &id.unwrap().to_string()),
        ];
        let worker = Worker::spawn("writer", &with);
        worker.wait_until_stopped();
        worker
    };
    let healed = [0, 2].map(|n| store.put(scene.members[n], b"old"));
    goes_on(filling);
    let flushed = store.sync();
    let path = scene.path.with_file_name("after");
    std::fs::copy(&scene.path, &path).unwrap();
    set_boot_id(&path).unwrap();
    let after = Store::open(&path).unwrap();
    for &id in &scene.members {
        let record = after.get(id).unwrap().expect("it was synced once");
        assert_eq!(record.data(), b"old", "id {id}; the healer: {healed:?}; the flush: {flushed:?}");
    }
    drop(after);
    store.sync().unwrap();
    scene.ends_as("old");
}
