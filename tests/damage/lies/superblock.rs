//! A superblock whose checksum is right, and that is another store's.

use super::file::{Lied, options};
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
