//! Queues: jobs for the processes that claim them, the oldest first.
//!
//! A queue is a space. Key `next` holds the number of the next job. The key of a job is its number, eight bytes, big-endian. Its value
//! holds the claiming handle, the number of claims, the end of the lease, and the bytes of the job.
//!
//! 1. A push is one batch: the job, and the next number in `next`, on condition that no other push came between. So the numbers have
//!    no gap, and if the job of a number below `next` is absent, it was finished.
//! 2. A claim writes the handle into the first free job, under the lock of the record. So one handle gets the job.
//! 3. A job whose holder is dead is free at once: the kernel says so, and no time-out takes part. A job whose holder lives is free when
//!    its lease is over.
//! 4. Key `first` is a number below which all jobs are finished. A claim raises it behind the jobs that it found absent. It only saves
//!    looks.

use std::mem::offset_of;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::record::{Durability, Version};
use crate::store::Store;
use crate::store::batch::{Batch, Commit};
use crate::store::handle_id::HandleId;
use crate::store::modify::Action;
use crate::store::space::Space;
use crate::store::watch::wait_in_store;

const NEXT: &str = "next";
/// So many numbers are looked at one by one, whatever the store has.
const SPAN: u64 = 1024;
const FIRST: &str = "first";
/// In front of the name of a space: those that queues lie in.
const JOBS: &str = "queue ";
const DEAD: &str = "dead letters ";

/// Jobs for the processes that claim them: see [`Store::queue`].
#[derive(Clone, Debug)]
pub struct Queue<'a> {
    jobs: Space<'a>,
    dead: Space<'a>,
    lease: Option<Duration>,
    claims_max: u32,
}

/// The state of a job, in front of its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct JobState {
    /// The handle that has it; all zeros: none.
    holder: HandleId,
    claims: u32,
    reserved: u32,
    /// When its lease is over, in milliseconds since 1970; 0: never.
    until: u64,
}

const STATE_BYTES: usize = size_of::<JobState>();
/// Bytes of a state that are the same for as long as a claim lasts.
const CLAIM_BYTES: usize = offset_of!(JobState, until);

/// A job that this handle has claimed: see [`Queue::claim`]. Dropping it gives the job back, as [`release`](Self::release) does.
#[derive(Debug)]
pub struct Job<'a> {
    queue: Queue<'a>,
    number: u64,
    state: JobState,
    data: Vec<u8>,
    is_open: bool,
}

