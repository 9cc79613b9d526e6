//! A store of each version of the format that was released is opened, read and written to.
//!
//! The files are kept in `tests/data`. `RECSTORE_WRITE_FIXTURES=1` writes the one of this version anew, as long as it is not
//! released: after that it stays as it is. Fails when a build reads something else from a kept file than was
//! written, calls it damaged, or can't write to it.

use std::path::{Path, PathBuf};

use crate::common;
use recstore::{Commit, Options, Store};

/// The versions of which there is a file.
const VERSIONS: [u32; 1] = [1];

fn kept(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/format-{version}.rec"))
}

/// The records of every kept file.
fn records() -> Vec<(u64, Vec<u8>)> {
    let of = |id: u64| (id, format!("record {id}").into_bytes());
    let mut records: Vec<_> = (1..=6).map(of).collect();
    records.push((u64::MAX, vec![0, 255, 10, 13]));
    records.push((1 << 40, Vec::new()));
    records
}

/// Writes a store with a record of each kind: replaced, deleted, of a batch, durable by itself, of a counter.
fn write(path: &Path) {
    let store = Options::new().record_size(48).regions(2).slots_per_extent(8).create(path).unwrap();
    for (id, data) in records() {
        store.put(id, b"replaced").unwrap();
        store.put(id, &data).unwrap();
    }
    store.put(100, b"deleted").unwrap();
    store.sync().unwrap();
    assert!(store.delete(100).unwrap());
    let mut batch = store.batch();
    batch.put(200, &b"of a batch"[..]).unwrap();
    batch.put(201, &b"of the same"[..]).unwrap();
    assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
    store.put_with(202, b"durable by itself", recstore::Durability::Disk).unwrap();
    assert_eq!(store.counter(203).add(7).unwrap(), 7);
    store.close().unwrap();
}

#[test]
fn a_store_of_every_released_format_is_read_and_written() {
    if std::env::var_os("RECSTORE_WRITE_FIXTURES").is_some() {
        let version = *VERSIONS.last().unwrap();
        let _ = std::fs::remove_file(kept(version));
        write(&kept(version));
    }
    for version in VERSIONS {
        let dir = common::scratch();
        let path = dir.path().join("store");
        std::fs::copy(kept(version), &path).unwrap();
        check(&path, version);
        // And once more after it was written to by this build.
        check(&path, version);
    }
}

fn check(path: &Path, version: u32) {
    let store = Store::open(path).unwrap();
    assert_eq!(store.stats().unwrap().format_version, version);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "format {version}: {:?}", report.damage);
    for (id, data) in records() {
        assert_eq!(store.get(id).unwrap().unwrap().data(), data, "format {version}: record {id}");
    }
    assert_eq!(store.get(100).unwrap(), None);
    assert_eq!(store.get(200).unwrap().unwrap().data(), b"of a batch");
    assert_eq!(store.get(202).unwrap().unwrap().data(), b"durable by itself");
    let count = store.counter(203).get().unwrap();
    assert!(count >= 7, "{count}");
    assert_eq!(store.counter(203).add(1).unwrap(), count + 1);
    assert_eq!(store.len().unwrap(), records().len() as u64 + 4);
    store.close().unwrap();
}
