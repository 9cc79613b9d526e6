//! `recstore load`: many records from a text, by several writer processes at once.
//!
//! This process reads the input and deals the records out; the writers put them into the store. The
//! contract:
//!
//! 1. A record counts as loaded, and `--ack` prints its id, once its writer has reported that its
//!    `put` returned, and not before.
//! 2. All lines of one id go to one writer, in their order: the last line of an id wins.
//! 3. Records that a killed writer had not reported go to its replacement, in the same order. To write a record once more is
//!    harmless: no later line of its id has gone to another writer.
//! 4. If a load ends early (a bad line, Ctrl-C, a closed pipe, a full disk), the records that were dealt out are finished first, and
//!    the message counts them. Of the chunk in which a writer failed some records may be in, uncounted. So the message also says how
//!    many records the store had, and has. A store that was created for the load stays, even if it is empty, and the message says so:
//!    another process may have opened it by then.

mod chunk;
mod csv;
mod dealer;
mod event;
mod id_from;
mod input;
mod lines;
mod on_error;
mod rows;
mod writer;
mod writers;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use recstore::Error;

pub(crate) use self::writer::LoadWriter;

use self::dealer::{Dealer, Outcome, watch_signals};
use self::input::{Input, Reading};
use self::lines::FormatArgs;
use self::on_error::{OnError, Rejects};
use self::writers::Writers;
use super::access::Access;
use super::failure::Failure;
use super::output::{counted, note};
use super::progress;

/// Load many records from JSON lines, CSV or other text, with several processes at once
///
/// Creates STORE with defaults if it is absent, and says so. All lines with the same id go to the
/// same writer, in their order: the last one wins. Blank lines are passed over. A line that is no
/// record ends the load, with its number, unless --on-error says skip; the lines before it are loaded, and a store
/// that was created stays. A load that ended early says how to go on. When a writer process is killed, another one
/// takes over its records; nothing is lost. When the command is done the records are on disk.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore dump s.rec | recstore load t.rec
  recstore load s.rec people.csv --format csv --id-column number
  recstore load s.rec people.csv --format csv --id-from hash:email    then: recstore read s.rec hash:ann@example.org
  recstore load s.rec big.csv --format csv --writers 4 --on-error skip --rejects bad.csv
  recstore load s.rec /etc/passwd --format delimited --delimiter : --id-column 3")]
pub(crate) struct Load {
    /// The store
    store: PathBuf,
    /// The lines; `-`, or nothing, takes them from standard input
    file: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
    /// Pass over the first N lines: to go on with a load that ended early, or past a title. A header of csv is read
    /// all the same
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip_lines: u64,
    /// What to do about a line that is not a record
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = WhatOnError::Stop)]
    on_error: WhatOnError,
    /// Write the lines that are not records to this file, which must not exist; with --on-error skip
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// How many processes write at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    writers: u16,
    /// Print each id, in decimal, one a line, as soon as the death of no process can lose its record
    #[arg(long)]
    ack: bool,
    /// A demonstration: kill one writer with SIGKILL in the middle, to show that nothing is lost
    /// (about half way through a file; early on in a pipe, whose length is not known)
    #[arg(long)]
    kill_one: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum WhatOnError {
    /// End the load
    Stop,
    /// Name it, pass over it, and go on; exit code 0
    Skip,
}

