//! A mirror: keeps another place equal to the store, while others write to it.
//!
//! The mirror compares states and keeps no log and no cursor. So the first copy, a start after a crash and the healing of what the place
//! lost are one thing.
//!
//! 1. A lock on a file beside the store (`flock`) lets one mirror of a place run. The kernel releases it with the process.
//! 2. The mirror opens a feed of the store, and then lists what the place has, with the versions. Each record that the feed tells with
//!    another version than the place has is *due*. When the feed has caught up, the records that the place has and the store has
//!    not are due too.
//!    The same goes for a value whose time to live has ended, by the clock of the store: no write tells of that, so the mirror keeps the
//!    deadlines. What the feed has told, and an error kept from being heard, is heard first by the next step.
//! 3. Each wave takes due keys, reads the newest record of each, and then calls `sync`. The reads come first. So nothing goes out that a
//!    loss of power could undo here.
//! 4. The place makes the writes, each if the key is at the revision that the mirror knows, and the mirror waits for all answers. So one
//!    write of a key is under way at a time.
//! 5. A key with a failed or unknown write, or one without an answer, is *unsure*: the mirror reads its state at the place, and compares it with the store as it is
//!    then. So an old record is never sent again.
//! 6. From time to time the mirror asks for changes at the place that it did not make: late writes of a dead mirror, writes of others,
//!    a place that was emptied. Such keys are compared again, and if need be everything is (step 2).

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::error::Error as StdError;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::iter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use siphasher::sip::SipHasher13;

use crate::error::Error;
use crate::record::Record;
use crate::store::Store;
use crate::store::mirror_source::{Feed, FeedItem, Source};
use crate::store::sink::{Answer, Foreign, KeyState, RecordKey, Sink, Wanted};
use crate::sys::step::step;

/// Records of a wave.
const WAVE_RECORDS: usize = 1024;
/// Bytes of the records of a wave; one record may be larger.
const WAVE_BYTES: usize = 4 << 20;
/// Marks of deleted records whose revisions are kept. For others the place is asked.
const MARKS_KEPT: usize = 1 << 16;
/// A call that only compares ends after this time.
const STEP_ENDS_AFTER: Duration = Duration::from_millis(100);
/// Between two questions for changes by others.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The longest wait for a flush within one call.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);
/// A value that is there after its deadline is looked at again after this time.
const DEADLINE_AGAIN: Duration = Duration::from_millis(200);
/// Bytes of the name of a place in the name of the file of its lock.
const LABEL_BYTES_MAX: usize = 100;
/// Lags that the percentiles are made of.
const LAGS_KEPT: usize = 4096;

/// The reason why a call of a mirror failed: see [`Mirror::start`].
#[derive(Debug)]
#[non_exhaustive]
pub enum MirrorError<E> {
    /// The store refused.
    Store(Error),
    /// The place can't be reached, or refuses the mirror.
    Sink(E),
    /// Another mirror keeps this place. It has the lock of the file.
    Running {
        /// The file.
        path: PathBuf,
        /// The process id that the other mirror wrote there.
        pid: Option<u32>,
    },
    /// The file of the lock can't be used.
    Lock {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
}

impl<E: fmt::Display> fmt::Display for MirrorError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Sink(error) => error.fmt(f),
            Self::Running { path, pid } => {
                let who = pid.map_or("another process".into(), |pid| format!("process {pid}"));
                write!(f, "{}: {who} is mirroring to this place; end it first", path.display())
            }
            Self::Lock { path, error } => write!(
                f,
                "{}: the lock of the mirror: {error}; the directory of the store must be writable",
                path.display()
            ),
        }
    }
}

/// The text is the whole message, so there is no source, as for [`Error`].
impl<E: fmt::Debug + fmt::Display> StdError for MirrorError<E> {}

