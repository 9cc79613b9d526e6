//! Files for stores: in memory where there is such a file system, and without a name, so that a crash
//! of the fuzzer leaves nothing behind.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use recstore::{Options, Store};

use super::layout::{SEATS, SUPERBLOCK_B, SUPERBLOCK_BYTES};

/// A file that stores are opened from.
pub(crate) struct Disk {
    file: File,
    path: PathBuf,
}

fn directory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

impl Disk {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let file = tempfile::tempfile_in(directory()).expect("a file");
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let disk = Self { file, path };
        disk.write(bytes);
        if bytes.len() > 8192 {
            // What is in use, and was copied here, would be recovered.
            recstore::testing::set_continuity(&disk.path).expect("a control page");
        }
        disk
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the content. Nobody may have it open, unless it keeps its length.
    pub(crate) fn write(&self, bytes: &[u8]) {
        self.file.set_len(bytes.len() as u64).expect("a length");
        self.file.write_all_at(bytes, 0).expect("room");
    }

    /// Replaces a few bytes.
    pub(crate) fn patch(&self, at: usize, bytes: &[u8]) {
        self.file.write_all_at(bytes, at as u64).expect("room");
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.file.read_exact_at(&mut bytes, 0).expect("the content");
        bytes
    }

    /// The same, but for the seats: they are half of a small file.
    pub(crate) fn read_but_seats_into(&self, bytes: &mut Vec<u8>) {
        bytes.resize(self.len(), 0);
        let (before, rest) = bytes.split_at_mut(SEATS);
        self.file.read_exact_at(before, 0).expect("the content");
        let behind = &mut rest[SUPERBLOCK_B - SEATS..];
        self.file.read_exact_at(behind, SUPERBLOCK_B as u64).expect("the content");
    }

    pub(crate) fn len(&self) -> usize {
        self.file.metadata().expect("a length").len() as usize
    }

    /// A second way to the same file, for a hook.
    pub(crate) fn again(&self) -> Self {
        let file = self.file.try_clone().expect("a descriptor");
        Self { file, path: self.path.clone() }
    }
}

/// The bytes of an empty store in which nothing is drawn: its uuid and its hash key are fixed.
pub(crate) fn empty_store(options: &Options) -> Vec<u8> {
    let dir = tempfile::tempdir_in(directory()).expect("a directory");
    let path = dir.path().join("store");
    drop(options.create(&path).expect("a store"));
    let mut bytes = std::fs::read(path).expect("its bytes");
    bytes[16..32].copy_from_slice(b"uuid of no store");
    bytes[32..40].copy_from_slice(&KEY.to_le_bytes());
    seal_superblocks(&mut bytes);
    bytes
}

/// The hash key of all stores here.
pub(crate) const KEY: u64 = 0x0123_4567_89ab_cdef;

/// Makes the first superblock's checksum right, and the second one the same.
pub(crate) fn seal_superblocks(file: &mut [u8]) {
    let end = SUPERBLOCK_BYTES - 4;
    if file.len() < SUPERBLOCK_B + SUPERBLOCK_BYTES {
        return;
    }
    let sum = crc32fast::hash(&file[..end]);
    file[end..SUPERBLOCK_BYTES].copy_from_slice(&sum.to_le_bytes());
    file.copy_within(..SUPERBLOCK_BYTES, SUPERBLOCK_B);
}

/// Opens a store that must open.
pub(crate) fn open(options: &Options, disk: &Disk) -> Store {
    options.open(disk.path()).unwrap_or_else(|e| panic!("a store that does not open: {e}"))
}
