"""Processes multiply the blocks of two matrices, which they read where they lie; one of them is killed.

The original copies nothing either, but if a process dies, its rows are missing, and the shared memory stays.

    python examples/python/matrix_product.py
"""

import multiprocessing
import os

import numpy as np
import recstore

SIZE, BLOCK, PROCESSES = 480, 60, 4


def multiply(store: recstore.Store, number: int) -> None:
    blocks = store.queue("blocks")
    with store.pin() as pin:
        a, b = pin.array("a"), pin.array("b")
        while (job := blocks.claim(timeout=0.5)) is not None:
            with job:
                first = int(job.data)
                if number == 0:
                    os.kill(os.getpid(), 9)  # Another process gets its block.
                with store.reserve(f"c {first}", (BLOCK, SIZE), np.float64) as c:
                    np.matmul(a[first : first + BLOCK], b, out=c)


def main() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((SIZE, SIZE)), rng.random((SIZE, SIZE))
    with recstore.shared(f"matrix-{os.getpid()}", record_size=a.nbytes + 256, regions=1, slots_per_extent=16) as store:
        arrays = store.space("main", codec=recstore.numpy)
        arrays["a"], arrays["b"] = a, b
        for first in range(0, SIZE, BLOCK):
            store.queue("blocks").push(str(first).encode())
        processes = [multiprocessing.Process(target=multiply, args=(store, n)) for n in range(PROCESSES)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        multiply(store, -1)  # The others may have left before the one was killed.
        assert len(store.queue("blocks")) == 0
        with store.pin() as pin:
            c = np.concatenate([pin.array(f"c {first}") for first in range(0, SIZE, BLOCK)])
        assert np.allclose(c, a @ b)
        killed = sum(process.exitcode == -9 for process in processes)
        print(f"shown: {PROCESSES} processes, {killed} of them killed, multiplied {SIZE} x {SIZE}; every block is right")


if __name__ == "__main__":
    main()
