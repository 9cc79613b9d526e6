//! Target `open_bytes`: a file of arbitrary bytes is opened, and everything called.
//!
//! Either the input is the file, or it edits an empty store of one of a few geometries, with checksums made
//! right again, so that what lies behind the first checks is met as well. Nothing is known of what ought to
//! come out. So what must hold is: no panic, no fault, no hang, and what a write acknowledged is seen.

use recstore::Options;

use super::disk::{Disk, empty_store, seal_superblocks};
use super::edit::{Done, edit};
use super::input::Input;
use super::layout::Layout;
use super::probe::{may_grow, read_everything, write_everything};

const IDS: [u64; 8] = [0, 1, 2, 3, 7, 1 << 32, 0x5a5a, u64::MAX];
const LAYOUTS: [Layout; 4] = [
    Layout { record_size: 24, regions: 1, slots: 8 },
    Layout { record_size: 1, regions: 2, slots: 64 },
    Layout { record_size: 100, regions: 3, slots: 1 },
    Layout { record_size: 4000, regions: 16, slots: 2 },
];

fn options() -> Options {
    Options::new().allow_network_file_system(true)
}

fn empty(layout: &Layout) -> Vec<u8> {
    empty_store(
        &options()
            .record_size(layout.record_size)
            .regions(layout.regions as u32)
            .slots_per_extent(layout.slots as u32)
            .max_size(4 << 20),
    )
}

/// Opens the file that the input describes.
pub fn run(input: &[u8]) {
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    if first % 2 == 0 {
        probe(rest);
        return;
    }
    thread_local! {
        static EMPTY: [Vec<u8>; LAYOUTS.len()] = LAYOUTS.each_ref().map(empty);
    }
    let number = usize::from(first >> 1) % LAYOUTS.len();
    let layout = LAYOUTS[number];
    let mut file = EMPTY.with(|empty| empty[number].clone());
    let mut input = Input::new(rest);
    let extents = input.below(4);
    file.resize(file.len() + extents * layout.extent_size(), 0);
    if first >> 3 & 1 == 1 {
        geometry(&mut input, &mut file);
    }
    let mut done = Done::default();
    while !input.is_empty() {
        edit(&mut input, &mut file, &layout, &mut done);
    }
    probe(&file);
}

/// Another geometry in the superblock, with the sizes that follow from it.
fn geometry(input: &mut Input<'_>, file: &mut [u8]) {
    let record_size = [1, 24, 25, 64, 100, 4096, 1 << 20, (1 << 30) - 32][input.below(8)];
    let log2 = input.below(26);
    let regions = [0, 1, 2, 3, 16, 255, 16384, 16385][input.below(8)];
    let max = [1 << 18, 4 << 20, 1 << 30, 1 << 44, (1 << 44) + 1, u64::MAX][input.below(6)];
    let layout = Layout { record_size, regions, slots: 1 << log2 };
    file[40..48].copy_from_slice(&max.to_le_bytes());
    for (at, n) in [(48, record_size), (52, log2), (56, regions), (60, layout.slot_size())] {
        file[at..at + 4].copy_from_slice(&(n as u32).to_le_bytes());
    }
    file[64..72].copy_from_slice(&(layout.extent_size() as u64).to_le_bytes());
    file[72..80].copy_from_slice(&(layout.base() as u64).to_le_bytes());
    seal_superblocks(file);
}

fn probe(file: &[u8]) {
    let disk = Disk::new(file);
    if let Ok(store) = options().open_read_only(disk.path()) {
        read_everything(&store, &IDS);
    }
    match options().open(disk.path()) {
        Ok(store) => {
            read_everything(&store, &IDS);
            if may_grow(&store) {
                write_everything(&store, &IDS);
                let _ = store.repair();
                write_everything(&store, &IDS);
            }
            read_everything(&store, &IDS);
            let _ = store.close();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
