//! The shapes that values of keys can have.

use std::fmt;

use crate::error::{Error, Result};
use crate::format::shaped::{self, RingHead, Shaped, TYPE_NAME_LEN_MAX};
use crate::store::space::Space;

/// What the value of a key is: see [`Space::shape_of`].
///
/// Counters, rings and values of a type know what they are: their bytes end with a word that says so, and with the name of the type.
/// The chapter on the [format](crate::design::format) has the bytes, with test vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueShape {
    /// Bytes that [`Space::put`] or a call like it wrote.
    Plain {
        /// Bytes of the value.
        len: usize,
    },
    /// A counter: see [`Space::counter`].
    Counter,
    /// A value of a type: see [`Space::typed`].
    Value {
        /// The name of the type.
        type_name: String,
        /// Bytes of the value.
        size: usize,
    },
    /// A ring: see [`Space::ring`].
    Ring {
        /// The name of the type of its values.
        type_name: String,
        /// Bytes of a value.
        size: u64,
        /// Values that the ring has room for.
        capacity: u64,
    },
    /// A value of a ring, in its place. The key is the key of the ring, a byte 0, and the number of the place.
    RingPlace {
        /// The number of the value in the series.
        number: u64,
        /// Bytes of the value.
        size: usize,
    },
}

impl ValueShape {
    /// What these bytes of a value are. Constant time.
    ///
    /// ```
    /// # use recstore::{ValueShape, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let space = store.space("metrics")?;
    /// space.counter("visits").add(1)?;
    /// let snapshot = store.snapshot()?;
    /// assert_eq!(ValueShape::of(snapshot.get_in(&space, "visits")?.unwrap()), ValueShape::Counter);
    /// assert_eq!(ValueShape::of(b"text"), ValueShape::Plain { len: 4 });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        match shaped::read(value) {
            Shaped::Plain => Self::Plain { len: value.len() },
            Shaped::Counter(_) => Self::Counter,
            Shaped::Value { name, content } => {
                Self::Value { type_name: name.to_owned(), size: content.len() }
            }
            Shaped::Ring { name, head: RingHead { capacity, size, .. } } => {
                Self::Ring { type_name: name.to_owned(), size, capacity }
            }
            Shaped::Place { number, content, .. } => Self::RingPlace { number, size: content.len() },
        }
    }
}

/// In words.
impl fmt::Display for ValueShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain { len } => write!(f, "{len} bytes without a shape"),
            Self::Counter => f.write_str("a counter"),
            Self::Value { type_name, size } => write!(f, "a value of type {type_name:?} ({size} bytes)"),
            Self::Ring { type_name, size, capacity } => {
                write!(f, "a ring of {capacity} values of type {type_name:?} ({size} bytes each)")
            }
            Self::RingPlace { number, size } => {
                write!(f, "value number {number} of a ring ({size} bytes)")
            }
        }
    }
}

impl Space<'_> {
    /// What the value of a key is, or `None` if there is no such key. The record is read, as by [`get`](Self::get).
    ///
    /// ```
    /// # use recstore::{ValueShape, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let space = store.space("metrics")?;
    /// space.ring::<f64>("temperature", "<f8", 8)?.push(&21.5)?;
    /// let shape = space.shape_of("temperature")?.unwrap();
    /// assert_eq!(shape, ValueShape::Ring { type_name: "<f8".into(), size: 8, capacity: 8 });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn shape_of(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueShape>> {
        let mut value = Vec::new();
        Ok(self.get_into(key, &mut value)?.map(|_| ValueShape::of(&value)))
    }

    /// The error for a key whose value is of another shape.
    #[cold]
    pub(super) fn other_shape(&self, key: &[u8], found: &[u8], wanted: &ValueShape) -> Error {
        Error::OtherShape {
            path: self.store.path().to_path_buf(),
            space: self.name().to_owned(),
            key: key.escape_ascii().to_string(),
            found: ValueShape::of(found).to_string().into(),
            wanted: wanted.to_string().into(),
        }
    }
}

/// Refuses what is no name of a type.
pub(super) fn check_type_name(name: &str) -> Result<()> {
    if (1..=TYPE_NAME_LEN_MAX).contains(&name.len()) {
        return Ok(());
    }
    let what = format!(
        "{name:?}, {} bytes long, is not a name of a type; use 1 to {TYPE_NAME_LEN_MAX} bytes",
        name.len()
    );
    Err(Error::InvalidOption { what })
}
