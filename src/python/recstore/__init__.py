"""Records in a memory-mapped file that several processes read and write at once, and that survives their death.

    import recstore

    with recstore.open("metrics.rec") as s:
        s["user:7"] = b"logged in"
        print(s["user:7"])
"""

from __future__ import annotations

from ._codecs import Codec, json, msgpack, numpy, pickle
from ._errors import *
from ._errors import Error
from ._marks import CAUGHT_UP, DELETE
from ._list import Block, List
from ._native import Batch, Counter, Job, Queue
from ._reports import Attached, Damage, Missing, RepairReport, SalvageReport, Stats, VerifyReport
from ._shapes import Change, Changes, Event, Pin, Reservation, Ring, Snapshot, Watch
from ._store import Key, Space, Store, open, remove_shared, salvage, shared, shared_names

__version__ = "0.1.0"
