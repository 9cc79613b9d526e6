//! Kill points and faults for the crate's own tests.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub use crate::fault::Fault;
use crate::format::control;
pub use crate::store::flush::FLUSHED;
use crate::sys::step::armed;

/// Has this process killed at the n-th step from now (1 is the next one); 0 disarms.
pub fn arm(n: i64) {
    armed::arm(n);
}

/// Steps passed since [`arm`].
pub fn steps_seen() -> u64 {
    armed::seen()
}

/// Has `hook` called with the step's name at every step of this thread; `None` takes it away. The
/// hook may look at the file, and may not use a store.
///
/// At the step [`FLUSHED`], what the file held at the step before it is on disk.
pub fn set_hook(hook: Option<Box<dyn FnMut(&'static str)>>) {
    armed::set_hook(hook);
}

/// Switches a fault on, and the one before off; [`Fault::None`] for none.
pub fn switch(fault: Fault) {
    crate::fault::switch(fault);
}

/// Makes the store look as if it was last attached in another boot, and not closed cleanly: the
/// next one to open it takes it that the operating system went down.
pub fn set_boot_id(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&0xdead_u64.to_le_bytes(), control::BOOT)?;
    file.write_all_at(&0_u64.to_le_bytes(), control::CLEAN)
}
