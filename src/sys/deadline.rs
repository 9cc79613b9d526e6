//! Deadlines: when a call stops waiting for locks.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Pauses between tries for a lock that wakes no waiter.
const PAUSE_FIRST: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(2);

thread_local! {
    /// The time that calls of this thread wait for locks, in place of the time-outs of their handles.
    static PATIENCE: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Calls of this thread inside of `call` wait for locks at most `patience`, whatever the time-outs of their handles are.
#[cfg(feature = "bindings")]
pub(crate) fn with_patience<T>(patience: Duration, call: impl FnOnce() -> T) -> T {
    struct Restore(Option<Duration>);
    impl Drop for Restore {
        fn drop(&mut self) {
            PATIENCE.set(self.0);
        }
    }
    let _restore = Restore(PATIENCE.replace(Some(patience)));
    call()
}

/// The deadline of a call: one for all locks that it waits for.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    started: Instant,
    limit: Option<Duration>,
}

impl Deadline {
    /// A deadline after this time from now; `None`: never.
    pub(crate) fn after(limit: Option<Duration>) -> Self {
        Self { started: Instant::now(), limit }
    }

    /// A deadline of a call that begins now, on a handle with this time-out.
    pub(crate) fn of_call(timeout: Option<Duration>) -> Self {
        Self::after(PATIENCE.get().or(timeout))
    }

    /// The same call, with a deadline this long after its beginning.
    pub(crate) fn shortened(&self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..*self }
    }

    /// The time that the call has waited.
    pub(crate) fn waited(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time that the call may still wait; `None`: for ever.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.saturating_sub(self.waited()))
    }

    /// Tries until a try succeeds or the time is over; at least once.
    pub(crate) fn keep_trying<T, E>(
        &self,
        mut attempt: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let mut pauses = Pauses::default();
        loop {
            if let Some(done) = attempt()? {
                return Ok(Some(done));
            }
            if !pauses.rest(self) {
                return Ok(None);
            }
        }
    }
}

/// Pauses between tries, each longer than the one before.
#[derive(Default)]
pub(crate) struct Pauses(Duration);

impl Pauses {
    /// Pauses. Returns whether there is time for another try.
    pub(crate) fn rest(&mut self, deadline: &Deadline) -> bool {
        let left = deadline.left().unwrap_or(PAUSE_MAX);
        if left.is_zero() {
            return false;
        }
        if self.0.is_zero() {
            std::thread::yield_now();
            self.0 = PAUSE_FIRST;
        } else {
            std::thread::sleep(self.0.min(left));
            self.0 = (self.0 * 2).min(PAUSE_MAX);
        }
        true
    }
}
