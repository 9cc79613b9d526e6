"""Views of the file's memory: what lends them lives for as long as they do.

Fails when: a view changes, or its memory is gone, while it lives (then the process dies of SIGSEGV); closing is refused or hangs
because of a view; a reservation is committed while something can still write to it, or is seen before the commit; what a process
that was killed had reserved stays.
"""

from __future__ import annotations

import gc
import multiprocessing as mp
import os
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pytest
import recstore
import workers


def test_a_view_stays_as_it_is_whatever_happens(path: str) -> None:
    store = recstore.open(path, record_size=1 << 16)
    store["k"] = b"value" * 1000
    pin = store.pin()
    view = pin["k"]
    assert view.readonly and bytes(view) == store["k"] and pin.get("absent") is None and "k" in pin
    store["k"] = b"other"
    pin.close()
    with pytest.raises(ValueError, match="ended"):
        pin["k"]
    store.close()
    other = recstore.open(path, "w")
    for n in range(200):
        other["k"] = bytes([n]) * 5000
    gc.collect()
    assert bytes(view) == b"value" * 1000
    part = memoryview(view)[5:10]
    del view, pin, store
    gc.collect()
    assert bytes(part) == b"value"
    assert sum(attached.alive for attached in other.stats().attached) == 2, "the view's handle went"
    del part
    gc.collect()
    assert sum(attached.alive for attached in other.stats().attached) == 1, "the handle outlived its views"
    other.close()


def test_an_array_is_no_copy_and_says_what_it_is(path: str) -> None:
    with recstore.open(path, record_size=1 << 20) as store:
        a = np.arange(60, dtype=np.float64).reshape(3, 4, 5)
        with store.reserve("a", a.shape, a.dtype) as room:
            room[:] = a
        store["raw"] = a.tobytes()
        store.space("n", codec=recstore.numpy)["f"] = np.asfortranarray(a)
        with store.pin() as pin:
            found = pin.array("a")
            assert np.array_equal(found, a) and found.dtype == a.dtype
            assert not found.flags.owndata and not found.flags.writeable and found.ctypes.data % 32 == 0
            assert np.array_equal(pin.array("raw", np.float64, (3, 4, 5)), a)
            assert np.array_equal(pin.array("a", shape=(60,)), a.ravel())
            with pytest.raises(ValueError):
                found[0] = 1
            with pytest.raises(ValueError):
                found.flags.writeable = True
            with pytest.raises(recstore.TypeMismatch):
                pin.array("raw")
            with pytest.raises(KeyError):
                pin.array("absent")
        with store.space("n").pin() as pin:
            assert np.array_equal(pin.array("f"), a)
        with store.snapshot() as snapshot:
            assert np.array_equal(snapshot.array("a"), a)
        import io

        assert np.array_equal(np.load(io.BytesIO(store["a"])), a), "other readers of .npy read it"
        for shape in ((0,), (0, 3), ()):
            with store.reserve("odd", shape, np.int16) as room:
                room[...] = 7
            with store.pin() as pin:
                assert pin.array("odd").shape == shape


def test_what_is_written_in_place_is_seen_when_the_block_ends(path: str) -> None:
    with recstore.open(path, record_size=1 << 16) as store:
        with store.reserve("a", (100,), np.int32) as a:
            a[:] = np.arange(100)
            assert "a" not in store
        with store.pin() as pin:
            assert list(pin.array("a")) == list(range(100))
        # The array of the block goes on reading it, and can't be written.
        store["a"] = b"other"
        for _ in range(100):
            store["a"] = bytes(1000)
        assert list(a) == list(range(100))
        for attempt in (lambda: a.__setitem__(0, 1), lambda: a.setflags(write=True)):
            with pytest.raises(ValueError):
                attempt()
        with store.reserve("b", 10) as room:
            room[:] = b"0123456789"
        assert store["b"] == b"0123456789"
        with pytest.raises(ValueError):
            room[0]
        with pytest.raises(ZeroDivisionError), store.reserve("b", 10) as room:
            1 / 0
        assert store["b"] == b"0123456789"
        with store.reserve(7, 3) as room:
            room[:] = b"id7"
        assert store[7] == b"id7"
        assert store.verify().is_clean


@pytest.mark.parametrize(
    "keep",
    [
        lambda a: a[1:],
        lambda a: a.view(np.uint8),
        lambda a: memoryview(a),
        lambda a: [a],
        lambda a: np.ndarray(4, np.uint8, buffer=a),
        lambda a: iter(a.flat),
    ],
)
def test_nothing_is_committed_while_something_can_write_to_the_array(store: recstore.Store, keep: object) -> None:
    reservation = store.reserve("a", (100,), np.uint8)
    kept = None
    with pytest.raises(BufferError, match="nothing was committed"), reservation as a:
        a[:] = 7
        kept = keep(a)  # type: ignore[operator]
    assert "a" not in store
    a[0] = 9  # It is still a room.
    del kept
    gc.collect()
    assert reservation.commit() == store.version("a")
    with store.pin() as pin:
        assert list(pin.array("a")) == [9] + [7] * 99
    assert store.verify().is_clean


def test_nothing_is_committed_while_something_can_write_to_the_bytes(store: recstore.Store) -> None:
    for keep in (lambda m: m[1:], lambda m: memoryview(m), lambda m: np.frombuffer(m, np.uint8), lambda m: np.ndarray(4, np.uint8, buffer=m)):
        reservation = store.reserve("b", 100)
        view = reservation.view
        view[:] = bytes(100)
        kept = keep(view)
        with pytest.raises(BufferError):
            reservation.commit()
        assert "b" not in store
        del kept
        gc.collect()
        reservation.commit()
        assert store.pop("b") == bytes(100)
        with pytest.raises(ValueError, match="committed or given up"):
            reservation.commit()


