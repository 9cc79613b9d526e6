//! The command line.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use recstore::mirror::{
    Comparison, Directory, DirectoryError, Mirror, MirrorError, RecordKey, Sink, compare,
};
use recstore::{Error, Options, Store};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::bucket::{Bucket, BucketOptions};
use crate::connect::{Connect, Connection, NatsError};
use crate::monitor;
use crate::pull::{PullError, PullOptions, Replica};

const DIFFERS: u8 = 1;
const USAGE: u8 = 2;
const DAMAGED: u8 = 3;
const OTHER: u8 = 4;
const NOT_A_STORE: u8 = 5;
const BUSY: u8 = 6;

/// How long a step waits for a change.
const STEP: Duration = Duration::from_millis(200);
/// The longest pause after an error.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// `--once` without a server, and without progress.
const ONCE_GIVES_UP_AFTER: Duration = Duration::from_secs(60);
/// A mirror that runs has this long to send what a comparison found.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys that are named of each kind.
const NAMED: usize = 20;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the two differ (--verify), or values were refused (--once)
  2  the command line is wrong
  3  the store is damaged
  4  any other failure: no server, another store's bucket, a server that is too old
  5  the file is not a store
  6  busy: another mirror of the bucket, or another pull into the store, runs
  128 + N  ended by signal N; the state is safe at any moment, also after kill -9";

/// A store as the local end of NATS JetStream; `recstore mirror` and `recstore pull` start it.
#[derive(Parser)]
#[command(name = "recstore-nats", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Access {
    /// Give up after this many seconds if another process holds a lock of the store
    #[arg(long, global = true, value_name = "SECONDS", env = "RECSTORE_LOCK_TIMEOUT", value_parser = parse_seconds)]
    lock_timeout: Option<Duration>,
    /// Open a store on a network file system, which only one host may use
    #[arg(long, global = true)]
    allow_network_file_system: bool,
    /// Print only errors
    #[arg(short, long, global = true, env = "RECSTORE_QUIET")]
    quiet: bool,
}

impl Access {
    fn options(&self) -> Options {
        Store::options()
            .lock_timeout(self.lock_timeout)
            .on_wait(Duration::from_secs(2), |busy| say(format_args!("waiting: {busy}")))
            .allow_network_file_system(self.allow_network_file_system)
    }
}

#[derive(Subcommand)]
enum Command {
    Mirror(MirrorCommand),
    Pull(PullCommand),
}

/// Keep a bucket of NATS JetStream equal to a store, while others write to the store
///
/// At first everything that differs is sent, then each change. The bucket never has what a loss of power could undo here, and no
/// record there goes back to an earlier version. Several changes of a record before it is sent arrive as one. Batches are not atomic in the
/// bucket. A record with id N is the key N; a key of a space has each byte but letters, digits, - _ and single dots as = and two digits. An
/// interruption at any moment is safe: the next start sends what is missing.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore mirror s.rec nats://a,b,c --bucket readings
  recstore mirror s.rec --context prod --bucket sessions --space sessions --json
  recstore mirror s.rec nats://a --bucket readings --once      copy and end, for cron
  recstore mirror s.rec nats://a --bucket readings --verify    compare every byte; exit code 1 if they differ
  recstore mirror s.rec file:///var/copies/s                   a directory with a file for each record")]
