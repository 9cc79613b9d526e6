"""A store is a mapping, like a dict.

Fails when: any call gives something else than a dict of the same content; a key of one type or space is found by another; a value
is not the bytes that were written.
"""

from __future__ import annotations

import os
import random
from collections.abc import MutableMapping
from typing import Any

import pytest
import recstore


def test_a_store_does_what_a_dict_does(path: str) -> None:
    seed = int(os.environ.get("RECSTORE_SEED", random.randrange(1 << 30)))
    print("seed", seed)
    rng = random.Random(seed)
    keys: list[Any] = ["a", "b", "ä€🎯", "", 0, 1, 2**64 - 1, "x" * 100]
    for target in ["store", "space"]:
        opened = recstore.open(path)
        m: Any = opened if target == "store" else opened.space("other")
        keys = [key for key in keys if target == "store" or isinstance(key, str)]
        model: dict[Any, bytes] = {}
        for step in range(1500):
            key, value = rng.choice(keys), rng.randbytes(rng.randrange(60))
            match rng.randrange(12):
                case 0 | 1 | 2:
                    m[key] = value
                    model[key] = value
                case 3:
                    assert m.pop(key, b"none") == model.pop(key, b"none")
                case 4:
                    assert m.setdefault(key, value) == model.setdefault(key, value)
                case 5 if key in model:
                    del m[key], model[key]
                case 5:
                    with pytest.raises(KeyError):
                        del m[key]
                case 6:
                    m.update({key: value})
                    model.update({key: value})
                case 7:
                    got = m.modify(key, lambda old: None if old is None else old + b"!")
                    if key in model:
                        model[key] += b"!"
                    assert got == model.get(key)
                case 8:
                    assert m.modify(key, lambda old: recstore.DELETE) is None
                    model.pop(key, None)
                case 9:
                    version = m.version(key)
                    assert (version is not None) == (key in model)
                    assert m.compare_and_swap(key, version, value) is not None
                    assert m.compare_and_swap(key, version, b"stale") is None
                    model[key] = value
                case 10 if step % 200 == 0:
                    opened.close()
                    opened = recstore.open(path, "w")
                    m = opened if target == "store" else opened.space("other")
                case _:
                    assert m.get(key) == model.get(key)
            if step % 100 == 0:
                assert dict(m.items()) == model
                assert sorted(map(repr, m)) == sorted(map(repr, model))
                assert sorted(m.values()) == sorted(model.values())
                assert len(m) == len(model) and bool(m) == bool(model)
                assert m.get_many(keys) == [model.get(key) for key in keys]
                assert all(key in m.keys() for key in model)
        m.clear()
        assert len(m) == 0 and not m
        with pytest.raises(KeyError):
            m.popitem()
        m["last"] = b"one"
        assert m.popitem() == ("last", b"one")
        opened.close()


def test_it_is_a_mapping(store: recstore.Store) -> None:
    assert isinstance(store, MutableMapping) and isinstance(store.space("a"), MutableMapping)
    assert store == store and hash(store) == hash(store)


def test_keys_of_spaces_and_ids_are_apart(store: recstore.Store) -> None:
    other = store.space("other")
    store["k"] = b"in main"
    other["k"] = b"in other"
    store[7] = b"by id"
    other[7] = b"in other, by int"
    assert (store["k"], other["k"], store[7], other[7]) == (b"in main", b"in other", b"by id", b"in other, by int")
    assert store[b"k"] == b"in main", "text is its UTF-8"
    assert store.space("main")["k"] == b"in main"
    assert store.spaces() == ["main", "other"]
    assert set(store) == {7, "k"}
    assert set(store.space("other", keys=bytes)) == {b"k", (7).to_bytes(8, "big")}
    del other["k"]
    assert list(store.space("other", keys=int)) == [7]


def test_keys_that_are_not_utf8_make_a_round_trip(store: recstore.Store) -> None:
    store[b"\xff\x00key"] = b"value"
    (key,) = store
    assert isinstance(key, str) and store[key] == b"value"
    del store[key]
    assert not store
    with pytest.raises(UnicodeEncodeError):
        store["\ud800"] = b"no such text"


def test_what_is_no_key_is_refused(store: recstore.Store) -> None:
    for key in (-1, 2**64):
        with pytest.raises(ValueError, match=str(key)):
            store[key] = b""
    for bad in (None, 1.5, ("a",)):
        with pytest.raises(TypeError, match="str, bytes or int"):
            store[bad] = b""  # type: ignore[index]


