"""Many workers, some of which are killed all the time and replaced.

Fails when: an increment that was acknowledged is lost; a pair that a batch writes is seen in part; the file is damaged; a lock stays
taken. `RECSTORE_TORTURE_SECONDS=60` runs 50 workers for a minute; without it, 8 run for 3 seconds.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import time

import recstore
import workers


def test_workers_that_are_killed_lose_nothing_that_was_acknowledged(path: str) -> None:
    seconds = float(os.environ.get("RECSTORE_TORTURE_SECONDS", "3"))
    count = 50 if "RECSTORE_TORTURE_SECONDS" in os.environ else 8
    seed = int(os.environ.get("RECSTORE_SEED", random.randrange(1 << 30)))
    print("seed", seed)
    rng = random.Random(seed)
    context = mp.get_context("fork")
    killed = 0
    with recstore.open(path, record_size=2048, regions=4, lock_timeout=120) as store:
        def start(number: int) -> mp.process.BaseProcess:
            process = context.Process(target=workers.torture, args=(store, number, rng.randrange(1 << 30)))
            process.start()
            return process

        running = [start(number) for number in range(count)]
        numbers = count
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            victim = rng.randrange(len(running))
            running[victim].kill()
            running[victim].join()
            killed += 1
            running[victim] = start(numbers)
            numbers += 1
            pair = store.get_many(["left", "right"])
            snapshot = store.snapshot()
            assert snapshot.get("left") == snapshot.get("right"), pair
            snapshot.close()
        for process in running:
            process.kill()
            process.join()
        counts = store.space("acknowledged")
        acknowledged = sum(counts.counter(key).value for key in counts)
        done = store.counter("n").value
        assert acknowledged <= done <= acknowledged + numbers, f"{acknowledged} acknowledged, {done} there"
        assert acknowledged > 0 and killed > 0
        for key, value in store.space("blobs").items():
            assert value == bytes([value[0]]) * len(value), f"{key} is torn"
        report = store.verify()
        assert report.is_clean, report.damage
        print(f"{killed} of {numbers} workers killed, {done} increments")
