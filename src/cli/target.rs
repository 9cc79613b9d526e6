//! What people name a record by: its id, or a key of a space.

use std::path::Path;
use std::time::UNIX_EPOCH;
use std::{fmt, fs, io};

use recstore::{Durability, Record, Result as StoreResult, Store, Ttl};

use super::failure::Failure;
use super::ids;

/// A record, as it is named on the command line or in a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    /// By its id.
    Id(u64),
    /// By a key.
    Key {
        /// The space's name.
        space: String,
        /// The key.
        key: Vec<u8>,
    },
}

/// Reads an id, or a key as SPACE/KEY.
pub(crate) fn parse(text: &str) -> Result<Target, String> {
    match text.split_once('/') {
        Some((space, key)) if !space.is_empty() && !text.starts_with("hash:") => {
            Ok(Target::Key { space: space.to_owned(), key: key.as_bytes().to_vec() })
        }
        Some(_) if text.starts_with('/') => Err(format!("`{text}` names no space; write SPACE/KEY")),
        _ => ids::parse_id(text).map(Target::Id).map_err(|what| format!("{what}; a key is SPACE/KEY")),
    }
}

/// Reads ids and keys from a file, one a line; `-` is standard input. Blank lines are passed over.
pub(crate) fn read_all(path: &Path) -> Result<Vec<Target>, Failure> {
    let (name, text) = match path.as_os_str() == "-" {
        true => ("standard input".to_owned(), io::read_to_string(io::stdin().lock())),
        false => (path.display().to_string(), fs::read_to_string(path)),
    };
    let text = text.map_err(|error| Failure::Other(format!("{name}: {error}")))?;
    let lines = (1_u64..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| {
            parse(line).map_err(|what| Failure::Other(format!("{name}: line {number}: {what}")))
        })
        .collect()
}

impl Target {
    /// The key; none, of an id.
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Id(_) => &[],
            Self::Key { key, .. } => key,
        }
    }

    /// Bytes that a record takes beside the data, for its key.
    pub(crate) fn bytes_beside_data(&self) -> usize {
        match self {
            Self::Id(_) => 0,
            Self::Key { space, key } => space.len() + key.len() + 8,
        }
    }

    /// A number that is the same for the same record.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::Id(id) => *id,
            Self::Key { key, .. } => ids::hash(key),
        }
    }

    /// The record.
    pub(crate) fn get(&self, store: &Store) -> StoreResult<Option<Record>> {
        match self {
            Self::Id(id) => store.get(*id),
            Self::Key { space, key } => store.space(space)?.get(key),
        }
    }

    /// Writes the record, on disk. `ttl`: of a key.
    pub(crate) fn put(&self, store: &Store, data: &[u8], ttl: Ttl) -> StoreResult<()> {
        match self {
            Self::Id(id) => store.put_with(*id, data, Durability::Disk).map(drop),
            Self::Key { space, key } => {
                store.space(space)?.put_with(key, data, (ttl, Durability::Disk)).map(drop)
            }
        }
    }

    /// The deadline of a key in milliseconds since 1970, if it has one.
    pub(crate) fn expires_ms(&self, store: &Store) -> StoreResult<Option<u64>> {
        let Self::Key { space, key } = self else { return Ok(None) };
        let at = store.space(space)?.expires_at(key)?;
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Ok(since.and_then(|since| u64::try_from(since.as_millis()).ok()))
    }

    /// Deletes the record; whether it was there.
    pub(crate) fn delete(&self, store: &Store) -> StoreResult<bool> {
        match self {
            Self::Id(id) => store.delete(*id),
            Self::Key { space, key } => store.space(space)?.delete(key),
        }
    }
}

/// For people: an id in both of its forms; a key with what is no text escaped.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Id(id) => format!("{id} ({id:#x})"),
            Self::Key { space, key } => match str::from_utf8(key) {
                Ok(key) if !key.contains(char::is_control) => format!("{space}/{key}"),
                _ => format!("{space}/{}", key.escape_ascii()),
            },
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_space_before_its_first_slash_and_anything_else_is_an_id() {
        let key = |space: &str, key: &str| Ok(Target::Key { space: space.into(), key: key.into() });
        assert_eq!(parse("7"), Ok(Target::Id(7)));
        assert_eq!(parse("0x10"), Ok(Target::Id(16)));
        assert_eq!(parse("sessions/user:7"), key("sessions", "user:7"));
        assert_eq!(parse("s/"), key("s", ""));
        assert_eq!(parse("s/a/b"), key("s", "a/b"));
        assert!(matches!(parse("hash:a/b"), Ok(Target::Id(_))));
        assert!(parse("sessions").unwrap_err().contains("SPACE/KEY"));
        assert!(parse("/key").unwrap_err().contains("SPACE/KEY"));
        assert_eq!(parse("s/\u{7}\"").unwrap().to_string(), "s/\\x07\\\"");
        assert_eq!(Target::Id(255).to_string(), "255 (0xff)");
    }
}
