//! A repair that is killed at any of its steps: no version goes back, whoever ends it.
//!
//! Needs the feature `testing`. Fails when: after such a death, before or after the next repair, a record has an older version
//! than one that was read before, or other data than one of its versions; a record that is whole is touched.

#![cfg(feature = "testing")]

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::common::{self, Me, Worker};
use recstore::testing::arm;
use recstore::{Error, Options, Store, Version};

const KEPT: &[u8] = b"the first, which is kept";
const DAMAGED: &[u8] = b"the second, which gets damaged";

fn options() -> Options {
    Options::new().record_size(64).regions(1).slots_per_extent(4)
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    let store = options().open(me.var("STORE")).unwrap();
    arm(me.var("AT").parse().unwrap());
    store.repair().unwrap();
    arm(0);
    me.say("done");
}

/// A store with two damaged records, each with an older version that is kept; `full`: of no free slot. The last versions.
fn damaged(path: &std::path::Path, full: bool) -> [Version; 3] {
    let store = options().create(path).unwrap();
    (0..3).for_each(|id| _ = store.put(id, KEPT).unwrap());
    store.sync().unwrap();
    let versions = [0, 1, 2].map(|id| store.put(id, DAMAGED).unwrap());
    for id in 10.. {
        if !full || store.stats().unwrap().free_slots == 0 {
            break;
        }
        store.put(id, b"others").unwrap();
    }
    drop(store);
    let bytes = std::fs::read(path).unwrap();
    let found = bytes.windows(DAMAGED.len()).enumerate().filter(|(_, bytes)| *bytes == DAMAGED);
    let file = File::options().write(true).open(path).unwrap();
    for (at, _) in found.take(2) {
        file.write_all_at(b"T", at as u64).unwrap();
    }
    versions
}

/// How many records are whole; none has gone back.
fn look(store: &Store, before: [Version; 3], name: &str) -> usize {
    let look = |id: u64| match store.get(id) {
        Ok(Some(record)) => {
            let is_last = record.version() == before[id as usize] && record.data() == DAMAGED;
            let is_anew = record.version() > before[id as usize] && record.data() == KEPT;
            assert!(is_last || is_anew, "{name}: id {id}: {record:?} after {:?}", before[id as usize]);
            1
        }
        Err(Error::Corrupt { .. }) => 0,
        other => panic!("{name}: id {id}: {other:?}"),
    };
    (0..3).map(look).sum()
}

#[test]
fn no_version_goes_back_at_whatever_step_a_repair_is_killed() {
    for full in [false, true] {
        for at in 1.. {
            let name = format!("full: {full}, killed at step {at}");
            let dir = common::scratch();
            let path = dir.path().join("s");
            let before = damaged(&path, full);
            let at = at.to_string();
            let mut worker = Worker::spawn("repairs", &[("STORE", path.to_str().unwrap()), ("AT", &at)]);
            let is_done = worker.line().is_some();
            worker.wait();
            let store = options().open(&path).unwrap();
            look(&store, before, &name);
            store.put(20, b"so that the region is healed").unwrap();
            let after = look(&store, before, &name);
            assert!(!is_done || after == 3, "{name}");
            store.repair().unwrap();
            assert_eq!(look(&store, before, &name), 3, "{name}");
            assert_eq!(store.verify().unwrap().damage, [], "{name}");
            if is_done {
                assert!(at.parse::<u32>().unwrap() > 10, "a repair has more steps");
                break;
            }
        }
    }
}
