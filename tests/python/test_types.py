"""The types that the package declares are those that it has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import recstore

ROOT = Path(__file__).parents[2]


def run(*command: str) -> None:
    package = Path(recstore.__file__).parents[1]
    # mypy looks into site-packages by itself, and refuses to be told of it.
    environment = dict(os.environ) if package.name == "site-packages" else dict(os.environ, MYPYPATH=str(package))
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_is_typed_strictly() -> None:
    run("mypy", "--strict", "-p", "recstore")


def test_the_stubs_are_what_is_there() -> None:
    allowed = str(Path(__file__).with_name("stubtest.txt"))
    run("mypy.stubtest", "recstore", "--ignore-disjoint-bases", "--allowlist", allowed)
