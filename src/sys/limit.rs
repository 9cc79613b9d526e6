//! The limits of this process (`getrlimit`).

/// The length in bytes to which this process may extend a file; `None`: no limit is known.
pub(crate) fn file_bytes() -> Option<u64> {
    // SAFETY: the call fills a value of its own type.
    soft(|limit| unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, limit) })
}

/// Bytes of address space that this process may have, likewise.
pub(crate) fn address_space() -> Option<u64> {
    // SAFETY: the call fills a value of its own type.
    soft(|limit| unsafe { libc::getrlimit(libc::RLIMIT_AS, limit) })
}

/// The limit that is enforced. Each libc has another type for a resource, so the caller makes the call.
fn soft(ask: impl FnOnce(&mut libc::rlimit) -> libc::c_int) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    (ask(&mut limit) == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
