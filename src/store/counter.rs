//! Exact counters.

use crate::error::{Error, Result};
use crate::store::Store;

/// A counter that any number of processes change. The death of a process loses no change: see [`Store::counter`].
#[derive(Clone, Copy, Debug)]
pub struct Counter<'a> {
    store: &'a Store,
    id: u64,
}

/// Counters.
impl Store {
    /// The record with this id as a counter: a `u64`, little-endian. An absent record counts as 0.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let visits = store.counter(1);
    /// visits.add(2)?;
    /// visits.add(3)?;
    /// assert_eq!(visits.get()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn counter(&self, id: u64) -> Counter<'_> {
        Counter { store: self, id }
    }
}

impl Counter<'_> {
    /// Adds `n`, wrapping around. Returns the sum.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.counter(1).add(7)?, 7);
    /// assert_eq!(store.counter(1).add(7)?, 14);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if the record is not 8 bytes long; as [`Store::update`].
    pub fn add(&self, n: u64) -> Result<u64> {
        self.change(|old| old.wrapping_add(n)).map(|(_, new)| new)
    }

    /// Sets the counter to the larger of its value and `n`. Returns the old value.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let highest = store.counter(1);
    /// highest.fetch_max(9)?;
    /// highest.fetch_max(4)?;
    /// assert_eq!(highest.get()?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn fetch_max(&self, n: u64) -> Result<u64> {
        self.change(|old| old.max(n)).map(|(old, _)| old)
    }

    /// Its value.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.counter(1).get()?, 0); // there is no such record yet
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if the record is not 8 bytes long; as [`Store::get`].
    pub fn get(&self) -> Result<u64> {
        let mut data = Vec::with_capacity(8);
        match self.store.get_into(self.id, &mut data)? {
            None => Ok(0),
            Some(_) => self.value(&data),
        }
    }

    fn value(&self, data: &[u8]) -> Result<u64> {
        data.try_into().map(u64::from_le_bytes).map_err(|_| {
            let what = format!("record {:#x} is {} bytes long, and a counter takes 8", self.id, data.len());
            Error::TypeMismatch { path: self.store.path().to_path_buf(), what }
        })
    }

    fn change(&self, to: impl FnOnce(u64) -> u64) -> Result<(u64, u64)> {
        let mut result = Ok((0, 0));
        self.store.update(self.id, |old| {
            result = old.map_or(Ok(0), |data| self.value(data)).map(|old| (old, to(old)));
            result.as_ref().ok().map(|(_, new)| new.to_le_bytes())
        })?;
        result
    }
}
