//! Opening the store of a command: the options that every command takes, and the notes about a store that was created or repaired.

use std::path::Path;
use std::time::Duration;

use recstore::{Error, Options, RepairReport, Store};

use super::failure::Failure;
use super::output::{counted, note, say};

/// The capacity of a record in a store that a command creates on its own, in bytes.
const RECORD_SIZE_DEFAULT: usize = 1 << 20;

/// A command that has written waits this long for other processes, and then says that its writes are not on disk yet.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a wait of this length a notice names the lock and its holder.
const NOTICE_AFTER: Duration = Duration::from_secs(2);
/// It waits this long to mark the store clean.
const PATIENCE_FOR_THE_MARK: Duration = Duration::from_millis(100);

/// Heads the options that every command takes, below its own.
const COMMON: &str = "Common options";

/// The options that every command takes.
#[derive(clap::Args, Clone)]
pub(crate) struct Access {
    /// Give up after waiting this long for a lock that another process holds: the error names both. The default
    /// is to wait
    #[arg(long, global = true, value_name = "SECONDS", value_parser = parse_seconds, env = "RECSTORE_LOCK_TIMEOUT", help_heading = COMMON)]
    lock_timeout: Option<Duration>,
    /// Use a store on a network or host-shared file system; safe only while one machine has it open
    #[arg(long, global = true, env = "RECSTORE_ALLOW_NETWORK_FILE_SYSTEM", help_heading = COMMON)]
    allow_network_file_system: bool,
    /// Print only errors
    #[arg(long, short, global = true, env = "RECSTORE_QUIET", help_heading = COMMON)]
    pub(crate) quiet: bool,
}

impl Access {
    /// The library's options for these arguments.
    pub(crate) fn options(&self) -> Options {
        Store::options()
            .lock_timeout(self.lock_timeout)
            .on_wait(NOTICE_AFTER, |busy| {
                say(format_args!(
                    "waiting: {busy}; Ctrl-C gives up, and --lock-timeout SECONDS does so by itself"
                ));
            })
            .allow_network_file_system(self.allow_network_file_system)
    }

    /// The arguments that give another `recstore` process the same options.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(timeout) = self.lock_timeout {
            arguments.push(format!("--lock-timeout={}", timeout.as_secs_f64()));
        }
        if self.allow_network_file_system {
            arguments.push("--allow-network-file-system".into());
        }
        arguments
    }

    /// Opens the store to look at it as it is. Nothing is written, even if the store needs recovery.
    pub(crate) fn look(&self, path: &Path) -> Result<Store, Failure> {
        Ok(self.options().open_read_only(path)?)
    }

    /// Opens the store to read records. A store that was not opened since a crash is recovered first, if its file may be written. So
    /// reading needs no manual step.
    pub(crate) fn read(&self, path: &Path) -> Result<Store, Failure> {
        match self.options().open_read_only(path) {
            Err(needs_repair @ Error::NeedsRepair { .. }) => match self.options().open(path) {
                Ok(store) => {
                    say_repaired(path, store.opened());
                    Ok(store)
                }
                Err(error) => {
                    say(format_args!("{error}"));
                    Err(needs_repair.into())
                }
            },
            opened => Ok(opened?),
        }
    }

    /// Opens the store to write to it.
    pub(crate) fn write(&self, path: &Path) -> Result<Store, Failure> {
        let store = self.options().open(path)?;
        say_repaired(path, store.opened());
        Ok(store)
    }

    /// Flushes the writes of a command. It waits a moment for writers in other regions, and no longer: the writes of the command are
    /// done.
    pub(crate) fn settle(&self, store: Store) -> Result<(), Failure> {
        let path = store.path().to_owned();
        match store.close_timeout(self.lock_timeout.unwrap_or(PATIENCE)) {
            Err(busy @ Error::Busy { .. }) => Err(Failure::Unflushed(format!(
                "{}: done, and no process's death undoes it; but not flushed to disk yet: {busy}",
                path.display()
            ))),
            closed => Ok(closed?),
        }
    }

    /// Leaves a store in which all writes of the command are on disk already.
    pub(crate) fn leave(&self, store: Store) -> Result<(), Failure> {
        match store.close_timeout(PATIENCE_FOR_THE_MARK) {
            // The last one to close it marks it clean.
            Err(Error::Busy { .. }) => Ok(()),
            closed => Ok(closed?),
        }
    }

    /// Opens the store to write a record of `len` bytes to it; creates it if it is absent, and says so: with defaults, or for records of
    /// this length if they are longer.
    pub(crate) fn write_or_create(&self, path: &Path, len: usize) -> Result<Store, Failure> {
        match self.options().open(path) {
            Err(Error::NotFound { .. }) => {}
            opened => {
                let store = opened?;
                say_repaired(path, store.opened());
                return Ok(store);
            }
        }
        let longest = len.max(RECORD_SIZE_DEFAULT);
        match self.options().record_size(longest).create(path) {
            Ok(store) => {
                note(format_args!("{}: created, for records of up to {longest} bytes", path.display()));
                Ok(store)
            }
            // Another process was faster.
            Err(Error::AlreadyExists { .. }) => self.write(path),
            Err(error) => Err(error.into()),
        }
    }
}

/// Says what opening the store repaired. For a healthy store it says nothing.
pub(crate) fn say_repaired(path: &Path, report: &RepairReport) {
    if report.is_empty() {
        return;
    }
    let why =
        if report.os_crash { "the system went down while it was in use" } else { "a process died in it" };
    say(format_args!(
        "{}: {why}; {} rebuilt, {} made, {} dropped",
        path.display(),
        counted(report.regions_rebuilt.len() as u64, "region"),
        counted(report.fixed.len() as u64, "repair"),
        counted(report.dropped.len() as u64, "record")
    ));
    for dropped in &report.dropped {
        say(format_args!("dropped: {dropped}"));
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{text}` is not a number of seconds; use one such as 2 or 0.5"))
}
