//! What a process of the test does: random calls, each written to the log.

use std::ops::ControlFlow;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::testing::arm;
use recstore::{Commit, Durability, Error, Store, Swap};

use super::log::{Log, Pen};
use crate::common::Me;
use crate::common::value::{parse, value};

/// Records that are written one by one, and in batches.
pub(crate) const IDS: std::ops::Range<u64> = 0..8;
/// Records that are written in batches alone, all of them together, and with one value: so they are one register.
pub(crate) const TOGETHER: [u64; 3] = [100, 101, 102];
pub(crate) const RECORD_SIZE: usize = 160;

/// The register that a record is.
pub(crate) fn register(id: u64) -> u64 {
    if TOGETHER.contains(&id) { TOGETHER[0] } else { id }
}

fn all() -> Vec<u64> {
    IDS.chain(TOGETHER).collect()
}

/// The value that a record's bytes stand for.
pub(crate) fn value_of(id: u64, bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(0, |bytes| {
        let (writer, counter) = parse(id, bytes).unwrap_or_else(|e| panic!("{e}"));
        writer << 32 | counter
    })
}

/// No room: the call says that it has changed nothing.
fn is_full<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Full { .. }))
}

struct Work<'a> {
    store: Store,
    reader: Store,
    pen: Pen<'a>,
    rng: StdRng,
    serial: u64,
    counter: u64,
}

