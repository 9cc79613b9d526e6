//! The lines that are loaded: read, understood and sorted by writer, on a thread of their own.
//!
//! A batch is what one read gave. So a line that is typed, or that some program prints once an hour,
//! goes to its writer at once, and a file goes in large pieces.

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

/// How many batches may be on the way to the writers at the same time.
const BATCHES_MAX: usize = 8;
/// How much one read asks for, for each writer.
const READ_BYTES_PER_WRITER: usize = 64 << 10;
const READ_BYTES_MAX: usize = 1 << 20;
const READ_BYTES_MIN: usize = 512;
/// A file is read in at least about so many pieces, so that all the writers have a part in a small one.
const PIECES_MIN: u64 = 32;

/// UTF-8's, as some programs put it before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Where the lines come from.
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
                return Err(Failure::Other(format!("{name}: is a directory, not a file of lines")));
            }
            _ => None,
        };
        let is_terminal = file.is_terminal();
        if is_terminal {
            say(format_args!("type the records, one a line, and end with Ctrl-D"));
        }
        Ok(Self { file, name, bytes, is_terminal })
    }

    /// What to call it in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its length in bytes, where that is known.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Whether somebody types it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Starts to read. What is read, and how it ended, arrives as events.
    pub(crate) fn read(
        self,
        format: Format,
        skip_lines: u64,
        record_size: usize,
        writers: usize,
        events: Sender<Event>,
    ) -> Result<(), Failure> {
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
            name: self.name,
            line_bytes_max: format.line_bytes_max(record_size),
            format,
            skip_lines,
            record_size,
            writers,
            line: 0,
            position: 0,
            unfinished: Vec::new(),
        };
        spawn_thread("lines", move || {
            let end = reader.run(&events, &permits, &permit_back);
            // Nobody listens any more if the load ended for another reason.
            let _ = events.send(Event::InputEnd(end));
        })
    }
}

struct Reader {
    file: File,
    /// Where a read puts what it gives.
    buffer: Vec<u8>,
    name: String,
    format: Format,
    /// How many lines at the beginning hold no records.
    skip_lines: u64,
    record_size: usize,
    line_bytes_max: usize,
    writers: usize,
    /// The number of lines that were read.
    line: u64,
    /// The number of bytes that were read.
    position: u64,
    /// The beginning of a line whose end has not been read.
    unfinished: Vec<u8>,
}

impl Reader {
    /// Reads to the end, or to the first line that is no record; says why in that case.
    fn run(
        mut self,
        events: &Sender<Event>,
        permits: &Receiver<()>,
        permit_back: &Sender<()>,
    ) -> Result<(), String> {
        while permits.recv().is_ok() {
            let mut batch = Sorter::new(self.writers, Permit::new(permit_back.clone()));
            let read = self.read_once(&mut batch);
            // The lines before a bad one are loaded.
            let batch = Batch { chunks: batch.finish(), position: self.position };
            if events.send(Event::Batch(batch)).is_err() || !read? {
                break;
            }
        }
        Ok(())
    }

    /// Takes what one read gives; `false` at the end of the input.
    fn read_once(&mut self, batch: &mut Sorter) -> Result<bool, String> {
        // Out of `self` while its lines are looked at.
        let mut buffer = std::mem::take(&mut self.buffer);
        let read_bytes = loop {
            match self.file.read(&mut buffer) {
                Ok(read_bytes) => break read_bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("{}: {error}", self.name)),
            }
        };
        if read_bytes == 0 {
            // The last line may lack its newline.
            let last = std::mem::take(&mut self.unfinished);
            self.take_line(&last, batch)?;
            return Ok(false);
        }
        self.position += read_bytes as u64;

        let mut pieces = buffer[..read_bytes].split(|&byte| byte == b'\n');
        // What follows the last newline, possibly nothing, is not a whole line.
        let rest = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            if self.unfinished.is_empty() {
                self.take_line(piece, batch)?;
            } else {
                let mut line = std::mem::take(&mut self.unfinished);
                line.extend_from_slice(piece);
                self.take_line(&line, batch)?;
            }
        }
        self.unfinished.extend_from_slice(rest);
        self.buffer = buffer;
        if self.unfinished.len() > self.line_bytes_max {
            // It could go on for ever.
            return Err(format!(
                "{}: line {} is longer than {} bytes, and no record that the store takes ({} bytes) needs \
                 such a line",
                self.name,
                self.line + 1,
                self.line_bytes_max,
                self.record_size
            ));
        }
        Ok(true)
    }

    fn take_line(&mut self, line: &[u8], batch: &mut Sorter) -> Result<(), String> {
        self.line += 1;
        if self.line <= self.skip_lines {
            return Ok(());
        }
        // A byte order mark is no part of the first line.
        let line = if self.line == 1 { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line };
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let bad = |what: String| format!("{}: line {}: {what}", self.name, self.line);
        let (id, data) = self.format.record(line).map_err(bad)?;
        let fits = data.len() <= self.record_size;
        fits.then(|| batch.add(Origin { line: self.line, id }, &data)).flatten().ok_or_else(|| {
            bad(format!(
                "record {id} ({id:#x}) is {} bytes long and the store takes {}; split it, or create a store \
                 with a larger --record-size",
                data.len(),
                self.record_size
            ))
        })
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
        let writer = writer_of(origin.id, self.chunks.len());
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
