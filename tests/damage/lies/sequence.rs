//! The next sequence number of a region.

use recstore::Error;

use super::file::{LAYOUT, Lied, MAX_48, PRESENT, checked, head, in_time};

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

/// A version that no region counts to, in a slot whose checksum holds.
#[test]
fn a_slot_of_a_version_that_was_never_given_out_stops_no_writes() {
    let last_block = (1 << 23) - 1;
    let lies =
        [1 << 62, (1 << 62) + 5, 7 << 40, (last_block - 1) << 40 | 7, last_block << 40 | 7, (1 << 63) - 1];
    for lie in lies {
        for how in ["repair", "death", "crash"] {
            let when = format!("version {lie:#x}, {how}");
            let (lied, ids) = with_tombstones();
            let is_it = |&slot: &usize| {
                lied.get(LAYOUT.slot(slot) + 8) == ids[30] && lied.get(LAYOUT.slot(slot)) != 0
            };
            let newest = |&slot: &usize| lied.get(LAYOUT.slot(slot));
            let slot = LAYOUT.slot((0..LAYOUT.slots).filter(is_it).max_by_key(newest).unwrap());
            lied.set(slot, PRESENT | lie);
            let mut bytes: Vec<u8> = (0..5).flat_map(|n| lied.get(slot + 8 * n).to_le_bytes()).collect();
            let len = u32::from_le_bytes(bytes[24..28].try_into().unwrap()) & ((1 << 30) - 1);
            bytes[28..32].fill(0);
            let sum = crc32fast::hash(&bytes[..32 + len as usize]);
            lied.set(slot + 24, lied.get(slot + 24) & 0xffff_ffff | u64::from(sum) << 32);
            let crashed;
            let store = match how {
                "repair" => {
                    lied.store.repair().unwrap();
                    &lied.store
                }
                "death" => {
                    lied.kill_writer();
                    &lied.store
                }
                _ => {
                    crashed = lied.after_a_crash();
                    &crashed
                }
            };
            for &id in &ids {
                in_time("put", || store.put(id, b"3").map(drop))
                    .unwrap_or_else(|error| panic!("{when}: {error}"));
            }
            let version = store.put(ids[30], b"4").unwrap();
            assert!(version.get() > lie || lie >> 40 == last_block, "{when}: {version:?}");
            assert_eq!(store.get(ids[30]).unwrap().unwrap().data(), b"4", "{when}");
            store.repair().unwrap();
            assert_eq!(store.verify().unwrap().damage, [], "{when}");
            assert_eq!(store.get(ids[30]).unwrap().unwrap().data(), b"4", "{when}");
        }
    }
}
