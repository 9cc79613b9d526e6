//! Memory is believed because it is the same memory: not because the boot is the same, and not in spite of it.
//!
//! Fails when: a copy of a file in use, or what replaced it under its name, is taken for the memory of the last users; a
//! boot id that something lies over makes a healthy store refuse readers or give up what was acknowledged; a version is
//! given out twice; a claim of a seat is one that stands in a lock word of another life.

#![cfg(feature = "testing")]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::common::{self, Me, Worker};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use recstore::testing::set_boot_id;
use recstore::{Commit, Error, Options, Store, Swap};

fn new_store() -> (tempfile::TempDir, PathBuf) {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().regions(2).record_size(64).create(&path).unwrap();
    store.put(1, b"one").unwrap();
    store.put(2, b"two").unwrap();
    store.sync().unwrap();
    drop(store);
    (dir, path)
}

/// Two records as one batch, which is acknowledged and not synced.
fn batch(store: &Store, data: &[u8]) {
    let mut batch = store.batch();
    batch.put(1, data).unwrap();
    batch.put(2, data).unwrap();
    assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    let store = match me.role.as_str() {
        "writer" => Store::open(me.var("STORE")).unwrap(),
        "container" => {
            lay_over_boot_id(Path::new(&me.var("BOOT")));
            let found = Store::open_read_only(me.var("STORE"))
                .map(|store| store.get(1).unwrap().unwrap().into_data());
            me.say(&format!(
                "{:?}",
                found.map(|data| String::from_utf8(data).unwrap()).map_err(|e| e.to_string())
            ));
            Store::open(me.var("STORE")).unwrap()
        }
        other => panic!("no role {other}"),
    };
    batch(&store, me.role.as_bytes());
    me.say(if store.opened().os_crash { "recovered" } else { "done" });
    me.line();
}

/// In a mount namespace of its own.
fn lay_over_boot_id(other: &Path) {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
    mount(Some(other), "/proc/sys/kernel/random/boot_id", NONE, MsFlags::MS_BIND, NONE).unwrap();
}

/// A boot id of a container, or `None`, said aloud.
fn boot_of_a_container(dir: &Path) -> Option<PathBuf> {
    if common::user() != 0 {
        common::skipped("only root may mount a file over the boot id");
        return None;
    }
    let path = dir.join("boot_id");
    std::fs::write(&path, "11111111-2222-3333-4444-555555555555\n").unwrap();
    Some(path)
}

#[test]
fn a_container_with_a_boot_id_of_its_own_reads_and_writes_beside_a_live_writer() {
    let (dir, path) = new_store();
    let Some(boot) = boot_of_a_container(dir.path()) else { return };
    let (store, boot) = (path.to_str().unwrap(), boot.to_str().unwrap());
    let mut writer = Worker::spawn("writer", &[("STORE", store)]);
    writer.expect("done");
    let mut container = Worker::spawn("container", &[("STORE", store), ("BOOT", boot)]);
    container.expect("Ok(\"writer\")");
    container.expect("done");
    let here = Store::open_read_only(&path).unwrap();
    assert_eq!(&here.get(1).unwrap().unwrap()[..], b"container");
}

#[test]
fn what_was_acknowledged_survives_its_writer_whatever_boot_id_the_next_one_sees() {
    let (dir, path) = new_store();
    let Some(boot) = boot_of_a_container(dir.path()) else { return };
    let (store, boot) = (path.to_str().unwrap(), boot.to_str().unwrap());
    for round in 0..3 {
        let mut writer = Worker::spawn("writer", &[("STORE", store)]);
        writer.expect("done");
        writer.kill();
        let mut container = Worker::spawn("container", &[("STORE", store), ("BOOT", boot)]);
        container.expect("Ok(\"writer\")");
        container.expect("done");
        container.kill();
        let here = Store::open(&path).unwrap();
        assert!(here.opened().is_empty(), "round {round}: {:?}", here.opened());
        for id in [1, 2] {
            assert_eq!(&here.get(id).unwrap().unwrap()[..], b"container", "round {round}");
        }
    }
}

#[test]
fn a_store_in_use_that_is_moved_is_the_same_store() {
    let (dir, path) = new_store();
    batch(&Store::open(&path).unwrap(), b"not synced");
    let moved = dir.path().join("moved");
    std::fs::rename(&path, &moved).unwrap();
    let store = Store::open(&moved).unwrap();
    assert!(store.opened().is_empty(), "{:?}", store.opened());
    assert_eq!(&store.get(1).unwrap().unwrap()[..], b"not synced");
}

#[test]
fn a_copy_of_a_store_in_use_is_recovered_also_under_its_name_and_number() {
    let (dir, path) = new_store();
    let store = Store::open(&path).unwrap();
    store.put(1, b"newer").unwrap();
    let copy = dir.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    match Store::open_read_only(&copy) {
        Err(Error::NeedsRepair { why, .. }) => assert!(why.contains("copy"), "{why}"),
        other => panic!("{other:?}"),
    }
    let copied = Store::open(&copy).unwrap();
    assert!(copied.opened().os_crash, "{:?}", copied.opened());
    assert_eq!(&copied.get(1).unwrap().unwrap()[..], b"newer");
    drop((store, copied));
    // Many file systems give the number of the file that went to the next one.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert!(Store::open(&path).unwrap().opened().os_crash);
}

