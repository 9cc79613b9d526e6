//! A key-value bucket of JetStream as the far end of a mirror.
//!
//! * The bucket of name B is the stream `KV_B`; a key K is the subject `$KV.B.K`; the revision of a key is the sequence number of its last
//!   message. A deletion is a message with the header `KV-Operation: DEL`. Any client of NATS reads the bucket as a bucket.
//! * Each value has two headers of ours: `Recstore-Store`, the uuid of the store, and `Recstore-Version`.
//! * The metadata of the stream name the store and the space. A bucket of another store is refused.
//! * Every write says which revision it expects. `foreign` accounts for each sequence number of the stream: a number that was not the answer
//!   to a write of ours is the write of somebody else, or a late one of a dead mirror.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, LastRawMessageErrorKind, StorageType, Stream,
};
use async_nats::jetstream::{Error as ApiError, ErrorCode};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use recstore::mirror::{Answer, Foreign, KeyState, RecordKey, Sink, Wanted};
use recstore::{Store, Version};

use crate::connect::{Connection, LOOK_FOR_LOSSES, NatsError, with_causes};

pub(crate) const STORE: &str = "recstore.store";
pub(crate) const SPACE: &str = "recstore.space";
const STORE_HEADER: &str = "Recstore-Store";
const VERSION_HEADER: &str = "Recstore-Version";
const EXPECTED_HEADER: &str = "Nats-Expected-Last-Subject-Sequence";
const TTL_HEADER: &str = "Nats-TTL";
pub(crate) const OPERATION_HEADER: &str = "KV-Operation";
/// The server's own mark, where a message has expired.
pub(crate) const MARKER_HEADER: &str = "Nats-Marker-Reason";
/// A mark of a deletion is kept so long, where the bucket can forget marks.
const MARKS_KEPT: &str = "24h";
/// Bytes that the headers of a value take at most.
const HEADERS_BYTES: usize = 256;
/// A subject must fit into a line of the protocol, which has 4096 bytes, with the inbox and the sizes.
const NAME_BYTES_MAX: usize = 2048;
/// The longest silence of a listing.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Single reads under way at once.
const READS: usize = 64;
/// Unknown sequence numbers that are looked up one by one. With more, everything is listed anew.
const GAPS_MAX: usize = 512;

/// The options of a bucket.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// Its name.
    pub name: String,
    /// The copies of it that the cluster keeps, if it is created; `None`: 3 in a cluster, 1 otherwise.
    pub replicas: Option<usize>,
    /// Take over a bucket that was another store's, or nobody's and not empty.
    pub take_over: bool,
}

/// A bucket that a store is mirrored to.
#[derive(Debug)]
pub struct Bucket<'c> {
    connection: &'c Connection,
    options: BucketOptions,
    uuid: String,
    space: Option<String>,
    stream: Option<Stream<()>>,
    /// When the stream was created, in nanoseconds.
    created: i128,
    /// All sequence numbers up to this one are accounted for.
    seen: u64,
    /// Those beyond it that were answers to our writes.
    ours: BTreeSet<u64>,
    /// The stream has lost acknowledged messages.
    went_back: bool,
    takes_ttl: bool,
    size_max: Option<usize>,
    /// A failure that is told by the next call.
    failed: Option<String>,
    /// Keys of the bucket that are no keys of the store.
    strangers: BTreeSet<String>,
}

