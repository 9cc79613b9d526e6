//! Target `slot_codec`: what is written into a slot comes out of it; and from a slot with arbitrary changes comes
//! what a second decoder, written from the chapter on the format, takes it for; else an error or nothing.

use recstore::{Error, Options, Store};

use super::disk::{Disk, empty_store, open};
use super::edit::{seal_slot, slot_sum};
use super::input::Input;
use super::layout::{LINK_BYTES, Layout, SLOT_HEADER_BYTES, word};

const LAYOUT: Layout = Layout { record_size: 200, regions: 1, slots: 2 };
/// The version that the record in the slot has.
const VERSION: u64 = 1;

fn options() -> Options {
    Options::new()
        .record_size(LAYOUT.record_size)
        .regions(LAYOUT.regions as u32)
        .slots_per_extent(LAYOUT.slots as u32)
        .max_size(1 << 20)
        .allow_network_file_system(true)
}

/// Encodes a record, changes the slot, decodes it.
pub fn run(input: &[u8]) {
    thread_local! {
        static EMPTY: Vec<u8> = empty_store(&options());
    }
    let disk = EMPTY.with(|empty| Disk::new(empty));
    let mut input = Input::new(input);
    let (mode, id) = (input.u8(), input.u64());
    let len = input.below(LAYOUT.record_size + 1);
    let data = input.take(len);

    let store = open(&options(), &disk);
    assert_eq!(store.put(id, data).expect("a put").get(), VERSION);
    assert_eq!(decode(&store, id), Ok(Some((VERSION, data.to_vec()))));
    drop(store);

    let mut file = disk.read();
    let at = LAYOUT.slot(0);
    let slot = &mut file[at..at + LAYOUT.slot_size()];
    assert_eq!(reference(slot, id), Some((VERSION, data)), "the second decoder is of another opinion");
    if mode % 2 == 1 {
        // A deletion leaves nothing that could be taken for the record.
        let store = open(&options(), &disk);
        assert!(store.delete(id).expect("a delete"));
        assert_eq!(decode(&store, id), Ok(None));
        drop(store);
        let file = disk.read();
        assert_eq!(reference(&file[at..at + LAYOUT.slot_size()], id), None);
        return;
    }
    if mode >> 1 & 1 == 1 {
        // The slot is the input's, but for the id perhaps.
        slot.fill(0);
        slot.iter_mut().zip(input.rest()).for_each(|(to, from)| *to = *from);
        if mode >> 2 & 1 == 1 {
            slot[8..16].copy_from_slice(&id.to_le_bytes());
        }
    } else {
        while !input.is_empty() {
            let (at, by) = (input.below(slot.len()), input.u8());
            slot[at] ^= by;
        }
    }
    if mode >> 3 & 1 == 1 {
        seal_slot(slot, 0);
    }
    let slot = slot.to_vec();
    disk.patch(at, &slot);
    check(&disk, id, &slot);
    // The same where replaced versions may be kept.
    disk.write(&file);
    disk.patch(LAYOUT.extent(0) + LAYOUT.links_offset(), &[0; LINK_BYTES]);
    disk.patch(LAYOUT.head(0) + 72, &checked(1).to_le_bytes());
    check(&disk, id, &slot);
}

fn check(disk: &Disk, id: u64, slot: &[u8]) {
    let is = reference(slot, id);
    let read_only = options().open_read_only(disk.path()).expect("a store");
    compare(decode(&read_only, id), is, "read");
    drop(read_only);
    let store = open(&options(), disk);
    compare(decode(&store, id), is, "read by a handle that may repair");
    let records: Vec<_> = store.iter().filter_map(Result::ok).collect();
    for record in &records {
        let is = reference(slot, record.id()).expect("a record that is not in the slot");
        assert_eq!((record.version().get(), record.data()), is, "iter");
    }
}

/// What came out must be what is in the slot; or an error; or nothing, if nothing good is in it.
fn compare(found: Result<Option<(u64, Vec<u8>)>, ()>, is: Option<(u64, &[u8])>, how: &str) {
    match found {
        Ok(Some((version, data))) => assert_eq!(Some((version, &data[..])), is, "{how}"),
        Ok(None) | Err(()) => assert!(is.is_none(), "{how}: {found:?}, and there is {is:?}"),
    }
}

fn decode(store: &Store, id: u64) -> Result<Option<(u64, Vec<u8>)>, ()> {
    match store.get(id) {
        Ok(found) => Ok(found.map(|record| (record.version().get(), record.into_data()))),
        Err(Error::Corrupt { .. } | Error::Damaged { .. }) => Err(()),
        Err(error) => panic!("{error}"),
    }
}

/// The version and the data of the record that the slot's bytes are, if they are this id's.
fn reference(slot: &[u8], id: u64) -> Option<(u64, &[u8])> {
    let (seq, last) = (word(slot, 0), word(slot, 24));
    let len = (last & ((1 << 30) - 1)) as usize;
    // That bit 63 of `seq` is set is not asked for: the checksum says as much.
    // A record of keys is not found by its id.
    let is_keyed = word(slot, 16) >> 50 & 1 == 1;
    let is_record = seq != 0 && word(slot, 8) == id && last >> 30 & 3 == 0 && !is_keyed;
    let holds = is_record && len <= LAYOUT.record_size && slot_sum(slot) == Some((last >> 32) as u32);
    holds.then(|| (seq & !(1 << 63), &slot[SLOT_HEADER_BYTES..SLOT_HEADER_BYTES + len]))
}

fn checked(n: u64) -> u64 {
    n | (!(n ^ (n >> 16) ^ (n >> 32)) & 0xffff) << 48
}
