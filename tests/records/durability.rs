//! Flushes, checkpoints, backups and salvage, as a user of the library meets them.

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use recstore::{Durability, Error, Options, Store};

fn small() -> Options {
    Options::new().record_size(64).regions(2).slots_per_extent(16)
}

fn everything(store: &Store) -> Vec<(u64, Vec<u8>)> {
    let mut all: Vec<_> = store.iter().map(|r| r.unwrap()).map(|r| (r.id(), r.into_data())).collect();
    all.sort();
    all
}

#[test]
fn overwriting_between_two_flushes_takes_one_slot_a_record_and_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    let fill = |round: u64| {
        for id in 0..100u64 {
            store.put(id, &round.to_le_bytes()).unwrap();
        }
    };
    fill(0);
    let before = store.stats().unwrap();
    for round in 1..20 {
        fill(round);
    }
    let unsynced = store.stats().unwrap();
    assert_eq!(unsynced.retired_slots, 0, "an unsynced store keeps nothing");
    // A write needs one slot beside the one that it replaces: at most one more extent a region.
    assert!(unsynced.extents <= before.extents + 2, "{} extents, then {}", before.extents, unsynced.extents);
    for round in 20..60 {
        store.sync().unwrap();
        fill(round);
        fill(round + 1000);
        let now = store.stats().unwrap();
        assert!(now.retired_slots <= 100, "{} slots kept, 100 records overwritten", now.retired_slots);
    }
    let synced = store.stats().unwrap();
    assert!(synced.slots < 100 * 2 + 5 * 16, "{} slots", synced.slots);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn deleting_after_flushes_gives_all_slots_back_after_two_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    for round in 0..50u64 {
        for id in 0..40 {
            store.put(id, &round.to_le_bytes()).unwrap();
        }
        store.sync().unwrap();
        for id in 0..40 {
            store.put(id, &[round as u8; 60]).unwrap();
        }
        for id in 0..40 {
            assert!(store.delete(id).unwrap());
            assert!(!store.delete(id).unwrap());
        }
        assert!(store.is_empty().unwrap());
        assert!(store.verify().unwrap().is_clean(), "{:?}", store.verify().unwrap().damage);
        store.sync().unwrap();
    }
    let stats = store.stats().unwrap();
    assert!(stats.slots <= 40 * 4 + 2 * 16, "{} slots for 40 records", stats.slots);
}

#[test]
fn durable_writers_flush_their_own_pages_and_keep_little() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().durability(Durability::Disk).create(dir.path().join("s.rec")).unwrap();
    let (threads, writes) = (8, 500);
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads as u64 {
            let (store, barrier) = (&store, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for n in 0..writes {
                    store.put(thread, &u64::to_le_bytes(n)).unwrap();
                }
            });
        }
    });
    let stats = store.stats().unwrap();
    assert_eq!(stats.durable_writes, threads as u64 * writes);
    let what = format!("{} flushes for {} durable writes", stats.flushes, stats.durable_writes);
    assert!(stats.flushes * 8 < stats.durable_writes, "{what}");
    assert!(stats.retired_slots < 1100, "{what}, {} slots kept", stats.retired_slots);
}

#[test]
fn a_checkpoint_flushes_until_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    store.put(1, b"x").unwrap();
    let checkpoint = store.checkpoint_every(Duration::from_millis(1)).unwrap();
    while store.stats().unwrap().flushes < 3 {
        store.put(1, b"x").unwrap();
        std::thread::yield_now();
    }
    assert!(checkpoint.error().is_none());
    checkpoint.finish().unwrap();
    let flushes = store.stats().unwrap().flushes;
    store.put(1, b"y").unwrap();
    assert_eq!(store.stats().unwrap().flushes, flushes, "the thread is gone");
    assert!(matches!(store.checkpoint_every(Duration::ZERO), Err(Error::InvalidOption { .. })));
}

/// Ten records change together, one after the other, so that at every moment they differ by one step
/// at most; a copy of one moment shows that.
#[test]
fn a_backup_is_of_one_moment_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    let records = 10;
    for id in 0..records {
        store.put(id, &0u64.to_le_bytes()).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in 1u64.. {
                for id in 0..records {
                    store.put(id, &step.to_le_bytes()).unwrap();
                }
                store.put(1000 + step % 7, b"comes and goes").unwrap();
                assert!(store.delete(1000 + step % 7).unwrap());
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for n in 0..20 {
            let copy = dir.path().join(format!("copy{n}.rec"));
            store.backup(&copy).unwrap();
            let copy = Store::open_read_only(&copy).unwrap();
            let steps: Vec<u64> = everything(&copy)
                .into_iter()
                .filter(|(id, _)| *id < records)
                .map(|(_, data)| u64::from_le_bytes(data.try_into().unwrap()))
                .collect();
            assert_eq!(steps.len() as u64, records);
            assert!(steps.is_sorted_by(|a, b| a >= b), "{steps:?}");
            assert!(steps[0] - steps[steps.len() - 1] <= 1, "{steps:?}");
            assert!(copy.verify().unwrap().is_clean());
            assert!(copy.len().unwrap() <= records + 1);
        }
        done.store(true, Ordering::Relaxed);
    });
    store.sync().unwrap();
    assert!(store.verify().unwrap().is_clean(), "{:?}", store.verify().unwrap().damage);
    assert!(store.stats().unwrap().attached.iter().all(|a| a.pins == 0));
    assert!(matches!(store.backup(dir.path().join("copy0.rec")), Err(Error::AlreadyExists { .. })));
}

