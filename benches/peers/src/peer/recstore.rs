//! recstore, with its defaults: 16 regions, every checksum checked on every read.

use std::ops::ControlFlow;
use std::path::Path;

use recstore::{Durability, Store};

use super::{Ask, Db, Session};
use crate::data::Source;

pub struct Recstore(Store);

pub fn open(dir: &Path, ask: Ask) -> Recstore {
    let durability = if ask.durable { Durability::Disk } else { Durability::Process };
    let options = Store::options().record_size(ask.size).durability(durability);
    let path = dir.join("store.rec");
    Recstore(if ask.create { options.create(path) } else { options.open(path) }.unwrap())
}

impl Db for Recstore {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Handle(&self.0))
    }

    fn flushes(&self) -> Option<u64> {
        Some(self.0.stats().unwrap().flushes)
    }

    fn close(self: Box<Self>) {
        self.0.close().unwrap();
    }
}

struct Handle<'a>(&'a Store);

impl Session for Handle<'_> {
    fn load(&mut self, source: &mut Source<'_>, _ascending: bool) {
        while source.fill() > 0 {
            self.0.write_many(source.batch()).unwrap();
        }
    }

    #[inline]
    fn get(&mut self, id: u64, out: &mut Vec<u8>) -> bool {
        self.0.get_into(id, out).unwrap().is_some()
    }

    fn get_batch(&mut self, ids: &[u64], each: &mut dyn FnMut(u64, &[u8])) {
        self.0.get_many(ids, |id, found| each(id, found.unwrap().1)).unwrap();
    }

    #[inline]
    fn put(&mut self, id: u64, data: &[u8]) {
        self.0.put(id, data).unwrap();
    }

    fn put_batch(&mut self, source: &Source<'_>) {
        self.0.write_many(source.batch()).unwrap();
    }

    fn scan(&mut self, each: &mut dyn FnMut(&[u8])) {
        let go_on = |_, _, data: &[u8]| {
            each(data);
            ControlFlow::Continue(())
        };
        self.0.scan(go_on).unwrap();
    }

    fn add_one(&mut self, id: u64) {
        self.0.counter(id).add(1).unwrap();
    }

    fn count(&mut self, id: u64) -> u64 {
        self.0.counter(id).get().unwrap()
    }
}
