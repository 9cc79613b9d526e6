//! Writing the entry of a key into its record, beside the entries of keys with the same id.

use std::cell::Cell;

use crate::error::{Error, Result};
use crate::format::keyed::{self, Entry, Expiry, KEY_LEN_MAX, NotEntries, ValueAt};
use crate::format::slot::Address;
use crate::record::{Durability, Record, Swap, Version};
use crate::region::Trouble;
use crate::region::head::Region;
use crate::region::watch::Changed;
use crate::region::write::Content;
use crate::store::Store;
use crate::store::modify::Action;
use crate::store::space::Space;
use crate::store::ttl::PutOptions;

thread_local! {
    /// A buffer for a record that is about to be written.
    static RECORD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger buffer is freed after use.
const KEPT_BYTES_MAX: usize = 4096;

/// A value that is about to be changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Old<'r> {
    pub(super) version: Version,
    pub(super) value: &'r [u8],
    /// Its deadline is over.
    pub(super) is_over: bool,
}

/// The end of the value that a change writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    /// That of the value before it; this, if there was none.
    Kept(Option<Expiry>),
    /// This.
    Renewed(Option<Expiry>),
}

/// By which it is judged whether a value is over. It looks at the clock when it judges, under the locks: a time from before would call
/// a value back to life that readers have found over since.
pub(super) struct Judge<'a> {
    store: &'a Store,
    /// The hidden space of the later deadlines.
    touched: Option<Space<'a>>,
    /// Time and later deadline are known.
    is_final: bool,
}

impl<'a> Judge<'a> {
    /// The judge for a first try, which holds the lock of the value's region alone.
    fn of_first_try(store: &'a Store) -> Self {
        Self { store, touched: None, is_final: false }
    }

    /// The judge of a space for a try that holds the locks of both regions. The caller holds no lock.
    pub(super) fn of(space: &Space<'a>) -> Self {
        space.store.now_ms(); // From here on the handle knows the anchor, if there is one.
        Self { store: space.store, touched: space.touched(), is_final: true }
    }

    /// The id of the record of a key's later deadline.
    pub(super) fn beside(&self, key: &[u8]) -> Option<u64> {
        self.touched.as_ref().map(|touched| touched.id_of(key))
    }

    /// Whether a value with this end is over. `later`: the record of the later deadline. `None`: that is not known.
    pub(super) fn is_over(
        &self,
        key: &[u8],
        expiry: Option<Expiry>,
        later: Option<&[u8]>,
    ) -> Result<Option<bool>> {
        let Some(expiry) = expiry else { return Ok(Some(false)) };
        let now_ms =
            if self.is_final { Some(self.store.now_ms_under_lock()) } else { self.store.now_ms_if_known() };
        match now_ms {
            Some(now_ms) if expiry.at_ms > now_ms => Ok(Some(false)),
            Some(now_ms) if self.is_final => {
                let (Some(touched), Some(later)) = (&self.touched, later) else { return Ok(Some(true)) };
                let end = touched.end_in(touched.id_of(key), later, key, expiry.stamp)?;
                Ok(Some(end.is_none_or(|end| end <= now_ms)))
            }
            _ => Ok(None),
        }
    }
}

