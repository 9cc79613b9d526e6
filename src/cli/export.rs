//! `recstore export`: the records for other programs, as of one moment.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recstore::{Error, Store};

use super::access::Access;
use super::failure::Failure;
use super::output::{Output, counted, is_binary, note};
use super::target::Target;
use super::{jsonl, read};

/// Export all records, as they are at one moment, for other programs
///
/// While others go on writing: what is exported is one snapshot of the store, in the order of ids. A store that this user
/// may only read is exported record by record instead, and that is said.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore export s.rec --format csv -o s.csv        id, version, data; for a spreadsheet, DuckDB or Polars
  recstore export s.rec --format jsonl | gzip > s.jsonl.gz
  recstore export s.rec --format raw --separator '\\n' | sort | uniq -c")]
pub(crate) struct Export {
    /// The store
    store: PathBuf,
    /// The form
    #[arg(long, value_enum, default_value_t = Form::Jsonl)]
    format: Form,
    /// Write to this file, which must not exist, instead of standard output, which is `-`
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// With csv: the separator of columns [default: ,]; with raw: the bytes after each record [default: none]
    #[arg(long, value_name = "TEXT")]
    separator: Option<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Columns id, version, data, and, of a record that is not text, its bytes as base64 in a fourth one instead
    Csv,
    /// As `dump`: one JSON object a line
    Jsonl,
    /// The bytes of each record, one after the other
    Raw,
}

impl Export {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let separator = self.separator.as_ref().map(|text| read::unescape(text.as_bytes()));
        if self.format == Form::Jsonl && separator.is_some() {
            return Err(Failure::Usage("--separator goes with --format csv or raw".into()));
        }
        if self.format == Form::Csv && separator.as_ref().is_some_and(|s| s.len() != 1) {
            return Err(Failure::Usage(
                "with --format csv, --separator is one byte, such as ; or \\t".into(),
            ));
        }
        let mut sink = Sink::new(self.output.as_deref())?;
        let count = match self.format {
            Form::Csv => {
                let delimiter = separator.and_then(|s| s.first().copied()).unwrap_or(b',');
                let mut csv = csv::WriterBuilder::new().delimiter(delimiter).from_writer(&mut sink);
                csv.write_record(["id", "version", "data", "base64"]).map_err(failed)?;
                let count = each(access, &self.store, |id, version, data| {
                    let (id, version) = (id.to_string(), version.to_string());
                    let encoded = is_binary(data).then(|| STANDARD.encode(data));
                    let (text, base64) = match &encoded {
                        Some(encoded) => (&b""[..], encoded.as_bytes()),
                        None => (data, &b""[..]),
                    };
                    csv.write_record([id.as_bytes(), version.as_bytes(), text, base64]).map_err(failed)
                })?;
                csv.flush().map_err(|error| Failure::output(&error))?;
                count
            }
            Form::Jsonl => each(access, &self.store, |id, _, data| {
                writeln!(sink, "{}", jsonl::encode(&Target::Id(id), data, None))
                    .map_err(|error| Failure::output(&error))
            })?,
            Form::Raw => {
                let separator = separator.unwrap_or_default();
                each(access, &self.store, |_, _, data| {
                    sink.write_all(data)
                        .and_then(|()| sink.write_all(&separator))
                        .map_err(|error| Failure::output(&error))
                })?
            }
        };
        sink.flush().map_err(|error| Failure::output(&error))?;
        if let Sink::File(_) = sink
            && let Some(path) = &self.output
        {
            note(format_args!("{}: {} exported", path.display(), counted(count, "record")));
        }
        Ok(())
    }
}

fn failed(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Failure::output(&error),
        other => Failure::Other(format!("csv: {other:?}")),
    }
}

/// Says that the keys of spaces are left out, if there are any.
fn note_keys(store: &Store) -> Result<(), Failure> {
    let spaces = match store.spaces() {
        Err(Error::Corrupt { .. }) => return Ok(()), // The export names it.
        spaces => spaces?,
    };
    if !spaces.is_empty() {
        let (path, spaces) = (store.path().display(), spaces.join(", "));
        note(format_args!("{path}: without the keys of spaces ({spaces}); `recstore dump` prints them"));
    }
    Ok(())
}

/// Gives every record of a snapshot to `show`, in the order of ids. Returns their number.
fn each(
    access: &Access,
    path: &std::path::Path,
    mut show: impl FnMut(u64, u64, &[u8]) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let store = match access.write(path) {
        Ok(store) => store,
        Err(Failure::Store(Error::Io { .. })) => {
            let store = access.read(path)?;
            note(format_args!(
                "{}: read-only for this user, so the records are not of one moment",
                path.display()
            ));
            note_keys(&store)?;
            return each_now(&store, show);
        }
        Err(failure) => return Err(failure),
    };
    note_keys(&store)?;
    let snapshot = store.snapshot()?;
    let mut ids = Vec::new();
    for record in snapshot.iter() {
        ids.push(record?.0);
    }
    ids.sort_unstable();
    for &id in &ids {
        if let Some((version, data)) = snapshot.get_versioned(id)? {
            show(id, version.get(), data)?;
        }
    }
    Ok(ids.len() as u64)
}

fn each_now(
    store: &Store,
    mut show: impl FnMut(u64, u64, &[u8]) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut ids = Vec::new();
    for record in store.iter() {
        ids.push(record?.id());
    }
    ids.sort_unstable();
    for &id in &ids {
        if let Some(record) = store.get(id)? {
            show(id, record.version().get(), record.data())?;
        }
    }
    Ok(ids.len() as u64)
}

/// The destination of an export.
enum Sink {
    Output(Output),
    File(BufWriter<File>),
}

impl Sink {
    fn new(path: Option<&std::path::Path>) -> Result<Self, Failure> {
        match path.filter(|path| path.as_os_str() != "-") {
            None => Ok(Self::Output(Output::new())),
            Some(path) => match File::create_new(path) {
                Ok(file) => Ok(Self::File(BufWriter::new(file))),
                Err(error) => Err(Failure::Other(format!("{}: {error}", path.display()))),
            },
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Output(out) => out.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Output(out) => Write::flush(out),
            Self::File(file) => file.flush(),
        }
    }
}
