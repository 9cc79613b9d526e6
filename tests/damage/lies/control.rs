//! The mark of use, the epochs, the number of extents, and the hints, in the control page.

use recstore::{Durability, Error};

use super::file::{LAYOUT, Lied, checked, in_time, options};
use crate::layout::CONTROL;

const EPOCH: usize = CONTROL;
const DURABLE: usize = CONTROL + 8;
const MARK: usize = CONTROL + 64 + 16;
pub(super) const EXTENTS: usize = MARK + 8;
const PINNED: usize = CONTROL + 192;
const BORROWED: usize = PINNED + 8;
const SETTLED: usize = CONTROL + 384 + 40;

/// The control page's count of flushes.
fn flushes(lied: &Lied) -> u64 {
    lied.get(CONTROL + 128)
}

fn with_records() -> (Lied, Vec<u64>) {
    let lied = Lied::new();
    let ids = lied.ids(0, 40);
    ids.iter().for_each(|&id| _ = lied.store.put(id, b"1").unwrap());
    lied.store.sync().unwrap();
    ids.iter().for_each(|&id| _ = lied.store.put(id, b"2").unwrap());
    (lied, ids)
}

/// A flush is done, `repair` leaves nothing to name, and what was flushed survives a crash of the system.
fn is_flushed_and_comes_back(lied: &Lied, ids: &[u64], what: &str) {
    let before = flushes(lied);
    in_time(what, || lied.store.sync().unwrap());
    assert!(flushes(lied) > before, "{what}: nothing was flushed");
    lied.store.repair().unwrap();
    assert_eq!(lied.store.verify().unwrap().damage, [], "{what}");
    lied.store.put(ids[0], b"3").unwrap();
    lied.store.sync().unwrap();
    let after = lied.after_a_crash();
    assert!(after.opened().os_crash, "{what}: no recovery");
    assert_eq!(after.get(ids[0]).unwrap().unwrap().data(), b"3", "{what}");
    for &id in &ids[1..] {
        assert_eq!(after.get(id).unwrap().unwrap().data(), b"2", "{what}, id {id}");
    }
    assert_eq!(after.verify().unwrap().damage, [], "{what}");
}

#[test]
fn a_flipped_bit_of_the_mark_of_use_leaves_nothing_unflushed() {
    for bit in 0..64 {
        let (lied, ids) = with_records();
        lied.flip(MARK, bit);
        assert!(!lied.store.verify().unwrap().is_clean(), "bit {bit}");
        is_flushed_and_comes_back(&lied, &ids, &format!("mark of use, bit {bit}"));
    }
}

#[test]
fn a_mark_that_says_clean_while_the_store_is_in_use_leaves_nothing_unflushed() {
    let (lied, ids) = with_records();
    lied.set(MARK, 1);
    assert!(!lied.store.verify().unwrap().is_clean());
    is_flushed_and_comes_back(&lied, &ids, "a mark that says clean");
}

#[test]
fn epochs_that_lie_leave_nothing_unflushed() {
    let lies = [0, 1, 3, 4, 1000, 1 << 45, (1 << 46) - 2, 1 << 46, (1 << 48) - 1];
    for (word, name) in [(DURABLE, "durable"), (SETTLED, "settled"), (EPOCH, "epoch")] {
        for lie in lies {
            let (lied, ids) = with_records();
            lied.set(word, checked(lie));
            let what = format!("{name} epoch {lie:#x}");
            let is_named = !lied.store.verify().unwrap().is_clean();
            let is_credible = word == EPOCH && lie <= 1 << 45;
            assert!(is_named || lie < 1000 || is_credible, "{what}");
            if word == EPOCH && (lie == 0 || lie >= 1 << 45) {
                lied.store.repair().unwrap(); // Before it, writes may be refused.
            }
            is_flushed_and_comes_back(&lied, &ids, &what);
        }
    }
}