impl<E> From<Error> for MirrorError<E> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// The numbers of a mirror: see [`Mirror::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MirrorStats {
    /// Records that the place has.
    pub records: u64,
    /// Records that are known to differ, and are not sent yet.
    pub due: u64,
    /// Records sent and acknowledged.
    pub sent: u64,
    /// Deletions sent and acknowledged.
    pub deleted: u64,
    /// Bytes of the records sent.
    pub bytes: u64,
    /// Records that the place does not take, or that are damaged here.
    pub refused: u64,
    /// Keys that were found changed at the place by others.
    pub foreign: u64,
    /// Whole comparisons of the place with the store: 1 after the start.
    pub comparisons: u64,
    /// Time since the oldest record that is due was seen to differ.
    pub lag: Duration,
    /// Of the last 4096 records: half of them were acknowledged within this time after the mirror saw the change.
    pub lag_p50: Duration,
    /// Of the last 4096 records: 99 of 100 were acknowledged within this time.
    pub lag_p99: Duration,
}

/// The result of a step of a mirror: see [`Mirror::step`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wave {
    /// Writes and deletions that the place acknowledged.
    pub done: usize,
    /// Records that are not mirrored, each with the reason. They are told once, and again if they change and are refused again.
    pub refused: Vec<(RecordKey, String)>,
    /// Whether the place had all that the mirror knew of when the step ended, apart from refused records. Others may have written since.
    pub is_equal: bool,
}

/// Keeps another place equal to a store, or to one of its spaces, while any process writes to the store.
///
/// The place is a [`Sink`]. [`Directory`](crate::mirror::Directory) is one: a file for each record. The program `recstore-nats`, which
/// `recstore mirror` starts, has one for buckets of NATS JetStream.
///
/// ```
/// use std::time::Duration;
/// use recstore::Store;
/// use recstore::mirror::{Directory, Mirror};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Store::create(dir.path().join("a.rec"))?;
/// store.put(7, b"seven")?;
/// let sink = Directory::open(dir.path().join("copy"), &store, None)?;
/// let mut mirror = Mirror::start(&store, None, sink)?;
/// while !mirror.step(Duration::ZERO)?.is_equal {}
///
/// store.put(8, b"eight")?; // by any process
/// store.delete(7)?;
/// while !mirror.step(Duration::from_secs(1))?.is_equal || mirror.stats().deleted == 0 {}
/// assert_eq!(mirror.stats().records, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it promises
///
/// * At least once: a write that was synced, or that a later `sync` by anybody covers, arrives, if the mirror runs long enough, and
///   if no later write of the same record comes before it. (Then that one arrives.)
/// * A record at the place never goes back to an earlier version.
/// * The place never has what a loss of power could undo here.
/// * The mirror calls [`Store::sync`] for each wave that it sends.
/// * Batches are not atomic at the place.
///
/// # Cost
///
/// Memory: that of [`Store::changes`], and some 60 bytes for each record that the place has.
#[derive(Debug)]
pub struct Mirror<'a, S> {
    source: Source<'a>,
    sink: S,
    lock: File,
    feed: Option<Feed<'a>>,
    /// Told by the feed, and not heard yet for an error.
    told: Option<FeedItem>,
    /// The place, as far as it is known. Of deleted records, those in `marks`.
    held: HashMap<RecordKey, KeyState>,
    marks: VecDeque<RecordKey>,
    /// Known to differ, each with the time at which that was seen.
    due: VecDeque<RecordKey>,
    since: HashMap<RecordKey, Instant>,
    /// Step 5.
    unsure: Vec<RecordKey>,
    refused: HashSet<RecordKey>,
    /// The moments at which values end, which no feed tells.
    deadlines: BTreeSet<(SystemTime, RecordKey)>,
    deadline_of: HashMap<RecordKey, SystemTime>,
    has_caught_up: bool,
    asked: Instant,
    lags: VecDeque<Duration>,
    stats: MirrorStats,
}

/// The file whose lock the mirror of a place has. One file for one store and place, by whatever name the store was opened.
fn lock_path(store: &Path, label: &str) -> PathBuf {
    let mut short: String =
        label.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    if short != label || short.len() > LABEL_BYTES_MAX {
        // Two places have two names all the same.
        let sum = SipHasher13::new().hash(label.as_bytes());
        let tail = short.split_off(short.len().saturating_sub(LABEL_BYTES_MAX));
        short = format!("{tail}-{sum:016x}");
    }
    let mut path = fs::canonicalize(store).unwrap_or_else(|_| store.to_owned()).into_os_string();
    path.push(format!(".{short}.mirror"));
    path.into()
}

