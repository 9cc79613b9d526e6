//! Kill points: a test may kill the process between any two steps that matter.
//!
//! Without the feature `testing` a step is nothing. With it, `arm(n)` makes the process send itself SIGKILL at its n-th step
//! from then on, and a hook of the thread is called at each step.

/// A point between two stores at which a process may die.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) fn step(_name: &'static str) {}

#[cfg(feature = "testing")]
pub(crate) use armed::step;

#[cfg(feature = "testing")]
pub(crate) mod armed {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    static LEFT: AtomicI64 = AtomicI64::new(-1);
    static SEEN: AtomicU64 = AtomicU64::new(0);

    type Hook = Box<dyn FnMut(&'static str)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Makes the process kill itself at the n-th step from now (1 is the next one); 0 disarms.
    pub(crate) fn arm(n: i64) {
        SEEN.store(0, Ordering::SeqCst);
        LEFT.store(if n == 0 { -1 } else { n }, Ordering::SeqCst);
    }

    /// Steps passed since `arm`.
    pub(crate) fn seen() -> u64 {
        SEEN.load(Ordering::SeqCst)
    }

    /// Makes every step of this thread call `hook`, which may not use a store.
    pub(crate) fn set_hook(hook: Option<Hook>) {
        HOOK.set(hook);
    }

    /// A point between two stores at which a process may die.
    pub(crate) fn step(name: &'static str) {
        SEEN.fetch_add(1, Ordering::SeqCst);
        HOOK.with_borrow_mut(|hook| {
            if let Some(hook) = hook {
                hook(name);
            }
        });
        if LEFT.load(Ordering::SeqCst) > 0 && LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
            eprintln!("killed at {name}");
            // SAFETY: kills this process; nothing runs afterwards.
            unsafe {
                libc::kill(libc::getpid(), libc::SIGKILL);
                libc::pause();
            }
        }
    }
}
