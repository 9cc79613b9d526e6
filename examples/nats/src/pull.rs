//! A local replica of a bucket: a store that programs read at the speed of memory.
//!
//! 1. Beside the store is a file `.pull`, with the lock of the one that pulls, and with a *cursor*: all messages of the bucket up to this
//!    sequence number are in the store, on disk. Without it, with one of another bucket, or if the store was written since, every value is
//!    read and compared.
//! 2. The names in the bucket are listed. Records that the bucket has not are deleted.
//! 3. The values behind the cursor are read and written to the store, in the order of their sequence numbers; and so on for ever.
//! 4. Each second the store is flushed, and then the cursor is written.
//! 5. From time to time the stream is asked for its state. If it is ahead and nothing comes, the feed hangs, and step 3 begins anew; if it went
//!    back, was made anew or has lost messages, step 2 does.
//! 6. The pull is the only writer. It remembers the version of each record that it wrote. If another one is there, somebody else wrote.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::Hasher;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::{Info, Stream};
use futures_util::{FutureExt, StreamExt};
use recstore::mirror::RecordKey;
use recstore::{Error, Options, Record, Space, Store, Version};
use serde_json::{Value, json};

use crate::bucket::{MARKER_HEADER, OPERATION_HEADER, SPACE, away, check_name};
use crate::connect::{Connection, NatsError};

/// Messages that are applied at a time.
const BATCH: usize = 1024;
const SILENCE_MAX: Duration = Duration::from_secs(10);
const FLUSH_EVERY: Duration = Duration::from_secs(1);
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at the state of the stream.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The least time between two listings for lost messages alone: marks of deletions expire all the time.
const LIST_EVERY: Duration = Duration::from_secs(60);

/// The reason why a pull ended.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// NATS.
    #[error("{0}")]
    Nats(#[from] NatsError),
    /// The store.
    #[error("{0}")]
    Store(#[from] Error),
    /// Another pull has the store.
    #[error("{}: process {pid} is pulling into this store; end it first", path.display())]
    Running {
        /// The store.
        path: PathBuf,
        /// Its process id; 0 if it is not known.
        pid: u32,
    },
    /// The store was written by somebody else.
    #[error("{}: {what}; write to the bucket, or let the pull overwrite it with --overwrite", path.display())]
    Written {
        /// The store.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// A file beside the store.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        error: std::io::Error,
    },
}

/// The options of a replica.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The bucket.
    pub bucket: String,
    /// The space that the records go to; `None`: the one that the bucket names, or records by id.
    pub space: Option<String>,
    /// Overwrite what others wrote.
    pub overwrite: bool,
    /// Leave the file writable.
    pub writable: bool,
    /// Bytes of a record, if the store is created; `None`: as the largest value needs it.
    pub record_size: Option<usize>,
}

/// The numbers of a replica.
#[derive(Clone, Copy, Debug, Default)]
pub struct PullStats {
    /// Records written.
    pub written: u64,
    /// Records deleted.
    pub deleted: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Listings of the bucket.
    pub listings: u64,
    /// Messages of the bucket up to this one are in the store.
    pub sequence: u64,
    /// Messages that are known to be there and are not in the store yet.
    pub behind: u64,
}

/// A record as it was written here.
#[derive(Clone, Copy, Debug)]
struct Have {
    revision: u64,
    /// `None`: deleted.
    version: Option<Version>,
}

/// A store that follows a bucket.
pub struct Replica<'c> {
    connection: &'c Connection,
    options: PullOptions,
    stream: Stream<()>,
    store: Store,
    space: Option<String>,
    /// Keys are the names as they are: the bucket is not a mirror of a store.
    is_raw: bool,
    file: File,
    file_path: PathBuf,
    created: i128,
    have: HashMap<RecordKey, Have>,
    seen: u64,
    cursor: u64,
    /// The sum of the regions' next versions at the cursor.
    writes_flushed: u64,
    flushed: Instant,
    looked: Instant,
    listed: Instant,
    is_listed: bool,
    /// Messages and last sequence number at the last look.
    state: (u64, u64),
    feed: Option<pull::Ordered>,
    began: Instant,
    losses: u64,
    refused: BTreeSet<String>,
    told: Vec<String>,
    /// The numbers.
    pub stats: PullStats,
}

