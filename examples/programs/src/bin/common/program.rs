//! Which of the two this process is: the program that a person started, or one of its workers.

use std::env;
use std::io;
use std::process::ExitCode;

use clap::Parser;

use super::{Failure, WRITER};

/// Runs the worker if this process is one, with the arguments that it was started with; else the
/// program. Prints why it failed, if it did.
pub(crate) fn run<A: Parser>(
    worker: impl FnOnce(&[String]) -> Result<(), Failure>,
    program: impl FnOnce(A) -> Result<(), Failure>,
) -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let done = match arguments.get(1) {
        Some(first) if first == WRITER => worker(&arguments[2..]),
        _ => program(A::parse()),
    };
    let Err(failure) = done else { return ExitCode::SUCCESS };
    // The program was killed, so that nobody reads what its worker acknowledges: nobody wants to hear of it.
    let nobody_listens = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    if !failure.downcast_ref().is_some_and(nobody_listens) {
        eprintln!("{}: {failure}", env!("CARGO_CRATE_NAME"));
    }
    ExitCode::FAILURE
}

/// An argument of a worker.
pub(crate) fn argument<T: std::str::FromStr>(arguments: &[String], n: usize) -> Result<T, Failure>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    Ok(arguments.get(n).ok_or_else(|| format!("a worker without argument {n}"))?.parse()?)
}

/// What randomness begins from: `RECSTORE_SEED`, or a new number, which is printed.
pub(crate) fn seed() -> Result<u64, Failure> {
    let seed = match env::var("RECSTORE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random(),
    };
    println!("seed       {seed} (RECSTORE_SEED={seed} chooses the same again)");
    Ok(seed)
}

/// A number and what it counts.
pub(crate) fn count(n: u32, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}
