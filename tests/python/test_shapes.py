"""Counters, rings, batches, snapshots, queues, watches, lists, blocks.

Fails when: an increment, a value, a job or an item is lost, comes twice or in another form; a part of a batch is made without the
rest; a snapshot changes; a change is not told; a wait can't be ended.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing as mp
import pickle
import threading

import numpy as np
import pytest
import recstore
import workers


def test_a_counter_is_exact_and_stays_in_its_range(store: recstore.Store) -> None:
    hits = store.counter("hits")
    assert (hits.value, hits.add(), hits.add(5), hits.add(-2), int(hits)) == (0, 1, 6, 4, 4)
    assert len(store["hits"]) == 16 and store["hits"][:8] == (4).to_bytes(8, "little")
    assert (hits.fetch_max(10), hits.fetch_max(3), hits.set(2), hits.value) == (4, 10, 10, 2)
    for wrong in (-3, 2**64 - 1):
        with pytest.raises(OverflowError, match="at 2"):
            hits.add(wrong)
    store["text"] = b"no counter"
    with pytest.raises(recstore.OtherShape, match="10 bytes without a shape, and not a counter") as raised:
        store.counter("text").add(1)
    assert (raised.value.key, raised.value.wanted) == ("text", "a counter")
    assert issubclass(recstore.OtherShape, recstore.TypeMismatch)
    assert pickle.loads(pickle.dumps(hits)).add(1) == 3
    assert store.counter(7).add(2**64 - 1) == 2**64 - 1


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_many_processes_count_and_append(store: recstore.Store, method: str) -> None:
    context = mp.get_context(method)
    processes = [context.Process(target=workers.count_and_append, args=(store, n, 200)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert store.counter("hits").value == 800
    ring = store.ring("values", np.int64, 1000)
    numbers, values = ring.numbered()
    assert list(numbers) == list(range(800)) and sorted(values) == list(range(800))
    items = list(recstore.List(store, "items"))
    assert sorted(items) == sorted(f"item {n}" for n in range(800))


def test_a_ring_has_the_last_values(store: recstore.Store) -> None:
    ring = store.ring("cpu", np.float64, 8)
    assert len(ring) == 0 and len(ring.latest()) == 0
    assert [ring.push(value) for value in (0.5, 1.5)] == [0, 1]
    assert ring.extend(np.arange(2.0, 20.0)) == 19
    assert ring.extend([]) is None
    assert list(ring.latest(3)) == [17.0, 18.0, 19.0] and ring[-1] == 19.0 and len(ring) == 8
    assert list(ring.latest()) == list(np.arange(12.0, 20.0)) and ring.pushed == 20
    assert [pair[0] for pair in ring.tail(0, timeout=0)] == list(range(12, 20))
    with pytest.raises(IndexError):
        ring[-9]
    for dtype, length in ((np.float32, 8), (np.float64, 4), (np.int64, 8)):
        with pytest.raises(recstore.OtherShape, match='ring cpu.* is a ring of 8 values of type "<f8"'):
            store.ring("cpu", dtype, length)
    assert store.spaces() == ["ring cpu"] and len(store.space("ring cpu", keys=bytes)) == 9
    # The bytes are those of the table in the chapter on the format.
    place = store.space("ring cpu", keys=bytes)[b"ring\0" + bytes(7) + b"\3"]
    assert place[8:16] == (19).to_bytes(8, "little") and place[16:20] == b"\x04\0\xff~"
    fields = store.ring("many", [(f"a field with number {n}", "f8") for n in range(100)], 4)
    assert fields.push(np.zeros((), fields.dtype)) == 0
    pair = store.ring("pairs", [("at", "u8"), ("value", "f4")], 4)
    pair.push((7, 0.5))
    assert pair.latest()["at"][0] == 7 and pickle.loads(pickle.dumps(pair)).latest()["value"][0] == 0.5


def test_a_tail_gets_every_value_as_it_comes(store: recstore.Store) -> None:
    ring = store.ring("cpu", np.int64, 1000)
    got = []
    reader = threading.Thread(daemon=True, target=lambda: got.extend(itertools.islice(ring.tail(0), 500)))
    reader.start()
    for n in range(500):
        ring.push(n)
    reader.join(60)
    assert not reader.is_alive()
    assert [(int(number), int(value)) for number, value in got] == [(n, n) for n in range(500)]


def test_a_batch_is_all_or_nothing(store: recstore.Store) -> None:
    other = store.space("other")
    store["gone"] = b"there"
    with store.batch() as b:
        b["a"] = b"1"
        b[7] = b"by id"
        del b["gone"]
        b.put("a", b"other", space=other)
        assert len(b) == 4
        assert "a" not in store
    assert (store["a"], store[7], other["a"]) == (b"1", b"by id", b"other") and "gone" not in store
    assert set(b.versions.values()) and len(b.versions) == 3
    version = store.version("a")
    store["a"] = b"changed"
    with pytest.raises(recstore.Conflict) as conflict, store.batch() as b:
        b["b"] = b"2"
        b.require("a", version)
    assert conflict.value.key == "a" and conflict.value.version == store.version("a") and "b" not in store
    with pytest.raises(ZeroDivisionError), store.batch() as b:
        b["b"] = b"2"
        1 / 0
    assert "b" not in store
    with pytest.raises(ValueError):
        b["c"] = b"over"
    with store.batch(durable=True) as b:
        b.require("b", None)
        b["b"] = b"3"
    assert store["b"] == b"3"


def test_a_snapshot_stays_as_it_is(store: recstore.Store) -> None:
    store.update({"a": b"1", "b": b"2", 7: b"7"})
    store.space("s")["k"] = b"in s"
    with store.snapshot() as snap:
        store["a"] = b"changed"
        del store["b"], store[7]
        store["new"] = b"new"
        store.space("s")["k"] = b"changed"
        assert dict(snap.items()) == {"a": b"1", "b": b"2", 7: b"7"} and len(snap) == 3
        assert snap["a"] == b"1" and snap.get("new") is None and 7 in snap and "new" not in snap
        assert set(snap) == set(snap.keys()) and sorted(snap.values()) == [b"1", b"2", b"7"]
        assert snap.space(store.space("s"))["k"] == b"in s"
        with pytest.raises(KeyError):
            snap["new"]
        view = snap.view("a")
    assert bytes(view) == b"1"
    with pytest.raises(ValueError):
        snap["a"]


def test_a_queue_gives_each_job_to_one_and_again_if_its_process_dies(path: str) -> None:
    with recstore.open(path) as store:
        queue = store.queue("mails")
        assert queue.claim(0) is None and len(queue) == 0
        assert [queue.push(data) for data in (b"a", b"b", b"c")] == [0, 1, 2]
        process = mp.get_context("spawn").Process(target=workers.claim_and_die, args=(path,))
        process.start()
        process.join()
        assert process.exitcode == -9
        with queue.claim(5) as job:
            assert (job.data, job.number, job.claims) == (b"a", 0, 2)
        with pytest.raises(RuntimeError), queue.claim(5) as job:
            raise RuntimeError("the job is given back")
        job = queue.claim(5)
        assert job.data == b"b" and job.claims == 2 and job.heartbeat()
        with store.batch() as b:
            b["result"] = b"of b"
            b.finish(job)
            b.push(queue, b"d")
            b.push(queue, b"e")
        assert b.pushed == [3, 4] and store["result"] == b"of b"
        with pytest.raises(ValueError):
            job.finish()
        assert [queue.claim(5).data for _ in range(1)] == [b"c"]
        assert len(queue) == 3
        dying = store.queue("dying", claims_max=1)
        dying.push(b"poison")
        dying.claim(5).release()
        assert dying.claim(0) is None and dying.dead_letters() == [(0, b"poison")]
        assert dying.revive(0) == 1 and dying.revive(0) is None
        assert pickle.loads(pickle.dumps(dying)).claim(5).data == b"poison"


def test_a_watch_tells_each_change(store: recstore.Store) -> None:
    watch = store.watch("k")
    assert watch.wait(0) is None
    version = store.put("k", b"1")
    assert watch.wait(60) == (version, b"1") and watch.wait(0) is None
    del store["k"]
    assert watch.wait(60) == (None, None)
    by_id = store.watch(7)
    threading.Timer(0.05, store.put, (7, b"seven")).start()
    assert next(by_id).value == b"seven"
    threading.Timer(0.05, watch.cancel).start()
    assert watch.wait() is None and list(watch) == []


def test_changes_tell_everything_once(store: recstore.Store) -> None:
    store.update({"a": b"1", 7: b"7"})
    changes = store.changes()
    first = [changes.wait(60) for _ in range(3)]
    assert {change.key for change in first[:2]} == {"a", 7}
    assert first[2] == (recstore.CAUGHT_UP, None, None) and changes.wait(0) is None
    version = store.put("b", b"2")
    assert changes.wait(60) == ("written", "b", version)
    del store[7]
    assert changes.wait(60) == ("deleted", 7, None)
    threading.Timer(0.05, changes.cancel).start()
    assert list(changes) == []


def test_watches_are_asynchronous_too(store: recstore.Store) -> None:
    async def follow() -> list[bytes]:
        got = []
        watch = store.watch("k")
        asyncio.get_running_loop().call_later(0.05, store.put, "k", b"1")
        async for event in watch:
            got.append(event.value)
            if event.value == b"3":
                return got
            store["k"] = str(int(event.value) + 1).encode()
        return got

    assert asyncio.run(asyncio.wait_for(follow(), 60)) == [b"1", b"2", b"3"]

    async def cancelled() -> str:
        try:
            async with asyncio.timeout(0.1):
                async for _ in store.watch("never"):
                    pass
        except TimeoutError:
            return "ended"
        return "went on"

    assert asyncio.run(cancelled()) == "ended"

    async def changes() -> object:
        async for change in store.changes():
            if change.kind is recstore.CAUGHT_UP:
                return change
        return None

    assert asyncio.run(asyncio.wait_for(changes(), 60)) is not None


def test_a_list_holds_what_a_shareable_list_holds_and_more(store: recstore.Store) -> None:
    items = [42, -1, 0, 2**100, 3.14, float("inf"), "Hello! 👋", "", "trailing\0\0", b"bytes\0\0", b"", None, True, False]
    shared = recstore.List(store, "mixed", items)
    assert list(shared) == items and [type(item) for item in shared] == [type(item) for item in items]
    shared[0] = "an int became text, longer than it was"
    shared[-1] = 7
    assert shared[0] == "an int became text, longer than it was" and shared[len(items) - 1] == 7
    assert shared.update(1, lambda old: old + 1) == 0 and shared.append(b"end") == len(items)
    assert shared.pop() == b"end" and len(shared) == len(items) and 3.14 in shared and True in shared
    assert shared.index(3.14) == 4 and shared.count("") == 1
    for index in (len(items), -len(items) - 1):
        with pytest.raises(IndexError):
            shared[index]
        with pytest.raises(IndexError):
            shared[index] = 1
    with pytest.raises(TypeError):
        shared.append([])  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        recstore.List(store, "empty").pop()


def test_a_block_is_written_by_rows(store: recstore.Store) -> None:
    block = recstore.Block(store, "b", (4, 3), np.float32)
    assert block.read().sum() == 0 and block.shape == (4, 3)
    block[1] = [1, 2, 3]
    block[-1] = 7
    with block.writing(0) as row:
        row[:] = (0.5, 1.5, 2.5)
    assert np.array_equal(block.read(), [[0.5, 1.5, 2.5], [1, 2, 3], [0, 0, 0], [7, 7, 7]])
    view = block.view(1)
    block.write(np.ones((4, 3)))
    assert list(view) == [1, 2, 3] and block.read().sum() == 12 and list(block[1]) == [1, 1, 1]
    with pytest.raises(recstore.TypeMismatch):
        recstore.Block(store, "b", (4, 4), np.float32)
    with pytest.raises(IndexError):
        block[4]
    with pytest.raises(ValueError):
        view[0] = 1


def test_checks_backups_and_salvage(store: recstore.Store, tmp_path: object) -> None:
    store.update({f"key {n}": b"value" for n in range(100)})
    assert store.verify().is_clean and store.verify().records == 100
    stats = store.stats()
    assert stats.records == 100 and stats.record_size == 4096 and [a.alive for a in stats.attached] == [True]
    assert store.repair().fixed == [] and not store.opened().os_crash
    store.sync()
    copy, saved = f"{tmp_path}/copy.rec", f"{tmp_path}/saved.rec"
    assert store.backup(copy) == 100
    with recstore.open(copy, "r") as backup:
        assert dict(backup.items()) == dict(store.items())
    with open(copy, "r+b") as file:
        file.write(bytes(8192))
        file.seek(73728)
        file.write(bytes(4096))
    with pytest.raises(recstore.Error):
        recstore.open(copy, "r")
    report = recstore.salvage(copy, saved)
    assert report.records == 100
    with recstore.open(saved, "r") as found:
        assert sum(value == b"value" for _, value in found.items()) == 100


def test_stores_in_memory_have_names(name: str) -> None:
    with recstore.shared(name) as store:
        assert name in recstore.shared_names()
        with recstore.shared(name) as again:
            again["k"] = b"v"
        assert store["k"] == b"v" and recstore.remove_shared(name) and not recstore.remove_shared(name)
        assert store["k"] == b"v"


def test_a_key_is_absent_when_its_time_is_over(store: recstore.Store) -> None:
    store.put("short", b"v", ttl=0)
    store.put("long", b"v", ttl=3600)
    store["forever"] = b"v"
    sessions = store.space("sessions", ttl=3600)
    sessions["k"] = b"v"
    assert "short" not in store and store.get("short") is None and set(store) == {"long", "forever"}
    assert store.expires_at("forever") is None and store.expires_at("long") > 0
    assert sessions.expires_at("k") == pytest.approx(store.expires_at("long"), abs=600)
    assert pickle.loads(pickle.dumps(sessions)).put("other", b"v") and sessions.expires_at("other") is not None
    assert store.touch("long", 7200) and not store.touch("short", 1)
    assert store.expires_at("long") > sessions.expires_at("k")
    assert store.touch("long", None) and store.expires_at("long") is None
    with sessions.reserve("room", 3) as room:
        room[:] = b"abc"
    assert sessions["room"] == b"abc" and sessions.expires_at("room") is not None
    with pytest.raises(recstore.InvalidOption, match="7"):
        store.put(7, b"v", ttl=1)
    assert store.sweep() == 1 and store.stats().records >= 4