impl Load {
    pub(crate) fn run(self, access: &Access) -> Result<(), Failure> {
        let begin = Instant::now();
        let format = self.format.format()?;
        let on_error = self.on_error()?;
        // First the input: a path with a typing error is no reason to create a store.
        let input = Input::open(self.file.as_deref())?;
        let is_new = !self.store.exists();
        let store = access.write_or_create(&self.store, 0)?;
        let before = store.len().ok();

        let (events, inbox) = mpsc::channel();
        watch_signals(events.clone())?;
        let writers = Writers::start(usize::from(self.writers), access, &self.store, &events)?;
        let dealer = Dealer::new(&input, writers, self.ack, self.kill_one);
        let reading =
            Reading { format, skip_lines: self.skip_lines, record_size: store.record_size(), on_error };
        input.read(reading, usize::from(self.writers), events)?;
        let mut outcome = dealer.run(&inbox);
        let after = store.len().ok();
        // One flush for all writers, even if the load ended early.
        let closed = progress::while_working("flushing to disk", || store.close());
        if let Some(failure) = outcome.stopped.take() {
            return Err(self.how_far(failure, &outcome, before.filter(|_| !is_new), after));
        }
        let mut summary = self.summary(&outcome);
        if let Err(busy @ Error::Busy { .. }) = closed {
            return Err(Failure::Unflushed(format!(
                "{}: {summary}, and no process's death undoes it; but not flushed to disk yet: {busy}",
                self.store.display()
            )));
        }
        closed?;
        // Others may write meanwhile, so this is said only where it is less.
        let added = after.zip(before).map(|(after, before)| after.saturating_sub(before));
        if let Some(added) = added.filter(|&added| added < outcome.loaded) {
            summary += &format!("; {added} of them new, the others replaced records");
        }
        let seconds = begin.elapsed().as_secs_f64();
        note(format_args!(
            "{}: {summary}; {} in {seconds:.2} s, {:.0} records/s",
            self.store.display(),
            counted(outcome.lines, "line"),
            outcome.loaded as f64 / seconds
        ));
        Ok(())
    }

    /// Adds to the reason of an early end what is loaded, and how to go on.
    fn how_far(
        &self,
        failure: Failure,
        outcome: &Outcome,
        before: Option<u64>,
        after: Option<u64>,
    ) -> Failure {
        let were = if outcome.loaded == 1 { "was" } else { "were" };
        let mut failure = failure.and(&format!("{} {were} loaded", counted(outcome.loaded, "record")));
        if outcome.lines > 0 {
            failure =
                failure.and(&format!("to go on, load the same input with --skip-lines {}", outcome.lines));
        }
        match (before, after) {
            (None, Some(0)) => failure.and(&format!("{} was created, and is empty", self.store.display())),
            // Lines that a writer had not reported may be in the store; it knows.
            (_, Some(after)) if before.unwrap_or(0) + outcome.loaded < after => failure.and(&format!(
                "the store had {}, and has {after}: some of the unreported records may be in",
                counted(before.unwrap_or(0), "record")
            )),
            _ => failure,
        }
    }

    fn on_error(&self) -> Result<OnError, Failure> {
        match (self.on_error, &self.rejects) {
            (WhatOnError::Stop, None) => Ok(OnError::Stop),
            (WhatOnError::Stop, Some(_)) => Err(Failure::Usage("--rejects goes with --on-error skip".into())),
            (WhatOnError::Skip, Some(path)) if path.as_os_str() == "-" => {
                Err(Failure::Usage("--rejects needs a file, and `-` is none".into()))
            }
            (WhatOnError::Skip, Some(path)) if path.exists() => Err(Failure::Other(format!(
                "{}: exists already; --rejects writes a new file",
                path.display()
            ))),
            (WhatOnError::Skip, path) => Ok(OnError::Skip(Rejects::to(path.clone()))),
        }
    }

    fn summary(&self, outcome: &Outcome) -> String {
        let records = counted(outcome.loaded, "record");
        let writers = counted(self.writers.into(), "writer");
        let mut summary = format!("{records} loaded by {writers}");
        if outcome.rejected > 0 {
            summary += &format!("; {} rejected", counted(outcome.rejected, "line"));
            if let Some(path) = &self.rejects {
                summary += &format!(" (see {})", path.display());
            }
        }
        if outcome.killed > 0 {
            let killed = counted(outcome.killed, "writer");
            let taken_over = counted(outcome.taken_over, "record");
            summary += &format!("; {killed} killed on the way, {taken_over} taken over, nothing lost");
        } else if self.kill_one {
            summary += "; the input was too short to kill a writer in the middle";
        }
        summary
    }
}