struct MirrorCommand {
    /// The store
    store: PathBuf,
    /// The servers: nats://HOST[:PORT], tls://..; several with commas. Or file:DIRECTORY
    #[arg(env = "NATS_URL")]
    url: Option<String>,
    /// The bucket; it is created if it is absent
    #[arg(short, long, value_name = "NAME")]
    bucket: Option<String>,
    /// Mirror the records of this space, which are found by keys, and not those that are found by ids
    #[arg(long, value_name = "NAME")]
    space: Option<String>,
    /// End when the bucket equals the store
    #[arg(long)]
    once: bool,
    /// Compare the bucket with the store, byte by byte, and change nothing. With --once: after the copy
    #[arg(long)]
    verify: bool,
    /// Print an object a second, and one at the end: records, due, sent, deleted, refused, lag_ms, ..
    #[arg(long)]
    json: bool,
    /// Copies that the cluster keeps, if the bucket is created; 3 in a cluster, 1 otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
    /// Overwrite a bucket that is the mirror of another store, or that has values and is no mirror
    #[arg(long)]
    take_over: bool,
    /// If another mirror of the bucket runs, wait for its end and succeed it at once
    #[arg(long)]
    standby: bool,
    /// End if the servers are away for this long; without it, never (with --once: 60)
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    give_up_after: Option<Duration>,
    /// The monitoring port of a server, as in http://host:8222: warns if the server flushes too rarely for an acknowledgement to mean a disk
    #[arg(long, value_name = "URL")]
    monitor: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

/// Keep a store equal to a bucket: a local replica, read at the speed of memory
///
/// The store is created if it is absent, with records as large as the largest value needs. Nobody else may write to it: the file is made
/// read-only, and a record that somebody wrote all the same ends the pull. Programs open the store with `open_read_only`. An interruption
/// at any moment is safe.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore pull nats://a,b,c replica.rec --bucket readings
  recstore pull nats://a replica.rec --bucket readings --once
  recstore pull nats://a config.rec --bucket config --space config    a bucket that is not the mirror of a store")]
struct PullCommand {
    /// The servers: nats://HOST[:PORT], tls://..; several with commas
    url: String,
    /// The store
    store: PathBuf,
    /// The bucket
    #[arg(short, long, value_name = "NAME")]
    bucket: String,
    /// The space for the records; by default the one that is mirrored, or records by id
    #[arg(long, value_name = "NAME")]
    space: Option<String>,
    /// End when the store equals the bucket
    #[arg(long)]
    once: bool,
    /// Print an object a second, and one at the end: records, behind, written, deleted, refused, ..
    #[arg(long)]
    json: bool,
    /// Overwrite what others wrote to the store, and a store that is no replica
    #[arg(long)]
    overwrite: bool,
    /// Leave the file writable for others
    #[arg(long)]
    writable: bool,
    /// Bytes of a record, if the store is created
    #[arg(long, value_name = "BYTES")]
    record_size: Option<usize>,
    /// End if the servers are away for this long; without it, never (with --once: 60)
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    give_up_after: Option<Duration>,
    #[command(flatten)]
    connect: Connect,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{text}` is not a number of seconds; use one such as 2 or 0.5"))
}

/// The end of a command that failed.
struct Failure {
    code: u8,
    message: Option<String>,
    signal: Option<i32>,
}

impl Failure {
    fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: Some(message.to_string()), signal: None }
    }
}

fn code_of(error: &Error) -> u8 {
    match error {
        Error::Corrupt { .. }
        | Error::Damaged { .. }
        | Error::Truncated { .. }
        | Error::NeedsRepair { .. } => DAMAGED,
        Error::Busy { .. } => BUSY,
        Error::NotAStore { .. } => NOT_A_STORE,
        Error::InvalidOption { .. } => USAGE,
        _ => OTHER,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(code_of(&error), error)
    }
}

impl From<NatsError> for Failure {
    fn from(error: NatsError) -> Self {
        Self::new(OTHER, error)
    }
}

fn say(message: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "recstore: {message}");
}

/// The signal that asked for the end; 0: none.
#[derive(Clone)]
struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// The first signal asks; the second one ends the process, which is safe too.
    fn register() -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the flag is set after it was looked at.
            let _ = signal_hook::flag::register_conditional_default(signal, again.clone());
            let _ = signal_hook::flag::register(signal, again.clone());
            let _ = signal_hook::flag::register_usize(signal, asked.clone(), signal as usize);
        }
        Self(asked)
    }

    fn asked(&self) -> Option<i32> {
        i32::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|&signal| signal != 0)
    }

    fn check(&self) -> Result<(), Failure> {
        self.asked().map_or(Ok(()), |signal| {
            Err(Failure { code: 128u8.saturating_add(signal as u8), message: None, signal: Some(signal) })
        })
    }

    /// Waits, unless a signal comes.
    fn pause(&self, length: Duration) -> Result<(), Failure> {
        let until = Instant::now() + length;
        while Instant::now() < until {
            self.check()?;
            std::thread::sleep(
                Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())),
            );
        }
        self.check()
    }
}

/// Tries again after failures that may pass, with growing pauses; tells each failure once.
struct Patience<'s> {
    stop: &'s Stop,
    gives_up_after: Option<Duration>,
    since: Option<Instant>,
    pause: Duration,
    told: String,
    quiet: bool,
}

impl<'s> Patience<'s> {
    fn new(stop: &'s Stop, quiet: bool, once: bool, given: Option<Duration>) -> Self {
        let gives_up_after = given.or_else(|| once.then_some(ONCE_GIVES_UP_AFTER));
        Self {
            stop,
            gives_up_after,
            since: None,
            pause: Duration::from_millis(50),
            told: String::new(),
            quiet,
        }
    }

    fn failed(&mut self, code: u8, why: &str) -> Result<(), Failure> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.gives_up_after.is_some_and(|limit| since.elapsed() >= limit) {
            return Err(Failure::new(
                code,
                format_args!("{why}; gave up after {:.0} s", since.elapsed().as_secs_f64()),
            ));
        }
        if self.told != why {
            say(format_args!("{why}; trying again"));
            self.told = why.to_owned();
        }
        self.stop.pause(self.pause)?;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }

    fn succeeded(&mut self) {
        if self.since.take().is_some() && !self.quiet {
            say(format_args!("goes on"));
        }
        self.told.clear();
        self.pause = Duration::from_millis(50);
    }
}

fn connect(
    url: &str,
    options: &Connect,
    patience: &mut Patience<'_>,
    quiet: bool,
) -> Result<Connection, Failure> {
    loop {
        match Connection::open(url, options) {
            Ok(connection) => {
                patience.succeeded();
                if !quiet {
                    say(format_args!("connected to {}", connection.server()));
                }
                return Ok(connection);
            }
            Err(NatsError::Away(why)) => patience.failed(OTHER, &why)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// A line of progress, on a terminal.
fn progress(quiet: bool) -> ProgressBar {
    let is_shown = !quiet
        && std::io::stderr().is_terminal()
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let target = if is_shown { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    match ProgressStyle::with_template("{elapsed_precise} {spinner} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn print(value: &serde_json::Value) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}").and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure { code: 141, message: None, signal: None },
        _ => Failure::new(OTHER, format_args!("standard output: {error}")),
    })
}

/// What the command needs of a place, beyond a sink.
trait Place: Sink {
    fn may_pass(error: &Self::Error) -> bool;
    fn notes(&mut self) -> Vec<String>;
    fn breathe(&mut self);
    fn losses(&self) -> u64;
}

struct Nats<'c> {
    bucket: Bucket<'c>,
    connection: &'c Connection,
}

impl Sink for Nats<'_> {
    type Error = NatsError;

    fn label(&self) -> String {
        self.bucket.label()
    }

    fn list(
        &mut self,
        with_data: bool,
        each: &mut dyn FnMut(RecordKey, recstore::mirror::KeyState, &[u8]),
    ) -> Result<(), NatsError> {
        self.bucket.list(with_data, each)
    }

    fn apply(
        &mut self,
        writes: &[recstore::mirror::Wanted],
    ) -> Result<Vec<recstore::mirror::Answer>, NatsError> {
        self.bucket.apply(writes)
    }

    fn read(&mut self, keys: &[RecordKey]) -> Result<Vec<recstore::mirror::KeyState>, NatsError> {
        self.bucket.read(keys)
    }

    fn foreign(&mut self, records: u64) -> Result<recstore::mirror::Foreign, NatsError> {
        self.bucket.foreign(records)
    }
}

impl Place for Nats<'_> {
    fn may_pass(error: &NatsError) -> bool {
        matches!(error, NatsError::Away(_))
    }

    fn notes(&mut self) -> Vec<String> {
        let strangers = self.bucket.strangers();
        strangers.into_iter().map(|subject| format!("{subject} is no key of the store; left alone")).collect()
    }

    fn breathe(&mut self) {
        self.connection.breathe();
    }

    fn losses(&self) -> u64 {
        self.connection.losses()
    }
}

impl Place for Directory {
    fn may_pass(error: &DirectoryError) -> bool {
        matches!(error, DirectoryError::Io { .. }) // A full disk, above all.
    }

    fn notes(&mut self) -> Vec<String> {
        Vec::new()
    }

    fn breathe(&mut self) {}

    fn losses(&self) -> u64 {
        0
    }
}

impl MirrorCommand {
    fn run(mut self, access: &Access, stop: &Stop) -> Result<(), Failure> {
        let store = access.options().open(&self.store)?;
        let target = self.url.clone().unwrap_or_default();
        let done = if let Some(directory) = target.strip_prefix("file:") {
            let directory = directory.strip_prefix("//").unwrap_or(directory);
            self.mirror(access, stop, &store, &target, &|| {
                Directory::open(directory, &store, self.space.as_deref())
                    .map_err(|error| Failure::new(OTHER, error))
            })
        } else {
            let Some(bucket) = self.bucket.clone() else {
                return Err(Failure::new(USAGE, "the bucket is missing; name it with --bucket NAME"));
            };
            let url = self.connect.resolve(self.url.take())?;
            if let Some(warning) = self.monitor.as_ref().and_then(|url| monitor::warning(url)) {
                say(format_args!("{warning}"));
            }
            let mut patience =
                Patience::new(stop, access.quiet, self.once || self.verify, self.give_up_after);
            let connection = connect(&url, &self.connect, &mut patience, access.quiet)?;
            let options = BucketOptions {
                name: bucket.clone(),
                replicas: self.replicas.map(usize::from),
                take_over: self.take_over,
            };
            self.mirror(access, stop, &store, &bucket, &|| {
                let bucket = Bucket::new(&connection, &store, self.space.as_deref(), options.clone())?;
                Ok(Nats { bucket, connection: &connection })
            })
        };
        // All that was sent is flushed. The last one to close a store marks it clean; a busy one stays as it is.
        match store.close_timeout(Duration::from_millis(200)) {
            Err(error) if !matches!(error, Error::Busy { .. }) => done.and(Err(error.into())),
            _ => done,
        }
    }

    fn mirror<P: Place>(
        &self,
        access: &Access,
        stop: &Stop,
        store: &Store,
        target: &str,
        make: &dyn Fn() -> Result<P, Failure>,
    ) -> Result<(), Failure> {
        if self.verify && !self.once {
            let mut patience = Patience::new(stop, access.quiet, true, self.give_up_after);
            return self.compare(store, target, &mut make()?, &mut patience);
        }
        let mut is_told = false;
        let mut mirror = loop {
            let mut place = make()?;
            place.breathe();
            match Mirror::start(store, self.space.as_deref(), place) {
                Ok(mirror) => break mirror,
                Err(error @ MirrorError::Running { .. }) if self.standby => {
                    if !is_told && !access.quiet {
                        say(format_args!("{error}: standing by"));
                    }
                    is_told = true;
                    stop.pause(Duration::from_millis(50))?;
                }
                Err(error) => return Err(failure_of(&error)),
            }
        };
        let bar = progress(access.quiet || self.json);
        let mut patience = Patience::new(stop, access.quiet, self.once, self.give_up_after);
        let mut printed = Instant::now();
        let started = Instant::now();
        let mut was_equal = false;
        let ended = loop {
            if let Err(stopped) = stop.check() {
                break Err(stopped);
            }
            let stepped = mirror.step(if self.once { Duration::ZERO } else { STEP });
            for note in mirror.sink().notes() {
                say(format_args!("{note}"));
            }
            mirror.sink().breathe();
            let is_equal = match stepped {
                Ok(wave) => {
                    patience.succeeded();
                    for (key, why) in &wave.refused {
                        say(format_args!("{}: not mirrored: {why}", key.to_name()));
                    }
                    wave.is_equal
                }
                Err(error) => {
                    if let Err(failure) = self.after(&error, &mut patience, P::may_pass) {
                        break Err(failure);
                    }
                    false
                }
            };
            let stats = mirror.stats();
            bar.set_message(format!(
                "{} records there, {} due, {} sent, {} deleted, lag {:.1} ms (p99)",
                stats.records,
                stats.due,
                stats.sent,
                stats.deleted,
                stats.lag_p99.as_secs_f64() * 1e3
            ));
            bar.tick();
            if self.json && printed.elapsed() >= Duration::from_secs(1) {
                printed = Instant::now();
                print(&self.numbers(&mut mirror, target, is_equal))?;
            }
            if is_equal && !was_equal && !self.once && !access.quiet {
                was_equal = true;
                bar.suspend(|| {
                    say(format_args!(
                        "{target} equals the store after {:.1} s: {} records; following",
                        started.elapsed().as_secs_f64(),
                        stats.records
                    ));
                });
            }
            if self.once && is_equal {
                match mirror.is_settled() {
                    Ok(true) => break Ok(()),
                    Ok(false) => {}
                    Err(error) => {
                        if let Err(failure) = self.after(&error, &mut patience, P::may_pass) {
                            break Err(failure);
                        }
                    }
                }
            }
        };
        bar.finish_and_clear();
        let stats = mirror.stats();
        if self.json {
            print(&self.numbers(&mut mirror, target, ended.is_ok()))?;
        } else if !access.quiet {
            say(format_args!(
                "{target}: {} records; {} sent, {} deleted, {} refused in {:.1} s",
                stats.records,
                stats.sent,
                stats.deleted,
                stats.refused,
                started.elapsed().as_secs_f64()
            ));
        }
        ended?;
        if self.verify {
            self.compare(store, target, mirror.sink(), &mut patience)?;
        }
        if stats.refused > 0 {
            return Err(Failure { code: DIFFERS, message: None, signal: None });
        }
        Ok(())
    }

    fn numbers<P: Place>(
        &self,
        mirror: &mut Mirror<'_, P>,
        target: &str,
        is_equal: bool,
    ) -> serde_json::Value {
        let stats = mirror.stats();
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        json!({
            "target": target, "space": self.space, "equal": is_equal, "records": stats.records, "due": stats.due,
            "sent": stats.sent, "deleted": stats.deleted, "bytes": stats.bytes, "refused": stats.refused,
            "foreign": stats.foreign, "comparisons": stats.comparisons, "connections_lost": mirror.sink().losses(),
            "lag_ms": ms(stats.lag), "lag_p50_ms": ms(stats.lag_p50), "lag_p99_ms": ms(stats.lag_p99),
        })
    }

    /// Waits after an error that may pass.
    fn after<E: std::error::Error + 'static>(
        &self,
        error: &MirrorError<E>,
        patience: &mut Patience<'_>,
        may_pass: fn(&E) -> bool,
    ) -> Result<(), Failure> {
        match error {
            MirrorError::Sink(inner) if may_pass(inner) => patience.failed(OTHER, &error.to_string()),
            MirrorError::Store(Error::Busy { .. }) => patience.failed(BUSY, &error.to_string()),
            _ => Err(failure_of(error)),
        }
    }

    fn compare<P: Place>(
        &self,
        store: &Store,
        target: &str,
        place: &mut P,
        patience: &mut Patience<'_>,
    ) -> Result<(), Failure> {
        let found = loop {
            match compare(store, self.space.as_deref(), place, PATIENCE) {
                Ok(found) => break found,
                Err(error) => self.after(&error, patience, P::may_pass)?,
            }
        };
        if self.json {
            let names = |keys: &[RecordKey]| keys.iter().map(RecordKey::to_name).collect::<Vec<_>>();
            print(&json!({
                "target": target, "space": self.space, "equal": found.is_equal(), "records": found.records,
                "missing": names(&found.missing), "extra": names(&found.extra), "differing": names(&found.differing),
            }))?;
        }
        if found.is_equal() {
            if !self.json {
                say(format_args!("{target} equals the store: {} records", found.records));
            }
            return Ok(());
        }
        let Comparison { missing, extra, differing, .. } = &found;
        for (keys, what) in
            [(missing, "is missing there"), (extra, "is there and not in the store"), (differing, "differs")]
        {
            for key in keys.iter().take(NAMED) {
                say(format_args!("{}: {what}", key.to_name()));
            }
            if keys.len() > NAMED {
                say(format_args!("and {} more: {what}", keys.len() - NAMED));
            }
        }
        Err(Failure::new(
            DIFFERS,
            format_args!(
                "{target} differs from the store: {} missing, {} extra, {} with other versions or bytes; `recstore mirror` sends those with other \
                 versions, and a delete there heals the rest",
                missing.len(),
                extra.len(),
                differing.len()
            ),
        ))
    }
}

fn failure_of<E: std::error::Error + 'static>(error: &MirrorError<E>) -> Failure {
    let code = match error {
        MirrorError::Store(error) => code_of(error),
        MirrorError::Running { .. } => BUSY,
        _ => OTHER,
    };
    Failure::new(code, error)
}

impl PullCommand {
    fn run(mut self, access: &Access, stop: &Stop) -> Result<(), Failure> {
        let url = self.connect.resolve(Some(self.url.clone()))?;
        let mut patience = Patience::new(stop, access.quiet, self.once, self.give_up_after);
        let connection = connect(&url, &self.connect, &mut patience, access.quiet)?;
        let options = PullOptions {
            bucket: self.bucket.clone(),
            space: self.space.clone(),
            overwrite: self.overwrite,
            writable: self.writable,
            record_size: self.record_size,
        };
        let mut replica = loop {
            match Replica::open(&connection, &self.store, &access.options(), options.clone()) {
                Ok(replica) => break replica,
                Err(error) => after_pull(&error, &mut patience)?,
            }
        };
        patience.succeeded();
        let bar = progress(access.quiet || self.json);
        let (started, mut printed) = (Instant::now(), Instant::now());
        let mut was_equal = false;
        let ended = loop {
            if let Err(stopped) = stop.check() {
                break Err(stopped);
            }
            let stepped = replica.step(STEP);
            for why in replica.refusals() {
                say(format_args!("{why}: not taken"));
            }
            let is_equal = match stepped {
                Ok(is_equal) => {
                    patience.succeeded();
                    is_equal
                }
                Err(error) => {
                    if let Err(failure) = after_pull(&error, &mut patience) {
                        break Err(failure);
                    }
                    false
                }
            };
            let stats = replica.stats;
            bar.set_message(format!(
                "{} written, {} deleted, {} behind",
                stats.written, stats.deleted, stats.behind
            ));
            bar.tick();
            if self.json && printed.elapsed() >= Duration::from_secs(1) {
                printed = Instant::now();
                print(&self.numbers(&replica, is_equal)?)?;
            }
            if is_equal && !was_equal && !self.once && !access.quiet {
                was_equal = true;
                bar.suspend(|| {
                    say(format_args!(
                        "the store equals {} after {:.1} s; following",
                        self.bucket,
                        started.elapsed().as_secs_f64()
                    ));
                });
            }
            if self.once && is_equal {
                break Ok(());
            }
        };
        bar.finish_and_clear();
        if self.json {
            print(&self.numbers(&replica, ended.is_ok())?)?;
        } else if !access.quiet {
            let stats = replica.stats;
            say(format_args!(
                "{}: {} written, {} deleted, {} refused in {:.1} s",
                self.store.display(),
                stats.written,
                stats.deleted,
                replica.refused(),
                started.elapsed().as_secs_f64()
            ));
        }
        let refused = replica.refused();
        if ended.is_ok() || ended.as_ref().is_err_and(|failure| failure.signal.is_some()) {
            replica.close().map_err(|error| Failure::new(OTHER, error))?;
        }
        ended?;
        if refused > 0 {
            return Err(Failure { code: DIFFERS, message: None, signal: None });
        }
        Ok(())
    }

    fn numbers(&self, replica: &Replica<'_>, is_equal: bool) -> Result<serde_json::Value, Failure> {
        let stats = replica.stats;
        Ok(json!({
            "bucket": self.bucket, "equal": is_equal, "records": replica.store().len()?, "written": stats.written,
            "deleted": stats.deleted, "bytes": stats.bytes, "refused": replica.refused(), "behind": stats.behind,
            "sequence": stats.sequence, "listings": stats.listings,
        }))
    }
}

fn after_pull(error: &PullError, patience: &mut Patience<'_>) -> Result<(), Failure> {
    match error {
        PullError::Nats(NatsError::Away(why)) => patience.failed(OTHER, why),
        PullError::Store(busy @ Error::Busy { .. }) => patience.failed(BUSY, &busy.to_string()),
        PullError::Store(error) => Err(Failure::new(code_of(error), error)),
        PullError::Running { .. } => Err(Failure::new(BUSY, error)),
        _ => Err(Failure::new(OTHER, error)),
    }
}

/// Runs the command line of this process and gives its exit code.
#[must_use]
pub fn run() -> ExitCode {
    #[cfg(feature = "testing")]
    if let Some(n) = std::env::var("RECSTORE_NATS_DIE_AT").ok().and_then(|n| n.parse().ok()) {
        recstore::testing::arm(n);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let stop = Stop::register();
    let done = match cli.command {
        Command::Mirror(command) => command.run(&cli.access, &stop),
        Command::Pull(command) => command.run(&cli.access, &stop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message {
                say(format_args!("{message}"));
            }
            if let Some(signal) = failure.signal {
                // By the signal, so that a shell ends its loop too.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            ExitCode::from(failure.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
