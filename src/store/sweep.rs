//! Sweeping: freeing the records of values that are over.
//!
//! A sweep goes on where the last one of the handle ended. It looks at as many slots as it was told to, without a lock. Each value that it
//! found over is judged again under the locks, and is then deleted as by any other deletion. So any number of processes may sweep.
//!
//! A thread that sweeps writes, so a call that closes the store waits until it has ended its round: see `handle::turn::Rounds`.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::keyed::{self, is_hidden};
use crate::format::slot::Address;
use crate::store::Store;
use crate::store::cache_sample::TICK_BYTES;
use crate::store::cache_usage::{CACHE, Count, Load};
use crate::store::entry::Life;
use crate::store::iter::Cursor;
use crate::store::modify::Action;
use crate::store::periodic::Periodic;
use crate::store::space::Space;

/// The place at which the next sweep of a handle begins.
#[derive(Default)]
pub(crate) struct Broom(Mutex<Option<Cursor>>);

/// The result of a sweep: see [`Store::sweep`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Values that were freed.
    pub freed: u64,
    /// The sweep came to the end of the store. The next one begins anew.
    pub is_round_over: bool,
}

/// A thread that sweeps at intervals until this is dropped: see [`Store::sweep_every`].
#[derive(Debug)]
pub struct Sweeping(Periodic);

/// Freeing what has expired.
impl Store {
    /// Frees the records of expired values of all spaces: looks at `budget` slots, from where the last sweep of this handle ended, and
    /// deletes what is over. Any process may do it, several at a time.
    ///
    /// O(budget). No lock is held during the look, and that of a value's region for each deletion.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{Store, Ttl};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// sessions.put_with("user:7", b"logged in", Ttl::after(Duration::ZERO))?;
    /// let mut freed = 0;
    /// loop {
    ///     let swept = store.sweep(1000)?; // some microseconds; do something else in between
    ///     freed += swept.freed;
    ///     if swept.is_round_over {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(freed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`delete`](Self::delete). [`Error::Corrupt`] for a damaged record: what was found before it is freed, and the next sweep goes on
    /// behind it.
    pub fn sweep(&self, budget: u32) -> Result<Swept> {
        self.check_write(0, 0)?;
        let now_ms = self.now_ms_for_write()?;
        let mut over = Vec::new();
        let (passed, is_round_over) = {
            let mut place = self.broom.0.lock().unwrap_or_else(PoisonError::into_inner);
            let cursor = place.get_or_insert_with(|| Cursor::new(Address::Key));
            let mut no_entries = None;
            let rounds = &self.handle.rounds;
            let passed = cursor.each_within(self, budget, |id, _, data| {
                if rounds.is_leaving() {
                    return ControlFlow::Break(());
                }
                for entry in keyed::entries(data.as_slice()) {
                    let Ok(entry) = entry else {
                        no_entries = Some(id);
                        break;
                    };
                    if entry.expiry.is_some_and(|expiry| expiry.at_ms <= now_ms) {
                        over.push((entry.name.to_vec(), entry.key.to_vec()));
                    }
                }
                ControlFlow::Continue(())
            });
            let passed = passed.and(no_entries.map_or(Ok(()), |id| Err(self.no_entries(id))));
            let is_round_over = cursor.is_at_end(self);
            if is_round_over {
                *place = None;
            }
            (passed, is_round_over)
        };
        let mut swept = Swept { freed: 0, is_round_over };
        for (name, key) in over {
            let Ok(name) = str::from_utf8(&name) else { continue };
            if self.handle.rounds.is_leaving() {
                break;
            }
            let freed = self.space_of(name).delete_over(&key)?;
            if let (Some(value_len), Some(cache)) = (freed, name.strip_prefix(CACHE)) {
                let gone = Load::of(&key, value_len.saturating_sub(TICK_BYTES));
                Count::new(self, cache)?.change(Load::default().less(gone), 0)?;
            }
            let was_freed = freed.is_some();
            swept.freed += u64::from(was_freed && !is_hidden(name.as_bytes()));
        }
        passed.map(|()| swept)
    }

    /// Starts a thread that [sweeps](Self::sweep) this many slots at this interval, until the result is dropped or the store is.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sweeping = store.sweep_every(Duration::from_millis(100), 10_000)?;
    /// // A store of a million slots is swept in ten seconds.
    /// assert!(sweeping.error().is_none());
    /// sweeping.finish()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an interval of 0; [`Error::ReadOnly`]; [`Error::Io`] if no thread can be started.
    pub fn sweep_every(&self, interval: Duration, budget: u32) -> Result<Sweeping> {
        let (mut broom, mut clock) = (Broom::default(), self.clock.clone());
        let periodic = Periodic::start(self, "sweep", interval, move |handle| {
            let Some(_round) = handle.rounds.begin() else { return Ok(()) };
            let (theirs, opened) = (handle.clone(), Default::default());
            let store = Store {
                handle: theirs,
                opened,
                clock: clock.clone(),
                broom: std::mem::take(&mut broom),
                #[cfg(feature = "tokio")]
                bridge: Default::default(),
            };
            let swept = store.sweep(budget);
            (broom, clock) = (store.broom, store.clock);
            swept.map(drop)
        });
        periodic.map(Sweeping)
    }
}

impl Space<'_> {
    /// Deletes a key if it is over. Returns the bytes of its value.
    fn delete_over(&self, key: &[u8]) -> Result<Option<usize>> {
        let durability = self.store.handle.durability;
        let (_, freed) = self.change_any(key, durability, Life::Kept(None), |old| {
            let over = old.filter(|old| old.is_over).map(|old| old.value.len());
            (if over.is_some() { Action::<&[u8]>::Delete } else { Action::Keep }, over)
        })?;
        Ok(freed)
    }
}

impl Sweeping {
    /// The error of the last sweep; `None` if it succeeded, or if the error was given already.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(store.sweep_every(Duration::from_secs(1), 1000)?.error().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        self.0.error()
    }

    /// The number of sweeps that have failed since the last one that succeeded.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert_eq!(store.sweep_every(Duration::from_secs(1), 1000)?.failures(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.failures()
    }

    /// Stops the thread and waits for it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.sweep_every(Duration::from_secs(1), 1000)?.finish()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The error of the last sweep, if [`error`](Self::error) has not given it; [`Error::Forked`].
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }
}
