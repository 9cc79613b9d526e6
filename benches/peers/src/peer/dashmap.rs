//! dashmap: what a map in the memory of one process can do. A bound: it is neither shared nor kept.
//!
//! Values are arrays in the map itself where that makes sense, and ids are hashed as cheaply as recstore does.

use std::hash::{BuildHasherDefault, Hasher};

use dashmap::DashMap;

use super::{Ask, Db, Session};
use crate::data::Source;

/// One multiplication and a fold.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("ids are u64")
    }

    fn write_u64(&mut self, id: u64) {
        let wide = u128::from(id ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

type Map<V> = DashMap<u64, V, BuildHasherDefault<IdHasher>>;

/// A value as it lies in the map.
trait Stored: Send + Sync {
    fn of(data: &[u8]) -> Self;
    fn set(&mut self, data: &[u8]);
    fn bytes(&self) -> &[u8];
}

impl<const N: usize> Stored for [u8; N] {
    fn of(data: &[u8]) -> Self {
        data.try_into().unwrap()
    }

    fn set(&mut self, data: &[u8]) {
        self.copy_from_slice(data);
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Stored for Box<[u8]> {
    fn of(data: &[u8]) -> Self {
        data.into()
    }

    fn set(&mut self, data: &[u8]) {
        self.copy_from_slice(data);
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

struct Shared<V> {
    map: Map<V>,
    counters: Map<u64>,
}

pub fn open(ask: Ask) -> Box<dyn Db> {
    match ask.size {
        64 => Box::new(new::<[u8; 64]>()),
        1024 => Box::new(new::<[u8; 1024]>()),
        _ => Box::new(new::<Box<[u8]>>()),
    }
}

fn new<V: Stored>() -> Shared<V> {
    Shared { map: Map::default(), counters: Map::default() }
}

impl<V: Stored> Db for Shared<V> {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(self)
    }
}

impl<V: Stored> Session for &Shared<V> {
    fn load(&mut self, source: &mut Source<'_>, _ascending: bool) {
        while source.fill() > 0 {
            for (id, data) in source.batch() {
                self.put(id, data);
            }
        }
    }

    fn get(&mut self, id: u64, out: &mut Vec<u8>) -> bool {
        let found = self.map.get(&id);
        if let Some(data) = &found {
            out.clear();
            out.extend_from_slice(data.bytes());
        }
        found.is_some()
    }

    fn get_batch(&mut self, ids: &[u64], each: &mut dyn FnMut(u64, &[u8])) {
        for &id in ids {
            each(id, self.map.get(&id).unwrap().bytes());
        }
    }

    fn put(&mut self, id: u64, data: &[u8]) {
        self.map.entry(id).and_modify(|old| old.set(data)).or_insert_with(|| V::of(data));
    }

    fn put_batch(&mut self, source: &Source<'_>) {
        for (id, data) in source.batch() {
            self.put(id, data);
        }
    }

    fn scan(&mut self, each: &mut dyn FnMut(&[u8])) {
        for entry in &self.map {
            each(entry.bytes());
        }
    }

    fn add_one(&mut self, id: u64) {
        *self.counters.entry(id).or_insert(0) += 1;
    }

    fn count(&mut self, id: u64) -> u64 {
        self.counters.get(&id).map_or(0, |n| *n)
    }
}
