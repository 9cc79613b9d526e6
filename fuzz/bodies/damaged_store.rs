//! Target `damaged_store`: a good file with arbitrary edits, then operations.
//!
//! What must hold depends on the edits:
//!
//! * Always: no panic, no fault, no hang; what a write acknowledged is seen.
//! * Slots and extent headers as they were, or up to three flipped bits: a record that is given is, byte for
//!   byte, some version that was written under its id.
//! * One flipped bit: it is the newest one, and a record that is missing is missing with an error, or was
//!   named when it was given up. After `repair`, `verify` finds nothing, and a repair is said.

use std::collections::{BTreeMap, BTreeSet};

use recstore::{Options, RepairReport, Store};

use super::disk::{Disk, empty_store, open};
use super::edit::{Done, edit};
use super::input::Input;
use super::layout::Layout;
use super::probe::{read_everything, write_everything};

const LAYOUT: Layout = Layout { record_size: 40, regions: 2, slots: 8 };
const IDS: u64 = 24;

fn options() -> Options {
    Options::new()
        .record_size(LAYOUT.record_size)
        .regions(LAYOUT.regions as u32)
        .slots_per_extent(LAYOUT.slots as u32)
        .max_size(1 << 20)
        .allow_network_file_system(true)
}

fn data(id: u64, counter: u64) -> Vec<u8> {
    let words = [id, counter, id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ counter, !id, !counter];
    let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.truncate(16 + (id as usize * 7 + counter as usize) % 25);
    bytes
}

/// A good file: live records, replaced versions, tombstones, free slots, slots that were never used.
struct Good {
    file: Vec<u8>,
    /// The newest counter of each id.
    live: BTreeMap<u64, u64>,
    /// How often each id was written.
    written: BTreeMap<u64, u64>,
}

impl Good {
    fn new() -> Self {
        let disk = Disk::new(&empty_store(&options()));
        let store = open(&options(), &disk);
        let mut good = Self { file: Vec::new(), live: BTreeMap::new(), written: BTreeMap::new() };
        let put = |good: &mut Self, id| {
            let counter = good.written.entry(id).or_default();
            *counter += 1;
            store.put(id, &data(id, *counter)).expect("a put");
            good.live.insert(id, *counter);
        };
        (0..IDS).for_each(|id| put(&mut good, id));
        store.sync().expect("a flush");
        (0..8).for_each(|id| put(&mut good, id));
        (2..4).for_each(|id| put(&mut good, id));
        for id in (6..10).chain(20..23) {
            store.delete(id).expect("a delete");
            good.live.remove(&id);
        }
        drop(store);
        good.file = disk.read();
        good
    }
}

/// Edits the good file, and uses it.
pub fn run(input: &[u8]) {
    thread_local! {
        static GOOD: Good = Good::new();
    }
    GOOD.with(|good| probe(good, &mut Input::new(input)));
}

fn probe(good: &Good, input: &mut Input<'_>) {
    let mut file = good.file.clone();
    let mut done = Done::default();
    let ending = input.u8();
    for _ in 0..1 + input.below(8) {
        edit(input, &mut file, &LAYOUT, &mut done);
    }
    let oracle = Oracle { good, done };
    let disk = Disk::new(&file);
    if ending % 4 == 3 {
        // A dead owner's lock in every region.
        for region in 0..LAYOUT.regions {
            disk.patch(LAYOUT.head(region), &2_u64.to_le_bytes());
        }
    }
    if let Ok(store) = options().open_read_only(disk.path()) {
        oracle.read(&store, &mut BTreeSet::new());
        read_everything(&store, &[0, 5, 7, 40]);
    }
    if ending % 4 == 2 {
        recstore::testing::set_boot_id(disk.path()).expect("another boot");
    }
    let Ok(store) = options().open(disk.path()) else { return };
    let mut gone = named(store.opened());
    oracle.read(&store, &mut gone);
    let mut ids = Vec::new();
    for _ in 0..input.below(12) {
        ids.push(input.below(2 * IDS as usize) as u64);
    }
    write_everything(&store, &ids);
    gone.extend(&ids);
    match store.repair() {
        Ok(report) => {
            gone.extend(named(&report));
            if oracle.is_one_flip() {
                let damage = store.verify().expect("a check").damage;
                assert!(damage.is_empty(), "after a repair: {damage:?}");
            }
        }
        Err(error) => assert!(!oracle.is_one_flip(), "repair: {error}"),
    }
    oracle.read(&store, &mut gone);
    read_everything(&store, &ids);
    let _ = store.close();
}

/// The ids of what was given up.
fn named(report: &RepairReport) -> BTreeSet<u64> {
    // A damaged header names any id.
    if report.dropped.is_empty() { BTreeSet::new() } else { (0..IDS).collect() }
}

struct Oracle<'a> {
    good: &'a Good,
    done: Done,
}

impl Oracle<'_> {
    fn is_one_flip(&self) -> bool {
        self.done.flips == 1 && !self.done.more
    }

    /// Whether what is given was written.
    fn knows(&self) -> bool {
        !self.done.forged && self.done.flips <= 3
    }

    /// Reads all ids. `gone`: ids that may be anything by now, since they were written, or given up.
    fn read(&self, store: &Store, gone: &mut BTreeSet<u64>) {
        if !self.knows() {
            return;
        }
        for id in (0..IDS).filter(|id| !gone.contains(id)) {
            let newest = self.good.live.get(&id);
            match store.get(id) {
                Ok(Some(record)) => {
                    let written = self.good.written.get(&id).copied().unwrap_or(0);
                    let counter = (1..=written).find(|&counter| data(id, counter) == record.data());
                    assert!(counter.is_some(), "id {id}: {:?} was never written", record.data());
                    if self.is_one_flip() {
                        assert!(counter.as_ref() == newest, "id {id}: {counter:?} is not {newest:?}");
                    }
                }
                Ok(None) => {
                    assert!(!self.is_one_flip() || newest.is_none(), "id {id} is gone without a word")
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}
