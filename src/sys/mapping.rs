//! The file as words of shared memory.
//!
//! The address space is reserved up to the store's ceiling at once, so that the file grows in one
//! process without a remap in another. Only what lies inside the file may be touched: every access
//! is checked against a length that this process has seen the file to have.
//!
//! # Hazards that no check removes
//!
//! A file that is *truncated* by somebody while it is mapped, or a disk that fails to read a page,
//! gives SIGBUS; a store's file is only ever extended by this crate.
//!
//! A forked child that touches what was lent to its parent gets SIGSEGV.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::atomic::{AtomicU64, Ordering};
use super::fork::Birthplace;

/// A shared mapping of a file that grows. A forked child has none: what was lent to its parent changes when the
/// parent says so, and the child would see it, or write to it, without a word.
pub(crate) struct Mapping {
    raw: ManuallyDrop<MmapRaw>,
    mapped_in: Birthplace,
    reserved: u64,
    grain: Grain,
    known: AtomicU64,
}

/// In what units a file grows: a part of one at its end is not used.
#[derive(Clone, Copy)]
pub(crate) struct Grain {
    /// Where the first unit begins.
    pub(crate) base: u64,
    /// Bytes of a unit.
    pub(crate) unit: u64,
}

impl Grain {
    /// Every byte of the file is used.
    pub(crate) const BYTE: Self = Self { base: 0, unit: 1 };

    /// How much of a file of `len` bytes is used.
    fn whole(self, len: u64) -> u64 {
        len - len.saturating_sub(self.base) % self.unit
    }
}

// SAFETY: the mapping is shared memory that is only ever accessed through `&AtomicU64`; the pointer
// in `MmapRaw` may be used from any thread.
unsafe impl Sync for Mapping {}
// SAFETY: as above; nothing about the mapping is tied to the thread that made it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `reserved` bytes of `file`, of which those up to its length, in whole units, may be used.
    pub(crate) fn new(file: &File, reserved: u64, writable: bool, grain: Grain) -> io::Result<Self> {
        let len = grain.whole(file.metadata()?.len().min(reserved));
        let size = usize::try_from(reserved).map_err(io::Error::other)?;
        let mut options = MmapOptions::new();
        options.len(size);
        let raw = if writable { options.map_raw(file) } else { options.map_raw_read_only(file) }?;
        // By itself the kernel reads far ahead at the first touch of a new extent, which one write then waits
        // for; and what is read ahead lies in large folios, all of which a flush writes for one changed byte.
        // Whoever goes through the file asks for it (`will_read`). Only speed depends on it.
        let _ = raw.advise(Advice::Random);
        // Refused, a child would have it as before; the kernel refuses it to mappings of devices alone.
        let _ = raw.advise(Advice::DontFork);
        let raw = ManuallyDrop::new(raw);
        Ok(Self { raw, mapped_in: Birthplace::here(), reserved, grain, known: AtomicU64::new(len) })
    }

    /// Length of the file in bytes, in whole units, as last seen.
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// Looks at the file's length again.
    pub(crate) fn refresh(&self, file: &File) -> io::Result<u64> {
        let len = self.grain.whole(file.metadata()?.len().min(self.reserved));
        self.known.fetch_max(len, Ordering::Relaxed);
        Ok(self.len())
    }

    /// `count` words at `offset`, or `None` if they do not lie inside the file as last seen.
    #[inline]
    pub(crate) fn words(&self, offset: u64, count: usize) -> Option<&[AtomicU64]> {
        let end = offset.checked_add(count as u64 * 8)?;
        if end > self.len() || !offset.is_multiple_of(8) {
            return None;
        }
        // SAFETY: `offset..end` lies inside the reservation (`known <= reserved`) and inside the
        // file, which is never shortened; the mapping is page-aligned and `offset` a multiple of 8,
        // so the words are aligned; every access by this process to the mapping is atomic; the
        // mapping lives as long as `self`.
        Some(unsafe {
            std::slice::from_raw_parts(self.raw.as_mut_ptr().add(offset as usize).cast::<AtomicU64>(), count)
        })
    }

    /// Asks for the pages of a range to be there, writable, before they are touched. Only speed
    /// depends on it, so a failure is of no consequence.
    pub(crate) fn populate(&self, offset: u64, bytes: u64) {
        // Pages that are read together cost less than those that a fault brings in, one by one.
        self.will_read(offset, bytes);
        self.populate_cached(offset, bytes);
    }

    /// The same for pages that are in memory already, and only not mapped.
    pub(crate) fn populate_cached(&self, offset: u64, bytes: u64) {
        if bytes == 0 || offset.saturating_add(bytes) > self.len() {
            return;
        }
        let from = offset & !4095;
        // SAFETY: the range lies inside the mapping and inside the file (checked above); the advice
        // changes no content.
        unsafe {
            libc::madvise(
                self.raw.as_mut_ptr().add(from as usize).cast(),
                (offset + bytes - from) as usize,
                libc::MADV_POPULATE_WRITE,
            );
        }
    }

    /// Flushes the pages of a range, and no others.
    pub(crate) fn flush(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if offset.saturating_add(bytes) > self.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.raw.flush_range(offset as usize, bytes as usize)
    }

    /// Has the kernel begin to read a range from the disk, if it is not in memory. Only speed depends on it.
    pub(crate) fn will_read(&self, offset: u64, bytes: u64) {
        if bytes != 0 && offset.saturating_add(bytes) <= self.len() {
            let _ = self.raw.advise_range(Advice::WillNeed, offset as usize, bytes as usize);
        }
    }

    /// Asks the processor to fetch the line at `offset`; a no-op outside the file.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64) {
        if offset < self.len() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a prefetch has no effect but on caches, and the address is in the mapping.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(self.raw.as_ptr().add(offset as usize).cast());
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // In a child other memory may be at this address, perhaps the same file that it opened anew.
        if self.mapped_in.is_here() {
            // SAFETY: dropped once, here; the field is not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.raw) };
        }
    }
}

/// The first `len` bytes of words that nobody writes any more, or `None` if there are not as many.
///
/// # Safety
/// No process may write to the words while the slice lives. The protocol sees to that; a process that
/// does not keep the protocol can break it, as it can for every mapping of a file.
pub(crate) unsafe fn frozen(words: &[AtomicU64], len: usize) -> Option<&[u8]> {
    if len > size_of_val(words) {
        return None;
    }
    // SAFETY: the bytes are inside of `words`, initialised, and not written meanwhile (the caller's
    // promise).
    Some(unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), len) })
}
