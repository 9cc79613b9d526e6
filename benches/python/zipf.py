"""Hits a second and hit rate of diskcache on the trace of `cargo bench --bench layers -- zipf`: pip install diskcache numpy.

A quarter of the trace is read: diskcache needs the time. It bounds bytes, and no number of values: `size_limit` is what its own file
takes for as many values.
"""

import tempfile
import time

import diskcache
import numpy as np

KEYS, READS, ROOM = 1_000_000, 500_000, 100_000
VALUE = bytes(100)


def main() -> None:
    weights = np.arange(1, KEYS + 1) ** -0.99
    ranks = np.random.default_rng(7).choice(KEYS, READS, p=weights / weights.sum())
    with tempfile.TemporaryDirectory() as directory:
        cache = diskcache.Cache(directory, size_limit=ROOM * 300, eviction_policy="least-recently-used")
        hits, begun, half = 0, 0.0, READS // 2
        for n, rank in enumerate(ranks.tolist()):
            if n == half:
                hits, begun = 0, time.perf_counter()
            if cache.get(rank) is None:
                cache.set(rank, VALUE)
            else:
                hits += 1
        seconds = time.perf_counter() - begun
        print(
            f"| diskcache, least-recently-used | {hits / half * 100:.1f} % | {hits / seconds / 1e3:.1f} "
            f"| {half / seconds / 1e3:.1f} |\n{len(cache)} values"
        )


if __name__ == "__main__":
    main()
