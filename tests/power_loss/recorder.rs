//! Watching a workload: what the file holds at every step, and when it is flushed.
//!
//! This binary has an `fdatasync` and an `msync` of its own, which the linker prefers to the C library's. So it is
//! known exactly when a flush begins and ends, other writers can be let in meanwhile, and no test
//! here waits for a real disk. Everything happens in one thread.

use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use recstore::testing;

use crate::disk::{SECTOR, Sector};
use crate::oracle::State;

const PAGE: usize = 4096;

/// The step after the end of a flush.
pub(crate) const FLUSH_IS_OVER: &str = "flush has ended";

/// What happened.
pub(crate) enum Entry {
    /// A step was passed. Since the entry before, these sectors changed; the file is so long.
    Step {
        name: &'static str,
        len: usize,
        changes: Vec<(usize, Sector)>,
    },
    FlushBegins,
    FlushEnds,
    FlushFails,
    /// A flush had failed, and the store is opened anew: what was not flushed may be gone.
    MemoryDoubted,
    /// These sectors are on disk.
    SomeFlushed(Range<usize>),
    /// The n-th operation of the workload begins.
    Operation(usize),
    /// A write begins; it may be there from here on.
    Begin(u64, State),
    /// The writes of these that began last are one batch.
    Batch(Vec<u64>),
    /// The writes of the id are acknowledged, the last one with this version.
    Acknowledge(u64, Option<u64>),
    SyncBegins,
    /// The record as it is, is durable.
    Durable(u64),
    /// `sync` has returned, and its promise holds.
    SyncReturned,
    /// Every record was looked at.
    Look(Vec<(u64, State)>),
    /// The writes that began were refused, and their records looked at.
    Refused(Vec<(u64, State)>),
}

struct Recorder {
    file: File,
    now: Vec<u8>,
    buffer: Vec<u8>,
    entries: Vec<Entry>,
    during_flush: Option<(Flush, Box<dyn FnOnce()>)>,
    fails: bool,
    /// Steps until the writer dies.
    left: Option<usize>,
    /// The file as a writer left it that died: what happens until it is buried never was.
    left_behind: Option<Vec<u8>>,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

impl Recorder {
    fn step(&mut self, name: &'static str) {
        if self.left_behind.is_some() {
            return;
        }
        let len = self.file.metadata().expect("the file's length").len() as usize;
        self.buffer.resize(len, 0);
        self.file.read_exact_at(&mut self.buffer, 0).expect("the file's bytes");
        self.now.resize(len, 0);
        let mut changes = Vec::new();
        for page in (0..len).step_by(PAGE) {
            let end = (page + PAGE).min(len);
            if self.now[page..end] == self.buffer[page..end] {
                continue;
            }
            for at in (page..end).step_by(SECTOR) {
                let (old, new) = (&mut self.now[at..at + SECTOR], &self.buffer[at..at + SECTOR]);
                if old != new {
                    old.copy_from_slice(new);
                    changes.push((at / SECTOR, Rc::new(new.try_into().unwrap())));
                }
            }
        }
        self.entries.push(Entry::Step { name, len, changes });
        self.left = self.left.map(|left| left - 1);
        if self.left == Some(0) {
            (self.left, self.left_behind) = (None, Some(self.now.clone()));
        }
    }

    fn note(&mut self, entry: Entry) {
        if self.left_behind.is_none() {
            self.entries.push(entry);
        }
    }

    /// Where in the file an address of this process lies, if the file is mapped there.
    fn offset_of(&self, address: usize) -> Option<usize> {
        let number = self.file.metadata().ok()?.ino().to_string();
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        maps.lines().find_map(|line| {
            // from-to, permissions, offset, device, number of the file, path
            let mut fields = line.split_ascii_whitespace();
            let (from, to) = fields.next()?.split_once('-')?;
            let [from, to] = [from, to].map(|at| usize::from_str_radix(at, 16).unwrap_or(0));
            let offset = usize::from_str_radix(fields.nth(1)?, 16).ok()?;
            let is_ours = fields.nth(1)? == number && (from..to).contains(&address);
            is_ours.then(|| offset + address - from)
        })
    }
}

/// Records what happens to the file from here on.
pub(crate) fn start(path: &Path) {
    let file = File::open(path).expect("the file");
    let now = std::fs::read(path).expect("the file's bytes");
    RECORDER.set(Some(Recorder {
        file,
        now,
        buffer: Vec::new(),
        entries: Vec::new(),
        during_flush: None,
        fails: false,
        left: None,
        left_behind: None,
    }));
    testing::set_hook(Some(Box::new(step)));
}

/// Ends the recording.
pub(crate) fn stop() -> Vec<Entry> {
    testing::set_hook(None);
    step("the end");
    RECORDER.take().map_or_else(Vec::new, |r| r.entries)
}

fn step(name: &'static str) {
    with(|r| r.step(name));
}

fn with(f: impl FnOnce(&mut Recorder)) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            f(recorder);
        }
    });
}