/// Makes calls until it is killed, or its part of the log is full.
pub(crate) fn work(me: &mut Me) {
    let path = me.var("STORE");
    let log = Log::open(Path::new(&me.var("LOG")));
    let serial: u64 = me.var("SERIAL").parse().unwrap();
    let mut rng = StdRng::seed_from_u64(me.var("SEED").parse::<u64>().unwrap() ^ (serial << 32));
    // Half of them die at a step inside of a call, the others by the test's hand.
    if rng.random() {
        arm(rng.random_range(1..4000));
    }
    let store = Store::open(&path).unwrap();
    let reader = loop {
        match Store::open_read_only(&path) {
            Err(Error::NeedsRepair { .. }) => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    let pen = Pen { log: &log, process: serial as usize, used: 0 };
    let mut work = Work { store, reader, pen, rng, serial, counter: 0 };
    while !work.pen.is_full() {
        work.call(&path);
    }
    me.say("full");
    me.wait_for_the_end();
}

impl Work<'_> {
    /// A value that nobody else writes, as bytes of `id`.
    fn bytes(&self, id: u64) -> Vec<u8> {
        let len = 32 + (self.counter as usize * 37) % (RECORD_SIZE - 31);
        value(id, self.serial, self.counter, len)
    }

    fn next_value(&mut self) -> u64 {
        self.counter += 1;
        self.serial << 32 | self.counter
    }

    fn saw(&mut self, begun: u64, seen: &[(u64, u64)]) {
        let ended = self.pen.log.now();
        for &(id, value) in seen {
            self.pen.read(begun, ended, register(id), value);
        }
    }

    /// Records that `TOGETHER` has as one, seen at once.
    fn saw_together(&mut self, how: &str, begun: u64, seen: &[(u64, u64)]) {
        let mut values = seen.iter().filter(|(id, _)| TOGETHER.contains(id)).map(|(_, value)| value);
        let first = values.next();
        assert!(values.all(|value| Some(value) == first), "{how}: a batch in part: {seen:?}");
        self.saw(begun, seen);
    }

    fn call(&mut self, path: &str) {
        let id = self.rng.random_range(IDS);
        match self.rng.random_range(0..100) {
            0..14 => self.put(id, Durability::Process),
            14..16 => self.put(id, Durability::Disk),
            16..24 => self.delete(id),
            24..32 => self.update(id),
            32..40 => self.swap(id),
            40..52 => self.batch(),
            52..55 => self.write_many(id),
            55..59 => self.reserve(id),
            59 => self.store.sync().unwrap(),
            60..78 => self.get(),
            78..86 => self.get_read_only(),
            86..89 => self.get_many(),
            89..92 => self.pin(),
            92..94 => self.snapshot(),
            94..97 => self.iterate(),
            _ => self.open_anew(path),
        }
    }

    fn put(&mut self, id: u64, durability: Durability) {
        let value = self.next_value();
        let bytes = self.bytes(id);
        let begun = self.pen.begin(&[(id, value)]);
        let put = self.store.put_with(id, &bytes, durability);
        if is_full(&put) {
            return self.pen.undone(begun);
        }
        put.unwrap();
        self.pen.end(begun);
    }

    fn delete(&mut self, id: u64) {
        let begun = self.pen.begin(&[(id, 0)]);
        let deleted = self.store.delete(id);
        if is_full(&deleted) {
            return self.pen.undone(begun);
        }
        self.pen.before(begun, u64::from(deleted.unwrap()));
        self.pen.end(begun);
    }

    fn update(&mut self, id: u64) {
        let value = self.next_value();
        let bytes = self.bytes(id);
        let begun = self.pen.begin(&[(id, value)]);
        let pen = &self.pen;
        let updated = self.store.update(id, |old| {
            pen.before(begun, value_of(id, old));
            Some(&bytes)
        });
        if is_full(&updated) {
            return self.pen.undone(begun);
        }
        updated.unwrap();
        self.pen.end(begun);
    }

    fn swap(&mut self, id: u64) {
        let begun = self.pen.log.now();
        let old = self.store.get(id).unwrap();
        let before = value_of(id, old.as_deref());
        self.saw(begun, &[(id, before)]);
        let value = self.next_value();
        let bytes = self.bytes(id);
        let begun = self.pen.begin(&[(id, value)]);
        self.pen.before(begun, before);
        match self.store.compare_and_swap(id, old.map(|r| r.version()), &bytes) {
            Ok(Swap::Done(_)) => self.pen.end(begun),
            Ok(Swap::Conflict { .. }) | Err(Error::Full { .. }) => self.pen.undone(begun),
            Err(e) => panic!("{e}"),
        }
    }

    fn batch(&mut self) {
        let value = self.next_value();
        let durability = if self.rng.random_ratio(1, 20) { Durability::Disk } else { Durability::Process };
        let (ids, mut changes): (Vec<u64>, Vec<(u64, u64)>) = if self.rng.random() {
            let value = if self.rng.random_ratio(1, 8) { 0 } else { value };
            (TOGETHER.to_vec(), vec![(TOGETHER[0], value)])
        } else {
            let mut ids: Vec<u64> = (0..3).map(|_| self.rng.random_range(IDS)).collect();
            ids.sort_unstable();
            ids.dedup();
            let changes = ids.iter().map(|&id| (id, if self.rng.random_ratio(1, 4) { 0 } else { value }));
            let changes = changes.collect();
            (ids, changes)
        };
        let mut batch = self.store.batch();
        for &id in &ids {
            match changes.iter().find(|(register_, _)| *register_ == register(id)) {
                Some((_, 0)) => batch.delete(id),
                _ => batch.put(id, self.bytes(id)).unwrap(),
            }
        }
        changes.dedup();
        let begun = self.pen.begin(&changes);
        match batch.commit_with(durability) {
            Ok(Commit::Done(_)) => self.pen.end(begun),
            Err(Error::Full { .. }) => self.pen.undone(begun),
            other => panic!("{other:?}"),
        }
    }

    /// Each write by itself: all of them between the begin and the end of the call.
    fn write_many(&mut self, id: u64) {
        let value = self.next_value();
        let ids: Vec<u64> = (id..IDS.end).take(3).collect();
        let all: Vec<_> = ids.iter().map(|&id| (id, self.bytes(id))).collect();
        let changes: Vec<_> = ids.iter().map(|&id| (id, value)).collect();
        let begun = self.pen.begin(&changes);
        let written = self.store.write_many(all.iter().map(|(id, bytes)| (*id, &bytes[..])));
        if is_full(&written) {
            return self.pen.maybe(begun); // How many were made before one that there is no room for, is not told.
        }
        written.unwrap();
        self.pen.end(begun);
    }

    fn reserve(&mut self, id: u64) {
        let value = self.next_value();
        let bytes = self.bytes(id);
        let mut room = match self.store.reserve(id, bytes.len()) {
            Err(Error::Full { .. }) => return,
            room => room.unwrap(),
        };
        room.write_at(0, &bytes).unwrap();
        if self.rng.random_ratio(1, 8) {
            return;
        }
        let begun = self.pen.begin(&[(id, value)]);
        let committed = room.commit();
        if is_full(&committed) {
            return self.pen.undone(begun);
        }
        committed.unwrap();
        self.pen.end(begun);
    }

    fn any(&mut self) -> u64 {
        let all = all();
        all[self.rng.random_range(0..all.len())]
    }

    fn get(&mut self) {
        let id = self.any();
        let begun = self.pen.log.now();
        let value = value_of(id, self.store.get(id).unwrap().as_deref());
        self.saw(begun, &[(id, value)]);
    }

    fn get_read_only(&mut self) {
        let id = self.any();
        let begun = self.pen.log.now();
        match self.reader.get(id) {
            Err(Error::NeedsRepair { .. }) => {}
            record => {
                let value = value_of(id, record.unwrap().as_deref());
                self.saw(begun, &[(id, value)]);
            }
        }
    }

    fn get_many(&mut self) {
        let begun = self.pen.log.now();
        let mut seen = Vec::new();
        let each = |id, record: Option<(_, &[u8])>| seen.push((id, value_of(id, record.map(|r| r.1))));
        self.store.get_many(&all(), each).unwrap();
        self.saw(begun, &seen);
    }

    fn pin(&mut self) {
        let pin = self.store.pin().unwrap();
        if self.rng.random() {
            let begun = self.pen.log.now();
            let records = pin.get_many(&all()).unwrap();
            let seen: Vec<_> = all().iter().zip(&records).map(|(id, r)| (*id, value_of(*id, *r))).collect();
            drop(records);
            drop(pin);
            self.saw_together("Pin::get_many", begun, &seen);
        } else {
            let id = {
                let all = all();
                all[self.rng.random_range(0..all.len())]
            };
            let begun = self.pen.log.now();
            let value = value_of(id, pin.get(id).unwrap());
            drop(pin);
            self.saw(begun, &[(id, value)]);
        }
    }

    fn snapshot(&mut self) {
        let begun = self.pen.log.now();
        let snapshot = self.store.snapshot().unwrap();
        let ended = self.pen.log.now();
        let seen: Vec<_> = all().iter().map(|&id| (id, value_of(id, snapshot.get(id).unwrap()))).collect();
        let mut listed: Vec<_> =
            snapshot.iter().map(|r| r.unwrap()).map(|r| (r.0, value_of(r.0, Some(r.2)))).collect();
        listed.sort_unstable();
        let there: Vec<_> = seen.iter().copied().filter(|(_, value)| *value != 0).collect();
        assert_eq!(listed, there, "Snapshot::iter and Snapshot::get");
        drop(snapshot);
        let mut values = seen.iter().filter(|(id, _)| TOGETHER.contains(id)).map(|(_, value)| value);
        let first = values.next();
        assert!(values.all(|value| Some(value) == first), "Snapshot: a batch in part: {seen:?}");
        for (id, value) in seen {
            self.pen.read(begun, ended, register(id), value);
        }
    }

    fn iterate(&mut self) {
        let begun = self.pen.log.now();
        let mut seen: Vec<(u64, u64)> = Vec::new();
        if self.rng.random() {
            for record in self.store.iter() {
                let record = record.unwrap();
                seen.push((record.id(), value_of(record.id(), Some(&record))));
            }
        } else {
            let each = |id, _, bytes: &[u8]| {
                seen.push((id, value_of(id, Some(bytes))));
                ControlFlow::Continue(())
            };
            self.store.scan(each).unwrap();
        }
        seen.sort_unstable();
        assert!(seen.windows(2).all(|two| two[0].0 != two[1].0), "a record twice: {seen:?}");
        let absent: Vec<_> = all()
            .into_iter()
            .filter(|id| seen.iter().all(|(seen, _)| seen != id))
            .map(|id| (id, 0))
            .collect();
        seen.extend(absent);
        self.saw(begun, &seen);
    }

    fn open_anew(&mut self, path: &str) {
        let id = self.any();
        let store = Store::open(path).unwrap();
        let begun = self.pen.log.now();
        let value = value_of(id, store.get(id).unwrap().as_deref());
        drop(store);
        self.saw(begun, &[(id, value)]);
    }
}
