"""recstore from Python beside py-lmdb, diskcache, shelve, a Manager, and SharedMemory under a Lock, in one run.

    pip install . lmdb diskcache numpy
    python benches/python/beside.py [--records N] [--rounds N] [--without NAME,..]

Every number is the median of the rounds. In each round all peers take their turn, so that a slow moment hits all of them. A peer
that is not installed is left out, and said to be. Redis is not among them: it is a server.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing as mp
import os
import random
import shelve
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import recstore

VALUE = bytes(range(64))


def nanoseconds(work: Callable[[], None], count: int) -> float:
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / count


class Peer:
    """A get and a put of 64 bytes, by an id below the number of records."""

    def __init__(self, directory: str, records: int) -> None:
        raise NotImplementedError

    def get(self, ids: list[int]) -> None:
        raise NotImplementedError

    def put(self, ids: list[int]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Mapping(Peer):
    """Anything that is used as a mapping."""

    map: Any

    def get(self, ids: list[int]) -> None:
        found = self.map
        for id in ids:
            found[id]

    def put(self, ids: list[int]) -> None:
        found = self.map
        for id in ids:
            found[id] = VALUE

    def fill(self, records: int) -> None:
        for id in range(records):
            self.map[id] = VALUE


class Recstore(Mapping):
    def __init__(self, directory: str, records: int) -> None:
        self.map = recstore.open(f"{directory}/a.rec", record_size=64)
        self.fill(records)

    def close(self) -> None:
        self.map.close()


class RecstoreKeys(Recstore):
    """By keys of text, which are longer than the integers of the others."""

    def __init__(self, directory: str, records: int) -> None:
        self.map = recstore.open(f"{directory}/b.rec", record_size=128)
        self.keys = [f"key:{id:09}" for id in range(records)]
        self.map.put_many((key, VALUE) for key in self.keys)

    def get(self, ids: list[int]) -> None:
        found, keys = self.map, self.keys
        for id in ids:
            found[keys[id]]

    def put(self, ids: list[int]) -> None:
        found, keys = self.map, self.keys
        for id in ids:
            found[keys[id]] = VALUE


class Lmdb(Peer):
    """Its own transaction for each call, as every other peer. sync off and writemap: its fastest."""

    def __init__(self, directory: str, records: int) -> None:
        import lmdb

        self.env = lmdb.open(f"{directory}/lmdb", map_size=1 << 30, sync=False, writemap=True)
        with self.env.begin(write=True) as transaction:
            for id in range(records):
                transaction.put(struct.pack(">Q", id), VALUE)

    def get(self, ids: list[int]) -> None:
        begin, pack = self.env.begin, struct.Struct(">Q").pack
        for id in ids:
            with begin() as transaction:
                transaction.get(pack(id))

    def put(self, ids: list[int]) -> None:
        begin, pack = self.env.begin, struct.Struct(">Q").pack
        for id in ids:
            with begin(write=True) as transaction:
                transaction.put(pack(id), VALUE)

    def close(self) -> None:
        self.env.close()


class Diskcache(Mapping):
    def __init__(self, directory: str, records: int) -> None:
        import diskcache

        self.map = diskcache.Cache(f"{directory}/cache")
        with self.map.transact():
            self.fill(records)

    def close(self) -> None:
        self.map.close()


class Shelve(Mapping):
    def __init__(self, directory: str, records: int) -> None:
        self.map = shelve.open(f"{directory}/shelf")
        self.keys = [str(id) for id in range(records)]
        for key in self.keys:
            self.map[key] = VALUE

    def get(self, ids: list[int]) -> None:
        for id in ids:
            self.map[self.keys[id]]

    def put(self, ids: list[int]) -> None:
        for id in ids:
            self.map[self.keys[id]] = VALUE

    def close(self) -> None:
        self.map.close()


class Managed(Mapping):
    def __init__(self, directory: str, records: int) -> None:
        self.manager = mp.Manager()
        self.map = self.manager.dict({id: VALUE for id in range(records)})

    def close(self) -> None:
        self.manager.shutdown()


class LockedMemory(Peer):
    """SharedMemory with a Lock and struct: records at places that all have to know."""

    def __init__(self, directory: str, records: int) -> None:
        self.memory = SharedMemory(create=True, size=64 * records)
        self.lock, self.struct = mp.Lock(), struct.Struct("64s")

    def get(self, ids: list[int]) -> None:
        lock, unpack, buffer = self.lock, self.struct.unpack_from, self.memory.buf
        for id in ids:
            with lock:
                unpack(buffer, id * 64)

    def put(self, ids: list[int]) -> None:
        lock, pack, buffer = self.lock, self.struct.pack_into, self.memory.buf
        for id in ids:
            with lock:
                pack(buffer, id * 64, VALUE)

    def close(self) -> None:
        self.memory.close()
        self.memory.unlink()


PEERS: dict[str, tuple[type[Peer], str | None, int]] = {
    # name: class, the package that it needs, and how many times fewer calls it makes, being slow
    "recstore": (Recstore, None, 1),
    "recstore, keys": (RecstoreKeys, None, 1),
    "py-lmdb": (Lmdb, "lmdb", 1),
    "SharedMemory, Lock": (LockedMemory, None, 1),
    "diskcache": (Diskcache, "diskcache", 50),
    "shelve": (Shelve, None, 20),
    "Manager().dict()": (Managed, None, 50),
}


def one_record(records: int, rounds: int, without: set[str]) -> None:
    calls = 20_000
    with tempfile.TemporaryDirectory() as directory:
        peers = {}
        for name, (kind, package, slower) in PEERS.items():
            if name in without:
                continue
            if package and importlib.util.find_spec(package) is None:
                print(f"left out: {name} (pip install {package})", file=sys.stderr)
                continue
            peers[name] = (kind(directory, records), calls // slower)
        gets: dict[str, list[float]] = {name: [] for name in peers}
        puts: dict[str, list[float]] = {name: [] for name in peers}
        rng = random.Random(1)
        for _ in range(rounds):
            for name, (peer, count) in peers.items():
                ids = [rng.randrange(records) for _ in range(count)]
                gets[name].append(nanoseconds(lambda: peer.get(ids), count))
                puts[name].append(nanoseconds(lambda: peer.put(ids), count))
        for peer, _ in peers.values():
            peer.close()
    get, put = ({name: statistics.median(found) for name, found in of.items()} for of in (gets, puts))
    print(f"\n64 bytes among {records:,} records, ns a call, and times recstore's\n")
    print(f"| {'':20} | {'get':>9} | {'x':>6} | {'put':>9} | {'x':>6} |\n| --- | ---: | ---: | ---: | ---: |")
    for name in peers:
        print(
            f"| {name:20} | {get[name]:9,.0f} | {get[name] / get['recstore']:6.2f} "
            f"| {put[name]:9,.0f} | {put[name] / put['recstore']:6.2f} |"
        )


def add_to_store(name: str, times: int, gate: Any, spent: Any) -> None:
    with recstore.shared(name) as store:
        add = store.counter("n").add
        gate.wait()
        start = time.process_time()
        for _ in range(times):
            add(1)
        spent.put(time.process_time() - start)
        gate.wait()


def add_to_memory(name: str, times: int, gate: Any, spent: Any, lock: Any) -> None:
    memory = SharedMemory(name)
    number = memory.buf.cast("q")
    gate.wait()
    start = time.process_time()
    for _ in range(times):
        with lock:
            number[0] += 1
    spent.put(time.process_time() - start)
    gate.wait()
    number.release()
    memory.close()


def together(processes: int, work: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Seconds from the moment when all of them begin, and seconds of processors that their work took, starts and ends left out."""
    gate: Any = mp.Barrier(processes + 1)
    spent: Any = mp.SimpleQueue()
    workers = [mp.Process(target=work, args=(*arguments[:2], gate, spent, *arguments[2:])) for _ in range(processes)]
    for worker in workers:
        worker.start()
    gate.wait()
    start = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - start
    for worker in workers:
        worker.join()
    return seconds, sum(spent.get() for _ in workers)


