//! Atomic batches: changes of several records, in any regions, of which all count or none. The numbered
//! steps are in the chapter on the protocol.

use std::borrow::Cow;

use crate::error::Result;
use crate::format::slot::PRESENT;
use crate::handle::lock::in_region;
use crate::record::{Durability, Version};
use crate::region::batch::{Group, Member, commit, give_back};
use crate::region::head::Region;
use crate::store::Store;
use crate::sys::deadline::Deadline;

/// Changes of several records, of which all count or none: see [`Store::batch`].
#[derive(Debug)]
#[must_use = "a batch does nothing before it is committed"]
pub struct Batch<'a> {
    store: &'a Store,
    /// In the order of the calls; `None` deletes.
    changes: Vec<(u64, Option<Cow<'a, [u8]>>)>,
    /// The version that each of these records must have before the batch.
    conditions: Vec<(u64, Option<Version>)>,
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
        Batch { store: self, changes: Vec::new(), conditions: Vec::new() }
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
    /// [`Error::RecordTooLong`](crate::Error::RecordTooLong): the batch is as it was.
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
        self.conditions.push((id, expected));
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
        self.changes.len()
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
        self.changes.is_empty()
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
    /// Readers do not wait for a batch. Only a read of a region in which the batch has more than 16 changes may wait until they
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
    /// As [`Store::put`], and [`Error::Corrupt`](crate::Error::Corrupt) if a record with a condition is damaged. Then no record is
    /// changed. There is one exception: after [`Error::FlushFailed`](crate::Error::FlushFailed), which only durable commits give,
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
        let mut members = self.members();
        let committed = {
            let deadline = store.handle.arena.deadline();
            let _batches = store.handle.lock_batches(&deadline)?; // Step 1.
            self.make(&mut members, &deadline)?
        };
        if matches!(committed, Commit::Done(_)) && !members.is_empty() {
            store.settle(durability)?;
        }
        Ok(committed)
    }

    /// The last change of each id, in the order of regions and ids.
    fn members(&self) -> Vec<Member<'_>> {
        let geo = &self.store.handle.arena.geo;
        let mut members: Vec<Member<'_>> = self
            .changes
            .iter()
            .rev() // The sort is stable and the first of equal ids stays, so the last change of an id stays.
            .map(|(id, data)| Member {
                hash: geo.hash(*id),
                id: *id,
                data: data.as_deref(),
                slot: None,
                seq: 0,
            })
            .collect();
        members.sort_by_key(|member| (geo.region_of(member.hash), member.id));
        members.dedup_by_key(|member| member.id);
        members
    }

    /// Steps 2 to 7. The caller holds the lock of batches.
    fn make(&self, members: &mut [Member<'_>], deadline: &Deadline) -> Result<Commit> {
        let handle = &self.store.handle;
        let arena = &handle.arena;
        let region_of = |hash| arena.geo.region_of(hash);
        let of_conditions = self.conditions.iter().map(|(id, _)| self.store.region_of(*id));
        let mut regions: Vec<u32> = members.iter().map(|m| region_of(m.hash)).chain(of_conditions).collect();
        regions.sort_unstable();
        regions.dedup();
        let locked = regions.iter().map(|&number| handle.lock_by(number, Some(deadline)));
        let _locked = locked.collect::<Result<Vec<_>>>()?;
        if let Some(conflict) = self.conflict()? {
            return Ok(conflict);
        }
        if members.is_empty() {
            return Ok(Commit::Done(Vec::new()));
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
        let mut versions: Vec<(u64, Version)> = members
            .iter()
            .filter(|member| member.data.is_some())
            .map(|member| (member.id, Version(member.seq & !PRESENT)))
            .collect();
        versions.sort_unstable_by_key(|(id, _)| *id);
        Ok(Commit::Done(versions))
    }

    /// The first condition that does not hold. The caller holds the locks of all regions.
    fn conflict(&self) -> Result<Option<Commit>> {
        let arena = &self.store.handle.arena;
        let mut data = Vec::new();
        for &(id, expected) in &self.conditions {
            let hash = arena.geo.hash(id);
            let region = Region::new(arena, arena.geo.region_of(hash));
            let found = in_region(&region, |region| self.store.read_in(region, hash, id, Some(&mut data)))?;
            let current = found.map(|(header, _)| Version(header.version()));
            if current != expected {
                return Ok(Some(Commit::Conflict { id, current }));
            }
        }
        Ok(None)
    }
}
