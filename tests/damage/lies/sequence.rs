//! The next sequence number of a region.

use recstore::Error;

use super::file::{Lied, MAX_48, PRESENT, checked, head, in_time};

/// How many blocks of versions were given out, in the control page.
const BLOCKS: usize = 4096 + 448;

/// Records that were overwritten after a flush, and of which the first half was deleted: what an older number is
/// given to loses against the tombstones.
fn with_tombstones() -> (Lied, Vec<u64>) {
    let lied = Lied::new();
    let ids = lied.ids(0, 40);
    ids.iter().for_each(|&id| _ = lied.store.put(id, b"1").unwrap());
    lied.store.sync().unwrap();
    ids.iter().for_each(|&id| _ = lied.store.put(id, b"2").unwrap());
    ids[..20].iter().for_each(|&id| _ = lied.store.delete(id).unwrap());
    (lied, ids)
}

fn flipped_bits_lose_no_write(word: usize, heal: fn(&Lied, u64)) {
    for bit in 0..64 {
        let (lied, ids) = with_tombstones();
        lied.flip(lied.head(word), bit);
        assert!(!lied.store.verify().unwrap().is_clean(), "bit {bit}");
        for &id in &ids[..20] {
            lied.store.put(id, b"again").unwrap();
        }
        heal(&lied, ids[30]);
        for &id in &ids[..20] {
            let found = lied.store.get(id).unwrap();
            assert_eq!(found.as_ref().map(recstore::Record::data), Some(&b"again"[..]), "bit {bit}, id {id}");
        }
        assert_eq!(lied.store.verify().unwrap().damage, [], "bit {bit}");
    }
}

#[test]
fn a_flipped_bit_of_the_next_seq_loses_no_write_at_a_death() {
    for word in [head::NEXT_SEQ, head::NEXT_SEQ_CHECK] {
        flipped_bits_lose_no_write(word, |lied, id| {
            lied.kill_writer();
            lied.store.put(id, b"x").unwrap();
        });
    }
}

#[test]
fn a_flipped_bit_of_the_next_seq_loses_no_write_at_a_repair() {
    for word in [head::NEXT_SEQ, head::NEXT_SEQ_CHECK] {
        flipped_bits_lose_no_write(word, |lied, _| {
            lied.store.repair().unwrap();
        });
    }
}

#[test]
fn a_next_seq_that_no_region_counts_to_is_named_and_the_region_takes_writes() {
    for lie in [u64::MAX - 3, u64::MAX, PRESENT | 1 << 62, PRESENT - 1, 0] {
        let (lied, ids) = with_tombstones();
        let last = lied.store.put(ids[30], b"3").unwrap();
        lied.set(lied.head(head::NEXT_SEQ), lie);
        lied.set(lied.head(head::NEXT_SEQ_CHECK), !lie);
        assert!(!lied.store.verify().unwrap().is_clean(), "{lie:#x}");
        let version = in_time("put", || lied.store.put(ids[30], b"4").unwrap());
        assert!(version > last && version.get() < 1 << 62, "{lie:#x}: {version:?} after {last:?}");
        assert_eq!(lied.store.verify().unwrap().damage, [], "{lie:#x}");
    }
}

#[test]
fn a_number_of_blocks_that_was_never_given_out_lets_no_version_pass_the_last_one() {
    for blocks in [MAX_48, 1 << 23, 0] {
        for lie in [Some(u64::MAX), Some(u64::MAX - 1), None] {
            let when = format!("{blocks:#x} blocks, next {lie:x?}");
            let (lied, ids) = with_tombstones();
            let last = lied.store.put(ids[30], b"3").unwrap();
            lied.set(BLOCKS, checked(blocks));
            if let Some(lie) = lie {
                lied.set(lied.head(head::NEXT_SEQ), lie);
                lied.set(lied.head(head::NEXT_SEQ_CHECK), !lie);
            }
            assert!(!lied.store.verify().unwrap().is_clean(), "{when}");
            for _ in 0..3 {
                match in_time("put", || lied.store.put(ids[30], b"4")) {
                    // Where the number can't be, versions go on in the middle of all that there are.
                    Ok(version) => {
                        assert!(version > last && version.get() < 1 << 62 | 8, "{when}: {version:?}")
                    }
                    Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{when}: {error}"),
                }
            }
            lied.store.repair().unwrap();
            assert_eq!(lied.store.verify().unwrap().damage, [], "{when}");
            assert!(lied.store.put(ids[30], b"5").unwrap() > last, "{when}");
            assert_eq!(lied.store.get(ids[30]).unwrap().unwrap().data(), b"5", "{when}");
        }
    }
}
