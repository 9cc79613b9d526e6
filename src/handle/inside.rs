//! The stores that this thread is inside of: it runs a closure under the lock of one of their regions.
//!
//! A write to the same store from that closure could wait for itself, or for a thread that waits for this one. Whether it
//! does depends on the hashes of ids. So every such write is refused, through any handle: a store is identified by its file.

use std::cell::RefCell;

use crate::file::arena::Arena;

/// The file of a store: its device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    /// The file of an arena.
    pub(crate) fn of(arena: &Arena) -> Self {
        let (device, inode) = arena.file.identity();
        Self(device, inode)
    }
}

thread_local! {
    static INSIDE: RefCell<Vec<FileId>> = const { RefCell::new(Vec::new()) };
}

/// Marks the thread as inside of a store until this value is dropped.
pub(crate) struct Inside(());

impl Inside {
    /// Enters the store in this file.
    pub(crate) fn enter(file: FileId) -> Self {
        INSIDE.with_borrow_mut(|inside| inside.push(file));
        Self(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with_borrow_mut(|inside| inside.pop());
    }
}

/// Whether the thread is inside of the store in this file.
#[inline]
pub(crate) fn is_inside(file: FileId) -> bool {
    INSIDE.with_borrow(|inside| !inside.is_empty() && inside.contains(&file))
}
