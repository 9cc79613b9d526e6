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


def count_and_append(store: recstore.Store, number: int, times: int) -> None:
    import numpy as np

    hits, ring, items = store.counter("hits"), store.ring("values", np.int64, 1000), recstore.List(store, "items")
    for n in range(number * times, (number + 1) * times):
        hits.add(1)
        ring.push(n)
        items.append(f"item {n}")


def claim_and_die(path: str) -> None:
    recstore.open(path, "w").queue("mails").claim(5)
    os.kill(os.getpid(), signal.SIGKILL)


def die_in(path: str, where: str) -> None:
    """Dies by `kill -9` with live views, inside of a reservation, or before the end of a batch."""
    import numpy as np

    store = recstore.open(path, "w")
    pin = store.pin()
    kept = [pin["k"], pin.array("k", np.uint8), store.snapshot().view("k")]
    if where == "reserve":
        with store.reserve("never", (1000,), np.uint8) as a:
            a[:500] = 1
            os.kill(os.getpid(), signal.SIGKILL)
    if where == "batch":
        with store.batch() as batch:
            batch["never"] = b"made"
            batch["k"] = b"new"
            os.kill(os.getpid(), signal.SIGKILL)
    assert kept
    os.kill(os.getpid(), signal.SIGKILL)


def torture(store: recstore.Store, number: int, seed: int) -> None:
    """Works until it is killed. Each increment is acknowledged once it has returned."""
    import random

    import numpy as np

    rng = random.Random(seed)
    total, mine = store.counter("n"), store.space("acknowledged").counter(str(number))
    blobs = store.space("blobs")
    while True:
        total.add(1)
        mine.add(1)
        key = str(rng.randrange(50))
        match rng.randrange(5):
            case 0:
                blobs[key] = bytes([rng.randrange(256)]) * rng.randrange(1, 1500)
            case 1:
                with store.batch() as batch:
                    batch["left"] = batch["right"] = str(rng.random()).encode()
            case 2:
                with blobs.reserve(key, rng.randrange(1, 1500)) as room:
                    room[:] = bytes([rng.randrange(256)]) * len(room)
            case 3:
                with blobs.pin() as pin:
                    view = pin.get(key)
                    assert view is None or np.frombuffer(view, np.uint8).std() == 0
            case 4:
                blobs.pop(key, None)
