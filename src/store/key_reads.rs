//! Reading by keys from snapshots and pins.

use crate::error::Result;
use crate::format::keyed::{self, Entry, Expiry, ValueAt};
use crate::format::slot::Address;
use crate::record::Version;
use crate::store::pin::Pin;
use crate::store::snapshot::Snapshot;
use crate::store::space::Space;

/// Keys of spaces.
impl Snapshot<'_> {
    /// The value of a key as it was at the snapshot's moment, or `None`: as [`get`](Self::get).
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"before")?;
    /// let snapshot = store.snapshot()?;
    /// sessions.put("user:7", b"after")?;
    /// assert_eq!(snapshot.get_in(&sessions, "user:7")?, Some(&b"before"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get); [`Error::InvalidOption`](crate::Error::InvalidOption) if the space is another store's.
    pub fn get_in(&self, space: &Space<'_>, key: impl AsRef<[u8]>) -> Result<Option<&[u8]>> {
        self.store.check_space(space)?;
        let (id, key) = (space.id_of(&key), key.as_ref());
        let Some((_, data)) = self.get_of(id, Address::Key)? else { return Ok(None) };
        let Some(ValueAt { value, expiry }) = space.find_in(id, data, key)? else { return Ok(None) };
        Ok(if self.is_over(space, key, expiry)? { None } else { Some(&data[value]) })
    }

    /// Whether a value with this end was over at the moment.
    pub(super) fn is_over(&self, space: &Space<'_>, key: &[u8], expiry: Option<Expiry>) -> Result<bool> {
        let Some(expiry) = expiry.filter(|expiry| expiry.at_ms <= self.now_ms) else { return Ok(false) };
        let Some(touched) = space.touched() else { return Ok(true) };
        let id = touched.id_of(key);
        let Some((_, later)) = self.get_of(id, Address::Key)? else { return Ok(true) };
        Ok(touched.end_in(id, later, key, expiry.stamp)?.is_none_or(|end| end <= self.now_ms))
    }

    /// Every key of a space at the moment, once, with its version and its value: as [`iter`](Self::iter).
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// let snapshot = store.snapshot()?;
    /// sessions.put("user:8", b"too late")?;
    /// let keys: Result<Vec<&[u8]>, _> = snapshot.iter_in(&sessions).map(|found| found.map(|(key, ..)| key)).collect();
    /// assert_eq!(keys?, [b"user:7"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter_in<'s>(
        &'s self,
        space: &'s Space<'_>,
    ) -> impl Iterator<Item = Result<(&'s [u8], Version, &'s [u8])>> {
        let foreign = self.store.check_space(space).err().map(Err);
        let all = self.iter_of(Address::Key).take(if foreign.is_some() { 0 } else { usize::MAX });
        foreign.into_iter().chain(all.flat_map(move |found| {
            let (found, error) = match found {
                Ok(found) => (Some(found), None),
                Err(error) => (None, Some(Err(error))),
            };
            let entries = found.into_iter().flat_map(move |(id, version, data)| {
                keyed::entries(data).filter_map(move |entry| match entry {
                    Ok(Entry { name, .. }) if name != space.name.as_bytes() => None,
                    Ok(Entry { key, value, expiry, .. }) => match self.is_over(space, key, expiry) {
                        Ok(is_over) => (!is_over).then_some(Ok((key, version, value))),
                        Err(error) => Some(Err(error)),
                    },
                    Err(_) => Some(Err(self.store.no_entries(id))),
                })
            });
            error.into_iter().chain(entries)
        }))
    }

    /// Every key of a space at the moment with its value, those that were over too.
    pub(super) fn all_in<'s>(
        &'s self,
        space: &'s Space<'_>,
    ) -> impl Iterator<Item = Result<(&'s [u8], &'s [u8])>> {
        self.iter_of(Address::Key).flat_map(move |found| {
            let (found, error) = match found {
                Ok((id, _, data)) => (Some((id, data)), None),
                Err(error) => (None, Some(Err(error))),
            };
            let entries = found.into_iter().flat_map(move |(id, data)| {
                keyed::entries(data).filter_map(move |entry| match entry {
                    Ok(entry) if entry.name != space.name.as_bytes() => None,
                    Ok(entry) => Some(Ok((entry.key, entry.value))),
                    Err(_) => Some(Err(self.store.no_entries(id))),
                })
            });
            error.into_iter().chain(entries)
        })
    }
}

/// Keys of spaces.
impl Pin<'_> {
    /// The value of a key as it is now, in place, or `None`: as [`get`](Self::get).
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// let pin = store.pin()?;
    /// let lent: &[u8] = pin.get_in(&sessions, "user:7")?.unwrap();
    /// sessions.delete("user:7")?; // what was lent stays as it is
    /// assert_eq!(lent, b"logged in");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get); [`Error::InvalidOption`](crate::Error::InvalidOption) if the space is another store's.
    pub fn get_in(&self, space: &Space<'_>, key: impl AsRef<[u8]>) -> Result<Option<&[u8]>> {
        self.store.check_space(space)?;
        let (id, key) = (space.id_of(&key), key.as_ref());
        loop {
            let Some((version, data)) = self.get_of(id, Address::Key)? else { return Ok(None) };
            let Some(ValueAt { value, expiry }) = space.find_in(id, data, key)? else { return Ok(None) };
            if !space.is_over(key, expiry)? {
                return Ok(Some(&data[value]));
            }
            // As in `Space::get_into`.
            let now = self.store.read(id, Address::Key, None)?;
            if now.is_none_or(|(now, _)| now.version() == version.get()) {
                return Ok(None);
            }
        }
    }
}
