//! The clock of a store: the time by which values expire.
//!
//! Values outlive a boot of the machine, so their deadlines are wall-clock times. But the wall clock can be set. A jump must neither
//! expire all values nor keep them for ever. So the store has a clock of its own:
//!
//! 1. The *anchor* is a record of the store: a boot of the kernel, a time since that boot, and the time of the store at that moment.
//! 2. In the anchor's boot, the time since the anchor is measured by the kernel's clock since boot, which nobody can set. The time of
//!    the store is the wall clock, but at most half of the measured time, and at most 30 seconds, away from anchor plus measured time.
//!    So between an anchor and now, the clock of the store advances by half to one and a half of the time that passed, whatever the
//!    wall clock does. If the wall clock is right, the two are equal.
//! 3. In another boot the time between is known by the wall clock alone. It is believed if it is after the anchor by at least the time
//!    that has surely passed, and at most a year. Otherwise the clock goes on from the anchor, and follows the wall clock by rule 2.
//!    The time that has surely passed is that since boot. But a container may show a boot id of its own, beside the kernel's clock
//!    since boot: if that is not behind the anchor's, only the difference of the two has surely passed.
//! 4. A write with a deadline, and a sweep, first set the anchor to now if it is of another boot or older than a minute. Reads write
//!    nothing.
//!
//! A clock that is wrong by less than a year when the machine starts can't be told from a machine that was off for so long. The same
//! holds for a wall clock that jumps between two processes that see two boot ids. While the wall clock is wrong, two handles may differ
//! by 15 seconds: one has seen the newest anchor, and the other looks for it twice a minute.

use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::store::Store;
use crate::sys::clock::{self, Reading};

/// The space of the anchor. No program can give this name.
pub(super) const SPACE: &str = "\u{2}clock";
/// The key of the anchor.
const KEY: &str = "anchor";
/// An anchor is replaced after this time, and a handle looks again for another one.
const ANCHOR_MS: u64 = 60_000;
/// The clock is at most this far away from anchor plus measured time.
const APART_MS_MAX: u64 = 30_000;
/// A machine that was off for longer has a wrong wall clock.
const OFF_MS_MAX: u64 = 366 * 24 * 3600 * 1000;

/// A moment of which the time is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Anchor {
    boot: [u64; 2],
    up_ms: u64,
    now_ms: u64,
}

impl Anchor {
    /// Whether a look is in the boot of the anchor, and after it.
    fn is_before(&self, at: &Reading) -> bool {
        self.boot == at.boot && self.up_ms <= at.up_ms
    }

    /// The time of the store at a look at the clocks: rules 2 and 3.
    fn time(&self, at: &Reading) -> u64 {
        let passed = at.up_ms.checked_sub(self.up_ms).unwrap_or(at.up_ms);
        let on = self.now_ms.saturating_add(passed);
        if !self.is_before(at) && (on..=self.now_ms.saturating_add(OFF_MS_MAX)).contains(&at.wall_ms) {
            return at.wall_ms;
        }
        let apart = (passed / 2).min(APART_MS_MAX);
        at.wall_ms.clamp(on - apart, on.saturating_add(apart))
    }

    /// Whether it is time for another anchor.
    fn is_old(&self, at: &Reading) -> bool {
        !self.is_before(at) || at.up_ms - self.up_ms > ANCHOR_MS
    }
}

/// What a handle knows of the clock of its store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<Mutex<Known>>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    anchor: Option<Anchor>,
    /// When the handle looked for it.
    looked: Option<Reading>,
}

impl Clock {
    fn known(&self) -> Known {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, known: Known) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

impl Store {
    /// The time of the store, in milliseconds since 1970. Writes nothing. Without an anchor, or with one that is damaged, it is the
    /// wall clock.
    pub(super) fn now_ms(&self) -> u64 {
        let at = clock::read();
        let anchor = self.anchor_at(&at).unwrap_or_default();
        anchor.map_or(at.wall_ms, |anchor| anchor.time(&at))
    }

    /// The same without a look at the store, if the handle has looked. A caller that holds a region's lock may not read.
    #[inline]
    pub(super) fn now_ms_if_known(&self) -> Option<u64> {
        let anchor = self.clock.known().anchor?;
        Some(anchor.time(&clock::read()))
    }

    /// The same as far as the handle has looked, for a caller that holds a region's lock.
    pub(super) fn now_ms_under_lock(&self) -> u64 {
        let at = clock::read();
        self.clock.known().anchor.map_or(at.wall_ms, |anchor| anchor.time(&at))
    }

