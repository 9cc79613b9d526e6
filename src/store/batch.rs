//! Atomic batches: changes of several records, in any regions, of which all count or none. The numbered
//! steps are in the chapter on the protocol.

use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};

use crate::error::{Error, Result};
use crate::format::keyed::{Entry, Expiry, NotEntries, ValueAt, find, without};
use crate::format::slot::{Address, PRESENT};
use crate::handle::lock::in_region;
use crate::record::{Durability, Version};
use crate::region::batch::{Group, Member, commit, give_back};
use crate::region::head::Region;
use crate::region::watch::{Changed, notify};
use crate::store::Store;
use crate::store::entry::{Judge, append};
use crate::store::space::Space;
use crate::sys::deadline::Deadline;

/// Changes of several records, of which all count or none: see [`Store::batch`].
#[derive(Debug)]
#[must_use = "a batch does nothing before it is committed"]
pub struct Batch<'a> {
    store: &'a Store,
    /// In the order of the calls; `None` deletes.
    changes: Vec<(u64, Option<Cow<'a, [u8]>>)>,
    /// Likewise, of keys.
    of_keys: Vec<OfKey<'a>>,
    /// The versions that must be there before the batch.
    conditions: Vec<Condition>,
}

/// A key of a space.
#[derive(Debug)]
struct Key {
    id: u64,
    name: Box<str>,
    key: Box<[u8]>,
}

/// A change of a key: `None` deletes.
#[derive(Debug)]
struct OfKey<'a> {
    key: Key,
    value: Option<Cow<'a, [u8]>>,
    expiry: Option<Expiry>,
}

/// A version that has to be there before the batch.
#[derive(Debug)]
struct Condition {
    id: u64,
    /// The key, if it is of one.
    key: Option<Key>,
    expected: Expected,
}

/// The demand of a condition.
#[derive(Debug)]
enum Expected {
    /// This version; `None`: that the record is absent.
    Version(Option<Version>),
    /// A value that begins with these bytes.
    Beginning(Box<[u8]>),
}

impl Key {
    fn new(space: &Space<'_>, key: &[u8]) -> Result<Self> {
        Ok(Self { id: space.check_key(key)?, name: space.name().into(), key: key.into() })
    }

    fn entry<'e>(&'e self, value: &'e [u8], expiry: Option<Expiry>) -> Entry<'e> {
        Entry { name: self.name.as_bytes(), key: &self.key, value, expiry }
    }
}

/// Whether the conditions of a batch hold.
enum Met {
    All,
    /// The first one that does not.
    Conflict(Commit),
    /// One of them is on a key with a deadline, and has no judge.
    NotKnown,
}

/// The result of the commit of a batch: see [`Batch::commit`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a batch that met a conflict has changed nothing"]
pub enum Commit {
    /// All changes were made. The version of each record that was written, in the order of ids. Deleted records are not among them.
    Done(Vec<(u64, Version)>),
    /// A record did not have the version that a condition names. No record was changed.
    Conflict {
        /// The record.
        id: u64,
        /// The version that is there, or `None` if the record is absent.
        current: Option<Version>,
    },
}

/// Several records as one step.
impl Store {
    /// Begins a batch: puts, deletions and conditions on versions, of any ids. [`Batch::commit`] makes them together. No lock is
    /// held before that.
    ///
    /// ```
    /// # fn main() -> recstore::Result<()> {
    /// # use recstore::{Commit, Store};
    /// # let path = std::env::temp_dir().join(format!("recstore-batch-{}.rec", std::process::id()));
    /// let store = Store::open_or_create(&path)?;
    /// # store.put(1, b"100")?;
    /// # store.put(2, b"0")?;
    /// loop {
    ///     // If either changes before the commit, that is a conflict.
    ///     let [from, to] = [store.get(1)?, store.get(2)?].map(|r| r.expect("an account"));
    ///     let mut batch = store.batch();
    ///     batch.compare_and_swap(1, Some(from.version()), b"60")?;
    ///     batch.compare_and_swap(2, Some(to.version()), b"40")?;
    ///     batch.put(3, b"40 moved from 1 to 2")?;
    ///     if let Commit::Done(_) = batch.commit()? {
    ///         break;
    ///     }
    /// }
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> Batch<'_> {
        Batch { store: self, changes: Vec::new(), of_keys: Vec::new(), conditions: Vec::new() }
    }
}

