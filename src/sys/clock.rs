//! The clocks of the machine.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::file::boot_id;

/// One look at the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The boot of the kernel; all zeros if it is not known.
    pub(crate) boot: [u64; 2],
    /// Milliseconds since the boot, time in which the machine slept included. Nobody can set this clock.
    pub(crate) up_ms: u64,
    /// Milliseconds since 1970 by the wall clock, which can be set.
    pub(crate) wall_ms: u64,
}

/// Milliseconds since 1970 of a moment; 0 for a moment before 1970.
pub(crate) fn since_1970(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Looks at the clocks.
pub(crate) fn read() -> Reading {
    #[cfg(feature = "testing")]
    if let Some(injected) = injected::get() {
        return injected;
    }
    static BOOT: OnceLock<[u64; 2]> = OnceLock::new();
    let boot = *BOOT.get_or_init(|| boot_id().ok().flatten().unwrap_or_default());
    Reading { boot, up_ms: up_ms(), wall_ms: since_1970(SystemTime::now()) }
}

fn up_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which the call fills.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) } != 0;
    debug_assert!(!failed, "Linux has had CLOCK_BOOTTIME since 2.6.39");
    (time.tv_sec as u64).saturating_mul(1000).saturating_add(time.tv_nsec as u64 / 1_000_000)
}

#[cfg(feature = "testing")]
pub(crate) mod injected {
    use std::sync::{Mutex, PoisonError};

    use super::Reading;

    static READING: Mutex<Option<Reading>> = Mutex::new(None);

    pub(super) fn get() -> Option<Reading> {
        *READING.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has every look of this process see this; `None`: the clocks of the machine.
    pub(crate) fn set(reading: Option<Reading>) {
        *READING.lock().unwrap_or_else(PoisonError::into_inner) = reading;
    }
}
