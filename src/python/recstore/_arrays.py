"""Arrays of numpy over records. A value with the header of `.npy` says its own dtype and shape, and any reader of `.npy` reads it."""

from __future__ import annotations

import functools
import importlib
import io
import math
from typing import Any

from ._errors import TypeMismatch


def numpy() -> Any:
    """The module, which is needed only for arrays."""
    try:
        return importlib.import_module("numpy")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("arrays need the package numpy: pip install numpy") from error


@functools.lru_cache(256)
def header(dtype: Any, shape: tuple[int, ...]) -> bytes:
    """The bytes in front of the elements, a multiple of 64."""
    np = numpy()
    out = io.BytesIO()
    if dtype.hasobject:
        raise TypeError(f"dtype {dtype}: objects can't be shared; use a dtype of plain numbers or bytes")
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


def shape_of(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def elements(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def over(view: memoryview, dtype: Any, shape: Any) -> Any:
    """The array that a value is, without a copy. Without a dtype, the value begins with the header of `.npy`."""
    np = numpy()
    if dtype is not None:
        array = np.frombuffer(view, np.dtype(dtype)) if len(view) else np.empty(0, np.dtype(dtype))
        return array if shape is None else array.reshape(shape)
    if bytes(view[:6]) != b"\x93NUMPY":
        raise TypeMismatch("the value is no array with the header of .npy; give its dtype")
    # Two or four bytes say how long the header is.
    start = 10 if view[6] == 1 else 12
    length = int.from_bytes(view[8:start], "little")
    found, is_fortran, kind, offset = _parsed(bytes(view[: start + length]))
    flat = np.frombuffer(view, kind, elements(found), offset) if elements(found) else np.empty(0, kind)
    array = flat.reshape(found, order="F" if is_fortran else "C")
    return array if shape is None else array.reshape(shape)


@functools.lru_cache(256)
def _parsed(head: bytes) -> tuple[tuple[int, ...], bool, Any, int]:
    """Shape, order and dtype that a header tells, and its length."""
    np = numpy()
    start = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(start)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        found, is_fortran, kind = read(start)
    except ValueError as error:
        raise TypeMismatch(f"the value begins as an .npy file does, and its header is wrong: {error}") from error
    if kind.hasobject:
        raise TypeMismatch("the value is an array of objects, which are pickled; recstore reads none")
    return found, is_fortran, kind, start.tell()
