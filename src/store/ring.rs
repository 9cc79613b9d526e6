//! Rings: the last values of a series.
//!
//! 1. A producer claims a number by writing its value into the number's place, under the lock of that record, if the place holds
//!    a lower number. So a number is claimed together with its value, and the claimed numbers have no gap.
//! 2. The producer then raises the count to the next number. So a reader of the count finds all values that are counted.
//! 3. If a place holds the sought number or a higher one, the count is behind: the producer is between steps 1 and 2, or died
//!    there, or power was lost. A search for the end of the series goes on behind that number.

use std::marker::PhantomData;
use std::time::Duration;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::format::slot::{FIRST_SEQ, PRESENT};
use crate::store::Store;
use crate::store::watch::wait_for_record;

/// A bounded series of values that any number of processes append to: see [`Store::ring`].
#[derive(Debug)]
pub struct Ring<'a, T> {
    store: &'a Store,
    base: u64,
    len: u64,
    of: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Ring<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ring<'_, T> {}

/// The values of a ring as they come: see [`Ring::tail`].
#[derive(Debug)]
pub struct Tail<'a, T> {
    ring: Ring<'a, T>,
    /// The number that is read next.
    next: u64,
    /// The values before this number are counted.
    end: u64,
    data: Vec<u8>,
    is_forked: bool,
}

/// The number of a value and, behind it, the value.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RingPlace {
    number: u64,
}

/// A series of values.
impl Store {
    /// A ring of `len` values of `T`, in the ids `base` (the count) to `base + len`. The oldest value is overwritten first. All
    /// users of the ring must give the same numbers.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let temperatures = store.ring::<f64>(1000, 8)?; // the last 8, in records 1000 to 1008
    /// for n in 0..20 {
    ///     temperatures.push(&f64::from(n))?;
    /// }
    /// assert_eq!(temperatures.latest(1)?, [(19, 19.0)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if `len` is 0, the ids go beyond 2^64, or 8 bytes and a `T` don't fit
    /// into a record.
    pub fn ring<T: Pod>(&self, base: u64, len: u64) -> Result<Ring<'_, T>> {
        let bytes = size_of::<RingPlace>() + size_of::<T>();
        let what = if len == 0 {
            "a ring of no values".to_owned()
        } else if base.checked_add(len).is_none() {
            format!("a ring of {len} values from id {base:#x}: its ids go beyond 2^64")
        } else if bytes > self.record_size() {
            format!(
                "a ring takes {bytes} bytes a value, and a record of the store at most {}",
                self.record_size()
            )
        } else {
            return Ok(Ring { store: self, base, len, of: PhantomData });
        };
        Err(Error::InvalidOption { what })
    }
}

impl<'a, T: Pod> Ring<'a, T> {
    /// Appends a value. Returns its number in the series, from 0. Once the call has returned, all readers find the value. If a
    /// producer dies in the middle, its value is there or not, and no number is without a value.
    ///
    /// Two writes, each as [`Store::put`], and one more try for each producer that appends at the same time.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.ring::<u64>(1000, 8)?;
    /// assert_eq!(ring.push(&70)?, 0); // the number of the value
    /// assert_eq!(ring.push(&71)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::put`]; [`Error::TypeMismatch`] if the record `base` is no counter. After an error the value may have
    /// been appended.
    pub fn push(&self, value: &T) -> Result<u64> {
        let count = self.store.counter(self.base);
        let mut number = self.counted()?;
        let mut data = Vec::with_capacity(size_of::<RingPlace>() + size_of::<T>());
        data.extend_from_slice(bytemuck::bytes_of(&RingPlace { number }));
        data.extend_from_slice(bytemuck::bytes_of(value));
        loop {
            data[..size_of::<RingPlace>()].copy_from_slice(bytemuck::bytes_of(&RingPlace { number }));
            let mut claimed = None;
            self.store.update(self.id(number), |old| {
                claimed = old.and_then(number_of::<T>).filter(|&there| there >= number);
                claimed.is_none().then_some(&data)
            })?;
            match claimed {
                None => break,
                Some(there) => number = self.after(there)?,
            }
        }
        let next = self.after(number)?;
        if count.get()? < next {
            count.fetch_max(next)?;
        }
        Ok(number)
    }

    /// The count. After a loss of power, the number behind all values that came back.
    fn counted(&self) -> Result<u64> {
        let counter = self.store.counter(self.base);
        let mut data = Vec::new();
        let version = self.store.get_into(self.base, &mut data)?;
        let first = self.store.handle.arena.first_of_life();
        let is_of_this_life = version.is_some_and(|version| version.get() | PRESENT >= first);
        let mut count = counter.get()?;
        if is_of_this_life || version.is_none() && first == FIRST_SEQ {
            return Ok(count);
        }
        for id in self.base + 1..=self.base + self.len {
            if self.store.get_into(id, &mut data)?.is_some()
                && let Some(number) = number_of::<T>(&data)
            {
                count = count.max(self.after(number)?);
            }
        }
        Ok(count)
    }

