//! Caches on one trace: `cargo bench --bench layers -- zipf`, with `--moka` beside an in-process `moka`, and beside Redis on a Unix
//! socket if `redis-server` is installed. `benches/python/zipf.py` does the same with `diskcache`.
//!
//! The trace is 2 million reads of 1 million keys, by Zipf's law with an exponent of 0.99. A miss is followed by a write of 100 bytes. A
//! cache has room for 100,000 values; Redis for as many bytes as its own count of keys says. The first half of the trace fills the cache.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use recstore::{CacheOptions, Store};

use crate::common::Random;

const KEYS: u64 = 1_000_000;
const READS: usize = 2_000_000;
const ROOM: u64 = 100_000;
const VALUE: [u8; 100] = [7; 100];
const EXPONENT: f64 = 0.99;
/// Bytes that Redis takes for a key and its value, measured.
const REDIS_BYTES: u64 = 216;

fn trace() -> Vec<[u8; 16]> {
    let mut sums = Vec::with_capacity(KEYS as usize);
    let mut sum = 0.0;
    for rank in 1..=KEYS {
        sum += (rank as f64).powf(-EXPONENT);
        sums.push(sum);
    }
    let mut random = Random::new(7);
    let key = |rank: usize| u128::from((rank as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
    let mut draw = || {
        let at = random.below(1 << 53) as f64 / (1u64 << 53) as f64 * sum;
        key(sums.partition_point(|&sum| sum < at))
    };
    (0..READS).map(|_| draw()).collect()
}

/// Reads the trace from a cache. `get` tells whether it was a hit.
fn measure(
    name: &str,
    trace: &[[u8; 16]],
    mut get: impl FnMut(&[u8; 16]) -> bool,
    mut put: impl FnMut(&[u8; 16]),
) {
    let (first, second) = trace.split_at(trace.len() / 2);
    let mut read = |trace: &[[u8; 16]]| {
        let mut hits = 0u64;
        for key in trace {
            if get(key) {
                hits += 1;
            } else {
                put(key);
            }
        }
        hits
    };
    read(first);
    let begun = Instant::now();
    let hits = read(second);
    let seconds = begun.elapsed().as_secs_f64();
    let rate = hits as f64 / second.len() as f64 * 100.0;
    println!(
        "| {name} | {rate:.1} % | {:.0} | {:.0} |",
        hits as f64 / seconds / 1e3,
        second.len() as f64 / seconds / 1e3
    );
}

fn recstore(name: &str, trace: &[[u8; 16]], options: CacheOptions) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::create(dir.path().join("zipf.rec")).expect("a store");
    let cache = store.cache("zipf", options).expect("a cache");
    let mut out = Vec::new();
    measure(
        name,
        trace,
        |key| cache.get_into(key, &mut out).expect("a read").is_some(),
        |key| _ = cache.put(key, VALUE).expect("a write"),
    );
    let stats = cache.stats().expect("the count");
    assert!(stats.records <= ROOM, "{stats:?}");
}

/// The same trace by two processes at once, as threads with a handle each: as far as the store goes it is the same.
fn recstore_twice(trace: &[[u8; 16]]) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("zipf.rec");
    Store::create(&path).expect("a store");
    let options = CacheOptions::new().max_records(ROOM).least_recently_used();
    std::thread::scope(|scope| {
        for n in 0..2 {
            let path = &path;
            scope.spawn(move || {
                let store = Store::open(path).expect("a store");
                let cache = store.cache("zipf", options).expect("a cache");
                let mut out = Vec::new();
                let half = &trace[n * READS / 2..][..READS / 2];
                measure(
                    &format!("recstore, least recently used, handle {} of 2", n + 1),
                    half,
                    |key| cache.get_into(key, &mut out).expect("a read").is_some(),
                    |key| _ = cache.put(key, VALUE).expect("a write"),
                );
            });
        }
    });
}

#[cfg(feature = "moka")]
fn moka(trace: &[[u8; 16]]) {
    let cache = moka::sync::Cache::builder()
        .max_capacity(ROOM)
        .eviction_policy(moka::policy::EvictionPolicy::lru())
        .build();
    measure(
        "moka, LRU (one process)",
        trace,
        |key| cache.get(key).is_some(),
        |key| cache.insert(*key, VALUE.to_vec()),
    );
    let cache = moka::sync::Cache::builder().max_capacity(ROOM).build();
    measure(
        "moka, TinyLFU (one process)",
        trace,
        |key| cache.get(key).is_some(),
        |key| cache.insert(*key, VALUE.to_vec()),
    );
}

#[cfg(not(feature = "moka"))]
fn moka(_: &[[u8; 16]]) {
    println!("moka was left out: --moka");
}

fn redis(trace: &[[u8; 16]]) {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("redis");
    let started = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--maxmemory-policy", "allkeys-lru", "--maxmemory"])
        .arg((ROOM * REDIS_BYTES).to_string())
        .arg("--unixsocket")
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn();
    let Ok(mut server) = started else {
        println!("Redis was left out: no redis-server");
        return;
    };
    let begun = Instant::now();
    let stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(_) if begun.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(20))
            }
            Err(error) => panic!("no redis: {error}"),
        }
    };
    let client = std::cell::RefCell::new((BufReader::new(stream.try_clone().expect("a descriptor")), stream));
    let ask = |command: &[u8]| {
        let (reader, writer) = &mut *client.borrow_mut();
        writer.write_all(command).expect("a socket");
        let mut line = String::new();
        reader.read_line(&mut line).expect("an answer");
        if let Some(len) = line.strip_prefix('$').and_then(|len| len.trim().parse::<usize>().ok()) {
            let mut value = vec![0; len + 2];
            reader.read_exact(&mut value).expect("a value");
        }
        line
    };
    let get = |key: &[u8; 16]| {
        let command = [b"*2\r\n$3\r\nGET\r\n$16\r\n", &key[..], b"\r\n"].concat();
        !ask(&command).starts_with("$-1")
    };
    let put = |key: &[u8; 16]| {
        let command = [b"*3\r\n$3\r\nSET\r\n$16\r\n", &key[..], b"\r\n$100\r\n", &VALUE, b"\r\n"].concat();
        assert!(ask(&command).starts_with('+'));
    };
    measure("Redis, allkeys-lru, Unix socket", trace, get, put);
    println!("Redis held {} values", ask(b"*1\r\n$6\r\nDBSIZE\r\n").trim().trim_start_matches(':'));
    server.kill().expect("the server");
    server.wait().expect("the server");
}

pub(crate) fn run() {
    let trace = trace();
    println!(
        "| cache | hit rate | thousand hits a second | thousand reads a second |\n| --- | ---: | ---: | ---: |"
    );
    let bound = CacheOptions::new().max_records(ROOM);
    recstore("recstore, oldest", &trace, bound);
    recstore("recstore, least recently used", &trace, bound.least_recently_used());
    recstore_twice(&trace);
    moka(&trace);
    redis(&trace);
}
