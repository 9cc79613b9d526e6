"""`List` and `Block`: what `ShareableList` and `SharedMemory.buf` are used for."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from . import _arrays
from ._errors import Conflict, TypeMismatch
from ._store import Space, Store

Item = int | float | bool | str | bytes | None
"""What a `List` holds: every type that ShareableList has, and integers of any size."""

_LEN = "len"


def _encode(item: Item) -> bytes:
    match item:
        case None:
            return b"n"
        case bool():
            return b"t" if item else b"f"
        case int():
            return b"i" + item.to_bytes(item.bit_length() // 8 + 1, "little", signed=True)
        case float():
            return b"d" + struct.pack("<d", item)
        case str():
            return b"s" + item.encode("utf-8", "surrogatepass")
        case bytes():
            return b"b" + item
    raise TypeError(f"an item is int, float, bool, str, bytes or None, and not {type(item).__name__}")


def _decode(data: bytes) -> Item:
    tag, rest = data[:1], data[1:]
    match tag:
        case b"n":
            return None
        case b"t" | b"f":
            return tag == b"t"
        case b"i":
            return int.from_bytes(rest, "little", signed=True)
        case b"d":
            number: float = struct.unpack("<d", rest)[0]
            return number
        case b"s":
            return rest.decode("utf-8", "surrogatepass")
        case b"b":
            return rest
    raise TypeMismatch(f"an item that begins with {tag!r} is none of a List; use the type that it was written with")


class List:
    """A list that any number of processes append to and change. Each item is a record, as long as it is: text and bytes come back as
    they were written.

    An item is changed, and an item is appended, as one step. Items are taken from the end alone: in the middle others would move.
    """

    def __init__(self, store: Store, name: str, items: Iterable[Item] = ()) -> None:
        """The list with this name. `items` are appended to it."""
        self._space: Space = store.space(f"list {name}", keys=bytes)
        self._name = name
        self.extend(items)

    @property
    def name(self) -> str:
        """The name of the list."""
        return self._name

    def __len__(self) -> int:
        return int.from_bytes(self._space.get(_LEN, b""), "little")

    def _at(self, index: int) -> int:
        at = index + len(self) if index < 0 else index
        if at < 0:
            raise IndexError(f"index {index}: the list has {len(self)} items")
        return at

    def _key(self, index: int) -> int:
        return self._at(index)

    def __getitem__(self, index: int) -> Item:
        data = self._space.get(self._key(index))
        if data is None:
            raise IndexError(f"index {index}: the list has {len(self)} items")
        return _decode(data)

    def __setitem__(self, index: int, item: Item) -> None:
        self.update(index, lambda old: item)

    def update(self, index: int, change: Callable[[Item], Item]) -> Item:
        """Changes an item as one step. Returns the new one."""

        def changed(old: bytes | None) -> bytes:
            if old is None:
                raise IndexError(f"index {index}: the list has {len(self)} items")
            return _encode(change(_decode(old)))

        return _decode(self._space.modify(self._key(index), changed))

    def append(self, item: Item) -> int:
        """Appends an item. Returns its index."""
        return self.extend([item])

    def extend(self, items: Iterable[Item]) -> int:
        """Appends items, all or none, one behind the other. Returns the index of the first one."""
        encoded = [_encode(item) for item in items]
        while True:
            found = self._space.get_versioned(_LEN)
            length = int.from_bytes(found[0], "little") if found else 0
            if not encoded:
                return length
            batch = self._space.store.batch()
            batch.require(_LEN, found[1] if found else None, space=self._space)
            for at, data in enumerate(encoded, length):
                batch.put(at, data, space=self._space)
            batch.put(_LEN, (length + len(encoded)).to_bytes(8, "little"), space=self._space)
            try:
                batch.commit()
            except Conflict:
                continue  # Another process was faster.
            return length

    def pop(self) -> Item:
        """Takes the last item away, and returns it."""
        while True:
            found = self._space.get_versioned(_LEN)
            length = int.from_bytes(found[0], "little") if found else 0
            if found is None or length == 0:
                raise IndexError("pop from an empty list")
            last = self._space.get_versioned(length - 1)
            if last is None:
                continue
            batch = self._space.store.batch()
            batch.require(_LEN, found[1], space=self._space)
            batch.require(length - 1, last[1], space=self._space)
            batch.delete(length - 1, space=self._space)
            batch.put(_LEN, (length - 1).to_bytes(8, "little"), space=self._space)
            try:
                batch.commit()
            except Conflict:
                continue
            return _decode(last[0])

    def __iter__(self) -> Iterator[Item]:
        at = 0
        while (data := self._space.get(at)) is not None:
            yield _decode(data)
            at += 1

    def __contains__(self, item: Item) -> bool:
        return any(found == item and type(found) is type(item) for found in self)

    def count(self, item: Item) -> int:
        """How often the item is in the list."""
        return sum(found == item for found in self)

    def index(self, item: Item) -> int:
        """The first index of the item."""
        for at, found in enumerate(self):
            if found == item:
                return at
        raise ValueError(f"{item!r} is not in the list")

    def __repr__(self) -> str:
        return f"<recstore.List {self._name!r} of {len(self)}>"


class Block:
    """A block of numbers, in rows: an array that processes write and read row by row.

    It takes the place of an array over `SharedMemory.buf`, which several processes write at once. A row is written as a whole, and
    never seen in part; a process that is killed in a row leaves the old one. So there is no `buf`: `block[i] = row` and
    `block.writing(i)` write a row, `block[i]` and `block.view(i)` read one, and `read` and `write` are for all of them.
    """

    def __init__(self, store: Store, name: str, shape: Sequence[int], dtype: Any) -> None:
        """The block with this name. All users give the same shape and dtype. Rows that nobody has written are zeros."""
        np = _arrays.numpy()
        self._space: Space = store.space(f"block {name}", keys=bytes)
        self._name, self._shape, self._dtype = name, tuple(shape), np.dtype(dtype)
        if len(self._shape) < 1 or self._dtype.hasobject:
            raise ValueError(f"shape {shape}, dtype {dtype}: a block has rows, of plain numbers")
        mine = repr((self._shape, np.lib.format.dtype_to_descr(self._dtype))).encode()
        found = self._space.get("shape") if store.read_only else self._space.setdefault("shape", mine)
        if found is not None and found != mine:
            raise TypeMismatch(f"block {name!r} is of (shape, dtype) {found.decode()}, and not {mine.decode()}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape. The first number is that of its rows."""
        return self._shape

    @property
    def dtype(self) -> Any:
        """The dtype of its numbers."""
        return self._dtype

    def __len__(self) -> int:
        return self._shape[0]

    def _row(self, row: int) -> int:
        at = row + self._shape[0] if row < 0 else row
        if not 0 <= at < self._shape[0]:
            raise IndexError(f"row {row}: the block has {self._shape[0]} rows")
        return at

    def _bytes(self, values: Any) -> bytes:
        np = _arrays.numpy()
        data: bytes = np.broadcast_to(np.asarray(values, self._dtype), self._shape[1:]).tobytes()
        return data

    def __getitem__(self, row: int) -> Any:
        data = self._space.get(self._row(row))
        np = _arrays.numpy()
        if data is None:
            return np.zeros(self._shape[1:], self._dtype)
        return np.frombuffer(data, self._dtype).reshape(self._shape[1:]).copy()

    def __setitem__(self, row: int, values: Any) -> None:
        self._space[self._row(row)] = self._bytes(values)

    def view(self, row: int) -> Any:
        """A row where it lies: no copy. It can't be written, and stays as it is."""
        with self._space.pin() as pin:
            lent = pin.get(self._row(row))
            if lent is None:
                return self[row]
            return _arrays.over(lent, self._dtype, self._shape[1:])

    def writing(self, row: int) -> AbstractContextManager[Any]:
        """A row to be written where it will lie: `with block.writing(i) as row: row[:] = ...`."""
        return _Writing(self, self._row(row))

    def read(self) -> Any:
        """All rows, as one array. Each row is whole; they are not of one moment."""
        np = _arrays.numpy()
        out = np.zeros(self._shape, self._dtype)
        found = self._space.get_many(range(self._shape[0]))
        for at, data in enumerate(found):
            if data is not None:
                out[at] = np.frombuffer(data, self._dtype).reshape(self._shape[1:])
        return out

    def write(self, values: Any) -> None:
        """Writes all rows."""
        np = _arrays.numpy()
        rows = np.ascontiguousarray(np.broadcast_to(np.asarray(values, self._dtype), self._shape))
        self._space.put_many((at, rows[at].tobytes()) for at in range(self._shape[0]))

    def __repr__(self) -> str:
        return f"<recstore.Block {self._name!r} {self._shape} {self._dtype}>"


class _Writing(AbstractContextManager[Any]):
    """A row that is written in place."""

    def __init__(self, block: Block, row: int) -> None:
        size = block.dtype.itemsize * _arrays.elements(block.shape[1:])
        self._reservation = block._space.reserve(row, size)
        self._of = (block.shape[1:], block.dtype)

    def __enter__(self) -> Any:
        shape, dtype = self._of
        array = _arrays.numpy().ndarray(shape, dtype, buffer=self._reservation._room)
        self._reservation._keep(array)
        return array

    def __exit__(self, *error: Any) -> None:
        self._reservation.__exit__(*error)