/// Queues.
impl Store {
    /// The queue with this name. Any process pushes jobs. Each job is given to one process that claims it.
    ///
    /// If the process of a claim dies, the next claim gets the job at once: the kernel tells that the process is dead, and no time-out
    /// takes part. So a job is done at least once. If the batch that [finishes](Job::finish_in) the job also writes its result, the store
    /// has the result exactly once.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?;
    /// mails.push(b"to all")?;
    /// // In any process:
    /// while let Some(job) = mails.claim(Some(Duration::ZERO))? {
    ///     println!("sending {:?}", job.data());
    ///     job.finish()?;
    /// }
    /// assert!(mails.is_empty()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`space`](Self::space).
    pub fn queue(&self, name: &str) -> Result<Queue<'_>> {
        Ok(Queue {
            jobs: self.space(&format!("{JOBS}{name}"))?,
            dead: self.space(&format!("{DEAD}{name}"))?,
            lease: None,
            claims_max: u32::MAX,
        })
    }
}

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl<'a> Queue<'a> {
    /// The time after which a claim ends although its process lives. Then the next claim gets the job. [`Job::heartbeat`] begins the time
    /// anew. Without a lease, a claim lasts as long as its process. The clock is the wall clock: if it jumps ahead, claims end early.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?.lease(Duration::from_secs(60));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// The maximum number of claims of a job. The next claim puts the job to the [dead letters](Self::dead_letters).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?.claims_max(1);
    /// let number = mails.push(b"poison")?;
    /// drop(mails.claim(None)?); // whoever does it fails
    /// assert!(mails.claim(Some(Duration::ZERO))?.is_none());
    /// assert_eq!(mails.dead_letters()?, [(number, b"poison".to_vec())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn claims_max(mut self, claims: u32) -> Self {
        self.claims_max = claims.max(1);
        self
    }

    fn store(&self) -> &'a Store {
        self.jobs.store
    }

    /// Adds a job, with the handle's durability; its number. Numbers rise: a job whose push had returned before another push
    /// began has the lower one, and is given out before it.
    ///
    /// A batch of two records; one try more for each push that is made at the same time.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?;
    /// assert_eq!(mails.push(b"first")?, 0);
    /// assert_eq!(mails.push(b"second")?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Batch::put_in`] and [`Batch::commit`].
    pub fn push(&self, data: impl AsRef<[u8]>) -> Result<u64> {
        self.push_with(data, self.store().handle.durability)
    }

    /// [`push`](Self::push) with the durability of this one job.
    ///
    /// ```
    /// # use recstore::{Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.queue("mails")?.push_with(b"not to be lost", Durability::Disk)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_with(&self, data: impl AsRef<[u8]>, durability: Durability) -> Result<u64> {
        loop {
            let mut batch = self.store().batch();
            let number = self.push_in(&mut batch, data.as_ref())?;
            if let Commit::Done(_) = batch.commit_with(durability)? {
                return Ok(number);
            }
        }
    }

    /// Makes a push a part of a batch, and returns the job's number. The commit is a conflict if another push is faster.
    ///
    /// ```
    /// # use recstore::{Commit, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let (mails, users) = (store.queue("mails")?, store.space("users")?);
    /// // A user who is there has a mail that is on its way.
    /// loop {
    ///     let mut batch = store.batch();
    ///     batch.put_in(&users, "7", b"new")?;
    ///     mails.push_in(&mut batch, b"welcome, 7")?;
    ///     if let Commit::Done(_) = batch.commit()? {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(mails.len()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Batch::put_in`].
    pub fn push_in(&self, batch: &mut Batch<'_>, data: impl AsRef<[u8]>) -> Result<u64> {
        let pushed =
            batch.last_put_in(&self.jobs, NEXT).map(|data| self.number_of(NEXT, data)).transpose()?;
        let (next, version) = match pushed {
            Some(next) => (next, None), // The second push of the batch.
            None => self.number_in(NEXT)?,
        };
        // A loss of power may take the last pushes back, but not the end of their jobs.
        let number = next.max(self.number_in(FIRST)?.0);
        let after = number.checked_add(1).ok_or_else(|| self.no_queue(NEXT.as_bytes()))?;
        if pushed.is_none() {
            batch.require_in(&self.jobs, NEXT, version)?;
        }
        batch.put_in(&self.jobs, NEXT, after.to_le_bytes().to_vec())?;
        let job = [bytemuck::bytes_of(&JobState::default()), data.as_ref()].concat();
        batch.put_in(&self.jobs, key(number), job)?;
        Ok(number)
    }

    /// The number under a key, and the key's version.
    fn number_in(&self, key: &str) -> Result<(u64, Option<Version>)> {
        let mut data = Vec::new();
        let version = self.jobs.get_into(key, &mut data)?;
        if version.is_none() {
            return Ok((0, None));
        }
        Ok((self.number_of(key, &data)?, version))
    }

    /// The numbers of `first..next` that jobs may have, in order. If these are more than the store has records, nearly all of
    /// them are finished, or a number is wrong. Then the space is looked through, in O(records of the store).
    fn numbers(&self, first: u64, next: u64) -> Result<Box<dyn Iterator<Item = u64>>> {
        let span = next.saturating_sub(first);
        if span <= SPAN || span <= self.store().len()?.saturating_add(SPAN) {
            return Ok(Box::new(first..next));
        }
        let mut found = Vec::new();
        for entry in self.jobs.iter() {
            let number = <[u8; 8]>::try_from(entry?.0).map(u64::from_be_bytes);
            found.extend(number.ok().filter(|number| (first..next).contains(number)));
        }
        found.sort_unstable();
        Ok(Box::new(found.into_iter()))
    }

    fn number_of(&self, key: &str, data: &[u8]) -> Result<u64> {
        data.try_into().map(u64::from_le_bytes).map_err(|_| self.no_queue(key.as_bytes()))
    }

    #[cold]
    fn no_queue(&self, key: &[u8]) -> Error {
        let path = self.store().path().to_path_buf();
        let what =
            format!("key \"{}\" of space {:?} is none of a queue", key.escape_ascii(), self.jobs.name());
        Error::TypeMismatch { path, what }
    }

    /// Claims the oldest free job, and waits for one (`None`: as long as it takes). Returns `None` if none comes within the time.
    ///
    /// Looks at each job that others have claimed and that is older than the first free one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?;
    /// mails.push(b"first")?;
    /// mails.push(b"second")?;
    /// let job = mails.claim(None)?.expect("a job");
    /// assert_eq!((job.number(), job.data()), (0, &b"first"[..]));
    /// let other = mails.claim(None)?.expect("another job");
    /// assert_eq!(other.number(), 1);
    /// assert!(mails.claim(Some(Duration::ZERO))?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::update`] and [`Store::watch`]; [`Error::TypeMismatch`] if something else was written into the queue's space.
    pub fn claim(&self, timeout: Option<Duration>) -> Result<Option<Job<'a>>> {
        self.store().handle.check_writable()?;
        wait_in_store(self.store(), timeout, || self.try_claim())
    }

    fn try_claim(&self) -> Result<Option<Job<'a>>> {
        let (first, _) = self.number_in(FIRST)?;
        let (next, _) = self.number_in(NEXT)?;
        let mut oldest = None;
        let mut claimed = None;
        for number in self.numbers(first, next)? {
            let Some(job) = self.look(number)? else { continue };
            oldest.get_or_insert(number);
            let JobIs::Free(state) = job else { continue };
            if state.claims >= self.claims_max {
                self.bury(number)?;
            } else if let Some(job) = self.take(number)? {
                claimed = Some(job);
                break;
            }
        }
        // Absent jobs are finished for good: see 1.
        let oldest = oldest.unwrap_or(next);
        if oldest > first {
            self.jobs.update(FIRST, |old| {
                let old = old.and_then(|old| old.try_into().ok()).map_or(0, u64::from_le_bytes);
                (old < oldest).then(|| oldest.to_le_bytes())
            })?;
        }
        Ok(claimed)
    }

    /// The state of a job now; `None`: it is finished.
    fn look(&self, number: u64) -> Result<Option<JobIs>> {
        let mut data = Vec::new();
        if self.jobs.get_into(key(number), &mut data)?.is_none() {
            return Ok(None);
        }
        let state = self.state_of(number, &data)?;
        Ok(Some(if self.is_free(&state)? { JobIs::Free(state) } else { JobIs::Held }))
    }

    fn state_of(&self, number: u64, data: &[u8]) -> Result<JobState> {
        let state = data.get(..STATE_BYTES).ok_or_else(|| self.no_queue(&key(number)))?;
        Ok(bytemuck::pod_read_unaligned(state))
    }

    /// Whether a job is free.
    fn is_free(&self, state: &JobState) -> Result<bool> {
        let is_over = state.until != 0 && state.until <= now_ms();
        Ok(is_over || state.holder == HandleId::default() || !self.store().is_alive(state.holder)?)
    }

    /// A lease that begins now.
    fn until(&self) -> u64 {
        let Some(lease) = self.lease else { return 0 };
        now_ms().saturating_add(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)).max(1)
    }

    /// Claims a job, unless another handle was faster.
    fn take(&self, number: u64) -> Result<Option<Job<'a>>> {
        let me = self.store().holder()?;
        let taken = self.jobs.modify(key(number), |old| {
            let Some(old) = old else { return Ok::<_, Error>((Action::Keep, None)) };
            let before = self.state_of(number, old)?;
            if !self.is_free(&before)? {
                return Ok((Action::Keep, None));
            }
            let claims = before.claims.saturating_add(1);
            let state = JobState { holder: me, until: self.until(), claims, reserved: 0 };
            let data = old[STATE_BYTES..].to_vec();
            Ok((Action::Put([bytemuck::bytes_of(&state), &data].concat()), Some((state, data))))
        })?;
        Ok(taken.map(|(state, data)| Job { queue: self.clone(), number, state, data, is_open: true }))
    }

    /// Puts a job that was claimed too often to the dead letters, unless another handle was faster.
    fn bury(&self, number: u64) -> Result<()> {
        let mut data = Vec::new();
        let Some(version) = self.jobs.get_into(key(number), &mut data)? else { return Ok(()) };
        let state = self.state_of(number, &data)?;
        if state.claims < self.claims_max || !self.is_free(&state)? {
            return Ok(());
        }
        let mut batch = self.store().batch();
        batch.require_in(&self.jobs, key(number), Some(version))?;
        batch.delete_in(&self.jobs, key(number))?;
        batch.put_in(&self.dead, key(number), data[STATE_BYTES..].to_vec())?;
        let _ = batch.commit()?;
        Ok(())
    }

    /// Number of jobs that are not finished, claimed or not. Dead letters do not count. Looks at each job.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?;
    /// mails.push(b"first")?;
    /// let job = mails.claim(None)?.expect("a job");
    /// assert_eq!(mails.len()?, 1);
    /// job.finish()?;
    /// assert_eq!(mails.len()?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn len(&self) -> Result<u64> {
        let (first, next) = (self.number_in(FIRST)?.0, self.number_in(NEXT)?.0);
        let mut count = 0;
        for number in self.numbers(first, next)? {
            count += u64::from(self.jobs.contains(key(number))?);
        }
        Ok(count)
    }

    /// Whether all jobs are finished.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(store.queue("mails")?.is_empty()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The jobs that were claimed too often, with their numbers, in order: see [`claims_max`](Self::claims_max).
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(store.queue("mails")?.dead_letters()?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub fn dead_letters(&self) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut dead = Vec::new();
        for found in self.dead.iter() {
            let (key, record) = found?;
            let number = key[..].try_into().map(u64::from_be_bytes).map_err(|_| self.no_queue(&key))?;
            dead.push((number, record.into_data()));
        }
        dead.sort_unstable();
        Ok(dead)
    }

    /// Puts a dead letter to the end of the queue, as a new job. Returns its new number, or `None` if there is no such dead letter.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?.claims_max(1);
    /// let number = mails.push(b"poison")?;
    /// drop(mails.claim(None)?);
    /// assert!(mails.claim(Some(Duration::ZERO))?.is_none());
    /// assert_eq!(mails.revive(number)?, Some(1));
    /// assert_eq!(mails.claim(None)?.unwrap().data(), b"poison");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn revive(&self, dead: u64) -> Result<Option<u64>> {
        loop {
            let Some(record) = self.dead.get(key(dead))? else { return Ok(None) };
            let mut batch = self.store().batch();
            batch.require_in(&self.dead, key(dead), Some(record.version()))?;
            batch.delete_in(&self.dead, key(dead))?;
            let number = self.push_in(&mut batch, record.data())?;
            if let Commit::Done(_) = batch.commit()? {
                return Ok(Some(number));
            }
        }
    }
}

