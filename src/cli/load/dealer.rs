//! The loop at the middle of a load: records come from the input and go to the writers, reports come
//! back from the writers and go to the user.
//!
//! It waits for events, and for nothing else: reading, feeding, listening and the signals are threads,
//! so that none of them holds up another.

use std::io::{self, IsTerminal};
use std::process;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use indicatif::ProgressBar;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::super::failure::Failure;
use super::super::output::{Output, say};
use super::super::progress;
use super::super::target::Target;
use super::chunk::{Chunk, Reply};
use super::event::{Batch, Event, spawn_thread};
use super::input::Input;
use super::writers::Writers;

/// How long the writers may take to finish after Ctrl-C before the user is told how to leave at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// The result of a load.
pub(crate) struct Outcome {
    /// How many records are in the store; of an id that came twice, both.
    pub(crate) loaded: u64,
    /// The records of all lines up to this one are in the store.
    pub(crate) lines: u64,
    /// The number of rows that were not records.
    pub(crate) rejected: u64,
    /// How many writers were killed.
    pub(crate) killed: u64,
    /// The number of records that other writers took over from them.
    pub(crate) taken_over: u64,
    /// The reason for an early end, if it ended early.
    pub(crate) stopped: Option<Failure>,
}

pub(crate) struct Dealer {
    input_name: String,
    writers: Writers,
    /// The output for ids, if they are wanted.
    ack: Option<Output>,
    /// When to kill a writer, if that is wanted.
    kill: Option<KillOne>,
    bar: ProgressBar,
    loaded: u64,
    rejected: u64,
    /// The records of all lines up to this one were dealt.
    dealt_line: u64,
    /// The first line with a record that was dealt and is not loaded, and will not be.
    failed_line: Option<u64>,
    /// The reason for an early end.
    stopped: Option<Failure>,
}

/// From where in the input on a writer is to be killed, in bytes.
struct KillOne {
    /// From here on, if it is at work: half way.
    from: u64,
    /// From here on in any case, so that one is killed: three quarters.
    at_last_from: u64,
}

impl Dealer {
    pub(crate) fn new(input: &Input, writers: Writers, ack: bool, kill_one: bool) -> Self {
        let quarter = input.bytes().unwrap_or(0) / 4;
        // If lines come from the terminal or go to it, they are the progress.
        let bar = match input.is_terminal() || (ack && io::stdout().is_terminal()) {
            true => ProgressBar::hidden(),
            false => progress::bytes(input.bytes()),
        };
        Self {
            input_name: input.name().to_owned(),
            writers,
            ack: ack.then(Output::new),
            kill: kill_one.then_some(KillOne { from: quarter * 2, at_last_from: quarter * 3 }),
            bar,
            loaded: 0,
            rejected: 0,
            dealt_line: 0,
            failed_line: None,
            stopped: None,
        }
    }

    /// Deals until all records are done, or until there is a reason to stop and all dealt records are done.
    pub(crate) fn run(mut self, inbox: &Receiver<Event>) -> Outcome {
        while self.writers.running() {
            match self.next(inbox) {
                Some(Event::Batch(batch)) => self.deal(batch),
                Some(Event::InputEnd(end)) => match end {
                    Ok(()) => self.writers.close(),
                    Err(why) => self.stop(Failure::Other(why)),
                },
                Some(Event::Reply { writer, reply: Reply::Done }) => {
                    if let Some(chunk) = self.writers.reported(writer) {
                        self.count(&chunk, chunk.origins.len());
                    }
                }
                Some(Event::Reply { writer, reply: Reply::Failed { at, code, message } }) => {
                    self.writer_failed(writer, at, code, message);
                }
                Some(Event::Gone { writer }) => match self.writers.gone(writer) {
                    Ok(None) => {}
                    Ok(Some(notice)) => self.say(&notice),
                    Err(failure) => {
                        self.not_loaded_from(self.writers.first_unreported(writer));
                        self.stop(failure);
                    }
                },
                Some(Event::Signal(signal)) => {
                    self.stop(Failure::Interrupted { signal, message: "interrupted".into() });
                }
                // Every thread holds a sender; this is not reached.
                None => break,
            }
        }
        self.bar.finish_and_clear();
        Outcome {
            loaded: self.loaded,
            lines: self.failed_line.map_or(self.dealt_line, |line| self.dealt_line.min(line - 1)),
            rejected: self.rejected,
            killed: self.writers.killed,
            taken_over: self.writers.taken_over,
            stopped: self.stopped,
        }
    }

