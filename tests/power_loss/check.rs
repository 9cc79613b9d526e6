//! Opening an image and holding it against the oracle.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use recstore::Store;

use crate::layout::{BOOT, CLEAN, Layout};
use crate::oracle::{Oracle, State};
use crate::workload::{Values, look, open};

/// Where images are opened, and how many were.
pub(crate) struct Bench {
    _dir: tempfile::TempDir,
    /// Where a workload runs.
    pub(crate) store: PathBuf,
    image: PathBuf,
    file: File,
    pub(crate) tally: Tally,
}

/// What was done.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    /// Workloads and recoveries that were recorded.
    pub(crate) lives: u64,
    pub(crate) crash_points: u64,
    /// Images that were opened.
    pub(crate) images: u64,
    /// Images of a store that was closed, and so was not recovered.
    pub(crate) closed: u64,
    /// Crashes during a recovery from a crash, among the images.
    pub(crate) during_recovery: u64,
    /// Versions that recoveries gave up.
    pub(crate) dropped: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        // Memory is as good as a disk here: flushes are simulated.
        recstore::testing::take_memory_for_disk();
        let memory = Path::new("/dev/shm");
        let dir = tempfile::Builder::new().prefix("recstore-power-loss-").tempdir_in(memory);
        let dir = dir.unwrap_or_else(|_| crate::common::scratch());
        let image = dir.path().join("image");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&image).expect("a file");
        Self { store: dir.path().join("store"), _dir: dir, image, file, tally: Tally::default() }
    }

    /// Opens the image. Everything that is there must be admitted by the oracle, `verify` be content,
    /// and writing go on, with newer versions than ever were given out if `versions_rise`.
    pub(crate) fn check(
        &mut self,
        mut bytes: Vec<u8>,
        layout: &Layout,
        oracle: &Oracle,
        versions_rise: bool,
    ) -> Result<(), String> {
        reboot(&mut bytes);
        let was_closed = bytes[CLEAN..CLEAN + 8] == 1_u64.to_le_bytes();
        self.file.set_len(bytes.len() as u64).expect("the image's length");
        self.file.write_all_at(&bytes, 0).expect("the image");
        self.tally.images += 1;
        let store = open(&self.image, layout).map_err(|e| format!("the image does not open: {e}"))?;
        let report = store.opened();
        if report.os_crash == was_closed {
            return Err(format!("marked as closed: {was_closed}; opened with {report:?}"));
        }
        self.tally.closed += u64::from(was_closed);
        self.tally.dropped += report.dropped.len() as u64;
        let found = look(&store, oracle.ids()).map_err(|e| format!("reading after recovery: {e}"))?;
        for (id, state) in &found {
            oracle.admits(*id, state)?;
        }
        oracle.admits_batches(&found)?;
        same_by_iterating(&store, &found)?;
        clean(&store, "after recovery")?;
        // What an image recovers to is the same whatever is done with it then: a part of them will do.
        if self.tally.images.is_multiple_of(2) {
            goes_on(&store, oracle, versions_rise, found)?;
        }
        drop(store);
        if !self.tally.images.is_multiple_of(5) {
            return Ok(());
        }
        let again = open(&self.image, layout)
            .map_err(|e| format!("the second time, the image does not open: {e}"))?;
        if !again.opened().is_empty() {
            return Err(format!("the second opening had to put right: {:?}", again.opened()));
        }
        Ok(())
    }
}

/// The machine comes up again: what the image says of the boot is of another one.
pub(crate) fn reboot(bytes: &mut [u8]) {
    bytes[BOOT..BOOT + 16].copy_from_slice(&0xdead_u128.to_le_bytes());
}

fn clean(store: &Store, when: &str) -> Result<(), String> {
    let report = store.verify().map_err(|e| format!("verify {when}: {e}"))?;
    if report.is_clean() { Ok(()) } else { Err(format!("{when}, verify says: {:?}", report.damage)) }
}

fn same_by_iterating(store: &Store, found: &[(u64, State)]) -> Result<(), String> {
    let mut left: Vec<_> = found.iter().filter(|(_, s)| *s != State::Absent).collect();
    let iterated: Vec<_> = store.iter().collect::<Result<_, _>>().map_err(|e| format!("iterating: {e}"))?;
    for record in &iterated {
        let state = State::of(Some(record));
        let at = left.iter().position(|(id, s)| *id == record.id() && *s == state);
        let at =
            at.ok_or_else(|| format!("iterating gives record {}: {state:?}; get: {found:?}", record.id()))?;
        left.swap_remove(at);
    }
    if !left.is_empty() {
        return Err(format!("iterating leaves out {left:?}"));
    }
    match store.len() {
        Ok(len) if len == iterated.len() as u64 => Ok(()),
        other => Err(format!("{} records, and len gives {other:?}", iterated.len())),
    }
}

/// Writes work, take newer versions than were ever given out, and leave the other records alone.
fn goes_on(
    store: &Store,
    oracle: &Oracle,
    versions_rise: bool,
    found: Vec<(u64, State)>,
) -> Result<(), String> {
    let values = Values::default();
    let size = store.record_size();
    let mut now = found;
    for (n, entry) in now.iter_mut().enumerate() {
        let id = entry.0;
        match n % 3 {
            0 => {
                let bytes = values.next(size - n % size.min(7));
                let version = match store.put(id, &bytes) {
                    Ok(version) => version.get(),
                    Err(recstore::Error::Full { .. }) => continue,
                    Err(e) => return Err(format!("put {id} after recovery: {e}")),
                };
                let region = store.region_of(id);
                let highest = oracle.highest(|id| store.region_of(id) == region);
                if versions_rise && version <= highest {
                    return Err(format!(
                        "put {id} after recovery gave version {version}; given out were up to {highest}"
                    ));
                }
                entry.1 = State::Value { bytes, version: Some(version) };
            }
            1 => {
                let was = store.delete(id).map_err(|e| format!("delete {id} after recovery: {e}"))?;
                if was != (entry.1 != State::Absent) {
                    return Err(format!("delete {id} after recovery gave {was} for {:?}", entry.1));
                }
                entry.1 = State::Absent;
            }
            _ => {}
        }
    }
    store.sync().map_err(|e| format!("sync after recovery: {e}"))?;
    let then = look(store, now.iter().map(|e| e.0)).map_err(|e| format!("reading after writing: {e}"))?;
    if then != now {
        return Err(format!("after writing: {then:?}; written: {now:?}"));
    }
    clean(store, "after writing")
}
