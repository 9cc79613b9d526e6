//! Caches: keys and values with a bound.
//!
//! The hash of a key is cut to 8 bits here, so the keys share ids all the time.
//!
//! Fails when: a key gives another value than the last one that was put there; more values, or more bytes, are there than the bound
//! allows; the count is not what is there, or is below it after a death or a loss of power; a value that is used all the time goes
//! for one that nobody uses; a cache is opened with another bound.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use rand::Rng;
use recstore::{Cache, CacheOptions, Error, Options, Store, Ttl};

use crate::common::{self, Me, lose_power};
use crate::steps::at_every_step;

fn small() -> Options {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| recstore::testing::shorten_key_hash(8));
    Options::new().record_size(8192).regions(3).slots_per_extent(64)
}

fn new_store() -> (tempfile::TempDir, Store) {
    let dir = common::scratch();
    let store = small().create(dir.path().join("s")).unwrap();
    (dir, store)
}

fn of_records(max: u64) -> CacheOptions {
    CacheOptions::new().max_records(max)
}

fn contents(cache: &Cache<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    cache.iter().collect::<Result<_, _>>().unwrap()
}

/// Values and bytes that are there, and those that are counted.
fn loads(cache: &Cache<'_>) -> [(u64, u64); 2] {
    let there = contents(cache);
    let bytes: usize = there.iter().map(|(key, value)| key.len() + value.len()).sum();
    let stats = cache.stats().unwrap();
    [(there.len() as u64, bytes as u64), (stats.records, stats.bytes)]
}

#[track_caller]
fn check_count(cache: &Cache<'_>) {
    let [there, counted] = loads(cache);
    assert_eq!(there, counted);
    let stats = cache.stats().unwrap();
    assert!(stats.max_records.is_none_or(|max| there.0 <= max), "{stats:?}");
    assert!(stats.max_bytes.is_none_or(|max| there.1 <= max), "{stats:?}");
}

