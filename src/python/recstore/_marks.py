"""Values that say something in the place of a value."""

from __future__ import annotations

import enum


class Mark(enum.Enum):
    """The type of `DELETE` and `CAUGHT_UP`."""

    DELETE = "DELETE"
    CAUGHT_UP = "CAUGHT_UP"

    def __repr__(self) -> str:
        return f"recstore.{self.value}"


DELETE = Mark.DELETE
"""The function of `modify` returns it to delete the key."""

CAUGHT_UP = Mark.CAUGHT_UP
"""The kind of the change that comes once, when everything that was there has been told: see `Store.changes`."""
