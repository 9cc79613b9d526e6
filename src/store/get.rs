//! Reading records by their ids.

use crate::error::Result;
use crate::format::slot::Address;
use crate::record::{Record, Version};
use crate::store::Store;

/// Reading. No lock, no system call: O(1), one index line and one slot nearly always.
impl Store {
    /// The record with this id, or `None`.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert_eq!(store.get(1)?.unwrap().data(), b"one");
    /// assert!(store.get(2)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if the record is damaged; [`Error::Damaged`](crate::Error::Damaged);
    /// [`Error::NeedsRepair`](crate::Error::NeedsRepair) for a read-only handle; [`Error::Forked`](crate::Error::Forked).
    #[inline]
    pub fn get(&self, id: u64) -> Result<Option<Record>> {
        let mut data = Vec::new();
        let version = self.get_into(id, &mut data)?;
        Ok(version.map(|version| Record { id, version, data }))
    }

    /// Reads a record into `out`, whose content is overwritten and whose allocation is used again. If there is no such record,
    /// the content of `out` is unspecified.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let mut buffer = Vec::new(); // used again for the next record
    /// let version = store.get_into(1, &mut buffer)?;
    /// assert!(version.is_some());
    /// assert_eq!(buffer, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn get_into(&self, id: u64, out: &mut Vec<u8>) -> Result<Option<Version>> {
        self.handle.check()?;
        Ok(self.read(id, Address::Id, Some(out))?.map(|(header, _)| Version(header.version())))
    }

    /// Whether there is a record with this id. Neither the record's data nor its checksum is read.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// assert!(store.contains(1)?);
    /// assert!(!store.contains(2)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn contains(&self, id: u64) -> Result<bool> {
        Ok(self.version(id)?.is_some())
    }

    /// The version of the record with this id. Neither the record's data nor its checksum is read.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let version = store.put(1, b"one")?;
    /// assert_eq!(store.version(1)?, Some(version));
    /// assert_eq!(store.version(2)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn version(&self, id: u64) -> Result<Option<Version>> {
        self.handle.check()?;
        Ok(self.read(id, Address::Id, None)?.map(|(header, _)| Version(header.version())))
    }

    /// Reads many records, in the order of `ids`, and gives each to `each`. Faster than single reads: it prefetches memory. The
    /// reads are not of one moment.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let mut found = Vec::new();
    /// store.get_many(&[1, 2], |id, record| {
    ///     if let Some((_version, data)) = record {
    ///         found.push((id, data.to_vec()));
    ///     }
    /// })?;
    /// assert_eq!(found, [(1, b"one".to_vec())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get). `each` may have got records before the error.
    pub fn get_many(&self, ids: &[u64], mut each: impl FnMut(u64, Option<(Version, &[u8])>)) -> Result<()> {
        self.handle.check()?;
        let mut data = Vec::new();
        let hash = |i: usize| ids.get(i).map(|&id| self.handle.arena.geo.hash(id));
        self.ask_for_first(hash);
        for (i, &id) in ids.iter().enumerate() {
            self.ask_ahead(i, hash);
            let found = self.read(id, Address::Id, Some(&mut data))?;
            each(id, found.map(|(header, _)| (Version(header.version()), &data[..])));
        }
        Ok(())
    }
}