def test_a_room_that_is_given_up_is_used_again_once_nobody_can_write_to_it(store: recstore.Store) -> None:
    before = store.stats()
    for _ in range(50):
        reservation = store.reserve("a", 1000)
        view = reservation.view
        reservation.cancel()
        view[:] = bytes(1000)
        del view, reservation
    after = store.stats()
    assert after.slots - after.free_slots - after.retired_slots <= before.records + 16 and store.verify().is_clean


def test_a_store_in_memory_is_gone_when_it_is_closed_and_its_views_stay(name: str) -> None:
    with recstore.shared(name, record_size=1000) as store:
        store["k"] = b"v" * 500
        pin = store.pin()
        view, array = pin["k"], pin.array("k", np.uint8)
    with recstore.shared(name, record_size=2000) as another:
        assert another.record_size == 2000 and not another
        another["k"] = b"w" * 500
    del pin
    gc.collect()
    assert bytes(view) == b"v" * 500 and array.sum() == 500 * ord("v")


def test_views_are_not_kept_alive_by_a_circle(store: recstore.Store) -> None:
    store["k"] = b"v"
    pin = store.pin()
    alive = weakref.finalize(store.space("s"), lambda: None)
    view = pin["k"]
    del pin, view
    gc.collect()
    assert not alive.alive


@pytest.mark.parametrize("where", ["views", "reserve", "batch"])
def test_a_process_is_killed_with_live_views_in_a_reservation_in_a_batch(path: str, where: str) -> None:
    with recstore.open(path, record_size=1 << 16, regions=1) as store:
        store["k"] = b"old" * 1000
        process = mp.get_context("spawn").Process(target=workers.die_in, args=(path, where))
        process.start()
        process.join()
        assert process.exitcode == -9
        assert store["k"] == b"old" * 1000 and "never" not in store
        for n in range(100):
            store["k"] = bytes([n]) * 3000
        assert store.verify().is_clean
        store.repair()
        stats = store.stats()
        assert stats.records + stats.free_slots + stats.retired_slots >= stats.slots - 2


def test_an_interpreter_ends_with_views_that_are_alive(path: str) -> None:
    code = (
        "import recstore, sys, numpy as np\n"
        "s = recstore.open(sys.argv[1], record_size=1 << 16)\n"
        "r = s.reserve('a', (100,), np.int32); a = r.__enter__(); a[:] = 1\n"
        "s['k'] = b'v' * 100; p = s.pin(); v = p['k']; b = p.array('k', np.uint8); n = s.snapshot(); w = n.view('k')\n"
        "i = n.items(); next(i); sys.kept = [v, b, w, i, a, r]; x = []; x.append((x, v, a))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    with recstore.open(path) as store:
        assert "a" not in store and store["k"] == b"v" * 100 and store.verify().is_clean


def test_a_forked_child_is_told_what_is_its_parents(store: recstore.Store) -> None:
    store["k"] = b"v" * 100
    pin, snapshot, items = store.pin(), store.snapshot(), iter(store.items())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for attempt in (lambda: pin["k"], lambda: snapshot["k"], lambda: next(items)):
                try:
                    attempt()
                    os._exit(2)
                except recstore.Forked:
                    pass
            with store.pin() as own:
                code = 0 if bytes(own["k"]) == b"v" * 100 and store.snapshot()["k"] == b"v" * 100 else 3
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert bytes(pin["k"]) == b"v" * 100 and snapshot["k"] == b"v" * 100 and next(items) == ("k", b"v" * 100)


def test_a_forked_child_has_the_bytes_that_were_lent_at_the_fork(path: str) -> None:
    with recstore.open(path, record_size=20_000, regions=1) as store:
        values = {f"k{n}": bytes([n]) * (50 if n % 2 else 15_000) for n in range(1, 20)}
        store.update(values)
        store["empty"] = b""
        pin = store.pin()
        arrays = {key: pin.array(key, np.uint8) for key in values}
        views = {key: pin[key] for key in values}
        empty = pin["empty"]
        reservation = store.reserve("room", (100,), np.uint8)
        with reservation as room:
            room[:] = 1
            for _ in range(3):
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        room[:] = 9  # The child's own copy.
                        store.update({key: b"changed" for key in values})
                        same = all(arrays[key].tobytes() == bytes(views[key]) == value for key, value in values.items())
                        same = same and bytes(empty) == b"" and bytes(memoryview(arrays["k2"])) == values["k2"]
                        code = 0 if same else 2
                        del arrays, views, pin
                        gc.collect()
                    finally:
                        os._exit(code)
                assert os.waitpid(child, 0)[1] == 0
                assert all(arrays[key].tobytes() == value for key, value in values.items())
            assert room.sum() == 100
        assert store["k1"] == b"changed" and store.verify().is_clean
        with store.pin() as again:
            assert again.array("room").sum() == 100


def test_no_memory_is_used_that_is_gone(path: str) -> None:
    valgrind = shutil.which("valgrind")
    if valgrind is None or "RECSTORE_LONG" not in os.environ:
        pytest.skip("SKIPPED: RECSTORE_LONG=1 runs this under valgrind, which takes a while")
    program = os.path.join(os.path.dirname(__file__), "outlive.py")
    # The package is where it is for this process, and the interpreter's own pools would hide what is freed.
    environment = dict(os.environ, PYTHONMALLOC="malloc", PYTHONPATH=os.path.dirname(os.path.dirname(recstore.__file__)))
    command = [valgrind, "-q", "--undef-value-errors=no", "--error-exitcode=99", "--leak-check=no", sys.executable, program, path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("shown: ")
