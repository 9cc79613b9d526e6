"""A producer writes arrays where they will lie, and a consumer reads them there: no copy, no lock, no event.

The original shares one array, and flags in other shared memory that both poll.

    python examples/python/producer_consumer.py
"""

import multiprocessing
import os

import numpy as np
import recstore

FRAMES, SHAPE = 20, (270, 480, 3)


def produce(store: recstore.Store) -> None:
    frames = store.queue("frames")
    for n in range(FRAMES):
        with store.reserve(n, SHAPE, np.uint8) as frame:  # written in place
            frame[:] = n
        frames.push(str(n).encode())  # and given on


def consume(store: recstore.Store, number: int) -> None:
    frames, sums = store.queue("frames"), store.space("sums")
    while (job := frames.claim(timeout=5)) is not None:
        if number == 0 and job.number == 3:
            os.kill(os.getpid(), 9)  # The other consumer gets the frame.
        with store.pin() as pin:
            total = int(pin.array(int(job.data)).sum(dtype=np.int64))  # read in place
        with store.batch() as batch:  # The result is there exactly once, and the frame is gone then.
            batch.put(str(job.number), str(total).encode(), space=sums)
            batch.delete(int(job.data))
            batch.finish(job)
        if len(sums) == FRAMES:
            return


def main() -> None:
    name = f"frames-{os.getpid()}"
    with recstore.shared(name, record_size=1 << 19, regions=4) as store:
        targets = [(produce, (store,)), (consume, (store, 0)), (consume, (store, 1))]
        processes = [multiprocessing.Process(target=target, args=args) for target, args in targets]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        sums = store.space("sums")
        assert [int(sums[str(n)]) for n in range(FRAMES)] == [n * np.prod(SHAPE) for n in range(FRAMES)]
        print(f"shown: {FRAMES} frames of {np.prod(SHAPE)} bytes went through, each once; "
              f"{sum(process.exitcode == -9 for process in processes)} consumer was killed")
    assert not os.path.exists(f"/dev/shm/recstore.{name}")


if __name__ == "__main__":
    main()
