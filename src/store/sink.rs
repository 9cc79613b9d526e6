//! The far end of a mirror: the operations that a [`Mirror`](crate::mirror::Mirror) needs from a place that keeps copies of records.
//!
//! A place has *revisions*: a number of each key that changes with each write of the key there. A write names the revision that it
//! expects, and a place that has another one refuses the write. So a write of a dead mirror that arrives late can't undo a later one.

use std::error::Error as StdError;
use std::fmt::Write;

use crate::record::Version;

/// How a mirrored record is found: by its id, or by a key of a space. [`RecordKey::to_name`] gives it a name for other places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// The id of a record.
    Id(u64),
    /// The key of a record of a space.
    Key(Box<[u8]>),
}

impl RecordKey {
    /// The key as a name of ASCII letters, digits, `-`, `_`, `=` and single dots, which places of many kinds take. An id is its decimal
    /// number. In a key of a space, each other byte is `=` and two hexadecimal digits. Two keys never have the same name.
    ///
    /// ```
    /// use recstore::mirror::RecordKey;
    ///
    /// assert_eq!(RecordKey::Id(7).to_name(), "7");
    /// assert_eq!(RecordKey::Key((*b"ann@example.org").into()).to_name(), "ann=40example.org");
    /// assert_eq!(RecordKey::Key((*b"").into()).to_name(), "=");
    /// ```
    #[must_use]
    pub fn to_name(&self) -> String {
        match self {
            Self::Id(id) => id.to_string(),
            Self::Key(key) if key.is_empty() => "=".into(),
            Self::Key(key) => {
                let mut name = String::with_capacity(key.len());
                for (at, &byte) in key.iter().enumerate() {
                    let is_single_dot =
                        || byte == b'.' && at > 0 && at + 1 < key.len() && key[at - 1] != b'.';
                    if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || is_single_dot() {
                        name.push(byte.into());
                    } else {
                        let _ = write!(name, "={byte:02X}"); // A String takes everything.
                    }
                }
                name
            }
        }
    }

    /// The id with this name. `None` if it is the name of no id.
    ///
    /// ```
    /// use recstore::mirror::RecordKey;
    ///
    /// assert_eq!(RecordKey::id_from_name("7"), Some(RecordKey::Id(7)));
    /// assert_eq!(RecordKey::id_from_name("07"), None);
    /// ```
    #[must_use]
    pub fn id_from_name(name: &str) -> Option<Self> {
        let key = Self::Id(name.parse().ok()?);
        (key.to_name() == name).then_some(key)
    }

    /// The key of a space with this name. `None` if it is the name of no key.
    ///
    /// ```
    /// use recstore::mirror::RecordKey;
    ///
    /// let key = RecordKey::Key((*b"ann@example.org").into());
    /// assert_eq!(RecordKey::key_from_name(&key.to_name()), Some(key));
    /// assert_eq!(RecordKey::key_from_name("ann@example.org"), None);
    /// ```
    #[must_use]
    pub fn key_from_name(name: &str) -> Option<Self> {
        let mut key = Vec::with_capacity(name.len());
        let mut rest = name.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if byte != b'=' {
                key.push(byte);
            } else if let Some((digits, after)) = after.split_first_chunk::<2>() {
                key.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
                rest = after;
            } else if name != "=" {
                return None;
            }
        }
        let key = Self::Key(key.into());
        (key.to_name() == name).then_some(key)
    }
}

/// The state of a key at the place. See [`Mirror::step`](crate::mirror::Mirror::step).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyState {
    /// The place's own number of the last write of the key; 0: the place knows nothing of the key.
    pub revision: u64,
    /// The version of the store that the place has. `None`: it has no record, or a mark that it is deleted. A record of which the place does
    /// not know the version has version 0, which no record of a store has.
    pub version: Option<Version>,
}