/// Starting.
impl<'a, S: Sink> Mirror<'a, S> {
    /// Takes the lock of the place. Nothing is read or sent before the first [`step`](Self::step).
    ///
    /// The lock is that of a file beside the store, whose name is that of the store, of the place, and `.mirror`. The file stays. A symbolic
    /// link to the store leads to the same file; a second hard link does not, so open the store by one name.
    ///
    /// ```
    /// # use recstore::Store;
    /// # use recstore::mirror::{Directory, Mirror, MirrorError};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let place = dir.path().join("copy");
    /// let first = Mirror::start(&store, None, Directory::open(&place, &store, None)?)?;
    /// let second = Mirror::start(&store, None, Directory::open(&place, &store, None)?);
    /// assert!(matches!(second, Err(MirrorError::Running { .. })));
    /// drop(first); // as its death would
    /// Mirror::start(&store, None, Directory::open(&place, &store, None)?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`MirrorError::Running`]: another mirror of this place runs; [`MirrorError::Lock`]; [`MirrorError::Store`] with
    /// [`Error::ReadOnly`]: the mirror flushes the store, so the handle must be one for writing.
    pub fn start(store: &'a Store, space: Option<&str>, sink: S) -> Result<Self, MirrorError<S::Error>> {
        store.holder()?; // A read-only handle can't flush.
        let source = Source::new(store, space)?;
        let path = lock_path(store.path(), &sink.label());
        let failed = |error| MirrorError::Lock { path: path.clone(), error };
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(MirrorError::Running { path, pid });
            }
        }
        let noted = lock
            .set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(lock, "{}", std::process::id()));
        noted.map_err(failed)?;
        Ok(Self {
            source,
            sink,
            lock,
            feed: None,
            told: None,
            held: HashMap::new(),
            marks: VecDeque::new(),
            due: VecDeque::new(),
            since: HashMap::new(),
            unsure: Vec::new(),
            refused: HashSet::new(),
            deadlines: BTreeSet::new(),
            deadline_of: HashMap::new(),
            has_caught_up: false,
            asked: Instant::now(),
            lags: VecDeque::new(),
            stats: MirrorStats::default(),
        })
    }
}

