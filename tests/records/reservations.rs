//! Reservations: records that are written where they will lie.

use crate::common::{Me, Worker};
use recstore::{Error, Options, Store};

fn small() -> Options {
    Options::new().record_size(64).regions(1).slots_per_extent(16)
}

fn is_clean(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

#[test]
fn what_is_committed_is_read_and_until_then_the_old_record_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    store.put(1, b"old").unwrap();
    let mut room = store.reserve(1, 24).unwrap();
    room.write_slice_at(1, &[2u64, 3]).unwrap();
    room.write_slice_at(0, &[1u64]).unwrap();
    assert_eq!(store.get(1).unwrap().unwrap().data(), b"old");
    // The region's lock is not held: others write meanwhile, to this record too.
    let between = store.put(1, b"between").unwrap();
    for id in 10..50 {
        store.put(id, b"others").unwrap();
    }
    let version = room.commit().unwrap();
    assert!(version > between);
    let record = store.get(1).unwrap().unwrap();
    assert_eq!((record.version(), record.data()), (version, bytemuck::cast_slice(&[1u64, 2, 3])));
    let mut new = store.reserve(2, 64).unwrap();
    new.fill(7).unwrap();
    assert!(matches!(new.write_at(60, b"fives"), Err(Error::RecordTooLong { len: 65, max: 64, .. })));
    let mut half = [0; 5];
    new.write_at(30, b"three").unwrap();
    new.read_at(28, &mut half).unwrap();
    assert_eq!(&half, b"\x07\x07thr");
    new.write_at(30, &[7; 5]).unwrap();
    new.commit().unwrap();
    assert_eq!(store.get(2).unwrap().unwrap().data(), [7; 64]);
    store.reserve(3, 0).unwrap().commit().unwrap();
    assert_eq!(store.get(3).unwrap().unwrap().data(), b"");
    assert!(matches!(store.reserve(4, 65), Err(Error::RecordTooLong { len: 65, max: 64, .. })));
    let mut streamed = store.reserve(4, 9).unwrap();
    assert_eq!(std::io::copy(&mut &b"nine byte"[..], &mut streamed).unwrap(), 9);
    assert_eq!(std::io::Write::write(&mut streamed, b"more").unwrap(), 0);
    streamed.commit().unwrap();
    assert_eq!(store.get(4).unwrap().unwrap().data(), b"nine byte");
    is_clean(&store);
}

#[test]
fn what_is_dropped_leaves_the_old_record_and_gives_its_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().create(dir.path().join("s.rec")).unwrap();
    store.put(1, b"old").unwrap();
    let before = store.stats().unwrap();
    for _ in 0..100 {
        store.reserve(1, 10).unwrap().fill(9).unwrap();
    }
    let after = store.stats().unwrap();
    assert_eq!((after.extents, after.free_slots), (before.extents, before.free_slots));
    assert_eq!(store.get(1).unwrap().unwrap().data(), b"old");
    is_clean(&store);
    let room = store.reserve(5, 3).unwrap();
    is_clean(&store);
    drop(room);
    is_clean(&store);
}

#[test]
fn a_rebuild_leaves_what_the_living_have_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    let store = small().create(&path).unwrap();
    store.put(1, b"old").unwrap();
    let mut room = store.reserve(1, 3).unwrap();
    let mut worker = Worker::spawn("die inside", &[("STORE", path.to_str().unwrap())]);
    worker.expect("inside");
    worker.kill();
    for id in 100..200 {
        store.put(id, b"after the rebuild").unwrap();
    }
    room.write_at(0, b"new").unwrap();
    room.commit().unwrap();
    assert_eq!(store.get(1).unwrap().unwrap().data(), b"new");
    for id in 100..200 {
        assert_eq!(store.get(id).unwrap().unwrap().data(), b"after the rebuild");
    }
    is_clean(&store);
}

#[test]
fn what_the_dead_have_reserved_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.rec");
    let store = small().create(&path).unwrap();
    store.put(1, b"old").unwrap();
    let mut worker = Worker::spawn("reserve", &[("STORE", path.to_str().unwrap())]);
    worker.expect("reserved");
    is_clean(&store);
    let held = store.stats().unwrap();
    worker.kill();
    is_clean(&store);
    for id in 100..190 {
        store.put(id, b"in the place of what was reserved").unwrap();
    }
    let after = store.stats().unwrap();
    assert!(after.slots <= held.slots, "{} slots, then {}", held.slots, after.slots);
    assert_eq!(store.get(1).unwrap().unwrap().data(), b"old");
    is_clean(&store);
}

#[test]
fn many_fill_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().regions(2).create(dir.path().join("s.rec")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..500u64 {
                    let mut room = store.reserve(round % 20, 40).unwrap();
                    room.fill(thread).unwrap();
                    std::thread::yield_now();
                    if round % 7 != 0 {
                        room.commit().unwrap();
                    }
                    if let Some(record) = store.get(round % 20).unwrap() {
                        assert!(record.iter().all(|&byte| byte == record[0]), "torn");
                    }
                }
            });
        }
    });
    is_clean(&store);
    assert_eq!(store.len().unwrap(), 20);
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    let store = Store::open(me.var("STORE")).unwrap();
    match me.role.as_str() {
        "reserve" => {
            let rooms: Vec<_> = (0..100).map(|_| store.reserve(1, 10).unwrap()).collect();
            me.say("reserved");
            me.wait_for_the_end();
            drop(rooms);
        }
        "die inside" => {
            store
                .update(1, |_| {
                    me.say("inside");
                    me.wait_for_the_end();
                    None::<Vec<u8>>
                })
                .unwrap();
        }
        other => panic!("no role {other}"),
    }
}
