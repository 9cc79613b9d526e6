//! The file as words of shared memory.
//!
//! 1. **One mapping for a file and a process.** All writable handles of a process on one file share one mapping, and all
//!    read-only handles share another one, which can't be written. So the reserved address space does not depend on the number
//!    of handles.
//! 2. **The reserved address space follows the file.** It is larger than the file, so that the file grows in one process without
//!    a remap in another. A file that outgrows it is mapped once more, and longer. The previous mapping stays until the last
//!    handle is gone, so lent bytes stay in place. Both mappings have the same pages.
//! 3. **A length goes with a base that covers it.** Only bytes inside the file may be touched: every access is checked against a
//!    length that this handle has seen. The base is stored before the length (Release), and the length is loaded before the base
//!    (Acquire).
//! 4. A core dump does not include the file. A dump would walk the whole reserved range, and the process would live, with its
//!    locks, for as long.
//! 5. A forked child does not have the mapping. Bytes that were lent to its parent may change when the parent ends a borrow, and
//!    the child could see that, or write to them, without an error.
//!
//! # Hazards that no check removes
//!
//! If another program *truncates* the file while it is mapped, or the disk fails to read a page, the process gets SIGBUS. This
//! crate only extends the file of a store.
//!
//! A forked child that touches bytes that were lent to its parent gets SIGSEGV.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use super::atomic::{AtomicU64, Ordering};
use super::file;
use super::fork::{self, Birthplace, ForkFile, Inode};
use super::limit;

/// One handle's view of a file that grows.
pub(crate) struct Mapping {
    /// The address of the file's bytes. At least `known` of them are mapped there.
    base: AtomicPtr<u8>,
    known: AtomicU64,
    ceiling: u64,
    grain: Grain,
    shared: Arc<Spans>,
}

/// The units in which a file grows. An incomplete unit at its end is not used.
#[derive(Clone, Copy)]
pub(crate) struct Grain {
    /// The offset of the first unit.
    pub(crate) base: u64,
    /// Bytes of a unit.
    pub(crate) unit: u64,
}

impl Grain {
    /// Every byte of the file is used.
    pub(crate) const BYTE: Self = Self { base: 0, unit: 1 };

    /// The number of used bytes of a file of `len` bytes.
    fn whole(self, len: u64) -> u64 {
        len - len.saturating_sub(self.base) % self.unit
    }
}

/// The mappings of a file in this process, for all of its handles.
struct Spans {
    key: Option<Key>,
    /// The last one is the longest. The ones before it may still be in use.
    spans: Mutex<Vec<Span>>,
}

/// A piece of address space where the file is, from its first byte on.
struct Span {
    at: *mut u8,
    bytes: usize,
    mapped_in: Birthplace,
}

// SAFETY: only `Mapping::words` and the system calls here use the address, and both may be used from any thread.
unsafe impl Send for Span {}

/// A file, whether the mapping may be written, and the process that has it: a forked child does not have its parent's mapping.
type Key = (Inode, bool, Birthplace);

/// The mappings of this process. The mutex is locked only while no fork can happen, so no child finds it locked.
static MAPPINGS: LazyLock<Mutex<HashMap<Key, Weak<Spans>>>> = LazyLock::new(Mutex::default);

/// Address space that all mappings of this process have reserved, in bytes.
static RESERVED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
/// Mappings take half of a process's 128 TiB, or of its `ulimit -v`.
const BUDGET_BYTES: u64 = 64 << 40;
/// Each mapping takes this part of the rest, or this many bytes.
const PART: u64 = 1024;
const LEAST_BYTES: u64 = 256 << 20;
/// At least it takes this many times the file's length; fewer times if the rest is too small.
const TIMES: u64 = 4;
const TIMES_AT_LEAST: u64 = 2;

/// The bytes to reserve for a file of `len` bytes that may grow to `ceiling`.
fn wanted(len: u64, ceiling: u64) -> u64 {
    let budget = limit::address_space().map_or(BUDGET_BYTES, |bytes| BUDGET_BYTES.min(bytes / 2));
    let left = budget.saturating_sub(RESERVED.load(Ordering::Relaxed));
    let times = if len.saturating_mul(TIMES) <= left { TIMES } else { TIMES_AT_LEAST };
    let some = (left / PART).max(LEAST_BYTES.min(budget / PART));
    some.max(len.saturating_mul(times)).min(ceiling).max(len)
}

/// Bytes of a page of memory.
fn page_bytes() -> u64 {
    static PAGE: OnceLock<u64> = OnceLock::new();
    // SAFETY: the call only asks.
    *PAGE.get_or_init(|| u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096))
}

