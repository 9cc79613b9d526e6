//! Counts that are too high, and the lock of batches.

use recstore::Commit;

use crate::file::{LAYOUT, Lied, checked, head, in_time, options};

/// The lock word of batches, in the control page.
const BATCH_LOCK: usize = 4096 + 384;

#[test]
fn a_count_of_records_that_is_too_high_takes_no_room() {
    for lie in [1 << 20, 1 << 40, (1 << 48) - 1] {
        let lied = Lied::new();
        let ids = lied.ids(0, 200);
        ids[..20].iter().for_each(|&id| _ = lied.store.put(id, b"1").unwrap());
        let before = std::fs::metadata(&lied.path).unwrap().len();
        lied.set(lied.head(head::LIVE), checked(lie));
        assert!(!lied.store.verify().unwrap().is_clean(), "{lie:#x}");
        for &id in &ids[20..40] {
            in_time("put", || lied.store.put(id, b"2").unwrap());
        }
        let after = std::fs::metadata(&lied.path).unwrap().len();
        assert!(after <= before + (256 << 10), "{lie:#x}: {before} bytes became {after}");
        assert_eq!(lied.store.verify().unwrap().damage, [], "{lie:#x}");
        assert!(ids[..40].iter().all(|&id| lied.store.get(id).unwrap().is_some()), "{lie:#x}");
    }
}

#[test]
fn a_lock_of_batches_that_says_that_the_store_is_clean_holds_nobody_up() {
    let lied = Lied::new();
    let ids = lied.ids(0, 3);
    ids.iter().for_each(|&id| _ = lied.store.put(id, b"1").unwrap());
    // What a clean store's region locks say: see the chapter on the format.
    let clean = {
        let path = lied.path.with_extension("clean");
        let other = options().create(&path).unwrap();
        other.put(1, b"x").unwrap();
        other.close().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let at = LAYOUT.head(0);
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    };
    assert_ne!(clean, 0);
    let lie = || lied.set(BATCH_LOCK, clean);
    lie();
    let mut batch = lied.store.batch();
    batch.put(ids[0], &b"2"[..]).unwrap();
    assert!(matches!(in_time("batch", || batch.commit().unwrap()), Commit::Done(_)));
    lie();
    in_time("repair", || lied.store.repair().unwrap());
    lie();
    let pin = lied.store.pin().unwrap();
    let found = in_time("get_many", || pin.get_many(&ids).unwrap());
    assert_eq!(found, [Some(&b"2"[..]), Some(b"1"), Some(b"1")]);
    drop(found);
    drop(pin);
    lied.store.sync().unwrap();
}
