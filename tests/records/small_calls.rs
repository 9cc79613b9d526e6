//! The small calls beside `put` and `get`: a change that can fail, delete and give something; writes if, and unless; records in
//! the order of ids; a wait for a content; handles as values.
//!
//! Fails when: a change that failed leaves anything; of several who ask at once not exactly one is served; what was changed
//! meanwhile is deleted; a durability is not that which the call asked for; a wait is woken for nothing, or waits for what is
//! there; a dead handle is said to live, or a stopped one to be dead.

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{self, Me, PATIENCE, Worker};
use nix::sys::signal::Signal;
use recstore::{Action, Durability, Error, HandleId, Options, Store, Swap, bytemuck};

fn small() -> Options {
    Options::new().record_size(64).regions(3).slots_per_extent(16)
}

fn new_store() -> (tempfile::TempDir, Store) {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    (dir, store)
}

fn number(data: &[u8]) -> u64 {
    u64::from_le_bytes(data.try_into().unwrap())
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    let store = Store::open(Path::new(&me.var("STORE"))).unwrap();
    store.put(1, bytemuck::bytes_of(&store.holder().unwrap())).unwrap();
    me.say("attached");
    me.wait_for_the_end();
}

#[test]
fn a_change_keeps_puts_or_deletes_and_gives_a_value() {
    let (_dir, store) = new_store();
    let kept: Result<u8, Error> = store.modify(1, |old| Ok((Action::<&[u8]>::Keep, u8::from(old.is_none()))));
    assert_eq!(kept.unwrap(), 1);
    assert!(!store.contains(1).unwrap());
    let put: Result<&str, Error> = store.modify(1, |_| Ok((Action::Put(b"one"), "put")));
    assert_eq!((put.unwrap(), store.get(1).unwrap().unwrap().data()), ("put", &b"one"[..]));
    let deleted: Result<usize, Error> =
        store.modify(1, |old| Ok((Action::<&[u8]>::Delete, old.map_or(0, <[u8]>::len))));
    assert_eq!(deleted.unwrap(), 3);
    assert!(!store.contains(1).unwrap());
    let of_nothing: Result<bool, Error> = store.modify(1, |old| Ok((Action::<&[u8]>::Delete, old.is_some())));
    assert!(!of_nothing.unwrap());
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_change_that_fails_changes_nothing_and_gives_its_error() {
    #[derive(Debug)]
    enum Refused {
        Empty,
        Store(Error),
    }
    impl From<Error> for Refused {
        fn from(error: Error) -> Self {
            Self::Store(error)
        }
    }
    let (_dir, store) = new_store();
    let version = store.put(1, b"one").unwrap();
    let refused = store.modify(1, |_| Err::<(Action<&[u8]>, ()), _>(Refused::Empty));
    assert!(matches!(refused, Err(Refused::Empty)));
    let too_long = store.modify(1, |_| Ok::<_, Refused>((Action::Put([0; 65]), ())));
    assert!(matches!(too_long, Err(Refused::Store(Error::RecordTooLong { len: 65, max: 64, .. }))));
    let reentrant =
        store.modify(1, |_| Ok::<_, Refused>((Action::Put(store.put(2, b"no").map(|_| b"x")?), ())));
    assert!(matches!(reentrant, Err(Refused::Store(Error::Reentrant { .. }))));
    assert_eq!(store.version(1).unwrap(), Some(version));
    assert!(!store.contains(2).unwrap());
    store.put(2, b"the lock is free").unwrap();
}

#[test]
fn of_all_who_take_at_once_each_gets_another_and_the_last_one_deletes() {
    let (_dir, store) = new_store();
    const ALL: u64 = 4000;
    store.put(1, ALL.to_le_bytes()).unwrap();
    let sum = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let take = || {
                    store.modify(1, |old| {
                        Ok::<_, Error>(match old.map(number) {
                            None => (Action::Keep, None),
                            Some(1) => (Action::Delete, Some(1)),
                            Some(n) => (Action::Put((n - 1).to_le_bytes()), Some(n)),
                        })
                    })
                };
                while let Some(n) = take().unwrap() {
                    sum.fetch_add(n, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), ALL * (ALL + 1) / 2);
    assert!(!store.contains(1).unwrap());
}

#[test]
fn of_all_who_put_what_is_absent_one_does_and_all_who_get_or_insert_get_that_ones() {
    let (_dir, store) = new_store();
    let (done, made) = (AtomicU32::new(0), AtomicU32::new(0));
    for id in 0..200 {
        let seen: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads = (0..4u8).map(|n| {
                let (store, done, made) = (&store, &done, &made);
                scope.spawn(move || {
                    if let Swap::Done(_) = store.put_if_absent(id, [n]).unwrap() {
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                    let record = store.get_or_insert_with(1000 + id, || {
                        made.fetch_add(1, Ordering::SeqCst);
                        [n]
                    });
                    let record = record.unwrap();
                    assert_eq!(store.get(1000 + id).unwrap().unwrap(), record);
                    record.into_data()
                })
            });
            threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(seen.iter().all(|data| *data == seen[0]), "{seen:?}");
    }
    assert_eq!((done.into_inner(), made.into_inner()), (200, 200));
}

#[test]
fn what_is_not_as_expected_is_not_deleted() {
    let (_dir, store) = new_store();
    let old = store.put(1, b"old").unwrap();
    let new = store.put(1, b"new").unwrap();
    assert!(!store.compare_and_delete(1, old).unwrap());
    assert_eq!(store.version(1).unwrap(), Some(new));
    assert!(store.compare_and_delete(1, new).unwrap());
    assert!(!store.compare_and_delete(1, new).unwrap());
    assert!(!store.contains(1).unwrap());
}

#[test]
fn a_record_that_changes_while_it_is_looked_at_is_looked_at_again() {
    let (_dir, store) = new_store();
    store.write_many((0..50).map(|id| (id, b"to go"))).unwrap();
    let mut looks = 0;
    let deleted = store.retain(|id, data| {
        looks += 1;
        if id % 2 == 0 && data == b"to go" {
            store.put(id, b"to stay").unwrap(); // Somebody changes it meanwhile.
        }
        data == b"to stay"
    });
    assert_eq!(deleted.unwrap(), 25);
    assert_eq!(looks, 75);
    assert_eq!(store.len().unwrap(), 25);
    assert!(store.iter().all(|record| record.is_ok_and(|r| r.id() % 2 == 0 && r.data() == b"to stay")));
}

#[test]
fn each_call_has_the_durability_that_it_asks_for() {
    let (_dir, store) = new_store();
    let durable = || store.stats().unwrap().durable_writes;
    let calls: [(&str, &dyn Fn(Durability)); 6] = [
        ("put", &|d| _ = store.put_with(1, b"x", d).unwrap()),
        ("update", &|d| _ = store.update_with(1, d, |_| Some(b"y")).unwrap()),
        ("modify", &|d| store.modify_with(1, d, |_| Ok::<_, Error>((Action::Put(b"z"), ()))).unwrap()),
        ("write_many", &|d| _ = store.write_many_with([(1, b"v")], d).unwrap()),
        ("compare_and_swap", &|d| {
            let version = store.version(1).unwrap();
            assert!(matches!(store.compare_and_swap_with(1, version, b"w", d).unwrap(), Swap::Done(_)));
        }),
        ("delete", &|d| assert!(store.delete_with(1, d).unwrap())),
    ];
    for (name, call) in calls {
        let before = durable();
        store.put(1, b"there").unwrap();
        call(Durability::Process);
        assert_eq!(durable(), before, "{name} asked for the disk unasked");
        store.put(1, b"there").unwrap();
        call(Durability::Disk);
        assert_eq!(durable(), before + 1, "{name} did not ask for the disk");
    }
    let before = durable();
    store.put(1, b"there").unwrap();
    let delete = |_: Option<&[u8]>| Ok::<_, Error>((Action::<&[u8]>::Delete, ()));
    store.modify_with(1, Durability::Disk, delete).unwrap();
    assert_eq!(durable(), before + 1, "a deletion by modify did not ask for the disk");
}

#[test]
fn a_range_of_a_snapshot_comes_in_the_order_of_ids_from_either_end() {
    let (_dir, store) = new_store();
    let ids = [7, u64::MAX, 0, 300, 41, 1 << 40, 8, 40];
    store.write_many(ids.map(|id| (id, id.to_le_bytes()))).unwrap();
    let snapshot = store.snapshot().unwrap();
    store.put(9, b"too late").unwrap();
    store.delete(8).unwrap();
    let of = |found: recstore::Result<(u64, recstore::Version, &[u8])>| {
        let (id, _, data) = found.unwrap();
        assert_eq!(number(data), id);
        id
    };
    assert_eq!(snapshot.range(..).map(of).collect::<Vec<_>>(), [0, 7, 8, 40, 41, 300, 1 << 40, u64::MAX]);
    assert_eq!(snapshot.range(7..41).map(of).collect::<Vec<_>>(), [7, 8, 40]);
    assert_eq!(snapshot.range(8..=41).rev().map(of).collect::<Vec<_>>(), [41, 40, 8]);
    assert_eq!(snapshot.range(u64::MAX..).map(of).collect::<Vec<_>>(), [u64::MAX]);
    let many = snapshot.get_many(&[41, 9, 8]).unwrap();
    assert_eq!(many, [Some(&41u64.to_le_bytes()[..]), None, Some(&8u64.to_le_bytes()[..])]);
}

#[test]
fn a_wait_for_a_content_looks_first_and_then_at_changes_of_its_record_alone() {
    let dir = common::scratch();
    let store = small().regions(1).create(dir.path().join("s")).unwrap();
    let mut watch = store.watch(1).unwrap();
    store.put(1, b"0").unwrap();
    let zero = watch.wait_until(None, |data| (data? == b"0").then_some(())).unwrap();
    assert_eq!(zero, Some(()), "what was there already");
    // It was seen: `wait` does not tell of it.
    assert_eq!(watch.wait(Some(Duration::ZERO)).unwrap(), recstore::Event::TimedOut);
    let mut looks = 0;
    let nothing = watch.wait_until(Some(Duration::ZERO), |_| {
        looks += 1;
        None::<()>
    });
    assert_eq!((nothing.unwrap(), looks), (None, 1));
    std::thread::scope(|scope| {
        let (to, looked) = std::sync::mpsc::channel();
        let waiter = scope.spawn(|| {
            let to = to;
            watch.wait_until(Some(PATIENCE), |data| {
                to.send(data.map(<[u8]>::to_vec)).unwrap();
                data.is_none().then_some("deleted")
            })
        });
        assert_eq!(looked.recv().unwrap().as_deref(), Some(&b"0"[..]));
        for _ in 0..100 {
            store.put(2, b"another record of the region").unwrap();
        }
        store.put(1, b"1").unwrap();
        assert_eq!(looked.recv().unwrap().as_deref(), Some(&b"1"[..]), "woken for another record");
        store.delete(1).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap(), Some("deleted"));
        assert_eq!(looked.iter().collect::<Vec<_>>(), [None]);
    });
}

#[test]
fn a_handle_lives_until_it_is_closed_or_its_process_dies_stopped_or_not() {
    let (dir, store) = new_store();
    let path = dir.path().join("s");
    let mut worker = Worker::spawn("holder", &[("STORE", path.to_str().unwrap())]);
    worker.expect("attached");
    let holder: HandleId = store.typed().unwrap().get(1).unwrap().unwrap();
    let reader = Store::open_read_only(&path).unwrap();
    assert_ne!(holder, store.holder().unwrap());
    assert!(store.is_alive(holder).unwrap() && reader.is_alive(holder).unwrap());
    worker.signal(Signal::SIGSTOP);
    worker.wait_until_stopped();
    assert!(store.is_alive(holder).unwrap() && reader.is_alive(holder).unwrap(), "it is stopped, not dead");
    worker.kill();
    assert!(!store.is_alive(holder).unwrap() && !reader.is_alive(holder).unwrap());
    // Its place is another's now.
    let next = Store::open(&path).unwrap();
    assert!(store.is_alive(next.holder().unwrap()).unwrap());
    assert!(!store.is_alive(holder).unwrap());
    assert!(matches!(reader.holder(), Err(Error::ReadOnly { .. })));
    for nobody in [HandleId::default(), bytemuck::cast([u32::MAX, 7]), bytemuck::cast([0, 0])] {
        assert!(!store.is_alive(nobody).unwrap(), "{nobody:?}");
    }
}
