//! What says which bytes are lent: the counts of a handle's borrows, and the clock of borrows.

use super::file::{Lied, MAX_48, checked};

/// The clock of borrows and its twin, in the control page.
const CLOCKS: [usize; 2] = [4096 + 208, 4096 + 216];
/// The first word of the store's seat that counts borrows.
const BORROWS: usize = 8192 + 32;

/// A store of which records are lent while `lie` was told, once before the pin begins and once after: they must stay as they
/// are while their slots are wanted.
fn lent_stays(when: &str, lie: impl Fn(&Lied), reaches_verify: bool) {
    for is_early in [true, false] {
        let lied = Lied::new();
        let ids = lied.ids(0, 20);
        let fill = |byte: u8| ids.iter().for_each(|&id| _ = lied.store.put(id, &[byte; 60]).unwrap());
        // The clock goes on.
        for byte in 0..4 {
            let pin = lied.store.pin().unwrap();
            fill(byte);
            drop(pin);
            fill(byte);
        }
        if is_early {
            lie(&lied);
        }
        let pin = lied.store.pin().unwrap();
        let held: Vec<&[u8]> = ids.iter().map(|&id| pin.get(id).unwrap().unwrap()).collect();
        if !is_early {
            lie(&lied);
            let named = !lied.store.verify().unwrap().is_clean();
            assert!(named || !reaches_verify, "{when}: verify says nothing");
        }
        for byte in 10..80 {
            fill(byte);
        }
        for bytes in &held {
            assert_eq!(*bytes, [3; 60], "{when}, {is_early}: what was lent has changed");
        }
        lied.store.repair().unwrap();
        assert_eq!(lied.store.verify().unwrap().damage, [], "{when}, {is_early}");
        fill(90);
        assert_eq!(held[0], [3; 60], "{when}, {is_early}: what was lent has changed after a repair");
        drop(held);
        drop(pin);
        let path = lied.path.clone();
        let (_, _dir) = lied.close();
        let store = super::file::options().open(&path).unwrap();
        assert!(store.verify().unwrap().is_clean(), "{when}, {is_early}");
        store.put(ids[0], b"new").unwrap();
    }
}

#[test]
fn a_flipped_bit_of_a_count_of_borrows_frees_nothing_that_is_lent() {
    for word in 0..4 {
        for bit in (0..64).filter(|bit| word == 3 && bit % 2 == 0 || bit % 9 == word) {
            let at = BORROWS + 8 * word as usize;
            lent_stays(&format!("word {word}, bit {bit}"), |lied| lied.flip(at, bit), true);
        }
        lent_stays(&format!("word {word}: zero"), |lied| lied.set(BORROWS + 8 * word as usize, 0), true);
    }
}

#[test]
fn a_clock_of_borrows_that_lies_frees_nothing_that_is_lent() {
    for at in CLOCKS {
        for bit in (0..64).step_by(5) {
            lent_stays(&format!("{at}, bit {bit}"), |lied| lied.flip(at, bit), true);
        }
        for lie in [0, 1, 1 << 30, (1 << 40) - 1, 1 << 40, MAX_48] {
            lent_stays(&format!("{at}: {lie:#x}"), |lied| lied.set(at, checked(lie)), false);
        }
    }
    lent_stays("both clocks are zeros", |lied| CLOCKS.iter().for_each(|&at| lied.set(at, 0)), true);
}
