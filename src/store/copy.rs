//! Copies into a store of another geometry: one moment of the store, put anew.
//!
//! 1. A [snapshot](crate::Snapshot) is copied, so that others go on writing meanwhile.
//! 2. The copy has the hash key of the store. So records and keys have the same ids there, in whatever number of regions, and no
//!    record can meet another one that it did not meet before.
//! 3. A record goes over as it is, with one exception: entries of keys that were over at the moment, or that are not chosen, are left
//!    out, and so are later deadlines without a value.
//! 4. Regions are copied side by side, by several threads. A thread gathers the records of a region and writes them in groups, so that it
//!    takes each lock of the copy once a group.
//! 5. The file of the copy has no name before it is whole and on disk.

use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::error::{Error, Result};
use crate::format::keyed::{self, Entry, NotEntries, entries};
use crate::format::slot::{Address, Header};
use crate::region::watch::Changed;
use crate::region::write::Content;
use crate::report::Progress;
use crate::store::Store;
use crate::store::clock;
use crate::store::entry;
use crate::store::expiry::TOUCHED;
use crate::store::open;
use crate::store::options::Options;
use crate::store::snapshot::Snapshot;

/// A group of records is written when it has so many bytes, or so many records.
const GROUP_BYTES: usize = 1 << 20;
const GROUP_RECORDS: usize = 4096;
/// A file that is shorter is copied by one thread.
const SHORT_FILE: u64 = 4 << 20;
const THREADS_MAX: usize = 8;

/// A record of a store that is about to be copied: see [`Store::copy_chosen_to`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate<'r> {
    /// A record that is found by its id.
    Id {
        /// The id.
        id: u64,
        /// Its bytes.
        data: &'r [u8],
    },
    /// A key of a space.
    Key {
        /// The name of the space.
        space: &'r str,
        /// The key.
        key: &'r [u8],
        /// Its value.
        value: &'r [u8],
    },
}

impl Options {
    /// The geometry and the mode of a store that is there: for [`Store::copy_to`], changed in one point or another.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let twin = Options::like(&store)?.regions(64).create(dir.path().join("twin.rec"))?;
    /// assert_eq!(twin.record_size(), store.record_size());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Forked`].
    pub fn like(store: &Store) -> Result<Self> {
        store.handle.check()?;
        let arena = &store.handle.arena;
        let metadata = arena.file.metadata().map_err(arena.io("looking at the file"))?;
        Ok(Self::of(&arena.geo).mode(metadata.permissions().mode() & 0o777))
    }
}

