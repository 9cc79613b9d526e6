//! `cargo bench --bench layers`: builds and runs the benchmark in `benches/layers`, a crate of its own, since no
//! other needs what it measures with.

use std::process::ExitCode;

#[path = "common/launch.rs"]
mod launch;

fn main() -> ExitCode {
    launch::launch("layers", &["moka"], |target| target)
}
