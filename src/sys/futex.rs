//! Sleeping on a word of the shared mapping until another process changes it.

use std::time::Duration;

use super::atomic::AtomicU64;

/// Sleeps while the low half of `word` is `expected`, for `limit` at most. May wake without cause.
pub(crate) fn wait(word: &AtomicU64, expected: u32, limit: Duration) {
    let timeout = libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: limit.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the address is that of the low half of a live, aligned word (little-endian); the
    // timeout is a valid `timespec` that outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            std::ptr::from_ref(word).cast::<u32>(),
            libc::FUTEX_WAIT,
            expected,
            &raw const timeout,
        );
    }
}

/// Wakes up to `count` sleepers of the low half of `word`, in all processes.
pub(crate) fn wake(word: &AtomicU64, count: u32) {
    // SAFETY: as above; waking has no other effect.
    unsafe {
        libc::syscall(libc::SYS_futex, std::ptr::from_ref(word).cast::<u32>(), libc::FUTEX_WAKE, count);
    }
}
