"""Views outlive what lends them. `test_views.py` runs this under valgrind, which sees every use of memory that is gone."""

import gc
import sys

import recstore

# valgrind has less address space than a store reserves by default.
store = recstore.open(sys.argv[1], record_size=5000, max_size=1 << 26)
store.update({f"k{n}": bytes([n]) * 4000 for n in range(20)})
pin, snapshot = store.pin(), store.snapshot()
views = [pin[f"k{n}"] for n in range(20)]
old = [snapshot.view("k1"), snapshot.view("k2")]
items = snapshot.items()
next(items)
reservation = store.reserve("room", 4000)
room = reservation.view
room[:] = b"x" * 4000
store.update({f"k{n}": b"changed" for n in range(20)})
store.close()
del pin, snapshot, store
gc.collect()
assert all(bytes(view) == bytes([n]) * 4000 for n, view in enumerate(views))
assert bytes(old[0]) == b"\1" * 4000 and next(items)
del views[5:]
gc.collect()
assert bytes(views[4]) == b"\4" * 4000
del reservation
room[:] = b"y" * 4000  # The room is there for as long as its view.
del room, old, items, views
gc.collect()
with recstore.open(sys.argv[1]) as store:
    assert store["k3"] == b"changed" and "room" not in store and store.verify().is_clean
print("shown: every view outlived what lent it")
