//! Rings under keys: the last values of a series. The steps are in [`raw_ring`](super::raw_ring).

use std::marker::PhantomData;
use std::time::Duration;

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::store::raw_ring::RawRing;
use crate::store::space::Space;
use crate::store::watch::wait_for_record;

/// A bounded series of values under a key, which any number of processes append to: see [`Space::ring`].
#[derive(Clone, Debug)]
pub struct KeyRing<'a, T> {
    space: Space<'a>,
    key: Box<[u8]>,
    name: Box<str>,
    capacity: u64,
    of: PhantomData<fn(T) -> T>,
}

/// The values of a ring as they come: see [`KeyRing::tail`].
#[derive(Debug)]
pub struct KeyTail<'a, T> {
    ring: KeyRing<'a, T>,
    /// The number that is read next.
    next: u64,
    /// The values before this number are counted.
    end: u64,
    data: Vec<u8>,
    is_forked: bool,
}

impl<'a> Space<'a> {
    /// The ring under a key: the last `capacity` values of a series. If there is none, it is made, and is on disk when the call returns:
    /// one flush. If the key holds something else, or a ring of another type or capacity, that is an error.
    ///
    /// `type_name` is kept with the ring. Choose a name that means the layout of `T`. Rings of Python have the dtype as
    /// numpy writes it, such as `<f8` or `<u8`.
    ///
    /// The values lie in the same space, under the key of the ring, a byte 0, and the number of the place as 8 bytes. So they are in
    /// snapshots, dumps and copies, and `iter` gives them too: give a ring a space of its own, if you iterate. Values of a ring never
    /// expire, whatever the time to live of the space.
    ///
    /// ```
    /// # use recstore::{Error, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sensors = store.space("sensors")?;
    /// let temperatures = sensors.ring::<f64>("kitchen", "<f8", 8)?; // the last 8
    /// for n in 0..20 {
    ///     temperatures.push(&f64::from(n))?;
    /// }
    /// assert_eq!(temperatures.latest(1)?, [(19, 19.0)]);
    /// assert!(matches!(sensors.ring::<f64>("kitchen", "<f8", 4), Err(Error::OtherShape { .. })));
    /// assert!(matches!(sensors.ring::<u64>("kitchen", "<u8", 8), Err(Error::OtherShape { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherShape`]; [`Error::InvalidOption`] if `capacity` is 0 or above 2^32, the name is not 1 to 255 bytes long, or a value does not fit
    /// into a record; [`Error::KeyTooLong`] if the key is longer than 65,527 bytes; as [`put`](Self::put).
    pub fn ring<T: Pod>(
        &self,
        key: impl AsRef<[u8]>,
        type_name: &str,
        capacity: u64,
    ) -> Result<KeyRing<'a, T>> {
        let (space, key) = (self.clone(), key.as_ref().into());
        let ring = KeyRing { space, key, name: type_name.into(), capacity, of: PhantomData };
        RawRing::new(&ring.space, &ring.key, &ring.name, size_of::<T>(), capacity)?.open()?;
        Ok(ring)
    }
}

impl<'a, T: Pod> KeyRing<'a, T> {
    fn raw(&self) -> RawRing<'_, 'a> {
        let Self { space, key, name, capacity, of: _ } = self;
        RawRing { space, key, name, size: size_of::<T>(), capacity: *capacity }
    }

    /// The number of values that the ring has room for.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.space("sensors")?.ring::<f64>("kitchen", "<f8", 8)?.capacity(), 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Appends a value. Returns its number in the series, from 0. Once the call has returned, all readers find the value. If a
    /// producer dies in the middle, its value is there or not, and no number is without a value.
    ///
    /// Two writes, each as [`Space::update`], and one more try for each producer that appends at the same time. With
    /// [`Durability::Disk`](crate::Durability::Disk), one flush. The first push after a loss of power looks at all places.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.space("sensors")?.ring::<u64>("kitchen", "<u8", 8)?;
    /// assert_eq!(ring.push(&70)?, 0); // the number of the value
    /// assert_eq!(ring.push(&71)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Space::update`]; [`Error::OtherShape`] if another program put something else in place of the ring. After an error the value
    /// may have been appended.
    pub fn push(&self, value: &T) -> Result<u64> {
        let ring = self.raw();
        let number = ring.claim(bytemuck::bytes_of(value))?;
        ring.raise(ring.after(number)?)?;
        Ok(number)
    }

    /// The number of values that were ever appended.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.space("sensors")?.ring::<u64>("kitchen", "<u8", 8)?;
    /// ring.push(&70)?;
    /// assert_eq!(ring.pushed()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherShape`]; as [`Space::get`].
    pub fn pushed(&self) -> Result<u64> {
        self.raw().pushed()
    }

    /// At most `count` of the latest values, the oldest first, each with its number. Values that are overwritten meanwhile are
    /// left out.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.space("sensors")?.ring::<u64>("kitchen", "<u8", 8)?;
    /// for value in [70, 71, 72] {
    ///     ring.push(&value)?;
    /// }
    /// assert_eq!(ring.latest(2)?, [(1, 71), (2, 72)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`pushed`](Self::pushed).
    pub fn latest(&self, count: u64) -> Result<Vec<(u64, T)>> {
        self.iter_from(self.pushed()?.saturating_sub(count)).collect()
    }

