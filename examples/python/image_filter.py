"""Processes filter the bands of an image: each reads the image where it lies, and writes its band where it will lie.

The original takes a lock for every pixel. A process that is killed leaves half a band; here the band is there as a whole or not at
all, and another process does it.

    python examples/python/image_filter.py
"""

import multiprocessing
import os

import numpy as np
import recstore

SIZE, BANDS, PROCESSES = 720, 12, 4
ROWS = SIZE // BANDS


def blurred(image: np.ndarray, first: int, last: int) -> np.ndarray:
    """A box blur of 3 x 3 of the rows from first to last."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")[first : last + 2].astype(np.uint16)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return ((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) // 9).astype(np.uint8)


def work(store: recstore.Store, number: int) -> None:
    bands = store.queue("bands")
    while (job := bands.claim(timeout=0.5)) is not None:
        with job, store.pin() as pin:
            first = int(job.data) * ROWS
            with store.reserve(f"band {int(job.data)}", (ROWS, SIZE, 3), np.uint8) as band:
                band[:] = blurred(pin.array("image"), first, first + ROWS)
                if number == 0:
                    os.kill(os.getpid(), 9)  # in the middle of its band


def main() -> None:
    image = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    with recstore.shared(f"image-{os.getpid()}", record_size=image.nbytes + 256, regions=1, slots_per_extent=16) as store:
        store.space("main", codec=recstore.numpy)["image"] = image
        bands = store.queue("bands")
        for band in range(BANDS):
            bands.push(str(band).encode())
        processes = [multiprocessing.Process(target=work, args=(store, n)) for n in range(PROCESSES)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        work(store, -1)  # The others may have left before the one was killed.
        with store.pin() as pin:
            result = np.concatenate([pin.array(f"band {band}") for band in range(BANDS)])
        assert np.array_equal(result, blurred(image, 0, SIZE))
        killed = sum(process.exitcode == -9 for process in processes)
        print(f"shown: {PROCESSES} processes, {killed} of them killed in a band, filtered {SIZE} x {SIZE} pixels; "
              f"every byte is right")


if __name__ == "__main__":
    main()
