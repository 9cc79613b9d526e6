//! `cargo bench --bench peers`: builds and runs the benchmark in `benches/peers`, a crate of its own.
//!
//! The peers are a good deal of C and Rust. As dev-dependencies of this crate they would be built for
//! every `cargo test`, by everybody; so they are dependencies of that crate, which nothing else builds.

use std::process::ExitCode;

#[path = "common/launch.rs"]
mod launch;

fn main() -> ExitCode {
    // Peers that are there when they are asked for: `--tdb`, `--fjall`.
    launch::launch("peers", &["tdb", "fjall"], |target| target.join("peers"))
}
