//! Events: the messages of the threads of a load (input, writers, signals) to its loop.

use std::thread;

use super::super::failure::Failure;
use super::chunk::{Chunk, Reply};

/// An event that the loop waits for.
pub(crate) enum Event {
    /// Rows were read.
    Batch(Batch),
    /// There are no more rows; or the next one is bad, or can't be read, with the reason.
    InputEnd(Result<(), String>),
    /// A writer reports.
    Reply { writer: usize, reply: Reply },
    /// A writer will report no more.
    Gone { writer: usize },
    /// A signal asks for the end.
    Signal(u8),
}

/// The records that one read gave.
pub(crate) struct Batch {
    /// Records and the number of the writer that they are for, from 0.
    pub(crate) chunks: Vec<(usize, Chunk)>,
    /// How many bytes of the input have been read up to and with these.
    pub(crate) position: u64,
    /// The records of all lines up to this one are in these or in earlier batches.
    pub(crate) line: u64,
    /// How many rows were rejected.
    pub(crate) rejected: u64,
    /// Why; of the first ones alone.
    pub(crate) reasons: Vec<String>,
}

/// Starts a thread that is never joined.
pub(crate) fn spawn_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    match thread::Builder::new().name(name.into()).spawn(body) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Other(format!("starting a thread: {error}"))),
    }
}
