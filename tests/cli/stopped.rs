//! Beside a process that stays inside of one region: what the others do, and what they say.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::channel;

use recstore::Store;

use super::command::{Dir, args, command, finish, read, run, store_of};

/// Runs `commands` while this process is inside of `id`'s region.
fn beside_an_owner_of(path: &Path, id: u64, commands: impl FnOnce()) {
    let store = Store::open(path).unwrap();
    std::thread::scope(|scope| {
        let ((inside, is_inside), (go_on, may_go_on)) = (channel(), channel::<()>());
        let store = &store;
        scope.spawn(move || {
            store.update(id, |_| {
                inside.send(()).unwrap();
                // Until the test is through, or has failed.
                let _ = may_go_on.recv();
                None::<&[u8]>
            })
        });
        is_inside.recv().unwrap();
        commands();
        drop(go_on);
    });
}

#[test]
fn a_write_waits_for_nobody_in_another_region_and_is_on_disk() {
    let dir = Dir::new();
    let path = store_of(&dir, "s.rec", &[(1, b"one")]);
    let store = Store::open(&path).unwrap();
    let others: Vec<u64> = (2..).filter(|&id| store.region_of(id) != store.region_of(1)).take(3).collect();
    let durable_writes = || store.stats().unwrap().durable_writes;
    let before = durable_writes();
    beside_an_owner_of(&path, 1, || {
        for id in &others {
            run(args!["write", path, id.to_string(), "new"]).done();
            assert_eq!(read(&path, *id), b"new");
        }
        run(args!["write", "--lock-timeout", "0.1", path, "1", "new"]).refused(6, "region");
    });
    assert_eq!(durable_writes(), before + others.len() as u64);
    assert_eq!(read(&path, 1), b"one");
}

#[test]
fn what_is_done_and_cannot_be_flushed_because_of_others_is_said_with_a_code_of_its_own() {
    let dir = Dir::new();
    let path = store_of(&dir, "s.rec", &[(1, b"one")]);
    let store = Store::open(&path).unwrap();
    let other = (2..).find(|&id| store.region_of(id) != store.region_of(1)).unwrap();
    let [id, of_region] = [other, u64::from(store.region_of(1))].map(|number| number.to_string());
    store.put(other, &7u64.to_le_bytes()).unwrap();
    beside_an_owner_of(&path, 1, || {
        let due = format!(
            "not flushed to disk yet: {}: region {of_region} is held by live process",
            path.display()
        );
        let added = run(args!["add", "--lock-timeout", "0.1", path, id]).ended(7, &due);
        assert_eq!(added.text(), "8\n", "the sum is said all the same");
        // Without a time-out too.
        run(args!["delete", path, id]).ended(7, &due);
        run(args!["read", path, id]).refused(1, "no record");
        run(args!["delete", path, id]).refused(1, "no record");
    });
    assert_eq!(store.get(other).unwrap(), None);
    // So does a load, whose records are there.
    let input = dir.path("in.jsonl");
    std::fs::write(&input, format!("{{\"id\":{other},\"data\":\"x\"}}\n")).unwrap();
    beside_an_owner_of(&path, 1, || {
        let loaded = run(args!["load", "--lock-timeout", "0.1", path, input]);
        loaded.ended(7, "1 record loaded").ended(7, "not flushed to disk yet");
    });
    assert_eq!(read(&path, other), b"x");
}

#[test]
fn a_command_that_waits_says_for_whom_and_how_to_give_up() {
    let dir = Dir::new();
    let path = store_of(&dir, "s.rec", &[(1, b"one")]);
    let mut waiting = None;
    beside_an_owner_of(&path, 1, || {
        let mut child = command(args!["write", path, "1", "new"]).spawn().unwrap();
        let mut said = String::new();
        // It comes while the other one is inside still.
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        let holder = std::process::id();
        assert!(said.starts_with("recstore: waiting: "), "{said}");
        assert!(said.contains(&format!("is held by live process {holder}")), "{said}");
        assert!(said.contains("Ctrl-C gives up, and --lock-timeout SECONDS"), "{said}");
        waiting = Some(child);
    });
    assert_eq!(finish(waiting.unwrap()).code, 0);
    assert_eq!(read(&path, 1), b"new");
}
