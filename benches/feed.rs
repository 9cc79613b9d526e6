//! What following costs, and how old an event is when its follower gets it.
//!
//! ```text
//! cargo bench --bench feed                 a million records
//! cargo bench --bench feed -- 30000000     so many
//! ```
//!
//! One writer at full speed, in this process. The store is in the directory of temporary files. A row is the median of five
//! turns; the turns of the rows alternate, so that what else the machine does meets all of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use recstore::{Change, Changes, Store};

const REGIONS: u32 = 16;
const TURN: Duration = Duration::from_millis(600);
const TURNS: usize = 5;
const WATCHERS: u64 = 1000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let records: u64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::tempdir()?;
    let options = Store::options().record_size(64).regions(REGIONS);
    let store = options.create(dir.path().join("s"))?;
    store.write_many((0..records).map(|id| (id, [0; 64])))?;

    let mut alone = Vec::new();
    let mut watched = Vec::new();
    let mut followed = Vec::new();
    let mut ages = Vec::new();
    for _ in 0..TURNS {
        alone.push(put_for(&store, records, TURN)?);
        watched.push(beside_watchers(&store, records)?);
        alone.push(put_for(&store, records, TURN)?);
        followed.push(beside_follower(&store, records, &mut ages)?);
    }
    let (alone, watched, followed) = (median(&mut alone), median(&mut watched), median(&mut followed));
    println!("{records} records, {REGIONS} regions");
    println!("a put alone                                   {alone:>8} ns");
    println!("a put beside {WATCHERS} watchers of other ids       {watched:>8} ns");
    println!("a put beside a follower                       {followed:>8} ns");
    ages.sort_unstable();
    let part = |n: usize| ages.get(ages.len() * n / 1000).copied().unwrap_or(0) / 1000;
    println!(
        "age of an event: p50 {} us, p99 {} us, p99.9 {} us ({} events)",
        part(500),
        part(990),
        part(999),
        ages.len()
    );
    Ok(())
}

/// Nanoseconds that the kernel let this thread run.
fn own_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is live, and the call fills it.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn median(of: &mut [u64]) -> u64 {
    of.sort_unstable();
    of[of.len() / 2]
}

/// Nanoseconds of a put of any record.
fn put_for(store: &Store, records: u64, time: Duration) -> Result<u64> {
    let (began, mut count, ran) = (Instant::now(), 0, own_time());
    let mut data = [0; 64];
    while began.elapsed() < time {
        for _ in 0..64 {
            // When it was written, for the follower.
            data[..8].copy_from_slice(&now().to_le_bytes());
            store.put(spread(count) % records, data)?;
            count += 1;
        }
    }
    let (ran, took) = (own_time() - ran, began.elapsed().as_nanos() as u64);
    eprintln!("    {count} puts in {} ms, of which the thread ran {} ns each", took / 1_000_000, ran / count);
    Ok(took / count)
}

/// Nanoseconds of a clock that all threads share.
fn now() -> u64 {
    use std::sync::OnceLock;
    static ZERO: OnceLock<Instant> = OnceLock::new();
    ZERO.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 8
}

/// The watched ids are in no put.
fn beside_watchers(store: &Store, records: u64) -> Result<u64> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for id in records..records + WATCHERS {
            let stop = &stop;
            std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, move || {
                let mut watch = store.watch(id).expect("a watch");
                while !stop.load(Ordering::Relaxed) {
                    watch.wait(None).expect("an event");
                }
            })?;
        }
        std::thread::sleep(Duration::from_millis(300));
        let put = put_for(store, records, TURN);
        stop.store(true, Ordering::Relaxed);
        store.write_many((records..records + WATCHERS).map(|id| (id, [0; 64])))?;
        put
    })
}

fn beside_follower(store: &Store, records: u64, ages: &mut Vec<u64>) -> Result<u64> {
    let stop = AtomicBool::new(false);
    let mut changes = feed(store)?;
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(store, &mut changes, &stop, ages));
        std::thread::sleep(Duration::from_millis(50));
        let put = put_for(store, records, TURN);
        stop.store(true, Ordering::Relaxed);
        store.put(u64::MAX, b"the end")?;
        follower.join().map_err(|_| "the follower panicked")??;
        put
    })
}

/// Follows until it is told to stop. Some of the events are looked at: reading each record would be the follower's work, not the
/// feed's.
fn follow(store: &Store, changes: &mut Changes<'_>, stop: &AtomicBool, ages: &mut Vec<u64>) -> Result<()> {
    let (mut count, mut data) = (0_u64, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let Some(Change::Written { id, version }) = changes.next_timeout(Duration::from_millis(100))? else {
            continue;
        };
        count += 1;
        if count.is_multiple_of(100) && store.get_into(id, &mut data)? == Some(version) {
            let at = u64::from_le_bytes(data[..8].try_into()?);
            ages.push(now().saturating_sub(at));
        }
    }
    Ok(())
}

fn feed(store: &Store) -> Result<Changes<'_>> {
    let mut changes = store.changes()?;
    while changes.next_timeout(Duration::from_secs(9))? != Some(Change::CaughtUp) {}
    Ok(changes)
}
