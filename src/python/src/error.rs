//! Errors of the library as exceptions of the package.
//!
//! The classes are in `recstore/_errors.py`. Each has the name of a variant of `Error`, and gets the variant's fields as attributes.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use recstore::Error;

/// The module with the classes.
fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("recstore._errors").map(Bound::unbind))?;
    module.bind(py).getattr(name)
}

/// An exception of this class, with these attributes.
fn raise(py: Python<'_>, name: &str, message: &str, fields: &Bound<'_, PyDict>) -> PyResult<PyErr> {
    let exception = class(py, name)?.call1((message,))?;
    for (field, value) in fields {
        exception.setattr(field.cast_into::<pyo3::types::PyString>()?, value)?;
    }
    Ok(PyErr::from_value(exception))
}

/// The exception for a store that this object does not have open any more.
pub(crate) fn closed(py: Python<'_>) -> PyErr {
    let message = "the store is closed; open it anew with recstore.open";
    raise(py, "Closed", message, &PyDict::new(py)).unwrap_or_else(|error| error)
}

/// The exception for a batch that met a conflict.
pub(crate) fn conflict(py: Python<'_>, key: Bound<'_, PyAny>, current: Option<u64>) -> PyErr {
    let make = || {
        let fields = PyDict::new(py);
        let found = current.map_or_else(|| "absent".to_owned(), |version| format!("at version {version}"));
        let message =
            format!("nothing was written: {} is {found}; read it again, and try again", key.repr()?);
        fields.set_item("key", key)?;
        fields.set_item("version", current)?;
        raise(py, "Conflict", &message, &fields)
    };
    make().unwrap_or_else(|error| error)
}

/// The exception for an error of the library.
#[cold]
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let make = || {
        let fields = PyDict::new(py);
        if let Some(path) = error.path() {
            fields.set_item("path", path.as_os_str())?;
        }
        let name = describe(error, &fields)?;
        raise(py, name, &error.to_string(), &fields)
    };
    make().unwrap_or_else(|failure: PyErr| {
        PyRuntimeError::new_err(format!("{error} (and the exception for it can't be made: {failure})"))
    })
}

/// Puts the fields of an error into `fields`. Returns the name of its class.
fn describe(error: &Error, fields: &Bound<'_, PyDict>) -> PyResult<&'static str> {
    let errno = |source: &std::io::Error| fields.set_item("errno", source.raw_os_error());
    Ok(match error {
        Error::NotFound { .. } => "NotFound",
        Error::AlreadyExists { .. } => "AlreadyExists",
        Error::NotAStore { .. } => "NotAStore",
        Error::UnsupportedVersion { found, supported, .. } => {
            fields.set_item("found", found)?;
            fields.set_item("supported", supported)?;
            "UnsupportedVersion"
        }
        Error::UnsupportedFeatures { features, .. } => {
            fields.set_item("features", features)?;
            "UnsupportedFeatures"
        }
        Error::WrongByteOrder { .. } => "WrongByteOrder",
        Error::Truncated { len, needed, .. } => {
            fields.set_item("len", len)?;
            fields.set_item("needed", needed)?;
            "Truncated"
        }
        Error::NetworkFileSystem { kind, .. } => {
            fields.set_item("kind", kind)?;
            "NetworkFileSystem"
        }
        Error::BelowOverlay { .. } => "BelowOverlay",
        Error::CopyOnWrite { kind, .. } => {
            fields.set_item("kind", kind)?;
            "CopyOnWrite"
        }
        Error::ReadOnly { .. } => "ReadOnly",
        Error::NeedsRepair { .. } => "NeedsRepair",
        Error::RecordTooLong { id, len, max, .. } => {
            fields.set_item("id", id)?;
            fields.set_item("len", len)?;
            fields.set_item("max", max)?;
            "RecordTooLong"
        }
        Error::IdTaken { id, .. } => {
            fields.set_item("id", id)?;
            "IdTaken"
        }
        Error::KeyTooLong { len, max, .. } => {
            fields.set_item("len", len)?;
            fields.set_item("max", max)?;
            "KeyTooLong"
        }
        Error::EntryTooLong { space, key, len, others, max, .. } => {
            fields.set_item("space", space)?;
            fields.set_item("key", key)?;
            fields.set_item("len", len)?;
            fields.set_item("others", others)?;
            fields.set_item("max", max)?;
            "EntryTooLong"
        }
        Error::Full { region, limit, source, .. } => {
            fields.set_item("region", region)?;
            fields.set_item("limit", limit)?;
            if let Some(source) = source {
                errno(source)?;
            }
            "Full"
        }
        Error::Busy { lock, owner, waited, .. } => {
            fields.set_item("lock", lock.to_string())?;
            fields.set_item("owner", owner.map(|owner| owner.pid))?;
            fields.set_item("waited", waited.as_secs_f64())?;
            "Busy"
        }
        Error::Corrupt { region, slot, id, .. } => {
            fields.set_item("region", region)?;
            fields.set_item("slot", slot)?;
            fields.set_item("id", id)?;
            "Corrupt"
        }
        Error::Damaged { .. } => "Damaged",
        Error::Forked { .. } => "Forked",
        Error::Reentrant { region, .. } => {
            fields.set_item("region", region)?;
            "Reentrant"
        }
        Error::TooManyHandles { max, .. } => {
            fields.set_item("max", max)?;
            "TooManyHandles"
        }
        Error::TooManyPins { max, .. } => {
            fields.set_item("max", max)?;
            "TooManyPins"
        }
        Error::NoSuchPlace { .. } => "NoSuchPlace",
        Error::OtherGeometry { .. } => "OtherGeometry",
        Error::TypeMismatch { .. } => "TypeMismatch",
        Error::OtherShape { space, key, found, wanted, .. } => {
            fields.set_item("space", space)?;
            fields.set_item("key", key)?;
            fields.set_item("found", &**found)?;
            fields.set_item("wanted", &**wanted)?;
            "OtherShape"
        }
        Error::InvalidOption { .. } => "InvalidOption",
        Error::FlushFailed { source, .. } => {
            errno(source)?;
            "FlushFailed"
        }
        Error::Unlinked { .. } => "Unlinked",
        Error::Io { source, .. } => {
            errno(source)?;
            "Io"
        }
        _ => "Error",
    })
}
