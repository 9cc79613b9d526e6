//! Names of stores in memory.

use recstore::{Options, Store};

use super::Failure;

/// A name that no other run of this program uses. Stores that earlier runs left behind, because
/// every process of theirs was killed, are removed.
pub(crate) fn fresh_name(options: &Options) -> Result<String, Failure> {
    let prefix = concat!("example-", env!("CARGO_CRATE_NAME"), "-");
    for (name, _) in Store::shared_names()? {
        if name.starts_with(prefix) {
            // Whoever comes under the name of a store that nobody is attached to gets a new one in its
            // place, and takes it away when leaving. If somebody is attached, nothing changes.
            drop(options.shared(&name));
        }
    }
    Ok(format!("{prefix}{:016x}", rand::random::<u64>()))
}

/// Whether a store of this name is there.
pub(crate) fn exists(name: &str) -> Result<bool, Failure> {
    Ok(Store::shared_names()?.iter().any(|(found, _)| found == name))
}
