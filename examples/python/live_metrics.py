"""Collectors append to rings, and an analyzer gets every value as it comes.

The original writes to a circular buffer with an index in shared memory, guards neither, and sleeps between looks.

    python examples/python/live_metrics.py
"""

import multiprocessing
import os

import numpy as np
import recstore

METRICS, VALUES = 3, 2_000


def collect(store: recstore.Store, metric: int) -> None:
    ring = store.ring(f"metric {metric}", np.float64, 4096)
    for value in np.random.default_rng(metric).normal(100, 15, VALUES):
        ring.push(value)


def analyze(store: recstore.Store) -> None:
    for metric in range(METRICS):
        ring = store.ring(f"metric {metric}", np.float64, 4096)
        total = 0.0
        for number, value in ring.tail(0):  # waits for more
            total += value
            if number == VALUES - 1:
                break
        store[f"mean {metric}"] = np.float64(total / VALUES).tobytes()


def main() -> None:
    with recstore.shared(f"metrics-{os.getpid()}") as store:
        processes = [multiprocessing.Process(target=collect, args=(store, n)) for n in range(METRICS)]
        processes.append(multiprocessing.Process(target=analyze, args=(store,)))
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        for metric in range(METRICS):
            mean = np.frombuffer(store[f"mean {metric}"])[0]
            assert np.isclose(mean, np.random.default_rng(metric).normal(100, 15, VALUES).mean())
            print(f"metric {metric}: mean {mean:.2f}, last {store.ring(f'metric {metric}', np.float64, 4096)[-1]:.2f}")
        print(f"shown: {METRICS} collectors, {METRICS * VALUES} values, none missed, none twice")


if __name__ == "__main__":
    main()
