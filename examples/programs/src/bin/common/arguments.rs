//! The arguments that the examples with several processes have in common.

use clap::Args;

/// To be flattened into a program's own arguments.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Number of worker processes
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processes: u32,

    /// Kill a worker with SIGKILL in the middle of its work
    #[arg(long)]
    pub(crate) kill: bool,

    /// A short run, of a second or two
    #[arg(long)]
    pub(crate) quick: bool,
}
