//! What the tests know of the superblock's bytes: where its numbers lie, and how it is summed.

use std::path::Path;

use recstore::{Options, Store};

/// Where the second one lies.
pub(crate) const SECOND: usize = 73_728;
/// Where the region table begins.
pub(crate) const REGION_TABLE: u64 = 77_824;

const HASH_KEY: usize = 32;

/// A superblock's length: where its checksum holds.
pub(crate) fn len(file: &[u8]) -> usize {
    let holds = |n: &usize| crc32fast::hash(&file[..n - 4]).to_le_bytes() == file[n - 4..*n];
    (64..4096).step_by(4).find(holds).expect("a superblock ends with its CRC")
}

/// The file with other numbers in its superblock and a checksum that holds, in both places.
pub(crate) fn with(file: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let n = len(file);
    let mut bytes = file.to_vec();
    change(&mut bytes[..n - 4]);
    let sum = crc32fast::hash(&bytes[..n - 4]);
    bytes[n - 4..n].copy_from_slice(&sum.to_le_bytes());
    bytes.copy_within(..n, SECOND);
    bytes
}

/// Creates a store whose hash key is drawn from `seed` and not by the kernel, so that a run with the
/// same seed puts every record into the same place.
pub(crate) fn create_seeded(options: &Options, path: &Path, seed: u64) -> Store {
    drop(options.create(path).expect("a store"));
    let file = std::fs::read(path).expect("the store's bytes");
    let file = with(&file, |b| b[HASH_KEY..HASH_KEY + 8].copy_from_slice(&seed.to_le_bytes()));
    std::fs::write(path, file).expect("the store's bytes");
    options.open(path).expect("the store with another hash key")
}
