//! Spaces: records that are found by keys of any bytes, in place of ids.
//!
//! 1. The id of a key is a keyed hash of the key and of its space's name. The record with this id holds name, key and value. A read
//!    compares the whole name and the whole key.
//! 2. Keys with equal ids share the record: it holds an entry for each. A change of one key rewrites the record, under the lock of its
//!    region, so it is one step like any write.
//! 3. The header says whether a record is keyed. A read by id finds no keyed record, and a read by key finds no other record. A write
//!    of one kind over the other is refused.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::format::keyed::{self, Entry, KeyHash, NAME_LEN_MAX, NotEntries, ValueAt};
use crate::format::slot::Address;
use crate::record::{Record, Version};
use crate::store::Store;
use crate::store::iter::Cursor;
use crate::store::ttl::Ttl;

/// Records that are found by keys: see [`Store::space`].
#[derive(Clone, Debug)]
pub struct Space<'a> {
    pub(super) store: &'a Store,
    pub(super) name: Box<str>,
    pub(super) hash: KeyHash,
    pub(super) ttl: Option<Ttl>,
}

/// Records that are found by keys.
impl Store {
    /// The space with this name: records that are found by keys of 0 to 65,536 bytes, beside records that are found by ids. The first
    /// write makes a space. Before that it costs nothing.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// assert_eq!(sessions.get("user:7")?.unwrap().data(), b"logged in");
    /// assert!(store.space("carts")?.get("user:7")?.is_none());
    /// assert_eq!(store.iter().count(), 0); // none of them is found by an id
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// All promises for records hold for a key and its value. The version of a key is the version of its record. Keys with equal hashes
    /// share a record, so a write of one raises the version of the other. (The chance that a million keys have two equal hashes is 1 in
    /// 37 million.)
    ///
    /// A record holds the name of the space, the key, the value, and 8 bytes more. Together they have to fit into
    /// [`record_size`](Self::record_size).
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an invalid name (valid: 1 to 255 bytes, without `/` and control characters).
    pub fn space(&self, name: &str) -> Result<Space<'_>> {
        let is_name =
            (1..=NAME_LEN_MAX).contains(&name.len()) && !name.chars().any(|c| c == '/' || c.is_control());
        if !is_name {
            let what = format!(
                "{name:?} is not a name of a space; use 1 to {NAME_LEN_MAX} bytes without / and control characters"
            );
            return Err(Error::InvalidOption { what });
        }
        Ok(self.space_of(name))
    }

    /// The space with a name that may be hidden from programs.
    pub(super) fn space_of(&self, name: &str) -> Space<'_> {
        let hash = KeyHash::new(self.handle.arena.geo.hash_key, name.as_bytes());
        Space { store: self, name: name.into(), hash, ttl: None }
    }

    /// The names of all spaces in which there is a key, in order. A pass over all records.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.space("b")?.put("key", b"value")?;
    /// store.space("a")?.put("key", b"value")?;
    /// assert_eq!(store.spaces()?, ["a", "b"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn spaces(&self) -> Result<Vec<String>> {
        let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
        self.each_entry(|_, _, entry| {
            if !names.contains(entry.name) {
                names.insert(entry.name.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        Ok(names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    /// Gives every entry of every keyed record that is not over, with the record's id and version, until `each` breaks. Hidden spaces are
    /// left out.
    pub(super) fn each_entry(
        &self,
        mut each: impl FnMut(u64, Version, Entry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.handle.check()?;
        let mut outcome = Ok(());
        Cursor::new(Address::Key).each(self, |id, version, data| {
            for entry in keyed::entries(data.as_slice()) {
                let Ok(entry) = entry else {
                    outcome = Err(self.no_entries(id));
                    return ControlFlow::Break(());
                };
                match self.is_entry_over(&entry) {
                    _ if keyed::is_hidden(entry.name) => {}
                    Ok(false) => each(id, version, entry)?,
                    Ok(true) => {}
                    Err(error) => {
                        outcome = Err(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        outcome
    }

    /// Refuses a space of another store: its keys have other ids.
    pub(super) fn check_space(&self, space: &Space<'_>) -> Result<()> {
        if self.handle.arena.uuid == space.store.handle.arena.uuid {
            return Ok(());
        }
        let (theirs, ours) = (space.store.path().display(), self.path().display());
        let what = format!("space {:?} is one of {theirs}; make one of {ours} by Store::space", space.name);
        Err(Error::InvalidOption { what })
    }

    #[cold]
    pub(super) fn no_entries(&self, id: u64) -> Error {
        self.corrupt(id, None, NotEntries::WHAT)
    }
}

impl<'a> Space<'a> {
    /// The store that the space is of.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// assert_eq!(sessions.store().path(), store.path());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn store(&self) -> &'a Store {
        self.store
    }
}

/// Reading.
impl Space<'_> {
    /// The space's name.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.space("sessions")?.name(), "sessions");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the record that holds a key: SipHash-1-3, see the chapter on the format. Errors name this id, and it decides the
    /// [region](Store::region_of) of the key.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// assert_eq!(sessions.get("user:7")?.unwrap().id(), sessions.id_of("user:7"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn id_of(&self, key: impl AsRef<[u8]>) -> u64 {
        self.hash.id(key.as_ref())
    }

    /// The value of a key with its version, or `None`.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put([7, 0, 255], b"keys are bytes")?;
    /// assert_eq!(sessions.get([7, 0, 255])?.unwrap().data(), b"keys are bytes");
    /// assert!(sessions.get("user:8")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Record>> {
        let key = key.as_ref();
        let mut data = Vec::new();
        let version = self.get_into(key, &mut data)?;
        Ok(version.map(|version| Record { id: self.hash.id(key), version, data }))
    }

    /// Reads a value into `out`, whose content is overwritten and whose allocation is used again. If there is no such key, the content
    /// of `out` is unspecified.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// let mut buffer = Vec::new(); // used again for the next one
    /// assert!(sessions.get_into("user:7", &mut buffer)?.is_some());
    /// assert_eq!(buffer, b"logged in");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    #[inline]
    pub fn get_into(&self, key: impl AsRef<[u8]>, out: &mut Vec<u8>) -> Result<Option<Version>> {
        let key = key.as_ref();
        self.store.handle.check()?;
        let id = self.hash.id(key);
        loop {
            let Some((header, _)) = self.store.read(id, Address::Key, Some(out))? else { return Ok(None) };
            let Some(ValueAt { value, expiry }) = self.find_in(id, out, key)? else { return Ok(None) };
            if self.is_over(key, expiry)? {
                // The later deadline may be one of a newer value. A new value is not over, so this ends.
                let now = self.store.read(id, Address::Key, None)?;
                if now.is_some_and(|(now, _)| now.seq() != header.seq()) {
                    continue;
                }
                return Ok(None);
            }
            if value.start != 0 {
                out.copy_within(value.clone(), 0);
            }
            out.truncate(value.len());
            return Ok(Some(Version(header.version())));
        }
    }

    /// The place of a key's value in the record with its id.
    #[inline]
    pub(super) fn find_in(&self, id: u64, data: &[u8], key: &[u8]) -> Result<Option<ValueAt>> {
        keyed::find(data, self.name.as_bytes(), key).map_err(|NotEntries| self.store.no_entries(id))
    }

    /// Whether there is a record with this key.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// assert!(sessions.contains("user:7")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.version(key)?.is_some())
    }

    /// The version of a key, or `None`. The record is read, as by [`get`](Self::get), to compare the key.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// let version = sessions.put("user:7", b"logged in")?;
    /// assert_eq!(sessions.version("user:7")?, Some(version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn version(&self, key: impl AsRef<[u8]>) -> Result<Option<Version>> {
        self.get_into(key, &mut Vec::new())
    }

    /// Reads many values, in the order of `keys`, and gives each to `each`. The reads are not of one moment.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// let mut found = Vec::new();
    /// sessions.get_many(&["user:7", "user:8"], |key, value| {
    ///     if let Some((_version, data)) = value {
    ///         found.push((*key, data.to_vec()));
    ///     }
    /// })?;
    /// assert_eq!(found, [("user:7", b"logged in".to_vec())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get). `each` may have got values before the error.
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut each: impl FnMut(&K, Option<(Version, &[u8])>),
    ) -> Result<()> {
        let mut data = Vec::new();
        let hash = |n: usize| keys.get(n).map(|key| self.store.handle.arena.geo.hash(self.id_of(key)));
        self.store.ask_for_first(hash);
        for (n, key) in keys.iter().enumerate() {
            self.store.ask_ahead(n, hash);
            let version = self.get_into(key, &mut data)?;
            each(key, version.map(|version| (version, &data[..])));
        }
        Ok(())
    }

    /// Every key of the space with its value, once, in no order, as by [`Store::iter`]. A pass over the records of all spaces.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// for found in sessions.iter() {
    ///     let (key, record) = found?; // a damaged record is an error, and the iteration goes on
    ///     assert_eq!((&key[..], record.data()), (&b"user:7"[..], &b"logged in"[..]));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Result<(Vec<u8>, Record)>> {
        let mut cursor = Cursor::new(Address::Key);
        let mut ready: Vec<Result<(Vec<u8>, Record)>> = Vec::new();
        std::iter::from_fn(move || {
            if ready.is_empty() {
                let passed = cursor.each(self.store, |id, version, data| {
                    ready = self.of_record(id, version, data.as_slice());
                    if ready.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                if let Err(error) = passed {
                    return Some(Err(error));
                }
            }
            ready.pop()
        })
    }

    /// The keys of the space that a record holds.
    pub(super) fn of_record(&self, id: u64, version: Version, data: &[u8]) -> Vec<Result<(Vec<u8>, Record)>> {
        keyed::entries(data)
            .filter_map(|entry| match entry {
                Ok(entry) if entry.name != self.name.as_bytes() => None,
                Ok(entry) => match self.store.is_entry_over(&entry) {
                    Ok(true) => None,
                    Ok(false) => {
                        Some(Ok((entry.key.to_vec(), Record { id, version, data: entry.value.to_vec() })))
                    }
                    Err(error) => Some(Err(error)),
                },
                Err(NotEntries) => Some(Err(self.store.no_entries(id))),
            })
            .collect()
    }

    /// Number of keys in the space: a pass over the records of all spaces.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.write_many([("user:7", "one"), ("user:8", "two")])?;
    /// assert_eq!(sessions.len()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub fn len(&self) -> Result<u64> {
        let mut count = 0;
        self.store.each_entry(|_, _, entry| {
            count += u64::from(entry.name == self.name.as_bytes());
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Whether there is no key in the space.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(store.space("sessions")?.is_empty()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        let mut is_empty = true;
        self.store.each_entry(|_, _, entry| {
            is_empty = entry.name != self.name.as_bytes();
            if is_empty { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(is_empty)
    }
}
