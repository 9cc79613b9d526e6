//! `recstore mirror` and `recstore pull`: handed to the program `recstore-nats`.
//!
//! It is a program of its own, because a client of NATS with its runtime and TLS takes longer to build than everything else together.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::{env, io};

use super::access::Access;
use super::failure::Failure;
use super::output::is_quiet;

const PROGRAM: &str = "recstore-nats";

/// Keep a bucket of NATS JetStream, or a directory, equal to a store (needs recstore-nats)
///
/// Starts the program `recstore-nats`, which is installed by `cargo install --path examples/nats`. `recstore mirror --help` shows its
/// options.
#[derive(clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  recstore mirror s.rec nats://a,b,c --bucket readings
  recstore mirror s.rec file:copies/s --once"
)]
pub(crate) struct Mirror {
    /// The store, the servers, and options
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Keep a store equal to a bucket of NATS JetStream (needs recstore-nats)
///
/// Starts the program `recstore-nats`, which is installed by `cargo install --path examples/nats`. `recstore pull --help` shows its
/// options.
#[derive(clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  recstore pull nats://a,b,c replica.rec --bucket readings"
)]
pub(crate) struct Pull {
    /// The servers, the store, and options
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Mirror {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        hand_over("mirror", &self.arguments, access)
    }
}

impl Pull {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        hand_over("pull", &self.arguments, access)
    }
}

/// The program beside this one; otherwise the one on the path.
fn program() -> PathBuf {
    let beside = env::current_exe().ok().map(|this| this.with_file_name(PROGRAM));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PROGRAM.into())
}

/// Becomes the other program; returns only if that fails.
fn hand_over(command: &str, arguments: &[OsString], access: &Access) -> Result<(), Failure> {
    let program = program();
    let mut next = Command::new(&program);
    next.args(access.arguments());
    if is_quiet() {
        next.arg("--quiet");
    }
    let error = next.arg(command).args(arguments).exec();
    Err(Failure::Other(match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{command}: there is no program {PROGRAM} beside this one or on the path; install it with `cargo install --path examples/nats`"
        ),
        _ => format!("{command}: {}: {error}", program.display()),
    }))
}
