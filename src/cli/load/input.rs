//! The rows that are loaded: read, understood and sorted by writer, on a thread of their own.
//!
//! A batch has the rows of one read. So a line that is typed, or that a program prints once an hour, goes to its writer at once, and a
//! file goes in large pieces.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use super::super::failure::Failure;
use super::super::output::say;
use super::chunk::{Chunk, Origin, Permit};
use super::event::{Batch, Event, spawn_thread};
use super::lines::Format;
use super::on_error::OnError;
use super::rows::{Row, Rows};

/// How many batches may be on the way to the writers at the same time.
const BATCHES_MAX: usize = 8;
/// How much one read asks for, for each writer.
const READ_BYTES_PER_WRITER: usize = 64 << 10;
const READ_BYTES_MAX: usize = 1 << 20;
const READ_BYTES_MIN: usize = 512;
/// A file is read in at least about this many pieces, so that all writers get a part of a small one.
const PIECES_MIN: u64 = 32;
/// Bytes that a deadline takes of a record.
const EXPIRY_BYTES: usize = 16;

/// The origin of the lines.
pub(crate) struct Input {
    file: File,
    name: String,
    bytes: Option<u64>,
    is_terminal: bool,
}

impl Input {
    /// Opens a file, or takes standard input.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let (opened, name) = match path {
            Some(path) if path.as_os_str() != "-" => (File::open(path), path.display().to_string()),
            _ => (io::stdin().as_fd().try_clone_to_owned().map(File::from), "standard input".into()),
        };
        let cannot = |error| Failure::Other(format!("{name}: {error}"));
        let mut file = opened.map_err(cannot)?;
        let bytes = match file.metadata() {
            Ok(metadata) if metadata.is_file() => {
                let position = file.stream_position().map_err(cannot)?;
                Some(metadata.len().saturating_sub(position))
            }
            Ok(metadata) if metadata.is_dir() => {
                return Err(Failure::Other(format!("{name}: is a directory, not a file of records")));
            }
            _ => None,
        };
        let is_terminal = file.is_terminal();
        if is_terminal {
            say(format_args!("type the records, one a line, and end with Ctrl-D"));
        }
        Ok(Self { file, name, bytes, is_terminal })
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its length in bytes, if it is known.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Whether a person types it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Starts to read. The rows, and the end, come as events.
    pub(crate) fn read(self, reading: Reading, writers: usize, events: Sender<Event>) -> Result<(), Failure> {
        let (permit_back, permits) = mpsc::channel();
        for _ in 0..BATCHES_MAX {
            drop(Permit::new(permit_back.clone()));
        }
        let pieces = self.bytes.unwrap_or(u64::MAX) / PIECES_MIN;
        let read_bytes = usize::try_from(pieces)
            .unwrap_or(usize::MAX)
            .min(READ_BYTES_PER_WRITER.saturating_mul(writers))
            .clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        let reader = Reader {
            file: self.file,
            buffer: vec![0; read_bytes],
            rows: reading.format.rows(),
            row_bytes_max: reading.format.row_bytes_max(reading.record_size),
            taker: Taker { name: self.name, line: 0, reading },
            writers,
            position: 0,
        };
        spawn_thread("lines", move || {
            let end = reader.run(&events, &permits, &permit_back);
            // The receiver is gone if the load ended for another reason.
            let _ = events.send(Event::InputEnd(end));
        })
    }
}

/// How the input is to be read.
pub(crate) struct Reading {
    /// The form of its rows.
    pub(crate) format: Format,
    /// The rows that begin in so many lines at the beginning are passed over; a header is read all the same.
    pub(crate) skip_lines: u64,
    /// The longest record that the store takes.
    pub(crate) record_size: usize,
    /// The rule for rows that are not records.
    pub(crate) on_error: OnError,
}

struct Reader {
    file: File,
    /// The buffer of a read.
    buffer: Vec<u8>,
    rows: Rows,
    row_bytes_max: usize,
    taker: Taker,
    writers: usize,
    /// The number of bytes that were read.
    position: u64,
}

impl Reader {
    /// Reads to the end, or to the first row that ends the load. Then it returns the reason.
    fn run(
        mut self,
        events: &Sender<Event>,
        permits: &Receiver<()>,
        permit_back: &Sender<()>,
    ) -> Result<(), String> {
        while permits.recv().is_ok() {
            let mut sorter = Sorter::new(self.writers, Permit::new(permit_back.clone()));
            let read = self.read_once(&mut sorter);
            // The rows before a bad one are loaded.
            let (rejected, reasons) = self.taker.reading.on_error.take_rejected();
            let batch = Batch {
                chunks: sorter.finish(),
                position: self.position,
                line: if read.is_ok() { self.rows.lines_read() } else { self.taker.line },
                rejected,
                reasons,
            };
            if events.send(Event::Batch(batch)).is_err() || !read? {
                break;
            }
        }
        Ok(())
    }

