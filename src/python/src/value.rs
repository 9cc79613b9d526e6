//! Values: bytes, and other objects by a codec.
//!
//! Bytes are lent to the call, since nobody can change them. Every other buffer is copied first: while the interpreter's lock is
//! given up, and even while it is held, other threads may write to it, and a record must be what its checksum says.

use std::borrow::Cow;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// The bytes of an object that has a buffer.
#[inline]
pub(crate) fn bytes_of<'v>(object: &'v Bound<'_, PyAny>) -> PyResult<Cow<'v, [u8]>> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Cow::Borrowed(bytes.as_bytes()));
    }
    copied(object).map(Cow::Owned)
}

fn copied(object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let py = object.py();
    let is_buffer = !object.is_instance_of::<PyString>();
    let buffer = is_buffer.then(|| PyUntypedBuffer::get(object).ok()).flatten().ok_or_else(|| {
        let name = object.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
        PyTypeError::new_err(format!(
            "a value is bytes or another buffer, and not {name}; encode it, or ask for a codec (codec=recstore.json)"
        ))
    })?;
    let len = buffer.len_bytes();
    let mut copy = Vec::<u8>::with_capacity(len);
    if buffer.is_c_contiguous() {
        // SAFETY: the buffer has `len` bytes in one piece, and `copy` has room for them.
        unsafe {
            std::ptr::copy_nonoverlapping(buffer.buf_ptr().cast::<u8>(), copy.as_mut_ptr(), len);
            copy.set_len(len);
        }
        return Ok(copy);
    }
    drop(buffer);
    // SAFETY: a view of the object is taken and given back, and the call writes at most `len` bytes to `copy`.
    unsafe {
        let mut view = std::mem::zeroed::<ffi::Py_buffer>();
        if ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut view, ffi::PyBUF_FULL_RO) != 0 {
            return Err(PyErr::fetch(py));
        }
        let room = view.len.min(len as isize);
        let copied = ffi::PyBuffer_ToContiguous(copy.as_mut_ptr().cast(), &raw const view, room, b'C' as _);
        ffi::PyBuffer_Release(&raw mut view);
        if copied != 0 {
            return Err(PyErr::fetch(py));
        }
        copy.set_len(room as usize);
    }
    Ok(copy)
}

/// How values become bytes, and bytes values.
pub(crate) struct Codec {
    encode: Py<PyAny>,
    decode: Py<PyAny>,
}

impl Codec {
    /// The codec that an object is; `None`: values are bytes.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        if object.is_none() {
            return Ok(None);
        }
        let part = |name| object.getattr(name).map(Bound::unbind);
        match (part("encode"), part("decode")) {
            (Ok(encode), Ok(decode)) => Ok(Some(Self { encode, decode })),
            _ => Err(PyTypeError::new_err(format!(
                "{}: a codec has encode and decode; take recstore.json, recstore.msgpack, recstore.numpy or recstore.pickle",
                object.repr()?
            ))),
        }
    }
}

/// The object that is to be written: the value itself, or what the codec makes of it.
#[inline]
pub(crate) fn encoded<'py>(codec: Option<&Codec>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match codec {
        None => Ok(value.clone()),
        Some(codec) => codec.encode.bind(value.py()).call1((value,)),
    }
}

/// The value of a record's bytes.
#[inline]
pub(crate) fn decoded<'py>(
    py: Python<'py>,
    codec: Option<&Codec>,
    data: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    let data = PyBytes::new(py, data).into_any();
    match codec {
        None => Ok(data),
        Some(codec) => codec.decode.bind(py).call1((data,)),
    }
}
