//! Reading in place, by size of the record: a [`recstore::Pin`] beside a `get`, which copies.
//!
//! ```text
//! cargo bench --bench pins                 1 KiB to 64 MiB
//! cargo bench --bench pins -- --quick      1 KiB to 4 MiB, fewer rounds
//! ```
//!
//! * `pin, unverified`: a pin is taken, asked for a record, and let go, with checksums off. The same few records
//!   at every size, so that nothing but the size differs; and the size must make no difference.
//! * `sum`: a plain sum of the 8-byte words of all records, at addresses that are known beforehand: what this
//!   machine reads.
//! * `pin`: the same records, each by a pin of its own, with checksums on. Its share of `sum` is what looking
//!   the record up and its checksum leave.
//! * `get`: the same by `get_into`, which copies as well, into room that is used again.
//!
//! The last three go through all records of a store that no cache holds, in random order. They take
//! turns within a round, and the table has the medians of the rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use recstore::Store;

use common::{median, shuffled};

mod common;

/// Bytes of all records of a store: several times the last cache of most machines.
const BYTES: usize = 128 << 20;
/// How long one figure is measured in one round, at least.
const SPAN: Duration = Duration::from_millis(100);

fn main() -> recstore::Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (sizes, rounds) = if quick { (0..7, 3) } else { (0..9, 7) };
    println!(
        "{:>10}{:>22}{:>12}{:>12}{:>12}{:>12}",
        "", "pin, unverified, ns", "sum, GB/s", "pin, GB/s", "of sum", "get, GB/s"
    );
    for n in sizes {
        let size = 1024usize << (2 * n);
        let [unverified, sum, pin, get] = measure(size, rounds)?;
        let name = if size < 1 << 20 { format!("{} KiB", size >> 10) } else { format!("{} MiB", size >> 20) };
        let share = 100.0 * pin / sum;
        println!("{name:>10}{unverified:>22.1}{sum:>12.1}{pin:>12.1}{share:>11.0}%{get:>12.1}");
    }
    Ok(())
}

/// Nanoseconds of an unverified pin; GB/s of the sum, of the verified pin, of `get`.
fn measure(size: usize, rounds: usize) -> recstore::Result<[f64; 4]> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("pins.rec");
    let store = Store::options().record_size(size).create(&path)?;
    let ids = shuffled((BYTES / size) as u64);
    let mut data: Vec<u8> = (0..size).map(|i| i as u8).collect();
    for &id in &ids {
        data[..8].copy_from_slice(&id.to_le_bytes());
        store.put(id, &data)?;
    }
    let unverified = Store::options().verify_reads(false).open(&path)?;
    let pin = unverified.pin()?;
    let records = ids.iter().map(|&id| pin.get(id)).collect::<recstore::Result<Vec<_>>>()?;
    let records: Vec<&[u8]> = records.into_iter().flatten().collect();
    let mut out = Vec::with_capacity(size);
    let mut seen: [Vec<f64>; 4] = Default::default();
    // The first round warms up.
    for round in 0..=rounds {
        let bytes = (ids.len() * size) as f64;
        let samples = [
            1e9 / rate(|| {
                for n in 0..1_000 {
                    black_box(unverified.pin()?.get(n % 2)?.map(<[u8]>::as_ptr));
                }
                Ok(1_000.0)
            })?,
            1e-9 * rate(|| {
                for record in &records {
                    black_box(sum(record));
                }
                Ok(bytes)
            })?,
            1e-9 * rate(|| {
                for &id in &ids {
                    black_box(store.pin()?.get(id)?.map(<[u8]>::as_ptr));
                }
                Ok(bytes)
            })?,
            1e-9 * rate(|| {
                for &id in &ids {
                    store.get_into(id, &mut out)?;
                    black_box(&out);
                }
                Ok(bytes)
            })?,
        ];
        for (seen, sample) in seen.iter_mut().zip(samples) {
            if round > 0 {
                seen.push(sample);
            }
        }
    }
    Ok(seen.map(median))
}

/// What `work` gives, by the second, from as many calls as fill the span.
fn rate(mut work: impl FnMut() -> recstore::Result<f64>) -> recstore::Result<f64> {
    let begin = Instant::now();
    let mut done = 0.0;
    while begin.elapsed() < SPAN {
        done += work()?;
    }
    Ok(done / begin.elapsed().as_secs_f64())
}

fn sum(data: &[u8]) -> u64 {
    let (words, _) = data.as_chunks::<8>();
    words.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}
