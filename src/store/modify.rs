//! Changing a record as one step: the caller's code decides the change, under the lock of the record's region.

use crate::error::{Error, Result};
use crate::format::slot::Address;
use crate::handle::inside::Inside;
use crate::handle::lock::in_region;
use crate::record::{Durability, Record, Swap, Version};
use crate::region::head::Region;
use crate::region::watch::Changed;
use crate::region::write::Content;
use crate::store::Store;

/// The change of a record: see [`Store::modify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<T> {
    /// It stays as it is, and absent if it is absent.
    Keep,
    /// These are its bytes from now on.
    Put(T),
    /// It is deleted, if it is there.
    Delete,
}

/// A keyed record beside one that is changed.
pub(super) struct Companion {
    pub(super) data: Vec<u8>,
    /// No loss of power brings the version before it back.
    pub(super) is_on_disk: bool,
}

/// Changing a record as one step.
impl Store {
    /// Reads a record, calls `change` for its new bytes, and writes them, as one step: no other writer, in any thread or process, can
    /// come between. `change` gets `None` if there is no record. If it returns `None`, the record is not written, and the result is
    /// `None`.
    ///
    /// `change` runs under the region's lock: other writers of the region wait for it. A write to the same store from inside `change`,
    /// through any handle on the same file, is refused with [`Error::Reentrant`]. If `change` panics, the record is not written. The
    /// same holds for the `as_ref` of its result.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// // Exact, however many threads and processes do it.
    /// for _ in 0..3 {
    ///     store.update(1, |old| {
    ///         let n = old.and_then(|old| old.try_into().ok()).map_or(0, u64::from_le_bytes);
    ///         Some((n + 1).to_le_bytes())
    ///     })?;
    /// }
    /// assert_eq!(store.get(1)?.unwrap().data(), 3u64.to_le_bytes());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::Corrupt`] if the record is damaged.
    pub fn update<T: AsRef<[u8]>>(
        &self,
        id: u64,
        change: impl FnOnce(Option<&[u8]>) -> Option<T>,
    ) -> Result<Option<Version>> {
        self.update_with(id, self.handle.durability, change)
    }

    /// [`update`](Self::update) with the durability of this one write.
    ///
    /// ```
    /// # use recstore::{Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.update_with(1, Durability::Disk, |old| old.is_none().then_some(b"the first one"))?;
    /// assert!(store.contains(1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`update`](Self::update) and [`put_with`](Self::put_with).
    pub fn update_with<T: AsRef<[u8]>>(
        &self,
        id: u64,
        durability: Durability,
        change: impl FnOnce(Option<&[u8]>) -> Option<T>,
    ) -> Result<Option<Version>> {
        let changed = self.change(id, durability, |old| {
            (change(old.map(|old| old.1)).map_or(Action::Keep, Action::Put), ())
        });
        changed.map(|(version, ())| version)
    }

    /// [`update`](Self::update) that can fail, can delete, and returns a value. `change` gets the record's bytes, or `None`. It returns
    /// an [`Action`] for the record, and a value for the caller. If it returns an error, the record is not changed.
    ///
    /// The rules for the closure of [`update`](Self::update) hold for `change` too.
    ///
    /// ```
    /// # use recstore::{Action, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, [3])?;
    /// // Takes one; the last one takes the record with it.
    /// let take = || {
    ///     store.modify(1, |old| match old {
    ///         Some([1]) => Ok((Action::Delete, 0)),
    ///         Some(&[n]) => Ok((Action::Put([n - 1]), n - 1)),
    ///         _ => Err("none is left".into()),
    ///     })
    /// };
    /// let left: Result<u8, Box<dyn std::error::Error>> = take();
    /// assert_eq!(left?, 2);
    /// assert_eq!(take()?, 1);
    /// assert_eq!(take()?, 0);
    /// assert!(take().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The error of `change`; as [`update`](Self::update).
    pub fn modify<T: AsRef<[u8]>, R, E: From<Error>>(
        &self,
        id: u64,
        change: impl FnOnce(Option<&[u8]>) -> Result<(Action<T>, R), E>,
    ) -> Result<R, E> {
        self.modify_with(id, self.handle.durability, change)
    }

