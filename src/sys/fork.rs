//! Open handles in a forked child.
//!
//! A child inherits the open file descriptions, and with them the parent's locks. If they stayed open, a dead parent would seem
//! alive for as long as the child lives. So the descriptors of all handles are closed in the child (`pthread_atfork`). A
//! generation counter tells an inherited handle that it is one. A descriptor is opened and registered, and unregistered and
//! closed, while no fork can happen (`GATE`). A child does not have the mapping (see `mapping`).

use std::fs::{File, Metadata};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static GATE: AtomicBool = AtomicBool::new(false);
static NODES: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());
static INSTALL: Once = Once::new();

/// An entry of the list of open descriptors; entries are reused and never freed.
struct Node {
    descriptor: AtomicI32,
    next: *const Node,
}

extern "C" fn before_fork() {
    while GATE.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
        std::thread::yield_now();
    }
}

extern "C" fn after_fork_in_parent() {
    GATE.store(false, Ordering::Release);
}

extern "C" fn after_fork_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    let mut node = NODES.load(Ordering::Acquire).cast_const();
    // SAFETY: nodes are leaked boxes, so every pointer in the list is valid for ever; `close` may be
    // called in a forked child, and the descriptor is a handle's, which the child never uses.
    unsafe {
        while let Some(n) = node.as_ref() {
            let descriptor = n.descriptor.swap(-1, Ordering::Relaxed);
            if descriptor >= 0 {
                libc::close(descriptor);
            }
            node = n.next;
        }
    }
    GATE.store(false, Ordering::Release);
}

pub(super) fn without_fork<T>(body: impl FnOnce() -> T) -> T {
    INSTALL.call_once(|| {
        // SAFETY: the handlers only use atomics and `close`, which are allowed around a fork.
        unsafe {
            libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child));
        }
    });
    before_fork();
    let result = body();
    after_fork_in_parent();
    result
}

/// The number of forks between the first process that used the crate and this one.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// The process in which a value was made. Its id differs even in a child that was made without the handlers of `fork`
/// (`_Fork`, raw `clone`). Asking for the id costs a system call, so this is for rare calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Birthplace {
    generation: u64,
    pid: u32,
}

impl Birthplace {
    /// This process.
    pub(crate) fn here() -> Self {
        Self { generation: generation(), pid: std::process::id() }
    }

    /// Whether this process is that one.
    pub(crate) fn is_here(self) -> bool {
        self.generation == generation() && self.pid == std::process::id()
    }
}

/// A file whose descriptor a forked child does not keep.
///
/// A descriptor is a number, and other code of the process may close it and open another file under it. So the file is identified
/// by device and inode: before each lock, growth and flush [`same`](Self::same) compares them.
pub(crate) struct ForkFile {
    file: ManuallyDrop<File>,
    node: &'static Node,
    opened_in: Birthplace,
    identity: Inode,
}

/// The identity of a file: its device and its inode.
pub(crate) type Inode = (u64, u64);

/// The identity of an open file.
pub(crate) fn identity(file: &File) -> io::Result<Inode> {
    file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

// SAFETY: a node is only changed through its atomic; `next` is written before the node is shared.
unsafe impl Sync for Node {}

impl ForkFile {
    /// The file that `open` gives, registered before any fork can happen.
    pub(crate) fn open(open: impl FnOnce() -> io::Result<File>) -> io::Result<Self> {
        without_fork(|| {
            let file = open()?;
            let identity = identity(&file)?;
            let node = Self::register(file.as_raw_fd());
            Ok(Self { file: ManuallyDrop::new(file), node, opened_in: Birthplace::here(), identity })
        })
    }

    fn register(descriptor: i32) -> &'static Node {
        let head = NODES.load(Ordering::Acquire).cast_const();
        let mut node = head;
        // SAFETY: see `after_fork_in_child`.
        while let Some(n) = unsafe { node.as_ref() } {
            if n.descriptor.compare_exchange(-1, descriptor, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return n;
            }
            node = n.next;
        }
        // The gate is held, so no other thread pushes.
        let node: &'static Node =
            Box::leak(Box::new(Node { descriptor: AtomicI32::new(descriptor), next: head }));
        NODES.store(ptr::from_ref(node).cast_mut(), Ordering::Release);
        node
    }

    /// Device and inode of the file that was opened.
    pub(crate) fn identity(&self) -> Inode {
        self.identity
    }

    /// The file, if the descriptor still leads to it: one system call.
    pub(crate) fn same(&self) -> io::Result<&File> {
        self.same_metadata().map(|_| &*self.file)
    }

    /// The file's metadata, if the descriptor still leads to the file: one system call.
    pub(crate) fn same_metadata(&self) -> io::Result<Metadata> {
        let found = self.file.metadata();
        match found {
            Ok(metadata) if (metadata.dev(), metadata.ino()) == self.identity => Ok(metadata),
            Err(error) if error.raw_os_error() != Some(libc::EBADF) => Err(error),
            _ => Err(io::Error::other(format!(
                "other code of this process closed descriptor {}, which was the store's{}; find what closes \
                 descriptors that it did not open, and open the store anew",
                self.file.as_raw_fd(),
                if found.is_ok() { ", and it leads to another file now" } else { "" }
            ))),
        }
    }

    /// Whether this handle was opened in this process.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.opened_in.generation == generation()
    }

    /// The same, even in a child that was made without the handlers of `fork`.
    pub(crate) fn is_surely_ours(&self) -> bool {
        self.opened_in.is_here()
    }
}

impl std::ops::Deref for ForkFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for ForkFile {
    fn drop(&mut self) {
        if !self.is_ours() {
            return; // The descriptor was closed at the fork; its number may be another file's now.
        }
        without_fork(|| {
            self.node.descriptor.store(-1, Ordering::Release);
            // A descriptor that leads to another file must stay open.
            if self.same().is_ok() {
                // SAFETY: dropped once, here; the field is not used afterwards.
                unsafe { ManuallyDrop::drop(&mut self.file) };
            }
        });
    }
}