#[test]
fn writes_in_the_last_epochs_leave_a_store_that_a_repair_mends() {
    let (lied, ids) = with_records();
    lied.set(EPOCH, checked((1 << 46) - 1));
    lied.store.put(ids[1], b"2").unwrap();
    lied.store.put_with(ids[2], b"2", Durability::Disk).unwrap();
    lied.store.sync().unwrap();
    let error = lied.store.sync().unwrap_err().to_string();
    assert!(error.contains("repair"), "{error}");
    lied.store.repair().unwrap();
    is_flushed_and_comes_back(&lied, &ids, "the last epochs");
}

#[test]
fn a_number_of_extents_that_is_too_high_is_named_and_does_not_lock_out() {
    for (word, repaired) in [(EXTENTS, false), (EXTENTS, true), (EXTENTS + 8, false), (EXTENTS + 8, true)] {
        for more in [1, 1000] {
            let (lied, ids) = with_records();
            let noted = lied.get(EXTENTS) & 0xffff_ffff;
            lied.set(word, checked(noted + more));
            assert!(!lied.store.verify().unwrap().is_clean());
            if repaired {
                lied.store.repair().unwrap();
                assert_eq!(lied.store.verify().unwrap().damage, []);
            }
            let (path, dir) = lied.close();
            let again = options().open(&path).unwrap();
            assert_eq!(again.verify().unwrap().damage, []);
            assert!(ids.iter().all(|&id| again.get(id).unwrap().unwrap().data() == b"2"));
            drop(dir);
        }
    }
}

#[test]
fn a_number_of_extents_that_is_too_high_locks_nobody_out_beside_it_or_after_a_crash() {
    for word in [EXTENTS, EXTENTS + 8] {
        for more in [1, 1000] {
            let (lied, ids) = with_records();
            lied.store.sync().unwrap();
            let lie = checked((lied.get(EXTENTS) & 0xffff_ffff) + more);
            lied.set(word, lie);
            let reader = options().open_read_only(&lied.path).unwrap();
            assert_eq!(reader.get(ids[0]).unwrap().unwrap().data(), b"2");
            let beside = options().open(&lied.path).unwrap();
            assert_eq!(beside.get(ids[0]).unwrap().unwrap().data(), b"2");
            lied.set(word, lie);
            let after = lied.after_a_crash();
            assert_eq!(after.verify().unwrap().damage, []);
            assert!(ids.iter().all(|&id| after.get(id).unwrap().unwrap().data() == b"2"));
        }
    }
}

/// What is missing is missing, although a number of extents may be wrong.
#[test]
fn a_file_that_was_cut_is_refused() {
    let (lied, _) = with_records();
    let (path, _dir) = lied.close();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    let base = LAYOUT.extent(0) as u64;
    assert!(len > base);
    for cut in [len - 1, base] {
        file.set_len(cut).unwrap();
        for opened in [options().open(&path), options().open_read_only(&path)] {
            assert!(matches!(opened, Err(Error::Truncated { .. })), "{opened:?}");
        }
    }
}

#[test]
fn a_flipped_bit_of_a_hint_hides_no_pin_and_no_snapshot() {
    for (word, bits) in [(PINNED, 64), (BORROWED, 64)] {
        for bit in 0..bits {
            let (lied, ids) = with_records();
            let snapshot = lied.store.snapshot().unwrap();
            let pin = lied.store.pin().unwrap();
            let lent = pin.get(ids[0]).unwrap().unwrap();
            lied.flip(word, bit);
            for round in 0..20 {
                ids.iter().for_each(|&id| _ = lied.store.put(id, format!("{round}").as_bytes()).unwrap());
                lied.store.sync().unwrap();
            }
            assert_eq!(lent, &b"2"[..], "word {word}, bit {bit}");
            for &id in &ids {
                let found = snapshot.get(id).unwrap();
                assert_eq!(found, Some(&b"2"[..]), "word {word}, bit {bit}, id {id}");
            }
        }
    }
}
