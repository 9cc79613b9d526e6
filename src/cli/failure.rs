//! The failure of a command: its message and its exit code.

use std::io;

use recstore::Error;

/// The record is absent.
const ABSENT: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// The store is damaged.
pub(crate) const DAMAGED: u8 = 3;
/// The file is not a store.
pub(crate) const NOT_A_STORE: u8 = 5;
/// Any other failure.
const OTHER: u8 = 4;
/// Another process holds a lock; nothing was changed.
const BUSY: u8 = 6;
/// Done, but not flushed to disk yet.
const UNFLUSHED: u8 = 7;

const SIGPIPE: u8 = 13;

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The record is not there.
    Absent(String),
    /// The arguments do not fit together, or do not fit the store.
    Usage(String),
    /// Damage was found, and has been listed.
    Damaged(String),
    /// The command is done, but its writes could not be flushed to disk, because another process is inside a region.
    Unflushed(String),
    /// The library refused.
    Store(Error),
    /// A writer process of `load` failed; this is the same failure in the process that started it.
    Writer {
        /// Its exit code.
        code: u8,
        /// Its message.
        message: String,
    },
    /// Has been reported elsewhere; only the exit code is left to give.
    Reported {
        /// The exit code.
        code: u8,
    },
    /// Anything else: input, output, processes.
    Other(String),
    /// The reader of the output has closed it.
    ClosedPipe,
    /// A signal asked for the end.
    Interrupted {
        /// Its number.
        signal: u8,
        /// The work that was done until then.
        message: String,
    },
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Absent(_) => ABSENT,
            Self::Usage(_) => USAGE,
            Self::Damaged(_) => DAMAGED,
            Self::Unflushed(_) => UNFLUSHED,
            Self::Store(error) => match error {
                Error::Corrupt { .. }
                | Error::Damaged { .. }
                | Error::Truncated { .. }
                | Error::NeedsRepair { .. } => DAMAGED,
                Error::Busy { .. } => BUSY,
                Error::NotAStore { .. } => NOT_A_STORE,
                Error::InvalidOption { .. } | Error::NoSuchPlace { .. } => USAGE,
                _ => OTHER,
            },
            Self::Writer { code, .. } | Self::Reported { code } => *code,
            Self::Other(_) => OTHER,
            Self::ClosedPipe => 128 + SIGPIPE,
            Self::Interrupted { signal, .. } => 128 + signal,
        }
    }

    /// The message for standard error, if there is one.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::Absent(message)
            | Self::Usage(message)
            | Self::Damaged(message)
            | Self::Unflushed(message)
            | Self::Writer { message, .. }
            | Self::Other(message)
            | Self::Interrupted { message, .. } => Some(message.clone()),
            Self::Store(error) => Some(match error {
                Error::NetworkFileSystem { .. } => {
                    format!("{error} (here: --allow-network-file-system)")
                }
                _ => error.to_string(),
            }),
            Self::Reported { .. } | Self::ClosedPipe => None,
        }
    }

    /// The same failure, with more to say about it.
    pub(crate) fn and(mut self, more: &str) -> Self {
        match &mut self {
            Self::Absent(message)
            | Self::Usage(message)
            | Self::Damaged(message)
            | Self::Unflushed(message)
            | Self::Writer { message, .. }
            | Self::Other(message)
            | Self::Interrupted { message, .. } => *message = format!("{message}; {more}"),
            Self::Store(_) => {
                let message = self.message().unwrap_or_default();
                return Self::Writer { code: self.code(), message: format!("{message}; {more}") };
            }
            Self::Reported { .. } | Self::ClosedPipe => {}
        }
        self
    }

    /// The failure to write to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Other(format!("standard output: {error}")),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}
