//! Every call of a store whose bytes may be anything: none may panic, hang, or touch what it should not.

use std::ops::ControlFlow;

use recstore::{Durability, Store, Version};

/// Extents larger than this are not asked for: a file may say that it has extents of gigabytes.
const GROWTH_MAX: u64 = 1 << 20;

/// Calls everything that reads. No number of what comes out is believed.
pub(crate) fn read_everything(store: &Store, ids: &[u64]) {
    let mut out = Vec::new();
    for &id in ids {
        let whole = store.get(id);
        if let Ok(Some(record)) = &whole {
            assert!(record.id() == id && record.data().len() <= store.record_size());
        }
        let _ = store.get_into(id, &mut out);
        let _ = store.contains(id);
        let _ = store.version(id);
        assert!(store.region_of(id) < 1 << 14);
    }
    let _ = store.get_many(ids, |_, record| _ = record.map(|(_, data)| data.len()));
    let _ = store.len();
    let _ = store.is_empty();
    let mut given = 0;
    for record in store.iter() {
        // Each slot is given once, each error ends the pass or belongs to a slot.
        given += 1;
        assert!(given <= 1 << 18, "iter does not come to an end");
        if let Ok(record) = record {
            assert!(record.data().len() <= store.record_size());
        }
    }
    let _ = store.scan(
        |_, _, data| {
            if data.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    let _ = store.stats();
    if let Ok(report) = store.verify() {
        report.damage.iter().for_each(|damage| assert!(!damage.to_string().is_empty()));
    }
    for number in [0, 1, 7, u32::MAX] {
        let _ = store.inspect_region(number);
        let _ = store.inspect_slot(number);
    }
    assert!(store.opened().dropped.len() <= 1 << 18);
}

/// Whether writing may be tried: growth would not ask for a lot of room.
pub(crate) fn may_grow(store: &Store) -> bool {
    store
        .stats()
        .is_ok_and(|s| s.extent_size.is_none_or(|bytes| bytes <= GROWTH_MAX) && s.index_bytes <= GROWTH_MAX)
}

/// Calls everything that writes. What was written is there, or there is an error.
pub(crate) fn write_everything(store: &Store, ids: &[u64]) {
    let data = vec![0x5a; store.record_size().min(40)];
    for (i, &id) in ids.iter().enumerate() {
        match i % 6 {
            0 => {
                if store.put(id, &data).is_ok() {
                    holds(store, id, Some(&data));
                }
            }
            1 => {
                if store.delete(id).is_ok() {
                    holds(store, id, None);
                }
            }
            2 => {
                let changed = store.update(id, |old| {
                    let mut new = old.unwrap_or_default().to_vec();
                    new.iter_mut().for_each(|byte| *byte ^= 1);
                    Some(new)
                });
                let _ = changed;
            }
            3 => {
                let expected = store.version(id).unwrap_or(Some(Version::from_u64(1)));
                let _ = store.compare_and_swap(id, expected, &data);
            }
            4 => {
                let writes = ids.iter().take(3).map(|&id| (id, &data[..]));
                if store.write_many(writes).is_ok() {
                    ids.iter().take(3).for_each(|&id| holds(store, id, Some(&data)));
                }
            }
            _ => _ = store.put_with(id, &data, Durability::Disk),
        }
    }
    if let Ok(pin) = store.pin() {
        ids.iter().for_each(|&id| _ = pin.get(id).map(|data| data.map(<[u8]>::len)));
    }
    if let Some(&id) = ids.first()
        && let Ok(mut reservation) = store.reserve(id, data.len())
        && reservation.write_at(0, &data).is_ok()
        && reservation.commit().is_ok()
    {
        holds(store, id, Some(&data));
    }
    let _ = store.sync();
}

/// A write that was acknowledged is seen, or an error says why not.
fn holds(store: &Store, id: u64, data: Option<&[u8]>) {
    if let Ok(found) = store.get(id) {
        let found = found.map(recstore::Record::into_data);
        assert!(found.as_deref() == data, "id {id}: {found:?} after {data:?} was acknowledged");
    }
}
