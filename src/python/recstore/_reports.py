"""Reports of checks and repairs, and the store in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Damage(NamedTuple):
    """A damaged place. What is not known is None."""

    region: int | None
    slot: int | None
    id: int | None
    what: str


class Missing(NamedTuple):
    """Records that a count or an index tells of, and that are not there."""

    region: int
    records: int
    what: str


class Attached(NamedTuple):
    """A handle that is open for writing, or was when its process died."""

    seat: int
    generation: int
    pid: int
    alive: bool
    pins: int


@dataclass(frozen=True)
class VerifyReport:
    """What `Store.verify` found."""

    records: int
    slots: int
    damage: list[Damage]
    missing: list[Missing]

    @property
    def is_clean(self) -> bool:
        """Whether there is no damage."""
        return not self.damage


@dataclass(frozen=True)
class RepairReport:
    """What `Store.repair` did, or the repair when the store was opened."""

    regions_rebuilt: list[int]
    dropped: list[Damage]
    missing: list[Missing]
    fixed: list[str]
    os_crash: bool


@dataclass(frozen=True)
class SalvageReport:
    """What `salvage` saved, and what it could not save."""

    records: int
    lost: list[Damage]
    missing: list[Missing]
    unknown: list[str]
    source: str
    is_complete: bool


@dataclass(frozen=True)
class Stats:
    """A store in numbers. Sizes are in bytes."""

    path: str
    format_version: int
    uuid: str
    record_size: int
    slot_size: int
    slots_per_extent: int | None
    extent_size: int | None
    max_size: int
    file_size: int
    allocated_size: int
    records: int
    slots: int
    free_slots: int
    retired_slots: int
    extents: int
    index_bytes: int
    epoch: int
    durable_epoch: int
    flushes: int
    durable_writes: int
    regions: int
    closed_cleanly: bool
    attached: list[Attached]


_PARTS: dict[str, Any] = {"damage": Damage, "lost": Damage, "dropped": Damage, "missing": Missing, "attached": Attached}


def made(kind: Any, fields: dict[str, Any]) -> Any:
    """A report of the fields that the native module gives."""
    parts = {name: [_PARTS[name](*part) for part in fields[name]] for name in _PARTS if name in fields}
    return kind(**{**fields, **parts})
