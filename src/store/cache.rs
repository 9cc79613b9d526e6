//! Caches: keys and values with a bound, shared by processes.
//!
//! A cache is a space, `cache NAME`. A value has 8 bytes behind it: the time when it was written, by a clock that counts the writes of
//! the cache. The bound and the count are in one record: see [`cache_usage`](super::cache_usage).
//!
//! 1. A write first lets values go, until there is room below the bound, then counts itself, and then writes the value. If others
//!    wrote meanwhile and the count is above the bound, more values go.
//! 2. What goes is the oldest of five values at random places, or the one of them that was not used for longest: see
//!    [`cache_sample`](super::cache_sample) and [`cache_stamps`](super::cache_stamps). It goes only if it is the version that was seen.
//! 3. If the count is above the bound and no value is there, the count is wrong, and is made anew.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::record::{Durability, Record, Version};
use crate::store::Store;
use crate::store::cache_sample::{sample, split_tick};
use crate::store::cache_stamps::{GROUP_BYTES, Stamps};
use crate::store::cache_usage::{CACHE, Count, Load, Usage};
use crate::store::entry::Life;
use crate::store::modify::Action;
use crate::store::space::Space;
use crate::store::ttl::{PutOptions, Ttl};

/// Tries for one value to go: each time another process was faster.
const TRIES: u32 = 64;
/// A cache that is bounded in bytes alone has stamps for values of so many bytes.
const BYTES_OF_STAMP: u64 = 128;

/// The bound of a cache: see [`Store::cache`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheOptions {
    max_records: Option<u64>,
    max_bytes: Option<u64>,
    is_lru: bool,
}

impl CacheOptions {
    /// No bound: for a cache that is there.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.cache("pages", CacheOptions::new().max_records(1000))?;
    /// let pages = store.cache("pages", CacheOptions::new())?; // with the bound that it has
    /// assert_eq!(pages.stats()?.max_records, Some(1000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// At most so many values.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_records(2))?;
    /// for page in ["a", "b", "c"] {
    ///     pages.put(page, b"content")?;
    /// }
    /// assert_eq!(pages.stats()?.records, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_records(mut self, max: u64) -> Self {
        self.max_records = Some(max);
        self
    }

    /// At most so many bytes of keys and values. What the store needs beside them is not counted.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_bytes(20))?;
    /// for page in ["a", "b", "c"] {
    ///     pages.put(page, b"content")?; // 8 bytes each
    /// }
    /// assert_eq!(pages.stats()?.bytes, 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_bytes(mut self, max: u64) -> Self {
        self.max_bytes = Some(max);
        self
    }

    /// The value that was not used for longest goes first, in place of the oldest one. Both are the best of five values that are drawn
    /// at random. When a value was used is known by the hash of its key, in at least 128 stamps and two for each value: now and then two
    /// values have one stamp, and a use of one counts for both.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_records(2).least_recently_used())?;
    /// pages.put("a", b"1")?;
    /// pages.put("b", b"2")?;
    /// pages.get("a")?;
    /// pages.put("c", b"3")?; // in place of b, if a and b have stamps of their own
    /// assert!(pages.get("c")?.is_some());
    /// assert_eq!(pages.stats()?.records, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn least_recently_used(mut self) -> Self {
        self.is_lru = true;
        self
    }
}

/// The bound of a cache and what it holds: see [`Cache::stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Values.
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The most values that there may be.
    pub max_records: Option<u64>,
    /// The most bytes of keys and values that there may be.
    pub max_bytes: Option<u64>,
    /// Whether the least recently used value goes first, and not the oldest one.
    pub is_least_recently_used: bool,
    /// Values that were written so far.
    pub writes: u64,
}

/// Keys and values with a bound, shared by processes: see [`Store::cache`].
#[derive(Clone, Debug)]
pub struct Cache<'a> {
    space: Space<'a>,
    count: Count<'a>,
    /// The record of the bound as it was found.
    opened: Usage,
    /// If the least recently used value goes first: its stamps, and their space.
    stamps: Option<(Arc<Stamps>, Space<'a>)>,
}

