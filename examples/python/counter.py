"""One counter, exact from any number of processes, alive after a `kill -9`.

The original keeps 8 bytes in shared memory and takes a lock for each increment. A process that is killed with the lock leaves it taken.

    python examples/python/counter.py
"""

import multiprocessing
import os

import recstore

PROCESSES, TIMES = 4, 5_000


def work(store: recstore.Store, number: int) -> None:
    hits = store.counter("hits")
    for _ in range(TIMES):
        hits.add(1)
    if number == 0:
        while True:  # This one goes on until it is killed, at any instruction.
            store.counter("of the victim").add(1)


def main() -> None:
    name = f"counter-{os.getpid()}"
    with recstore.shared(name) as store:
        processes = [multiprocessing.Process(target=work, args=(store, n)) for n in range(PROCESSES)]
        for process in processes:
            process.start()
        for process in processes[1:]:
            process.join()
        for event in store.watch("of the victim"):  # It has done its share.
            if event.value and store.counter("of the victim").value > 100:
                break
        processes[0].kill()
        processes[0].join()
        assert store.counter("hits").value == PROCESSES * TIMES
        store.counter("of the victim").add(1)  # No lock was left taken.
        print(f"shown: {PROCESSES} processes, one of them killed; {store.counter('hits').value} increments, none lost")
    assert not os.path.exists(f"/dev/shm/recstore.{name}")  # Nothing is left.


if __name__ == "__main__":
    main()