impl Span {
    /// A span that `map` makes for the wanted number of bytes or, if there is no address space, for the bytes of the file alone.
    fn of(len: u64, ceiling: u64, map: impl Fn(usize) -> *mut libc::c_void) -> io::Result<Self> {
        let page = page_bytes();
        let least = len.max(1).next_multiple_of(page);
        let mut bytes = wanted(len, ceiling).next_multiple_of(page).max(least);
        loop {
            let size = usize::try_from(bytes).map_err(io::Error::other)?;
            let at = map(size);
            if at != libc::MAP_FAILED {
                RESERVED.fetch_add(bytes, Ordering::Relaxed);
                let span = Self { at: at.cast(), bytes: size, mapped_in: Birthplace::here() };
                span.advise();
                return Ok(span);
            }
            let error = io::Error::last_os_error();
            if bytes == least || error.raw_os_error() != Some(libc::ENOMEM) {
                return Err(error);
            }
            bytes = (bytes / 2).next_multiple_of(page).max(least);
        }
    }

    /// Maps a file.
    fn new(file: &File, len: u64, ceiling: u64, writable: bool) -> io::Result<Self> {
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses an address where nothing is mapped; the descriptor is open.
        let map = |size| unsafe { libc::mmap(ptr::null_mut(), size, access, flags, file.as_raw_fd(), 0) };
        Self::of(len, ceiling, map)
    }

    /// Maps the same file once more, for more bytes. This takes no descriptor: the file's descriptor may be gone, and the file may
    /// not be opened again.
    fn longer(&self, len: u64, ceiling: u64) -> io::Result<Self> {
        // SAFETY: with an old size of 0, a shared mapping stays as it is, and is mapped a second time at a free address.
        let map = |size| unsafe { libc::mremap(self.at.cast(), 0, size, libc::MREMAP_MAYMOVE) };
        Self::of(len, ceiling, map)
    }

    fn advise(&self) {
        // The first: by default the kernel reads far ahead at the first touch of a new extent, and one write waits for this. The
        // pages that it reads ahead are in large folios, and a flush writes the whole folio for one changed byte. A pass
        // through the file asks for reading ahead (`will_read`). Only speed depends on it. The second is rule 4, the third
        // rule 5; the kernel refuses them only for mappings of devices.
        for advice in [libc::MADV_RANDOM, libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
            // SAFETY: the span is mapped, and the advice changes no content.
            unsafe { libc::madvise(self.at.cast(), self.bytes, advice) };
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        RESERVED.fetch_sub(self.bytes as u64, Ordering::Relaxed);
        // In a child other memory may be at this address, perhaps the same file that it opened anew.
        if self.mapped_in.is_here() {
            // SAFETY: this process mapped it, and there is no reference into it: all of them borrow from a `Mapping`, and the
            // last one is gone.
            unsafe { libc::munmap(self.at.cast(), self.bytes) };
        }
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        fork::without_fork(|| {
            let mut mappings = MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
            // The entry may be that of another `Spans` by now.
            if mappings.get(&key).is_some_and(|shared| shared.strong_count() == 0) {
                mappings.remove(&key);
            }
        });
    }
}

impl Mapping {
    /// The view of a handle. It never uses more than `ceiling` bytes, in whole units.
    pub(crate) fn of_handle(file: &ForkFile, ceiling: u64, writable: bool, grain: Grain) -> io::Result<Self> {
        let len = file.same_metadata()?.len().min(ceiling);
        // The lower and the upper file of an overlay may have the same inode number, one after the other.
        let key = (!file::is_on_overlay(file)).then(|| (file.identity(), writable, Birthplace::here()));
        let map = || Span::new(&file::open_again(file, writable)?, len, ceiling, writable);
        let shared = fork::without_fork(|| {
            let mut mappings = MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(shared) = key.and_then(|key| mappings.get(&key)?.upgrade()) {
                return Ok(shared);
            }
            let shared = Arc::new(Spans { key, spans: Mutex::new(vec![map()?]) });
            if let Some(key) = key {
                mappings.insert(key, Arc::downgrade(&shared));
            }
            Ok::<_, io::Error>(shared)
        })?;
        Self::view(shared, len, ceiling, grain)
    }

    /// A view of the whole file as it is now, for reading.
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let shared = Spans { key: None, spans: Mutex::new(vec![Span::new(file, len, len, false)?]) };
        Self::view(Arc::new(shared), len, len, Grain::BYTE)
    }

    fn view(shared: Arc<Spans>, len: u64, ceiling: u64, grain: Grain) -> io::Result<Self> {
        let (base, known) = (AtomicPtr::new(ptr::null_mut()), AtomicU64::new(0));
        let mapping = Self { base, known, ceiling, grain, shared };
        mapping.extend(grain.whole(len))?;
        Ok(mapping)
    }

