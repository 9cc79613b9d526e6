//! Seats: one per attached handle. A seat is held by a file lock on its own byte; what stands in
//! its words is for finding a free one and for people.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use super::PAGE_BYTES;

/// Seats in every store.
pub(crate) const SEATS: u32 = 1024;
/// Offset of the first seat.
pub(crate) const SEATS_OFFSET: u64 = 2 * PAGE_BYTES;
/// Bytes of a seat.
pub(crate) const SEAT_BYTES: u64 = size_of::<Seat>() as u64;

/// Words of a seat that count borrows, each a generation of them.
pub(crate) const BORROWS: u32 = 4;

/// A seat's words.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Seat {
    /// Checked (or zero: never claimed): how often the seat was claimed; raised by each claim.
    generation: u64,
    /// `TAKEN` or `LEAVING` from claim to release: tells a seat that was left from one whose owner died.
    taken: u64,
    /// The owner's process id as it sees itself (low 32 bits), and the number of its PID namespace, or 0 (high 32).
    /// For people.
    pid: u64,
    /// Checked (or zero: none): the epoch whose records the holder still reads.
    moment: u64,
    /// Generations of borrows: the clock when the first one began (low 48 bits), and how many there are (high 16).
    borrows: [u64; BORROWS as usize],
}

const _: () = assert!(size_of::<Seat>() == 64);

/// Whether a seat is taken: by a handle that may write.
pub(crate) const TAKEN: u64 = 1;
/// By a handle that is being closed, and writes no record any more.
pub(crate) const LEAVING: u64 = 2;

/// Offset of a seat's generation.
pub(crate) const fn generation(seat: u32) -> u64 {
    SEATS_OFFSET + seat as u64 * SEAT_BYTES + offset_of!(Seat, generation) as u64
}
/// Offset of a seat's taken mark.
pub(crate) const fn taken(seat: u32) -> u64 {
    SEATS_OFFSET + seat as u64 * SEAT_BYTES + offset_of!(Seat, taken) as u64
}
/// Offset of a seat's process id.
pub(crate) const fn pid(seat: u32) -> u64 {
    SEATS_OFFSET + seat as u64 * SEAT_BYTES + offset_of!(Seat, pid) as u64
}

/// Offset of a seat's moment.
pub(crate) const fn moment(seat: u32) -> u64 {
    SEATS_OFFSET + seat as u64 * SEAT_BYTES + offset_of!(Seat, moment) as u64
}

/// Offset of a word of a seat that counts borrows.
pub(crate) const fn borrows(seat: u32, number: u32) -> u64 {
    SEATS_OFFSET + seat as u64 * SEAT_BYTES + offset_of!(Seat, borrows) as u64 + number as u64 * 8
}

/// Byte-range file locks lie far behind every file's end, where no data can be.
const LOCKS: u64 = 1 << 61;

/// The byte whose lock holds a seat.
pub(crate) const fn seat_byte(seat: u32) -> u64 {
    LOCKS + seat as u64
}
/// The byte whose lock makes one waiter the region's judge.
pub(crate) const fn queue_byte(region: u32) -> u64 {
    LOCKS + (1 << 20) + region as u64
}
/// The byte whose lock is held to let the file grow.
pub(crate) const GROWTH_BYTE: u64 = LOCKS + (1 << 30);
/// The byte whose lock is held to flush.
pub(crate) const SYNC_BYTE: u64 = LOCKS + (1 << 30) + 1;
/// The byte whose lock is held to take its name from a store in memory.
pub(crate) const NAME_BYTE: u64 = LOCKS + (1 << 30) + 2;