    /// All values that are there, the oldest first, each with its number.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.space("sensors")?.ring::<u64>("kitchen", "<u8", 8)?;
    /// ring.push(&70)?;
    /// let values = ring.iter()?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(values, [(0, 70)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`pushed`](Self::pushed).
    pub fn iter(&self) -> Result<impl Iterator<Item = Result<(u64, T)>> + use<'a, T>> {
        Ok(self.iter_from(self.pushed()?.saturating_sub(self.capacity)))
    }

    /// The values from this number on, up to the last one when the iterator comes there. [`tail`](Self::tail) waits there for more.
    ///
    /// If a number is passed over, its value was overwritten before the iterator came to it, or was lost with power.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.space("sensors")?.ring::<u64>("kitchen", "<u8", 8)?;
    /// for value in [70, 71, 72] {
    ///     ring.push(&value)?;
    /// }
    /// let values = ring.iter_from(1).collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(values, [(1, 71), (2, 72)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter_from(&self, first: u64) -> impl Iterator<Item = Result<(u64, T)>> + use<'a, T> {
        let mut values = KeyTail::new(self.clone(), first);
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let found = values.read_next().transpose();
            is_over = !matches!(found, Some(Ok(_) | Err(Error::Corrupt { .. })));
            found
        })
    }

    /// Deletes the ring with its values. Returns whether it was there. Any key may then take its place.
    ///
    /// O(capacity). If the process dies in the middle, the ring is there with fewer values.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sensors = store.space("sensors")?;
    /// let ring = sensors.ring::<u64>("kitchen", "<u8", 8)?;
    /// ring.push(&70)?;
    /// assert!(ring.delete()?);
    /// assert!(sensors.is_empty()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Space::delete`]; [`Error::OtherShape`].
    pub fn delete(&self) -> Result<bool> {
        self.raw().delete()
    }
}

impl<'a, T: Pod> KeyRing<'a, T> {
    /// The values from this number on, as they come: a blocking iterator. [`pushed`](Self::pushed) is the number of the
    /// next value. 0 begins with the oldest value that is there.
    ///
    /// Every value comes once, in the order of the numbers. If a number is passed over, its value was overwritten before it was read,
    /// or was lost with power. No producer waits for a reader.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.space("sensors")?.ring::<f64>("kitchen", "<f8", 50)?;
    /// let mut tail = ring.tail(ring.pushed()?)?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| (0..20).for_each(|n| _ = ring.push(&f64::from(n)).unwrap()));
    ///     for found in tail.by_ref().take(20) {
    ///         let (number, value) = found?;
    ///         assert_eq!(number as f64, value);
    ///     }
    ///     Ok::<(), recstore::Error>(())
    /// })?;
    /// assert_eq!(tail.next_timeout(Duration::from_millis(1))?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A value costs a read. Waiting costs a system call, and another one for the next [`push`](Self::push). If a producer died before
    /// it could wake the reader, its value comes within half a second.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]: a watcher sets a mark in the file; [`Error::Forked`].
    pub fn tail(&self, first: u64) -> Result<KeyTail<'a, T>> {
        self.space.store.handle.check_writable()?;
        Ok(KeyTail::new(self.clone(), first))
    }
}

impl<'a, T: Pod> KeyTail<'a, T> {
    fn new(ring: KeyRing<'a, T>, first: u64) -> Self {
        Self { ring, next: first, end: 0, data: Vec::new(), is_forked: false }
    }
}

impl<T: Pod> KeyTail<'_, T> {
    /// The next value, or `None` if none comes within the time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.space("sensors")?.ring::<u64>("kitchen", "<u8", 8)?;
    /// ring.push(&70)?;
    /// let mut tail = ring.tail(0)?;
    /// assert_eq!(tail.next_timeout(Duration::ZERO)?, Some((0, 70)));
    /// assert_eq!(tail.next_timeout(Duration::ZERO)?, None); // nothing new
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`KeyRing::pushed`]. A damaged value gives the error once, and is passed over.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<(u64, T)>> {
        self.wait(Some(timeout))
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<(u64, T)>> {
        if let Some(found) = self.read_next()? {
            return Ok(Some(found));
        }
        let store = self.ring.space.store;
        wait_for_record(store, self.ring.space.id_of(&self.ring.key), timeout, || self.read_next())
    }

    /// The next value, if there is one.
    fn read_next(&mut self) -> Result<Option<(u64, T)>> {
        let ring = self.ring.raw();
        loop {
            if self.next >= self.end {
                self.end = ring.pushed()?;
                if self.next >= self.end {
                    return Ok(None);
                }
                self.next = self.next.max(self.end.saturating_sub(self.ring.capacity()));
            }
            let number = self.next;
            self.next += 1;
            let found = ring.read(number, &mut self.data, |value| bytemuck::try_pod_read_unaligned(value))?;
            if let Some(Ok(value)) = found {
                return Ok(Some((number, value)));
            }
        }
    }
}

impl<T: Pod> Iterator for KeyTail<'_, T> {
    type Item = Result<(u64, T)>;

    /// Waits for the next value, as long as it takes. Only the error [`Error::Forked`] ends the iterator.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_forked {
            return None;
        }
        let found = self.wait(None).transpose();
        self.is_forked = matches!(found, Some(Err(Error::Forked { .. })));
        found
    }
}