    /// Length of the file in bytes, in whole units, as last seen. A base that is loaded afterwards covers it (Acquire: pairs with
    /// the Release in `extend`).
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.known.load(Ordering::Acquire)
    }

    #[inline]
    fn base(&self) -> *mut u8 {
        self.base.load(Ordering::Relaxed)
    }

    /// Looks at the file's length again.
    pub(crate) fn refresh(&self, file: &ForkFile) -> io::Result<u64> {
        let len = self.grain.whole(file.same_metadata()?.len().min(self.ceiling));
        if len > self.len() {
            self.extend(len)?;
        }
        Ok(self.len())
    }

    /// Makes `len` bytes usable, which the file has. Rules 2 and 3.
    #[cold]
    fn extend(&self, len: u64) -> io::Result<()> {
        let mut spans = self.shared.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = spans.last() else { return Err(io::ErrorKind::NotFound.into()) };
        let mut at = last.at;
        if (last.bytes as u64) < len {
            let longer = last.longer(len, self.ceiling)?;
            at = longer.at;
            spans.push(longer);
        }
        // Spans never become shorter, so a base that another thread stores after this one covers its length as well.
        self.base.store(at, Ordering::Relaxed);
        self.known.fetch_max(len, Ordering::Release);
        Ok(())
    }

    /// `count` words at `offset`, or `None` if they do not lie inside the file as last seen.
    #[inline]
    pub(crate) fn words(&self, offset: u64, count: usize) -> Option<&[AtomicU64]> {
        let end = offset.checked_add(count as u64 * 8)?;
        if end > self.len() || !offset.is_multiple_of(8) {
            return None;
        }
        // SAFETY: `offset..end` lies inside the span at the base, which was loaded after the length (rule 3), and inside
        // the file, which is never shortened; a span is page-aligned and `offset` a multiple of 8,
        // so the words are aligned; every access by this process to the mapping is atomic; the
        // span lives as long as `self`.
        Some(unsafe {
            std::slice::from_raw_parts(self.base().add(offset as usize).cast::<AtomicU64>(), count)
        })
    }

    /// Makes the pages of a range present and writable before they are touched. Only speed depends on it, so a failure is ignored.
    pub(crate) fn populate(&self, offset: u64, bytes: u64) {
        // Pages that are read together cost less than pages that faults bring in one by one.
        self.will_read(offset, bytes);
        self.populate_cached(offset, bytes);
    }

    /// The same for pages that are in memory already, and not mapped.
    pub(crate) fn populate_cached(&self, offset: u64, bytes: u64) {
        let _ = self.advise(offset, bytes, libc::MADV_POPULATE_WRITE);
    }

    /// Makes the pages of a range ready to be written, with their blocks. If the disk is full, this is an error, and a write would be
    /// a SIGBUS.
    pub(crate) fn make_writable(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.advise(offset, bytes, libc::MADV_POPULATE_WRITE).map_err(no_room)
    }

    /// The same for pages that will only be read.
    pub(crate) fn make_readable(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.advise(offset, bytes, libc::MADV_POPULATE_READ).map_err(no_room)
    }

    /// Makes the kernel begin to read a range from the disk, if it is not in memory. Only speed depends on it.
    pub(crate) fn will_read(&self, offset: u64, bytes: u64) {
        let _ = self.advise(offset, bytes, libc::MADV_WILLNEED);
    }

    fn advise(&self, offset: u64, bytes: u64, advice: libc::c_int) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let (at, len) = self.pages(offset, bytes)?;
        // SAFETY: the range lies inside the mapping and inside the file; the advice changes no content.
        let done = unsafe { libc::madvise(at.cast(), len, advice) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Flushes the pages of a range, and no others.
    pub(crate) fn flush(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let (at, len) = self.pages(offset, bytes)?;
        // SAFETY: the range lies inside the mapping and inside the file; flushing changes no content.
        let done = unsafe { libc::msync(at.cast(), len, libc::MS_SYNC) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The address of the pages of a range, and their bytes up to the end of the range.
    fn pages(&self, offset: u64, bytes: u64) -> io::Result<(*mut u8, usize)> {
        if offset.saturating_add(bytes) > self.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let from = offset & !(page_bytes() - 1);
        Ok((self.base().wrapping_add(from as usize), (offset + bytes - from) as usize))
    }

    /// Asks the processor to fetch the line at `offset`; a no-op outside the file.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64) {
        if offset < self.len() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a prefetch has no effect but on caches, and the address is in the mapping.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(self.base().add(offset as usize).cast());
            }
        }
    }
}

/// The meaning of the kernel's error for a page whose touch would be a SIGBUS.
fn no_room(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EFAULT) => io::Error::from_raw_os_error(libc::ENOSPC),
        _ => error,
    }
}

/// The first `len` bytes of words that no process writes any more, or `None` if the words are fewer.
///
/// # Safety
/// No process may write to the words while the slice lives. The protocol ensures this for every process that keeps it. A process
/// that does not keep the protocol can write to them, as to every mapping of a file.
pub(crate) unsafe fn frozen(words: &[AtomicU64], len: usize) -> Option<&[u8]> {
    if len > size_of_val(words) {
        return None;
    }
    // SAFETY: the bytes are inside of `words`, initialised, and not written meanwhile (the caller's
    // promise).
    Some(unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), len) })
}
