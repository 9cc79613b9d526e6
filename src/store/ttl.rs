//! Times to live, and the options of one write of a key.

use std::time::{Duration, SystemTime};

use crate::record::Durability;
use crate::sys::clock::since_1970;

/// How long a value lives: see [`Space::with_ttl`](crate::Space::with_ttl).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(End);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Never,
    After(Duration),
    At(SystemTime),
}

impl Ttl {
    /// Without an end.
    pub const NEVER: Self = Self(End::Never);

    /// So long from the write on, in milliseconds.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use recstore::Ttl;
    /// let half_an_hour = Ttl::after(Duration::from_secs(1800));
    /// assert_eq!(half_an_hour, Duration::from_secs(1800).into());
    /// ```
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(End::After(duration))
    }

    /// Until this moment.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use recstore::{Store, Ttl};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let tokens = store.space("tokens")?;
    /// tokens.put_with("a", b"1", Ttl::at(SystemTime::now() + Duration::from_secs(60)))?;
    /// tokens.put_with("b", b"2", Ttl::at(SystemTime::now()))?;
    /// assert!(tokens.contains("a")? && !tokens.contains("b")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn at(moment: SystemTime) -> Self {
        Self(End::At(moment))
    }

    /// The deadline of a write now. `None`: there is none.
    pub(super) fn deadline_ms(self, now_ms: u64) -> Option<u64> {
        match self.0 {
            End::Never => None,
            End::After(ttl) => {
                Some(now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
            }
            End::At(moment) => Some(since_1970(moment)),
        }
    }
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::after(duration)
    }
}

/// What one write of a key asks for, in place of the defaults of handle and space: a [`Durability`], a [`Ttl`], or both as a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    pub(super) durability: Option<Durability>,
    pub(super) ttl: Option<Ttl>,
}

impl From<Durability> for PutOptions {
    fn from(durability: Durability) -> Self {
        Self { durability: Some(durability), ttl: None }
    }
}

impl From<Ttl> for PutOptions {
    fn from(ttl: Ttl) -> Self {
        Self { durability: None, ttl: Some(ttl) }
    }
}

impl From<(Ttl, Durability)> for PutOptions {
    fn from((ttl, durability): (Ttl, Durability)) -> Self {
        Self { durability: Some(durability), ttl: Some(ttl) }
    }
}