/// All records are replaced or deleted, several times and flushed in between, when the first one has been
/// chosen and none been copied; the copy is of the moment before.
#[cfg(feature = "testing")]
#[test]
fn a_backup_is_of_its_moment_whatever_happens_while_it_copies() {
    use std::sync::mpsc::sync_channel;
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    let write = |store: &Store, round: u64| {
        for id in 0..60u64 {
            store.put(id, &(id + (round << 32)).to_le_bytes()).unwrap();
        }
        (round % 5..60).step_by(5).for_each(|id| assert!(store.delete(id).unwrap()));
    };
    write(&store, 1);
    store.sync().unwrap();
    write(&store, 2);
    let before = everything(&store);
    let (begun, begins) = sync_channel(1);
    let (done, is_done) = sync_channel(1);
    let mut is_first = true;
    let copied = dir.path().join("copy.rec");
    std::thread::scope(|scope| {
        let (store, write) = (&store, &write);
        scope.spawn(move || {
            begins.recv().unwrap();
            // Some are deleted as they were at the moment, the others replaced.
            (0..60).step_by(7).for_each(|id| _ = store.delete(id).unwrap());
            for round in 3..9 {
                write(store, round);
                if round % 2 == 0 {
                    store.sync().unwrap();
                }
            }
            (0..60).for_each(|id| _ = store.delete(id).unwrap());
            assert!(store.verify().unwrap().is_clean(), "{:?}", store.verify().unwrap().damage);
            done.send(store.stats().unwrap().attached.iter().map(|a| a.pins).sum::<u64>()).unwrap();
        });
        recstore::testing::set_hook(Some(Box::new(move |step| {
            if step == "publish: data written" && std::mem::take(&mut is_first) {
                begun.send(()).unwrap();
                assert_eq!(is_done.recv().unwrap(), 1, "pins");
            }
        })));
        assert_eq!(store.backup(&copied).unwrap(), before.len() as u64);
        recstore::testing::set_hook(None);
    });
    assert_eq!(everything(&Store::open(&copied).unwrap()), before);
    assert_eq!(store.len().unwrap(), 0);
    // What was kept for the copy is given back, to the region or to the file.
    let (slots, bytes) = (store.stats().unwrap().slots, || store.path().metadata().unwrap().len());
    let before = bytes();
    // The room that the first one gives back is used again when the second one has put that on disk.
    (0..2).for_each(|_| store.sync().unwrap());
    (0..slots / 4).for_each(|id| _ = store.put(id, b"in the place of what was kept").unwrap());
    assert!(store.stats().unwrap().slots <= slots, "{} slots after {slots}", store.stats().unwrap().slots);
    assert_eq!(bytes(), before, "the file grew");
}

#[test]
fn a_backup_of_a_damaged_record_fails_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    let store = small().regions(1).create(&path).unwrap();
    store.put(1, b"a record to be damaged").unwrap();
    flip(&path, b"a record to be damaged");
    assert!(matches!(store.backup(dir.path().join("copy.rec")), Err(Error::Corrupt { id: 1, .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Flips a bit of the first occurrence of `text`.
fn flip(path: &Path, text: &[u8]) {
    use std::os::unix::fs::FileExt;
    let bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(text.len()).position(|w| w == text).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
}

fn filled(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let store = small().create(path).unwrap();
    for id in 0..500u64 {
        store.put(id * 7919, format!("record {id}").as_bytes()).unwrap();
    }
    store.sync().unwrap();
    for id in (0..500u64).step_by(3) {
        store.put(id * 7919, format!("record {id} anew").as_bytes()).unwrap();
    }
    for id in (0..500u64).step_by(5) {
        assert!(store.delete(id * 7919).unwrap());
    }
    everything(&store)
}

#[test]
fn salvage_needs_nothing_but_the_slots() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    let all = filled(&path);
    let whole = std::fs::read(&path).unwrap();
    let base = 90_112; // Of a store with two regions.
    for (n, what) in
        ["nothing", "first superblock", "all but the slots", "extent headers too"].iter().enumerate()
    {
        let mut bytes = whole.clone();
        match n {
            1 => bytes[..4096].fill(0xee),
            2 => bytes[..base].fill(0xee),
            3 => {
                bytes[..base].fill(0xee);
                for at in (base..bytes.len()).step_by(4096) {
                    if bytes[at..at + 8] == *b"rec-extn" {
                        bytes[at..at + 64].fill(0xee);
                    }
                }
            }
            _ => {}
        }
        let from = dir.path().join(format!("from{n}.rec"));
        std::fs::write(&from, &bytes).unwrap();
        let to = dir.path().join(format!("to{n}.rec"));
        let report = recstore::salvage(&from, &to, None).unwrap();
        assert_eq!(report.records, all.len() as u64, "{what} destroyed: {report:?}");
        assert!(report.lost.is_empty(), "{report:?}");
        let saved = Store::open(&to).unwrap();
        assert_eq!(everything(&saved), all, "{what} destroyed");
        assert!(saved.verify().unwrap().is_clean());
    }
}

#[test]
fn salvage_names_what_it_could_not_save() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    let all = filled(&path);
    flip(&path, b"record 251");
    let report = recstore::salvage(&path, dir.path().join("to.rec"), None).unwrap();
    assert_eq!(report.records, all.len() as u64 - 1);
    assert_eq!(report.lost.iter().map(|l| l.id).collect::<Vec<_>>(), [Some(251 * 7919)]);
    assert!(matches!(
        recstore::salvage(dir.path().join("none"), dir.path().join("x"), None),
        Err(Error::NotFound { .. })
    ));
    std::fs::write(dir.path().join("noise"), [0x5a; 10_000]).unwrap();
    assert!(matches!(
        recstore::salvage(dir.path().join("noise"), dir.path().join("x"), None),
        Err(Error::NotAStore { .. })
    ));
}