/// Caches.
impl Store {
    /// The cache with this name: keys and values that any number of processes share, with a bound on their number, their bytes, or both.
    /// A value that would not fit takes the place of others. The bound is kept in the store. It is given when the cache is made; later
    /// the same one, or none.
    ///
    /// A read takes no lock and writes nothing to the store. With [`least_recently_used`](CacheOptions::least_recently_used) it writes one
    /// word in the memory of this handle. A write of a new value into a full cache is three writes to the store and one deletion.
    ///
    /// What the cache holds is counted exactly. Each process that dies in the middle of a write leaves the count too high by the
    /// values of that call, until [`recount`](Cache::recount), and not too low; so the bound holds. It is exceeded by the values that are
    /// being written at the moment, one a call. A recount beside writes may be wrong by the values that they write or delete at its
    /// moment; a put does one if the count says that the cache is full and no value is found that may go. A loss of power loses what any [`Space`] loses; the first [`Store::cache`] after it counts
    /// anew, in a pass over the store.
    ///
    /// Only the calls of this type count. The values are in the space `cache NAME`, each with 8 bytes behind it, for dumps, copies and the
    /// command. In a store that holds much more than its caches, finding a value that may go is a search: give a large cache a store of its
    /// own.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Error, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let bound = CacheOptions::new().max_bytes(64 << 20).least_recently_used();
    /// let pages = store.cache("pages", bound)?;
    /// if pages.get("/index.html")?.is_none() {
    ///     pages.put("/index.html", b"made with much effort")?;
    /// }
    /// assert_eq!(pages.get("/index.html")?.unwrap().data(), b"made with much effort");
    /// let other = store.cache("pages", bound.max_bytes(1 << 20));
    /// assert!(matches!(other, Err(Error::OtherShape { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherShape`] if the cache has another bound; [`Error::InvalidOption`] for a new cache without a bound, a bound of 0,
    /// stamps of 512 bytes that don't fit into a record, or an invalid name: as [`space`](Self::space); as [`Space::update`].
    pub fn cache(&self, name: &str, options: CacheOptions) -> Result<Cache<'_>> {
        let CacheOptions { max_records, max_bytes, is_lru } = options;
        let space = self.space(&format!("{CACHE}{name}"))?;
        let stamped = self.space(&format!("cache stamps {name}"))?;
        let refused = |what: String| Err(Error::InvalidOption { what });
        if max_records == Some(0) || max_bytes == Some(0) {
            return refused(format!("cache {name:?} of no values"));
        }
        let count = Count::new(self, name)?;
        let (max_records, max_bytes) = (max_records.unwrap_or(u64::MAX), max_bytes.unwrap_or(u64::MAX));
        let wanted = Usage {
            max_records,
            max_bytes,
            policy: u64::from(is_lru),
            records: 0,
            bytes: 0,
            ticks: 0,
            life: 0,
        };
        let group_bytes = GROUP_BYTES + stamped.name().len() + 4 + 8;
        if is_lru && group_bytes > self.record_size() {
            return refused(format!(
                "the stamps of a cache take {group_bytes} bytes a record, and a record of the store at most {}",
                self.record_size()
            ));
        }
        let (usage, is_to_count) = count.open(wanted)?;
        if is_to_count {
            count.recount()?;
        }
        let stamps = (usage.policy == 1).then(|| {
            let stamps = Stamps::new(usage.max_records.min(usage.max_bytes / BYTES_OF_STAMP));
            stamps.learn(usage.ticks);
            (Arc::new(stamps), stamped)
        });
        Ok(Cache { space, count, opened: usage, stamps })
    }
}