    /// Takes the bytes of one read; `false` at the end of the input.
    fn read_once(&mut self, sorter: &mut Sorter) -> Result<bool, String> {
        let read_bytes = loop {
            match self.file.read(&mut self.buffer) {
                Ok(read_bytes) => break read_bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("{}: {error}", self.taker.name)),
            }
        };
        self.position += read_bytes as u64;
        let Self { rows, taker, .. } = self;
        if read_bytes == 0 {
            rows.end(|row| taker.take(row, sorter))?;
            if let Some(line) = rows.open_quote() {
                return Err(format!(
                    "{}: line {line}: a quote begins in this row and does not end",
                    taker.name
                ));
            }
        } else {
            rows.take(&self.buffer[..read_bytes], |row| taker.take(row, sorter))?;
        }
        if rows.unfinished_bytes() > self.row_bytes_max {
            // The row could go on for ever.
            return Err(format!(
                "{}: line {}: longer than {} bytes, and no record that the store takes ({} bytes) needs so many{}",
                taker.name,
                rows.lines_read() + 1,
                self.row_bytes_max,
                taker.reading.record_size,
                if let Format::Csv(_) = taker.reading.format {
                    "; is the end of a quote missing?"
                } else {
                    ""
                }
            ));
        }
        taker.reading.on_error.flush()?;
        Ok(read_bytes > 0)
    }
}

/// Makes records of rows.
struct Taker {
    name: String,
    reading: Reading,
    /// All rows that begin in this line or before it were taken.
    line: u64,
}

impl Taker {
    fn take(&mut self, row: &Row<'_>, sorter: &mut Sorter) -> Result<(), String> {
        self.line = row.line - 1;
        let Reading { format, skip_lines, record_size, on_error } = &mut self.reading;
        let at = |what: String| format!("{}: line {}: {what}", self.name, row.line);
        if format.header(row).map_err(at)? {
            on_error.header(row.bytes);
        } else if row.line > *skip_lines && !row.bytes.trim_ascii().is_empty() {
            let taken = format.record(row).and_then(|(target, data, expires_ms)| {
                let of_end = if expires_ms.is_some() { EXPIRY_BYTES } else { 0 };
                let len = data.len() + target.bytes_beside_data() + of_end;
                let fits = len <= *record_size;
                let origin = Origin { line: row.line, target, expires_ms };
                fits.then_some(origin.clone()).and_then(|origin| sorter.add(origin, &data)).ok_or_else(|| {
                    format!(
                        "record {} is {len} bytes long and the store takes {record_size}; split it, or create a store \
                         with a larger --record-size",
                        origin.target
                    )
                })
            });
            taken.or_else(|what| on_error.reject(row.bytes, at(what)))?;
        }
        self.line = row.line;
        Ok(())
    }
}

/// Records, sorted by the writer that they go to.
struct Sorter {
    chunks: Vec<Chunk>,
}

impl Sorter {
    fn new(writers: usize, permit: Permit) -> Self {
        let permit = Arc::new(permit);
        Self { chunks: (0..writers).map(|_| Chunk::new(Some(Arc::clone(&permit)))).collect() }
    }

    fn add(&mut self, origin: Origin, data: &[u8]) -> Option<()> {
        let writer = writer_of(origin.target.number(), self.chunks.len());
        self.chunks.get_mut(writer)?.push(origin, data)
    }

    fn finish(self) -> Vec<(usize, Chunk)> {
        self.chunks.into_iter().enumerate().filter(|(_, chunk)| !chunk.origins.is_empty()).collect()
    }
}

/// The writer that all the records of an id go to. Neighbouring ids are spread evenly, and without
/// regard to the regions, so that the writers meet there as those of unrelated programs do.
fn writer_of(id: u64, writers: usize) -> usize {
    // Fibonacci hashing; the upper half of the product depends on all bits of the id.
    let hash = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    // hash < 2^32, so the product fits and the result is less than `writers`.
    ((hash * writers as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ids_are_spread_over_all_writers() {
        for writers in [1, 2, 3, 4, 7, 256] {
            let mut ids = vec![0_u32; writers];
            for id in 0..100_000 {
                ids[writer_of(id, writers)] += 1;
            }
            let fair = 100_000 / writers as u32;
            assert!(ids.iter().all(|&n| n > fair / 2 && n < fair * 2), "{writers} writers: {ids:?}");
        }
        assert_eq!(writer_of(u64::MAX, 1), 0);
    }
}
