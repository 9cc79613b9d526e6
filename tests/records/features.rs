//! Feature words of the superblock, as a later build may set them.
//!
//! Fails when: a store that can't be understood is opened; one that can be read is refused to readers; an unknown feature that
//! asks for nothing is taken for one that does.

use std::path::Path;

use crate::common;
use recstore::{Error, Options, Store};

const SUPERBLOCKS: [usize; 2] = [0, 73_728];
const INCOMPAT: usize = 80;
const RO_COMPAT: usize = 88;
const COMPAT: usize = 96;

/// CRC-32 (IEEE).
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8)
            .fold(crc ^ u32::from(byte), |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

fn set(path: &Path, word: usize, features: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    for at in SUPERBLOCKS {
        bytes[at + word..at + word + 8].copy_from_slice(&features.to_le_bytes());
        let sum = crc(&bytes[at..at + 124]);
        bytes[at + 124..at + 128].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

fn store() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().regions(1).record_size(32).create(&path).unwrap();
    store.put(1, b"one").unwrap();
    store.close().unwrap();
    (dir, path)
}

#[test]
fn an_unknown_feature_without_which_nothing_can_be_read_refuses() {
    let (_dir, path) = store();
    set(&path, INCOMPAT, 0x14);
    for opened in [Store::open(&path), Store::open_read_only(&path)] {
        match opened {
            Err(e @ Error::UnsupportedFeatures { word: "incompat", features: 0x14, .. }) => {
                assert!(e.to_string().contains("incompat 0x14"), "{e}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_unknown_feature_without_which_nothing_may_be_written_allows_reading() {
    let (_dir, path) = store();
    set(&path, RO_COMPAT, 1 << 40);
    match Store::open(&path) {
        Err(e @ Error::UnsupportedFeatures { word: "ro_compat", features, .. }) => {
            assert_eq!(features, 1 << 40);
            assert!(e.to_string().contains("for reading only"), "{e}");
        }
        other => panic!("{other:?}"),
    }
    let store = Store::open_read_only(&path).unwrap();
    assert_eq!(&store.get(1).unwrap().unwrap()[..], b"one");
}

#[test]
fn an_unknown_feature_that_asks_for_nothing_is_ignored() {
    let (_dir, path) = store();
    set(&path, COMPAT, u64::MAX);
    let store = Store::open(&path).unwrap();
    store.put(1, b"two").unwrap();
    assert!(store.verify().unwrap().is_clean());
}
