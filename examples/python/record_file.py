"""A file of records that parallel processes write, one of which is killed.

The original writes at offsets of an mmap that each process has to know. A crash leaves a record half written, and nothing says so.

    python examples/python/record_file.py
"""

import multiprocessing
import os
import tempfile

import recstore

RECORDS = 500


def write(store: recstore.Store, number: int) -> None:
    for n in range(RECORDS):
        store[number * RECORDS + n] = f"Process {number} - Record {n} 🎯".encode()
    if number == 0:
        while True:
            store[0] = b"Process 0 - Record 0 \xf0\x9f\x8e\xaf"  # until it is killed


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "records.rec")
        with recstore.open(path) as store:
            processes = [multiprocessing.Process(target=write, args=(store, n)) for n in range(4)]
            for process in processes:
                process.start()
            for process in processes[1:]:
                process.join()
            store.watch(0).wait(timeout=60)
            while RECORDS - 1 not in store:
                store.watch(RECORDS - 1).wait(timeout=1)
            processes[0].kill()
            processes[0].join()
        with recstore.open(path, "w") as store:  # by any process, later
            assert len(store) == 4 * RECORDS and store.verify().is_clean
            assert all(store[n].decode() == f"Process {n // RECORDS} - Record {n % RECORDS} 🎯" for n in store)
            print(f"shown: 4 processes, one of them killed, wrote {len(store)} records; every one is whole")


if __name__ == "__main__":
    main()
