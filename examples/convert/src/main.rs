//! `recstore-convert`: between stores and the files that users come from, or go on with: SQLite, LMDB, Parquet.
//!
//! A program of its own, since what it depends on takes longer to build than all of `recstore`. What it says goes to
//! standard error; the exit code is 0, 1 for a failure, 2 for a wrong command line.

mod lmdb;
mod parquet;
mod sqlite;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Why a conversion ended early.
type Failure = Box<dyn std::error::Error>;

/// Convert between stores and SQLite, LMDB and Parquet files
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  recstore-convert sqlite app.db s.rec --table users                     rows as JSON objects, by their rowid
  recstore-convert sqlite app.db s.rec --table blobs --data body
  recstore-convert sqlite app.db s.rec --table users --hash email        then: recstore read s.rec hash:ann@example.org
  recstore-convert lmdb env/ s.rec --key be
  recstore-convert parquet s.rec s.parquet                               columns id, version, data"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Sqlite(sqlite::Sqlite),
    Lmdb(lmdb::Lmdb),
    Parquet(parquet::Parquet),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Sqlite(args) => args.run(),
        Command::Lmdb(args) => args.run(),
        Command::Parquet(args) => args.run(),
    };
    match done {
        Ok(what) => {
            eprintln!("recstore-convert: {what}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("recstore-convert: {failure}");
            ExitCode::FAILURE
        }
    }
}
