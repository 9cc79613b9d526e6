//! The built program, from and to files that the other libraries make and read.

use std::path::Path;
use std::process::Command;

use heed::types::Bytes;
use heed::{Database, EnvOpenOptions};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use recstore::Store;
use rusqlite::Connection;

/// Runs the program: whether it succeeded, and what it said.
fn run(args: &[&str], paths: &[&Path]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recstore-convert"));
    command.arg(args[0]).args(paths).args(&args[1..]);
    let output = command.output().expect("the program starts");
    assert!(output.stdout.is_empty());
    (output.status.success(), String::from_utf8(output.stderr).expect("text"))
}

#[track_caller]
fn done(args: &[&str], paths: &[&Path], what: &str) {
    let (is_done, said) = run(args, paths);
    assert!(is_done && said.contains(what), "{said}");
}

#[track_caller]
fn refused(args: &[&str], paths: &[&Path], what: &str) {
    let (is_done, said) = run(args, paths);
    assert!(!is_done && said.contains(what), "{said}");
}

fn read(store: &Path, id: u64) -> Vec<u8> {
    Store::open_read_only(store).expect("a store").get(id).expect("a read").expect("a record").data().to_vec()
}

#[test]
fn a_table_of_sqlite_is_imported_row_by_row() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a.db");
    let connection = Connection::open(&file).expect("a file");
    connection
        .execute_batch(
            "CREATE TABLE \"the people\" (number INTEGER PRIMARY KEY, name TEXT, weight REAL, picture BLOB);
             INSERT INTO \"the people\" VALUES (7, 'Ann', 61.5, x'ff00'), (8, 'Bob', NULL, NULL);
             CREATE TABLE below (id INTEGER PRIMARY KEY, x TEXT);
             INSERT INTO below VALUES (-1, 'x');",
        )
        .expect("tables");
    let all = dir.path().join("all.rec");
    done(&["sqlite", "--table", "the people"], &[&file, &all], "2 imported; it has 2 records");
    assert_eq!(read(&all, 7), br#"{"number":7,"name":"Ann","weight":61.5,"picture":"/wA="}"#);
    assert_eq!(read(&all, 8), br#"{"number":8,"name":"Bob","weight":null,"picture":null}"#);

    let names = dir.path().join("names.rec");
    let of_names = ["sqlite", "--table", "the people", "--hash", "name", "--data", "name"];
    done(&of_names, &[&file, &names], "created, for records of up to 3 bytes");
    // FNV-1a of `Ann`, as `recstore read names.rec hash:Ann` makes it.
    let id = b"Ann"
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    assert_eq!(read(&names, id), b"Ann");

    let pictures = ["sqlite", "--table", "the people", "--data", "picture"];
    refused(&pictures, &[&file, &dir.path().join("p.rec")], "row 2 of the people: picture is NULL");
    refused(&["sqlite", "--table", "below"], &[&file, &dir.path().join("b.rec")], "-1 is no id");
    refused(&["sqlite", "--table", "absent"], &[&file, &all], "no such table: absent");
    refused(&["sqlite", "--table", "the people"], &[&file, &names], "takes records of up to 3 bytes");
    refused(&["sqlite", "--table", "x"], &[&dir.path().join("absent.db"), &all], "absent.db: unable to open");
    assert!(!dir.path().join("absent.db").exists() && !dir.path().join("b.rec").exists());
}

#[test]
fn a_database_of_lmdb_is_imported_entry_by_entry() {
    let dir = tempfile::tempdir().expect("a directory");
    let (environment, store) = (dir.path().join("env"), dir.path().join("a.rec"));
    std::fs::create_dir(&environment).expect("a directory");
    {
        // SAFETY: nothing else has the environment open.
        let env = unsafe { EnvOpenOptions::new().map_size(64 << 20).max_dbs(2).open(&environment) }
            .expect("an environment");
        let mut transaction = env.write_txn().expect("a transaction");
        let main: Database<Bytes, Bytes> =
            env.create_database(&mut transaction, Some("numbers")).expect("a database");
        for id in 0..20_000_u64 {
            let value = format!("value {id}").repeat(3);
            main.put(&mut transaction, &id.to_be_bytes(), value.as_bytes()).expect("an entry");
        }
        let texts: Database<Bytes, Bytes> =
            env.create_database(&mut transaction, Some("texts")).expect("a database");
        texts.put(&mut transaction, b"42", b"text").expect("an entry");
        transaction.commit().expect("a commit");
    }
    let numbers = ["lmdb", "--database", "numbers", "--key", "be"];
    done(&numbers, &[&environment, &store], "20000 imported; it has 20000 records");
    assert_eq!(read(&store, 19_999), b"value 19999value 19999value 19999");
    // By its file too, into the same store.
    let texts = ["lmdb", "--database", "texts", "--key", "text"];
    done(&texts, &[&environment.join("data.mdb"), &store], "1 imported; it has 20000 records");
    assert_eq!(read(&store, 42), b"text");
    refused(
        &["lmdb", "--database", "texts", "--key", "le"],
        &[&environment, &store],
        "the key 42 is not 4 or 8 bytes",
    );
    refused(&["lmdb", "--database", "absent", "--key", "le"], &[&environment, &store], "no such database");
}

#[test]
fn a_store_is_exported_as_parquet_in_the_order_of_ids() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, file) = (dir.path().join("a.rec"), dir.path().join("a.parquet"));
    let store = Store::create(&path).expect("a store");
    for id in (0..70_000_u64).rev() {
        store.put(id, format!("record {id}")).expect("a put");
    }
    store.put(u64::MAX, [0xff, 0]).expect("a put");
    store.close().expect("a close");
    done(&["parquet"], &[&path, &file], "70001 records exported");
    refused(&["parquet"], &[&path, &file], "exists already");

    let reader =
        SerializedFileReader::new(std::fs::File::open(&file).expect("the file")).expect("a Parquet file");
    assert_eq!(reader.metadata().num_row_groups(), 2);
    let mut expected = (0..70_000).chain([u64::MAX]);
    for row in reader.get_row_iter(None).expect("rows") {
        let row = row.expect("a row");
        let columns: Vec<Field> = row.get_column_iter().map(|(_, field)| field.clone()).collect();
        let [Field::ULong(id), Field::ULong(version), Field::Bytes(data)] = &columns[..] else {
            panic!("{columns:?}")
        };
        assert_eq!(Some(*id), expected.next());
        assert!(*version > 0);
        let bytes = if *id == u64::MAX { vec![0xff, 0] } else { format!("record {id}").into_bytes() };
        assert_eq!(data.data(), bytes);
    }
    assert_eq!(expected.next(), None);
}
