//! `cargo bench --bench peers`: builds and runs the benchmark in `benches/peers`, a crate of its own.
//!
//! The peers are a good deal of C and Rust. As dev-dependencies of this crate they would be built for
//! every `cargo test`, by everybody; so they are dependencies of that crate, which nothing else builds.

use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/Cargo.toml");
    if !manifest.exists() {
        println!("the peers' benchmark is in the repository and not in the package: {}", manifest.display());
        return ExitCode::SUCCESS;
    }
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--release", "--manifest-path"]).arg(&manifest);
    // Beside the target directory that this was built in: target/release/deps/peers-...
    if let Some(target) = std::env::current_exe().ok().as_deref().and_then(|exe| exe.ancestors().nth(3)) {
        cargo.arg("--target-dir").arg(target.join("peers"));
    }
    // Peers that are there when they are asked for: `--tdb`, `--fjall`.
    for peer in ["tdb", "fjall"] {
        if let Some(at) = arguments.iter().position(|a| a.strip_prefix("--") == Some(peer)) {
            arguments.remove(at);
            cargo.args(["--features", peer]);
        }
    }
    match cargo.arg("--").args(arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("{}: {error}", manifest.display());
            ExitCode::FAILURE
        }
    }
}