#[test]
fn a_cache_has_what_was_put_last_or_nothing_and_is_never_above_its_bound() {
    let mut rng = common::seeded();
    let (dir, store) = new_store();
    store.space("others").unwrap().put("not of the cache", b"stays").unwrap();
    let path = dir.path().join("s");
    for options in [
        of_records(1),
        of_records(40),
        of_records(40).least_recently_used(),
        CacheOptions::new().max_bytes(900),
        CacheOptions::new().max_bytes(900).max_records(25).least_recently_used(),
    ] {
        let name = format!("{options:?}").replace('/', "");
        let mut handles = [Store::open(&path).unwrap(), Store::open(&path).unwrap()];
        let mut model: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut hits = 0;
        for call in 0..1200 {
            if call % 200 == 199 {
                let n = rng.random_range(0..2);
                handles[n] = Store::open(&path).unwrap();
            }
            let cache = handles[rng.random_range(0..2)].cache(&name, options).unwrap();
            let key = rng.random_range(0..80u32);
            match rng.random_range(0..10) {
                0..=4 => {
                    let value = vec![rng.random(); rng.random_range(0..50)];
                    cache.put(key.to_le_bytes(), &value).unwrap();
                    model.insert(key, value);
                    assert!(cache.get(key.to_le_bytes()).unwrap().is_some(), "it was just put");
                }
                5..=8 => match cache.get(key.to_le_bytes()).unwrap() {
                    Some(found) => {
                        hits += 1;
                        assert_eq!(Some(found.data()), model.get(&key).map(|value| &value[..]));
                    }
                    None => _ = model.remove(&key), // It must not come back.
                },
                _ => {
                    let was_there = cache.get(key.to_le_bytes()).unwrap().is_some();
                    assert_eq!(cache.delete(key.to_le_bytes()).unwrap(), was_there);
                    model.remove(&key);
                }
            }
            if call % 40 == 0 {
                check_count(&cache);
            }
        }
        assert!(hits > 5 || options == of_records(1), "{options:?}: {hits} hits");
        check_count(&handles[0].cache(&name, CacheOptions::new()).unwrap());
    }
    assert_eq!(store.space("others").unwrap().len().unwrap(), 1);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_bound_is_kept_in_the_store_and_another_one_is_refused() {
    let (dir, store) = new_store();
    assert!(matches!(store.cache("pages", CacheOptions::new()), Err(Error::InvalidOption { .. })));
    assert!(matches!(store.cache("pages", of_records(0)), Err(Error::InvalidOption { .. })));
    assert!(matches!(store.cache("pages/", of_records(1)), Err(Error::InvalidOption { .. })));
    assert!(store.spaces().unwrap().is_empty());
    let pages = store.cache("pages", of_records(8).max_bytes(100)).unwrap();
    store.cache("pages", of_records(8).max_bytes(100)).unwrap();
    for other in
        [of_records(9).max_bytes(100), of_records(8), of_records(8).max_bytes(100).least_recently_used()]
    {
        let error = store.cache("pages", other).unwrap_err();
        let Error::OtherShape { found, .. } = &error else { panic!("{error}") };
        assert_eq!(&**found, "a cache of at most 8 values and 100 bytes, oldest out");
    }
    let too_long = pages.put("key", [0; 98]).unwrap_err();
    assert!(too_long.to_string().contains("a value of 101 bytes with its key"), "{too_long}");
    pages.put("key", [7; 97]).unwrap();
    let reader = Store::open_read_only(dir.path().join("s")).unwrap();
    let read = reader.cache("pages", CacheOptions::new()).unwrap();
    assert_eq!(read.get("key").unwrap().unwrap().data(), [7; 97]);
    assert!(matches!(read.put("key", b"1"), Err(Error::ReadOnly { .. })));
    assert!(reader.cache("absent", of_records(8)).unwrap().get("key").unwrap().is_none());
    assert_eq!(reader.cache("absent", of_records(8)).unwrap().stats().unwrap().records, 0);
    let tight = Options::new().record_size(256).create(dir.path().join("tight")).unwrap();
    let lru = tight.cache("pages", of_records(8).least_recently_used());
    assert!(matches!(lru, Err(Error::InvalidOption { .. })), "{lru:?}");
    // The record of the bound was deleted.
    store.space("caches").unwrap().delete("pages").unwrap();
    pages.put("a", [7; 20]).unwrap();
    check_count(&pages);
}

/// Twenty values are used all the time, while others come and go. How often they were found.
fn share_of_hits(options: CacheOptions, name: &str) -> f64 {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = small().create(&path).unwrap();
    let other = Store::open(&path).unwrap();
    let (reader, writer) = (store.cache(name, options).unwrap(), other.cache(name, options).unwrap());
    let (mut hits, mut looks) = (0, 0);
    for n in 0..6000u32 {
        writer.put(n.to_le_bytes(), b"used never again").unwrap();
        for hot in 0..2 {
            let key = format!("hot {}", (n * 2 + hot) % 20);
            looks += 1;
            match reader.get(&key).unwrap() {
                Some(_) => hits += 1,
                None => _ = reader.put(&key, b"used all the time").unwrap(),
            }
        }
    }
    check_count(&reader);
    f64::from(hits) / f64::from(looks)
}

#[test]
fn what_is_used_stays_longer_than_what_is_not_also_if_one_handle_reads_and_another_writes() {
    let oldest = share_of_hits(of_records(200), "oldest");
    let used = share_of_hits(of_records(200).least_recently_used(), "used");
    println!("hits: {oldest} if the oldest goes, {used} if the least recently used goes");
    assert!(used > oldest + 0.01, "{used}, {oldest}");
}

#[test]
fn the_bound_and_the_count_hold_where_threads_write_at_once() {
    let (_dir, store) = new_store();
    for options in [of_records(50), CacheOptions::new().max_bytes(1000).least_recently_used()] {
        let name = format!("{options:?}");
        let seed = common::seeded().random::<u32>();
        std::thread::scope(|scope| {
            for thread in 0..3u32 {
                let (store, name) = (&store, &name);
                scope.spawn(move || {
                    let cache = store.cache(name, options).unwrap();
                    let mut n = seed ^ thread;
                    for _ in 0..800 {
                        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let key = (n >> 8) % 150;
                        match n >> 28 {
                            0..=10 => _ = cache.put(key.to_le_bytes(), vec![1; key as usize % 30]).unwrap(),
                            11 => _ = cache.delete(key.to_le_bytes()).unwrap(),
                            _ => {
                                let found = cache.get(key.to_le_bytes()).unwrap();
                                assert!(found.is_none_or(|found| found.data().len() == key as usize % 30));
                            }
                        }
                        let stats = cache.stats().unwrap();
                        assert!(stats.max_records.is_none_or(|max| stats.records <= max + 3), "{stats:?}");
                        assert!(stats.max_bytes.is_none_or(|max| stats.bytes <= max + 3 * 34), "{stats:?}");
                    }
                });
            }
        });
        check_count(&store.cache(&name, options).unwrap());
    }
}

#[test]
fn what_is_over_counts_until_it_is_swept_or_goes() {
    let (_dir, store) = new_store();
    let cache = store.cache("pages", of_records(10)).unwrap();
    for n in 0..6u8 {
        cache.put_with([n], b"over", Ttl::after(Duration::ZERO)).unwrap();
    }
    cache.put([7], b"stays").unwrap();
    assert_eq!(loads(&cache), [(1, 6), (7, 6 * 5 + 6)]);
    cache.put([0], b"anew").unwrap();
    assert_eq!(cache.stats().unwrap().records, 7);
    while !store.sweep(100).unwrap().is_round_over {}
    check_count(&cache);
    assert_eq!(cache.stats().unwrap().records, 2);
}

type Call = fn(&Store);

fn die_in_caches() {
    fn cache(store: &Store) -> Cache<'_> {
        store.cache("pages", of_records(4).max_bytes(40)).unwrap()
    }
    let prepare = |path: &Path| {
        let store = small().create(path).unwrap();
        (0..6u8).for_each(|n| _ = cache(&store).put([n], [n; 8]).unwrap());
        store
    };
    let open = |path: &Path| small().open(path).unwrap();
    let calls: [(&str, Call); 3] = [
        ("a new value", |store| _ = cache(store).put([9], [9; 8]).unwrap()),
        ("a longer value", |store| _ = cache(store).put([5], [9; 20]).unwrap()),
        ("delete", |store| assert!(cache(store).delete([5]).unwrap())),
    ];
    for (name, call) in calls {
        at_every_step(name, prepare, open, call, |store, is_done| {
            let pages = cache(store);
            let [there, counted] = loads(&pages);
            assert!(there.0 <= 4 && there.1 <= 40, "{name}: {there:?}");
            assert!(counted.0 >= there.0 && counted.1 >= there.1, "{name}: {there:?}, {counted:?}");
            assert!(counted.0 <= there.0 + 3 && counted.1 <= there.1 + 29, "{name}: {there:?}, {counted:?}");
            assert!(!is_done || there == counted, "{name}");
            let all = contents(&pages);
            assert!(all.iter().all(|(key, value)| value.iter().all(|&byte| byte == key[0] || byte == 9)));
            assert!(!(is_done && name == "a new value") || all.contains_key(&[9][..]), "{name}");
            // The count that is too high does no harm, and is made right.
            pages.put([20], [20; 8]).unwrap();
            assert!(loads(&pages)[0].0 <= 4);
            pages.recount().unwrap();
            check_count(&pages);
        });
    }
}