/// A write that the place should make, if the key is still at the expected revision. See [`Mirror::step`](crate::mirror::Mirror::step).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The key.
    pub key: RecordKey,
    /// The revision at which the place must be; 0: it must know nothing of the key.
    pub expected: u64,
    /// The record's version and bytes; `None`: the record is deleted.
    pub record: Option<(Version, Vec<u8>)>,
}

/// The place's answer to a write. See [`Mirror::step`](crate::mirror::Mirror::step).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done, and safe there. The key has this revision now.
    Done {
        /// The revision.
        revision: u64,
    },
    /// The key is at another revision; or it is not known whether the write is done. The mirror reads the key anew.
    Unsure,
    /// The place does not take this record, for this reason. The mirror goes on with the others, and tries again when the record changes.
    Refused {
        /// The reason, in words.
        why: String,
    },
}

/// Changes at the place that the mirror did not make: see
/// [`Mirror::is_settled`](crate::mirror::Mirror::is_settled).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Foreign {
    /// There are none, or the place can't tell.
    #[default]
    None,
    /// These keys may have changed.
    Keys(Vec<RecordKey>),
    /// Any key may have changed: the mirror lists everything anew.
    Any,
}

/// A place that a [`Mirror`](crate::mirror::Mirror) keeps equal to a store: see [`Directory`](crate::mirror::Directory), and the
/// program `recstore-nats` for a bucket of NATS JetStream.
///
/// The calls block. An error means that the place can't be reached, or that it is not the mirror's: what was under way may be done or not.
/// The mirror asks the place before it goes on, so the calls may be made again at any time.
pub trait Sink {
    /// The errors of the place.
    type Error: StdError + 'static;

    /// A name of the place, for the lock of the mirror. Two places that can be mirrored to at once have different names.
    fn label(&self) -> String;

    /// Tells each key that the place knows, with its state, and its bytes if `with_data` (empty otherwise). Marks of deleted records
    /// need not be told.
    ///
    /// # Errors
    /// The place can't be reached, or belongs to another store.
    fn list(
        &mut self,
        with_data: bool,
        each: &mut dyn FnMut(RecordKey, KeyState, &[u8]),
    ) -> Result<(), Self::Error>;

    /// Makes the writes, in any order, and returns when each is safe or has failed: one answer for each write. No key comes twice.
    ///
    /// # Errors
    /// The place can't be reached. Any of the writes may be done.
    fn apply(&mut self, writes: &[Wanted]) -> Result<Vec<Answer>, Self::Error>;

    /// The states of these keys, from the copy that decides about writes.
    ///
    /// # Errors
    /// The place can't be reached.
    fn read(&mut self, keys: &[RecordKey]) -> Result<Vec<KeyState>, Self::Error>;

    /// Keys that have changed since the last call, or since [`list`](Self::list), and not by [`apply`](Self::apply). `records` is the
    /// number of records that the mirror knows to be there.
    ///
    /// # Errors
    /// The place can't be reached.
    fn foreign(&mut self, records: u64) -> Result<Foreign, Self::Error> {
        let _ = records;
        Ok(Foreign::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_key_and_to_no_other() {
        let keys: [&[u8]; 12] =
            [b"", b".", b"a.b", b"a..b", b".a", b"a.", b"=", b"=41", b"A", b"\xff\0", b"a/b c", b"a...b"];
        for key in keys {
            let key = RecordKey::Key(key.into());
            let name = key.to_name();
            assert!(!name.contains("..") && !name.starts_with('.') && !name.ends_with('.'), "{name}");
            assert_eq!(RecordKey::key_from_name(&name), Some(key), "{name}");
        }
        for name in ["=4", "=41", "a=", "=zz", "a b", "", "=2e", "..", "=+1"] {
            assert_eq!(RecordKey::key_from_name(name), None, "{name}");
        }
        for name in ["", "-1", "+7", "007", "18446744073709551616"] {
            assert_eq!(RecordKey::id_from_name(name), None, "{name}");
        }
        assert_eq!(RecordKey::id_from_name("18446744073709551615"), Some(RecordKey::Id(u64::MAX)));
    }
}
