"""The exceptions. Each mirrors an error of the library, and its message says what to do next."""

from __future__ import annotations

__all__ = [
    "Error",
    "Closed",
    "Conflict",
    "NotFound",
    "AlreadyExists",
    "NotAStore",
    "UnsupportedVersion",
    "UnsupportedFeatures",
    "WrongByteOrder",
    "Truncated",
    "NetworkFileSystem",
    "BelowOverlay",
    "CopyOnWrite",
    "ReadOnly",
    "NeedsRepair",
    "RecordTooLong",
    "IdTaken",
    "KeyTooLong",
    "EntryTooLong",
    "Full",
    "Busy",
    "Corrupt",
    "Damaged",
    "Forked",
    "Reentrant",
    "TooManyHandles",
    "TooManyPins",
    "NoSuchPlace",
    "OtherGeometry",
    "TypeMismatch",
    "OtherShape",
    "InvalidOption",
    "FlushFailed",
    "Unlinked",
    "Io",
]


class Error(Exception):
    """Any error of recstore. No error loses a write that had returned."""

    path: str
    """The file that the call was about."""


class Closed(Error, ValueError):
    """The store was closed by this object."""


class Conflict(Error):
    """A batch met a record that is not as a condition demands. Nothing was written."""

    key: int | str | bytes
    """The key that the condition is of."""
    version: int | None
    """The version that is there; `None` if there is none."""


class NotFound(Error, FileNotFoundError):
    """There is no file at the path."""


class AlreadyExists(Error, FileExistsError):
    """There is a file at the path already."""


class NotAStore(Error, ValueError):
    """The file is not a store."""


class UnsupportedVersion(Error):
    """The file was written by another version of the format."""

    found: int
    supported: int


class UnsupportedFeatures(Error):
    """The store has features that this build does not know."""

    features: int


class WrongByteOrder(Error):
    """The file has the other byte order."""


class Truncated(Error):
    """The file is shorter than its own superblock says."""

    len: int
    needed: int


class NetworkFileSystem(Error):
    """The file is on a file system on which hosts do not share mappings or locks."""

    kind: str


class BelowOverlay(Error):
    """The file is in the upper directory of an overlay file system."""


class CopyOnWrite(Error):
    """The file system copies the file on write."""

    kind: str


class ReadOnly(Error, PermissionError):
    """A write to a store that was opened for reading."""


class NeedsRepair(Error):
    """The store has to be opened for writing once before it can be read."""


class RecordTooLong(Error, ValueError):
    """The record does not fit into a slot."""

    id: int
    len: int
    max: int


class IdTaken(Error, ValueError):
    """The id belongs to a record that is found by a key, or the other way round."""

    id: int


class KeyTooLong(Error, ValueError):
    """A key is longer than 65,536 bytes."""

    len: int
    max: int


class EntryTooLong(Error, ValueError):
    """A key and its value do not fit into a record."""

    space: str
    key: str
    len: int
    others: int
    max: int


class Full(Error, OSError):
    """There is no room for another record."""

    region: int
    limit: int


class Busy(Error, TimeoutError):
    """Another process kept a lock for longer than `lock_timeout`."""

    lock: str
    owner: int | None
    """The process id of the holder, if it is known."""
    waited: float
    """Seconds that the call waited."""


class Corrupt(Error):
    """A record is damaged: its checksum does not match."""

    region: int
    slot: int | None
    id: int


class Damaged(Error):
    """A part of the file that is not a record is damaged."""


class Forked(Error):
    """The object belongs to the parent process: a pin, a snapshot, a reservation, a job, an iterator."""


class Reentrant(Error, RuntimeError):
    """A write from inside the function of `modify`."""

    region: int


class TooManyHandles(Error):
    """1,024 handles are open for writing already."""

    max: int


class TooManyPins(Error):
    """The store has the maximum number of pins."""

    max: int


class NoSuchPlace(Error, IndexError):
    """The store has no region or slot of this number."""


class OtherGeometry(Error, ValueError):
    """The store has another geometry than the options."""


class TypeMismatch(Error, TypeError):
    """A record is of another type than the caller's."""


class OtherShape(TypeMismatch):
    """A key holds something else than a counter, or than this ring."""

    space: str
    key: str
    found: str
    """What the key holds, in words."""
    wanted: str
    """What was asked for, in words."""


class InvalidOption(Error, ValueError):
    """An option is out of its range."""


class FlushFailed(Error, OSError):
    """A flush to disk failed."""


class Unlinked(Error, OSError):
    """The file was removed, or replaced, while it was open."""


class Io(Error, OSError):
    """The operating system refused a call."""