    /// [`modify`](Self::modify) with the durability of this one change.
    ///
    /// ```
    /// # use recstore::{Action, Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let taken: Option<Vec<u8>> = store.modify_with(1, Durability::Disk, |old| {
    ///     Ok::<_, recstore::Error>((Action::<&[u8]>::Delete, old.map(<[u8]>::to_vec)))
    /// })?;
    /// assert_eq!(taken.as_deref(), Some(&b"one"[..]));
    /// assert!(!store.contains(1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`modify`](Self::modify) and [`put_with`](Self::put_with).
    pub fn modify_with<T: AsRef<[u8]>, R, E: From<Error>>(
        &self,
        id: u64,
        durability: Durability,
        change: impl FnOnce(Option<&[u8]>) -> Result<(Action<T>, R), E>,
    ) -> Result<R, E> {
        let changed = self.change(id, durability, |old| match change(old.map(|old| old.1)) {
            Ok((action, value)) => (action, Ok(value)),
            Err(error) => (Action::Keep, Err(error)),
        });
        changed?.1
    }

    /// Writes a record if there is none with this id.
    ///
    /// ```
    /// # use recstore::{Store, Swap};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(matches!(store.put_if_absent(1, b"mine")?, Swap::Done(_)));
    /// assert!(matches!(store.put_if_absent(1, b"too late")?, Swap::Conflict { .. }));
    /// assert_eq!(store.get(1)?.unwrap().data(), b"mine");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`compare_and_swap`](Self::compare_and_swap).
    pub fn put_if_absent(&self, id: u64, data: impl AsRef<[u8]>) -> Result<Swap> {
        self.compare_and_swap(id, None, data)
    }

    /// Deletes a record if its version is `expected`. Returns whether it was.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let seen = store.put(1, b"one")?;
    /// store.put(1, b"changed since")?;
    /// assert!(!store.compare_and_delete(1, seen)?);
    /// assert!(store.contains(1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`compare_and_swap`](Self::compare_and_swap).
    pub fn compare_and_delete(&self, id: u64, expected: Version) -> Result<bool> {
        let (_, is_it) = self.change(id, self.handle.durability, |old| {
            let is_it = old.is_some_and(|(version, _)| version == expected);
            (if is_it { Action::<&[u8]>::Delete } else { Action::Keep }, is_it)
        })?;
        Ok(is_it)
    }

    /// The record with this id. If there is none, writes the bytes that `make` returns. Of several calls at the same time one writes.
    ///
    /// A record that is there is read as by [`get`](Self::get), without a lock. `make` runs as the closure of
    /// [`update`](Self::update) does.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.get_or_insert_with(1, || "made")?.data(), b"made");
    /// assert_eq!(store.get_or_insert_with(1, || "made again")?.data(), b"made");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get) and [`update`](Self::update).
    pub fn get_or_insert_with<T: AsRef<[u8]>>(&self, id: u64, make: impl FnOnce() -> T) -> Result<Record> {
        if let Some(record) = self.get(id)? {
            return Ok(record);
        }
        let (written, (version, data)) = self.change(id, self.handle.durability, |old| match old {
            Some((version, data)) => (Action::Keep, (version, data.to_vec())),
            None => {
                let data = make().as_ref().to_vec();
                (Action::Put(data.clone()), (Version(0), data))
            }
        })?;
        Ok(Record { id, version: written.unwrap_or(version), data })
    }

    /// Deletes the records for which `keep` returns `false`. Returns their number. If a record is changed while `keep` looks at it, `keep`
    /// looks again: no record is deleted that `keep` has not seen. Concurrent writes may be passed over.
    ///
    /// A pass over all records, and a deletion for each. No lock is held while `keep` runs.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.write_many((0..10).map(|id| (id, [id as u8])))?;
    /// let deleted = store.retain(|_id, data| data[0] % 2 == 0)?;
    /// assert_eq!(deleted, 5);
    /// assert_eq!(store.len()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first error ends it, [`Error::Corrupt`] for a damaged record included; as [`delete`](Self::delete).
    pub fn retain(&self, mut keep: impl FnMut(u64, &[u8]) -> bool) -> Result<u64> {
        self.check_write(0, 0)?;
        let mut deleted = 0;
        for record in self.iter() {
            let mut now = Some(record?);
            while let Some(record) = now.filter(|record| !keep(record.id(), record.data())) {
                if self.compare_and_delete(record.id(), record.version())? {
                    deleted += 1;
                    break;
                }
                now = self.get(record.id())?;
            }
        }
        Ok(deleted)
    }

