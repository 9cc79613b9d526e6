//! What a snapshot lends, it also copies: the same records, checked in the copy.
//!
//! Fails when: a copying read of a snapshot differs from the lending one, or from the store as it was; a damaged record is copied.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::common;
use recstore::{Error, Options, Store, Version};

fn filled(path: &std::path::Path) -> Store {
    let store = Options::new().record_size(200).regions(2).create(path).unwrap();
    (0..100u64).for_each(|id| _ = store.put(id, &vec![id as u8; 2 * id as usize]).unwrap());
    store.sync().unwrap();
    store
}

#[test]
fn a_snapshot_copies_what_it_lends() {
    let dir = common::scratch();
    let store = filled(&dir.path().join("s"));
    let all = |store: &Store| -> BTreeMap<u64, (Version, Vec<u8>)> {
        store.iter().map(Result::unwrap).map(|r| (r.id(), (r.version(), r.into_data()))).collect()
    };
    let was = all(&store);
    let snapshot = store.snapshot().unwrap();
    for id in (0..100).step_by(3) {
        store.put(id, b"changed since").unwrap();
        store.delete(id + 1).unwrap();
    }
    store.put(500, b"new").unwrap();
    let copied: BTreeMap<_, _> =
        snapshot.records().map(Result::unwrap).map(|r| (r.id(), (r.version(), r.into_data()))).collect();
    let lent: BTreeMap<_, _> = snapshot
        .iter()
        .map(Result::unwrap)
        .map(|(id, version, data)| (id, (version, data.to_vec())))
        .collect();
    assert!(copied == was && lent == was);
    let mut data = Vec::new();
    for id in 0..101 {
        let version = snapshot.get_into(id, &mut data).unwrap();
        assert_eq!(version.map(|version| (version, data.clone())).as_ref(), was.get(&id));
    }
    assert_eq!(snapshot.get_into(500, &mut data).unwrap(), None);
}

#[test]
fn a_damaged_record_is_not_copied() {
    let dir = common::scratch();
    let store = filled(&dir.path().join("s"));
    let bytes = std::fs::read(store.path()).unwrap();
    let at = bytes.windows(180).position(|bytes| bytes == [90; 180]).unwrap();
    File::options().write(true).open(store.path()).unwrap().write_all_at(&[1], at as u64 + 50).unwrap();
    let snapshot = store.snapshot().unwrap();
    assert!(matches!(snapshot.get_into(90, &mut Vec::new()), Err(Error::Corrupt { id: 90, .. })));
    let (whole, damaged): (Vec<_>, Vec<_>) = snapshot.records().partition(Result::is_ok);
    assert_eq!(whole.len(), 99);
    assert!(matches!(damaged[..], [Err(Error::Corrupt { id: 90, .. })]));
}
