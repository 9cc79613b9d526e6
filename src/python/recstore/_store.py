"""`Store` and `Space`: mappings over records that processes share."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from types import TracebackType
from typing import Any, Literal, Self

from . import _native
from ._codecs import Codec
from ._native import Batch, Counter, Queue
from ._reports import RepairReport, SalvageReport, Stats, VerifyReport, made
from ._shapes import Changes, Pin, Reservation, Ring, Snapshot, Watch

Key = int | str | bytes
"""A key: an id from 0 to 2**64 - 1, text (as UTF-8), or bytes."""

_open: weakref.WeakSet[Store] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Stores in memory are removed with their last user, so they are closed before the interpreter ends."""
    for store in list(_open):
        try:
            store.close()
        except Exception:
            pass


class _Keys(KeysView[Any]):
    __slots__ = ()


class _Values(ValuesView[Any]):
    __slots__ = ()
    _mapping: _Map

    def __iter__(self) -> Iterator[Any]:
        return self._mapping._values()


class _Items(ItemsView[Any, Any]):
    __slots__ = ()
    _mapping: _Map

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping._items()


class _Map(_native.Map):
    """What `Store` and `Space` have in common."""

    __slots__ = ()

    def keys(self) -> KeysView[Any]:
        """A view of the keys."""
        return _Keys(self)

    def values(self) -> ValuesView[Any]:
        """A view of the values."""
        return _Values(self)

    def items(self) -> ItemsView[Any, Any]:
        """A view of the keys and their values. Iteration is a pass over all records, beside which others may write."""
        return _Items(self)

    def update(self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), /, **more: Any) -> None:
        """Writes many values. Not one step: see `Store.batch`."""
        self.put_many(other.items() if isinstance(other, Mapping) else other)
        if more:
            self.put_many(more.items())

    def popitem(self) -> tuple[Any, Any]:
        """Deletes some key, and returns it with its value."""
        while True:
            for key in self:
                try:
                    return key, self.pop(key)
                except KeyError:
                    break  # Another process was faster.
            else:
                raise KeyError("popitem: the mapping is empty")


    def counter(self, key: Key) -> Counter:
        """The record as a counter, which any number of processes change. Absent, it counts as 0. Under an id it is 8 bytes, little-endian;
        a counter under a key knows what it is, and a key that holds something else raises OtherShape."""
        return Counter(self, key)

    def watch(self, key: Key) -> Watch:
        """Waits for changes of a key from now on: `for event in s.watch("k")`, `async for`, or `wait(timeout)`."""
        return Watch(self, key)

    def changes(self) -> Changes:
        """All keys, then `recstore.CAUGHT_UP`, and then every change of any process, deletions too. Several changes of one key at once
        are one."""
        return Changes(self)

    def pin(self) -> Pin:
        """Reads values where they lie, without a copy: `with s.pin() as p: p["k"]` is a memoryview, `p.array("k")` an array.

        A pin blocks nobody. But the room of values that are replaced meanwhile is not used again until it ends, and until the last
        of its views is gone. Needs a store that is open for writing.
        """
        return Pin(self)

    def reserve(
        self,
        key: Key,
        size: int | tuple[int, ...],
        dtype: Any = None,
        *,
        durable: bool | None = None,
    ) -> Reservation:
        """Room for a value, to be written where it will lie, and then committed.

            with s.reserve("frame", (1080, 1920, 3), np.uint8) as a:
                camera.read_into(a)

        With a dtype, `size` is a shape, and the value begins with the header of `.npy`; without, it is a number of bytes. The old
        value stays until the commit, and also if the block raises, or the process dies. Write all of it: the content of what is not
        written is unspecified. The commit raises BufferError while a slice, another array or a memoryview can still write to it.
        """
        return Reservation(self, key, size, dtype, durable)


class Space(_Map):
    """Records that are found by keys, beside those of other spaces: see `Store.space`."""

    __slots__ = ("_store", "_options")
    _store: Store
    _options: tuple[str, type, Codec | None, float | None]

    def __new__(cls, store: Store, name: str, keys: type, codec: Codec | None, ttl: float | None) -> Self:
        self = super().__new__(cls, store._handle, name, getattr(keys, "__name__", repr(keys)), codec, ttl)
        self._store = store
        self._options = (name, keys, codec, ttl)
        return self

    @property
    def name(self) -> str:
        """The name of the space."""
        return self._options[0]

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    def __repr__(self) -> str:
        return f"<recstore.Space {self.name!r} of {self._store!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _space, (self._store, *self._options)


def _space(store: Store, name: str, keys: type, codec: Codec | None, ttl: float | None) -> Space:
    return Space(store, name, keys, codec, ttl)