    fn next(&self, inbox: &Receiver<Event>) -> Option<Event> {
        if let Some(Failure::Interrupted { .. }) = self.stopped {
            match inbox.recv_timeout(PATIENCE) {
                Err(RecvTimeoutError::Timeout) => {
                    self.say("the writers are finishing their records; Ctrl-C again ends at once");
                }
                event => return event.ok(),
            }
        }
        inbox.recv().ok()
    }

    fn deal(&mut self, batch: Batch) {
        if self.stopped.is_some() {
            return;
        }
        self.bar.set_position(batch.position);
        self.dealt_line = self.dealt_line.max(batch.line);
        self.rejected += batch.rejected;
        for reason in &batch.reasons {
            self.say(reason);
        }
        for (writer, chunk) in batch.chunks {
            self.kill_perhaps(writer, batch.position);
            // If it was just killed, this chunk is still in its pipe, and it can't read the chunk any more.
            self.writers.deal(writer, chunk);
        }
    }

    fn kill_perhaps(&mut self, writer: usize, position: u64) {
        let Some(kill) = &self.kill else { return };
        let in_the_middle = position >= kill.from && self.writers.in_the_middle(writer);
        if in_the_middle || (position >= kill.at_last_from && self.writers.has_reported(writer)) {
            self.kill = None;
            if let Err(failure) = self.writers.kill(writer) {
                self.stop(failure);
            }
        }
    }

    /// Counts the first records of a chunk as loaded, and prints their ids.
    fn count(&mut self, chunk: &Chunk, records: usize) {
        let done = chunk.origins.get(..records).unwrap_or(&chunk.origins);
        self.loaded += done.len() as u64;
        let Some(out) = &mut self.ack else { return };
        let printed = done
            .iter()
            .try_for_each(|origin| match &origin.target {
                Target::Id(id) => out.line(format_args!("{id}")),
                key => out.line(format_args!("{key}")),
            })
            .and_then(|()| out.flush());
        if let Err(failure) = printed {
            self.ack = None;
            self.stop(failure);
        }
    }

    fn writer_failed(&mut self, writer: usize, at: Option<u32>, code: u8, message: String) {
        let chunk = self.writers.failed(writer);
        let mut message = message;
        if at.is_none() {
            self.not_loaded_from(chunk.as_ref().and_then(|chunk| chunk.first_line()));
        }
        if let (Some(chunk), Some(at)) = (chunk, at) {
            self.count(&chunk, at as usize);
            if let Some(origin) = chunk.origins.get(at as usize) {
                self.not_loaded_from(Some(origin.line));
                message = format!("{}: line {}: {message}", self.input_name, origin.line);
            }
        }
        self.stop(Failure::Writer { code, message });
    }

    /// Notes that the records of a failed writer from this line on are not loaded.
    fn not_loaded_from(&mut self, line: Option<u64>) {
        self.failed_line = self.failed_line.into_iter().chain(line).min();
    }

    /// Ends the load early; dealt records are finished. The first reason is the one that counts.
    fn stop(&mut self, why: Failure) {
        self.writers.close();
        self.stopped.get_or_insert(why);
    }

    fn say(&self, message: &str) {
        self.bar.suspend(|| say(format_args!("{message}")));
    }
}

/// Turns Ctrl-C and a request to terminate into events. The second one ends the process on the spot.
pub(crate) fn watch_signals(events: Sender<Event>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|error| Failure::Other(format!("setting up the end by Ctrl-C: {error}")))?;
    spawn_thread("signals", move || {
        let mut asked = false;
        for signal in signals.forever() {
            let signal = u8::try_from(signal).unwrap_or_default();
            if asked || events.send(Event::Signal(signal)).is_err() {
                // The writers see the end of their input, and nothing is torn.
                let _ = emulate_default_handler(signal.into());
                process::exit(128 + i32::from(signal));
            }
            asked = true;
        }
    })
}
