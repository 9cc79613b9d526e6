//! Keys: `int`, `str` and `bytes`.
//!
//! 1. At the store itself an `int` is the id of a record, and text and bytes are keys of the store's own space.
//! 2. Text is its UTF-8. Keys come back as text with `surrogateescape`, as names of files do: bytes that are not UTF-8 make a
//!    round trip.
//! 3. In a space an `int` is its 8 bytes, the highest first.

use std::borrow::Cow;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString};

/// A key.
pub(crate) enum Key<'k> {
    Id(u64),
    Bytes(Cow<'k, [u8]>),
}

impl<'k> Key<'k> {
    /// The key that an object is.
    #[inline]
    pub(crate) fn of(object: &'k Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(text) = object.cast::<PyString>() {
            return text_key(text).map(Key::Bytes);
        }
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Key::Bytes(Cow::Borrowed(bytes.as_bytes())));
        }
        other_key(object)
    }

    /// Without its borrow.
    pub(crate) fn into_owned(self) -> Key<'static> {
        match self {
            Key::Id(id) => Key::Id(id),
            Key::Bytes(bytes) => Key::Bytes(Cow::Owned(bytes.into_owned())),
        }
    }

    /// The bytes of the key in a space.
    #[inline]
    pub(crate) fn in_space(self) -> Cow<'k, [u8]> {
        match self {
            Key::Id(id) => Cow::Owned(id.to_be_bytes().to_vec()),
            Key::Bytes(bytes) => bytes,
        }
    }
}

#[inline]
fn text_key<'k>(text: &'k Bound<'_, PyString>) -> PyResult<Cow<'k, [u8]>> {
    match text.to_str() {
        Ok(utf8) => Ok(Cow::Borrowed(utf8.as_bytes())),
        Err(_) => {
            let bytes = text.call_method1("encode", ("utf-8", "surrogateescape"))?;
            Ok(Cow::Owned(bytes.cast_into::<PyBytes>()?.as_bytes().to_vec()))
        }
    }
}

#[inline]
fn other_key<'k>(object: &Bound<'_, PyAny>) -> PyResult<Key<'k>> {
    let is_index = object.cast::<PyInt>().is_ok() || object.hasattr("__index__")?;
    if !is_index {
        let name = object.get_type().name()?;
        return Err(PyTypeError::new_err(format!("a key is str, bytes or int, and not {name}")));
    }
    let id = object.extract::<u64>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(object.py()) {
            PyValueError::new_err(format!("{object}: an int as a key is from 0 to 2**64 - 1"))
        } else {
            error
        }
    })?;
    Ok(Key::Id(id))
}

/// The type that keys of a space come back as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyType {
    Text,
    Bytes,
    Int,
}

impl KeyType {
    pub(crate) fn of(name: &str) -> PyResult<Self> {
        match name {
            "str" => Ok(Self::Text),
            "bytes" => Ok(Self::Bytes),
            "int" => Ok(Self::Int),
            _ => {
                Err(PyValueError::new_err(format!("keys={name}: the keys of a space are str, bytes or int")))
            }
        }
    }

    /// A key as an object.
    pub(crate) fn give<'py>(self, py: Python<'py>, key: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Text => match std::str::from_utf8(key) {
                Ok(text) => Ok(PyString::new(py, text).into_any()),
                Err(_) => PyBytes::new(py, key).call_method1("decode", ("utf-8", "surrogateescape")),
            },
            Self::Bytes => Ok(PyBytes::new(py, key).into_any()),
            Self::Int => {
                let id: [u8; 8] = key.try_into().map_err(|_| {
                    PyValueError::new_err(format!(
                        "a key of {} bytes in a space of int keys, which have 8; read it with keys=bytes",
                        key.len()
                    ))
                })?;
                Ok(u64::from_be_bytes(id).into_pyobject(py)?.into_any())
            }
        }
    }
}