class Store(_Map):
    """A file of records that any number of processes read and write at once: see `open` and `shared`.

    It is a mapping. An `int` is the id of a record. Text and bytes are keys; they live in the space `main`, or another one that was
    named when the store was opened. Values are bytes, unless the store was opened with a codec.

    Threads may share it. It may be sent to other processes: it is pickled as its path and its options. A forked child opens it anew
    with its first call.
    """

    __slots__ = ("_how",)
    _how: dict[str, Any]

    def __new__(cls, how: dict[str, Any]) -> Self:
        options = dict(how)
        codec = options.pop("codec")
        keys = options.pop("keys")
        handle = _native.Handle(**options)
        self = super().__new__(cls, handle, None, keys.__name__, codec)
        self._how = how
        _open.add(self)
        return self

    def close(self) -> None:
        """Flushes to disk, and lets go of the store. Views that are still alive stay as they are. Closing twice does no harm."""
        self._handle.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._handle.closed

    @property
    def path(self) -> str:
        """The path of the file."""
        return os.fsdecode(self._handle.path)

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading."""
        return self._handle.read_only

    @property
    def record_size(self) -> int:
        """The most bytes that a record can have. A key, the name of its space, its value and 8 bytes more make a record."""
        return self._handle.record_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "<recstore.Store, closed>" if self.closed else f"<recstore.Store {self.path!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        how = dict(self._how)
        if how["flag"] in ("c", "x"):
            how["flag"] = "w" if how["path"] is not None else "c"
        return Store, (how,)

    def space(
        self, name: str, *, keys: type = str, codec: Codec | None = None, ttl: float | None = None
    ) -> Space:
        """The space with this name: records that are found by keys, apart from those of other spaces. The first write makes it.

        `keys`, which is `str`, `bytes` or `int`, is the type that keys come back as. Each type may be used to ask for a key: text is
        its UTF-8, and an int is its 8 bytes, the highest first. `ttl` is the time to live, in seconds, of what is written through this
        object: after that the key is absent.
        """
        return Space(self, name, keys, codec, ttl)

    def spaces(self) -> list[str]:
        """The names of all spaces in which there is a key. A pass over all records."""
        return self._handle.spaces()

    def sync(self) -> None:
        """Makes every earlier write, of any process, survive a loss of power."""
        self._handle.sync()

    def sweep(self, budget: int = 1 << 16) -> int:
        """Frees the room of keys whose time to live is over. Looks at `budget` records, from where the last sweep ended. Returns the
        number of keys. Any process may do it."""
        return self._handle.sweep(budget)[0]

    def backup(self, to: str | bytes | os.PathLike[Any]) -> int:
        """Copies all records as they are at one moment into a new store. Returns their number."""
        return self._handle.backup(os.fsdecode(to))

    def batch(self, *, durable: bool | None = None) -> Batch:
        """Changes of several records, of which all are made or none, even if the process is killed, or power is lost.

            with s.batch() as b:
                b["a"] = b"1"
                del b["b"]
                b.require("c", version)        # or Conflict is raised, and nothing is written

        `put`, `delete` and `require` take `space=` for keys of other spaces. The block ends with the commit.
        """
        return Batch(self, durable)

    def snapshot(self) -> Snapshot:
        """All records as they are at one moment, for any number of reads, while others go on writing: a mapping that can't be
        written. Drop it soon: while it lives, the store keeps what is replaced."""
        return Snapshot(self)

    def ring(self, name: str, dtype: Any, length: int) -> Ring:
        """The last `length` values of a series, which any number of processes append to. All give the same dtype and length, or
        OtherShape is raised. A program in Rust opens it as `store.space("ring NAME")?.ring("ring", DTYPE, LENGTH)`."""
        return Ring(self, name, dtype, length)

    def queue(self, name: str, *, lease: float | None = None, claims_max: int | None = None) -> Queue:
        """Jobs that any process pushes, and that each are given to one process that claims them.

            with s.queue("mails").claim() as job:
                send(job.data)

        If the process of a claim dies, the next claim gets the job at once. With `lease`, a claim ends after so many seconds, although
        its process lives. After `claims_max` claims a job goes to the dead letters.
        """
        return Queue(self, name, lease, claims_max)

    def stats(self) -> Stats:
        """The store in numbers."""
        stats: Stats = made(Stats, _native.stats(self._handle))
        return stats

    def verify(self) -> VerifyReport:
        """Checks everything, and changes nothing. Damage is in the report, and raises nothing."""
        report: VerifyReport = made(VerifyReport, _native.verify(self._handle))
        return report

    def repair(self) -> RepairReport:
        """Puts right what is damaged, and gives up and reports what can't be."""
        report: RepairReport = made(RepairReport, _native.repair(self._handle))
        return report

    def opened(self) -> RepairReport:
        """What was repaired when the store was opened."""
        report: RepairReport = made(RepairReport, _native.opened(self._handle))
        return report

    def holder(self) -> bytes:
        """The identity of this open store, which can be kept in a record: see `is_alive`. A forked child has another one."""
        return bytes(self._handle.holder())

    def is_alive(self, holder: bytes) -> bool:
        """Whether that holder lives. The kernel says so: no process id and no time-out takes part."""
        return self._handle.is_alive(holder)