/// Notes something besides the file.
pub(crate) fn note(entry: Entry) {
    with(|r| r.note(entry));
}

/// The writer dies at the n-th step from here on (1 is the next one).
pub(crate) fn die_at(n: usize) {
    with(|r| r.left = Some(n));
}

/// Puts the file back to what a writer left that died, if it has; whether it has. Its handle is gone by now. The file stays as long as it
/// is: others have mapped it.
pub(crate) fn bury(path: &Path) -> bool {
    let mut bytes = None;
    with(|r| {
        r.left = None;
        bytes = r.left_behind.take();
    });
    let Some(mut bytes) = bytes else { return false };
    let file = File::options().write(true).open(path).expect("the file");
    bytes.resize(file.metadata().expect("the file's length").len() as usize, 0);
    file.write_all_at(&bytes, 0).expect("the file's bytes");
    step("a writer has died");
    true
}

/// Which file is flushed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    Recorded,
    /// Another one: the copy that a backup makes.
    Other,
}

/// Has `f` called in the middle of the next such flush.
pub(crate) fn during_next(flush: Flush, f: impl FnOnce() + 'static) {
    with(|r| r.during_flush = Some((flush, Box::new(f))));
}

/// Nothing is called in the middle of a flush any more, and flushes succeed.
pub(crate) fn reset_flush() {
    with(|r| {
        r.during_flush = None;
        r.fails = false;
    });
}

/// The next flush of the recorded file fails.
pub(crate) fn next_flush_fails() {
    with(|r| r.fails = true);
}

/// Whether the flush that was to fail has been asked for.
pub(crate) fn has_failed() -> bool {
    let mut has = false;
    with(|r| has = !r.fails);
    has
}

/// The flush of this simulated disk.
///
/// It replaces the C library's for this binary: it must have its signature, and has.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(descriptor: libc::c_int) -> libc::c_int {
    // SAFETY: whoever calls it has the descriptor open until it returns.
    let file = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let file = nix::sys::stat::fstat(file).expect("a descriptor that can be flushed");
    let (mut flush, mut fails, mut meanwhile) = (Flush::Other, false, None);
    with(|r| {
        let ours = r.file.metadata().expect("the file's number");
        if (ours.dev(), ours.ino()) == (file.st_dev, file.st_ino) {
            flush = Flush::Recorded;
            fails = std::mem::take(&mut r.fails);
            r.step("flush begins");
            r.note(Entry::FlushBegins);
        }
        meanwhile = r.during_flush.take_if(|(which, _)| *which == flush);
    });
    if let Some((_, meanwhile)) = meanwhile {
        meanwhile();
    }
    if flush == Flush::Recorded {
        with(|r| {
            r.step("flush ends");
            r.note(if fails { Entry::FlushFails } else { Entry::FlushEnds });
            r.step(FLUSH_IS_OVER);
        });
    }
    if fails {
        Errno::EIO.set();
        return -1;
    }
    0
}

/// The flush of a range.
///
/// It replaces the C library's for this binary: it must have its signature, and has.
#[unsafe(no_mangle)]
extern "C" fn msync(address: *mut libc::c_void, len: libc::size_t, _flags: libc::c_int) -> libc::c_int {
    let mut fails = false;
    with(|r| {
        let at = r.offset_of(address.addr()).expect("an address in a mapping of the file");
        fails = std::mem::take(&mut r.fails);
        r.step("range is flushed");
        if !fails {
            r.note(Entry::SomeFlushed(at / SECTOR..(at + len).div_ceil(SECTOR)));
        }
    });
    if fails {
        Errno::EIO.set();
        return -1;
    }
    0
}