    /// The number of values that were ever appended.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.ring::<u64>(1000, 8)?;
    /// ring.push(&70)?;
    /// assert_eq!(ring.pushed()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn pushed(&self) -> Result<u64> {
        let mut count = self.counted()?;
        let mut data = Vec::new();
        // Each turn of the loop comes to a higher number.
        while self.store.get_into(self.id(count), &mut data)?.is_some() {
            match number_of::<T>(&data).filter(|&there| there >= count) {
                Some(there) => count = self.after(there)?,
                None => break,
            }
        }
        Ok(count)
    }

    /// At most `count` of the latest values, the oldest first, each with its number. Values that are overwritten meanwhile are
    /// left out.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.ring::<u64>(1000, 8)?;
    /// for value in [70, 71, 72] {
    ///     ring.push(&value)?;
    /// }
    /// assert_eq!(ring.latest(2)?.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn latest(&self, count: u64) -> Result<Vec<(u64, T)>> {
        self.iter_from(self.pushed()?.saturating_sub(count)).collect()
    }

    /// All values that are there, the oldest first, each with its number.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.ring::<u64>(1000, 8)?;
    /// ring.push(&70)?;
    /// let values = ring.iter()?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(values, [(0, 70)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn iter(&self) -> Result<impl Iterator<Item = Result<(u64, T)>> + use<'a, T>> {
        Ok(self.iter_from(self.pushed()?.saturating_sub(self.len)))
    }

    /// The values from this number on, up to the last one when the iterator comes there. [`tail`](Self::tail) waits there for more.
    ///
    /// If a number is passed over, its value was overwritten before the iterator came to it, or was lost with power. To count gaps,
    /// compare the numbers that came, and not [`pushed`](Self::pushed) from before: producers may overtake the iterator.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.ring::<u64>(1000, 8)?;
    /// for value in [70, 71, 72] {
    ///     ring.push(&value)?;
    /// }
    /// let values = ring.iter_from(1).collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(values, [(1, 71), (2, 72)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter_from(&self, first: u64) -> impl Iterator<Item = Result<(u64, T)>> + use<'a, T> {
        let mut values = Tail { ring: *self, next: first, end: 0, data: Vec::new(), is_forked: false };
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

    /// The values from this number on, as they come: a blocking iterator. [`pushed`](Self::pushed) is the number of the
    /// next value. 0 begins with the oldest value that is there.
    ///
    /// Every value comes once, in the order of the numbers. If a number is passed over, its value was overwritten before it was read,
    /// or was lost with power. No producer waits for a reader.
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let path = std::env::temp_dir().join(format!("recstore-tail-{}.rec", std::process::id()));
    /// let store = Store::open_or_create(&path)?;
    /// let ring = store.ring::<f64>(1000, 50)?;
    /// let mut tail = ring.tail(ring.pushed()?)?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| (0..20).for_each(|n| _ = ring.push(&f64::from(n)).unwrap()));
    ///     for found in tail.by_ref().take(20) {
    ///         let (number, value) = found?;
    ///         assert_eq!(number as f64, value);
    ///     }
    ///     recstore::Result::Ok(())
    /// })?;
    /// assert_eq!(tail.next_timeout(Duration::from_millis(1))?, None);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A value costs a read. Waiting costs a system call, and another one for the next [`push`](Self::push). If a producer died before
    /// it could wake the reader, its value comes within half a second.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]: a watcher sets a mark in the file; [`Error::Forked`].
    pub fn tail(&self, first: u64) -> Result<Tail<'a, T>> {
        self.store.handle.check_writable()?;
        Ok(Tail { ring: *self, next: first, end: 0, data: Vec::new(), is_forked: false })
    }

    fn id(&self, number: u64) -> u64 {
        self.base + 1 + number % self.len
    }

    fn after(&self, number: u64) -> Result<u64> {
        number.checked_add(1).ok_or_else(|| {
            let path = self.store.path().to_path_buf();
            Error::TypeMismatch {
                path,
                what: format!("record {:#x} has no place of a ring", self.id(number)),
            }
        })
    }
}

impl<T: Pod> Tail<'_, T> {
    /// The next value, or `None` if none comes within the time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let ring = store.ring::<u64>(1000, 8)?;
    /// ring.push(&70)?;
    /// let mut tail = ring.tail(0)?;
    /// assert_eq!(tail.next_timeout(Duration::ZERO)?, Some((0, 70)));
    /// assert_eq!(tail.next_timeout(Duration::ZERO)?, None); // nothing new
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`]. A damaged value gives the error once, and is passed over.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<(u64, T)>> {
        self.wait(Some(timeout))
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<(u64, T)>> {
        let Ring { store, base, .. } = self.ring;
        if let Some(found) = self.read_next()? {
            return Ok(Some(found));
        }
        wait_for_record(store, base, timeout, || self.read_next())
    }

    /// The next value, if there is one.
    fn read_next(&mut self) -> Result<Option<(u64, T)>> {
        loop {
            if self.next >= self.end {
                self.end = self.ring.pushed()?;
                if self.next >= self.end {
                    return Ok(None);
                }
                self.next = self.next.max(self.end.saturating_sub(self.ring.len));
            }
            let number = self.next;
            self.next += 1;
            if self.ring.store.get_into(self.ring.id(number), &mut self.data)?.is_some()
                && let Some((there, value)) = read::<T>(&self.data)
                && there == number
            {
                return Ok(Some((number, value)));
            }
        }
    }
}

impl<T: Pod> Iterator for Tail<'_, T> {
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

/// The number in a place of a ring.
fn number_of<T: Pod>(data: &[u8]) -> Option<u64> {
    read::<T>(data).map(|(number, _)| number)
}

fn read<T: Pod>(data: &[u8]) -> Option<(u64, T)> {
    let (place, value) = data.split_at_checked(size_of::<RingPlace>())?;
    let place: RingPlace = bytemuck::try_pod_read_unaligned(place).ok()?;
    Some((place.number, bytemuck::try_pod_read_unaligned(value).ok()?))
}