impl Cache<'_> {
    /// The value of a key, or `None`.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_records(1000))?;
    /// assert!(pages.get("/index.html")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Space::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Record>> {
        let (key, mut data) = (key.as_ref(), Vec::new());
        let found = self.get_into(key, &mut data)?;
        Ok(found.map(|version| Record { id: self.space.id_of(key), version, data }))
    }

    /// Reads a value into `out`, whose content is overwritten and whose allocation is used again. If there is no such key, the content
    /// of `out` is unspecified.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_records(1000))?;
    /// pages.put("/index.html", b"content")?;
    /// let mut buffer = Vec::new(); // used again for the next one
    /// assert!(pages.get_into("/index.html", &mut buffer)?.is_some());
    /// assert_eq!(buffer, b"content");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Space::get`].
    pub fn get_into(&self, key: impl AsRef<[u8]>, out: &mut Vec<u8>) -> Result<Option<Version>> {
        let key = key.as_ref();
        let Some(version) = self.space.get_into(key, out)? else { return Ok(None) };
        // A value that another program put there has no time behind it, and is no value of the cache.
        let Some((value, tick)) = split_tick(out) else { return Ok(None) };
        let len = value.len();
        if let Some((stamps, _)) = &self.stamps {
            stamps.learn(tick);
            stamps.use_now(self.space.id_of(key));
        }
        out.truncate(len);
        Ok(Some(version))
    }

    /// Writes a value. If there is no room below the bound, others go.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_records(1000))?;
    /// pages.put("/index.html", b"content")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if key and value alone are longer than the bound; as [`Space::put`]. After an error the key is as it
    /// was; others may have gone.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Version> {
        self.put_with(key, value, PutOptions::default())
    }

    /// [`put`](Self::put) with a time to live, the durability, or both, of this one write. A value that is over counts until it is
    /// written anew, goes for another one, or is [swept](Store::sweep).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{CacheOptions, Store, Ttl};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_records(1000))?;
    /// pages.put_with("/index.html", b"content", Ttl::after(Duration::from_secs(60)))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: impl Into<PutOptions>,
    ) -> Result<Version> {
        let (key, value, mut options) = (key.as_ref(), value.as_ref(), options.into());
        options.ttl = Some(options.ttl.unwrap_or(Ttl::NEVER));
        let (durability, life) = self.space.of_change(options)?;
        let mine = Load::of(key, value.len());
        let usage = self.usage()?;
        if usage.emptied().is_over_with(mine) {
            let what = format!(
                "a value of {} bytes with its key in a cache of at most {} bytes",
                mine.bytes, usage.max_bytes
            );
            return Err(Error::InvalidOption { what });
        }
        let mut data = Vec::new();
        let mut before = match self.space.get_into(key, &mut data)? {
            Some(_) => Load::of_stored(key, data.len()),
            None => Load::default(),
        };
        let mut usage = usage;
        let version = loop {
            let assumed = mine.less(before).growth();
            usage = self.count_in(usage, assumed, key)?;
            let stored = [value, &usage.ticks.to_le_bytes()].concat();
            let mut is_put = false;
            let written = self.space.change_any(key, durability, life, |old| {
                before = old.map_or(Load::default(), |old| Load::of_stored(key, old.value.len()));
                is_put = assumed.covers(mine.less(before));
                (if is_put { Action::Put(&stored) } else { Action::Keep }, ())
            });
            // A flush that fails leaves the value there.
            let is_there =
                is_put && matches!(written, Ok(_) | Err(Error::FlushFailed { .. } | Error::Io { .. }));
            let actual = if is_there { mine.less(before) } else { Load::default() };
            let wrong = actual.less(assumed);
            if wrong != Load::default() {
                usage = self.count.change(wrong, 0)?.unwrap_or(usage);
            }
            match written {
                Ok(_) if !is_put => {} // Rule 4.
                written => break written.map(|(version, ())| version),
            }
        };
        if let Some((stamps, space)) = &self.stamps {
            stamps.learn(usage.ticks);
            let _ = stamps.exchange(space); // The value is written. A later write exchanges them.
        }
        version?.ok_or_else(|| self.space.store.no_entries(self.space.id_of(key)))
    }

    /// Counts `more`, and lets values go until the count is within the bound: rule 1. `key` stays.
    fn count_in(&self, mut usage: Usage, mut more: Load, key: &[u8]) -> Result<Usage> {
        let mut ticks = 1;
        loop {
            let was_over = usage.is_over_with(more);
            let freed = self.let_go(&usage, more, key)?;
            usage = self.count.change(more.less(freed), ticks)?.unwrap_or(usage);
            (more, ticks) = (Load::default(), 0);
            if !usage.is_over_with(more) {
                return Ok(usage);
            }
            if was_over && freed == Load::default() {
                let counted = self.count.recount()?; // Rule 3.
                if counted.is_over_with(more)
                    && (counted.records, counted.bytes) == (usage.records, usage.bytes)
                {
                    return Ok(counted); // All the others are being written.
                }
                usage = counted;
            }
        }
    }

    /// Lets values go until there is room for `more`, or no other value is found.
    fn let_go(&self, usage: &Usage, more: Load, key: &[u8]) -> Result<Load> {
        let (mut freed, mut tries) = (Load::default(), 0);
        while usage.is_over_with(more.less(freed)) && tries < TRIES {
            tries += 1;
            let candidates = sample(&self.space)?;
            let age = |id, tick: u64| match &self.stamps {
                Some((stamps, _)) => u64::from(stamps.age(id, tick, usage.ticks)),
                None => usage.ticks.saturating_sub(tick),
            };
            let others = candidates.into_iter().filter(|candidate| candidate.key != key);
            let Some(oldest) = others.max_by_key(|candidate| age(candidate.id, candidate.tick)) else {
                continue;
            };
            let (_, gone) =
                self.space.change_any(&oldest.key, Durability::Process, Life::Kept(None), |old| {
                    let old = old.filter(|old| old.version == oldest.version);
                    let gone = old.map(|old| Load::of_stored(&oldest.key, old.value.len()));
                    (if gone.is_some() { Action::<&[u8]>::Delete } else { Action::Keep }, gone)
                })?;
            if let Some(gone) = gone {
                freed = freed.add(gone);
                tries = 0;
            }
        }
        Ok(freed)
    }

    /// The value of a key. If there is none, it is made and written. Two processes that find none at once both make it.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let squares = store.cache("squares", CacheOptions::new().max_records(1000))?;
    /// let square = squares.get_or_insert_with("12", || (12 * 12).to_string())?;
    /// assert_eq!(square, b"144");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get) and [`put`](Self::put).
    pub fn get_or_insert_with<T: Into<Vec<u8>>>(
        &self,
        key: impl AsRef<[u8]>,
        make: impl FnOnce() -> T,
    ) -> Result<Vec<u8>> {
        let (key, mut data) = (key.as_ref(), Vec::new());
        if self.get_into(key, &mut data)?.is_none() {
            data = make().into();
            self.put(key, &data)?;
        }
        Ok(data)
    }

    /// Deletes a key. Returns whether it was there.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_records(1000))?;
    /// pages.put("/index.html", b"content")?;
    /// assert!(pages.delete("/index.html")?);
    /// assert_eq!(pages.stats()?.records, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Space::delete`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let durability = self.space.store.handle.durability;
        let (_, old) = self.space.change_any(key, durability, Life::Kept(None), |old| {
            let of = old.map(|old| (Load::of_stored(key, old.value.len()), !old.is_over));
            (Action::<&[u8]>::Delete, of)
        })?;
        let Some((gone, was_there)) = old else { return Ok(false) };
        self.count.change(Load::default().less(gone), 0)?;
        Ok(was_there)
    }

    /// Every key with its value, once, in no order, as [`Space::iter`]. No value counts as used.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_records(1000))?;
    /// pages.put("/index.html", b"content")?;
    /// let all = pages.iter().collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(all, [(b"/index.html".to_vec(), b"content".to_vec())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>)>> {
        self.space.iter().filter_map(|found| match found {
            Ok((key, record)) => Some(Ok((key, split_tick(record.data())?.0.to_vec()))),
            Err(error) => Some(Err(error)),
        })
    }

    /// The bound of the cache and what it holds. Constant time.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_records(1000))?;
    /// pages.put("/index.html", b"content")?;
    /// let stats = pages.stats()?;
    /// assert_eq!((stats.records, stats.bytes, stats.max_bytes), (1, 18, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Space::get`].
    pub fn stats(&self) -> Result<CacheStats> {
        let usage = self.usage()?;
        let most = |max| (max != u64::MAX).then_some(max);
        Ok(CacheStats {
            records: usage.records,
            bytes: usage.bytes,
            max_records: most(usage.max_records),
            max_bytes: most(usage.max_bytes),
            is_least_recently_used: usage.policy == 1,
            writes: usage.ticks,
        })
    }

    /// Counts the values anew: after processes died in the middle of a write. A pass over the records of a snapshot of the store.
    ///
    /// The count may be wrong by the values that other processes write at the moment of the snapshot, one each.
    ///
    /// ```
    /// # use recstore::{CacheOptions, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.cache("pages", CacheOptions::new().max_records(1000))?;
    /// pages.put("/index.html", b"content")?;
    /// assert_eq!(pages.recount()?.records, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::snapshot`] and [`Space::update`].
    pub fn recount(&self) -> Result<CacheStats> {
        self.count.recount()?;
        self.stats()
    }

    /// The record of the bound. If another program deleted it, it is made anew.
    fn usage(&self) -> Result<Usage> {
        let emptied = self.opened.emptied();
        match self.count.get()? {
            Some(usage) => Ok(usage),
            None if self.space.store.is_read_only() => Ok(emptied),
            None => {
                self.count.open(emptied)?;
                self.count.recount()
            }
        }
    }
}
