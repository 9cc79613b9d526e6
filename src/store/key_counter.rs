//! Exact counters under keys.

use std::cell::Cell;

use crate::error::Result;
use crate::format::keyed::Entry;
use crate::format::shaped::{self, Shaped};
use crate::handle::inside::Inside;
use crate::record::Durability;
use crate::region::rewrite::Rewritten;
use crate::region::watch::Changed;
use crate::store::modify::Action;
use crate::store::shape::ValueShape;
use crate::store::space::Space;
use crate::store::ttl::PutOptions;

thread_local! {
    /// A buffer for a record.
    static RECORD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger buffer is freed after use.
const KEPT_BYTES_MAX: usize = 4096;

/// A counter under a key, which any number of processes change. The death of a process loses no change: see [`Space::counter`].
#[derive(Clone, Debug)]
pub struct KeyCounter<'a> {
    space: Space<'a>,
    /// The record of the key, if it is the only one in the record and has no deadline; its count is 0.
    record: Box<[u8]>,
}

impl<'a> Space<'a> {
    /// The value of a key as a counter: a `u64`. An absent one counts as 0. A key that holds something else is an error.
    ///
    /// A change is one search and one write under the lock of one region, and allocates nothing: it costs as much as a
    /// [`put`](Self::put). In a space [with a time to live](Self::with_ttl), the first change sets the deadline, and later ones keep it:
    /// so many in a minute. Such a change allocates, as an [`update`](Self::update) does.
    ///
    /// ```
    /// # use recstore::{Error, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.space("pages")?;
    /// let visits = pages.counter("/index.html");
    /// visits.add(2)?;
    /// visits.add(3)?;
    /// assert_eq!(visits.get()?, 5);
    /// pages.put("title", b"text")?;
    /// assert!(matches!(pages.counter("title").add(1), Err(Error::OtherShape { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn counter(&self, key: impl AsRef<[u8]>) -> KeyCounter<'a> {
        let mut record = Vec::new();
        let value = &shaped::counter(0);
        Entry { name: self.name.as_bytes(), key: key.as_ref(), value, expiry: None }.append_to(&mut record);
        KeyCounter { space: self.clone(), record: record.into() }
    }
}

impl KeyCounter<'_> {
    /// Adds `n`, wrapping around. Returns the sum.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let visits = store.space("pages")?.counter("/index.html");
    /// assert_eq!(visits.add(7)?, 7);
    /// assert_eq!(visits.add(7)?, 14);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherShape`](crate::Error::OtherShape) if the key holds something else; as [`Space::update`].
    pub fn add(&self, n: u64) -> Result<u64> {
        self.change(|old| Ok(Some(old.wrapping_add(n)))).map(|(_, new)| new)
    }

    /// Sets the counter to the larger of its value and `n`. Returns the old value.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let highest = store.space("pages")?.counter("highest");
    /// highest.fetch_max(9)?;
    /// assert_eq!(highest.fetch_max(4)?, 9);
    /// assert_eq!(highest.get()?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn fetch_max(&self, n: u64) -> Result<u64> {
        self.change(|old| Ok((n > old).then_some(n))).map(|(old, _)| old)
    }

    /// Sets the counter. Returns the old value.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let visits = store.space("pages")?.counter("/index.html");
    /// visits.add(7)?;
    /// assert_eq!(visits.set(0)?, 7); // read and set back as one step
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn set(&self, n: u64) -> Result<u64> {
        self.change(|_| Ok(Some(n))).map(|(old, _)| old)
    }

    /// Sets the counter to what `to` gives for its value, as one step. If `to` gives `None`, the counter stays as it is. Returns the
    /// old value in `Ok`, or in `Err` if the counter stayed, as [`AtomicU64::fetch_update`](std::sync::atomic::AtomicU64::fetch_update).
    ///
    /// `to` is called under the lock of a region. It is called again if the region had to be healed, or the store had to make room.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let free_places = store.space("tickets")?.counter("free");
    /// free_places.set(1)?;
    /// assert_eq!(free_places.fetch_update(|free| free.checked_sub(1))?, Ok(1)); // sold
    /// assert_eq!(free_places.fetch_update(|free| free.checked_sub(1))?, Err(0)); // sold out
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn fetch_update(&self, mut to: impl FnMut(u64) -> Option<u64>) -> Result<Result<u64, u64>> {
        let handle = &self.space.store.handle;
        let mut is_kept = false;
        let (old, _) = self.change(|old| {
            let inside = Inside::enter(handle.file_id);
            let new = to(old);
            drop(inside);
            handle.check()?; // It may have forked, and this may be the child.
            is_kept = new.is_none();
            Ok(new)
        })?;
        Ok(if is_kept { Err(old) } else { Ok(old) })
    }

    /// Its value.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.space("pages")?.counter("/index.html").get()?, 0); // there is no such key yet
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherShape`](crate::Error::OtherShape) if the key holds something else; as [`Space::get`].
    pub fn get(&self) -> Result<u64> {
        let mut data = RECORD.take();
        let found = self.space.get_into(self.key(), &mut data);
        let count = match found {
            Ok(Some(_)) => self.count(&data),
            Ok(None) => Ok(0),
            Err(error) => Err(error),
        };
        keep(data);
        count
    }

    fn key(&self) -> &[u8] {
        let key = self.record.get(shaped::COUNTER_BYTES + self.space.name.len()..).unwrap_or_default();
        key.split_last_chunk::<8>().map_or(&[], |(key, _)| key)
    }

    fn count(&self, value: &[u8]) -> Result<u64> {
        match shaped::read(value) {
            Shaped::Counter(count) => Ok(count),
            _ => Err(self.space.other_shape(self.key(), value, &ValueShape::Counter)),
        }
    }

    /// Changes the count. Returns the one before, and the one after.
    fn change(&self, mut to: impl FnMut(u64) -> Result<Option<u64>>) -> Result<(u64, u64)> {
        let store = self.space.store;
        let id = self.space.check_key(self.key())?;
        let hash = store.check_write(id, 0)?;
        let number = store.handle.arena.geo.region_of(hash);
        let durability = store.handle.durability;
        let mut record = RECORD.take();
        record.resize(self.record.len(), 0);
        let rewritten = store.handle.with_region(number, Changed::Record(hash), |region| {
            let lone = durability == Durability::Disk;
            region.rewrite_number((hash, id), &self.record, &mut record, lone, &mut to)
        });
        keep(record);
        match rewritten? {
            Rewritten::Done { old, new, written } => {
                store.settle_one(durability, number, &written)?;
                Ok((old, new))
            }
            Rewritten::Kept(old) => Ok((old, old)),
            Rewritten::Other => self.change_any(to),
        }
    }

    /// The same for a record that is absent, is of several keys, or has a deadline.
    #[cold]
    fn change_any(&self, mut to: impl FnMut(u64) -> Result<Option<u64>>) -> Result<(u64, u64)> {
        let (durability, life) = self.space.of_change(PutOptions::default())?;
        let changed = self.space.change(self.key(), durability, life, |old| {
            let old = old.map_or(Ok(0), |(_, value)| self.count(value));
            match old.and_then(|old| Ok((old, to(old)?))) {
                Ok((old, Some(new))) => (Action::Put(shaped::counter(new)), Ok((old, new))),
                Ok((old, None)) => (Action::Keep, Ok((old, old))),
                Err(error) => (Action::Keep, Err(error)),
            }
        });
        changed?.1
    }
}

fn keep(buffer: Vec<u8>) {
    if buffer.capacity() <= KEPT_BYTES_MAX {
        RECORD.set(buffer);
    }
}
