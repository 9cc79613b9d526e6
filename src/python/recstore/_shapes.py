"""Counters, rings, pins, snapshots, reservations, watches: what a store makes beside its mapping."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple, Self

from . import _arrays, _native
from ._errors import TypeMismatch
from ._marks import CAUGHT_UP, Mark

Key = int | str | bytes

_BEAT = 0.5
"""Seconds that a wait in a thread of asyncio takes at most before it looks whether somebody still waits for it."""


async def _beats(name: str, wait: Callable[[], Any], is_over: Callable[[], bool]) -> AsyncIterator[Any]:
    """What `wait` gives, again and again, in a thread of its own, so that the loop goes on meanwhile."""
    asyncio = importlib.import_module("asyncio")  # Loaded only by those who use it.
    threads = importlib.import_module("concurrent.futures").ThreadPoolExecutor(1, name)
    try:
        loop = asyncio.get_running_loop()
        while not is_over():
            found = await loop.run_in_executor(threads, wait)
            if found is not None:
                yield found
    finally:
        threads.shutdown(wait=False)  # The thread looks once a beat.


class Pin(_native.Pin):
    """Reads values where they lie: see `Store.pin`."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def array(self, key: Key, dtype: Any = None, shape: int | tuple[int, ...] | None = None) -> Any:
        """The array that a value is, where it lies: no copy. It can't be written.

        Without `dtype` the value is one that `reserve` or `codec=recstore.numpy` wrote, or the bytes of an `.npy` file. With it, the
        value is the elements alone. The array stays as it is for as long as it lives, even if the value is replaced, the pin has
        ended, and the store was closed.
        """
        return _arrays.over(self[key], dtype, shape)


class Snapshot(_native.Snapshot):
    """All records as they are at one moment, while others write: see `Store.snapshot`. A mapping that can't be written."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def keys(self) -> Iterator[Any]:
        """All keys of the moment."""
        return iter(self)

    def values(self) -> Iterator[Any]:
        """All values of the moment."""
        return self._values()

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All keys and values of the moment."""
        return self._items()

    def space(self, space: _native.Map) -> Snapshot:
        """The keys of a space at the same moment."""
        return Snapshot(space, self)

    def array(self, key: Key, dtype: Any = None, shape: int | tuple[int, ...] | None = None) -> Any:
        """The array that a value is, where it lies: see `Pin.array`."""
        view = self.view(key)
        if view is None:
            raise KeyError(key)
        return _arrays.over(view, dtype, shape)


class Reservation(_native.Reservation):
    """Room for a value, to be written where it will lie: see `Store.reserve`.

    As a context manager it gives the array, or the bytes as a memoryview, and commits when the block ends without an exception. After
    that the array can be read, and not written.
    """

    __slots__ = ("_shape",)
    _shape: tuple[Any, tuple[int, ...], int] | None

    def __new__(cls, map: _native.Map, key: Key, size: Any, dtype: Any, durable: bool | None) -> Self:
        if dtype is None:
            self = super().__new__(cls, map, key, size, durable)
            self._shape = None
            return self
        kind = _arrays.numpy().dtype(dtype)
        shape = _arrays.shape_of(size)
        head = _arrays.header(kind, shape)
        self = super().__new__(cls, map, key, len(head) + kind.itemsize * _arrays.elements(shape), durable)
        self._shape = (kind, shape, len(head))
        view = self.view
        view[: len(head)] = head
        return self

    @property
    def array(self) -> Any:
        """A new array over the room, if a dtype was given."""
        if self._shape is None:
            raise TypeMismatch("the room was reserved as bytes; give a dtype, or use its view")
        kind, shape, offset = self._shape
        return _arrays.numpy().ndarray(shape, kind, buffer=self._room, offset=offset)

    def __enter__(self) -> Any:
        if self._shape is None:
            return self.view
        array = self.array
        self._keep(array)
        return array