impl std::fmt::Debug for Replica<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("bucket", &self.options.bucket).finish_non_exhaustive()
    }
}

/// What a message does to its key.
fn is_deletion(headers: Option<&HeaderMap>) -> bool {
    let text = |name: &str| headers.and_then(|headers| headers.get(name)).map(|value| value.as_str());
    text(OPERATION_HEADER).is_some_and(|operation| matches!(operation, "DEL" | "PURGE"))
        || text(MARKER_HEADER).is_some()
}

fn beside(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".pull");
    path.into()
}

fn set_writable(path: &Path, is_writable: bool) -> std::io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    let mode = permissions.mode();
    permissions.set_mode(if is_writable { mode | 0o200 } else { mode & !0o222 });
    fs::set_permissions(path, permissions)
}

/// A sum over the cursor: a file that was torn by a loss of power is no cursor.
fn sum(text: &str) -> u64 {
    // Not for keeping among versions of Rust: another sum means one copy more.
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

impl<'c> Replica<'c> {
    /// Opens the bucket and the store, which is created if it is absent.
    ///
    /// # Errors
    /// [`PullError::Running`]: another one pulls into it; [`PullError::Written`]: it is a store with records that no pull wrote.
    pub fn open(
        connection: &'c Connection,
        path: &Path,
        store_options: &Options,
        options: PullOptions,
    ) -> Result<Self, PullError> {
        check_name(&options.bucket)?;
        let what = format!("bucket {}", options.bucket);
        connection.check_version()?;
        let (stream, info) = connection.ask(async {
            let stream = connection
                .jetstream
                .get_stream_no_info(format!("KV_{}", options.bucket))
                .await
                .map_err(|error| away(&what, &error))?;
            let info = stream.get_info().await.map_err(|error| away(&what, &error))?;
            Ok::<_, NatsError>((stream, info))
        })?;
        let is_raw = !info.config.metadata.contains_key(crate::bucket::STORE);
        let space = options.space.clone().or_else(|| info.config.metadata.get(SPACE).cloned());
        let file_path = beside(path);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| PullError::File { path, error }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file_path)
            .map_err(failed(&file_path))?;
        let known: Option<Value> = {
            let mut text = [0; 4096];
            let read = file.read_at(&mut text, 0).map_err(failed(&file_path))?;
            let text = String::from_utf8_lossy(&text[..read]).into_owned();
            text.split_once('\n').and_then(|(line, check)| {
                (check.trim() == sum(line).to_string()).then(|| serde_json::from_str(line).ok())?
            })
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = known.and_then(|known| known["pid"].as_u64()).unwrap_or(0) as u32;
                return Err(PullError::Running { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(failed(&file_path)(error)),
        }
        let exists = path.exists();
        if exists && known.is_some() {
            set_writable(path, true).map_err(failed(path))?;
        }
        let opened = if exists {
            store_options.open(path)
        } else {
            let size = match options.record_size {
                Some(size) => size,
                None => connection.ask(size_for(&stream, &info, &options.bucket, space.as_deref()))?,
            };
            store_options.clone().record_size(size).open_or_create(path)
        };
        let store = opened?;
        if !options.writable {
            set_writable(path, false).map_err(failed(path))?;
        }
        let uuid = store.stats()?.uuid;
        let created = info.created.unix_timestamp_nanos();
        let is_this = |known: &&Value| known["store"] == json!(uuid) && known["space"] == json!(space);
        let ours = known.as_ref().filter(is_this);
        let is_empty = match &space {
            None => store.is_empty()?,
            Some(space) => store.space(space)?.is_empty()?,
        };
        if ours.is_none() && !is_empty && !options.overwrite {
            let what = "the store has records, and is no replica".to_owned();
            return Err(PullError::Written { path: path.to_owned(), what });
        }
        // Others wrote since, or this pull did after its last note: then every value is compared.
        let writes_flushed = writes(&store)?;
        let cursor = ours
            .filter(|known| known["writes"] == json!(writes_flushed))
            .filter(|known| {
                known["bucket"] == json!(options.bucket) && known["created"] == json!(created.to_string())
            })
            .and_then(|known| known["sequence"].as_u64())
            .unwrap_or(0);
        let replica = Self {
            connection,
            options,
            stream,
            store,
            space,
            is_raw,
            file,
            file_path,
            created,
            have: HashMap::new(),
            seen: cursor,
            cursor,
            writes_flushed,
            flushed: Instant::now(),
            looked: Instant::now(),
            listed: Instant::now(),
            is_listed: false,
            state: (0, 0),
            feed: None,
            began: Instant::now(),
            losses: connection.losses(),
            refused: BTreeSet::new(),
            told: Vec::new(),
            stats: PullStats { sequence: cursor, ..PullStats::default() },
        };
        replica.note()?;
        Ok(replica)
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Values that were not taken, each with the reason; each is told once.
    pub fn refusals(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// How many values are not in the store, because they do not fit.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    fn note(&self) -> Result<(), PullError> {
        let line = json!({
            "pid": std::process::id(),
            "bucket": self.options.bucket,
            "space": self.space,
            "store": self.store.stats()?.uuid,
            "created": self.created.to_string(),
            "sequence": self.cursor,
            "writes": self.writes_flushed,
        })
        .to_string();
        let text = format!("{line}\n{}\n", sum(&line));
        let write = || {
            self.file.write_all_at(text.as_bytes(), 0)?;
            self.file.set_len(text.len() as u64)?;
            self.file.sync_data()
        };
        write().map_err(|error| PullError::File { path: self.file_path.clone(), error })
    }

    fn key(&self, subject: &str) -> Result<RecordKey, String> {
        let prefix = format!("$KV.{}.", self.options.bucket);
        let name = subject.strip_prefix(&prefix).unwrap_or(subject);
        let key = match &self.space {
            None => RecordKey::id_from_name(name),
            Some(_) if self.is_raw => Some(RecordKey::Key(name.as_bytes().into())),
            Some(_) => RecordKey::key_from_name(name),
        };
        key.ok_or_else(|| format!("{name}: no id; give a space for keys with --space"))
    }

    fn in_space(&self) -> Result<Option<Space<'_>>, Error> {
        self.space.as_ref().map(|space| self.store.space(space)).transpose()
    }

    fn version(&self, key: &RecordKey) -> Result<Option<Version>, Error> {
        match (self.in_space()?, key) {
            (None, RecordKey::Id(id)) => self.store.version(*id),
            (Some(space), RecordKey::Key(key)) => space.version(key),
            _ => Ok(None),
        }
    }

    fn get(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        match (self.in_space()?, key) {
            (None, RecordKey::Id(id)) => self.store.get(*id),
            (Some(space), RecordKey::Key(key)) => space.get(key),
            _ => Ok(None),
        }
    }

    fn put(&self, key: &RecordKey, data: &[u8]) -> Result<Version, Error> {
        match (self.in_space()?, key) {
            (Some(space), RecordKey::Key(key)) => space.put(key, data),
            (_, RecordKey::Id(id)) => self.store.put(*id, data),
            (None, RecordKey::Key(key)) => self.store.space("")?.put(key, data), // Not made by `key`.
        }
    }

    fn delete(&self, key: &RecordKey) -> Result<bool, Error> {
        match (self.in_space()?, key) {
            (None, RecordKey::Id(id)) => self.store.delete(*id),
            (Some(space), RecordKey::Key(key)) => space.delete(key),
            _ => Ok(false),
        }
    }

    fn keys(&self) -> Result<Vec<RecordKey>, Error> {
        Ok(match self.in_space()? {
            None => {
                let mut ids = Vec::new();
                for record in self.store.iter() {
                    match record {
                        Ok(record) => ids.push(RecordKey::Id(record.id())),
                        Err(Error::Corrupt { .. }) => {} // Its value comes again when the bucket's does.
                        Err(error) => return Err(error),
                    }
                }
                ids
            }
            Some(space) => {
                space.iter().map(|entry| Ok(RecordKey::Key(entry?.0.into()))).collect::<Result<_, Error>>()?
            }
        })
    }

    /// Does a part of the work: lists, or takes what has come. If nothing has, waits for it up to `timeout`. Returns whether the store equals the
    /// bucket as far as is known.
    ///
    /// # Errors
    /// All of [`PullError`]. After [`NatsError::Away`] and [`Error::Busy`] it may be called again.
    pub fn step(&mut self, timeout: Duration) -> Result<bool, PullError> {
        let losses = self.connection.losses();
        if losses != self.losses {
            self.losses = losses;
            self.connection.check_version()?;
            self.feed = None; // It goes on behind what was seen.
            self.looked = Instant::now();
        }
        if !self.is_listed {
            self.list()?;
        }
        let done = self.take(timeout);
        if done.is_err() {
            self.feed = None;
        }
        let done = done?;
        if self.looked.elapsed() >= LOOK_EVERY {
            self.look()?;
        }
        if self.seen > self.cursor && self.flushed.elapsed() >= FLUSH_EVERY {
            self.flush()?;
        }
        Ok(done && self.is_listed)
    }

    /// Step 4.
    ///
    /// # Errors
    /// As [`Store::sync_timeout`]; [`PullError::File`].
    pub fn flush(&mut self) -> Result<(), PullError> {
        self.flushed = Instant::now();
        let seen = self.seen;
        self.writes_flushed = writes(&self.store)?;
        self.store.sync_timeout(FLUSH_PATIENCE)?;
        self.cursor = seen;
        self.note()
    }

    /// The state of the stream, from its leader.
    fn info(&self) -> Result<Info, NatsError> {
        let what = format!("bucket {}", self.options.bucket);
        self.connection.ask(async { self.stream.get_info().await.map_err(|error| away(&what, &error)) })
    }

    /// Whether the stream is not the one that was followed, or has lost what was seen.
    fn is_another(&self, info: &Info) -> bool {
        info.created.unix_timestamp_nanos() != self.created || info.state.last_sequence < self.seen
    }

    /// Step 5.
    fn look(&mut self) -> Result<(), PullError> {
        let info = self.info()?;
        self.looked = Instant::now();
        let state = (info.state.last_sequence, info.state.messages);
        let before = std::mem::replace(&mut self.state, state);
        if self.is_another(&info) {
            self.is_listed = false;
        } else if state.0 == before.0 && state.1 != before.1 && self.listed.elapsed() >= LIST_EVERY {
            self.is_listed = false; // Purged, or expired.
        } else if state.0 == before.0 && state.0 > self.seen && self.began.elapsed() >= SILENCE_MAX {
            self.feed = None; // Nothing came for a whole interval. Or the last messages are gone, and nothing will.
        }
        Ok(())
    }

    /// Step 2.
    fn list(&mut self) -> Result<(), PullError> {
        let info = self.info()?;
        if self.is_another(&info) {
            self.created = info.created.unix_timestamp_nanos();
            self.seen = 0;
            self.cursor = 0;
            self.have.clear();
            self.note()?;
        }
        self.feed = None;
        let mut there: HashMap<RecordKey, u64> = HashMap::new();
        let mut strange = Vec::new();
        let mut last = 0;
        let connection = self.connection;
        let (stream, bucket) = (self.stream.clone(), self.options.bucket.clone());
        let listed = names(&stream, &info, &bucket, |subject, sequence, headers| {
            last = last.max(sequence);
            match self.key(subject) {
                Ok(key) if !is_deletion(headers) => _ = there.insert(key, sequence),
                Ok(_) => {}
                Err(why) => strange.push(why),
            }
        });
        connection.ask(listed)?;
        self.stats.listings += 1;
        for why in strange {
            if self.refused.insert(why.clone()) {
                self.told.push(why);
            }
        }
        let mut all_again = false;
        let here: HashSet<RecordKey> = self.keys()?.into_iter().collect();
        // The list may come from a server that is behind. What it has not seen, it can't deny.
        let is_behind = last < self.seen && info.state.messages > 0 && info.state.last_sequence > last;
        if !is_behind {
            for key in &here {
                self.check(key)?;
                let is_later = self.have.get(key).is_some_and(|have| have.revision > last);
                if !there.contains_key(key) && !is_later && self.delete(key)? {
                    self.have.remove(key);
                    self.stats.deleted += 1;
                }
            }
        }
        for (key, revision) in &there {
            if *revision <= self.seen && !here.contains(key) && !self.is_refused(key) {
                self.have.remove(key);
                all_again = true;
            }
        }
        if all_again {
            self.seen = 0;
        }
        self.is_listed = true;
        self.listed = Instant::now();
        self.looked = Instant::now();
        self.state = (info.state.last_sequence, info.state.messages);
        Ok(())
    }

    fn is_refused(&self, key: &RecordKey) -> bool {
        let name = format!("{}: ", key.to_name());
        self.refused.iter().any(|refused| refused.starts_with(&name))
    }

    /// Step 6.
    fn check(&mut self, key: &RecordKey) -> Result<(), PullError> {
        let Some(have) = self.have.get(key) else { return Ok(()) };
        if self.version(key)? == have.version {
            return Ok(());
        }
        if !self.options.overwrite {
            let what = format!("record {} was written by another process", key.to_name());
            return Err(PullError::Written { path: self.store.path().to_owned(), what });
        }
        self.have.remove(key);
        self.seen = 0; // Everything once more: what differs is written.
        self.feed = None;
        Ok(())
    }

    /// Step 3.
    fn take(&mut self, timeout: Duration) -> Result<bool, PullError> {
        let connection = self.connection;
        let what = format!("bucket {}", self.options.bucket);
        if self.feed.is_none() {
            let deliver_policy = match self.seen {
                0 => DeliverPolicy::LastPerSubject,
                seen => DeliverPolicy::ByStartSequence { start_sequence: seen + 1 },
            };
            let config = pull::OrderedConfig {
                deliver_policy,
                filter_subject: format!("$KV.{}.>", self.options.bucket),
                ..Default::default()
            };
            let (pending, feed) = connection.ask(async {
                let consumer =
                    self.stream.create_consumer(config).await.map_err(|error| away(&what, &error))?;
                let pending = consumer.cached_info().num_pending;
                let feed = consumer.messages().await.map_err(|error| away(&what, &error))?;
                Ok::<_, NatsError>((pending, feed))
            })?;
            self.stats.behind = pending;
            self.feed = Some(feed);
            self.began = Instant::now();
        }
        let Some(feed) = &mut self.feed else { return Ok(false) };
        let mut messages: Vec<Message> = Vec::new();
        let mut failed = None;
        connection.run(async {
            let mut next = tokio::time::timeout(timeout, feed.next()).await.unwrap_or(None);
            while let Some(message) = next {
                match message {
                    Ok(message) => messages.push(message),
                    Err(error) => {
                        failed = Some(away(&what, &error));
                        break;
                    }
                }
                if messages.len() == BATCH {
                    break;
                }
                next = feed.next().now_or_never().flatten();
            }
        });
        for message in messages {
            self.apply(&message)?;
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(self.stats.behind == 0),
        }
    }

    fn apply(&mut self, message: &Message) -> Result<(), PullError> {
        let about = message.info().map_err(|error| NatsError::Away(error.to_string()))?;
        let (revision, pending) = (about.stream_sequence, about.pending);
        match self.key(&message.subject) {
            Err(why) => {
                if self.refused.insert(why.clone()) {
                    self.told.push(why);
                }
            }
            Ok(key) if self.have.get(&key).is_some_and(|have| have.revision >= revision) => {}
            Ok(key) => {
                self.check(&key)?;
                if is_deletion(message.headers.as_ref()) {
                    self.stats.deleted += u64::from(self.delete(&key)?);
                    self.have.insert(key, Have { revision, version: None });
                } else {
                    self.write(key, revision, &message.payload)?;
                }
            }
        }
        self.seen = self.seen.max(revision);
        self.stats.sequence = self.seen;
        self.stats.behind = pending;
        Ok(())
    }

    fn write(&mut self, key: RecordKey, revision: u64, data: &[u8]) -> Result<(), PullError> {
        let name = format!("{}: ", key.to_name());
        let version = match self.get(&key) {
            Ok(Some(record)) if record.data() == data => record.version(),
            Ok(_) | Err(Error::Corrupt { .. }) => match self.put(&key, data) {
                Ok(version) => {
                    self.stats.written += 1;
                    self.stats.bytes += data.len() as u64;
                    version
                }
                Err(
                    error @ (Error::RecordTooLong { .. }
                    | Error::EntryTooLong { .. }
                    | Error::KeyTooLong { .. }
                    | Error::IdTaken { .. }),
                ) => {
                    let why = format!("{name}{error}");
                    if self.refused.insert(why.clone()) {
                        self.told.push(why);
                    }
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        self.refused.retain(|refused| !refused.starts_with(&name));
        self.have.insert(key, Have { revision, version: Some(version) });
        Ok(())
    }

    /// Flushes, and closes the store.
    ///
    /// # Errors
    /// As [`Store::close_timeout`].
    pub fn close(mut self) -> Result<(), PullError> {
        self.flush()?;
        match self.store.close_timeout(FLUSH_PATIENCE) {
            Err(Error::Busy { .. }) => Ok(()), // It is flushed; a reader may have it open.
            closed => Ok(closed?),
        }
    }
}

/// A number that rises with every write to the store.
fn writes(store: &Store) -> Result<u64, Error> {
    Ok(store.stats()?.regions.iter().fold(0, |sum, region| sum.wrapping_add(region.next_version)))
}

/// Tells every name in the bucket, without the values.
async fn names(
    stream: &Stream<()>,
    info: &Info,
    bucket: &str,
    mut each: impl FnMut(&str, u64, Option<&HeaderMap>),
) -> Result<(), NatsError> {
    if info.state.messages == 0 {
        return Ok(());
    }
    let what = format!("bucket {bucket}: listing");
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::LastPerSubject,
        filter_subject: format!("$KV.{bucket}.>"),
        headers_only: true,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(|error| away(&what, &error))?;
    let mut left = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await.map_err(|error| away(&what, &error))?;
    while left > 0 {
        let message = match tokio::time::timeout(SILENCE_MAX, messages.next()).await {
            Ok(Some(message)) => message.map_err(|error| away(&what, &error))?,
            Ok(None) | Err(_) => return Err(NatsError::Away(format!("{what}: the server fell silent"))),
        };
        let about = message.info().map_err(|error| NatsError::Away(format!("{what}: {error}")))?;
        left = about.pending;
        each(&message.subject, about.stream_sequence, message.headers.as_ref());
    }
    Ok(())
}

/// The record size that the largest value needs, with its key; a quarter more, and 256 bytes at least.
async fn size_for(
    stream: &Stream<()>,
    info: &Info,
    bucket: &str,
    space: Option<&str>,
) -> Result<usize, NatsError> {
    let mut largest = 0;
    names(stream, info, bucket, |subject, _, headers| {
        let size = headers.and_then(|headers| headers.get("Nats-Msg-Size"));
        let size: usize = size.and_then(|size| size.as_str().parse().ok()).unwrap_or(0);
        let of_key = space.map_or(0, |space| space.len() + subject.len() + 32);
        largest = largest.max(size + of_key);
    })
    .await?;
    Ok((largest + largest / 4).max(256))
}