pub(crate) fn away(what: &str, error: &(dyn std::error::Error + 'static)) -> NatsError {
    NatsError::Away(format!("{what}: {}", with_causes(error)))
}

/// Whether a bucket may have this name.
pub(crate) fn check_name(name: &str) -> Result<(), NatsError> {
    let is_good = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_good {
        Ok(())
    } else {
        Err(NatsError::Wrong(format!("`{name}` is no name of a bucket; use letters, digits, `-` and `_`")))
    }
}

/// The first sequence number behind those that are accounted for in one run.
fn advance(seen: &mut u64, ours: &mut BTreeSet<u64>) {
    while ours.first() == Some(&(*seen + 1)) {
        ours.pop_first();
        *seen += 1;
    }
}

impl<'c> Bucket<'c> {
    /// Makes ready for a bucket; nothing is sent yet.
    ///
    /// # Errors
    /// [`NatsError::Wrong`]: no bucket can have the name, or the store can't be asked.
    pub fn new(
        connection: &'c Connection,
        store: &Store,
        space: Option<&str>,
        options: BucketOptions,
    ) -> Result<Self, NatsError> {
        check_name(&options.name)?;
        let uuid = store.stats().map_err(|error| NatsError::Wrong(error.to_string()))?.uuid;
        Ok(Self {
            connection,
            options,
            uuid,
            space: space.map(str::to_owned),
            stream: None,
            created: 0,
            seen: 0,
            ours: BTreeSet::new(),
            went_back: false,
            takes_ttl: false,
            size_max: None,
            failed: None,
            strangers: BTreeSet::new(),
        })
    }

    /// Keys of the bucket that are no keys of the store: they are left alone. Each is told once.
    pub fn strangers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.strangers).into_iter().collect()
    }

    fn prefix(&self) -> String {
        format!("$KV.{}.", self.options.name)
    }

    fn key(&self, subject: &str) -> Option<RecordKey> {
        let name = subject.strip_prefix(&self.prefix())?;
        if self.space.is_some() { RecordKey::key_from_name(name) } else { RecordKey::id_from_name(name) }
    }

    fn metadata(&self) -> HashMap<String, String> {
        let mut metadata = HashMap::from([(STORE.to_owned(), self.uuid.clone())]);
        metadata.extend(self.space.clone().map(|space| (SPACE.to_owned(), space)));
        metadata
    }

    fn config(&self, replicas: usize) -> Config {
        Config {
            name: format!("KV_{}", self.options.name),
            subjects: vec![format!("$KV.{}.>", self.options.name)],
            description: Some("a mirror of a recstore store".into()),
            max_messages_per_subject: 1,
            max_messages: -1,
            max_bytes: -1,
            max_message_size: -1,
            max_consumers: -1,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            num_replicas: replicas,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            allow_message_ttl: true,
            metadata: self.metadata(),
            ..Config::default()
        }
    }

    /// The stream, created if it is absent, and ours.
    async fn open(&mut self) -> Result<Info, NatsError> {
        self.connection.check_version()?;
        let jetstream = &self.connection.jetstream;
        let name = format!("KV_{}", self.options.name);
        let bucket = self.options.name.clone();
        let stream = jetstream
            .get_stream_no_info(&name)
            .await
            .map_err(|error| away(&format!("bucket {bucket}"), &error))?;
        let mut info = stream.get_info().await;
        let is_absent = |error: &async_nats::jetstream::stream::InfoError| {
            let text = with_causes(error);
            text.contains("10059") || text.contains("stream not found")
        };
        if info.as_ref().is_err_and(is_absent) {
            let is_cluster = self.connection.client.server_info().cluster.is_some();
            let replicas = self.options.replicas.unwrap_or(if is_cluster { 3 } else { 1 });
            let created = jetstream.create_stream(self.config(replicas)).await;
            if let Err(error) = created {
                let text = format!(
                    "bucket {bucket} with {replicas} replicas can't be created: {}",
                    with_causes(&error)
                );
                // Also while a cluster is starting: so it is tried again.
                return Err(NatsError::Away(format!("{text} (see --replicas)")));
            }
            info = stream.get_info().await;
        }
        let mut info = info.map_err(|error| away(&format!("bucket {bucket}"), &error))?;
        if info.config.mirror.is_some()
            || info.config.sources.as_ref().is_some_and(|sources| !sources.is_empty())
        {
            return Err(NatsError::Wrong(format!(
                "bucket {bucket} is itself a copy of another stream; choose another"
            )));
        }
        let theirs: HashMap<&str, &str> = [STORE, SPACE]
            .into_iter()
            .filter_map(|field| Some((field, info.config.metadata.get(field)?.as_str())))
            .collect();
        let ours = self.metadata();
        let is_ours =
            theirs.len() == ours.len() && theirs.iter().all(|(k, v)| ours.get(*k).is_some_and(|o| o == v));
        if !is_ours {
            let is_free = theirs.is_empty() && info.state.messages == 0;
            if !is_free && !self.options.take_over {
                let whose = match (theirs.get(STORE), theirs.get(SPACE)) {
                    (None, _) => "has values, and is the mirror of no store".to_owned(),
                    (Some(store), None) => format!("is the mirror of store {store}"),
                    (Some(store), Some(space)) => {
                        format!("is the mirror of space {space:?} of store {store}")
                    }
                };
                return Err(NatsError::Wrong(format!(
                    "bucket {bucket} {whose}; this is store {}{}; choose another bucket, or overwrite that one with --take-over",
                    self.uuid,
                    self.space.as_ref().map_or_else(String::new, |space| format!(", space {space:?}"))
                )));
            }
            let mut config = info.config.clone();
            config.metadata.remove(SPACE);
            config.metadata.extend(ours);
            config.metadata.retain(|name, _| !name.starts_with("_nats."));
            info = jetstream
                .update_stream(config)
                .await
                .map_err(|error| away(&format!("bucket {bucket} can't be marked as this store's"), &error))?;
        }
        self.takes_ttl = info.config.allow_message_ttl;
        self.size_max = usize::try_from(info.config.max_message_size).ok().filter(|&size| size > 0);
        self.created = info.created.unix_timestamp_nanos();
        self.stream = Some(stream);
        Ok(info)
    }

    /// The state that a message's headers tell.
    fn held(&self, sequence: u64, headers: Option<&HeaderMap>) -> KeyState {
        let text = |name: &str| headers.and_then(|headers| headers.get(name)).map(|value| value.as_str());
        let is_deletion =
            text(OPERATION_HEADER).is_some_and(|operation| matches!(operation, "DEL" | "PURGE"));
        if is_deletion || text(MARKER_HEADER).is_some() {
            return KeyState { revision: sequence, version: None };
        }
        let is_ours = text(STORE_HEADER) == Some(self.uuid.as_str());
        let version = text(VERSION_HEADER).filter(|_| is_ours).and_then(|version| version.parse().ok());
        KeyState { revision: sequence, version: Some(Version::from_u64(version.unwrap_or(0))) }
    }

    /// The leader's state of a key.
    async fn last(&self, stream: &Stream<()>, key: &RecordKey) -> Result<KeyState, NatsError> {
        let subject = self.prefix() + &key.to_name();
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(self.held(message.sequence, Some(&message.headers))),
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {
                Ok(KeyState::default())
            }
            // The bucket is gone. The next question for foreign changes finds that, and it is made anew.
            Err(error) if with_causes(&error).contains("10059") => Ok(KeyState::default()),
            Err(error) => Err(away(&subject, &error)),
        }
    }

    async fn list_stream(
        &mut self,
        with_data: bool,
        each: &mut dyn FnMut(RecordKey, KeyState, &[u8]),
    ) -> Result<(), NatsError> {
        let info = self.open().await?;
        let Some(stream) = self.stream.clone() else { return Ok(()) };
        let mut last = 0;
        if info.state.messages > 0 {
            let config = pull::OrderedConfig {
                deliver_policy: DeliverPolicy::LastPerSubject,
                filter_subject: self.prefix() + ">",
                headers_only: !with_data,
                ..Default::default()
            };
            let what = format!("bucket {}: listing", self.options.name);
            let consumer = stream.create_consumer(config).await.map_err(|error| away(&what, &error))?;
            // Expired and purged meanwhile: then nothing would come.
            let mut left = consumer.cached_info().num_pending;
            let mut messages = consumer.messages().await.map_err(|error| away(&what, &error))?;
            while left > 0 {
                let message = match tokio::time::timeout(SILENCE_MAX, messages.next()).await {
                    Ok(Some(message)) => message.map_err(|error| away(&what, &error))?,
                    Ok(None) | Err(_) => {
                        return Err(NatsError::Away(format!("{what}: the server fell silent")));
                    }
                };
                let about = message.info().map_err(|error| NatsError::Away(format!("{what}: {error}")))?;
                left = about.pending;
                let sequence = about.stream_sequence;
                last = last.max(sequence);
                match self.key(&message.subject) {
                    Some(key) => each(key, self.held(sequence, message.headers.as_ref()), &message.payload),
                    None => _ = self.strangers.insert(message.subject.to_string()),
                }
            }
        }
        // The list may come from a server that is behind. So what was written since the last message of the list counts as foreign.
        self.seen = last.max(info.state.first_sequence.saturating_sub(1));
        self.ours.clear();
        self.went_back = false;
        self.failed = None;
        Ok(())
    }

    fn headers(&self, wanted: &Wanted) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED_HEADER, wanted.expected.to_string());
        headers.insert(STORE_HEADER, self.uuid.as_str());
        match &wanted.record {
            Some((version, _)) => headers.insert(VERSION_HEADER, version.to_string()),
            None => {
                headers.insert(OPERATION_HEADER, "DEL");
                if self.takes_ttl {
                    headers.insert(TTL_HEADER, MARKS_KEPT);
                }
            }
        }
        headers
    }

    async fn publish(&mut self, writes: &[Wanted]) -> Result<Vec<Answer>, NatsError> {
        let size_max = self.connection.client.max_payload().saturating_sub(HEADERS_BYTES);
        let size_max =
            self.size_max.map_or(size_max, |of_bucket| size_max.min(of_bucket.saturating_sub(HEADERS_BYTES)));
        let mut sent = Vec::with_capacity(writes.len());
        for wanted in writes {
            let name = wanted.key.to_name();
            let data = wanted.record.as_ref().map_or(&[][..], |(_, data)| data);
            if data.len() > size_max || name.len() > NAME_BYTES_MAX {
                let why = if name.len() > NAME_BYTES_MAX {
                    format!("its name has {} bytes, and {NAME_BYTES_MAX} is the limit", name.len())
                } else {
                    format!(
                        "{} bytes, and the server takes {size_max} (raise `max_payload`, and the bucket's `max_value_size`)",
                        data.len()
                    )
                };
                sent.push(Err(Answer::Refused { why }));
                continue;
            }
            let data = bytes::Bytes::copy_from_slice(data);
            let subject = self.prefix() + &name;
            let answer =
                self.connection.jetstream.publish_with_headers(subject, self.headers(wanted), data).await;
            sent.push(Ok(answer));
        }
        let losses = self.connection.losses();
        let mut answers = vec![Answer::Unsure; sent.len()];
        let mut waiting = FuturesUnordered::new();
        for (at, sent) in sent.into_iter().enumerate() {
            match sent {
                Err(refused) => answers[at] = refused,
                Ok(Err(error)) => answers[at] = self.failed(&error),
                Ok(Ok(answer)) => waiting.push(async move { (at, answer.await) }),
            }
        }
        while !waiting.is_empty() {
            match tokio::time::timeout(LOOK_FOR_LOSSES, waiting.next()).await {
                Ok(None) => break,
                Ok(Some((at, Ok(ack)))) => {
                    if ack.sequence <= self.seen || !self.ours.insert(ack.sequence) {
                        self.went_back = true;
                    }
                    answers[at] = Answer::Done { revision: ack.sequence };
                }
                Ok(Some((at, Err(error)))) => answers[at] = self.failed(&error),
                Err(_) if self.connection.losses() != losses => {
                    // Their answers do not come any more.
                    self.failed = Some("the connection was lost".into());
                    break;
                }
                Err(_) => {}
            }
        }
        advance(&mut self.seen, &mut self.ours);
        Ok(answers)
    }

    /// The answer to a write that failed. A failure that may last is told by the next call, so that the mirror pauses.
    fn failed(&mut self, error: &PublishError) -> Answer {
        let why = with_causes(error);
        match error.kind() {
            PublishErrorKind::WrongLastSequence => return Answer::Unsure,
            PublishErrorKind::MaxPayloadExceeded => return Answer::Refused { why },
            _ => {}
        }
        let api = std::error::Error::source(error).and_then(|source| source.downcast_ref::<ApiError>());
        if api.is_some_and(|error| error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) {
            return Answer::Refused { why };
        }
        self.failed = Some(format!("bucket {}: {why}", self.options.name));
        Answer::Unsure
    }

    async fn states(&self, keys: &[RecordKey]) -> Result<Vec<KeyState>, NatsError> {
        let Some(stream) = &self.stream else {
            return Err(NatsError::Away(format!("bucket {} is not open", self.options.name)));
        };
        let mut states = Vec::with_capacity(keys.len());
        for some in keys.chunks(READS) {
            for state in join_all(some.iter().map(|key| self.last(stream, key))).await {
                states.push(state?);
            }
        }
        Ok(states)
    }

    async fn strange(&mut self, records: u64) -> Result<Foreign, NatsError> {
        let Some(stream) = self.stream.clone() else { return Ok(Foreign::Any) };
        let what = format!("bucket {}", self.options.name);
        let info = match stream.get_info().await {
            Ok(info) => info,
            // The bucket is gone, and will be created.
            Err(error) if with_causes(&error).contains("10059") => return Ok(Foreign::Any),
            Err(error) => return Err(away(&what, &error)),
        };
        let last = info.state.last_sequence;
        let was_lost = self.went_back
            || last < self.seen
            || self.ours.last().is_some_and(|&ours| last < ours)
            || info.state.subjects_count < records
            || info.created.unix_timestamp_nanos() != self.created;
        if was_lost {
            return Ok(Foreign::Any);
        }
        if last - self.seen - self.ours.len() as u64 > GAPS_MAX as u64 {
            return Ok(Foreign::Any);
        }
        let gaps: Vec<u64> =
            (self.seen + 1..=last).filter(|sequence| !self.ours.contains(sequence)).collect();
        let mut keys = BTreeSet::new();
        for some in gaps.chunks(READS) {
            for message in join_all(some.iter().map(|&sequence| stream.get_raw_message(sequence))).await {
                match message {
                    Ok(message) => match self.key(&message.subject) {
                        Some(key) => _ = keys.insert(key),
                        None => _ = self.strangers.insert(message.subject.to_string()),
                    },
                    // A later message has taken its place. That one is ours, or is in a gap too.
                    Err(error) if with_causes(&error).contains("10037") => {}
                    Err(error) => return Err(away(&what, &error)),
                }
            }
        }
        self.seen = last;
        self.ours.clear();
        Ok(if keys.is_empty() { Foreign::None } else { Foreign::Keys(keys.into_iter().collect()) })
    }
}

