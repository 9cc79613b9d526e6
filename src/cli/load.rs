//! `recstore load`: many records from lines of text, by several writer processes at once.
//!
//! This process reads the input and deals the records out; the writers put them into the store. The
//! contract:
//!
//! 1. A record counts as loaded, and `--ack` prints its id, once its writer has reported that its
//!    `put` returned, and not before.
//! 2. All lines of one id go to one writer, in their order: the last line of an id wins.
//! 3. What a killed writer had not reported goes to its replacement, in the same order. To write a
//!    record once more is harmless, since no later line of its id has gone anywhere else.
//! 4. However a load ends early (a bad line, Ctrl-C, a closed pipe, a full disk), what was dealt out is
//!    finished first, and the message counts it. Of what a writer was at when it failed some may be in, uncounted;
//!    so the message also says how many records the store had, and has. A store that was created for the load stays,
//!    even if it is empty, and the message says so: somebody else may have opened it by then.

mod chunk;
mod dealer;
mod event;
mod input;
mod lines;
mod writer;
mod writers;

use std::path::PathBuf;
use std::sync::mpsc;

pub(crate) use self::writer::LoadWriter;

use self::dealer::{Dealer, Outcome, watch_signals};
use self::input::Input;
use self::lines::FormatArgs;
use self::writers::Writers;
use super::access::Access;
use super::failure::Failure;
use super::output::{counted, say};

/// Load many records, one a line, with several processes at once
///
/// Creates STORE with defaults if it is absent, and says so. All lines with the same id go to the
/// same writer, in their order: the last one wins. Blank lines are passed over. A line that is no
/// record ends the load, with its number; the lines before it are loaded, and a store that was
/// created stays. When a writer process is killed, another one takes over its records; nothing is
/// lost. When the command is done the records are on disk.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// The store
    store: PathBuf,
    /// The lines; `-`, or nothing, takes them from standard input
    file: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
    /// Pass over the first N lines, such as a header
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip_lines: u64,
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

impl Load {
    pub(crate) fn run(self, access: &Access) -> Result<(), Failure> {
        let format = self.format.format()?;
        // First the input: a path with a typing error is no reason to create a store.
        let input = Input::open(self.file.as_deref())?;
        let is_new = !self.store.exists();
        let store = access.write_or_create(&self.store)?;
        let before = store.len().ok();

        let (events, inbox) = mpsc::channel();
        watch_signals(events.clone())?;
        let writers = Writers::start(usize::from(self.writers), access, &self.store, &events)?;
        let dealer = Dealer::new(&input, writers, self.ack, self.kill_one);
        let loaded = input
            .read(format, self.skip_lines, store.record_size(), usize::from(self.writers), events)
            .and_then(|()| dealer.run(&inbox));
        let after = store.len().ok();
        // One flush for what all the writers wrote, also when the load ended early.
        let closed = store.close();
        // Lines that a writer had not reported may be in the store; it knows.
        let outcome = loaded.map_err(|failure| match (before, after) {
            (_, Some(0)) if is_new => {
                failure.and(&format!("{} was created, and is empty", self.store.display()))
            }
            (Some(before), Some(after)) if before != after => failure.and(&format!(
                "the store had {}, and has {after}: what was on its way may be in",
                counted(before, "record")
            )),
            _ => failure,
        })?;
        closed?;
        let mut summary = self.summary(&outcome);
        // Others may write meanwhile, so this is said only where it is less.
        let added = after.zip(before).map(|(after, before)| after.saturating_sub(before));
        if let Some(added) = added.filter(|&added| added < outcome.loaded) {
            summary += &format!("; {added} of them new, the others replaced records");
        }
        say(format_args!("{}: {summary}", self.store.display()));
        Ok(())
    }

    fn summary(&self, outcome: &Outcome) -> String {
        let records = counted(outcome.loaded, "record");
        let writers = counted(self.writers.into(), "writer");
        let mut summary = format!("{records} loaded by {writers}");
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
