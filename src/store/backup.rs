//! Hot backup: a copy of the records as they are at one moment, while other processes write.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::Result;
use crate::report::Progress;
use crate::store::Store;
use crate::store::copy::carry_tag;
use crate::store::open;
use crate::store::options::Options;

/// Copying.
impl Store {
    /// Copies all records, as they are at one moment during this call, into a new store at `to`. Returns their number. Other processes
    /// go on writing. The copy has the same geometry and mode, appears whole or not at all, is on disk, and is marked clean. Its
    /// records have new versions.
    ///
    /// It copies a [`snapshot`](Self::snapshot): while it runs, replaced versions keep their slots.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let copy = dir.path().join("copy.rec");
    /// store.backup(&copy)?;
    /// assert_eq!(Store::open_read_only(&copy)?.get(1)?.unwrap().data(), b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists); [`Error::Corrupt`](crate::Error::Corrupt) if a record is damaged (repair
    /// the store first, or copy it with `dump` and `load`); [`Error::Full`](crate::Error::Full);
    /// [`Error::ReadOnly`](crate::Error::ReadOnly) (copy a store that no process writes to as any file); as
    /// [`snapshot`](Self::snapshot).
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<u64> {
        self.backup_with_progress(to, |_| {})
    }

    /// [`backup`](Self::backup) that tells its progress after each record. Writing the copy to disk comes last.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// store.backup_with_progress(dir.path().join("copy.rec"), |at| eprint!("\r{} of {}", at.done, at.total))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`backup`](Self::backup).
    pub fn backup_with_progress(&self, to: impl AsRef<Path>, mut tell: impl FnMut(Progress)) -> Result<u64> {
        let mut snapshot = self.snapshot()?;
        snapshot.verify = true; // No damaged record goes into a copy.
        let arena = &self.handle.arena;
        let metadata = arena.file.metadata().map_err(arena.io("looking at the file"))?;
        let options =
            Options::new().allow_network_file_system(true).mode(metadata.permissions().mode() & 0o777);
        let total = self.len()?;
        let mut records = 0;
        let fill = |copy: &Store| {
            carry_tag(self, copy)?;
            for record in snapshot.all_records() {
                let (address, record) = record?;
                // The key of the hash is in the geometry, so the ids of keys are the same.
                copy.write(record.id(), record.data(), address, copy.handle.durability)?;
                records += 1;
                tell(Progress::of(records, total));
            }
            Ok(())
        };
        open::create_with(&options, to.as_ref(), &arena.geo, Some(fill))?;
        Ok(records)
    }
}
