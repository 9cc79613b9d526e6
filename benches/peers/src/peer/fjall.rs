//! fjall: a log-structured tree of one process. Its journal is handed to the system at every write when relaxed.

use std::path::Path;
use std::sync::Mutex;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Ask, Db, Session};
use crate::data::Source;

pub struct Fjall {
    db: Database,
    records: Keyspace,
    /// Held from the read of a counter to its write.
    counting: Mutex<()>,
    durable: bool,
}

pub fn open(dir: &Path, ask: Ask) -> Fjall {
    let db = Database::builder(dir.join("store.fjall")).cache_size(4 << 30).open().unwrap();
    let records = db.keyspace("records", KeyspaceCreateOptions::default).unwrap();
    Fjall { db, records, counting: Mutex::new(()), durable: ask.durable }
}

impl Db for Fjall {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Handle(self))
    }

    fn close(self: Box<Self>) {
        self.db.persist(PersistMode::SyncAll).unwrap();
    }
}

struct Handle<'a>(&'a Fjall);

impl Handle<'_> {
    fn write<'a>(&self, items: impl Iterator<Item = (u64, &'a [u8])>) {
        let mode = if self.0.durable { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.0.db.batch().durability(Some(mode));
        for (id, data) in items {
            batch.insert(&self.0.records, id.to_be_bytes(), data);
        }
        batch.commit().unwrap();
    }
}

impl Session for Handle<'_> {
    fn load(&mut self, source: &mut Source<'_>, ascending: bool) {
        if !ascending {
            while source.fill() > 0 {
                self.write(source.batch());
            }
            return;
        }
        let mut sorted = self.0.records.start_ingestion().unwrap();
        while source.fill() > 0 {
            for (id, data) in source.batch() {
                sorted.write(id.to_be_bytes(), data).unwrap();
            }
        }
        sorted.finish().unwrap();
    }

    fn get(&mut self, id: u64, out: &mut Vec<u8>) -> bool {
        let found = self.0.records.get(id.to_be_bytes()).unwrap();
        if let Some(data) = &found {
            out.clear();
            out.extend_from_slice(data);
        }
        found.is_some()
    }

    fn get_batch(&mut self, ids: &[u64], each: &mut dyn FnMut(u64, &[u8])) {
        for &id in ids {
            each(id, &self.0.records.get(id.to_be_bytes()).unwrap().unwrap());
        }
    }

    fn put(&mut self, id: u64, data: &[u8]) {
        if self.0.durable {
            self.write(std::iter::once((id, data)));
        } else {
            self.0.records.insert(id.to_be_bytes(), data).unwrap();
        }
    }

    fn put_batch(&mut self, source: &Source<'_>) {
        self.write(source.batch());
    }

    fn scan(&mut self, each: &mut dyn FnMut(&[u8])) {
        for found in self.0.records.iter() {
            each(&found.value().unwrap());
        }
    }

    fn add_one(&mut self, id: u64) {
        let _counting = self.0.counting.lock().unwrap();
        let n = self.count(id) + 1;
        self.0.records.insert(id.to_be_bytes(), n.to_le_bytes()).unwrap();
    }

    fn count(&mut self, id: u64) -> u64 {
        let found = self.0.records.get(id.to_be_bytes()).unwrap();
        found.map_or(0, |data| u64::from_le_bytes(data[..].try_into().unwrap()))
    }
}