    /// The same before a write with a deadline: sets the anchor if it is time to.
    pub(super) fn now_ms_for_write(&self) -> Result<u64> {
        let at = clock::read();
        match self.anchor_at(&at) {
            Ok(Some(anchor)) if !anchor.is_old(&at) => return Ok(anchor.time(&at)),
            Ok(_) | Err(Error::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        let set = self.set_anchor(&at);
        let now = match set {
            Err(Error::EntryTooLong { len, max, .. }) => {
                let what = format!(
                    "a time to live in a store whose records have at most {max} bytes: the store notes its clock in {len}; \
                     create one with a larger record size"
                );
                return Err(Error::InvalidOption { what });
            }
            Err(Error::Corrupt { .. }) => {
                let anchor = Anchor { boot: at.boot, up_ms: at.up_ms, now_ms: at.wall_ms };
                self.space_of(SPACE).put(KEY, bytemuck::bytes_of(&anchor))?;
                anchor
            }
            set => set?,
        };
        self.clock.set(Known { anchor: Some(now), looked: Some(at) });
        Ok(now.time(&at))
    }

    /// The anchor, if a look of less than a minute ago found one, or a look now does.
    fn anchor_at(&self, at: &Reading) -> Result<Option<Anchor>> {
        let known = self.clock.known();
        let is_fresh = known.looked.is_some_and(|looked| {
            looked.boot == at.boot && looked.up_ms <= at.up_ms && at.up_ms - looked.up_ms <= ANCHOR_MS / 2
        });
        if is_fresh {
            return Ok(known.anchor);
        }
        let found = self.space_of(SPACE).get(KEY)?;
        let anchor = found.and_then(|record| bytemuck::try_pod_read_unaligned(record.data()).ok());
        self.clock.set(Known { anchor, looked: Some(*at) });
        Ok(anchor)
    }

    /// Sets the anchor to this moment, unless another handle was faster. The anchor that is there then.
    fn set_anchor(&self, at: &Reading) -> Result<Anchor> {
        let mut is = Anchor { boot: at.boot, up_ms: at.up_ms, now_ms: at.wall_ms };
        self.space_of(SPACE).update(KEY, |old| {
            let old = old.and_then(|old| bytemuck::try_pod_read_unaligned::<Anchor>(old).ok());
            match old {
                Some(old) if !old.is_old(at) => {
                    is = old;
                    return None;
                }
                Some(old) => is.now_ms = old.time(at),
                None => {}
            }
            Some(bytemuck::bytes_of(&is).to_vec())
        })?;
        Ok(is)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const ANCHOR: Anchor = Anchor { boot: [1, 2], up_ms: 5 * HOUR, now_ms: 1_000 * HOUR };

    fn time(boot: [u64; 2], up_ms: u64, wall_ms: u64) -> u64 {
        ANCHOR.time(&Reading { boot, up_ms, wall_ms })
    }

    #[test]
    fn the_clock_follows_a_wall_clock_that_is_right_and_a_jump_by_half_a_minute_at_most() {
        for passed in [0, 1, 1000, 40_000, 70_000, HOUR, 1000 * HOUR] {
            let (up, right) = (ANCHOR.up_ms + passed, ANCHOR.now_ms + passed);
            assert_eq!(time([1, 2], up, right), right);
            let apart = (passed / 2).min(30_000);
            for ahead in [right + HOUR, right + 10_000 * HOUR, u64::MAX] {
                assert_eq!(time([1, 2], up, ahead), right + apart);
            }
            for behind in [right - 900 * HOUR.min(right), 0] {
                assert_eq!(time([1, 2], up, behind), right - apart);
            }
        }
    }

    #[test]
    fn after_another_boot_the_wall_clock_is_believed_for_a_year_and_the_clock_never_goes_back() {
        let weekend = ANCHOR.now_ms + 60 * HOUR;
        assert_eq!(time([3, 4], HOUR, weekend), weekend);
        // Behind, as of a machine whose clock begins in 1970: the time since boot has passed at least.
        assert_eq!(time([3, 4], 10_000, 10_000), ANCHOR.now_ms + 5_000);
        assert_eq!(time([3, 4], HOUR, 0), ANCHOR.now_ms + HOUR - 30_000);
        // Ahead of what can be.
        assert_eq!(time([3, 4], HOUR, ANCHOR.now_ms + 400 * 24 * HOUR), ANCHOR.now_ms + HOUR + 30_000);
        // Another boot, or another id of this one: an hour has surely passed, and not six.
        assert_eq!(time([3, 4], 6 * HOUR, ANCHOR.now_ms + HOUR), ANCHOR.now_ms + HOUR);
        assert_eq!(time([3, 4], 6 * HOUR, weekend), weekend);
        assert_eq!(time([3, 4], 6 * HOUR, 0), ANCHOR.now_ms + HOUR - 30_000);
        // A clock since boot that is behind the anchor's is one of another boot that has no id.
        assert_eq!(time([1, 2], HOUR, weekend), weekend);
    }

    /// However often the anchor is set, and whatever the wall clock does meanwhile.
    #[test]
    fn the_clock_advances_by_half_to_one_and_a_half_of_the_time_that_passes() {
        for wall_ms in [0, u64::MAX] {
            let mut anchor = ANCHOR;
            for step in 1..1000_u64 {
                let at = Reading { boot: anchor.boot, up_ms: anchor.up_ms + step * 100, wall_ms };
                let now_ms = anchor.time(&at);
                let (passed, advanced) = (step * 100, now_ms - anchor.now_ms);
                assert!((passed / 2..=passed + passed / 2).contains(&advanced), "{advanced} of {passed} ms");
                anchor = Anchor { boot: at.boot, up_ms: at.up_ms, now_ms };
            }
        }
    }
}