class Ring(_native.Ring):
    """The last values of a series, which any number of processes append to: see `Store.ring`."""

    __slots__ = ("_dtype", "_name", "_pack")
    _dtype: Any
    _name: str
    _pack: Any

    def __new__(cls, map: _native.Map, name: str, dtype: Any, length: int) -> Self:
        np = _arrays.numpy()
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise TypeError(f"dtype {kind}: objects can't be shared; use a dtype of plain numbers or bytes")
        descr = np.lib.format.dtype_to_descr(kind)
        # A program in Rust gives the same name: "<f8" for a number.
        type_name = descr if isinstance(descr, str) else repr(descr)
        if len(type_name.encode()) > 255:
            digest = importlib.import_module("hashlib").sha256(type_name.encode()).hexdigest()
            type_name = f"dtype of {len(descr)} fields, SHA-256 {digest}"
        self = super().__new__(cls, map, name, kind.itemsize, length, type_name)
        self._dtype, self._name = kind, name
        self._pack = np.asarray
        return self

    @property
    def dtype(self) -> Any:
        """The dtype of a value."""
        return self._dtype

    def push(self, value: Any) -> int:
        """Appends a value, and returns its number in the series, from 0 on. The oldest value is overwritten."""
        return self._push(self._pack(value, self._dtype).tobytes())

    def extend(self, values: Any) -> int | None:
        """Appends values in their order. Returns the number of the last one. Values of other processes may come in between."""
        return self._extend(self._pack(values, self._dtype).tobytes())

    def latest(self, count: int | None = None) -> Any:
        """At most `count` of the last values as an array, the oldest first. Values that are overwritten meanwhile are left out."""
        return self._array(self._latest(self.length if count is None else count)[1])

    def numbered(self, count: int | None = None) -> tuple[Any, Any]:
        """As `latest`, with an array of the numbers in front."""
        numbers, values = self._latest(self.length if count is None else count)
        return _arrays.numpy().array(numbers, "u8"), self._array(values)

    def _array(self, values: bytes) -> Any:
        return _arrays.numpy().frombuffer(values, self._dtype)

    def __getitem__(self, index: int) -> Any:
        """The last value is `ring[-1]`."""
        if index >= 0:
            raise IndexError(f"ring[{index}]: count from the end, ring[-1] is the last value; latest() gives all")
        found = self.latest(-index)
        if len(found) < -index:
            raise IndexError(f"ring[{index}]: the ring has {len(found)} values")
        return found[0]

    def tail(self, first: int | None = None, *, timeout: float | None = None) -> Iterator[tuple[int, Any]]:
        """The values from number `first` on as they come, each with its number: waits for more.

        None begins with the next value, and 0 with the oldest one that is there. Ends if none comes within `timeout` seconds. Numbers
        that are passed over were overwritten before they were read.
        """
        first = self.pushed if first is None else first
        while True:
            numbers, values = self._from(first, 1024, timeout)
            if not numbers:
                return
            first = numbers[-1] + 1
            yield from zip(numbers, self._array(values), strict=True)

    async def follow(self, first: int | None = None) -> AsyncIterator[tuple[int, Any]]:
        """As `tail`, for asyncio."""
        next_number = self.pushed if first is None else first
        async for numbers, values in _beats("recstore ring", lambda: self._from(next_number, 1024, _BEAT), lambda: False):
            if numbers:
                next_number = numbers[-1] + 1
                for pair in zip(numbers, self._array(values), strict=True):
                    yield pair

    def __repr__(self) -> str:
        return f"<recstore.Ring {self._name!r} of {self.length} {self._dtype}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Ring, (self._map, self._name, self._dtype, self.length)


class Event(NamedTuple):
    """A change of a watched key. A deletion has neither version nor value."""

    version: int | None
    value: Any


class Watch(_native.Watch):
    """Waits for changes of one key, made by any process: see `Store.watch`. An iterator, and an asynchronous one."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> Event | None:
        """The next change. None if none comes within `timeout` seconds, or `cancel` was called. Several changes at once are one."""
        found = self._wait(timeout)
        return None if found is None else Event(*found)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self.wait()
        if event is None:
            raise StopIteration
        return event

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in _beats("recstore watch", lambda: self.wait(_BEAT), lambda: self.cancelled):
            yield event


class Change(NamedTuple):
    """A change of some key: see `Store.changes`."""

    kind: str | Mark
    """"written", "deleted", or `recstore.CAUGHT_UP`, which comes once, without a key."""
    key: Any
    version: int | None


class Changes(_native.Changes):
    """All keys, and then every change, made by any process: see `Store.changes`. An iterator, and an asynchronous one."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> Change | None:
        """The next change. None if none comes within `timeout` seconds, or `cancel` was called."""
        found = self._wait(timeout)
        if found is None:
            return None
        kind, key, version = found
        return Change(CAUGHT_UP if kind == "caught up" else kind, key, version)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change:
        change = self.wait()
        if change is None:
            raise StopIteration
        return change

    async def __aiter__(self) -> AsyncIterator[Change]:
        async for change in _beats("recstore changes", lambda: self.wait(_BEAT), lambda: self.cancelled):
            yield change
