"""Codecs: how other objects than bytes become values.

Nothing is pickled unless `codec=recstore.pickle` is asked for. A codec is any object with `encode(object) -> bytes` and
`decode(bytes) -> object`.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Codec(Protocol):
    """What `codec=` takes."""

    def encode(self, value: Any, /) -> bytes:
        """The bytes of a value."""
        ...

    def decode(self, data: bytes, /) -> Any:
        """The value of bytes."""
        ...


class _Named:
    """A codec of this package, which is pickled as its name."""

    def __init__(self, name: str, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], doc: str) -> None:
        self._name = name
        self.encode = encode
        self.decode = decode
        self.__doc__ = doc

    def __reduce__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"recstore.{self._name}"


def _numpy() -> Any:
    return importlib.import_module("numpy")


def _msgpack() -> Any:
    return importlib.import_module("msgpack")


def _json_encode(value: Any) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _json_decode(data: bytes) -> Any:
    import json

    return json.loads(data)


def _msgpack_encode(value: Any) -> bytes:
    packed: bytes = _msgpack().packb(value)
    return packed


def _msgpack_decode(data: bytes) -> Any:
    return _msgpack().unpackb(data, strict_map_key=False)


def _numpy_encode(value: Any) -> bytes:
    out = io.BytesIO()
    _numpy().lib.format.write_array(out, _numpy().asanyarray(value), allow_pickle=False)
    return out.getvalue()


def _numpy_decode(data: bytes) -> Any:
    return _numpy().lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _pickle_encode(value: Any) -> bytes:
    import pickle

    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _pickle_decode(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)


json = _Named("json", _json_encode, _json_decode, "Values as JSON, in UTF-8.")
msgpack = _Named("msgpack", _msgpack_encode, _msgpack_decode, "Values as MessagePack. Needs the package `msgpack`.")
numpy = _Named("numpy", _numpy_encode, _numpy_decode, "Arrays in the format of `.npy`. Needs the package `numpy`.")
pickle = _Named(
    "pickle",
    _pickle_encode,
    _pickle_decode,
    """Values as pickles.

    Warning: whoever can write to the file can run any code in each process that reads it. Use it only where all users of the
    file trust each other. `json`, `msgpack` and `numpy` do not have this hazard.""",
)
