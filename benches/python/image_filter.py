"""The peer of `examples/programs/src/bin/image_filter.rs` in Python: an image in shared memory, made brighter by several
processes, a band of rows each, with a lock that is taken for every pixel.

    python3 benches/python/image_filter.py [--processes N] [--quick]

It does the first of the example's three filters, without NumPy, which makes a single pixel slower.
"""

import argparse
import multiprocessing
import time
from multiprocessing.shared_memory import SharedMemory


def brighten(name, lock, gate, begin, end):
    block = SharedMemory(name=name)
    pixels = block.buf
    gate.wait()
    for at in range(begin, end, 3):
        with lock:
            for channel in range(at, at + 3):
                pixels[channel] = min(pixels[channel] * 6 // 5, 255)
    gate.wait()
    del pixels
    block.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="a tenth of the width and of the height")
    options = parser.parse_args()
    width, height = (192, 108) if options.quick else (1920, 1080)
    image = bytes(n * 7 % 256 for n in range(3 * width * height))
    context = multiprocessing.get_context("spawn")
    block = SharedMemory(create=True, size=len(image))
    try:
        block.buf[: len(image)] = image
        lock, gate = context.Lock(), context.Barrier(options.processes + 1)
        workers = []
        for n in range(options.processes):
            rows = [height * part // options.processes for part in (n, n + 1)]
            band = [3 * width * row for row in rows]
            workers.append(context.Process(target=brighten, args=(block.name, lock, gate, *band)))
            workers[-1].start()
        gate.wait()
        begin = time.perf_counter()
        gate.wait()
        took = time.perf_counter() - begin
        for worker in workers:
            worker.join()
        expected = bytes(min(value * 6 // 5, 255) for value in image)
        holds = bytes(block.buf[: len(image)]) == expected
        print(f"{options.processes} processes, {width} x {height}, a lock for each pixel: {1000 * took:.0f} ms")
        return 0 if holds else 1
    finally:
        block.close()
        block.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
