//! A writer process of `recstore load`: takes chunks of records from standard input, puts them into
//! the store, and reports each chunk on standard output after its records are in.
//!
//! It ends at the end of its input, which also comes when the process that started it dies. It also ends when its reports have no
//! reader any more.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use recstore::{Error, Store, Ttl};

use super::super::access::Access;
use super::super::failure::Failure;
use super::super::output::say;
use super::chunk::{Dealt, Reply, read_frame, records};

/// A writer of `recstore load`, which starts it
#[derive(clap::Args)]
pub(crate) struct LoadWriter {
    /// The store
    store: PathBuf,
}

impl LoadWriter {
    pub(crate) fn run(self, access: &Access) -> Result<(), Failure> {
        let mut input = io::stdin().lock();
        let mut out = io::stdout().lock();
        let store = match access.options().open(&self.store) {
            Ok(store) => store,
            Err(error) => return Err(report(&mut out, None, error.into())),
        };
        let cannot_read = |error| Failure::Other(format!("standard input: {error}"));
        let mut payload = Vec::new();
        while read_frame(&mut input, &mut payload).map_err(cannot_read)? {
            let Some(records) = records(&payload) else {
                let failure = Failure::Other("a writer understands `recstore load` alone".into());
                return Err(report(&mut out, None, failure));
            };
            if let Err((at, error)) = put_all(&store, &records) {
                return Err(report(&mut out, u32::try_from(at).ok(), error.into()));
            }
            Reply::Done.write(&mut out).map_err(|error| Failure::output(&error))?;
        }
        // Dropped, not closed: the process that started this one flushes once for all.
        Ok(())
    }
}

/// Writes the records in their order. If one can't be written, tells which, and those before it are in.
fn put_all(store: &Store, records: &[Dealt<'_>]) -> Result<(), (usize, Error)> {
    let of_ids = records.iter().filter_map(|record| match *record {
        Dealt::Id(id, data) => Some((id, data)),
        Dealt::Key { .. } => None,
    });
    let has_keys = records.iter().any(|record| matches!(record, Dealt::Key { .. }));
    if store.write_many(of_ids).is_ok() && !has_keys {
        return Ok(());
    }
    // Some are in, out of order. To write them again is harmless, and shows which one caused the failure.
    for (at, record) in records.iter().enumerate() {
        let put = match *record {
            Dealt::Id(id, data) => store.put(id, data),
            Dealt::Key { space, key, expires_ms, data } => {
                let at = expires_ms.map(|at| UNIX_EPOCH.checked_add(Duration::from_millis(at)));
                let ttl = at.flatten().map_or(Ttl::NEVER, Ttl::at);
                store.space(space).and_then(|space| space.put_with(key, data, ttl))
            }
        };
        put.map_err(|error| (at, error))?;
    }
    Ok(())
}

/// Hands a failure to the process that started this one. Only the exit code remains.
fn report(out: &mut impl Write, at: Option<u32>, failure: Failure) -> Failure {
    let code = failure.code();
    let message = failure.message().unwrap_or_default();
    let reply = Reply::Failed { at, code, message };
    if let (Err(error), Reply::Failed { message, .. }) = (reply.write(out), &reply) {
        say(format_args!("{message} (and the report could not be sent: {error})"));
    }
    Failure::Reported { code }
}
