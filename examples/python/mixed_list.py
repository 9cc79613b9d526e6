"""A list of mixed values that several processes change, and append to.

The original is a ShareableList: it can't grow, text that becomes longer is refused, and trailing zeros of text and bytes are lost.

    python examples/python/mixed_list.py
"""

import multiprocessing
import os

import recstore


def modify(store: recstore.Store, number: int) -> None:
    items = recstore.List(store, "mixed")
    items.update(0, lambda old: old + 1)  # one step
    items[2] = "Modified, and longer than it was! ✨"
    items.append(f"of process {number}")


def main() -> None:
    with recstore.shared(f"list-{os.getpid()}") as store:
        items = recstore.List(store, "mixed", [42, 3.14, "Hello! 👋", b"bytes\0\0", None, True])
        processes = [multiprocessing.Process(target=modify, args=(store, n)) for n in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        print(list(items))
        assert list(items)[:6] == [46, 3.14, "Modified, and longer than it was! ✨", b"bytes\0\0", None, True]
        assert sorted(list(items)[6:]) == [f"of process {n}" for n in range(4)]
        print(f"shown: 4 processes changed one list; it has {len(items)} items, and none is lost")


if __name__ == "__main__":
    main()
