//! What a workload does, and doing it under the recorder.

use std::cell::Cell;
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use recstore::{Commit, Durability, Error, Store, testing};

use crate::layout::{Layout, PINNED};
use crate::oracle::State;
use crate::recorder::{self, Entry, Flush, note};

/// One thing that a workload does.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Put(u64, usize),
    /// A put that is durable when it returns.
    PutDurable(u64, usize),
    Many(Vec<(u64, usize)>),
    /// An atomic batch: no id twice; a record without a length is deleted.
    Batch(Vec<(u64, Option<usize>)>),
    Delete(u64),
    /// A sync; and what another handle does in the middle of its flush.
    Sync(Vec<Op>),
    /// A sync whose flush fails. No later one is believed until the store is opened anew.
    SyncFails,
    /// The handle goes, after a `close` or without, and comes again.
    Reopen {
        closed: bool,
    },
    /// From here on a handle may have pinned an epoch, until somebody looks.
    PinHint,
    /// A backup; and what another handle does before it is done.
    Backup(Vec<Op>),
    /// A put whose record is written in place, with other things done before it is committed, or is
    /// given up.
    Reserve {
        id: u64,
        len: usize,
        meanwhile: Vec<Op>,
        commit: bool,
    },
    /// Things done while a reader borrows records.
    Pinned(Vec<Op>),
    /// What another handle does, which dies at a step of it; and whether the next owner of its regions fails before it has looked at
    /// the slots, and a sync comes after that.
    Dies {
        op: Box<Op>,
        at: usize,
        healer_fails: bool,
    },
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(id, len) => write!(f, "put {id} ({len})"),
            Self::PutDurable(id, len) => write!(f, "put {id} ({len}) durably"),
            Self::Many(writes) => write!(f, "write many {writes:?}"),
            Self::Batch(changes) => write!(f, "batch {changes:?}"),
            Self::Delete(id) => write!(f, "delete {id}"),
            Self::SyncFails => f.write_str("sync, which fails"),
            Self::Sync(meanwhile) if meanwhile.is_empty() => f.write_str("sync"),
            Self::Sync(meanwhile) => write!(f, "sync, and meanwhile {meanwhile:?}"),
            Self::Reopen { closed: true } => f.write_str("close, open"),
            Self::Reopen { closed: false } => f.write_str("drop, open"),
            Self::PinHint => f.write_str("hint of a pin"),
            Self::Backup(meanwhile) => write!(f, "backup, and meanwhile {meanwhile:?}"),
            Self::Reserve { id, len, meanwhile, commit } => {
                let end = if *commit { "commit" } else { "give up" };
                write!(f, "reserve {id} ({len}), {meanwhile:?}, {end}")
            }
            Self::Pinned(inner) => write!(f, "under a pin: {inner:?}"),
            Self::Dies { op, at, healer_fails: false } => write!(f, "dead at step {at} of: {op:?}"),
            Self::Dies { op, at, healer_fails: true } => {
                write!(f, "dead at step {at} of: {op:?}; the healer fails, sync")
            }
        }
    }
}

impl Op {
    /// The ids that it writes to.
    fn ids(&self) -> Vec<u64> {
        match self {
            Self::Put(id, _) | Self::PutDurable(id, _) | Self::Delete(id) | Self::Reserve { id, .. } => {
                vec![*id]
            }
            Self::Many(writes) => writes.iter().map(|write| write.0).collect(),
            Self::Batch(changes) => changes.iter().map(|change| change.0).collect(),
            _ => vec![],
        }
    }
}

/// Gives out values, no two of them alike (but for the shortest).
#[derive(Clone, Default)]
pub(crate) struct Values(Rc<Cell<u64>>);

