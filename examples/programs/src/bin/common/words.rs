//! Bare shared memory: a page of 64-bit words that several processes map. This is what the store's
//! users do without; the examples count in it what they compare the store with, since what a process
//! has stored there outlives it, and takes no system call.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::process;
use std::sync::atomic::AtomicU64;

use memmap2::MmapRaw;
use nix::sys::memfd::{MFdFlags, memfd_create};

const BYTES: usize = 4096;

/// A page of words, all 0 at first. It has no name, so nothing is left when the last process that maps
/// it ends.
pub(crate) struct Words {
    map: MmapRaw,
    file: File,
}

impl Words {
    pub(crate) fn create() -> io::Result<Self> {
        let file = File::from(memfd_create("words", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(BYTES as u64)?;
        Ok(Self { map: MmapRaw::map_raw(&file)?, file })
    }

    /// By what `Words::open` finds them in another process, while this one lives.
    pub(crate) fn address(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd())
    }

    pub(crate) fn open(address: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(address)?;
        Ok(Self { map: MmapRaw::map_raw(&file)?, file })
    }

    /// Word `n`, of 512, on a cache line of its own as long as `n` is below 64.
    pub(crate) fn word(&self, n: usize) -> &AtomicU64 {
        let words = BYTES / 8;
        let at = (n * 8 % words + n * 8 / words) % words;
        // SAFETY: the mapping is `words` words long, at the beginning of a page, and `at` is below that;
        // it is mapped as long as `self` is there, and nobody shortens the file. Every access in
        // every process is atomic, through this function.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(at)) }
    }
}
