//! The command line: the arguments, and one file for each subcommand.
//!
//! * Everything goes through the public API of the library.
//! * Data goes to standard output, messages to standard error, one line each, after `recstore: `.
//! * The exit code is decided in [`failure`] and nowhere else.
//! * Nothing here panics: a closed pipe, a full disk under standard output and odd arguments are
//!   ordinary ends.

mod access;
mod add;
mod apply;
mod backup;
mod cas;
mod completions;
mod copy;
mod count;
mod create;
mod delete;
mod diff;
mod dump;
mod elsewhere;
mod export;
mod failure;
mod ids;
mod inspect;
mod jsonl;
mod list;
mod load;
mod map;
mod output;
mod process;
mod progress;
mod read;
mod repair;
mod salvage;
mod select;
mod shared;
mod stat;
mod target;
mod top;
mod verify;
mod walk;
mod watch;
mod write;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use self::access::Access;
use self::failure::Failure;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the record is absent, a condition does not hold (cas, apply), or two stores differ (diff)
  2  the command line is wrong
  3  the store is damaged, or verify found damage
  4  any other failure
  5  the file is not a store
  6  busy: another process holds a lock for longer than --lock-timeout; nothing was changed
  7  done, but not flushed to disk yet: another process is inside the store, in some other region
  128 + N  ended by signal N: 130 after Ctrl-C, 141 when the reader of the output went away

An ID is any number from 0 to 2^64-1, in decimal or in hexadecimal after 0x; or hash:TEXT, the 64-bit FNV-1a hash of
that text, as `load --id-from hash:COLUMN` makes it.";

/// A file of records that several processes read and write at once, and that survives their death.
#[derive(Parser)]
#[command(name = "recstore", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(create::Create),
    Write(write::Write),
    Read(read::Read),
    Delete(delete::Delete),
    Add(add::Add),
    Cas(cas::Cas),
    Apply(apply::Apply),
    List(list::List),
    Count(count::Count),
    Diff(diff::Diff),
    Load(load::Load),
    Dump(dump::Dump),
    Export(export::Export),
    Stat(stat::Stat),
    Watch(watch::Watch),
    Mirror(elsewhere::Mirror),
    Pull(elsewhere::Pull),
    Top(top::Top),
    Map(map::Map),
    Verify(verify::Verify),
    Repair(repair::Repair),
    Backup(backup::Backup),
    Copy(copy::Copy),
    Salvage(salvage::Salvage),
    Shared(shared::Shared),
    Inspect(inspect::Inspect),
    Completions(completions::Completions),
    Man(completions::Man),
    #[command(hide = true)]
    LoadWriter(load::LoadWriter),
}

impl Command {
    fn run(self, access: &Access) -> Result<(), Failure> {
        match self {
            Self::Create(args) => args.run(access),
            Self::Write(args) => args.run(access),
            Self::Read(args) => args.run(access),
            Self::Delete(args) => args.run(access),
            Self::Add(args) => args.run(access),
            Self::Cas(args) => args.run(access),
            Self::Apply(args) => args.run(access),
            Self::List(args) => args.run(access),
            Self::Count(args) => args.run(access),
            Self::Diff(args) => args.run(access),
            Self::Load(args) => args.run(access),
            Self::Dump(args) => args.run(access),
            Self::Export(args) => args.run(access),
            Self::Stat(args) => args.run(access),
            Self::Watch(args) => args.run(access),
            Self::Mirror(args) => args.run(access),
            Self::Pull(args) => args.run(access),
            Self::Top(args) => args.run(access),
            Self::Map(args) => args.run(access),
            Self::Verify(args) => args.run(access),
            Self::Repair(args) => args.run(access),
            Self::Backup(args) => args.run(access),
            Self::Copy(args) => args.run(access),
            Self::Salvage(args) => args.run(),
            Self::Shared(args) => args.run(access),
            Self::Inspect(args) => args.run(access),
            Self::Completions(args) => args.run(),
            Self::Man(args) => args.run(),
            Self::LoadWriter(args) => args.run(access),
        }
    }
}

/// Runs the command line of this process and gives its exit code.
pub(crate) fn run() -> ExitCode {
    // A file that may not become longer (`ulimit -f`) is an error of the call, and not the end of the process. Where
    // the signal can't be caught, it is that end.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. A closed pipe is no error for them.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    if cli.access.quiet {
        output::be_quiet();
    }
    match cli.command.run(&cli.access) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                output::say(format_args!("{message}"));
            }
            if let Failure::Interrupted { signal, .. } = &failure {
                // By the signal, so that a shell ends its loop too.
                let _ = signal_hook::low_level::emulate_default_handler((*signal).into());
            }
            ExitCode::from(failure.code())
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
