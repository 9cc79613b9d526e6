//! A notice to the user of a handle that a call waits for another process.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::sys::deadline::Deadline;

/// After how long a wait is told of, and to whom.
#[derive(Clone)]
pub(crate) struct Notice {
    after: Duration,
    tell: Arc<dyn Fn(&Error) + Send + Sync>,
}

impl Notice {
    /// A notice that `tell` gives.
    pub(crate) fn new(after: Duration, tell: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        Self { after, tell: Arc::new(tell) }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notice").field("after", &self.after).finish_non_exhaustive()
    }
}

/// Tells of one wait, once.
pub(crate) struct ToldOnce<'a> {
    notice: Option<&'a Notice>,
}

impl<'a> ToldOnce<'a> {
    /// A wait that was not told of.
    pub(crate) fn new(notice: Option<&'a Notice>) -> Self {
        Self { notice }
    }

    /// Tells of the wait, if it is long enough and not over. `busy` makes the error of a wait that is.
    pub(crate) fn perhaps(&mut self, deadline: &Deadline, busy: impl FnOnce() -> Error) {
        if let Some(notice) = self.notice.take_if(|notice| notice.after <= deadline.waited()) {
            (notice.tell)(&busy());
        }
    }
}

/// Waits by `wait`, which gives up at a deadline; tells of the wait on the way. Whether what was waited for came.
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
