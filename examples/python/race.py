"""Increments that bare shared memory loses, and that a store does not.

    python examples/python/race.py
"""

import multiprocessing
import os
from multiprocessing import shared_memory

import numpy as np
import recstore

PROCESSES, TIMES = 4, 5_000


def bare(name: str) -> None:
    memory = shared_memory.SharedMemory(name)
    count = np.ndarray((1,), np.int64, memory.buf)
    for _ in range(TIMES):
        count[0] += 1  # read, add, write: another process may come in between
    del count
    memory.close()


def safe(store: recstore.Store) -> None:
    for _ in range(TIMES):
        store.counter("counter").add(1)
        store.modify("modify", lambda old: str(int(old or b"0") + 1).encode())
        while True:
            value, version = store.get_versioned("swap") or (b"0", None)
            if store.compare_and_swap("swap", version, str(int(value) + 1).encode()):
                break


def run(target, argument) -> None:  # type: ignore[no-untyped-def]
    processes = [multiprocessing.Process(target=target, args=(argument,)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def main() -> None:
    memory = shared_memory.SharedMemory(create=True, size=8)
    try:
        run(bare, memory.name)
        found = int.from_bytes(memory.buf[:8], "little")
    finally:
        memory.close()
        memory.unlink()
    print(f"bare memory        {found} of {PROCESSES * TIMES}")
    with recstore.shared(f"race-{os.getpid()}") as store:
        run(safe, store)
        results = {"counter": store.counter("counter").value, "modify": int(store["modify"]), "swap": int(store["swap"])}
    for name, result in results.items():
        print(f"{name:18} {result} of {PROCESSES * TIMES}")
        assert result == PROCESSES * TIMES
    print("shown: counter, modify and compare_and_swap lose nothing")


if __name__ == "__main__":
    main()
