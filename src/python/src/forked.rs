//! Lent bytes in a forked child.
//!
//! A child does not have the mapping of its parent, so an array that the parent had read in place would be a SIGSEGV there. The parent
//! could end its pin meanwhile, so the bytes in the file would not do. So a fork copies what is lent at that moment, and puts the copy
//! where the child looks for it.
//!
//! 1. Before the fork, in the parent: no view comes or goes any more, and the bytes of each are copied. Views on one page share a copy.
//! 2. In the child, where these addresses are free, the copies are moved there. That takes system calls alone.
//! 3. In the parent, the copies go.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::ptr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

const PAGE: usize = 4096;

/// The lent bytes: address and number of each, and how many views have them.
type Lent = BTreeMap<(usize, usize), usize>;

static LENT: Mutex<Lent> = Mutex::new(BTreeMap::new());
static INSTALL: Once = Once::new();

/// A copy for the child: the page that it is for, the pages, and where they are now.
struct Copied {
    to: usize,
    bytes: usize,
    at: *mut libc::c_void,
}

/// What a fork that is under way has: the lock of `LENT`, and the copies.
struct Underway(UnsafeCell<(Option<MutexGuard<'static, Lent>>, Vec<Copied>)>);

// SAFETY: only the thread that forks uses it, between the first handler and the last, and the lock excludes the others.
unsafe impl Sync for Underway {}

static UNDERWAY: Underway = Underway(UnsafeCell::new((None, Vec::new())));

/// Bytes that are lent for as long as this value lives.
pub(crate) struct Registered(usize, usize);

impl Registered {
    pub(crate) fn new(at: *const u8, len: usize) -> Self {
        INSTALL.call_once(|| {
            // SAFETY: the handlers are functions without a state of their own.
            unsafe {
                libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child));
            }
        });
        let place = (at.addr(), len);
        *LENT.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default() += 1;
        Self(place.0, place.1)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut lent = LENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = lent.get_mut(&(self.0, self.1)) {
            *count -= 1;
            if *count == 0 {
                lent.remove(&(self.0, self.1));
            }
        }
    }
}

/// The pages that lent bytes are on, in order, and put together where they overlap.
fn pages(lent: &Lent) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for &(at, len) in lent.keys().filter(|(_, len)| *len != 0) {
        let (start, end) = (at / PAGE * PAGE, (at + len).next_multiple_of(PAGE));
        match found.last_mut() {
            Some(last) if start < last.1 => last.1 = last.1.max(end),
            _ => found.push((start, end)),
        }
    }
    found
}

extern "C" fn before() {
    let lent = LENT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut copies = Vec::new();
    for (start, end) in pages(&lent) {
        // SAFETY: new pages of memory.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                end - start,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            continue; // Without memory the child has none of these bytes.
        }
        for &(from, len) in lent.keys().filter(|(from, _)| (start..end).contains(from)) {
            // SAFETY: the bytes are lent, so they are mapped, and the copy has room for them.
            unsafe { ptr::copy_nonoverlapping(from as *const u8, at.cast::<u8>().add(from - start), len) };
        }
        copies.push(Copied { to: start, bytes: end - start, at });
    }
    // SAFETY: see `Underway`.
    unsafe { *UNDERWAY.0.get() = (Some(lent), copies) };
}

extern "C" fn after_in_parent() {
    // SAFETY: see `Underway`; the pages were mapped in `before`.
    unsafe {
        let (lent, copies) = &mut *UNDERWAY.0.get();
        for copy in copies.drain(..) {
            libc::munmap(copy.at, copy.bytes);
        }
        *lent = None;
    }
}

extern "C" fn after_in_child() {
    // SAFETY: see `Underway`. The child has nothing at these addresses: its parent's mapping is not inherited.
    unsafe {
        let (lent, copies) = &mut *UNDERWAY.0.get();
        for copy in &*copies {
            let to = copy.to as *mut libc::c_void;
            libc::mremap(copy.at, copy.bytes, copy.bytes, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to);
        }
        *lent = None;
    }
}