MutableMapping.register(Space)
MutableMapping.register(Store)


def _options(path: str | None, name: str | None, flag: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"path": path, "name": name, "flag": flag, **options}


def open(
    path: str | bytes | os.PathLike[Any],
    flag: Literal["r", "w", "c", "x"] = "c",
    *,
    record_size: int | None = None,
    regions: int = 16,
    slots_per_extent: int | None = None,
    max_size: int = 1 << 40,
    mode: int = 0o600,
    lock_timeout: float | None = None,
    durable: bool = False,
    verify_reads: bool = True,
    require_geometry: bool = False,
    allow_network_file_system: bool = False,
    allow_copy_on_write: bool = False,
    space: str = "main",
    keys: type = str,
    codec: Codec | None = None,
) -> Store:
    """Opens a store, and creates it if it is absent.

    flag: "r" to read only; "w": it must be there; "c": it is created if it is absent; "x": it must be absent.
    record_size: the most bytes of a record, for a new store; None: 1 MiB. A high limit costs nothing. regions: so many writers can
    write side by side. slots_per_extent: all records take as much room as the longest one, and the store grows by so many records;
    None: as the records need. max_size: the most bytes of the file. mode: permissions of a new file.
    lock_timeout: seconds that a call waits for a lock of another process before it raises Busy; None: as long as it takes.
    durable: every write waits for the disk. verify_reads: checks the checksum of every record that is read.
    require_geometry: raises OtherGeometry if the store was created with other sizes.
    space: the space of text and bytes that are used as keys. keys: what they come back as, str or bytes.
    codec: how values become bytes, such as recstore.json. None: values are bytes.
    """
    if flag not in ("r", "w", "c", "x"):
        raise ValueError(f"flag={flag!r}: use 'r', 'w', 'c' or 'x'")
    options = {
        "record_size": record_size,
        "regions": regions,
        "slots_per_extent": slots_per_extent,
        "max_size": max_size,
        "mode": mode,
        "lock_timeout": lock_timeout,
        "durable": durable,
        "verify_reads": verify_reads,
        "require_geometry": require_geometry,
        "allow_network_file_system": allow_network_file_system,
        "allow_copy_on_write": allow_copy_on_write,
        "space": space,
        "keys": keys,
        "codec": codec,
    }
    return Store(_options(os.path.abspath(os.fsdecode(path)), None, flag, options))


def shared(
    name: str,
    *,
    record_size: int | None = None,
    regions: int = 16,
    slots_per_extent: int | None = None,
    max_size: int = 1 << 40,
    mode: int = 0o600,
    lock_timeout: float | None = None,
    verify_reads: bool = True,
    space: str = "main",
    keys: type = str,
    codec: Codec | None = None,
) -> Store:
    """Opens the store in memory with this name, or creates it. Its last user removes it, even if that user is killed: then nothing is
    left once the next one opens it. The options are those of `open`."""
    options = {
        "record_size": record_size,
        "regions": regions,
        "slots_per_extent": slots_per_extent,
        "max_size": max_size,
        "mode": mode,
        "lock_timeout": lock_timeout,
        "durable": False,
        "verify_reads": verify_reads,
        "require_geometry": False,
        "allow_network_file_system": False,
        "allow_copy_on_write": True,
        "space": space,
        "keys": keys,
        "codec": codec,
    }
    return Store(_options(None, name, "c", options))


def shared_names() -> list[str]:
    """The names of the stores in memory that this user can see."""
    return _native.shared_names()


def remove_shared(name: str) -> bool:
    """Removes the store in memory with this name. Returns whether there was one. Its users keep it until they leave."""
    return _native.remove_shared(name)


def salvage(
    damaged: str | bytes | os.PathLike[Any], to: str | bytes | os.PathLike[Any], *, record_size: int | None = None
) -> SalvageReport:
    """Copies the records that are whole out of a file that can't be opened any more, into a new store."""
    fields = _native.salvage(os.fsdecode(damaged), os.fsdecode(to), record_size)
    report: SalvageReport = made(SalvageReport, fields)
    return report
