//! The store whose bits are flipped: small, and with something of everything in it.
//!
//! Region 0 has three extents, an index that has moved (a table of its own in an index extent; the
//! first one is left over), a long free list and slots that were never used. Region 1 has one extent and
//! still its first index. Both have live records of every age, replaced versions that wait for a flush, or for
//! a borrow that has ended by now, tombstones, free slots, what a batch wrote, and a slot that a dead
//! handle has reserved. Nobody has the store open, and it was not closed.
//!
//! Nothing is drawn: uuid and hash key are set before the first record.

use std::collections::BTreeMap;
use std::path::Path;

use recstore::{Commit, Options, Store};

use crate::common::superblock;
use crate::layout::{ENTRIES, Layout, first_home, hash, region};

const KEY: u64 = 0x1234_5678_9abc_def0;

pub(crate) const LAYOUT: Layout = Layout { record_size: 24, regions: 2, slots: 64 };

/// What every id is that is looked at: its version and bytes, or absent.
pub(crate) type Model = BTreeMap<u64, Option<(u64, Vec<u8>)>>;

pub(crate) struct Fixture {
    pub(crate) file: Vec<u8>,
    pub(crate) model: Model,
    /// Every version that was ever written: what a repair may fall back to.
    pub(crate) written: Vec<(u64, u64, Vec<u8>)>,
    /// Ids that no record ever had, one in each region.
    pub(crate) unused: [u64; 2],
    /// A live record of region 0 with a version before it, in a slot whose reference has a single bit.
    pub(crate) first_bit: u64,
}

/// The bytes of an id: they name it.
pub(crate) fn data(id: u64, counter: u64) -> Vec<u8> {
    let mut bytes = [id.to_le_bytes(), counter.to_le_bytes(), hash(id, counter).to_le_bytes()].concat();
    bytes.truncate([24, 24, 17, 9, 1, 0][(id + counter) as usize % 6].max(usize::from(counter > 1) * 12));
    bytes
}

pub(crate) fn options() -> Options {
    Options::new()
        .record_size(LAYOUT.record_size)
        .regions(LAYOUT.regions as u32)
        .slots_per_extent(LAYOUT.slots as u32)
        .max_size(1 << 20)
        // So that opening, of which there are thousands, does not read the table of mounts.
        .allow_network_file_system(true)
}

/// Ids in order of their numbers, as many as asked for, of one region and at home in one line.
fn ids_of(wanted_region: usize, line: Option<usize>) -> impl Iterator<Item = u64> {
    (1..).filter(move |&id| {
        let hash = hash(id, KEY);
        region(hash, LAYOUT.regions) == wanted_region && line.is_none_or(|line| first_home(hash) == line)
    })
}

struct Builder {
    store: Store,
    model: Model,
    written: Vec<(u64, u64, Vec<u8>)>,
}

impl Builder {
    fn put(&mut self, id: u64, counter: u64) {
        let bytes = data(id, counter);
        let version = self.store.put(id, &bytes).expect("a put").get();
        self.written.push((id, version, bytes.clone()));
        self.model.insert(id, Some((version, bytes)));
    }

    /// An atomic batch that writes some and deletes some.
    fn batch(&mut self, written: &[u64], deleted: &[u64], counter: u64) {
        let mut batch = self.store.batch();
        written.iter().for_each(|&id| batch.put(id, data(id, counter)).expect("a short record"));
        deleted.iter().for_each(|&id| batch.delete(id));
        let Commit::Done(versions) = batch.commit().expect("a batch") else { panic!("a conflict") };
        for (id, version) in versions {
            self.written.push((id, version.get(), data(id, counter)));
            self.model.insert(id, Some((version.get(), data(id, counter))));
        }
        self.model.extend(deleted.iter().map(|&id| (id, None)));
    }

    fn delete(&mut self, id: u64) {
        assert!(self.store.delete(id).expect("a delete"), "id {id}");
        self.model.insert(id, None);
    }
}

/// Builds the store.
pub(crate) fn build(path: &Path) -> Fixture {
    drop(options().create(path).expect("a store"));
    let file = std::fs::read(path).expect("its bytes");
    let file = superblock::with(&file, |b| {
        b[16..32].copy_from_slice(b"uuid of fixture!");
        b[32..40].copy_from_slice(&KEY.to_le_bytes());
    });
    std::fs::write(path, file).expect("its bytes");
    let mut b =
        Builder { store: options().open(path).expect("the store"), model: Model::new(), written: Vec::new() };

    // Region 0: nine full lines, emptied again. A full line keeps marks of what was deleted, and with
    // enough of these the index moves.
    let crowd: Vec<u64> = (0..9).flat_map(|line| ids_of(0, Some(line)).take(ENTRIES)).collect();
    crowd.iter().for_each(|&id| b.put(id, 1));
    crowd[..122].iter().for_each(|&id| b.delete(id));
    // Of these, a few are looked at.
    crowd[3..122].iter().for_each(|id| _ = b.model.remove(id));

    let first: Vec<u64> = ids_of(0, Some(20)).take(8).collect();
    let second: Vec<u64> = ids_of(1, None).take(26).collect();
    first.iter().chain(&second).for_each(|&id| b.put(id, 1));
    b.store.sync().expect("a flush");

    // Versions that are on disk, replaced: they wait for the next flush; and once more: the one
    // between is free at once.
    for &id in first[..3].iter().chain(&second[..6]) {
        b.put(id, 2);
    }
    for &id in first[..1].iter().chain(&second[..2]) {
        b.put(id, 3);
    }
    b.batch(&[first[5], second[12], second[13]], &[second[14]], 8);
    b.store.sync().expect("a flush");
    for &id in first[2..5].iter().chain(&second[4..9]) {
        b.put(id, 4);
    }
    // Tombstones, of records that have an older version on disk; and records that have none.
    for &id in first[2..4].iter().chain(&second[4..7]) {
        b.delete(id);
    }
    for &id in first[6..7].iter().chain(&second[20..22]) {
        b.delete(id);
    }
    for &id in second[..3].iter().chain(&first[..1]) {
        b.put(id, 5);
    }
    let first_bit = crowd[127];
    b.put(first_bit, 2);
    // Slots that were replaced while somebody borrowed: parked. And room that a dead handle had reserved.
    let borrower = options().open(path).expect("another handle");
    let pin = borrower.pin().expect("a pin");
    for &id in first[7..8].iter().chain(&second[10..12]) {
        b.put(id, 6);
        b.put(id, 7);
    }
    drop(pin);
    for &id in [first[1], second[12]].iter() {
        std::mem::forget(borrower.reserve(id, 20).expect("room"));
    }
    drop(borrower);
    let unused = [0, 1].map(|r| ids_of(r, None).find(|id| !crowd.contains(id) && !b.model.contains_key(id)));
    let unused = unused.map(|id| id.expect("there are more"));
    b.model.extend(unused.map(|id| (id, None)));
    let Builder { store, model, written } = b;
    assert!(store.verify().expect("a check").is_clean(), "{:?}", store.verify());
    drop(store);
    Fixture { file: std::fs::read(path).expect("its bytes"), model, written, unused, first_bit }
}
