//! One slot, used again and again under readers that take no lock: the promises of `protocol::slot`.
//! Checksums are off, so that it is the order of the stores that is believed, and nothing else.

use std::sync::Arc;

use loom::thread;

use crate::explore::{ALL, IN_TURN, Seen as Notes, explore, explore_and_tell};
use crate::format::epoch::Epoch;
use crate::format::slot::{FIRST_SEQ, HEADER_WORDS, Header, SlotKind};
use crate::format::word::Reference;
use crate::protocol::slot::{
    Copies, Seen, bury, publish, publish_filled, read, read_any, reserve, retract, scrub,
};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::copy::copy_in;

const X: u64 = 7;
const Y: u64 = 8;

/// The data of a version: no two have a word in common.
fn data(n: u64, len: usize) -> Vec<u8> {
    vec![n as u8 + 1; len]
}

/// The header of version `n`, as it is stored. Odd versions are another record's.
fn version(n: u64, len: usize) -> Header {
    let id = if n % 2 == 0 { X } else { Y };
    Header::record(FIRST_SEQ + n, id, Epoch::FIRST, len).summed(&data(n, len))
}

fn new_slot(len: usize) -> Arc<Vec<AtomicU64>> {
    Arc::new((0..HEADER_WORDS + len / 8).map(|_| AtomicU64::new(0)).collect())
}

fn write(slot: &[AtomicU64], n: u64, len: usize) {
    publish(slot, version(n, len), &data(n, len));
}

/// Checks what was found: one version of `X`, in header and data, or one of `Y`, or motion; and no older
/// one than the last that was found, whose number is `last`.
fn check(seen: Seen, out: Option<&[u8]>, len: usize, last: &mut u64, notes: &Notes) {
    let header = match seen {
        Seen::Whole(header) => {
            if let Some(out) = out {
                assert_eq!(out, data(header.seq() - FIRST_SEQ, len), "data of another version");
            }
            header
        }
        Seen::Other(header) => {
            assert_eq!(header.id(), Y);
            header
        }
        Seen::InMotion => return notes.note("motion"),
        Seen::Damaged(header, what) => panic!("{header:?}: {what}, and nothing is damaged"),
    };
    let n = header.seq() - FIRST_SEQ;
    assert_eq!(header, version(n, len), "a header of two versions");
    assert!(n >= *last, "version {n} after {last}");
    *last = n;
    notes.note(format!("version {n}"));
}

#[test]
fn a_version_that_is_read_is_one_that_was_written() {
    const LEN: usize = 16;
    let seen = explore_and_tell("slot: data", IN_TURN, |notes| {
        let slot = new_slot(LEN);
        write(&slot, 0, LEN);
        let writer = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                scrub(&slot, 0, Reference::NONE);
                write(&slot, 1, LEN);
                scrub(&slot, 0, Reference::NONE);
                write(&slot, 2, LEN);
            }
        });
        let reader = thread::spawn({
            let notes = notes.clone();
            move || {
                let mut last = 0;
                for _ in 0..2 {
                    let mut out = Vec::new();
                    let seen = read(&slot, X, LEN, false, Some(&mut out));
                    check(seen, Some(&out), LEN, &mut last, &notes);
                }
            }
        });
        reader.join().unwrap();
        writer.join().unwrap();
    });
    seen.expect(&["version 0", "version 1", "version 2", "motion"]);
}

#[test]
fn a_header_that_is_read_is_one_that_was_written() {
    let seen = explore_and_tell("slot: header alone", IN_TURN, |notes| {
        let slot = new_slot(0);
        write(&slot, 0, 0);
        let writer = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                for n in 1..3 {
                    scrub(&slot, 0, Reference::NONE);
                    write(&slot, n, 0);
                }
            }
        });
        let reader = thread::spawn({
            let notes = notes.clone();
            move || {
                let mut last = 0;
                check(read(&slot, X, 0, false, None), None, 0, &mut last, &notes);
                let mut out = Vec::new();
                check(read_any(&slot, 0, false, &mut out), None, 0, &mut last, &notes);
            }
        });
        reader.join().unwrap();
        writer.join().unwrap();
    });
    seen.expect(&["version 0", "version 1", "version 2", "motion"]);
}

/// Two slots that are copied together, and looked at one after the other.
#[test]
fn of_copies_that_were_made_together_each_is_a_version_that_was_written() {
    const LEN: usize = 8;
    const WORDS: usize = HEADER_WORDS + LEN / 8;
    let seen = explore_and_tell("slot: copies", IN_TURN, |notes| {
        let slots: Arc<Vec<AtomicU64>> = Arc::new((0..2 * WORDS).map(|_| AtomicU64::new(0)).collect());
        slots.chunks(WORDS).for_each(|slot| write(slot, 0, LEN));
        let writer = thread::spawn({
            let slots = Arc::clone(&slots);
            move || {
                scrub(&slots[..WORDS], 0, Reference::NONE);
                write(&slots[..WORDS], 2, LEN);
                bury(&slots[WORDS..]);
            }
        });
        let reader = thread::spawn({
            let notes = notes.clone();
            move || {
                let mut copies = Copies::new();
                copies.of_slots(8 * WORDS);
                for _ in 0..2 {
                    copies.take(&slots);
                    for (n, slot) in slots.chunks(WORDS).enumerate() {
                        let (seen, data) = copies.read(n, slot, LEN, true);
                        check(seen, Some(data), LEN, &mut 0, &notes);
                    }
                }
            }
        });
        reader.join().unwrap();
        writer.join().unwrap();
    });
    seen.expect(&["version 0", "version 2", "motion"]);
}

