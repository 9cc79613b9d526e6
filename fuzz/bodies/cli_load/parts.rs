//! The part of `load` that turns lines into records for the writers, and a stand-in for the rest.

#[path = "../../../src/cli/load/chunk.rs"]
pub(super) mod chunk;
#[path = "../../../src/cli/load/csv.rs"]
pub(super) mod csv;
#[path = "../../../src/cli/load/id_from.rs"]
pub(super) mod id_from;
#[path = "../../../src/cli/load/input.rs"]
pub(super) mod input;
#[path = "../../../src/cli/load/lines.rs"]
pub(super) mod lines;
#[path = "../../../src/cli/load/on_error.rs"]
pub(super) mod on_error;
#[path = "../../../src/cli/load/rows.rs"]
pub(super) mod rows;

/// What the reader tells the loop at the middle, and how the reader gets its thread; whose end is waited for here.
pub(super) mod event {
    use std::cell::RefCell;
    use std::thread::{Builder, JoinHandle};

    use super::super::failure::Failure;
    use super::chunk::Chunk;

    /// Of the events, the two that the reader sends.
    pub(in super::super) enum Event {
        Batch(Batch),
        InputEnd(Result<(), String>),
    }

    /// The records that one read gave.
    pub(in super::super) struct Batch {
        pub(in super::super) chunks: Vec<(usize, Chunk)>,
        pub(in super::super) position: u64,
        pub(in super::super) line: u64,
        pub(in super::super) rejected: u64,
        pub(in super::super) reasons: Vec<String>,
    }

    thread_local! {
        static THREAD: RefCell<Option<JoinHandle<()>>> = const { RefCell::new(None) };
    }

    pub(super) fn spawn_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let thread = Builder::new().name(name.into()).spawn(body).expect("a thread");
        THREAD.set(Some(thread));
        Ok(())
    }

    /// Waits for the last thread that was started from here.
    pub(in super::super) fn join() {
        if let Some(thread) = THREAD.take() {
            thread.join().expect("a thread that does not panic");
        }
    }
}
