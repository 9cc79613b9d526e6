//! A directory as the far end of a mirror: a file for each record.
//!
//! The file of a record is `NAME@VERSION`: the name of its key ([`RecordKey::to_name`]), and the version in decimal. So a listing of the
//! directory is the list of what is there. A write makes a file `.new`, flushes it, gives it its name, and then removes the file
//! of the earlier version. After a death between the two, the higher version counts, and the next list removes the other one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{fmt, mem};

use crate::error::Result;
use crate::record::Version;
use crate::store::Store;
use crate::store::sink::{Answer, KeyState, RecordKey, Sink, Wanted};
use crate::sys::step::step;

/// The file that names the store.
const OWNER: &str = ".recstore";
/// The file that is being written.
const NEW: &str = ".new";

/// The reason why a [`Directory`] failed: see [`Directory::open`].
#[derive(Debug)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The operating system refused.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// The directory is the mirror of another store or space, or has files of another kind.
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What is there, in words.
        what: String,
    },
    /// The store can't tell its identity.
    Store(crate::Error),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::NotOurs { path, what } => {
                write!(f, "{}: {what}; choose an empty directory, or empty this one", path.display())
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DirectoryError {}

/// A directory with a file for each record of a store, or of a space: for `rsync`, backup programs, and copies that a person can look at.
///
/// A file is named `NAME@VERSION`, after [`RecordKey::to_name`], and has the record's bytes. A write flushes the file before it gets its
/// name, and the directory once for each wave. The directory belongs to one store, by the store's uuid.
///
/// ```
/// use std::time::Duration;
/// use recstore::Store;
/// use recstore::mirror::{Directory, Mirror};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Store::create(dir.path().join("a.rec"))?;
/// let version = store.put(7, b"seven")?;
/// let place = dir.path().join("copy");
/// let mut mirror = Mirror::start(&store, None, Directory::open(&place, &store, None)?)?;
/// while !mirror.step(Duration::ZERO)?.is_equal {}
/// assert_eq!(std::fs::read(place.join(format!("7@{version}")))?, b"seven");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A name is 255 bytes long at most, so a record of a space with a longer one is refused. Each call of [`read`](Sink::read) lists the
/// directory. It is not for millions of records: use a bucket.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    by_key: bool,
}

impl Directory {
    /// Opens the directory for the records of a store, or of one of its spaces. Creates it if it is absent.
    ///
    /// ```
    /// # use recstore::Store;
    /// # use recstore::mirror::{Directory, DirectoryError};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// # let other = Store::create(dir.path().join("b.rec"))?;
    /// let place = dir.path().join("copy");
    /// Directory::open(&place, &store, None)?;
    /// assert!(matches!(Directory::open(&place, &other, None), Err(DirectoryError::NotOurs { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`DirectoryError::NotOurs`]: it is another store's, or it has other files; [`DirectoryError::Io`].
    pub fn open(path: impl AsRef<Path>, store: &Store, space: Option<&str>) -> Result<Self, DirectoryError> {
        let path = path.as_ref().to_owned();
        let directory = Self { path, by_key: space.is_some() };
        let of = |path: &Path| {
            let path = path.to_owned();
            move |error| DirectoryError::Io { path, error }
        };
        fs::create_dir_all(&directory.path).map_err(of(&directory.path))?;
        let uuid = store.stats().map_err(DirectoryError::Store)?.uuid;
        let ours = match space {
            None => format!("store {uuid}\n"),
            Some(name) => format!("store {uuid} space {name:?}\n"),
        };
        let owner = directory.path.join(OWNER);
        match fs::read_to_string(&owner) {
            Ok(theirs) if theirs == ours => {}
            Ok(theirs) => {
                let what = format!("is the mirror of {}, and this is {}", theirs.trim(), ours.trim());
                return Err(DirectoryError::NotOurs { path: directory.path, what });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(name) = directory.names()?.into_iter().find(|name| name != NEW) {
                    let what = format!("has the file {name:?}, and no file {OWNER}");
                    return Err(DirectoryError::NotOurs { path: directory.path, what });
                }
                directory.write(OWNER, ours.as_bytes()).map_err(of(&owner))?;
            }
            Err(error) => return Err(of(&owner)(error)),
        }
        Ok(directory)
    }

    fn names(&self) -> Result<Vec<OsString>, DirectoryError> {
        let read =
            || fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
        read().map_err(|error| DirectoryError::Io { path: self.path.clone(), error })
    }