impl Values {
    pub(crate) fn next(&self, len: usize) -> Rc<[u8]> {
        let counter = self.0.get() + 1;
        self.0.set(counter);
        let mut state = counter;
        let mut byte = |i: usize| {
            if i < 8 {
                return counter.to_le_bytes()[i];
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8 | 1 // No sector of a value is all zeros.
        };
        (0..len).map(&mut byte).collect()
    }
}

/// Opens the store. One with several regions is recovered by several threads, of which the recorder
/// sees one: with one processor to run on there is but one.
pub(crate) fn open(path: &Path, layout: &Layout) -> recstore::Result<Store> {
    let this = Pid::from_raw(0);
    let before = if layout.regions > 1 { sched_getaffinity(this).ok() } else { None };
    if let (Some(_), Ok(cpu)) = (&before, sched_getcpu()) {
        let mut one = CpuSet::new();
        let _ = one.set(cpu);
        let _ = sched_setaffinity(this, &one);
    }
    let store = Store::open(path);
    if let Some(before) = before {
        let _ = sched_setaffinity(this, &before);
    }
    store
}

/// What was recorded, and what went wrong by itself.
pub(crate) struct Life {
    pub(crate) entries: Vec<Entry>,
    pub(crate) error: Option<String>,
}

/// Opens the store at `path`, does everything, and lets go of it.
pub(crate) fn live(path: &Path, layout: &Layout, ids: u64, ops: &[Op], values: &Values) -> Life {
    recorder::start(path);
    let error = Workload { path, layout, ids, values }.run(ops).err();
    Life { entries: recorder::stop(), error }
}

struct Workload<'a> {
    path: &'a Path,
    layout: &'a Layout,
    ids: u64,
    values: &'a Values,
}

impl Workload<'_> {
    fn run(&self, ops: &[Op]) -> Result<(), String> {
        let (mut store, mut other) = (self.open()?, None);
        let mut failed = false; // A flush has failed, and the store was not opened anew.
        for (n, op) in ops.iter().enumerate() {
            note(Entry::Operation(n));
            let by_another = matches!(op, Op::Sync(inner) | Op::Backup(inner) if !inner.is_empty());
            if by_another && other.is_none() {
                let opened = open(self.path, self.layout).map_err(|e| format!("a second handle: {e}"))?;
                other = Some(Rc::new(opened));
            }
            let done = match op {
                Op::Reopen { closed } => {
                    other = None;
                    let closing = self.leave(store, *closed, failed);
                    if failed {
                        note(Entry::MemoryDoubted);
                    }
                    store = self.open()?;
                    failed = false;
                    closing
                }
                Op::SyncFails => {
                    recorder::next_flush_fails();
                    let synced = store.sync();
                    // After a clean close, with nothing written since, there is nothing to flush.
                    failed |= recorder::has_failed();
                    if failed { must_fail(synced) } else { synced.map_err(|e| e.to_string()) }
                }
                Op::Sync(_) if failed => must_fail(store.sync()),
                Op::Sync(inner) => sync(&store, other.as_ref(), inner, self.values),
                Op::Backup(inner) => backup(&store, other.as_ref(), inner, self.values, self.ids),
                Op::PinHint => hint(self.path).map_err(|e| e.to_string()),
                Op::Dies { op, at, healer_fails } => self.die(&store, op, *at, *healer_fails && !failed),
                _ => write(&store, op, self.values),
            };
            recorder::reset_flush();
            done.map_err(|e| format!("operation {n}, {op:?}: {e}"))?;
        }
        Ok(())
    }

    fn leave(&self, store: Store, closed: bool, failed: bool) -> Result<(), String> {
        if !closed {
            drop(store);
            return Ok(());
        }
        if failed {
            return must_fail(store.close());
        }
        note(Entry::SyncBegins);
        store.close().map_err(|e| e.to_string())?;
        note(Entry::SyncReturned);
        Ok(())
    }

    /// A handle of its own does `op`, and dies at the n-th step. What is read after that is final: it is read again when others have
    /// written there.
    fn die(&self, store: &Store, op: &Op, at: usize, healer_fails: bool) -> Result<(), String> {
        let writer = open(self.path, self.layout).map_err(|e| format!("a handle that is to die: {e}"))?;
        recorder::die_at(at);
        let done = write(&writer, op, self.values);
        drop(writer);
        if !recorder::bury(self.path) {
            return done;
        }
        let look = |ids: &[u64]| {
            let found = look(store, ids.iter().copied()).map_err(|e| format!("after a death: {e}"))?;
            note(Entry::Refused(found));
            Ok::<_, String>(())
        };
        let ids = op.ids();
        look(&ids)?;
        let others: Vec<u64> = (0..self.ids).filter(|id| !ids.contains(id)).collect();
        let overwrite = |ids: &[u64]| {
            ids.iter().try_for_each(|&id| {
                let bytes = self.values.next(1);
                note(Entry::Begin(id, State::Value { bytes: bytes.clone(), version: None }));
                match store.put(id, &bytes) {
                    Ok(version) => note(Entry::Acknowledge(id, Some(version.get()))),
                    Err(_) => look(&[id])?,
                }
                Ok::<_, String>(())
            })
        };
        if healer_fails {
            testing::fail_surveys(true);
            overwrite(if others.is_empty() { &ids } else { &others })?;
            note(Entry::SyncBegins);
            if store.sync().is_ok() {
                note(Entry::SyncReturned);
            }
            testing::fail_surveys(false);
        }
        overwrite(&others)?;
        look(&ids)
    }

    fn open(&self) -> Result<Store, String> {
        let store = open(self.path, self.layout).map_err(|e| format!("opening: {e}"))?;
        note(Entry::Look(look(&store, 0..self.ids).map_err(|e| format!("reading after opening: {e}"))?));
        Ok(store)
    }
}

