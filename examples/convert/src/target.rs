//! The store that an import goes to.

use std::path::Path;

use recstore::{Error, Store};

use crate::Failure;

/// Records that are written at once.
const CHUNK: usize = 4096;

/// A store, and the records that are on their way to it.
pub(crate) struct Target {
    store: Store,
    waiting: Vec<(u64, Vec<u8>)>,
    written: u64,
}

impl Target {
    /// Opens the store, or creates one whose records may be so long; says so.
    pub(crate) fn open(path: &Path, longest: usize) -> Result<Self, Failure> {
        let store = match Store::open(path) {
            Err(Error::NotFound { .. }) => {
                let size = longest.max(1);
                let store = Store::options().record_size(size).create(path)?;
                eprintln!("recstore-convert: {}: created, for records of up to {size} bytes", path.display());
                store
            }
            opened => opened?,
        };
        if longest > store.record_size() {
            return Err(format!(
                "{}: takes records of up to {} bytes, and the longest one is {longest} bytes long; import into a new \
                 store",
                path.display(),
                store.record_size()
            )
            .into());
        }
        Ok(Self { store, waiting: Vec::new(), written: 0 })
    }

    /// Writes a record, sooner or later.
    pub(crate) fn put(&mut self, id: u64, data: Vec<u8>) -> Result<(), Failure> {
        self.waiting.push((id, data));
        if self.waiting.len() == CHUNK { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Failure> {
        self.store.write_many(self.waiting.iter().map(|(id, data)| (*id, data)))?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Writes the rest, and flushes to disk; what was done, in words.
    pub(crate) fn finish(mut self) -> Result<String, Failure> {
        self.write()?;
        let (records, path) = (self.store.len()?, self.store.path().display().to_string());
        self.store.close()?;
        Ok(format!("{path}: {} imported; it has {records} records", self.written))
    }
}

/// The id for a text, as `recstore load --id-from hash:COLUMN` makes it: FNV-1a, 64 bits.
pub(crate) fn hash(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
