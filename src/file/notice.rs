//! A notice to the user of a handle: a call waits for another process.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::sys::deadline::Deadline;

/// The length of a wait after which a notice is given, and the function that gives it.
#[derive(Clone)]
pub(crate) struct Notice {
    after: Duration,
    tell: Arc<dyn Fn(&Error) + Send + Sync>,
}

impl Notice {
    /// A notice that `tell` gives after a wait of this length.
    pub(crate) fn new(after: Duration, tell: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        Self { after, tell: Arc::new(tell) }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notice").field("after", &self.after).finish_non_exhaustive()
    }
}

/// The notice of one wait, which is given once.
pub(crate) struct ToldOnce<'a> {
    notice: Option<&'a Notice>,
}

impl<'a> ToldOnce<'a> {
    /// A wait of which no notice was given.
    pub(crate) fn new(notice: Option<&'a Notice>) -> Self {
        Self { notice }
    }

    /// Gives the notice, if the wait is long enough. `busy` makes the error that the wait would end with.
    pub(crate) fn perhaps(&mut self, deadline: &Deadline, busy: impl FnOnce() -> Error) {
        if let Some(notice) = self.notice.take_if(|notice| notice.after <= deadline.waited()) {
            (notice.tell)(&busy());
        }
    }
}

/// Waits by `wait`, which gives up at a deadline, and gives a notice if the wait is long. Returns whether `wait` succeeded.
pub(crate) fn wait_and_tell(
    notice: Option<&Notice>,
    deadline: &Deadline,
    wait: impl Fn(&Deadline) -> io::Result<bool>,
    busy: impl FnOnce() -> Error,
) -> io::Result<bool> {
    if let Some(notice) = notice
        && deadline.left().is_none_or(|left| left > notice.after)
    {
        if wait(&deadline.shortened(notice.after))? {
            return Ok(true);
        }
        ToldOnce::new(Some(notice)).perhaps(deadline, busy);
    }
    wait(deadline)
}
