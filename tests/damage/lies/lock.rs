//! The word of a lock that a living process holds, and the words of a seat that is held.

use std::sync::mpsc::channel;
use std::time::Duration;

use recstore::testing::set_hook;
use recstore::{Error, Store};

use super::file::{Lied, head, options};

/// The seat of the store that is open, and of the next one.
const SEATS: usize = 8192;
const SEAT_BYTES: usize = 64;

/// Has `change` done while another handle is in the middle of a write of `id`, at a step, and gives what it gives.
fn beside_a_write_at<T: Send>(
    lied: &Lied,
    id: u64,
    at: &'static str,
    change: impl FnOnce() -> T + Send,
) -> T {
    let (reached, is_there) = channel();
    let (go_on, may_go_on) = channel::<()>();
    std::thread::scope(move |scope| {
        scope.spawn(move || {
            let owner = Store::open(&lied.path).unwrap();
            let mut met = false;
            set_hook(Some(Box::new(move |step| {
                if step == at && !met {
                    met = true;
                    reached.send(()).unwrap();
                    _ = may_go_on.recv();
                }
            })));
            owner.put(id, b"the owner's").unwrap();
            set_hook(None);
        });
        let go_on = go_on; // If this fails, the owner goes on.
        is_there.recv().unwrap();
        let result = change();
        drop(go_on);
        result
    })
}

#[test]
fn a_flipped_bit_of_a_lock_word_does_not_rob_the_living() {
    let steps = ["lock: taken", "put: slot taken", "publish: data written", "publish: seq stored"];
    for bit in 0..64 {
        let lied = Lied::new();
        let ids = lied.ids(0, 3);
        lied.store.put(ids[0], b"1").unwrap();
        let beside = options().lock_timeout(Some(Duration::from_millis(5))).open(&lied.path).unwrap();
        let at = steps[bit as usize % steps.len()];
        let when = format!("bit {bit}, {at}");
        beside_a_write_at(&lied, ids[1], at, || {
            lied.flip(lied.head(head::LOCK), bit);
            let refused = beside.put(ids[2], b"another's").unwrap_err();
            let holder = std::process::id().to_string();
            assert!(matches!(refused, Error::Busy { .. }), "{when}: {refused}");
            assert!(refused.to_string().contains(&holder), "{when}: {refused}");
            assert_eq!(beside.get(ids[0]).unwrap().unwrap().data(), b"1", "{when}");
        });
        beside.put(ids[2], b"another's").unwrap();
        for (id, data) in [(ids[0], &b"1"[..]), (ids[1], b"the owner's"), (ids[2], b"another's")] {
            assert_eq!(lied.store.get(id).unwrap().unwrap().data(), data, "{when}");
        }
        assert_eq!(lied.store.verify().unwrap().damage, [], "{when}");
    }
}

#[test]
fn a_flipped_bit_of_a_seats_generation_hides_no_pin_and_no_snapshot() {
    for own in [true, false] {
        for bit in (0..64).step_by(3) {
            let lied = Lied::new();
            let ids = lied.ids(0, 20);
            ids.iter().for_each(|&id| _ = lied.store.put(id, b"2").unwrap());
            lied.store.sync().unwrap();
            let other = Store::open(&lied.path).unwrap();
            let holder = if own { &lied.store } else { &other };
            let snapshot = holder.snapshot().unwrap();
            let pin = holder.pin().unwrap();
            let lent = pin.get(ids[0]).unwrap().unwrap();
            lied.flip(SEATS + if own { 0 } else { SEAT_BYTES }, bit);
            for round in 0..10 {
                ids.iter().for_each(|&id| _ = lied.store.put(id, format!("{round}").as_bytes()).unwrap());
                lied.store.sync().unwrap();
            }
            let when = format!("own seat: {own}, bit {bit}");
            assert_eq!(lent, &b"2"[..], "{when}");
            for &id in &ids {
                assert_eq!(snapshot.get(id).unwrap(), Some(&b"2"[..]), "{when}, id {id}");
            }
        }
    }
}
