"""The first program: a mapping in a file, which any number of processes use at once.

    python examples/python/quickstart.py
"""

import multiprocessing
import os
import tempfile

import recstore


def worker(store: recstore.Store, number: int) -> None:
    """A store goes to another process as its path and its options."""
    store[f"worker:{number}"] = f"process {os.getpid()}".encode()
    for _ in range(1000):
        store.modify("count", lambda old: str(int(old or b"0") + 1).encode())


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, recstore.open(f"{directory}/first.rec") as store:
        processes = [multiprocessing.Process(target=worker, args=(store, number)) for number in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert store["count"] == b"4000"  # exact
        assert sum(key.startswith("worker:") for key in store) == 4
        print(f"shown: 4 processes counted to {store['count'].decode()} in {store.path}; nothing is lost")


if __name__ == "__main__":
    main()
