//! `recstore write`: one record, from the command line, a file or standard input.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recstore::Ttl;

use super::access::Access;
use super::failure::Failure;
use super::output::say;
use super::target::{self, Target};

/// No store takes a longer record, so longer input is not read to its end.
const RECORD_SIZE_MAX: u64 = 1 << 30;

/// Write one record
///
/// When the command is done the record is on disk. Creates STORE with defaults if it is absent,
/// and says so.
#[derive(clap::Args)]
#[command(
    visible_alias = "put",
    after_help = "\
Examples:
  recstore write s.rec 7 'some text'
  recstore write s.rec sessions/user:7 'some text'
  recstore write s.rec sessions/user:7 'some text' --ttl 30m
  recstore write s.rec 7 --file seven.png
  date | recstore write s.rec 7"
)]
pub(crate) struct Write {
    /// The store
    store: PathBuf,
    /// The record's id, decimal or 0x-hex, or its key
    #[arg(value_name = "ID|SPACE/KEY", value_parser = target::parse)]
    id: Target,
    /// The record's bytes as they are; `-`, or nothing, takes them from standard input
    data: Option<OsString>,
    /// Take the bytes from this file; `-` is standard input
    #[arg(long, value_name = "PATH", conflicts_with = "data")]
    file: Option<PathBuf>,
    /// Of a key: it expires after this time, such as 30s, 10m, 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a time; use one such as 30s, 10m, 12h or 7d"))
}

impl Write {
    pub(crate) fn run(self, access: &Access) -> Result<(), Failure> {
        if self.ttl.is_some() && matches!(self.id, Target::Id(_)) {
            return Err(Failure::Usage(format!(
                "record {} is named by its id, and only keys expire; write SPACE/KEY for --ttl",
                self.id
            )));
        }
        let data = bytes_of(self.file, self.data)?;
        let store = access.write_or_create(&self.store, data.len())?;
        // Does not wait for writers in other regions.
        self.id.put(&store, &data, self.ttl.map_or(Ttl::NEVER, Ttl::after))?;
        access.leave(store)
    }
}

/// A record's bytes: from a file, from the command line, or from standard input.
pub(crate) fn bytes_of(file: Option<PathBuf>, data: Option<OsString>) -> Result<Vec<u8>, Failure> {
    match (file, data) {
        (Some(path), _) if path.as_os_str() != "-" => read_file(&path),
        (None, Some(data)) if data != "-" => Ok(data.into_vec()),
        _ => read_stdin(),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |error: io::Error| Failure::Other(format!("{}: {error}", path.display()));
    let data = read_bounded(File::open(path).map_err(cannot)?).map_err(cannot)?;
    data.ok_or_else(|| too_long(&path.display().to_string()))
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        say(format_args!("type the record, and end it with Ctrl-D"));
    }
    read_bounded(stdin)
        .map_err(|error| Failure::Other(format!("standard input: {error}")))?
        .ok_or_else(|| too_long("standard input"))
}

fn read_bounded(input: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut data = Vec::new();
    input.take(RECORD_SIZE_MAX + 1).read_to_end(&mut data)?;
    Ok((data.len() as u64 <= RECORD_SIZE_MAX).then_some(data))
}

fn too_long(what: &str) -> Failure {
    Failure::Other(format!("{what}: longer than {RECORD_SIZE_MAX} bytes, which no store takes; split it"))
}