impl Sink for Bucket<'_> {
    type Error = NatsError;

    fn label(&self) -> String {
        format!("nats-{}", self.options.name)
    }

    fn list(
        &mut self,
        with_data: bool,
        each: &mut dyn FnMut(RecordKey, KeyState, &[u8]),
    ) -> Result<(), NatsError> {
        let connection = self.connection;
        connection.ask(self.list_stream(with_data, each))
    }

    fn apply(&mut self, writes: &[Wanted]) -> Result<Vec<Answer>, NatsError> {
        let connection = self.connection;
        connection.run(self.publish(writes))
    }

    fn read(&mut self, keys: &[RecordKey]) -> Result<Vec<KeyState>, NatsError> {
        if let Some(failed) = self.failed.take() {
            return Err(NatsError::Away(failed));
        }
        self.connection.ask(self.states(keys))
    }

    fn foreign(&mut self, records: u64) -> Result<Foreign, NatsError> {
        let connection = self.connection;
        connection.ask(self.strange(records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_out_of_order_are_accounted_for() {
        let (mut seen, mut ours) = (4, BTreeSet::from([5, 6, 8]));
        advance(&mut seen, &mut ours);
        assert_eq!((seen, ours.len()), (6, 1));
        ours.insert(7);
        advance(&mut seen, &mut ours);
        assert_eq!((seen, ours.len()), (8, 0));
    }

    #[test]
    fn a_name_that_no_bucket_can_have_is_refused() {
        for name in ["", "a.b", "a b", "a>", "ä"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("Ab-1_2").is_ok());
    }
}
