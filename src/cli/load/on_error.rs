//! Rows that are not records.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// The reason is said for this many rows; further ones are counted.
const REASONS_MAX: u64 = 10;

/// The rule for rows that are not records.
pub(crate) enum OnError {
    /// The first one ends the load.
    Stop,
    /// They are passed over.
    Skip(Rejects),
}

/// The rows that were passed over.
#[derive(Default)]
pub(crate) struct Rejects {
    /// The path of the file for them.
    path: Option<PathBuf>,
    /// The file, once there is one of them.
    file: Option<BufWriter<File>>,
    /// The first row of that file.
    header: Vec<u8>,
    /// How many there were.
    count: u64,
    /// How many of them are not reported yet.
    unreported: u64,
    reasons: Vec<String>,
}

impl Rejects {
    /// Rows that go to this file, which is created with the first one of them.
    pub(crate) fn to(path: Option<PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    fn write(&mut self, row: &[u8]) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = match &mut self.file {
            Some(file) => Ok(file),
            empty => File::create_new(path).and_then(|file| {
                let file = empty.insert(BufWriter::new(file));
                file.write_all(&self.header)?;
                Ok(file)
            }),
        };
        file.and_then(|file| file.write_all(row).and_then(|()| file.write_all(b"\n")))
            .map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl OnError {
    /// The input begins with this row. So does the file of rejected rows, so that it can be loaded.
    pub(crate) fn header(&mut self, row: &[u8]) {
        if let Self::Skip(rejects) = self {
            rejects.header = [row, b"\n"].concat();
        }
    }

    /// Takes a row that is not a record, with the reason. An error ends the load.
    pub(crate) fn reject(&mut self, row: &[u8], why: String) -> Result<(), String> {
        let Self::Skip(rejects) = self else { return Err(why) };
        rejects.write(row)?;
        rejects.count += 1;
        rejects.unreported += 1;
        if rejects.count <= REASONS_MAX {
            rejects.reasons.push(format!("{why} (rejected)"));
        } else if rejects.count == REASONS_MAX + 1 {
            rejects.reasons.push("further lines that are rejected are counted, and not named".into());
        }
        Ok(())
    }

    /// Writes the buffered bytes.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        let Self::Skip(Rejects { path: Some(path), file: Some(file), .. }) = self else { return Ok(()) };
        file.flush().map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The number of rows that were rejected since the last call, and the message about them.
    pub(crate) fn take_rejected(&mut self) -> (u64, Vec<String>) {
        match self {
            Self::Stop => (0, Vec::new()),
            Self::Skip(rejects) => {
                (std::mem::take(&mut rejects.unreported), std::mem::take(&mut rejects.reasons))
            }
        }
    }
}
