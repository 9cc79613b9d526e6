//! The writer processes, in the process that deals records out to them.
//!
//! Each has two threads here: one feeds it, so that a full pipe delays no other writer, and one listens to it. Records that were dealt to
//! a writer are kept until it reports them. If the writer is killed, the kept records go to a new process in its place. A writer sees the
//! end of its input when this process ends in any way, and then ends too.

use std::collections::VecDeque;
use std::env;
use std::io::{BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use super::super::access::Access;
use super::super::failure::Failure;
use super::super::output::counted;
use super::chunk::{Chunk, Reply};
use super::event::{Event, spawn_thread};

/// A writer that was killed this often in a row, without having finished a single chunk, is not replaced again: every process that
/// touches these records is killed.
const FRUITLESS_MAX: u32 = 3;

/// All the writers of a load.
pub(crate) struct Writers {
    recipe: Recipe,
    writers: Vec<Writer>,
    /// No more records will come.
    closed: bool,
    /// How many processes were killed.
    pub(crate) killed: u64,
    /// How many records were taken over from them.
    pub(crate) taken_over: u64,
}

/// How to start a writer.
struct Recipe {
    program: PathBuf,
    arguments: Vec<String>,
    store: PathBuf,
    events: Sender<Event>,
}

struct Writer {
    child: Child,
    /// Leads to the thread that feeds the process; `None` once there is nothing more to come.
    feed: Option<Sender<Arc<Chunk>>>,
    /// The chunks that were dealt to it and not reported by it, in order.
    unreported: VecDeque<Arc<Chunk>>,
    /// Whether this process has reported anything.
    fruitful: bool,
    /// How many processes in its place were killed before they reported anything, the last ones in a row.
    fruitless: u32,
    /// It has ended and was not replaced.
    ended: bool,
    /// It has reported a failure: its remaining records go to no other writer.
    failed: bool,
}

impl Writers {
    /// Starts the processes.
    pub(crate) fn start(
        writers: usize,
        access: &Access,
        store: &Path,
        events: &Sender<Event>,
    ) -> Result<Self, Failure> {
        let recipe = Recipe {
            program: own_program(),
            arguments: access.arguments(),
            store: store.to_owned(),
            events: events.clone(),
        };
        let writers = (0..writers).map(|number| recipe.start(number)).collect::<Result<_, _>>()?;
        Ok(Self { recipe, writers, closed: false, killed: 0, taken_over: 0 })
    }

    /// Hands a chunk to a writer.
    pub(crate) fn deal(&mut self, number: usize, chunk: Chunk) {
        if let Some(writer) = self.writers.get_mut(number) {
            let chunk = Arc::new(chunk);
            if let Some(feed) = &writer.feed {
                // If the process is dead its replacement gets the chunk.
                let _ = feed.send(Arc::clone(&chunk));
            }
            writer.unreported.push_back(chunk);
        }
    }

    /// Says that no more records will come. The writers finish what they have, and end.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for writer in &mut self.writers {
            writer.feed = None;
        }
    }

    /// Whether any of them may still have something to report.
    pub(crate) fn running(&self) -> bool {
        self.writers.iter().any(|writer| !writer.ended)
    }

    /// Whether the writer is known to be at work in the middle of it: it has reported some of its
    /// records, and has others that it has not reported.
    pub(crate) fn in_the_middle(&self, number: usize) -> bool {
        self.writers.get(number).is_some_and(|writer| writer.fruitful && !writer.unreported.is_empty())
    }

    /// Whether the writer has reported anything.
    pub(crate) fn has_reported(&self, number: usize) -> bool {
        self.writers.get(number).is_some_and(|writer| writer.fruitful)
    }

    /// Kills a writer, as another program would.
    pub(crate) fn kill(&mut self, number: usize) -> Result<(), Failure> {
        match self.writers.get_mut(number).map(|writer| writer.child.kill()) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(Failure::Other(format!("killing writer {}: {error}", number + 1))),
        }
    }

    /// The writer has reported its next chunk: gives that chunk.
    pub(crate) fn reported(&mut self, number: usize) -> Option<Arc<Chunk>> {
        let writer = self.writers.get_mut(number)?;
        writer.fruitful = true;
        writer.fruitless = 0;
        writer.unreported.pop_front()
    }

    /// The writer has reported that it can't go on: gives the chunk that it was at, if any.
    pub(crate) fn failed(&mut self, number: usize) -> Option<Arc<Chunk>> {
        let writer = self.writers.get_mut(number)?;
        writer.failed = true;
        writer.feed = None;
        std::mem::take(&mut writer.unreported).pop_front()
    }

    /// The line of the first record that was dealt to the writer and not reported by it.
    pub(crate) fn first_unreported(&self, number: usize) -> Option<u64> {
        self.writers.get(number)?.unreported.front()?.first_line()
    }

    /// The writer has closed its end. If it was killed, it is replaced, and there is something to
    /// tell the user.
    pub(crate) fn gone(&mut self, number: usize) -> Result<Option<String>, Failure> {
        let Some(writer) = self.writers.get_mut(number) else {
            return Ok(None);
        };
        // From here on this process is not waited for again.
        writer.ended = true;
        let pid = writer.child.id();
        let name = format!("writer {} (process {pid})", number + 1);
        let status = writer.child.wait().map_err(|error| Failure::Other(format!("{name}: {error}")))?;
        let Some(signal) = status.signal() else {
            if writer.failed || (status.success() && self.closed && writer.unreported.is_empty()) {
                return Ok(None);
            }
            return Err(Failure::Other(format!("{name} ended before its work was done ({status})")));
        };
        self.killed += 1;
        let how = if signal == signal_hook::consts::SIGKILL { "was killed" } else { "died" };
        if writer.failed || (self.closed && writer.unreported.is_empty()) {
            return Ok(Some(format!("{name} {how} (signal {signal}), with all its records loaded")));
        }
        writer.fruitless = if writer.fruitful { 0 } else { writer.fruitless + 1 };
        if writer.fruitless >= FRUITLESS_MAX {
            return Err(Failure::Other(format!(
                "{name} {how} (signal {signal}), as did the {} before it, all without loading a single \
                 record; find out what kills them, and load the input again",
                FRUITLESS_MAX - 1
            )));
        }

        let mut replacement = self.recipe.start(number)?;
        replacement.fruitless = writer.fruitless;
        if let Some(feed) = &replacement.feed {
            for chunk in &writer.unreported {
                let _ = feed.send(Arc::clone(chunk));
            }
        }
        if self.closed {
            replacement.feed = None;
        }
        replacement.unreported = std::mem::take(&mut writer.unreported);
        let records = replacement.unreported.iter().map(|chunk| chunk.origins.len() as u64).sum();
        self.taken_over += records;
        let successor = replacement.child.id();
        *writer = replacement;
        Ok(Some(format!(
            "{name} {how} (signal {signal}); process {successor} takes over, with the {} that it had not reported",
            counted(records, "record")
        )))
    }
}

