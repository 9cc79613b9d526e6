//! Expiry: values that end at a deadline.
//!
//! 1. The entry of a key holds the deadline of its value, and a *stamp*: a number that only this write of the key has. The time is that
//!    of the store's [clock](super::clock).
//! 2. A later deadline is written without the value: into a record of its own, in a hidden space, under the same key, with the stamp of
//!    the value's entry. It counts while the value has this stamp. So it ends with the value, and needs no deletion. An earlier
//!    deadline is written with the value.
//!    So each change of a deadline to an earlier one is told to those who follow the value.
//! 3. A reader looks for the later deadline only if the value's own is over. If it finds none, it looks at the value again: only a value
//!    that was not replaced meanwhile is over.
//! 4. Whoever changes the value because it is over, and whoever writes a later deadline, holds the locks of both records' regions.
//!    They are taken in the order of their numbers, as a batch does. So one of the two comes first.
//! 5. A later deadline of the value before is written over only if it is over itself, or if the value is on disk. Otherwise a loss of
//!    power could bring that value back, without its later deadline. Until then a touch writes the value again.
//!
//! 6. A change looks at the clock when it has the locks. A time from before it waited for them would call a value back to life that
//!    readers have found over. Readers take no lock: while a change is between its look at the clock and the store that makes it
//!    visible, readers may find a value over that the change then keeps. This takes microseconds, unless the process is stopped there.
//! 7. A stamp is made from the claim of the handle's seat too: processes that were forked draw the same random numbers.
//!
//! Each of these writes is one write of one record. So all promises for records hold for deadlines.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Result;
use crate::format::keyed::{self, Entry, Expiry, NAME_LEN_MAX, NotEntries};
use crate::format::slot::Address;
use crate::store::Store;
use crate::store::entry::{Life, append};
use crate::store::modify::{Action, Companion};
use crate::store::space::Space;
use crate::store::ttl::Ttl;

/// In front of the name of a space: the space of its later deadlines. No program can give such a name.
pub(super) const TOUCHED: char = '\u{1}';

/// What became of a later deadline.
enum Touched {
    Written,
    Absent,
    /// It can only be written with the value.
    WithValue,
}