#[test]
fn a_flush_that_failed_makes_memory_doubtful() {
    let (_dir, path) = new_store();
    Store::open(&path).unwrap().put(1, b"newer").unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all_at(&u64::from(libc_eio()).to_le_bytes(), 4096 + 144).unwrap();
    assert!(matches!(Store::open_read_only(&path), Err(Error::NeedsRepair { .. })));
    let store = Store::open(&path).unwrap();
    assert!(store.opened().os_crash, "{:?}", store.opened());
    assert!(store.opened().fixed.iter().any(|what| what.contains("flush")), "{:?}", store.opened());
    store.put(1, b"newest").unwrap();
    store.sync().unwrap();
    drop(store);
    assert!(Store::open(&path).unwrap().opened().is_empty());
}

fn libc_eio() -> u32 {
    nix::errno::Errno::EIO as u32
}

/// What `seq` jumped by before, 2^20, one region writes in less than a second.
#[test]
fn a_remembered_version_never_fits_what_is_written_after_a_loss_of_power() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().regions(1).record_size(64).create(&path).unwrap();
    store.put(1, b"synced").unwrap();
    store.sync().unwrap();
    let on_disk = std::fs::read(&path).unwrap();
    let mut remembered = Vec::new();
    for n in 0..1_100_000_u32 {
        let version = store.put(1, &n.to_le_bytes()).unwrap();
        if n % 1000 == 0 {
            remembered.push(version);
        }
    }
    drop(store);
    let highest = *remembered.last().unwrap();
    // The power is lost, and with it what was not synced; twice.
    for life in 0..2 {
        let image = dir.path().join(format!("image {life}"));
        std::fs::write(&image, &on_disk).unwrap();
        set_boot_id(&image).unwrap();
        let store = Store::open(&image).unwrap();
        assert_eq!(&store.get(1).unwrap().unwrap()[..], b"synced");
        for n in 0..1000_u32 {
            let version = store.put(1, &(!n).to_le_bytes()).unwrap();
            assert!(version > highest, "{version} was given out before the crash, up to {highest}");
        }
        for &version in &remembered {
            let swapped = store.compare_and_swap(1, Some(version), b"other bytes").unwrap();
            assert!(matches!(swapped, Swap::Conflict { .. }), "{version} fits");
        }
        let last = store.put(1, b"last").unwrap();
        drop(store);
        set_boot_id(&image).unwrap();
        let version = Store::open(&image).unwrap().put(2, b"of the next life").unwrap();
        assert!(version.get() >> 40 > last.get() >> 40, "{version} after {last}");
    }
}

#[test]
fn a_block_of_versions_is_on_disk_before_its_first_version_is_used() {
    const NEXT_SEQ: u64 = 77_824 + 8;
    const BLOCKS: u64 = 4096 + 448;
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().regions(1).record_size(64).create(&path).unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let blocks = || {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, BLOCKS).unwrap();
        u64::from_le_bytes(word) & ((1 << 48) - 1)
    };
    store.put(1, b"of the first block").unwrap();
    assert_eq!(blocks(), 1);
    // The number stands there twice, the second time as its complement.
    let set_next = |version: u64| {
        let seq = (1_u64 << 63) | version;
        file.write_all_at(&[seq.to_le_bytes(), (!seq).to_le_bytes()].concat(), NEXT_SEQ).unwrap();
    };
    set_next((1 << 40) - 2);
    let versions: Vec<u64> = (0..4_u8).map(|n| store.put(1, &[n]).unwrap().get()).collect();
    assert_eq!(versions, [(1 << 40) - 2, (1 << 40) - 1, 1 << 40, (1 << 40) + 1]);
    assert_eq!(blocks(), 2);
    // A batch that goes into the next one.
    set_next((2 << 40) - 1);
    batch(&store, b"across");
    assert_eq!(blocks(), 3);
    assert!(store.verify().unwrap().is_clean());
    // A lie: such a block was never given out. The region is rebuilt, and goes on behind all that were.
    set_next((9 << 40) | 7);
    assert!(!store.verify().unwrap().is_clean());
    assert_eq!(store.put(1, b"behind").unwrap().get(), 3 << 40);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn claims_of_seats_begin_at_random() {
    const GENERATION: u64 = 8192;
    let generations: Vec<u64> = (0..3)
        .map(|_| {
            let (_dir, path) = new_store();
            let store = Store::open(&path).unwrap();
            let mut word = [0; 8];
            std::fs::File::open(store.path()).unwrap().read_exact_at(&mut word, GENERATION).unwrap();
            u64::from_le_bytes(word) & 0xffff_ffff
        })
        .collect();
    assert!(generations.iter().any(|&generation| generation > 1 << 16), "{generations:?}");
    assert!(generations[0] != generations[1] || generations[1] != generations[2], "{generations:?}");
}
