//! Waiting for changes of a key.

use std::time::Duration;

use crate::error::Result;
use crate::record::Version;
use crate::store::space::Space;
use crate::store::watch::{Event, wait_for_record};

/// Waits for changes of one key: see [`Space::watch`].
#[derive(Debug)]
pub struct KeyWatch<'a> {
    space: Space<'a>,
    key: Box<[u8]>,
    last: Option<Version>,
}

/// Waiting for changes.
impl<'a> Space<'a> {
    /// Watches a key, which may be absent, from now on: as [`Store::watch`](crate::Store::watch).
    ///
    /// ```
    /// # use recstore::{Event, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// let mut watch = sessions.watch("user:7")?;
    /// sessions.put("user:7", b"logged in")?; // by any process
    /// assert!(matches!(watch.wait(None)?, Event::Written(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::watch`](crate::Store::watch).
    pub fn watch(&self, key: impl AsRef<[u8]>) -> Result<KeyWatch<'a>> {
        self.store.handle.check_writable()?;
        let key = key.as_ref();
        Ok(KeyWatch { space: self.clone(), key: key.into(), last: self.version(key)? })
    }
}

impl<'a> KeyWatch<'a> {
    /// A watch whose last look found this version.
    pub(super) fn since(space: Space<'a>, key: Box<[u8]>, last: Option<Version>) -> Self {
        Self { space, key, last }
    }
}

impl KeyWatch<'_> {
    /// The key's version at the last look.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// let version = sessions.put("user:7", b"logged in")?;
    /// assert_eq!(sessions.watch("user:7")?.version(), Some(version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.last
    }

    /// Waits until the key has another version than at the last look. `None`: as long as it takes. A write of another key with the same
    /// id gives the key another version too.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::{Event, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let sessions = store.space("sessions")?;
    /// let mut watch = sessions.watch("user:7")?;
    /// assert_eq!(watch.wait(Some(Duration::ZERO))?, Event::TimedOut);
    /// let version = sessions.put("user:7", b"logged in")?;
    /// assert_eq!(watch.wait(None)?, Event::Written(version));
    /// sessions.delete("user:7")?;
    /// assert_eq!(watch.wait(None)?, Event::Deleted);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`](crate::Store::get).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Event> {
        let last = self.last;
        let changed = self.look_until(timeout, |now, _| Some(now).filter(|now| *now != last))?;
        Ok(match changed {
            None => Event::TimedOut,
            Some(None) => Event::Deleted,
            Some(Some(version)) => Event::Written(version),
        })
    }

    /// Waits until `ready` returns a value for the key's value (`None`: the key is not there), as
    /// [`Watch::wait_until`](crate::Watch::wait_until). `None` if the time is over.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let answers = store.space("answers")?;
    /// let mut watch = answers.watch("job 7")?;
    /// answers.put("job 7", b"42")?; // by any process
    /// let answer = watch.wait_until(Some(Duration::from_secs(9)), |value| value.map(<[u8]>::to_vec))?;
    /// assert_eq!(answer.as_deref(), Some(&b"42"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`](crate::Store::get).
    pub fn wait_until<T>(
        &mut self,
        timeout: Option<Duration>,
        mut ready: impl FnMut(Option<&[u8]>) -> Option<T>,
    ) -> Result<Option<T>> {
        self.look_until(timeout, |_, value| ready(value))
    }

    /// Looks at the key, and again after each change of its record, until `look` gives a result.
    fn look_until<T>(
        &mut self,
        timeout: Option<Duration>,
        mut look: impl FnMut(Option<Version>, Option<&[u8]>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Self { space, key, last } = self;
        let (mut data, mut is_seen) = (Vec::new(), false);
        wait_for_record(space.store, space.id_of(&*key), timeout, || {
            let now = space.get_into(&*key, &mut data)?;
            if is_seen && now == *last {
                return Ok(None);
            }
            (is_seen, *last) = (true, now);
            Ok(look(now, now.map(|_| &data[..])))
        })
    }
}