    /// Writes a file whose name appears with all of its bytes, and on disk.
    fn write(&self, name: &str, data: &[u8]) -> io::Result<()> {
        let new = self.path.join(NEW);
        let mut file = File::create(&new)?;
        file.write_all(data)?;
        file.sync_data()?;
        step("directory: file written");
        fs::rename(&new, self.path.join(name))?;
        step("directory: file named");
        Ok(())
    }

    fn file_name(key: &RecordKey, version: u64) -> String {
        format!("{}@{version}", key.to_name())
    }

    /// The key and the version of a file. `None`: a file of another kind.
    fn parse(&self, name: &OsString) -> Option<(RecordKey, u64)> {
        let (name, version) = name.to_str()?.split_once('@')?;
        let key = if self.by_key { RecordKey::key_from_name(name)? } else { RecordKey::id_from_name(name)? };
        Some((key, version.parse().ok()?))
    }

    /// The newest file of each key. Those of earlier versions are removed.
    fn newest(&self) -> Result<HashMap<RecordKey, u64>, DirectoryError> {
        let (mut newest, mut is_flushed) = (HashMap::new(), false);
        for name in self.names()? {
            let Some((key, mut version)) = self.parse(&name) else { continue };
            let kept = newest.entry(key.clone()).or_insert(version);
            if version > *kept {
                mem::swap(kept, &mut version);
            }
            if version < *kept {
                // A mirror may have died before it flushed the later name.
                if !mem::replace(&mut is_flushed, true) {
                    self.flush()?;
                }
                self.remove(&Self::file_name(&key, version))?;
            }
        }
        Ok(newest)
    }

    /// Flushes the names of the files.
    fn flush(&self) -> Result<(), DirectoryError> {
        let flush = || File::open(&self.path)?.sync_all();
        flush().map_err(|error| DirectoryError::Io { path: self.path.clone(), error })
    }

    fn remove(&self, name: &str) -> Result<(), DirectoryError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DirectoryError::Io { path, error }),
            _ => Ok(()),
        }
    }
}

fn held(version: u64) -> KeyState {
    KeyState { revision: version, version: Some(Version::from_u64(version)) }
}

impl Sink for Directory {
    type Error = DirectoryError;

    fn label(&self) -> String {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        format!("directory{}", path.display())
    }

    fn list(
        &mut self,
        with_data: bool,
        each: &mut dyn FnMut(RecordKey, KeyState, &[u8]),
    ) -> Result<(), Self::Error> {
        for (key, version) in self.newest()? {
            let data = if with_data {
                let path = self.path.join(Self::file_name(&key, version));
                match fs::read(&path) {
                    Ok(data) => data,
                    // A mirror replaced it meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(DirectoryError::Io { path, error }),
                }
            } else {
                Vec::new()
            };
            each(key, held(version), &data);
        }
        Ok(())
    }

    fn apply(&mut self, writes: &[Wanted]) -> Result<Vec<Answer>, Self::Error> {
        let mut answers = Vec::with_capacity(writes.len());
        let mut old = Vec::new();
        for Wanted { key, expected, record } in writes {
            let before = (*expected != 0).then(|| Self::file_name(key, *expected));
            if before.as_ref().is_some_and(|name| !self.path.join(name).exists()) {
                answers.push(Answer::Unsure);
                continue;
            }
            let Some((version, data)) = record else {
                old.extend(before);
                answers.push(Answer::Done { revision: 0 });
                continue;
            };
            let name = Self::file_name(key, version.get());
            if name.len() > 255 {
                let why = format!("its name has {} bytes, and names of files have at most 255", name.len());
                answers.push(Answer::Refused { why });
                continue;
            }
            self.write(&name, data)
                .map_err(|error| DirectoryError::Io { path: self.path.join(&name), error })?;
            old.extend(before.filter(|before| *before != name));
            answers.push(Answer::Done { revision: version.get() });
        }
        // The new names are on disk before the old ones go.
        self.flush()?;
        step("directory: names flushed");
        for name in old {
            self.remove(&name)?;
            step("directory: file removed");
        }
        Ok(answers)
    }

    fn read(&mut self, keys: &[RecordKey]) -> Result<Vec<KeyState>, Self::Error> {
        let newest = self.newest()?;
        Ok(keys
            .iter()
            .map(|key| newest.get(key).map_or_else(KeyState::default, |&version| held(version)))
            .collect())
    }
}