    /// Calls `change` for a record, and makes the change, under one hold of the region's lock. Returns the version that was written, if
    /// one was, and the value of `change`.
    fn change<T: AsRef<[u8]>, R>(
        &self,
        id: u64,
        durability: Durability,
        change: impl FnOnce(Option<(Version, &[u8])>) -> (Action<T>, R),
    ) -> Result<(Option<Version>, R)> {
        self.change_of(id, Address::Id, durability, change)
    }

    /// The same of a record that is found by `address`.
    pub(crate) fn change_of<T: AsRef<[u8]>, R>(
        &self,
        id: u64,
        address: Address,
        durability: Durability,
        change: impl FnOnce(Option<(Version, &[u8])>) -> (Action<T>, R),
    ) -> Result<(Option<Version>, R)> {
        self.change_beside(id, address, None, durability, |old, _| change(old))
    }

    /// The same, where `change` gets the keyed record `beside` too. Then the lock of its region is held as well.
    pub(super) fn change_beside<T: AsRef<[u8]>, R>(
        &self,
        id: u64,
        address: Address,
        beside: Option<u64>,
        durability: Durability,
        change: impl FnOnce(Option<(Version, &[u8])>, Option<&Companion>) -> (Action<T>, R),
    ) -> Result<(Option<Version>, R)> {
        let hash = self.check_write(id, 0)?;
        let handle = &self.handle;
        let number = handle.arena.geo.region_of(hash);
        let mut data = Vec::new();
        // In the order of regions, as a batch does.
        let other = beside.map(|beside| self.region_of(beside)).filter(|other| *other != number);
        let lock = |other| {
            let mut locked = handle.lock(other)?;
            locked.will_change(Changed::None);
            Ok::<_, Error>(locked)
        };
        let before = other.filter(|other| *other < number).map(lock).transpose()?;
        let mut locked = handle.lock(number)?;
        locked.will_change(Changed::Record(hash));
        let after = other.filter(|other| *other > number).map(lock).transpose()?;
        let beside = beside.map(|beside| self.read_beside(beside)).transpose()?.flatten();
        let region = Region::new(&handle.arena, number);
        let found = in_region(&region, |region| self.read_in(region, hash, id, Some(&mut data)))?;
        let found = found.filter(|(header, _)| header.address() == address);
        let old = found.map(|(header, _)| (Version(header.version()), &data[..]));
        let inside = Inside::enter(handle.file_id);
        let (action, given) = change(old, beside.as_ref());
        let next = match &action {
            Action::Put(next) => Some(next.as_ref()), // The caller's code, too.
            Action::Keep | Action::Delete => None,
        };
        drop(inside);
        handle.check()?; // Either may have forked, and this may be the child.
        let unlock = || drop((before, locked, after));
        match (&action, next) {
            (Action::Put(_), Some(next)) => {
                if next.len() > self.record_size() {
                    return Err(self.too_long(id, next.len()));
                }
                let lone = durability == Durability::Disk;
                let content = Content::Bytes(next, address);
                let written = in_region(&region, |region| region.put(hash, id, content, lone));
                unlock();
                if let Err(Error::Full { .. }) = written {
                    handle.has_made_room(); // For the next call: the closure can't be called twice.
                }
                let written = written?;
                Ok((Some(self.settle_one(durability, number, &written)?), given))
            }
            (Action::Delete, _) if old.is_some() => {
                in_region(&region, |region| region.delete(hash, id, address))?;
                unlock();
                self.settle(durability)?;
                Ok((None, given))
            }
            _ => Ok((None, given)),
        }
    }

    /// A keyed record whose region's lock is held.
    pub(super) fn read_beside(&self, id: u64) -> Result<Option<Companion>> {
        let (arena, mut data) = (&self.handle.arena, Vec::new());
        let hash = arena.geo.hash(id);
        let region = Region::new(arena, arena.geo.region_of(hash));
        let found = in_region(&region, |region| self.read_in(region, hash, id, Some(&mut data)))?;
        let found = found.filter(|(header, _)| header.address() == Address::Key);
        let durable = arena.durable()?;
        Ok(found.map(|(header, _)| Companion { data, is_on_disk: header.epoch() <= durable }))
    }
}
