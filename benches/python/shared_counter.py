"""The peer of `examples/programs/src/bin/shared_counter.rs` and `examples/programs/src/bin/race.rs` in Python: one number in shared memory,
and several processes that add 1 to it, with a lock and without.

    python3 benches/python/shared_counter.py [--processes N] [--increments N] [--kill]

With --kill, one more process is killed while it holds the lock, and another one tries to take it.
"""

import argparse
import multiprocessing
import os
import signal
import time
from contextlib import nullcontext
from multiprocessing.shared_memory import SharedMemory


def add(name, lock, gate, increments):
    block = SharedMemory(name=name)
    number = block.buf.cast("q")
    gate.wait()
    for _ in range(increments):
        with lock or nullcontext():
            number[0] += 1
    gate.wait()
    number.release()
    block.close()


def hold(lock, holding):
    with lock:
        holding.set()
        signal.pause()


def measure(context, lock, processes, increments):
    """The number in the end, and nanoseconds for an increment."""
    block = SharedMemory(create=True, size=8)
    try:
        gate = context.Barrier(processes + 1)
        arguments = (block.name, lock, gate, increments)
        workers = [context.Process(target=add, args=arguments) for _ in range(processes)]
        for worker in workers:
            worker.start()
        gate.wait()
        begin = time.perf_counter_ns()
        gate.wait()
        took = time.perf_counter_ns() - begin
        for worker in workers:
            worker.join()
        return int.from_bytes(block.buf[:8], "little"), took / (processes * increments)
    finally:
        block.close()
        block.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--increments", type=int, default=100_000, help="by each process")
    parser.add_argument("--kill", action="store_true", help="kill a holder of the lock")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    total = options.processes * options.increments
    print(f"{options.processes} processes, {options.increments} increments each")
    for title, lock in [("with a lock", context.Lock()), ("without", None)]:
        found, each = measure(context, lock, options.processes, options.increments)
        print(f"{title:12} {found} of {total}, {total - found} lost; {each:.0f} ns an increment")
    if options.kill:
        lock, holding = context.Lock(), context.Event()
        holder = context.Process(target=hold, args=(lock, holding))
        holder.start()
        holding.wait()
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
        taken = not lock.acquire(timeout=1)
        print(f"a killed holder's lock is {'taken still' if taken else 'free'}, a second later")


if __name__ == "__main__":
    main()
