"""Records in a memory-mapped file that several processes read and write at once, and that survives their death.

    import recstore

    with recstore.open("metrics.rec") as s:
        s["user:7"] = b"logged in"
        print(s["user:7"])
"""

from __future__ import annotations

from ._codecs import Codec, json, msgpack, numpy, pickle
from ._errors import *  # noqa: F403
from ._marks import CAUGHT_UP, DELETE
from ._store import Key, Space, Store, open, shared

__version__ = "0.1.0"