#[test]
fn child_entry() {
    match Me::from_env().as_ref().map(|me| &me.role[..]) {
        None => {}
        Some("caches") => die_in_caches(),
        Some(role) => panic!("no such role: {role}"),
    }
}

#[test]
fn a_death_at_any_step_leaves_a_count_that_is_not_too_low_and_a_bound_that_holds() {
    common::alone("caches", &[]);
}

#[test]
fn the_values_are_counted_anew_after_a_loss_of_power() {
    let mut rng = common::seeded();
    let dir = common::scratch();
    let mut wrong = 0;
    for round in 0..20 {
        let path = dir.path().join(format!("store {round}"));
        let store = small().create(&path).unwrap();
        let put = |store: &Store, count: u32, rng: &mut rand::rngs::StdRng| {
            let cache = store.cache("pages", of_records(30)).unwrap();
            for _ in 0..count {
                let key = rng.random_range(0..60u8);
                cache.put([key], vec![key; rng.random_range(0..20)]).unwrap();
            }
        };
        put(&store, 40, &mut rng);
        store.sync().unwrap();
        let synced = std::fs::read(&path).unwrap();
        put(&store, 60, &mut rng);
        let now = std::fs::read(&path).unwrap();
        let image = dir.path().join(format!("image {round}"));
        lose_power(&image, &synced, &now, 0.5, &mut rng);
        let store = Store::open(&image).unwrap();
        let before = store.space("cache pages").unwrap().len().unwrap();
        let cache = store.cache("pages", CacheOptions::new()).unwrap();
        let [there, counted] = loads(&cache);
        assert_eq!(there, counted, "round {round}");
        assert_eq!(there.0, before);
        wrong += u32::from(there.0 > 30);
        put(&store, 1, &mut rng);
        check_count(&cache);
        put(&store, 100, &mut rng);
        check_count(&cache);
    }
    println!("{wrong} of 20 rounds came back above the bound");
}
