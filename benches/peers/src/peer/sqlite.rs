//! SQLite: WAL, a row id as the key, statements prepared once, the file mapped.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::{CachedStatement, Connection};

use super::{Ask, Db, Session};
use crate::data::Source;

pub struct Sqlite {
    path: PathBuf,
    synchronous: &'static str,
    first: Mutex<Connection>,
}

fn connect(path: &Path, synchronous: &str) -> Connection {
    let c = Connection::open(path).unwrap();
    c.busy_timeout(Duration::from_secs(60)).unwrap();
    c.set_prepared_statement_cache_capacity(16);
    c.execute_batch(&format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}; PRAGMA mmap_size=34359738368; \
         PRAGMA cache_size=-262144; PRAGMA temp_store=MEMORY;"
    ))
    .unwrap();
    c
}

pub fn open(dir: &Path, ask: Ask, relaxed: &'static str) -> Sqlite {
    let path = dir.join("store.sqlite");
    let synchronous = if ask.durable { "FULL" } else { relaxed };
    let c = connect(&path, synchronous);
    if ask.create {
        c.execute_batch(
            "CREATE TABLE records (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
             CREATE TABLE counters (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);",
        )
        .unwrap();
    }
    Sqlite { path, synchronous, first: Mutex::new(c) }
}

impl Db for Sqlite {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Handle(connect(&self.path, self.synchronous)))
    }

    fn close(self: Box<Self>) {
        self.first.into_inner().unwrap().close().unwrap();
    }
}

const PUT: &str = "INSERT INTO records VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET data = excluded.data";
const GET: &str = "SELECT data FROM records WHERE id = ?1";

struct Handle(Connection);

impl Handle {
    fn statement(&self, sql: &str) -> CachedStatement<'_> {
        self.0.prepare_cached(sql).unwrap()
    }

    fn run(&self, sql: &str) {
        self.statement(sql).execute(()).unwrap();
    }

    fn put_all<'a>(&self, items: impl Iterator<Item = (u64, &'a [u8])>) {
        let mut put = self.statement(PUT);
        for (id, data) in items {
            put.execute((id as i64, data)).unwrap();
        }
    }
}

impl Session for Handle {
    fn load(&mut self, source: &mut Source<'_>, _ascending: bool) {
        self.run("BEGIN IMMEDIATE");
        while source.fill() > 0 {
            self.put_all(source.batch());
        }
        self.run("COMMIT");
    }

    fn get(&mut self, id: u64, out: &mut Vec<u8>) -> bool {
        let mut get = self.statement(GET);
        let mut rows = get.query((id as i64,)).unwrap();
        let Some(row) = rows.next().unwrap() else { return false };
        out.clear();
        out.extend_from_slice(row.get_ref(0).unwrap().as_blob().unwrap());
        true
    }

    fn get_batch(&mut self, ids: &[u64], each: &mut dyn FnMut(u64, &[u8])) {
        self.run("BEGIN");
        let mut get = self.statement(GET);
        for &id in ids {
            let mut rows = get.query((id as i64,)).unwrap();
            each(id, rows.next().unwrap().unwrap().get_ref(0).unwrap().as_blob().unwrap());
        }
        drop(get);
        self.run("COMMIT");
    }

    fn put(&mut self, id: u64, data: &[u8]) {
        self.statement(PUT).execute((id as i64, data)).unwrap();
    }

    fn put_batch(&mut self, source: &Source<'_>) {
        self.run("BEGIN IMMEDIATE");
        self.put_all(source.batch());
        self.run("COMMIT");
    }

    fn scan(&mut self, each: &mut dyn FnMut(&[u8])) {
        let mut all = self.statement("SELECT data FROM records");
        let mut rows = all.query(()).unwrap();
        while let Some(row) = rows.next().unwrap() {
            each(row.get_ref(0).unwrap().as_blob().unwrap());
        }
    }

    fn add_one(&mut self, id: u64) {
        self.statement("INSERT INTO counters VALUES (?1, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1")
            .execute((id as i64,))
            .unwrap();
    }

    fn count(&mut self, id: u64) -> u64 {
        let mut n = self.statement("SELECT n FROM counters WHERE id = ?1");
        let mut rows = n.query((id as i64,)).unwrap();
        rows.next().unwrap().map_or(0, |row| row.get::<_, i64>(0).unwrap() as u64)
    }
}