/// Sets the hint that some handle may have pinned an epoch, as a handle does that pins one.
fn hint(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut word = [0; 8];
    file.read_exact_at(&mut word, PINNED as u64)?;
    let raised = u64::from_le_bytes(word).wrapping_add(2) | 1;
    file.write_all_at(&raised.to_le_bytes(), PINNED as u64)
}

/// What every record is now.
pub(crate) fn look(store: &Store, ids: impl Iterator<Item = u64>) -> recstore::Result<Vec<(u64, State)>> {
    ids.map(|id| Ok((id, State::of(store.get(id)?.as_ref())))).collect()
}

/// A flush failed, so this one is not to be believed.
fn must_fail(synced: recstore::Result<()>) -> Result<(), String> {
    match synced {
        Err(Error::FlushFailed { .. }) => Ok(()),
        other => Err(format!("a flush has failed, and this gave {other:?}")),
    }
}

fn sync(store: &Store, other: Option<&Rc<Store>>, inner: &[Op], values: &Values) -> Result<(), String> {
    note(Entry::SyncBegins);
    let done = meanwhile(Flush::Recorded, other, inner, values);
    store.sync().map_err(|e| e.to_string())?;
    note(Entry::SyncReturned);
    done.replace(Ok(()))
}

fn backup(
    store: &Store,
    other: Option<&Rc<Store>>,
    inner: &[Op],
    values: &Values,
    ids: u64,
) -> Result<(), String> {
    let copy = store.path().with_extension("copy");
    let _ = std::fs::remove_file(&copy);
    let as_bytes =
        |found: Vec<(u64, State)>| -> Vec<_> { found.into_iter().map(|(id, s)| (id, s.bytes())).collect() };
    // A write that a dead process had under way is there or not from here on.
    store.verify().map_err(|e| e.to_string())?;
    let before = as_bytes(look(store, 0..ids).map_err(|e| e.to_string())?);
    let done = meanwhile(Flush::Other, other, inner, values);
    match store.backup(&copy) {
        Ok(_) => {}
        Err(Error::Full { .. }) => return done.replace(Ok(())),
        Err(e) => return Err(e.to_string()),
    }
    let copied = Store::open_read_only(&copy).and_then(|copy| look(&copy, 0..ids));
    let copied = as_bytes(copied.map_err(|e| format!("reading the copy: {e}"))?);
    if copied != before {
        return Err(format!("the copy has {copied:?}, the store had {before:?}"));
    }
    done.replace(Ok(()))
}