/// The result of a look at a job.
enum JobIs {
    /// It is free.
    Free(JobState),
    /// A handle has it.
    Held,
}

impl Job<'_> {
    /// Its number in the queue.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let number = store.queue("mails")?.push(b"first")?;
    /// assert_eq!(store.queue("mails")?.claim(None)?.unwrap().number(), number);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The bytes that were pushed.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.queue("mails")?.push(b"first")?;
    /// assert_eq!(store.queue("mails")?.claim(None)?.unwrap().data(), b"first");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The number of its claims, this one included.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?;
    /// mails.push(b"first")?;
    /// mails.claim(None)?.unwrap().release()?;
    /// assert_eq!(mails.claim(None)?.unwrap().claims(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn claims(&self) -> u32 {
        self.state.claims
    }

    /// The beginning of the job's value while it is this claim's: heartbeats do not change it.
    fn claim(&self) -> &[u8] {
        &bytemuck::bytes_of(&self.state)[..CLAIM_BYTES]
    }

    /// Calls `change` for the job, if it is still this claim's. Returns whether it was.
    fn change(&self, change: impl FnOnce(JobState, &[u8]) -> Action<Vec<u8>>) -> Result<bool> {
        self.queue.jobs.modify(key(self.number), |old| {
            Ok(match old {
                Some(old) if old.len() >= STATE_BYTES && old.starts_with(self.claim()) => {
                    (change(self.state, &old[STATE_BYTES..]), true)
                }
                _ => (Action::Keep, false),
            })
        })
    }

    /// Begins the lease anew. Returns whether the job is still this claim's. Without a [lease](Queue::lease) it is this claim's as long as
    /// the handle is attached.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?.lease(Duration::from_secs(60));
    /// mails.push(b"first")?;
    /// let job = mails.claim(None)?.expect("a job");
    /// assert!(job.heartbeat()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn heartbeat(&self) -> Result<bool> {
        let until = self.queue.until();
        self.change(|state, data| {
            Action::Put([bytemuck::bytes_of(&JobState { until, ..state }), data].concat())
        })
    }

    /// Removes the job, which is done. Returns whether it was still this claim's. If not, another handle got it when the lease was over.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?;
    /// mails.push(b"first")?;
    /// assert!(mails.claim(None)?.unwrap().finish()?);
    /// assert!(mails.is_empty()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::delete`]. The job is still claimed then.
    pub fn finish(mut self) -> Result<bool> {
        self.end()
    }

    /// [`finish`](Self::finish) that may be called again after an error.
    pub(crate) fn end(&mut self) -> Result<bool> {
        let was_mine = self.change(|_, _| Action::Delete)?;
        self.is_open = false;
        Ok(was_mine)
    }

    /// Makes the end of the job a part of a batch. The other writes of the batch, such as the job's result, appear when the job is gone,
    /// and not before. They are made once, even if processes die. If the job is not this claim's any more, the commit is a conflict.
    ///
    /// ```
    /// # use recstore::{Commit, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let (sums, results) = (store.queue("sums")?, store.space("results")?);
    /// sums.push([1, 2, 3])?;
    /// let job = sums.claim(None)?.expect("a job");
    /// let mut batch = store.batch();
    /// batch.put_in(&results, job.number().to_string(), vec![job.data().iter().sum()])?;
    /// job.finish_in(&mut batch)?;
    /// assert!(matches!(batch.commit()?, Commit::Done(_)));
    /// assert_eq!(results.get("0")?.unwrap().data(), [6]);
    /// assert!(sums.is_empty()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Batch::require_in`].
    pub fn finish_in(&self, batch: &mut Batch<'_>) -> Result<()> {
        batch.require_beginning(&self.queue.jobs, &key(self.number), self.claim())?;
        batch.delete_in(&self.queue.jobs, key(self.number))
    }

    /// Gives the job back: the next claim gets it. Returns whether it was still this claim's.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mails = store.queue("mails")?;
    /// mails.push(b"first")?;
    /// assert!(mails.claim(None)?.unwrap().release()?);
    /// assert!(mails.claim(None)?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::update`]. The job is still claimed then.
    pub fn release(mut self) -> Result<bool> {
        self.give_up()
    }

    /// [`release`](Self::release) that may be called again after an error.
    pub(crate) fn give_up(&mut self) -> Result<bool> {
        let was_mine = self.give_back()?;
        self.is_open = false;
        Ok(was_mine)
    }

    fn give_back(&self) -> Result<bool> {
        self.change(|state, data| {
            let free = JobState { holder: HandleId::default(), until: 0, ..state };
            Action::Put([bytemuck::bytes_of(&free), data].concat())
        })
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        // If the job can't be given back now, it is free when the handle is gone.
        if self.is_open {
            let _ = self.give_back();
        }
    }
}