/// Expiry.
impl Space<'_> {
    /// The space with another time to live for the keys that are written through this value of `Space`. It is not stored in the space.
    ///
    /// * `put`, `write_many`, `compare_and_swap`, `put_if_absent` and [`Batch::put_in`](crate::Batch::put_in) give each value this time.
    /// * `update` and `modify` keep the deadline that a value has, and give this time to a value that was absent.
    /// * Without a time to live, a `put` has no deadline, whatever the value before it had.
    ///
    /// From its deadline on a key is absent for every call: `get` returns `None`, `update` gets `None`, `put_if_absent` writes. The
    /// record stays in the file until the key is written again or a [`sweep`](Store::sweep) finds it. Nothing wakes a
    /// [`watch`](Self::watch) at the deadline. A snapshot judges by its own moment.
    ///
    /// A deadline takes 16 bytes of the record. The store keeps a note of its clock in a record of 52 bytes, so it needs a
    /// [`record_size`](crate::Options::record_size) of that at least. Deadlines survive a reboot. The clock is the wall clock with a guard: while the machine
    /// runs, a wall clock that jumps makes a time to live half as long or twice as long, and no more. After a reboot the wall clock is
    /// believed, unless it is behind the last time known or more than a year ahead of it; then the clock goes on from there.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?.with_ttl(Duration::from_secs(1800));
    /// sessions.put("user:7", b"logged in")?; // for half an hour
    /// assert!(sessions.contains("user:7")?);
    /// assert!(sessions.expires_at("user:7")?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// Gives a key another deadline. Returns whether the key was there. If the new deadline is later, the value is not written again: the
    /// write takes a slot of its own, with the key and 24 bytes, and the key's version stays as it is. The first touch of a value
    /// without deadline, and an earlier deadline, write the value again. So does a touch of a value whose predecessor was touched too, until
    /// a [`sync`](Store::sync) or the predecessor's deadline: a loss of power may bring the predecessor back.
    ///
    /// Holds the locks of two regions. Survives what a [`put`](Self::put) survives.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?.with_ttl(Duration::from_secs(60));
    /// let version = sessions.put("user:7", b"logged in")?;
    /// let before = sessions.expires_at("user:7")?;
    /// assert!(sessions.touch("user:7", Duration::from_secs(1800))?);
    /// assert!(sessions.expires_at("user:7")? > before);
    /// assert_eq!(sessions.version("user:7")?, Some(version));
    /// assert!(!sessions.touch("user:8", Duration::from_secs(1800))?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`get`](Self::get).
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: impl Into<Ttl>) -> Result<bool> {
        let (key, ttl) = (key.as_ref(), ttl.into());
        let at_ms = ttl.deadline_ms(self.store.now_ms_for_write()?);
        let touched = match (self.touched(), at_ms) {
            (Some(touched), Some(at_ms)) => self.put_later(&touched, key, at_ms)?,
            _ => Touched::WithValue,
        };
        match touched {
            Touched::Written => Ok(true),
            Touched::Absent => Ok(false),
            Touched::WithValue => {
                let life = Life::Renewed(at_ms.map(|at_ms| Expiry::new(self.store, at_ms)));
                let (_, was_there) =
                    self.change(key, self.store.handle.durability, life, |old| match old {
                        Some((_, value)) => (Action::Put(value.to_vec()), true),
                        None => (Action::Keep, false),
                    })?;
                Ok(was_there)
            }
        }
    }

    /// Writes a later deadline into its own record: rules 2 and 4.
    fn put_later(&self, touched: &Space<'_>, key: &[u8], at_ms: u64) -> Result<Touched> {
        let (id, later_id) = (self.check_key(key)?, touched.id_of(key));
        let durability = self.store.handle.durability;
        let change = |later: Option<&[u8]>, record: Option<&Companion>| {
            let keep = |touched| Ok((Action::Keep, touched));
            let Some(record) = record else { return keep(Touched::Absent) };
            let Some(entry) = self.find_in(id, &record.data, key)? else { return keep(Touched::Absent) };
            let Some(own) = entry.expiry else { return keep(Touched::WithValue) };
            let there = later.map_or(Ok(None), |later| touched.find_in(later_id, later, key))?;
            let there = there.and_then(|there| there.expiry);
            let end = there.filter(|there| there.stamp == own.stamp).map(|there| there.at_ms);
            let (now_ms, end) = (self.store.now_ms_under_lock(), own.at_ms.max(end.unwrap_or(0)));
            if end <= now_ms {
                return keep(Touched::Absent);
            }
            if at_ms < end {
                return keep(Touched::WithValue);
            }
            // Rule 5.
            let is_needed = there.is_some_and(|there| there.stamp != own.stamp && there.at_ms > now_ms);
            if is_needed && !record.is_on_disk {
                return keep(Touched::WithValue);
            }
            let name = touched.name.as_bytes();
            let others = later.map(|later| keyed::without(later, name, key)).transpose();
            let mut written =
                others.map_err(|NotEntries| self.store.no_entries(later_id))?.unwrap_or_default();
            let expiry = Some(Expiry { at_ms, stamp: own.stamp });
            match append(self.store, Entry { name, key, value: &[], expiry }, &mut written) {
                Ok(()) => Ok((Action::Put(written), Touched::Written)),
                Err(_) => keep(Touched::WithValue), // The name is longer by a byte, and the value may be empty.
            }
        };
        let changed =
            self.store.change_beside(later_id, Address::Key, Some(id), durability, |later, record| {
                match change(later.map(|(_, later)| later), record) {
                    Ok((action, touched)) => (action, Ok(touched)),
                    Err(error) => (Action::Keep, Err(error)),
                }
            })?;
        changed.1
    }

    /// The deadline of a key. `None` if there is no such key, or if it has none. It is a time of the store's clock, which is the wall clock
    /// if that one is right.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?.with_ttl(Duration::from_secs(60));
    /// sessions.put("user:7", b"logged in")?;
    /// assert!(sessions.expires_at("user:7")?.unwrap() > SystemTime::now());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<SystemTime>> {
        let key = key.as_ref();
        self.store.handle.check()?;
        let id = self.hash.id(key);
        loop {
            let mut record = Vec::new();
            let read = self.store.read(id, Address::Key, Some(&mut record))?;
            let Some((header, _)) = read else { return Ok(None) };
            let entry = self.find_in(id, &record, key)?;
            let Some(own) = entry.and_then(|entry| entry.expiry) else { return Ok(None) };
            let end = own.at_ms.max(self.later_end(key, own.stamp)?.unwrap_or(0));
            // Rule 3: a touch of a newer value may have replaced the later deadline.
            let now = self.store.read(id, Address::Key, None)?;
            if now.is_some_and(|(now, _)| now.seq() == header.seq()) {
                let is_over = end <= self.store.now_ms();
                return Ok(if is_over { None } else { UNIX_EPOCH.checked_add(Duration::from_millis(end)) });
            }
        }
    }

    /// The hidden space of the later deadlines. There is none for a name of 255 bytes, nor of a hidden space.
    pub(super) fn touched(&self) -> Option<Self> {
        let has_one = self.name.len() < NAME_LEN_MAX && !keyed::is_hidden(self.name.as_bytes());
        has_one.then(|| Self { ttl: None, ..self.store.space_of(&format!("{TOUCHED}{}", self.name)) })
    }

    /// The later deadline that a record of a hidden space has for a key whose value has this stamp.
    pub(super) fn end_in(&self, id: u64, record: &[u8], key: &[u8], stamp: u64) -> Result<Option<u64>> {
        let entry = self.find_in(id, record, key)?;
        Ok(entry.and_then(|entry| entry.expiry).filter(|later| later.stamp == stamp).map(|later| later.at_ms))
    }

    /// The later deadline of a key whose value has this stamp.
    fn later_end(&self, key: &[u8], stamp: u64) -> Result<Option<u64>> {
        let Some(touched) = self.touched() else { return Ok(None) };
        let (id, mut record) = (touched.id_of(key), Vec::new());
        match self.store.read(id, Address::Key, Some(&mut record))? {
            Some(_) => touched.end_in(id, &record, key, stamp),
            None => Ok(None),
        }
    }

    /// Whether a value with this end is over. If it is, the caller looks whether the value was replaced meanwhile: rule 3.
    #[inline]
    pub(super) fn is_over(&self, key: &[u8], expiry: Option<Expiry>) -> Result<bool> {
        let Some(expiry) = expiry else { return Ok(false) };
        let now_ms = self.store.now_ms();
        Ok(expiry.at_ms <= now_ms && self.later_end(key, expiry.stamp)?.is_none_or(|end| end <= now_ms))
    }

    /// The end of a value that is written now.
    pub(super) fn end_of_new(&self, ttl: Option<Ttl>) -> Result<Option<Expiry>> {
        match ttl.or(self.ttl) {
            None | Some(Ttl::NEVER) => Ok(None),
            Some(ttl) => Ok(ttl
                .deadline_ms(self.store.now_ms_for_write()?)
                .map(|at_ms| Expiry::new(self.store, at_ms))),
        }
    }
}

impl Expiry {
    /// A deadline of a new write.
    fn new(store: &Store, at_ms: u64) -> Self {
        // A new state of the hasher is another key each time. But a forked child has the keys of its parent, and of the other children:
        // the claim of the handle's seat tells them apart.
        let handle = store.handle.arena.owner.map(|owner| (owner.seat, owner.generation));
        Self { at_ms, stamp: RandomState::new().hash_one((handle, at_ms)) }
    }
}

impl Store {
    /// Whether an entry that a pass over the records found is over.
    pub(super) fn is_entry_over(&self, entry: &Entry<'_>) -> Result<bool> {
        let Some(expiry) = entry.expiry.filter(|expiry| expiry.at_ms <= self.now_ms()) else {
            return Ok(false);
        };
        let Ok(name) = str::from_utf8(entry.name) else { return Ok(false) };
        let space = self.space_of(name);
        Ok(space.is_over(entry.key, Some(expiry))? && space.version(entry.key)?.is_none())
    }
}