/// Has the other handle do all this in the middle of the flush that comes; how it went.
fn meanwhile(
    flush: Flush,
    other: Option<&Rc<Store>>,
    ops: &[Op],
    values: &Values,
) -> Rc<Cell<Result<(), String>>> {
    let done = Rc::new(Cell::new(Ok(())));
    if let (Some(other), false) = (other, ops.is_empty()) {
        let (other, ops, values, result) = (other.clone(), ops.to_vec(), values.clone(), done.clone());
        recorder::during_next(flush, move || {
            let write =
                |op: &Op| write(&other, op, &values).map_err(|e| format!("{op:?} during the flush: {e}"));
            result.set(ops.iter().try_for_each(write));
        });
    }
    done
}

/// Does what changes records. A full store is no error; what came of the writes is looked at.
fn write(store: &Store, op: &Op, values: &Values) -> Result<(), String> {
    let begin = |id: u64, len: usize| {
        let bytes = values.next(len);
        note(Entry::Begin(id, State::Value { bytes: bytes.clone(), version: None }));
        bytes
    };
    let (ids, done) = match op {
        Op::Put(id, len) | Op::PutDurable(id, len) => {
            let durable = matches!(op, Op::PutDurable(..));
            let bytes = begin(*id, *len);
            let how = if durable { Durability::Disk } else { Durability::Process };
            let done = store.put_with(*id, &bytes, how).map(|version| {
                note(Entry::Acknowledge(*id, Some(version.get())));
                if durable {
                    note(Entry::Durable(*id));
                }
            });
            (vec![*id], done)
        }
        Op::Many(writes) => {
            let bytes: Vec<_> = writes.iter().map(|&(id, len)| (id, begin(id, len))).collect();
            let done = store.write_many(bytes.iter().map(|(id, b)| (*id, &b[..]))).map(|_| {
                writes.iter().for_each(|&(id, _)| note(Entry::Acknowledge(id, None)));
            });
            (writes.iter().map(|w| w.0).collect(), done)
        }
        Op::Batch(changes) => {
            let mut batch = store.batch();
            for &(id, len) in changes {
                match len {
                    Some(len) => batch.put(id, begin(id, len).to_vec()).map_err(|e| e.to_string())?,
                    None => {
                        note(Entry::Begin(id, State::Absent));
                        batch.delete(id);
                    }
                }
            }
            let ids: Vec<u64> = changes.iter().map(|change| change.0).collect();
            note(Entry::Batch(ids.clone()));
            let done = batch.commit().map(|commit| match commit {
                Commit::Done(versions) => {
                    let of = |id| versions.iter().find(|v| v.0 == id).map(|v| v.1.get());
                    ids.iter().for_each(|&id| note(Entry::Acknowledge(id, of(id))));
                }
                Commit::Conflict { .. } => unreachable!("no condition was set"),
            });
            (ids, done)
        }
        Op::Delete(id) => {
            note(Entry::Begin(*id, State::Absent));
            (vec![*id], store.delete(*id).map(|_| note(Entry::Acknowledge(*id, None))))
        }
        Op::Reserve { id, len, meanwhile, commit } => (
            vec![*id],
            match store.reserve(*id, *len) {
                Ok(mut room) => {
                    meanwhile.iter().try_for_each(|op| write(store, op, values))?;
                    if *commit {
                        room.write_at(0, &begin(*id, *len))
                            .and_then(|()| room.commit())
                            .map(|version| note(Entry::Acknowledge(*id, Some(version.get()))))
                    } else {
                        Ok(())
                    }
                }
                Err(e) => Err(e),
            },
        ),
        Op::Pinned(inner) => {
            let pin = store.pin().map_err(|e| e.to_string())?;
            inner.iter().try_for_each(|op| write(store, op, values))?;
            drop(pin);
            (vec![], Ok(()))
        }
        Op::Sync(_) | Op::SyncFails | Op::Backup(_) | Op::Reopen { .. } | Op::PinHint | Op::Dies { .. } => {
            (vec![], Ok(()))
        }
    };
    match done {
        // Where a flush failed before, a durable write is done, and said not to be durable.
        Err(Error::Full { .. } | Error::FlushFailed { .. }) => {
            let found = look(store, ids.into_iter()).map_err(|e| format!("reading afterwards: {e}"))?;
            note(Entry::Refused(found));
            Ok(())
        }
        Err(e) => Err(e.to_string()),
        Ok(()) => Ok(()),
    }
}
