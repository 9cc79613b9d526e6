//! LMDB, through heed: integer keys, bytes as they are, no allocation for a key.

use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, IntegerComparator, PutFlags, RwTxn, WithTls};

use super::{Ask, Db, Session};
use crate::data::Source;

/// `IntegerComparator` is LMDB's own `MDB_INTEGERKEY`.
type Records = Database<Bytes, Bytes, IntegerComparator>;

/// Writes in one transaction of a bulk load: beyond what its list of dirty pages holds, LMDB gets slow.
const LOAD_BYTES: usize = 64 << 20;

pub struct Lmdb {
    env: Env<WithTls>,
    db: Records,
}

pub fn open(dir: &Path, ask: Ask, write_map: bool) -> Lmdb {
    let mut flags = EnvFlags::empty();
    flags.set(EnvFlags::NO_SYNC, !ask.durable);
    flags.set(EnvFlags::WRITE_MAP, write_map);
    let map_size = (4 << 30) + ask.n as usize * (ask.size + 256) * 3;
    // SAFETY: nobody but this benchmark touches the files.
    let env = unsafe {
        let mut options = EnvOpenOptions::new();
        options.map_size(map_size & !0xfffff).max_readers(64).flags(flags).open(dir).unwrap()
    };
    let options = env.database_options().types().key_comparator::<IntegerComparator>();
    let db = if ask.create {
        let mut txn = env.write_txn().unwrap();
        let db = options.create(&mut txn).unwrap();
        txn.commit().unwrap();
        db
    } else {
        let txn = env.read_txn().unwrap();
        let db = options.open(&txn).unwrap().unwrap();
        txn.commit().unwrap();
        db
    };
    Lmdb { env, db }
}

impl Db for Lmdb {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Handle { env: &self.env, db: self.db })
    }

    fn close(self: Box<Self>) {
        self.env.force_sync().unwrap();
        self.leave();
    }

    fn leave(self: Box<Self>) {
        self.env.prepare_for_closing().wait();
    }
}

struct Handle<'a> {
    env: &'a Env<WithTls>,
    db: Records,
}

impl Handle<'_> {
    fn write(&self, work: impl FnOnce(&mut RwTxn<'_>)) {
        let mut txn = self.env.write_txn().unwrap();
        work(&mut txn);
        txn.commit().unwrap();
    }
}

impl Session for Handle<'_> {
    fn load(&mut self, source: &mut Source<'_>, ascending: bool) {
        let flags = if ascending { PutFlags::APPEND } else { PutFlags::empty() };
        let mut more = true;
        while more {
            self.write(|txn| {
                let mut bytes = 0;
                while bytes < LOAD_BYTES {
                    more = source.fill() > 0;
                    if !more {
                        break;
                    }
                    for (id, data) in source.batch() {
                        self.db.put_with_flags(txn, flags, &id.to_ne_bytes(), data).unwrap();
                        bytes += data.len();
                    }
                }
            });
        }
    }

    fn get(&mut self, id: u64, out: &mut Vec<u8>) -> bool {
        let txn = self.env.read_txn().unwrap();
        let found = self.db.get(&txn, &id.to_ne_bytes()).unwrap();
        if let Some(data) = found {
            out.clear();
            out.extend_from_slice(data);
        }
        found.is_some()
    }

    fn get_batch(&mut self, ids: &[u64], each: &mut dyn FnMut(u64, &[u8])) {
        let txn = self.env.read_txn().unwrap();
        for &id in ids {
            each(id, self.db.get(&txn, &id.to_ne_bytes()).unwrap().unwrap());
        }
    }

    fn put(&mut self, id: u64, data: &[u8]) {
        self.write(|txn| self.db.put(txn, &id.to_ne_bytes(), data).unwrap());
    }

    fn put_batch(&mut self, source: &Source<'_>) {
        self.write(|txn| {
            for (id, data) in source.batch() {
                self.db.put(txn, &id.to_ne_bytes(), data).unwrap();
            }
        });
    }

    fn scan(&mut self, each: &mut dyn FnMut(&[u8])) {
        let txn = self.env.read_txn().unwrap();
        for found in self.db.iter(&txn).unwrap() {
            each(found.unwrap().1);
        }
    }

    fn add_one(&mut self, id: u64) {
        let key = id.to_ne_bytes();
        self.write(|txn| {
            let old = self.db.get(txn, &key).unwrap();
            let old = old.map_or(0, |data| u64::from_le_bytes(data.try_into().unwrap()));
            self.db.put(txn, &key, &(old + 1).to_le_bytes()).unwrap();
        });
    }

    fn count(&mut self, id: u64) -> u64 {
        let txn = self.env.read_txn().unwrap();
        let found = self.db.get(&txn, &id.to_ne_bytes()).unwrap();
        found.map_or(0, |data| u64::from_le_bytes(data.try_into().unwrap()))
    }
}
