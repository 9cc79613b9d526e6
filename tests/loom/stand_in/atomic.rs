//! Loom's atomics under the crate's alias, a death that can come before every store, and no store that
//! stores what is there.
//!
//! A thread in [`die_before`]`(n, ..)` unwinds when it is about to make its n-th store (or exchange): what
//! `kill -9` leaves of it is all stores before that one. Loads and fences of the dead change nothing for
//! others, so a death between two stores is one death.
//!
//! A Relaxed store of the value that a word has already is left out, which spares most of the executions.
//! It hides nothing: who would have read it reads the same value from the store before, and has seen less
//! of what else its writer did, so may read older values elsewhere. Every outcome stays, and some may be
//! added.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicU64 as Plain;

pub(crate) use loom::sync::atomic::{Ordering, fence};
pub(crate) use std::sync::atomic::compiler_fence;

loom::thread_local! {
    /// Stores up to the death of this thread, it included; 0: it lives.
    static LEFT: Cell<u32> = Cell::new(0);
}

struct Death;

/// Does `work`, killed before its n-th store; what it gave, or `None` if it was killed.
pub(crate) fn die_before<T>(n: u32, work: impl FnOnce() -> T) -> Option<T> {
    LEFT.with(|left| left.set(n));
    let end = catch_unwind(AssertUnwindSafe(work));
    LEFT.with(|left| left.set(0));
    match end {
        Ok(done) => Some(done),
        Err(cause) if cause.is::<Death>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

thread_local! {
    static EXCHANGES_ARE_FENCES: Cell<bool> = const { Cell::new(false) };
}

/// From now on a SeqCst exchange is a SeqCst fence as well, in this test. Loom takes a SeqCst exchange for
/// an AcqRel one, but for what SeqCst loads of the same word see; that a SeqCst *fence* of another thread
/// is ordered with it, as C11 says, it does not know. Where that is what a model is about, this is
/// closer to the truth: it is what x86 and ARMv8 do.
pub(crate) fn exchanges_are_fences() {
    EXCHANGES_ARE_FENCES.set(true);
}

fn exchanged(order: Ordering) {
    if order == Ordering::SeqCst && EXCHANGES_ARE_FENCES.get() {
        fence(Ordering::SeqCst);
    }
}

fn about_to_store() {
    LEFT.with(|left| match left.get() {
        0 => {}
        1 => resume_unwind(Box::new(Death)),
        n => left.set(n - 1),
    });
}

/// As `std`'s, as far as the crate uses it.
#[derive(Debug)]
pub(crate) struct AtomicU64 {
    word: loom::sync::atomic::AtomicU64,
    /// What was stored last. Not part of the model.
    last: Plain,
}

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self { word: loom::sync::atomic::AtomicU64::new(value), last: Plain::new(value) }
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.word.load(order)
    }

    /// Reads as a plain reference would: if a store may come at the same time, loom says so.
    pub(crate) fn read_plain(&self) -> u64 {
        // SAFETY: loom's word is not memory that others write; it checks what it models.
        unsafe { self.word.unsync_load() }
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        if order == Ordering::Relaxed && self.last.load(Ordering::Relaxed) == value {
            return;
        }
        about_to_store();
        self.word.store(value, order);
        self.last.store(value, Ordering::Relaxed);
    }

    pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
        about_to_store();
        let was = self.word.swap(value, order);
        self.last.store(value, Ordering::Relaxed);
        exchanged(order);
        was
    }

    pub(crate) fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        about_to_store();
        let result = self.word.compare_exchange(current, new, success, failure);
        if result.is_ok() {
            self.last.store(new, Ordering::Relaxed);
            exchanged(success);
        }
        result
    }

    pub(crate) fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        mut f: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        let mut now = self.load(fetch);
        while let Some(next) = f(now) {
            match self.compare_exchange(now, next, set, fetch) {
                Ok(was) => return Ok(was),
                Err(newer) => now = newer,
            }
        }
        Err(now)
    }

    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        about_to_store();
        let was = self.word.fetch_add(value, order);
        self.last.store(was.wrapping_add(value), Ordering::Relaxed);
        exchanged(order);
        was
    }

    pub(crate) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
        self.fetch_add(value.wrapping_neg(), order)
    }

    pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        about_to_store();
        let was = self.word.fetch_or(value, order);
        self.last.store(was | value, Ordering::Relaxed);
        exchanged(order);
        was
    }

    pub(crate) fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        about_to_store();
        let was = self.word.fetch_and(value, order);
        self.last.store(was & value, Ordering::Relaxed);
        exchanged(order);
        was
    }
}