/// Writing.
impl Space<'_> {
    /// Writes the value of a key, with the handle's durability.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// sessions.put("user:7", b"away")?; // in its place
    /// assert_eq!(sessions.get("user:7")?.unwrap().data(), b"away");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::KeyTooLong`]; [`Error::EntryTooLong`]; [`Error::IdTaken`] if a record that was written by its id has the id of the
    /// key; as [`Store::put`]. After an error the key is as it was.
    #[inline]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Version> {
        self.put_as(key.as_ref(), value.as_ref(), PutOptions::default())
    }

    /// [`put`](Self::put) with the durability, the time to live, or both, of this one write.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{Durability, Store, Ttl};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put_with("user:7", b"logged in", Durability::Disk)?; // on disk when it returns
    /// let minute = Ttl::after(Duration::from_secs(60));
    /// sessions.put_with("user:8", b"logging in", minute)?; // absent after a minute: see `with_ttl`
    /// sessions.put_with("user:9", b"logging in", (minute, Durability::Disk))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`Store::put_with`].
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: impl Into<PutOptions>,
    ) -> Result<Version> {
        self.put_as(key.as_ref(), value.as_ref(), options.into())
    }

    #[inline]
    fn put_as(&self, key: &[u8], value: &[u8], options: PutOptions) -> Result<Version> {
        let expiry = self.end_of_new(options.ttl)?;
        let durability = options.durability.unwrap_or(self.store.handle.durability);
        self.put_entry(Entry { name: self.name.as_bytes(), key, value, expiry }, durability)
    }

    /// Writes an entry as it is.
    pub(super) fn put_entry(&self, entry: Entry<'_>, durability: Durability) -> Result<Version> {
        let id = self.check_key(entry.key)?;
        let store = self.store;
        let hash = store.check_write(id, 0)?;
        let mut record = RECORD.take();
        record.clear();
        append(store, entry, &mut record)?;
        let number = store.handle.arena.geo.region_of(hash);
        let lone = durability == Durability::Disk;
        let written = store.handle.with_region(number, Changed::Record(hash), |region| {
            if region.has_other_keys(hash, id, &record)? {
                let shared = self.merged(region, hash, id, entry)?;
                return region.put(hash, id, Content::Bytes(&shared, Address::Key), lone);
            }
            region.put(hash, id, Content::Bytes(&record, Address::Key), lone)
        });
        if record.capacity() <= KEPT_BYTES_MAX {
            RECORD.set(record);
        }
        let written = written?;
        store.settle_one(durability, number, &written)
    }

    /// Makes the record of an entry beside the entries of other keys with its id. Impossible entries are overwritten, as a damaged
    /// record is.
    #[cold]
    pub(super) fn merged(
        &self,
        region: &Region<'_>,
        hash: u64,
        id: u64,
        entry: Entry<'_>,
    ) -> Result<Vec<u8>, Trouble> {
        let mut old = Vec::new();
        let mut merged = match self.store.read_in(region, hash, id, Some(&mut old)) {
            Ok(Some((header, _))) if header.address() == Address::Key => {
                keyed::without(&old, entry.name, entry.key).unwrap_or_default()
            }
            Err(Trouble::Error(Error::Corrupt { .. })) | Ok(_) => Vec::new(),
            Err(trouble) => return Err(trouble),
        };
        append(self.store, entry, &mut merged)?;
        Ok(merged)
    }

    /// Deletes a key. Returns whether it was there.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// assert!(sessions.delete("user:7")?);
    /// assert!(!sessions.delete("user:7")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.delete_with(key, self.store.handle.durability)
    }

    /// [`delete`](Self::delete) with the durability of this one deletion.
    ///
    /// ```
    /// # use recstore::{Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// assert!(sessions.delete_with("user:7", Durability::Disk)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::delete_with`].
    pub fn delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<bool> {
        let deleted = self.change(key.as_ref(), durability, Life::Kept(None), |old| {
            (Action::<&[u8]>::Delete, old.is_some())
        })?;
        Ok(deleted.1)
    }

    /// Reads a value, calls `change` for the new value, and writes it, as one step: see [`Store::update`].
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let visits = store.space("visits")?;
    /// for _ in 0..3 {
    ///     visits.update("user:7", |old| Some([old.map_or(0, |old| old[0]) + 1]))?;
    /// }
    /// assert_eq!(visits.get("user:7")?.unwrap().data(), [3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`Store::update`].
    pub fn update<T: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnOnce(Option<&[u8]>) -> Option<T>,
    ) -> Result<Option<Version>> {
        self.update_with(key, PutOptions::default(), change)
    }

    /// [`update`](Self::update) with the durability, the time to live, or both, of this one write. With a time to live the value gets
    /// another deadline.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{Store, Ttl};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let visits = store.space("visits")?;
    /// // Counts the visits, and forgets them an hour after the last one.
    /// visits.update_with("user:7", Ttl::after(Duration::from_secs(3600)), |old| {
    ///     Some([old.map_or(0, |old| old[0]) + 1])
    /// })?;
    /// assert_eq!(visits.get("user:7")?.unwrap().data(), [1]);
    /// assert!(visits.expires_at("user:7")?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn update_with<T: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<PutOptions>,
        change: impl FnOnce(Option<&[u8]>) -> Option<T>,
    ) -> Result<Option<Version>> {
        let (durability, life) = self.of_change(options.into())?;
        let changed = self.change(key.as_ref(), durability, life, |old| {
            (change(old.map(|old| old.1)).map_or(Action::Keep, Action::Put), ())
        });
        changed.map(|(version, ())| version)
    }

    /// The durability of a change, and the end of its value: that of the value before it, unless a time to live is asked for.
    pub(super) fn of_change(&self, options: PutOptions) -> Result<(Durability, Life)> {
        let durability = options.durability.unwrap_or(self.store.handle.durability);
        let end = self.end_of_new(options.ttl)?;
        Ok((durability, if options.ttl.is_some() { Life::Renewed(end) } else { Life::Kept(end) }))
    }

    /// An update that can fail, can delete, and returns a value: see [`Store::modify`].
    ///
    /// ```
    /// # use recstore::{Action, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// let taken: Result<Option<Vec<u8>>, recstore::Error> =
    ///     sessions.modify("user:7", |old| Ok((Action::<&[u8]>::Delete, old.map(<[u8]>::to_vec))));
    /// assert_eq!(taken?.as_deref(), Some(&b"logged in"[..]));
    /// assert!(!sessions.contains("user:7")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The error of `change`; as [`update`](Self::update).
    pub fn modify<T: AsRef<[u8]>, R, E: From<Error>>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnOnce(Option<&[u8]>) -> Result<(Action<T>, R), E>,
    ) -> Result<R, E> {
        self.modify_with(key, PutOptions::default(), change)
    }

    /// [`modify`](Self::modify) with the durability, the time to live, or both, of this one change: as [`update_with`](Self::update_with).
    ///
    /// ```
    /// # use recstore::{Action, Durability, Error, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// let was_there = sessions.modify_with("user:7", Durability::Disk, |old| {
    ///     Ok::<_, Error>((Action::<&[u8]>::Delete, old.is_some()))
    /// })?;
    /// assert!(was_there && !sessions.contains("user:7")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`modify`](Self::modify).
    pub fn modify_with<T: AsRef<[u8]>, R, E: From<Error>>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<PutOptions>,
        change: impl FnOnce(Option<&[u8]>) -> Result<(Action<T>, R), E>,
    ) -> Result<R, E> {
        let (durability, life) = self.of_change(options.into())?;
        let changed = self.change(key.as_ref(), durability, life, |old| match change(old.map(|old| old.1)) {
            Ok((action, value)) => (action, Ok(value)),
            Err(error) => (Action::Keep, Err(error)),
        });
        changed?.1
    }

    /// Writes a value if the key's version is `expected` (`None`: if there is no such key).
    ///
    /// ```
    /// # use recstore::{Store, Swap};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// let version = sessions.put("user:7", b"logged in")?;
    /// sessions.put("user:7", b"away")?; // by another process
    /// let swap = sessions.compare_and_swap("user:7", Some(version), b"gone")?;
    /// assert!(matches!(swap, Swap::Conflict { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`Store::compare_and_swap`].
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
        value: impl AsRef<[u8]>,
    ) -> Result<Swap> {
        self.compare_and_swap_with(key, expected, value, PutOptions::default())
    }

    /// [`compare_and_swap`](Self::compare_and_swap) with the durability, the time to live, or both, of this one write.
    ///
    /// ```
    /// # use recstore::{Durability, Store, Swap};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// let swap = sessions.compare_and_swap_with("user:7", None, b"logged in", Durability::Disk)?;
    /// assert!(matches!(swap, Swap::Done(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`compare_and_swap`](Self::compare_and_swap).
    pub fn compare_and_swap_with(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
        value: impl AsRef<[u8]>,
        options: impl Into<PutOptions>,
    ) -> Result<Swap> {
        let options = options.into();
        let durability = options.durability.unwrap_or(self.store.handle.durability);
        let life = Life::Renewed(self.end_of_new(options.ttl)?);
        let (written, current) = self.change(key.as_ref(), durability, life, |old| {
            let current = old.map(|(version, _)| version);
            (if current == expected { Action::Put(value.as_ref()) } else { Action::Keep }, current)
        })?;
        Ok(written.map_or(Swap::Conflict { current }, Swap::Done))
    }

    /// Writes a value if the key is not there.
    ///
    /// ```
    /// # use recstore::{Store, Swap};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// assert!(matches!(sessions.put_if_absent("user:7", b"mine")?, Swap::Done(_)));
    /// assert!(matches!(sessions.put_if_absent("user:7", b"too late")?, Swap::Conflict { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`compare_and_swap`](Self::compare_and_swap).
    pub fn put_if_absent(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Swap> {
        self.compare_and_swap(key, None, value)
    }

    /// Deletes a key if its version is `expected`. Returns whether it was.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// let seen = sessions.put("user:7", b"logged in")?;
    /// sessions.put("user:7", b"away")?; // by another process
    /// assert!(!sessions.compare_and_delete("user:7", seen)?);
    /// assert!(sessions.contains("user:7")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`compare_and_swap`](Self::compare_and_swap).
    pub fn compare_and_delete(&self, key: impl AsRef<[u8]>, expected: Version) -> Result<bool> {
        let (_, is_it) =
            self.change(key.as_ref(), self.store.handle.durability, Life::Kept(None), |old| {
                let is_it = old.is_some_and(|(version, _)| version == expected);
                (if is_it { Action::<&[u8]>::Delete } else { Action::Keep }, is_it)
            })?;
        Ok(is_it)
    }

    /// The value of a key. If there is none, writes the bytes that `make` returns. Of several calls at the same time one writes: see
    /// [`Store::get_or_insert_with`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let pages = store.space("pages")?.with_ttl(Duration::from_secs(60));
    /// assert_eq!(pages.get_or_insert_with("/home", || "made")?.data(), b"made");
    /// assert_eq!(pages.get_or_insert_with("/home", || "made again")?.data(), b"made"); // for a minute
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get) and [`update`](Self::update).
    pub fn get_or_insert_with<T: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        make: impl FnOnce() -> T,
    ) -> Result<Record> {
        let key = key.as_ref();
        if let Some(record) = self.get(key)? {
            return Ok(record);
        }
        let (durability, life) = self.of_change(PutOptions::default())?;
        let (written, (version, data)) = self.change(key, durability, life, |old| match old {
            Some((version, data)) => (Action::Keep, (version, data.to_vec())),
            None => {
                let data = make().as_ref().to_vec();
                (Action::Put(data.clone()), (Version(0), data))
            }
        })?;
        Ok(Record { id: self.hash.id(key), version: written.unwrap_or(version), data })
    }

    /// Deletes the keys for which `keep` returns `false`. Returns their number. If a value is changed while `keep` looks at it, `keep` looks
    /// again: see [`Store::retain`].
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let words = store.space("words")?;
    /// words.write_many(["one", "three"].map(|word| (word, word.len().to_string())))?;
    /// assert_eq!(words.retain(|key, _value| key.len() > 3)?, 1);
    /// assert!(words.contains("three")? && !words.contains("one")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first error ends it, [`Error::Corrupt`] for a damaged record included; as [`delete`](Self::delete).
    pub fn retain(&self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) -> Result<u64> {
        self.store.check_write(0, 0)?;
        let mut deleted = 0;
        for found in self.iter() {
            let (key, record) = found?;
            let mut now = Some(record);
            while let Some(record) = now.filter(|record| !keep(&key, record.data())) {
                if self.compare_and_delete(&key, record.version())? {
                    deleted += 1;
                    break;
                }
                now = self.get(&key)?;
            }
        }
        Ok(deleted)
    }

    /// Writes many values. Returns their number. Of several values for one key the last one counts. This is not a transaction, as
    /// [`Store::write_many`]; use a [batch](Store::batch) for that.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let words = store.space("words")?;
    /// assert_eq!(words.write_many(["one", "two"].map(|word| (word, word.len().to_string())))?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put). Values that were written before the error stay.
    pub fn write_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        writes: impl IntoIterator<Item = (K, V)>,
    ) -> Result<usize> {
        let mut written = 0;
        for (key, value) in writes {
            self.put_with(key, value, Durability::Process)?;
            written += 1;
        }
        if written != 0 {
            self.store.settle(self.store.handle.durability)?;
        }
        Ok(written)
    }

    /// Calls `change` for the value of a key, and makes the change, under one hold of the region's lock. A value that is over is absent.
    pub(super) fn change<T: AsRef<[u8]>, R>(
        &self,
        key: &[u8],
        durability: Durability,
        life: Life,
        change: impl FnOnce(Option<(Version, &[u8])>) -> (Action<T>, R),
    ) -> Result<(Option<Version>, R)> {
        self.change_any(key, durability, life, |old| {
            change(old.filter(|old| !old.is_over).map(|old| (old.version, old.value)))
        })
    }

    /// The same, where `change` gets a value that is over too.
    ///
    /// The first try holds the lock of the value's region. If the deadline of the value is over, a later one may stand in another
    /// region: then a second try holds the locks of both.
    pub(super) fn change_any<T: AsRef<[u8]>, R>(
        &self,
        key: &[u8],
        durability: Durability,
        life: Life,
        change: impl FnOnce(Option<Old<'_>>) -> (Action<T>, R),
    ) -> Result<(Option<Version>, R)> {
        let id = self.check_key(key)?;
        let mut change = Some(change);
        let mut judge = Judge::of_first_try(self.store);
        loop {
            let beside = judge.beside(key);
            let tried = self.store.change_beside(id, Address::Key, beside, durability, |record, later| {
                let later = later.map(|later| &later.data[..]);
                match self.change_record(key, record, later, &judge, life, &mut change) {
                    Ok((action, given)) => (action, Ok(given)),
                    Err(error) => (Action::Keep, Err(error)),
                }
            });
            let (version, given) = tried?;
            if let Some(given) = given? {
                return Ok((version, given));
            }
            judge = Judge::of(self);
        }
    }

    /// The change of the record with a key's id, beside the record of the key's later deadline. `None`: whether the value is over has to be judged.
    fn change_record<T: AsRef<[u8]>, R>(
        &self,
        key: &[u8],
        record: Option<(Version, &[u8])>,
        later: Option<&[u8]>,
        judge: &Judge<'_>,
        life: Life,
        change: &mut Option<impl FnOnce(Option<Old<'_>>) -> (Action<T>, R)>,
    ) -> Result<(Action<Vec<u8>>, Option<R>)> {
        let id = self.hash.id(key);
        let found = match record {
            Some((version, data)) => self.find_in(id, data, key)?.map(|at| (version, data, at)),
            None => None,
        };
        let mut old = None;
        if let Some((version, data, ValueAt { value, expiry })) = found {
            let Some(is_over) = judge.is_over(key, expiry, later)? else { return Ok((Action::Keep, None)) };
            old = Some((Old { version, value: &data[value], is_over }, expiry));
        }
        let Some(change) = change.take() else { return Ok((Action::Keep, None)) };
        let (action, given) = change(old.as_ref().map(|(old, _)| *old));
        let others = || match record {
            Some((_, data)) => keyed::without(data, self.name.as_bytes(), key)
                .map_err(|NotEntries| self.store.no_entries(id)),
            None => Ok(Vec::new()),
        };
        let action = match action {
            Action::Put(next) => {
                let expiry = match (life, &old) {
                    (Life::Kept(_), Some((Old { is_over: false, .. }, expiry))) => *expiry,
                    (Life::Kept(expiry) | Life::Renewed(expiry), _) => expiry,
                };
                let mut record = others()?;
                let entry = Entry { name: self.name.as_bytes(), key, value: next.as_ref(), expiry };
                append(self.store, entry, &mut record)?;
                Action::Put(record)
            }
            Action::Delete if old.is_some() => {
                let record = others()?;
                if record.is_empty() { Action::Delete } else { Action::Put(record) }
            }
            Action::Delete | Action::Keep => Action::Keep,
        };
        Ok((action, Some(given)))
    }

    /// The checks of every write of a key. Returns the key's id.
    #[inline]
    pub(super) fn check_key(&self, key: &[u8]) -> Result<u64> {
        if key.len() > KEY_LEN_MAX {
            let path = self.store.path().to_path_buf();
            return Err(Error::KeyTooLong { path, len: key.len(), max: KEY_LEN_MAX });
        }
        Ok(self.hash.id(key))
    }
}

/// Appends an entry to a record, if there is room for it.
pub(super) fn append(store: &Store, entry: Entry<'_>, record: &mut Vec<u8>) -> Result<()> {
    let (others, max) = (record.len(), store.record_size());
    let is_room = entry.len() <= max && {
        entry.append_to(record);
        record.len() <= max
    };
    if is_room { Ok(()) } else { Err(too_long(store, entry.name, entry.key, entry.len(), others)) }
}

/// The error for an entry of `len` bytes that does not fit into a record beside `others` bytes of other entries.
#[cold]
pub(super) fn too_long(store: &Store, name: &[u8], key: &[u8], len: usize, others: usize) -> Error {
    Error::EntryTooLong {
        path: store.path().to_path_buf(),
        space: String::from_utf8_lossy(name).into_owned(),
        key: key.escape_ascii().to_string(),
        len,
        others,
        max: store.record_size(),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::store::options::Options;

    /// Impossible entries: in a record that is found by keys, or under an id that is not the key's.
    #[test]
    fn entries_that_cannot_be_are_an_error_until_they_are_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let store = Options::new().regions(1).create(dir.path().join("s")).unwrap();
        let space = store.space("s").unwrap();
        let (id, durability) = (space.id_of("k"), Durability::Process);
        let mut of_another = Vec::new();
        Entry { name: b"s", key: b"another key", value: b"value", expiry: None }.append_to(&mut of_another);
        for (content, is_entries) in [(&b"no entries at all"[..], false), (&[], false), (&of_another, true)] {
            store.write(id, content, Address::Key, durability).unwrap();
            let report = store.verify().unwrap();
            let damage: Vec<_> = report.damage.iter().map(|damage| damage.id).collect();
            assert_eq!(damage, [Some(id)], "{report:?}");
            let is_corrupt = |error: Option<Error>| {
                let is_corrupt = matches!(error, Some(Error::Corrupt { id: of, .. }) if of == id);
                assert_eq!(is_corrupt, !is_entries, "{error:?}");
            };
            is_corrupt(space.get("k").err());
            is_corrupt(space.delete("k").err());
            is_corrupt(space.iter().find_map(Result::err));
            is_corrupt(space.len().err());
            is_corrupt(store.spaces().err());
            is_corrupt(store.pin().unwrap().get_in(&space, "k").err());
            let snapshot = store.snapshot().unwrap();
            is_corrupt(snapshot.get_in(&space, "k").err());
            is_corrupt(snapshot.iter_in(&space).find_map(Result::err));
            drop(snapshot);
            let mut batch = store.batch();
            batch.require_in(&space, "k", None).unwrap();
            is_corrupt(batch.commit().err());
            if !is_entries {
                space.put("k", b"anew").unwrap();
                assert_eq!(space.get("k").unwrap().unwrap().data(), b"anew");
                assert!(store.verify().unwrap().is_clean());
                store.write(id, content, Address::Key, durability).unwrap();
                let mut batch = store.batch();
                batch.put_in(&space, "k", b"anew").unwrap();
                assert!(matches!(batch.commit().unwrap(), crate::Commit::Done(_)));
                assert!(store.verify().unwrap().is_clean());
            }
        }
    }
}
