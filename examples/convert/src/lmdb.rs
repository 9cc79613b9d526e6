//! Entries of a database of LMDB as records, as of one moment.

use std::path::PathBuf;

use heed::types::Bytes;
use heed::{Database, EnvFlags, EnvOpenOptions};

use crate::Failure;
use crate::target::{Target, hash};

/// Databases of an environment that may be open.
const DATABASES_MAX: u32 = 1;

/// Import the entries of an LMDB environment
///
/// The id is the key, read as --key says; the record is the value. Keys that are made to hashes are not kept: the
/// value should have them. One read transaction: writers go on, and what they write is not imported. Of a key with
/// several values (DUPSORT) the last one counts.
#[derive(clap::Args)]
pub(crate) struct Lmdb {
    /// The environment: its directory, or its file
    environment: PathBuf,
    /// The store; created if it is absent, for records as long as the longest one
    store: PathBuf,
    /// The named database [default: the main one]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// How a key is an id
    #[arg(long, value_enum)]
    key: Key,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Key {
    /// 4 or 8 bytes, the highest first
    Be,
    /// 4 or 8 bytes, the lowest first, as MDB_INTEGERKEY has them here
    Le,
    /// Decimal digits
    Text,
    /// Any bytes: the id is their hash, and `recstore read STORE hash:TEXT` finds the record
    Hash,
}

impl Key {
    fn id(self, key: &[u8]) -> Result<u64, String> {
        let refused = |what: &str| format!("the key {} is {what}", key.escape_ascii());
        match self {
            Self::Hash => Ok(hash(key)),
            Self::Text => {
                let digits = str::from_utf8(key).ok().filter(|text| !text.starts_with('+'));
                digits.and_then(|text| text.parse().ok()).ok_or_else(|| refused("no number from 0 to 2^64-1"))
            }
            Self::Be | Self::Le => {
                if ![4, 8].contains(&key.len()) {
                    return Err(refused("not 4 or 8 bytes long; for keys of any bytes: --key hash"));
                }
                let fold = |id: u64, byte: &u8| id << 8 | u64::from(*byte);
                Ok(match self {
                    Self::Be => key.iter().fold(0, fold),
                    _ => key.iter().rev().fold(0, fold),
                })
            }
        }
    }
}

impl Lmdb {
    pub(crate) fn run(&self) -> Result<String, Failure> {
        let path = &self.environment;
        let named = |error: heed::Error| format!("{}: {error}", path.display());
        let mut options = EnvOpenOptions::new();
        options.max_dbs(DATABASES_MAX);
        let mut flags = EnvFlags::READ_ONLY;
        if path.is_file() {
            flags |= EnvFlags::NO_SUB_DIR;
        }
        // SAFETY: this process opens the environment once, and the file is another program's: LMDB's own lock file
        // keeps the pages of this transaction as they are. A process that writes to the file by other means breaks
        // LMDB itself.
        let environment = unsafe { options.flags(flags).open(path) }.map_err(named)?;
        let transaction = environment.read_txn().map_err(named)?;
        let database: Database<Bytes, Bytes> = environment
            .open_database(&transaction, self.database.as_deref())
            .map_err(named)?
            .ok_or_else(|| format!("{}: there is no such database", path.display()))?;
        let mut longest = 0;
        for entry in database.iter(&transaction).map_err(named)? {
            longest = longest.max(entry.map_err(named)?.1.len());
        }
        let mut target = Target::open(&self.store, longest)?;
        for entry in database.iter(&transaction).map_err(named)? {
            let (key, value) = entry.map_err(named)?;
            let id = self.key.id(key).map_err(|what| format!("{}: {what}", path.display()))?;
            target.put(id, value.to_vec())?;
        }
        target.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_an_id_in_the_way_that_was_said() {
        assert_eq!(Key::Be.id(&[0, 0, 1, 2]), Ok(258));
        assert_eq!(Key::Le.id(&[2, 1, 0, 0, 0, 0, 0, 0]), Ok(258));
        assert_eq!(Key::Be.id(&[0xff; 8]), Ok(u64::MAX));
        assert_eq!(Key::Text.id(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(Key::Hash.id(b"foobar"), Ok(0x8594_4171_f739_67e8));
        for (key, bytes) in [(Key::Be, &b"abc"[..]), (Key::Le, b""), (Key::Text, b"+1"), (Key::Text, b"x")] {
            assert!(key.id(bytes).is_err(), "{bytes:?}");
        }
    }
}