/// Copying into another geometry.
impl Store {
    /// Copies all records, as they are at one moment during this call, into a new store at `to`, which is created with `options`. Returns
    /// the number of records and keys. Use it to give a store another record size, other regions or another ceiling, and to leave behind
    /// the room that a store has and its records do not need any more. Other processes go on writing.
    ///
    /// The copy appears whole or not at all, is on disk, and is marked clean. It has
    ///
    /// * records and keys with their ids, under new versions: counters, rings, queues and typed records are as they were;
    /// * the deadlines of values, and the clock by which they end; values that were over at the moment are left out;
    /// * the tag of [`typed_tagged`](Self::typed_tagged).
    ///
    /// Pins, reservations and handles are no part of a copy: a job that was claimed at the moment is free in it.
    ///
    /// [`backup`](Self::backup) copies into the same geometry, values that are over included. Both copy a [`snapshot`](Self::snapshot):
    /// while it lives, replaced versions keep their slots. Regions are copied by several threads, 8 at most. A thread needs some MiB of
    /// memory, and 50 bytes for each record of a region.
    ///
    /// ```
    /// # use recstore::{Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// store.space("sessions")?.put("user:7", b"logged in")?;
    /// let wide = dir.path().join("wide.rec");
    /// assert_eq!(store.copy_to(&wide, &Options::like(&store)?.regions(64))?, 2);
    /// let wide = Store::open(wide)?;
    /// assert_eq!(wide.stats()?.regions.len(), 64);
    /// assert_eq!(wide.space("sessions")?.get("user:7")?.unwrap().data(), b"logged in");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::Corrupt`] if a record is damaged: repair the store first, or copy what is whole with
    /// [`salvage`](crate::salvage()); [`Error::RecordTooLong`] and [`Error::EntryTooLong`] if a record does not fit into the
    /// copy; [`Error::Full`]; [`Error::InvalidOption`]; as [`snapshot`](Self::snapshot). After an error there is no copy.
    pub fn copy_to(&self, to: impl AsRef<Path>, options: &Options) -> Result<u64> {
        self.copy(to.as_ref(), options, None::<fn(Candidate<'_>) -> bool>, |_| {})
    }

    /// [`copy_to`](Self::copy_to) of the records for which `choose` returns `true`. It tells its progress after each group of records.
    /// Writing the copy to disk comes last.
    ///
    /// `choose` is called for each record and each key, in no order, by several threads. It may be called again for a key with a time to
    /// live.
    ///
    /// ```
    /// # use recstore::{Candidate, Options, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// store.space("sessions")?.put("user:7", b"logged in")?;
    /// store.space("pages")?.put("/home", b"made")?;
    /// let only = dir.path().join("only.rec");
    /// let is_session = |record: Candidate<'_>| matches!(record, Candidate::Key { space: "sessions", .. });
    /// let copied = store.copy_chosen_to(&only, &Options::like(&store)?, is_session, |at| {
    ///     eprint!("\r{} of {}", at.done, at.total);
    /// })?;
    /// assert_eq!(copied, 1);
    /// assert_eq!(Store::open(only)?.spaces()?, ["sessions"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`copy_to`](Self::copy_to).
    pub fn copy_chosen_to(
        &self,
        to: impl AsRef<Path>,
        options: &Options,
        choose: impl Fn(Candidate<'_>) -> bool + Sync,
        tell: impl FnMut(Progress),
    ) -> Result<u64> {
        self.copy(to.as_ref(), options, Some(choose), tell)
    }

    fn copy(
        &self,
        to: &Path,
        options: &Options,
        choose: Option<impl Fn(Candidate<'_>) -> bool + Sync>,
        mut tell: impl FnMut(Progress),
    ) -> Result<u64> {
        let geo = options.geometry(self.handle.arena.geo.hash_key)?; // Rule 2.
        let mut snapshot = self.snapshot()?;
        snapshot.verify = true; // No damaged record goes into a copy.
        let total = self.len()?;
        let mut copied = 0;
        let fill = |copy: &Store| {
            carry_tag(self, copy)?;
            let copier = Copier {
                snapshot: &snapshot,
                copy,
                choose: choose.as_ref(),
                next: AtomicU32::new(0),
                is_over: AtomicBool::new(false),
            };
            let mut seen = 0;
            copied = copier.fill(self.threads(), |records| {
                seen += records;
                tell(Progress::of(seen, total));
            })?;
            Ok(())
        };
        open::create_with(options, to, &geo, Some(fill))?;
        Ok(copied)
    }

    /// How many threads copy the store.
    fn threads(&self) -> usize {
        if self.handle.arena.map.len() < SHORT_FILE {
            return 1;
        }
        let processors = thread::available_parallelism().map_or(1, usize::from);
        processors.min(THREADS_MAX).min(self.handle.arena.geo.regions as usize)
    }
}

/// Gives a copy, which is not on disk yet, the tag of the records' type.
pub(super) fn carry_tag(from: &Store, copy: &Store) -> Result<()> {
    from.handle.check()?;
    let tag = from.handle.arena.control().type_tag().load(Ordering::SeqCst);
    set_tag(copy, tag);
    Ok(())
}

/// Gives a copy this tag of a type. The copy has no name before it is on disk.
pub(super) fn set_tag(copy: &Store, tag: u64) {
    let control = copy.handle.arena.control();
    control.type_tag().store(tag, Ordering::SeqCst);
    control.durable_tag().store(tag, Ordering::SeqCst);
}

/// Fills a copy.
struct Copier<'a, 's, C> {
    snapshot: &'a Snapshot<'s>,
    copy: &'a Store,
    choose: Option<&'a C>,
    /// The next region that no thread copies.
    next: AtomicU32,
    /// A thread failed.
    is_over: AtomicBool,
}

/// Records that wait to be written.
#[derive(Default)]
struct Waiting {
    data: Vec<u8>,
    records: Vec<WaitingRecord>,
    /// Records and keys among them that programs see.
    counted: u64,
}

struct WaitingRecord {
    id: u64,
    address: Address,
    /// Its bytes in `data`.
    at: Range<usize>,
}

impl<C: Fn(Candidate<'_>) -> bool + Sync> Copier<'_, '_, C> {
    /// Copies all regions. Returns the number of records and keys. `seen` hears how many records were passed since it was called last.
    fn fill(&self, threads: usize, mut seen: impl FnMut(u64)) -> Result<u64> {
        if threads <= 1 {
            return self.fill_alone(&mut seen);
        }
        let (sender, passed) = channel();
        thread::scope(|scope| {
            let start = |_| {
                let sender: Sender<u64> = sender.clone();
                scope.spawn(move || {
                    let filled = self.fill_alone(&mut |records| _ = sender.send(records));
                    if filled.is_err() {
                        self.is_over.store(true, Ordering::Relaxed);
                    }
                    filled
                })
            };
            let threads: Vec<_> = (0..threads).map(start).collect();
            drop(sender);
            passed.iter().for_each(&mut seen);
            let ended = threads.into_iter().map(|thread| match thread.join() {
                Ok(filled) => filled,
                Err(panic) => std::panic::resume_unwind(panic), // That of `choose`.
            });
            // Every thread has ended before the first error is given.
            let ended: Vec<Result<u64>> = ended.collect();
            ended.into_iter().sum()
        })
    }

    /// Copies the regions that no other thread copies.
    fn fill_alone(&self, seen: &mut impl FnMut(u64)) -> Result<u64> {
        let regions = self.snapshot.store.handle.arena.geo.regions;
        let mut waiting = Waiting::default();
        let mut copied = 0;
        loop {
            let region = self.next.fetch_add(1, Ordering::Relaxed);
            if region >= regions || self.is_over.load(Ordering::Relaxed) {
                return Ok(copied);
            }
            let mut passed = 0;
            for place in self.snapshot.places_in(region) {
                let (id, slot, header) = place?;
                self.gather(id, slot, header, &mut waiting)?;
                passed += 1;
                if waiting.data.len() >= GROUP_BYTES || waiting.records.len() >= GROUP_RECORDS {
                    copied += self.write(&mut waiting)?;
                    seen(std::mem::take(&mut passed));
                    if self.is_over.load(Ordering::Relaxed) {
                        return Ok(copied);
                    }
                }
            }
            copied += self.write(&mut waiting)?;
            seen(passed);
        }
    }

    /// Adds a record of the snapshot to those that wait, if it is chosen.
    fn gather(&self, id: u64, slot: u32, header: Header, waiting: &mut Waiting) -> Result<()> {
        let (start, address) = (waiting.data.len(), header.address());
        self.snapshot.copy_behind(id, slot, header, &mut waiting.data)?;
        let data = &waiting.data[start..];
        match address {
            Address::Id => {
                if !self.is_chosen(Candidate::Id { id, data }) {
                    waiting.data.truncate(start);
                    return Ok(());
                }
                waiting.counted += 1;
            }
            Address::Key => {
                let Some(kept) = self.keep_entries(id, data, &mut waiting.counted)? else {
                    waiting.data.truncate(start);
                    return Ok(());
                };
                if let Some(kept) = kept {
                    waiting.data.truncate(start);
                    waiting.data.extend_from_slice(&kept);
                }
            }
        }
        waiting.records.push(WaitingRecord { id, address, at: start..waiting.data.len() });
        Ok(())
    }

    fn is_chosen(&self, candidate: Candidate<'_>) -> bool {
        self.choose.is_none_or(|choose| choose(candidate))
    }

    /// Rule 3. `None`: no entry of the record is kept. `Some(None)`: the record is kept as it is.
    fn keep_entries(&self, id: u64, data: &[u8], counted: &mut u64) -> Result<Option<Option<Vec<u8>>>> {
        let store = self.snapshot.store;
        let mut kept: Vec<Entry<'_>> = Vec::new();
        let mut all = 0;
        for entry in entries(data) {
            let entry = entry.map_err(|NotEntries| store.no_entries(id))?;
            all += 1;
            let name = str::from_utf8(entry.name).map_err(|_| store.no_entries(id))?;
            let is_kept = if keyed::is_hidden(entry.name) {
                self.is_hidden_kept(name, &entry)?
            } else {
                self.is_kept(name, &entry)?
            };
            if is_kept {
                kept.push(entry);
                *counted += u64::from(!keyed::is_hidden(entry.name));
            }
        }
        if kept.is_empty() {
            return Ok(None);
        }
        if kept.len() == all {
            return Ok(Some(None));
        }
        let mut record = Vec::new();
        kept.iter().rev().for_each(|entry| entry.append_to(&mut record));
        Ok(Some(Some(record)))
    }

    /// Whether the entry of a key goes over.
    fn is_kept(&self, space: &str, entry: &Entry<'_>) -> Result<bool> {
        if entry.expiry.is_some() {
            let of = self.snapshot.store.space_of(space);
            if self.snapshot.is_over(&of, entry.key, entry.expiry)? {
                return Ok(false);
            }
        }
        Ok(self.is_chosen(Candidate::Key { space, key: entry.key, value: entry.value }))
    }

    /// Whether an entry of a hidden space goes over: a later deadline whose value does, and the clock.
    fn is_hidden_kept(&self, name: &str, later: &Entry<'_>) -> Result<bool> {
        let Some(space) = name.strip_prefix(TOUCHED) else {
            return Ok(name == clock::SPACE || self.choose.is_none());
        };
        let Some(expiry) = later.expiry.filter(|later| later.at_ms > self.snapshot.now_ms) else {
            return Ok(false);
        };
        let of = self.snapshot.store.space_of(space);
        let id = of.id_of(later.key);
        let mut record = Vec::new();
        if self.snapshot.get_into_of(id, Address::Key, &mut record)?.is_none() {
            return Ok(false);
        }
        let Some(at) = of.find_in(id, &record, later.key)? else { return Ok(false) };
        if at.expiry.is_none_or(|own| own.stamp != expiry.stamp) {
            return Ok(false);
        }
        Ok(self.is_chosen(Candidate::Key { space, key: later.key, value: &record[at.value] }))
    }

    /// Writes the records that wait. Returns the number of records and keys among them.
    fn write(&self, waiting: &mut Waiting) -> Result<u64> {
        let (copy, geo) = (self.copy, &self.copy.handle.arena.geo);
        let mut sorted = Vec::with_capacity(waiting.records.len());
        for (n, record) in waiting.records.iter().enumerate() {
            let len = record.at.len();
            if len > copy.record_size() {
                return Err(self.too_long(record, &waiting.data[record.at.clone()]));
            }
            let hash = copy.check_write(record.id, len)?;
            sorted.push((geo.region_of(hash), hash, n));
        }
        sorted.sort_unstable();
        let hash_of = |n: usize| sorted.get(n).map(|write| write.1);
        copy.ask_for_first(hash_of);
        let mut done = 0;
        for group in sorted.chunk_by(|a, b| a.0 == b.0) {
            let end = done + group.len();
            copy.handle.with_region(group[0].0, Changed::Any, |region| {
                for &(_, hash, n) in &sorted[done..end] {
                    copy.ask_ahead(done, hash_of);
                    let WaitingRecord { id, address, at } = &waiting.records[n];
                    region.put(hash, *id, Content::Bytes(&waiting.data[at.clone()], *address), false)?;
                    done += 1;
                }
                Ok(())
            })?;
        }
        waiting.data.clear();
        waiting.records.clear();
        Ok(std::mem::take(&mut waiting.counted))
    }

    /// The error for a record that does not fit into the copy.
    #[cold]
    fn too_long(&self, record: &WaitingRecord, data: &[u8]) -> Error {
        let len = data.len();
        match (record.address, entries(data).next()) {
            (Address::Key, Some(Ok(last))) => {
                entry::too_long(self.copy, last.name, last.key, last.len(), len - last.len())
            }
            _ => self.copy.too_long(record.id, len),
        }
    }
}
