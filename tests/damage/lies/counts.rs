//! Counts that are too high, and the lock of batches.

use recstore::{Commit, ExtentStats, ExtentUse};

use super::file::{LAYOUT, Lied, REGION, checked, head, in_time, options};

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

/// Says that a run of so many extents for index tables begins here, with a checksum that holds.
fn forge_index_run(lied: &Lied, extent: usize, run: u32) {
    let at = LAYOUT.extent(extent);
    let mut header: Vec<u8> = (0..8).flat_map(|n| lied.get(at + 8 * n).to_le_bytes()).collect();
    header[20..24].copy_from_slice(&2u32.to_le_bytes());
    header[24..28].copy_from_slice(&run.to_le_bytes());
    let sum = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&sum.to_le_bytes());
    for (n, word) in header.chunks(8).enumerate() {
        lied.set(at + 8 * n, u64::from_le_bytes(word.try_into().unwrap()));
    }
}

#[test]
fn an_extent_of_records_that_is_said_to_hold_index_tables_is_given_back() {
    // Of the region's extents the first or the second lies, alone or over those behind it.
    for (lies, run) in [(0, 1), (1, 1), (0, 2), (1, 3), (0, 4)] {
        for how in ["repair", "death", "crash"] {
            let when = format!("extent {lies} of the region, a run of {run}, {how}");
            let lied = Lied::new();
            let ids = lied.ids(0, 4 * LAYOUT.slots);
            ids.iter().for_each(|&id| _ = lied.store.put(id, b"1").unwrap());
            // All slots of the third extent are free: its own header alone says whose it is.
            let (third, ids) = {
                let [first, second, third, fourth] =
                    [0, 1, 2, 3].map(|n| &ids[n * LAYOUT.slots..][..LAYOUT.slots]);
                (third, [first, second, fourth].concat())
            };
            third.iter().for_each(|&id| assert!(lied.store.delete(id).unwrap()));
            lied.store.sync().unwrap();
            let extents = lied.store.extents().unwrap();
            let is_ours =
                |e: &&ExtentStats| matches!(e.usage, ExtentUse::Slots { region } if region == REGION as u32);
            let ours: Vec<u32> = extents.iter().filter(is_ours).map(|e| e.extent).collect();
            assert_eq!(ours.len(), 4, "{when}");
            forge_index_run(&lied, ours[lies] as usize, run);
            assert!(!lied.store.verify().unwrap().is_clean(), "{when}");
            let walked: Result<Vec<_>, _> = lied.store.iter().collect();
            assert!(walked.is_err(), "{when}: iter gave {} records", walked.unwrap().len());
            let crashed;
            let store = match how {
                "repair" => {
                    let report = lied.store.repair().unwrap();
                    assert!(report.fixed.iter().any(|f| f.contains("given back")), "{when}: {report:?}");
                    assert!(report.dropped.is_empty() && report.missing.is_empty(), "{when}: {report:?}");
                    &lied.store
                }
                "death" => {
                    lied.kill_writer();
                    lied.store.put(ids[0], b"1").unwrap();
                    &lied.store
                }
                _ => {
                    crashed = lied.after_a_crash();
                    &crashed
                }
            };
            assert_eq!(store.verify().unwrap().damage, [], "{when}");
            assert_eq!(store.iter().map(Result::unwrap).count(), ids.len(), "{when}");
            assert!(ids.iter().all(|&id| store.get(id).unwrap().is_some()), "{when}");
            let extents = store.extents().unwrap();
            let given_back: Vec<u32> = extents.iter().filter(is_ours).map(|e| e.extent).collect();
            assert_eq!(given_back, ours, "{when}");
        }
    }
}
