"""What the processes of the tests do. They are started by spawn and forkserver too, so this is a module that can be imported."""

from __future__ import annotations

import os
import signal
from typing import Any

import recstore


def add(store: recstore.Store, key: str, times: int) -> None:
    for _ in range(times):
        store.modify(key, lambda old: str(int(old or b"0") + 1).encode())


def echo(store: recstore.Store, key: str) -> None:
    store[key + ":pid"] = str(os.getpid()).encode()
    store[key + ":back"] = store[key]


def echo_space(space: recstore.Space, key: str) -> None:
    space[key + ":back"] = space[key]


def die_in_modify(path: str) -> None:
    """Dies by `kill -9` while it holds the lock of a region."""
    store = recstore.open(path, "w")

    def die(old: Any) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it is dead")

    store.modify("k", die)


def put_until_killed(path: str, started: Any) -> None:
    store = recstore.open(path, "w")
    n = 0
    while True:
        store["n"] = str(n).encode()
        store[f"acknowledged:{n % 100}"] = str(n).encode()
        n += 1
        if n == 100:
            started.set()
