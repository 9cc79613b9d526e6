//! Going through all records while they change: by who goes through them, between one record and the next.
//!
//! Short records are copied many at a time, so what is given may have been copied long before. Fails when: a record
//! is given after it was deleted, or as it was before it was overwritten; one that is there throughout is left out,
//! or given twice.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::common;
use crate::common::value::{parse, value};
use recstore::{Options, Store};

const RECORDS: u64 = 300;

/// Goes through a store by `scan` or by `iter`: gives id and data of each record to `each`.
type Pass = fn(&Store, &mut dyn FnMut(u64, &[u8]));

const PASSES: [(&str, Pass); 2] = [
    ("scan", |store, each| {
        let all = store.scan(|id, _, data| {
            each(id, data);
            ControlFlow::Continue(())
        });
        all.unwrap();
    }),
    ("iter", |store, each| {
        for record in store {
            let record = record.unwrap();
            each(record.id(), &record);
        }
    }),
];

/// Has `test` try both passes, over short and long records, of a store that was flushed and of one that was not.
fn for_each_kind(test: impl Fn(&str, &Store, Pass, usize)) {
    for (name, pass) in PASSES {
        for (len, sync) in [(64, false), (64, true), (3000, false), (3000, true)] {
            let dir = common::scratch();
            let options = Options::new().record_size(len).regions(2);
            let store = options.create(dir.path().join("store")).unwrap();
            (0..RECORDS).for_each(|id| _ = store.put(id, &value(id, 0, 0, len)).unwrap());
            if sync {
                store.sync().unwrap();
            }
            test(&format!("{name}, {len} bytes, synced: {sync}"), &store, pass, len);
        }
    }
}

#[test]
fn what_was_deleted_before_it_is_reached_is_not_given() {
    for_each_kind(|kind, store, pass, _| {
        let mut there: BTreeMap<u64, bool> = (0..RECORDS).map(|id| (id, false)).collect();
        pass(store, &mut |id, _| {
            let given = there.get_mut(&id).unwrap_or_else(|| panic!("{kind}: {id} was deleted before"));
            assert!(!*given, "{kind}: {id} came twice");
            *given = true;
            // One in three of what is still to come, first what is near.
            let next =
                there.range(id + 1..).chain(there.range(..id)).find(|(id, given)| !**given && *id % 3 == 0);
            if let Some((&next, _)) = next {
                assert!(store.delete(next).unwrap());
                there.remove(&next);
            }
        });
        assert!(there.len() < RECORDS as usize, "{kind}: nothing was deleted");
        assert!(there.values().all(|given| *given), "{kind}: a record is missing");
    });
}

#[test]
fn what_was_overwritten_before_it_is_reached_is_given_as_it_is() {
    for_each_kind(|kind, store, pass, len| {
        let mut now: BTreeMap<u64, u64> = (0..RECORDS).map(|id| (id, 0)).collect();
        let mut given = Vec::new();
        pass(store, &mut |id, data| {
            assert_eq!(parse(id, data), Ok((0, now[&id])), "{kind}: {id} as it was before");
            assert!(!given.contains(&id), "{kind}: {id} came twice");
            given.push(id);
            for next in [id + 1, id + 40].map(|next| next % RECORDS) {
                let n = now.get_mut(&next).unwrap();
                *n += 1;
                store.put(next, &value(next, 0, *n, len)).unwrap();
            }
        });
        assert_eq!(given.len(), RECORDS as usize, "{kind}: a record is missing");
    });
}