/// A deletion in place: the version, or nothing; and what was gone does not come back.
#[test]
fn a_version_that_is_deleted_is_whole_until_it_is_gone() {
    const LEN: usize = 8;
    for buried in [true, false] {
        let name = if buried { "slot: buried" } else { "slot: retracted" };
        let seen = explore_and_tell(name, IN_TURN, move |notes| {
            let slot = new_slot(LEN);
            write(&slot, 0, LEN);
            let writer = thread::spawn({
                let slot = Arc::clone(&slot);
                move || {
                    if buried {
                        bury(&slot)
                    } else {
                        retract(&slot)
                    }
                    scrub(&slot, 0, Reference::NONE);
                }
            });
            let reader = thread::spawn({
                let notes = notes.clone();
                move || {
                    let mut gone = false;
                    for _ in 0..3 {
                        let mut out = Vec::new();
                        // Here the checksum is on: a tombstone's word must not make a version damaged.
                        match read(&slot, X, LEN, true, Some(&mut out)) {
                            Seen::Whole(header) => {
                                assert_eq!((header, &out), (version(0, LEN), &data(0, LEN)));
                                assert!(!gone, "it came back");
                                assert_eq!(header.kind(), SlotKind::Record);
                                notes.note("there");
                            }
                            Seen::InMotion => {
                                gone = true;
                                notes.note("gone");
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
            });
            reader.join().unwrap();
            writer.join().unwrap();
        });
        seen.expect(&["there", "gone"]);
    }
}

/// One process scrubs the slot, another one takes it: writes it, or reserves it and fills it in place.
#[test]
fn a_slot_that_another_process_takes_is_not_taken_for_what_was_there() {
    const LEN: usize = 8;
    let publishes: fn(&[AtomicU64]) = |slot| write(slot, 2, LEN);
    let reserves: fn(&[AtomicU64]) = |slot| {
        reserve(slot, Header::reserved(X, 1, 1));
        copy_in(&slot[HEADER_WORDS..], &data(2, LEN));
        publish_filled(slot, version(2, LEN));
    };
    for (name, takes) in [("slot: taken by another", publishes), ("slot: reserved by another", reserves)] {
        let seen = explore_and_tell(name, IN_TURN, move |notes| {
            let slot = new_slot(LEN);
            let handed_over = Arc::new(AtomicU64::new(0)); // As the region's lock hands over.
            write(&slot, 0, LEN);
            let scrubber = thread::spawn({
                let (slot, handed_over) = (Arc::clone(&slot), Arc::clone(&handed_over));
                move || {
                    scrub(&slot, 0, Reference::NONE);
                    handed_over.store(1, Ordering::Release);
                }
            });
            let taker = thread::spawn({
                let slot = Arc::clone(&slot);
                move || {
                    if handed_over.load(Ordering::Acquire) == 1 {
                        takes(&slot);
                    }
                }
            });
            let reader = thread::spawn({
                let notes = notes.clone();
                move || {
                    let mut last = 0;
                    let mut out = Vec::new();
                    let seen = read(&slot, X, LEN, false, Some(&mut out));
                    check(seen, Some(&out), LEN, &mut last, &notes);
                }
            });
            reader.join().unwrap();
            taker.join().unwrap();
            scrubber.join().unwrap();
        });
        seen.expect(&["version 0", "version 2", "motion"]);
    }
}

/// The claim on which `IN_TURN` rests, tried: all interleavings find what that one finds.
#[test]
fn a_reader_that_comes_last_sees_all_that_an_earlier_one_sees() {
    let outcomes = |bound, writes: fn(&[AtomicU64])| {
        let seen = explore(bound, move |notes| {
            let slot = new_slot(8);
            write(&slot, 0, 8);
            let writer = thread::spawn({
                let slot = Arc::clone(&slot);
                move || writes(&slot)
            });
            let reader = thread::spawn({
                let notes = notes.clone();
                move || {
                    let mut out = Vec::new();
                    let seen = read(&slot, X, 8, false, Some(&mut out));
                    notes.note(format!("{seen:?} {out:?}"));
                }
            });
            reader.join().unwrap();
            writer.join().unwrap();
        });
        seen.kinds()
    };
    let scrubs: fn(&[AtomicU64]) = |slot| scrub(slot, 0, Reference::NONE);
    assert_eq!(outcomes(IN_TURN, scrubs), outcomes(ALL, scrubs));
    let writes: fn(&[AtomicU64]) = |slot| write(slot, 1, 8);
    assert_eq!(outcomes(IN_TURN, writes), outcomes(ALL, writes));
}
