//! Starts a benchmark that is a crate of its own, so that nobody else builds what it depends on.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Builds and runs the crate in `benches/NAME`, with the arguments; the features among them (`--FEATURE`) are
/// switched on and not passed. `target_dir` makes the directory for it from the one that this was built in.
pub(crate) fn launch(name: &str, features: &[&str], target_dir: impl FnOnce(PathBuf) -> PathBuf) -> ExitCode {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(name).join("Cargo.toml");
    if !manifest.exists() {
        println!("this benchmark is in the repository and not in the package: {}", manifest.display());
        return ExitCode::SUCCESS;
    }
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--release", "--manifest-path"]).arg(&manifest);
    // This is target/release/deps/NAME-...
    let target = std::env::current_exe().ok().and_then(|exe| Some(exe.ancestors().nth(3)?.to_path_buf()));
    if let Some(target) = target {
        cargo.arg("--target-dir").arg(target_dir(target));
    }
    for feature in features {
        if let Some(at) = arguments.iter().position(|a| a.strip_prefix("--") == Some(feature)) {
            arguments.remove(at);
            cargo.args(["--features", feature]);
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
