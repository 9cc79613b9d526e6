//! Which stores the present thread is inside of, through a closure that runs under a region's lock.
//!
//! A write to the same store from there could wait for itself, or for a thread that waits for this
//! one; whether it does depends on how ids hash. So it is refused always.

use std::cell::RefCell;

thread_local! {
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Marks the thread as inside of a store until it is dropped.
pub(crate) struct Inside(());

impl Inside {
    /// Enters the store whose handle is at `address`.
    pub(crate) fn enter(address: usize) -> Self {
        INSIDE.with_borrow_mut(|inside| inside.push(address));
        Self(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with_borrow_mut(|inside| inside.pop());
    }
}

/// Whether the thread is inside of the store whose handle is at `address`.
#[inline]
pub(crate) fn is_inside(address: usize) -> bool {
    INSIDE.with_borrow(|inside| !inside.is_empty() && inside.contains(&address))
}
