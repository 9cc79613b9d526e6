"""What the tests share. Each test has a store of its own, in a directory of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import recstore


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.rec")


@pytest.fixture
def store(path: str) -> Iterator[recstore.Store]:
    with recstore.open(path, record_size=4096) as opened:
        yield opened


@pytest.fixture
def name() -> Iterator[str]:
    """A name for a store in memory. Nothing may be left of it."""
    name = f"pytest-{os.getpid()}"
    yield name
    assert not os.path.exists(f"/dev/shm/recstore.{name}"), "it was left in /dev/shm"
