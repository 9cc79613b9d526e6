//! A superblock whose checksum is right, and that is another store's.

use std::os::unix::fs::FileExt;

use super::control::EXTENTS;
use super::file::{Lied, checked, in_time, options};
use crate::layout::SUPERBLOCK_B;
use recstore::{Error, Store};

#[test]
fn a_forged_superblock_is_not_believed_where_the_other_one_is_right() {
    for at in [0, SUPERBLOCK_B] {
        for other in
            [options().regions(4), options(), options().slots_per_extent(16), options().record_size(100)]
        {
            let lied = Lied::new();
            let ids = lied.ids(0, 200);
            ids.iter().for_each(|&id| _ = lied.store.put(id, b"1").unwrap());
            let (path, dir) = lied.close();
            let forged = dir.path().join("other");
            drop(other.create(&forged).unwrap());
            let mut bytes = std::fs::read(&path).unwrap();
            let is = bytes[at..at + 128].to_vec();
            bytes[at..at + 128].copy_from_slice(&std::fs::read(&forged).unwrap()[..128]);
            std::fs::write(&path, bytes).unwrap();
            let store = Store::open(&path).unwrap();
            assert!(!store.verify().unwrap().is_clean(), "{at}");
            assert!(ids.iter().all(|&id| store.get(id).unwrap().unwrap().data() == b"1"), "{at}");
            store.repair().unwrap();
            assert_eq!(store.verify().unwrap().damage, [], "{at}");
            store.close().unwrap();
            assert_eq!(std::fs::read(&path).unwrap()[at..at + 128], is, "{at}");
        }
    }
}

#[test]
fn of_two_superblocks_that_contradict_each_other_none_is_believed_without_evidence() {
    let lied = Lied::new();
    let (path, dir) = lied.close();
    let forged = dir.path().join("other");
    drop(options().create(&forged).unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..128].copy_from_slice(&std::fs::read(&forged).unwrap()[..128]);
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains("salvage"), "{error}");
}

/// Bytes of a file that is nearly all hole.
const LONG: u64 = 8 << 40;

#[test]
fn extents_are_not_looked_for_in_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let [path, other] = ["store", "other"].map(|name| dir.path().join(name));
    let smallest = options().max_size(16 << 40).record_size(1).slots_per_extent(1);
    let store = smallest.create(&path).unwrap();
    store.put(1, b"1").unwrap();
    store.close().unwrap();
    drop(smallest.create(&other).unwrap());
    let forged = std::fs::read(&other).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(LONG).unwrap();
    file.write_all_at(&forged[..128], SUPERBLOCK_B as u64).unwrap();
    // As many extents as the length has.
    file.write_all_at(&checked((LONG - 1_000_000) / 8192).to_le_bytes(), EXTENTS as u64).unwrap();
    in_time("a long hole", || {
        let store = Store::open(&path).unwrap();
        assert!(!store.verify().unwrap().is_clean());
        store.put(2, b"2").unwrap();
        store.repair().unwrap();
        assert_eq!(store.iter().map(Result::unwrap).count(), 2);
        assert_eq!(store.verify().unwrap().damage, []);
        store.close().unwrap();
    });
}
