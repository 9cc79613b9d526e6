//! The store grows while it is used: from empty, by four processes at once, with a reader that
//! had it open when it was empty and checks throughout.
//!
//! 60,000 records, or a million with `RECSTORE_LONG=1`; then the file takes less than 150 bytes per
//! 64-byte record. Fails when: a record that was acknowledged is not read back, at any moment; `iter`
//! does not give each once; `verify` finds anything.

mod common;

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::sync_channel;

use common::value::{parse, value};
use common::{Me, Worker};
use rand::Rng;
use recstore::{Options, Store};

const WRITERS: u64 = 4;
const LEN: usize = 64;
const STRIDE: u64 = 250;
const BYTES_PER_RECORD_MAX: f64 = 150.0;

/// The n-th id of a writer: all over the space.
fn id(writer: u64, n: u64) -> u64 {
    (n * WRITERS + writer).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn writer(me: &mut Me) {
    let number: u64 = me.var("NUMBER").parse().unwrap();
    let count: u64 = me.var("COUNT").parse().unwrap();
    let store = Store::open(me.var("STORE")).unwrap();
    for n in 0..count {
        let id = id(number, n);
        store.put(id, &value(id, number, n, LEN)).unwrap();
        if (n + 1) % STRIDE == 0 || n + 1 == count {
            me.say(&(n + 1).to_string());
        }
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "writer" => writer(&mut me),
        other => panic!("no role {other}"),
    }
}

fn check(store: &Store, out: &mut Vec<u8>, writer: u64, n: u64) {
    let id = id(writer, n);
    let found = store.get_into(id, out).unwrap();
    assert!(found.is_some(), "record {n} of writer {writer} (id {id:#x}) is lost");
    assert_eq!(parse(id, out), Ok((writer, n)));
}

#[test]
fn a_store_grows_from_empty_under_four_processes_and_a_reader_sees_all_that_was_acknowledged() {
    let long = common::number_from_env("RECSTORE_LONG") == Some(1);
    let total: u64 = if long { 1_000_000 } else { 60_000 };
    let mut rng = common::seeded();
    let dir = common::scratch();
    let path = dir.path().join("store");
    // The short run has small extents, so that it has as many of them as the long one.
    let options = Options::new().record_size(LEN);
    let options = if long { options } else { options.slots_per_extent(256) };
    let store = options.create(&path).unwrap();
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 4 << 20, "an empty store is small");

    let (to, news) = sync_channel(64);
    let mut workers: Vec<Worker> = Vec::new();
    for number in 0..WRITERS {
        let with = [
            ("STORE", path.to_str().unwrap()),
            ("NUMBER", &number.to_string()),
            ("COUNT", &(total / WRITERS).to_string()),
        ];
        let worker = Worker::spawn("writer", &with);
        let (stream, to) = (worker.stream(), to.clone());
        std::thread::spawn(move || {
            let lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
            for line in lines.map_while(Result::ok) {
                if to.send((number, line.parse::<u64>().unwrap())).is_err() {
                    return;
                }
            }
        });
        workers.push(worker);
    }
    drop(to);

    let mut out = Vec::new();
    let mut done = [0; WRITERS as usize];
    let mut checked = 0u64;
    while let Ok((writer, count)) = news.recv() {
        done[writer as usize] = count;
        check(&store, &mut out, writer, count - 1);
        for _ in 0..20 {
            let writer = rng.random_range(0..WRITERS);
            if done[writer as usize] > 0 {
                check(&store, &mut out, writer, rng.random_range(0..done[writer as usize]));
                checked += 1;
            }
        }
        if count % (STRIDE * 20) == 0 {
            let mut live = 0;
            store
                .scan(|id, _, data| {
                    parse(id, data).unwrap_or_else(|e| panic!("{e}"));
                    live += 1;
                    std::ops::ControlFlow::Continue(())
                })
                .unwrap();
            let before: u64 = done.iter().sum();
            assert!(live >= before, "scan gave {live} of {before} acknowledged records");
        }
    }
    workers.iter_mut().for_each(Worker::finish);

    assert_eq!(store.len().unwrap(), total);
    for writer in 0..WRITERS {
        (0..total / WRITERS).for_each(|n| check(&store, &mut out, writer, n));
    }
    let mut seen = HashSet::new();
    for record in store.iter() {
        let record = record.unwrap();
        assert!(seen.insert(record.id()), "id {:#x} came twice", record.id());
        parse(record.id(), &record).unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(seen.len() as u64, total);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.records, total);

    let file = std::fs::metadata(&path).unwrap();
    let each = file.len() as f64 / total as f64;
    println!(
        "{total} records of {LEN} bytes: {each:.1} bytes of file each ({:.1} allocated), {checked} reads meanwhile",
        (file.blocks() * 512) as f64 / total as f64
    );
    assert!(!long || each < BYTES_PER_RECORD_MAX, "{each:.1} bytes of file per record");
}