impl Recipe {
    fn start(&self, number: usize) -> Result<Writer, Failure> {
        let cannot = |error| Failure::Other(format!("starting writer {}: {error}", number + 1));
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .args(["load-writer", "--"])
            .arg(&self.store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the process that deals: it lets the writers finish what they have.
            .process_group(0)
            .spawn()
            .map_err(cannot)?;
        let (feed, chunks) = mpsc::channel();
        if let Some(stdin) = child.stdin.take() {
            spawn_thread("feed", move || feed_writer(stdin, &chunks))?;
        }
        if let Some(stdout) = child.stdout.take() {
            let events = self.events.clone();
            spawn_thread("listen", move || listen(number, stdout, &events))?;
        }
        Ok(Writer {
            child,
            feed: Some(feed),
            unreported: VecDeque::new(),
            fruitful: false,
            fruitless: 0,
            ended: false,
            failed: false,
        })
    }
}

/// Writes chunks into a writer's pipe until there are no more, or the pipe has no reader.
fn feed_writer(mut stdin: ChildStdin, chunks: &Receiver<Arc<Chunk>>) {
    for chunk in chunks {
        if stdin.write_all(chunk.frame()).is_err() {
            // It is dead; the one that listens to it notices too, and the chunks are kept elsewhere.
            return;
        }
    }
}

/// Passes on what a writer reports, in order, and at last that it is gone.
fn listen(number: usize, stdout: ChildStdout, events: &Sender<Event>) {
    let mut replies = BufReader::new(stdout);
    while let Some(reply) = Reply::read(&mut replies) {
        if events.send(Event::Reply { writer: number, reply }).is_err() {
            return;
        }
    }
    // Closed first: should the process be alive after all, its next report ends it.
    drop(replies);
    let _ = events.send(Event::Gone { writer: number });
}

/// The file of this program, for starting it once more.
fn own_program() -> PathBuf {
    match env::current_exe() {
        Ok(program) if program.exists() => program,
        // It was replaced while it runs; the kernel still has it.
        _ => "/proc/self/exe".into(),
    }
}
