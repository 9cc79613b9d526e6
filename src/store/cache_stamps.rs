//! When the values of a cache were used last: stamps that only decide what goes first.
//!
//! A stamp is a reading of the clock of the cache, which counts writes. Every value has one of many stamps, by the hash of its key, so two
//! values may have one stamp. A handle keeps all stamps in its own memory: a read stores one word there, takes no lock, and writes nothing
//! to the store. Each write exchanges the stamps of one group with the record of the group, so that all handles come to know all stamps. A
//! handle that only reads tells nobody: if a value that it uses goes for that reason, its next read is a miss, and the write behind the
//! miss tells.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Result;
use crate::record::Durability;
use crate::store::space::Space;

/// Stamps of a group.
const GROUP: usize = 128;
/// Bytes of the record of a group.
pub(super) const GROUP_BYTES: usize = 4 * GROUP;
/// Most stamps.
const STAMPS_MAX: u64 = 1 << 22;

/// The stamps as a handle knows them. 0: none.
#[derive(Debug)]
pub(super) struct Stamps {
    stamps: Box<[AtomicU32]>,
    /// The clock as the handle knows it.
    now: AtomicU32,
    next_group: AtomicU32,
}

/// The later one of two stamps. The clock may have wrapped around.
fn later(a: u32, b: u32) -> u32 {
    match (a, b) {
        (0, b) => b,
        (a, 0) => a,
        _ => {
            if (a.wrapping_sub(b) as i32) > 0 {
                a
            } else {
                b
            }
        }
    }
}

impl Stamps {
    /// For a cache of about so many values.
    pub(super) fn new(values: u64) -> Self {
        let count = values.saturating_mul(2).clamp(GROUP as u64, STAMPS_MAX).next_power_of_two();
        let stamps = (0..count).map(|_| AtomicU32::new(0)).collect();
        Self { stamps, now: AtomicU32::new(1), next_group: AtomicU32::new(0) }
    }

    fn of(&self, id: u64) -> Option<&AtomicU32> {
        self.stamps.get(id as usize & (self.stamps.len() - 1))
    }

    /// Learns the time.
    pub(super) fn learn(&self, tick: u64) {
        let now = self.now.load(Ordering::Relaxed);
        if later(now, tick as u32) != now {
            self.now.store(tick as u32, Ordering::Relaxed);
        }
    }

    /// Notes that a value is used now.
    #[inline]
    pub(super) fn use_now(&self, id: u64) {
        if let Some(stamp) = self.of(id) {
            // A use is later than the last write, and earlier than the next one in `age`.
            let now = self.now.load(Ordering::Relaxed).wrapping_add(1);
            // A store would take the line from other threads that read the same value.
            if stamp.load(Ordering::Relaxed) != now {
                stamp.store(now, Ordering::Relaxed);
            }
        }
    }

    /// The time since the value with this id, written at `tick`, was used or written.
    pub(super) fn age(&self, id: u64, tick: u64, now: u64) -> u32 {
        let stamp = self.of(id).map_or(0, |stamp| stamp.load(Ordering::Relaxed));
        let (used, now) = (later(tick as u32, stamp), (now as u32).wrapping_add(2));
        // Others may have written since `now` was read.
        if later(now, used) == used { 0 } else { now.wrapping_sub(used) }
    }

    /// Exchanges the stamps of the next group with its record in `space`.
    pub(super) fn exchange(&self, space: &Space<'_>) -> Result<()> {
        let groups = (self.stamps.len() / GROUP) as u32;
        let group = self.next_group.fetch_add(1, Ordering::Relaxed) % groups;
        let Some(mine) = self.stamps.get(group as usize * GROUP..).and_then(|rest| rest.get(..GROUP)) else {
            return Ok(());
        };
        let key = group.to_be_bytes();
        let mut data = Vec::with_capacity(GROUP_BYTES + 64);
        if space.get_into(key, &mut data)?.is_none() {
            data.clear();
        }
        if merge(mine, &mut data) {
            space.update_with(key, Durability::Process, |theirs| {
                let mut data = theirs.unwrap_or_default().to_vec();
                merge(mine, &mut data);
                Some(data)
            })?;
        }
        Ok(())
    }
}

/// Makes both stamps of each pair the later one. Returns whether a stamp in `record` changed.
fn merge(mine: &[AtomicU32], record: &mut Vec<u8>) -> bool {
    record.resize(GROUP_BYTES, 0);
    let mut is_changed = false;
    for (mine, theirs) in mine.iter().zip(record.as_chunks_mut::<4>().0) {
        let (my_stamp, their_stamp) = (mine.load(Ordering::Relaxed), u32::from_le_bytes(*theirs));
        let newest = later(their_stamp, my_stamp);
        if newest != my_stamp {
            mine.store(newest, Ordering::Relaxed);
        }
        if newest != their_stamp {
            *theirs = newest.to_le_bytes();
            is_changed = true;
        }
    }
    is_changed
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_stamps_is_found_even_where_the_clock_wrapped() {
        for (a, b, expected) in [(0, 7, 7), (7, 0, 7), (7, 8, 8), (u32::MAX, 3, 3), (3, u32::MAX, 3)] {
            assert_eq!(later(a, b), expected);
        }
    }

    #[test]
    fn two_handles_come_to_know_the_stamps_of_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::Store::create(dir.path().join("s")).unwrap();
        let space = store.space("stamps").unwrap();
        let [a, b] = [Stamps::new(1000), Stamps::new(1000)];
        assert_eq!(a.stamps.len(), 2048);
        a.learn(5);
        a.use_now(3);
        b.learn(9);
        b.use_now(3000);
        for _ in 0..2 * 2048 / GROUP {
            [&a, &b].into_iter().for_each(|stamps| stamps.exchange(&space).unwrap());
        }
        for stamps in [&a, &b] {
            assert_eq!((stamps.age(3, 1, 10), stamps.age(3000, 1, 10), stamps.age(7, 1, 10)), (6, 2, 11));
        }
    }
}