/// Running.
impl<S: Sink> Mirror<'_, S> {
    /// Does a part of the work: compares, or sends one wave of at most 1024 records or 4 MiB. If nothing is due, waits for the next
    /// change, up to `timeout`. A program calls it in a loop.
    ///
    /// After an error, call it again: the mirror goes on where it is safe. It is the caller who waits before (back-off), and who decides
    /// which errors end the mirror. [`Error::Busy`] of the store comes while a stopped process holds up a flush.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # use recstore::mirror::{Directory, Mirror};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.write_many((0..3000).map(|id| (id, "data")))?;
    /// let mut mirror = Mirror::start(&store, None, Directory::open(dir.path().join("copy"), &store, None)?)?;
    /// let mut waves = 0;
    /// while !mirror.step(Duration::ZERO)?.is_equal {
    ///     waves += 1;
    /// }
    /// assert!(waves >= 2);
    /// assert_eq!(mirror.stats().sent, 3000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`MirrorError::Sink`]: the place can't be reached; [`MirrorError::Store`]: as [`Store::changes`] and [`Store::sync_timeout`].
    pub fn step(&mut self, timeout: Duration) -> Result<Wave, MirrorError<S::Error>> {
        if self.feed.is_none() {
            self.begin()?;
        }
        self.settle_unsure()?;
        if self.asked.elapsed() >= ASK_EVERY {
            self.ask_for_foreign()?;
        }
        self.gather(timeout)?;
        let mut wave = Wave::default();
        self.send(&mut wave)?;
        wave.is_equal = self.is_equal();
        Ok(wave)
    }

    /// Asks now for changes at the place that the mirror did not make, which [`step`](Self::step) does once a second. Returns whether
    /// nothing is left to do. A program that ends after it has caught up calls it last, and goes on if it says `false`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # use recstore::mirror::{Directory, Mirror};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut mirror = Mirror::start(&store, None, Directory::open(dir.path().join("copy"), &store, None)?)?;
    /// while !mirror.step(Duration::ZERO)?.is_equal || !mirror.is_settled()? {}
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn is_settled(&mut self) -> Result<bool, MirrorError<S::Error>> {
        if self.feed.is_none() {
            return Ok(false);
        }
        self.settle_unsure()?;
        self.ask_for_foreign()?;
        Ok(self.is_equal())
    }

    /// The numbers since the start.
    ///
    /// ```
    /// # use recstore::Store;
    /// # use recstore::mirror::{Directory, Mirror};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mirror = Mirror::start(&store, None, Directory::open(dir.path().join("copy"), &store, None)?)?;
    /// assert_eq!(mirror.stats().sent, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> MirrorStats {
        let mut lags: Vec<Duration> = self.lags.iter().copied().collect();
        lags.sort_unstable();
        let at = |hundredths: usize| lags.get(lags.len() * hundredths / 100).copied().unwrap_or_default();
        // The oldest is the first, but for those that were put back.
        let oldest = self.due.front().and_then(|key| self.since.get(key));
        MirrorStats {
            due: (self.due.len() + self.unsure.len()) as u64,
            refused: self.refused.len() as u64,
            lag: oldest.map_or(Duration::ZERO, Instant::elapsed),
            lag_p50: at(50),
            lag_p99: at(99),
            ..self.stats
        }
    }

    /// The place, to ask it for what only it knows.
    ///
    /// ```
    /// # use recstore::Store;
    /// # use recstore::mirror::{Directory, Mirror, Sink};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let mut mirror = Mirror::start(&store, None, Directory::open(dir.path().join("copy"), &store, None)?)?;
    /// assert!(mirror.sink().label().starts_with("directory"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    fn is_equal(&self) -> bool {
        self.feed.is_some() && self.has_caught_up && self.due.is_empty() && self.unsure.is_empty()
    }

    /// Step 2, up to the list.
    fn begin(&mut self) -> Result<(), MirrorError<S::Error>> {
        step("mirror: before the feed");
        let feed = self.source.follow()?;
        step("mirror: before the list");
        let (held, marks) = (&mut self.held, &mut self.marks);
        held.clear();
        marks.clear();
        let mut records = 0;
        let listed = self.sink.list(false, &mut |key, state, _| {
            if state.version.is_some() {
                records += 1;
            } else if marks.len() < MARKS_KEPT {
                marks.push_back(key.clone());
            } else {
                return;
            }
            held.insert(key, state);
        });
        listed.map_err(MirrorError::Sink)?;
        step("mirror: after the list");
        self.stats.records = records;
        self.stats.comparisons += 1;
        self.unsure.clear(); // All of them are listed.
        self.refused.clear();
        self.told = None;
        self.has_caught_up = false;
        self.asked = Instant::now();
        self.feed = Some(feed);
        Ok(())
    }

    /// Step 5.
    fn settle_unsure(&mut self) -> Result<(), MirrorError<S::Error>> {
        while !self.unsure.is_empty() {
            let some = self.unsure.len().min(WAVE_RECORDS);
            let keys = &self.unsure[self.unsure.len() - some..];
            let states = self.sink.read(keys).map_err(MirrorError::Sink)?;
            step("mirror: after a look at the place");
            let mut keys = self.unsure.split_off(self.unsure.len() - some);
            // Keys without a state are asked for by the next step.
            let without = keys.split_off(states.len().min(some));
            for (key, state) in keys.into_iter().zip(states) {
                self.know(key.clone(), state);
                self.is_due(key);
            }
            if !without.is_empty() {
                self.unsure.extend(without);
                break;
            }
        }
        Ok(())
    }

    /// Step 6.
    fn ask_for_foreign(&mut self) -> Result<(), MirrorError<S::Error>> {
        let foreign = self.sink.foreign(self.stats.records).map_err(MirrorError::Sink)?;
        self.asked = Instant::now();
        match foreign {
            Foreign::None => {}
            Foreign::Keys(keys) => {
                self.stats.foreign += keys.len() as u64;
                self.unsure.extend(keys);
                self.settle_unsure()?;
            }
            Foreign::Any => {
                self.feed = None;
                self.begin()?;
            }
        }
        Ok(())
    }

    /// Takes from the feed what is due.
    fn gather(&mut self, timeout: Duration) -> Result<(), MirrorError<S::Error>> {
        let started = Instant::now();
        self.end_values();
        while self.due.len() < WAVE_RECORDS && started.elapsed() <= timeout.max(STEP_ENDS_AFTER) {
            let wait =
                if self.due.is_empty() { timeout.saturating_sub(started.elapsed()) } else { Duration::ZERO };
            let Some(feed) = &mut self.feed else { break };
            let Some(item) = self.told.take().map_or_else(|| feed.next(wait), |item| Ok(Some(item)))? else {
                break;
            };
            let is_caught_up = matches!(item, FeedItem::CaughtUp);
            if let Err(error) = self.hear(&item) {
                self.told = Some(item); // The feed does not tell it again.
                return Err(error.into());
            }
            if is_caught_up {
                break; // Somebody may wait for this alone.
            }
        }
        Ok(())
    }

    /// Notes what an item of the feed makes due.
    fn hear(&mut self, item: &FeedItem) -> Result<(), Error> {
        match item {
            FeedItem::Written(key, version) => {
                self.note_deadline(key)?;
                if self.held.get(key).is_none_or(|held| held.version != Some(*version)) {
                    self.is_due(key.clone());
                }
            }
            FeedItem::Deleted(key) => self.is_due(key.clone()),
            FeedItem::CaughtUp => {
                step("mirror: caught up");
                let mut differ = Vec::new();
                for (key, held) in &self.held {
                    match self.source.version(key) {
                        Ok(Some(_)) => {}
                        Ok(None) if held.version.is_none() => {}
                        // A damaged record is told when it is read.
                        Ok(None) | Err(Error::Corrupt { .. }) => differ.push(key.clone()),
                        Err(error) => return Err(error),
                    }
                }
                differ.into_iter().for_each(|key| self.is_due(key));
                self.has_caught_up = true;
            }
        }
        Ok(())
    }

    /// Remembers when the value of a key ends, if it does.
    fn note_deadline(&mut self, key: &RecordKey) -> Result<(), Error> {
        let (Some(space), RecordKey::Key(name)) = (&self.source.space, key) else { return Ok(()) };
        let deadline = match space.expires_at(name) {
            Ok(deadline) => deadline,
            Err(Error::Corrupt { .. }) => None, // Told when it is read.
            Err(error) => return Err(error),
        };
        if let Some(before) = self.deadline_of.remove(key) {
            self.deadlines.remove(&(before, key.clone()));
        }
        if let Some(deadline) = deadline {
            // If it is over in this moment, it is looked at again, and not at once.
            let deadline = deadline.max(self.source.now() + DEADLINE_AGAIN);
            self.deadline_of.insert(key.clone(), deadline);
            self.deadlines.insert((deadline, key.clone()));
        }
        Ok(())
    }

    /// Values whose time has come are due. If one is there all the same, it is looked at again when it ends.
    fn end_values(&mut self) {
        if self.deadlines.is_empty() {
            return;
        }
        let now = self.source.now();
        while self.due.len() < WAVE_RECORDS
            && self.deadlines.first().is_some_and(|(deadline, _)| *deadline <= now)
            && let Some((_, key)) = self.deadlines.pop_first()
        {
            self.deadline_of.remove(&key);
            self.is_due(key);
        }
    }

    fn is_due(&mut self, key: RecordKey) {
        if !self.since.contains_key(&key) {
            self.since.insert(key.clone(), Instant::now());
            self.due.push_back(key);
        }
    }

    /// Notes what the place has.
    fn know(&mut self, key: RecordKey, state: KeyState) {
        let had = self.held.get(&key).is_some_and(|held| held.version.is_some());
        self.stats.records += u64::from(state.version.is_some());
        self.stats.records = self.stats.records.saturating_sub(had.into());
        if state.version.is_some() {
            self.held.insert(key, state);
            return;
        }
        if had || !self.held.contains_key(&key) {
            self.marks.push_back(key.clone());
        }
        self.held.insert(key, state);
        while self.marks.len() > MARKS_KEPT
            && let Some(oldest) = self.marks.pop_front()
        {
            if self.held.get(&oldest).is_some_and(|held| held.version.is_none()) {
                self.held.remove(&oldest);
            }
        }
    }

    /// Steps 3 and 4.
    fn send(&mut self, wave: &mut Wave) -> Result<(), MirrorError<S::Error>> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut bytes = 0;
        let mut failed = None;
        while wanted.len() < WAVE_RECORDS
            && bytes < WAVE_BYTES
            && let Some(key) = self.due.pop_front()
        {
            let record = match self.source.get(&key) {
                Ok(record) => record,
                Err(error @ Error::Corrupt { .. }) => {
                    // It is told again when it is written anew.
                    self.since.remove(&key);
                    self.refused.insert(key.clone());
                    wave.refused.push((key, error.to_string()));
                    continue;
                }
                Err(error) => {
                    self.due.push_front(key);
                    failed = Some(error);
                    break;
                }
            };
            let held = self.held.get(&key).copied().unwrap_or_default();
            if held.version == record.as_ref().map(Record::version) {
                if let Err(error) = self.note_deadline(&key) {
                    self.due.push_front(key);
                    failed = Some(error);
                    break;
                }
                self.since.remove(&key);
                self.refused.remove(&key);
                continue;
            }
            let record = record.map(|record| (record.version(), record.into_data()));
            bytes += record.as_ref().map_or(0, |(_, data)| data.len());
            wanted.push(Wanted { key, expected: held.revision, record });
        }
        if wanted.is_empty() {
            return failed.map_or(Ok(()), |error| Err(error.into()));
        }
        step("mirror: before the flush");
        if let Some(error) = failed.or_else(|| self.source.store.sync_timeout(FLUSH_PATIENCE).err()) {
            wanted.into_iter().rev().for_each(|wanted| self.due.push_front(wanted.key));
            return Err(error.into());
        }
        step("mirror: before a wave");
        let answers = match self.sink.apply(&wanted) {
            Ok(answers) => answers,
            Err(error) => {
                for Wanted { key, .. } in wanted {
                    self.since.remove(&key); // The look at the place makes it due again.
                    self.unsure.push(key);
                }
                return Err(MirrorError::Sink(error));
            }
        };
        step("mirror: after a wave");
        // A write without an answer may be done or not.
        let answers = answers.into_iter().chain(iter::repeat(Answer::Unsure));
        for (Wanted { key, record, .. }, answer) in wanted.into_iter().zip(answers) {
            let since = self.since.remove(&key);
            match answer {
                Answer::Done { revision } => {
                    wave.done += 1;
                    self.refused.remove(&key);
                    match &record {
                        Some((_, data)) => {
                            self.stats.sent += 1;
                            self.stats.bytes += data.len() as u64;
                        }
                        None => self.stats.deleted += 1,
                    }
                    if self.lags.len() == LAGS_KEPT {
                        self.lags.pop_front();
                    }
                    self.lags.extend(since.map(|since| since.elapsed()));
                    let version = record.map(|(version, _)| version);
                    self.know(key, KeyState { revision, version });
                }
                Answer::Unsure => self.unsure.push(key),
                Answer::Refused { why } => {
                    self.refused.insert(key.clone());
                    wave.refused.push((key, why));
                }
            }
        }
        Ok(())
    }
}

impl<S> Drop for Mirror<'_, S> {
    fn drop(&mut self) {
        // A copy of the descriptor in a child would keep the lock.
        let _ = self.lock.unlock();
    }
}
