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
    header[24..28].fill(0);
    header[48..52].copy_from_slice(&run.to_le_bytes());
    let sum = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&sum.to_le_bytes());
    for (n, word) in header.chunks(8).enumerate() {
        lied.set(at + 8 * n, u64::from_le_bytes(word.try_into().unwrap()));
    }
}

/// A header that is wrong while a process extends the file: what it hid is not written over, whether the header stays wrong or not.
#[test]
fn a_header_that_lies_while_the_file_grows_puts_no_table_over_records() {
    for (run, is_put_right, is_fresh) in [
        (1, true, false),
        (3, true, false),
        (1, false, false),
        (3, false, false),
        (1, true, true),
        (4, true, true),
    ] {
        let when = format!("a run of {run}, put right: {is_put_right}, fresh: {is_fresh}");
        let lied = Lied::new();
        let count = if is_fresh { LAYOUT.slots + 1 } else { 4 * LAYOUT.slots };
        let ids = lied.ids(0, count);
        ids.iter().for_each(|&id| _ = lied.store.put(id, b"1").unwrap());
        lied.store.sync().unwrap();
        let is_ours =
            |e: &ExtentStats| matches!(e.usage, ExtentUse::Slots { region } if region == REGION as u32);
        let ours: Vec<u32> =
            lied.store.extents().unwrap().into_iter().filter(is_ours).map(|e| e.extent).collect();
        let lies = *if is_fresh { ours.last().unwrap() } else { &ours[0] } as usize;
        let words: Vec<u64> = (0..8).map(|n| lied.get(LAYOUT.extent(lies) + 8 * n)).collect();
        forge_index_run(&lied, lies, run);
        // Another handle sees the file for the first time, and the other region's table grows in it.
        let beside = options().open(&lied.path).unwrap();
        let others: Vec<u64> =
            (1 << 32..).filter(|&id| beside.region_of(id) != REGION as u32).take(40 * LAYOUT.slots).collect();
        let (now, later) = others.split_at(LAYOUT.slots);
        now.iter().for_each(|&id| _ = beside.put(id, b"2").unwrap());
        if is_put_right {
            (0..8).for_each(|n| lied.set(LAYOUT.extent(lies) + 8 * n, words[n]));
        }
        later.iter().for_each(|&id| _ = beside.put(id, b"2").unwrap());
        if is_put_right {
            assert_eq!(beside.verify().unwrap().damage, [], "{when}");
        } else {
            let report = beside.repair().unwrap();
            assert!(report.dropped.is_empty() && report.missing.is_empty(), "{when}: {report:?}");
        }
        if is_fresh {
            lied.ids(ids[ids.len() - 1] + 1, LAYOUT.slots - 1)
                .iter()
                .for_each(|&id| _ = beside.put(id, b"1").unwrap());
        }
        assert_eq!(beside.verify().unwrap().damage, [], "{when}");
        let whole = |ids: &[u64], data: &[u8]| {
            ids.iter().all(|&id| beside.get(id).unwrap().is_some_and(|record| record.data() == data))
        };
        assert!(whole(&ids, b"1"), "{when}: records of the extent are gone");
        assert!(whole(&others, b"2"), "{when}: records of the other region are gone");
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
