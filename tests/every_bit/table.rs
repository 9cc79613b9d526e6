//! How many bits of each part end how.

use crate::Counts;

/// Bits of the sample with which the store is not opened for reading, that `verify` names, and that are
/// harmless.
const EXPECTED: &[(&str, [u32; 3])] = &[
    ("control: batch that counts", [0, 2, 0]),
    ("control: batch that ended", [0, 2, 0]),
    ("control: batch that was begun", [0, 2, 0]),
    ("control: boot id", [4, 0, 0]),
    ("control: changes", [0, 0, 2]),
    ("control: clean mark", [0, 0, 3]),
    ("control: clock of borrows", [0, 0, 2]),
    ("control: durable epoch", [0, 2, 0]),
    ("control: durable extents", [0, 2, 0]),
    ("control: durable writes, for people", [0, 0, 2]),
    ("control: epoch", [0, 3, 0]),
    ("control: epoch of settled batches", [0, 3, 0]),
    ("control: epoch of the last batch", [0, 2, 0]),
    ("control: extents", [0, 2, 0]),
    ("control: failed flush", [0, 0, 2]),
    ("control: flushes, for people", [0, 0, 2]),
    ("control: hint of borrows", [0, 0, 2]),
    ("control: hint of pins", [0, 0, 3]),
    ("control: lock of batches", [0, 3, 0]),
    ("control: rest of the page", [0, 0, 141]),
    ("control: type of the records", [0, 0, 2]),
    ("data extent: between slots and links, behind links", [0, 0, 1020]),
    ("data extent: header", [0, 70, 0]),
    ("first superblock", [0, 36, 0]),
    ("first superblock: rest of the page", [0, 0, 142]),
    ("free slot: header", [0, 909, 0]),
    ("free slot: rest", [0, 0, 119]),
    ("head: batch under way", [0, 4, 0]),
    ("head: changes", [0, 0, 5]),
    ("head: damaged slots", [0, 5, 0]),
    ("head: deleted entries", [0, 4, 0]),
    ("head: free list", [0, 4, 0]),
    ("head: free slots", [0, 4, 0]),
    ("head: last epoch of a freed slot", [0, 4, 0]),
    ("head: live records", [0, 4, 0]),
    ("head: lock", [0, 4, 0]),
    ("head: mark of links", [0, 4, 0]),
    ("head: mark of watchers", [0, 0, 5]),
    ("head: never used slots", [0, 5, 0]),
    ("head: next seq", [0, 1, 4]),
    ("head: parked queue", [0, 4, 0]),
    ("head: parked slots", [0, 4, 0]),
    ("head: reserved slots", [0, 5, 0]),
    ("head: rest", [0, 0, 8]),
    ("head: retired queue", [0, 5, 0]),
    ("head: retired slots", [0, 4, 0]),
    ("head: shape of the index", [0, 5, 0]),
    ("index extent: header", [0, 18, 0]),
    ("index extent: room that is not in use", [0, 0, 292]),
    ("index: first table, in use", [0, 1130, 0]),
    ("index: first table, left over", [0, 0, 147]),
    ("index: moved table, in use", [0, 1130, 0]),
    ("links of a free slot", [0, 0, 60]),
    ("links of a live version", [0, 0, 23]),
    ("links of a never used slot", [0, 0, 47]),
    ("links of a reserved slot", [0, 0, 1]),
    ("links of a retired version: epoch", [0, 47, 0]),
    ("links of a retired version: next", [0, 47, 0]),
    ("links of a tombstone: epoch", [0, 20, 0]),
    ("links of a tombstone: next", [0, 19, 0]),
    ("live: behind the data", [0, 0, 21]),
    ("live: data", [0, 154, 0]),
    ("live: header", [0, 336, 0]),
    ("never used slot: header", [0, 732, 0]),
    ("never used slot: rest", [0, 0, 95]),
    ("region table: rest of the page", [0, 0, 128]),
    ("reserved slot: header", [0, 18, 0]),
    ("reserved slot: rest", [0, 0, 2]),
    ("retired: behind the data", [0, 0, 12]),
    ("retired: data", [0, 70, 0]),
    ("retired: header", [0, 187, 0]),
    ("seat: borrows", [0, 0, 18]),
    ("seat: generation", [0, 0, 5]),
    ("seat: pin", [0, 0, 4]),
    ("seat: process id, for people", [0, 0, 5]),
    ("seat: taken mark", [0, 0, 4]),
    ("seats that were never taken", [0, 0, 2346]),
    ("second superblock", [0, 36, 0]),
    ("second superblock: rest of the page", [0, 0, 142]),
    ("tombstone: header", [0, 79, 0]),
    ("tombstone: rest", [0, 0, 9]),
];

/// Compares, and prints the table as it is if it ought to be another one. Of all bits the table is printed;
/// the rules that each bit keeps were checked on the way.
pub(crate) fn compare(counts: &Counts, is_all: bool) {
    let expected: Counts = EXPECTED.iter().copied().collect();
    if *counts == expected {
        return;
    }
    println!("{} bits; the table is:", if is_all { "all" } else { "a sample of the" });
    for (name, counted) in counts {
        println!("    (\"{name}\", {counted:?}),");
    }
    if is_all {
        return;
    }
    for (name, counted) in counts {
        assert_eq!(Some(counted), expected.get(name), "{name}: not opened, named, harmless");
    }
    panic!("a part of the file is not there any more");
}
