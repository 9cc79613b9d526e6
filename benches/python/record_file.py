"""The peer of `examples/programs/src/bin/record_file.rs` in Python: records in a mapped file, each at a place of its own,
with its id and its length before the text. No lock, no checksum.

    python3 benches/python/record_file.py [--records N]
"""

import argparse
import mmap
import struct
import tempfile
import time

HEAD = struct.Struct("<II")
PLACE = 64


def write(memory, place, number, text):
    data = text.encode()
    memory[place : place + HEAD.size + len(data)] = HEAD.pack(number, len(data)) + data


def read(memory, place):
    number, length = HEAD.unpack(memory[place : place + HEAD.size])
    return number, memory[place + HEAD.size : place + HEAD.size + length].decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    records = parser.parse_args().records
    with tempfile.TemporaryFile() as file:
        file.truncate(records * PLACE)
        with mmap.mmap(file.fileno(), 0) as memory:

            def write_all():
                for n in range(records):
                    write(memory, n * PLACE, n, f"run 1, process 0, record {n}")

            def read_all():
                for n in range(records):
                    read(memory, n * PLACE)

            print(f"{records} records")
            for title, work in [("write", write_all), ("write again", write_all), ("read", read_all)]:
                begin = time.perf_counter_ns()
                work()
                print(f"{title:12} {(time.perf_counter_ns() - begin) / records:.0f} ns each")

            # What a process leaves that is killed when it has written half of the bytes of a longer text.
            write(memory, 0, 7, "the old text")
            torn = HEAD.pack(7, 23) + b"the new, longer text..."
            memory[: len(torn) // 2] = torn[: len(torn) // 2]
            print(f"a torn record is read as {read(memory, 0)[1]!r}")


if __name__ == "__main__":
    main()