def test_values_are_buffers_and_nothing_else(store: recstore.Store) -> None:
    import array

    import numpy as np

    store["bytearray"] = bytearray(b"abc")
    store["memoryview"] = memoryview(b"xabcx")[1:4]
    store["strided"] = memoryview(b"axbxc")[::2]
    store["array"] = array.array("H", [1, 2])
    store["numpy"] = np.arange(6, dtype=np.int16).reshape(2, 3)
    store["transposed"] = np.arange(6, dtype=np.int16).reshape(2, 3).T
    store["empty"] = b""
    assert store["bytearray"] == store["memoryview"] == store["strided"] == b"abc"
    assert store["array"] == b"\1\0\2\0"
    assert store["numpy"] == np.arange(6, dtype=np.int16).tobytes()
    assert store["transposed"] == np.arange(6, dtype=np.int16).reshape(2, 3).T.tobytes()
    assert store["empty"] == b"" and "empty" in store
    for value in ("text", 7, None, [b"a"]):
        with pytest.raises(TypeError, match="codec"):
            store["k"] = value
    assert "k" not in store


def test_codecs_make_a_round_trip_and_nothing_is_pickled_without_being_asked(path: str) -> None:
    import numpy as np

    with recstore.open(path, record_size=4096) as raw:
        value = {"name": "ä", "list": [1, 2.5, None, True], "nested": {"k": "v"}}
        for codec in (recstore.json, recstore.msgpack, recstore.pickle):
            s = raw.space(repr(codec).replace("/", ""), codec=codec)
            s["k"] = value
            assert s["k"] == value and s.get("k") == value and dict(s.items()) == {"k": value}
            assert s.modify("k", lambda old: {**old, "more": 1})["more"] == 1
            assert s.pop("k")["more"] == 1
        arrays = raw.space("arrays", codec=recstore.numpy)
        arrays["a"] = np.arange(12.0).reshape(3, 4)
        assert np.array_equal(arrays["a"], np.arange(12.0).reshape(3, 4))
        with pytest.raises(ValueError):
            arrays["o"] = np.array([object()])
        with pytest.raises(TypeError, match="encode"):
            raw.space("x", codec="json")  # type: ignore[arg-type]


def test_an_error_has_what_it_is_about(path: str) -> None:
    with recstore.open(path, record_size=256) as s:
        with pytest.raises(recstore.RecordTooLong) as too_long:
            s[1] = bytes(1000)
        assert (too_long.value.len, too_long.value.max, too_long.value.path) == (1000, 256, path)
        with pytest.raises(recstore.EntryTooLong) as entry:
            s["k"] = bytes(1000)
        assert entry.value.key == "k" and isinstance(entry.value, ValueError)
        with pytest.raises(recstore.InvalidOption):
            s.space("a/b")
    with pytest.raises(recstore.Closed):
        s["k"]
    s.close()
    assert s.closed and repr(s) == "<recstore.Store, closed>"
    with pytest.raises(FileNotFoundError) as absent:
        recstore.open(path + ".no", "w")
    assert isinstance(absent.value, recstore.NotFound)
    with pytest.raises(FileExistsError):
        recstore.open(path, "x")
    with recstore.open(path, "r") as s:
        assert s.read_only
        with pytest.raises(recstore.ReadOnly):
            s["k"] = b""
    with pytest.raises(recstore.OtherGeometry):
        recstore.open(path, record_size=512, require_geometry=True)


def test_every_error_of_the_library_has_its_exception() -> None:
    import re

    root = os.path.join(os.path.dirname(__file__), "..", "..")
    with open(os.path.join(root, "src", "error.rs")) as source:
        enum = source.read().split("pub enum Error {")[1].split("\n}\n")[0]
    names = re.findall(r"^    ([A-Z]\w+) \{$", enum, re.M)
    assert len(names) > 25
    for variant in names:
        assert issubclass(getattr(recstore, variant), recstore.Error), variant


def test_modify_that_raises_changes_nothing_and_writes_from_inside_are_refused(store: recstore.Store) -> None:
    store["k"] = b"old"

    def fails(old: bytes) -> bytes:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        store.modify("k", fails)
    with pytest.raises(recstore.Reentrant):
        store.modify("k", lambda old: store.put("other", b""))
    with pytest.raises(TypeError):
        store.modify("k", lambda old: 7)
    assert store["k"] == b"old" and store.modify("k", lambda old: store["k"] + b"er") == b"older"