def counters(rounds: int) -> None:
    """Time depends on the processors that are free; the time of processors tells what an increment costs, waits for the lock included."""
    times = 100_000
    print("\nan increment, ns that went by and ns of processors, and times recstore's\n")
    print(f"| {'processes':>9} | {'counter':>8} | {'CPU':>8} | {'Lock':>8} | {'CPU':>8} | {'x':>6} | {'x CPU':>6} |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for processes in (1, 4):
        increments = processes * times
        ours: list[tuple[float, float]] = []
        theirs: list[tuple[float, float]] = []
        for _ in range(rounds):
            name = f"bench-{os.getpid()}"
            with recstore.shared(name) as store:
                ours.append(together(processes, add_to_store, name, times))
                assert store.counter("n").value == increments
            memory = SharedMemory(create=True, size=8)
            theirs.append(together(processes, add_to_memory, memory.name, times, mp.Lock()))
            assert int.from_bytes(memory.buf[:8], sys.byteorder) == increments
            memory.close()
            memory.unlink()
        each = [statistics.median(found) / increments * 1e9 for of in (ours, theirs) for found in zip(*of)]
        print(
            f"| {processes:9} | {each[0]:8,.0f} | {each[1]:8,.0f} | {each[2]:8,.0f} | {each[3]:8,.0f} "
            f"| {each[2] / each[0]:6.2f} | {each[3] / each[1]:6.2f} |"
        )


def arrays(rounds: int) -> None:
    import numpy as np

    print("\nan array from a pin, ns, by size (verify_reads off: a checksum reads it all)\n")
    for size in (6_000, 600_000, 6_000_000):
        with recstore.shared(f"array-{size}-{os.getpid()}", record_size=size + 256, regions=1, slots_per_extent=4, verify_reads=False) as store:
            with store.reserve("a", (size,), np.uint8) as array:
                array[:] = 1

            def read() -> None:
                for _ in range(500):
                    with store.pin() as pin:
                        pin.array("a")

            found = statistics.median(nanoseconds(read, 500) for _ in range(rounds))
        print(f"{size:9,} bytes {found:9,.0f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--records", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--without", default="", help="names of peers, with commas")
    given = arguments.parse_args()
    one_record(given.records, given.rounds, set(filter(None, given.without.split(","))))
    counters(given.rounds)
    arrays(given.rounds)


if __name__ == "__main__":
    main()
