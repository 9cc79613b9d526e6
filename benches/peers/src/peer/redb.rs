//! redb: `Durability::None` when relaxed, which loses what was acknowledged at kill -9.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::{Ask, Db, Session};
use crate::data::Source;

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

pub struct Redb {
    db: Database,
    durability: Durability,
}

pub fn open(dir: &Path, ask: Ask) -> Redb {
    // One process: in its mode for several, redb 4.6 refuses `Durability::None`.
    let mut builder = Database::builder();
    builder.set_cache_size(4 << 30);
    let db = builder.create(dir.join("store.redb")).unwrap();
    let durability = if ask.durable { Durability::Immediate } else { Durability::None };
    let redb = Redb { db, durability };
    if ask.create {
        Handle(&redb).write(Durability::Immediate, |_| {});
    }
    redb
}

impl Db for Redb {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Handle(self))
    }

    fn close(self: Box<Self>) {
        Handle(&self).write(Durability::Immediate, |_| {});
    }

    fn leave(self: Box<Self>) {
        self.close(); // What was acknowledged is kept no other way.
    }
}

struct Handle<'a>(&'a Redb);

impl Handle<'_> {
    fn write(&self, durability: Durability, work: impl FnOnce(&mut Table<'_, u64, &'static [u8]>)) {
        let mut txn = self.0.db.begin_write().unwrap();
        txn.set_durability(durability).unwrap();
        work(&mut txn.open_table(TABLE).unwrap());
        txn.commit().unwrap();
    }
}

impl Session for Handle<'_> {
    fn load(&mut self, source: &mut Source<'_>, _ascending: bool) {
        self.write(self.0.durability, |table| {
            while source.fill() > 0 {
                for (id, data) in source.batch() {
                    table.insert(id, data).unwrap();
                }
            }
        });
    }

    fn get(&mut self, id: u64, out: &mut Vec<u8>) -> bool {
        let table = self.0.db.begin_read().unwrap().open_table(TABLE).unwrap();
        let found = table.get(id).unwrap();
        if let Some(data) = &found {
            out.clear();
            out.extend_from_slice(data.value());
        }
        found.is_some()
    }

    fn get_batch(&mut self, ids: &[u64], each: &mut dyn FnMut(u64, &[u8])) {
        let table = self.0.db.begin_read().unwrap().open_table(TABLE).unwrap();
        for &id in ids {
            each(id, table.get(id).unwrap().unwrap().value());
        }
    }

    fn put(&mut self, id: u64, data: &[u8]) {
        self.write(self.0.durability, |table| {
            table.insert(id, data).unwrap();
        });
    }

    fn put_batch(&mut self, source: &Source<'_>) {
        self.write(self.0.durability, |table| {
            for (id, data) in source.batch() {
                table.insert(id, data).unwrap();
            }
        });
    }

    fn scan(&mut self, each: &mut dyn FnMut(&[u8])) {
        let table = self.0.db.begin_read().unwrap().open_table(TABLE).unwrap();
        for found in table.iter().unwrap() {
            each(found.unwrap().1.value());
        }
    }

    fn add_one(&mut self, id: u64) {
        self.write(self.0.durability, |table| {
            let old = table.get(id).unwrap().map_or(0, |d| u64::from_le_bytes(d.value().try_into().unwrap()));
            table.insert(id, &(old + 1).to_le_bytes()[..]).unwrap();
        });
    }

    fn count(&mut self, id: u64) -> u64 {
        let table = self.0.db.begin_read().unwrap().open_table(TABLE).unwrap();
        table.get(id).unwrap().map_or(0, |d| u64::from_le_bytes(d.value().try_into().unwrap()))
    }
}