impl<'a> Batch<'a> {
    /// Writes a record. Of several changes of one id the last counts.
    ///
    /// ```
    /// # use recstore::{Commit, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut batch = store.batch();
    /// batch.put(1, b"one")?;
    /// batch.put(2, String::from("two").into_bytes())?; // owned, or borrowed until the commit
    /// assert!(matches!(batch.commit()?, Commit::Done(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::RecordTooLong`]: the batch is as it was.
    pub fn put(&mut self, id: u64, data: impl Into<Cow<'a, [u8]>>) -> Result<()> {
        let data = data.into();
        if data.len() > self.store.record_size() {
            return Err(self.store.too_long(id, data.len()));
        }
        self.changes.push((id, Some(data)));
        Ok(())
    }

    /// Deletes a record, if there is one.
    ///
    /// ```
    /// # use recstore::{Commit, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let mut batch = store.batch();
    /// batch.delete(1);
    /// assert!(matches!(batch.commit()?, Commit::Done(_)));
    /// assert!(!store.contains(1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete(&mut self, id: u64) {
        self.changes.push((id, None));
    }

    /// Writes a record; the batch fails unless the record's version before it is `expected` (`None`:
    /// there is no such record).
    ///
    /// ```
    /// # use recstore::{Commit, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut batch = store.batch();
    /// batch.compare_and_swap(1, None, b"one")?; // if there is no record 1
    /// assert!(matches!(batch.commit()?, Commit::Done(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn compare_and_swap(
        &mut self,
        id: u64,
        expected: Option<Version>,
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Result<()> {
        self.put(id, data)?;
        self.require(id, expected);
        Ok(())
    }

    /// The batch fails unless this record's version before it is `expected` (`None`: there is no such
    /// record). The record need not be changed.
    ///
    /// ```
    /// # use recstore::{Commit, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let version = store.put(1, b"one")?;
    /// store.put(1, b"changed")?;
    /// let mut batch = store.batch();
    /// batch.require(1, Some(version));
    /// batch.put(2, b"two")?;
    /// assert!(matches!(batch.commit()?, Commit::Conflict { id: 1, .. }));
    /// assert!(!store.contains(2)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn require(&mut self, id: u64, expected: Option<Version>) {
        self.conditions.push(Condition { id, key: None, expected: Expected::Version(expected) });
    }

    /// Writes the value of a key. Of several changes of one key the last counts.
    ///
    /// ```
    /// # use recstore::{Commit, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let (orders, stock) = (store.space("orders")?, store.space("stock")?);
    /// let mut batch = store.batch();
    /// batch.put_in(&orders, "2026-11", b"3 lamps")?;
    /// batch.put_in(&stock, "lamps", b"17")?;
    /// assert!(matches!(batch.commit()?, Commit::Done(_)));
    /// assert_eq!(stock.get("lamps")?.unwrap().data(), b"17");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::KeyTooLong`]; [`Error::EntryTooLong`], which
    /// [`commit`](Self::commit) gives too, where a key with the same id leaves no room;
    /// [`Error::InvalidOption`] if the space is another store's. The batch is as it was.
    pub fn put_in(
        &mut self,
        space: &Space<'_>,
        key: impl AsRef<[u8]>,
        value: impl Into<Cow<'a, [u8]>>,
    ) -> Result<()> {
        self.store.check_space(space)?;
        let (key, value) = (Key::new(space, key.as_ref())?, value.into());
        let expiry = space.end_of_new(None)?;
        append(self.store, key.entry(&value, expiry), &mut Vec::new())?;
        self.of_keys.push(OfKey { key, value: Some(value), expiry });
        Ok(())
    }

    /// The value that the batch puts under a key so far.
    pub(super) fn last_put_in(&self, space: &Space<'_>, key: &str) -> Option<&[u8]> {
        let is_of = |of: &&OfKey<'_>| *of.key.name == *space.name() && *of.key.key == *key.as_bytes();
        self.of_keys.iter().rev().find(is_of)?.value.as_deref()
    }

    /// Deletes a key, if it is there.
    ///
    /// ```
    /// # use recstore::{Commit, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// let mut batch = store.batch();
    /// batch.delete_in(&sessions, "user:7")?;
    /// assert!(matches!(batch.commit()?, Commit::Done(_)));
    /// assert!(!sessions.contains("user:7")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put_in`](Self::put_in).
    pub fn delete_in(&mut self, space: &Space<'_>, key: impl AsRef<[u8]>) -> Result<()> {
        self.store.check_space(space)?;
        self.of_keys.push(OfKey { key: Key::new(space, key.as_ref())?, value: None, expiry: None });
        Ok(())
    }

    /// The batch fails unless this key's version before it is `expected` (`None`: there is no such key).
    ///
    /// ```
    /// # use recstore::{Commit, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put("user:7", b"logged in")?;
    /// let mut batch = store.batch();
    /// batch.require_in(&sessions, "user:7", None)?;
    /// batch.put_in(&sessions, "user:7", b"the first")?;
    /// assert!(matches!(batch.commit()?, Commit::Conflict { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put_in`](Self::put_in).
    pub fn require_in(
        &mut self,
        space: &Space<'_>,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
    ) -> Result<()> {
        self.store.check_space(space)?;
        let key = Key::new(space, key.as_ref())?;
        self.conditions.push(Condition { id: key.id, key: Some(key), expected: Expected::Version(expected) });
        Ok(())
    }

    /// The batch fails unless this key's value begins with these bytes.
    pub(super) fn require_beginning(
        &mut self,
        space: &Space<'_>,
        key: &[u8],
        beginning: &[u8],
    ) -> Result<()> {
        self.store.check_space(space)?;
        let key = Key::new(space, key)?;
        let expected = Expected::Beginning(beginning.into());
        self.conditions.push(Condition { id: key.id, key: Some(key), expected });
        Ok(())
    }

    /// Number of changes so far.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut batch = store.batch();
    /// batch.put(1, b"one")?;
    /// batch.delete(2);
    /// assert_eq!(batch.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len() + self.of_keys.len()
    }

    /// Whether there is no change.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(store.batch().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes all changes or none, with the handle's durability.
    ///
    /// * If the process is killed at any instant, all changes are there or none. One stored word decides for all readers of all
    ///   processes: a reader that has seen one change of the batch sees all changes in every later read. Results of reads after
    ///   the death stay true.
    /// * After a loss of power all changes are there or none. If a [`sync`](Store::sync) that began after the commit has returned,
    ///   all are there. A batch that no `sync` made durable may be given up, even if a part of it is on disk.
    /// * A [`Snapshot`](crate::Snapshot) and [`Pin::get_many`](crate::Pin::get_many) see all changes or none. Of several single
    ///   reads, those before the deciding store see none, and those after it all.
    ///
    /// Holds the locks of all regions that it touches, and the lock of batches. So batches of one store are made one after
    /// another, and writes in other regions go on meanwhile. O(changes). After a batch whose process died, the next batch waits
    /// for the process that heals a region of it, at most for the lock time-out.
    ///
    /// Readers do not wait for a batch. Only a read of a region in which the batch has more than 14 changes may wait until they
    /// are made.
    ///
    /// ```
    /// # use recstore::{Commit, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut batch = store.batch();
    /// batch.put(1, b"one")?;
    /// match batch.commit()? {
    ///     Commit::Done(versions) => assert_eq!(versions.len(), 1),
    ///     Commit::Conflict { id, .. } => println!("record {id} is not as it was asked for"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::put`], and [`Error::Corrupt`] if a record with a condition is damaged. Then no record is
    /// changed. There is one exception: after [`Error::FlushFailed`], which only durable commits give,
    /// the batch is made, and may be lost with power.
    pub fn commit(self) -> Result<Commit> {
        let durability = self.store.handle.durability;
        self.commit_with(durability)
    }

    /// [`commit`](Self::commit) with the durability of this one batch.
    ///
    /// ```
    /// # use recstore::{Commit, Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut batch = store.batch();
    /// batch.put(1, b"one")?;
    /// assert!(matches!(batch.commit_with(Durability::Disk)?, Commit::Done(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn commit_with(self, durability: Durability) -> Result<Commit> {
        let store = self.store;
        store.check_write(0, 0)?;
        let deadline = store.handle.arena.deadline();
        let mut judges = None;
        let mut is_last_try = false;
        let committed = loop {
            let batches = store.handle.lock_batches(&deadline)?; // Step 1.
            let made = self.make(&deadline, judges.as_deref().unwrap_or_default());
            drop(batches);
            match made {
                Ok(Some(committed)) => break committed,
                Ok(None) => judges = Some(self.judges()),
                Err(Error::Full { .. }) if !is_last_try && store.handle.has_made_room() => is_last_try = true,
                Err(error) => return Err(error),
            }
        };
        if matches!(committed, Commit::Done(_)) && !self.is_empty() {
            store.settle(durability)?;
        }
        Ok(committed)
    }

    /// The last change of each id, in the order of regions and ids. `merged`: the new records of keys.
    fn members<'m>(&'m self, merged: &'m BTreeMap<u64, Vec<u8>>) -> Vec<Member<'m>> {
        let geo = &self.store.handle.arena.geo;
        let member = |id, address, data| Member { hash: geo.hash(id), id, address, data, slot: None, seq: 0 };
        // The sort is stable and the first of equal ids stays, so the last change of an id stays.
        let of_ids = self.changes.iter().rev().map(|(id, data)| member(*id, Address::Id, data.as_deref()));
        let of_keys = merged.iter().map(|(&id, record)| {
            member(id, Address::Key, Some(&record[..]).filter(|record| !record.is_empty()))
        });
        let mut members: Vec<Member<'_>> = of_ids.collect();
        members.extend(of_keys);
        members.sort_by_key(|member| (geo.region_of(member.hash), member.id));
        members.dedup_by_key(|member| member.id);
        members
    }

    /// The new record with each id of a key: its entries, or none if the record is deleted. The caller holds the locks of all regions.
    fn merge(&self) -> Result<BTreeMap<u64, Vec<u8>>> {
        let arena = &self.store.handle.arena;
        let mut merged = BTreeMap::new();
        let mut data = Vec::new();
        for OfKey { key, value, expiry } in &self.of_keys {
            if self.changes.iter().any(|(id, _)| *id == key.id) {
                let path = self.store.path().to_path_buf();
                return Err(Error::IdTaken { path, id: key.id, by_key: true });
            }
            let record = match merged.entry(key.id) {
                btree_map::Entry::Occupied(record) => record.into_mut(),
                btree_map::Entry::Vacant(place) => {
                    let hash = arena.geo.hash(key.id);
                    let region = Region::new(arena, arena.geo.region_of(hash));
                    let found = in_region(&region, |region| {
                        self.store.read_in(region, hash, key.id, Some(&mut data))
                    });
                    let is_whole = match found {
                        Ok(found) => found.is_some_and(|(header, _)| header.address() == Address::Key),
                        Err(Error::Corrupt { .. }) => false, // It is written anew.
                        Err(error) => return Err(error),
                    };
                    place.insert(if is_whole { std::mem::take(&mut data) } else { Vec::new() })
                }
            };
            // Entries that cannot be are written anew, as a damaged record is.
            *record = without(record, key.name.as_bytes(), &key.key).unwrap_or_default();
            if let Some(value) = value {
                append(self.store, key.entry(value, *expiry), record)?;
            }
        }
        Ok(merged)
    }

    /// A judge for each condition of a key.
    fn judges(&self) -> Vec<Option<Judge<'a>>> {
        let keys = self.conditions.iter().map(|condition| condition.key.as_ref());
        keys.map(|key| Some(Judge::of(&self.store.space_of(&key?.name)))).collect()
    }

    /// Steps 2 to 7. The caller holds the lock of batches. `None`: a condition is on a key with a deadline, and needs its judge.
    fn make(&self, deadline: &Deadline, judges: &[Option<Judge<'_>>]) -> Result<Option<Commit>> {
        let handle = &self.store.handle;
        let arena = &handle.arena;
        let region_of = |hash| arena.geo.region_of(hash);
        let changed = self.changes.iter().map(|(id, _)| *id);
        let changed = changed.chain(self.of_keys.iter().map(|of_key| of_key.key.id));
        let ids = changed.chain(self.conditions.iter().map(|condition| condition.id));
        let later = self.conditions.iter().zip(judges);
        let ids = ids.chain(
            later.filter_map(|(condition, judge)| judge.as_ref()?.beside(&condition.key.as_ref()?.key)),
        );
        let mut regions: Vec<u32> = ids.map(|id| self.store.region_of(id)).collect();
        regions.sort_unstable();
        regions.dedup();
        let locked = regions.iter().map(|&number| handle.lock_by(number, Some(deadline)));
        let mut locked = locked.collect::<Result<Vec<_>>>()?;
        match self.conflict(judges)? {
            Met::All => {}
            Met::NotKnown => return Ok(None),
            Met::Conflict(conflict) => return Ok(Some(conflict)),
        }
        let merged = self.merge()?;
        let members = &mut self.members(&merged)[..];
        if members.is_empty() {
            return Ok(Some(Commit::Done(Vec::new())));
        }
        // Read with all locks held: so all members have one epoch, and a flush that ends it waits.
        let epoch = arena.epoch()?;
        let mut groups: Vec<Group<'_, '_>> = members
            .chunk_by_mut(|a, b| region_of(a.hash) == region_of(b.hash))
            .map(|group| (Region::new(arena, region_of(group[0].hash)), group))
            .collect();
        for n in 0..groups.len() {
            let (region, group) = &mut groups[n];
            if let Err(error) = in_region(region, |region| region.prepare(group, epoch)) {
                give_back(&mut groups[..n]);
                return Err(error);
            }
        }
        commit(arena, &mut groups, epoch)?;
        locked.iter_mut().for_each(|locked| locked.will_change(Changed::None));
        drop(locked);
        for member in members.iter() {
            notify(arena, arena.head(region_of(member.hash)), Changed::Record(member.hash));
        }
        let mut versions: Vec<(u64, Version)> = members
            .iter()
            .filter(|member| member.data.is_some())
            .map(|member| (member.id, Version(member.seq & !PRESENT)))
            .collect();
        versions.sort_unstable_by_key(|(id, _)| *id);
        Ok(Some(Commit::Done(versions)))
    }

    /// The first condition that does not hold. The caller holds the locks of all regions.
    fn conflict(&self, judges: &[Option<Judge<'_>>]) -> Result<Met> {
        let arena = &self.store.handle.arena;
        let mut data = Vec::new();
        for (n, Condition { id, key, expected }) in self.conditions.iter().enumerate() {
            let (id, hash) = (*id, arena.geo.hash(*id));
            let region = Region::new(arena, arena.geo.region_of(hash));
            let found = in_region(&region, |region| self.store.read_in(region, hash, id, Some(&mut data)))?;
            let address = if key.is_some() { Address::Key } else { Address::Id };
            let mut found = found.filter(|(header, _)| header.address() == address);
            let mut value = &data[..];
            if let (Some(key), Some(_)) = (key, &found) {
                let at = find(&data, key.name.as_bytes(), &key.key);
                match at.map_err(|NotEntries| self.store.no_entries(id))? {
                    Some(ValueAt { value: at, expiry }) => {
                        value = &data[at];
                        let is_over = match (expiry, judges.get(n)) {
                            (None, _) => false,
                            (Some(_), Some(Some(judge))) => {
                                let later = judge.beside(&key.key).map(|id| self.store.read_beside(id));
                                let later = later.transpose()?.flatten();
                                judge
                                    .is_over(&key.key, expiry, later.as_ref().map(|later| &later.data[..]))?
                                    .unwrap_or(true)
                            }
                            (Some(_), _) => return Ok(Met::NotKnown),
                        };
                        if is_over {
                            found = None;
                        }
                    }
                    None => found = None,
                }
            }
            let current = found.map(|(header, _)| Version(header.version()));
            let is_met = match expected {
                Expected::Version(expected) => current == *expected,
                Expected::Beginning(beginning) => current.is_some() && value.starts_with(beginning),
            };
            if !is_met {
                return Ok(Met::Conflict(Commit::Conflict { id, current }));
            }
        }
        Ok(Met::All)
    }
}
