"""A store goes through `multiprocessing`, and processes die.

Fails when: a store or a space can't be sent to a process that was spawned, forked, or made by the fork server; a forked child can't
use the store of its parent, or changes it; an increment is lost; a process that is killed takes a write along that had returned, or
leaves a lock behind.
"""

from __future__ import annotations

import copy
import multiprocessing as mp
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import recstore
import workers

METHODS = ["spawn", "fork", "forkserver"]


@pytest.mark.parametrize("method", METHODS)
def test_a_store_goes_to_another_process(store: recstore.Store, method: str) -> None:
    context = mp.get_context(method)
    space = store.space("other")
    store["k"] = space["k"] = b"value"
    for target, sent in ((workers.echo, store), (workers.echo_space, space)):
        process = context.Process(target=target, args=(sent, "k"))
        process.start()
        process.join()
        assert process.exitcode == 0
    assert store["k:back"] == space["k:back"] == b"value"
    assert int(store["k:pid"]) != os.getpid()
    assert store.is_alive(store.holder()), "the child gave up the handle of its parent"


@pytest.mark.parametrize("method", METHODS)
def test_no_increment_is_lost(store: recstore.Store, method: str) -> None:
    context = mp.get_context(method)
    processes = [context.Process(target=workers.add, args=(store, "n", 300)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert store["n"] == b"1200"


def test_a_store_in_memory_goes_to_another_process_and_leaves_nothing(name: str) -> None:
    with recstore.shared(name) as store:
        for method in METHODS:
            store["k"] = method.encode()
            process = mp.get_context(method).Process(target=workers.echo, args=(store, "k"))
            process.start()
            process.join()
            assert store["k:back"] == method.encode()


def test_a_pickle_is_the_path_and_the_options(path: str) -> None:
    with recstore.open(path, "x", codec=recstore.json, lock_timeout=3) as store:
        store["k"] = {"a": 1}
        data = pickle.dumps(store)
        assert len(data) < 1000
        with pickle.loads(data) as again:
            assert again["k"] == {"a": 1} and again.path == store.path
        space = pickle.loads(pickle.dumps(store.space("s", codec=recstore.msgpack)))
        space["k"] = [1]
        assert store.space("s", codec=recstore.msgpack)["k"] == [1]
        assert copy.copy(store)["k"] == {"a": 1}


def test_a_forked_child_opens_the_store_anew(store: recstore.Store) -> None:
    store["k"] = b"of the parent"
    before = store.holder()
    space = store.space("s")
    child = os.fork()
    if child == 0:
        try:
            ok = store["k"] == b"of the parent" and store.holder() != before and len(store) == 1
            space["k"] = b"of the child"
            store.close()
            os._exit(0 if ok and store.closed else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert store.holder() == before and space["k"] == b"of the child"


def test_a_process_that_is_killed_under_a_lock_does_not_keep_it(path: str) -> None:
    with recstore.open(path, lock_timeout=20) as store:
        store["k"] = b"before"
        for _ in range(3):
            process = mp.get_context("spawn").Process(target=workers.die_in_modify, args=(path,))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            assert store["k"] == b"before"
            store["k"] = b"before"


def test_no_write_that_had_returned_is_lost_by_a_kill(path: str) -> None:
    with recstore.open(path) as store:
        context = mp.get_context("spawn")
        started = context.Event()
        process = context.Process(target=workers.put_until_killed, args=(path, started))
        process.start()
        started.wait(60)
        process.kill()
        process.join()
        newest = int(store["n"])
        acknowledged = max(int(value) for key, value in store.items() if key.startswith("acknowledged"))
        assert newest - 1 <= acknowledged <= newest
        store["after"] = b"the kill"
        assert store["after"] == b"the kill"


def test_a_wait_for_a_lock_lets_other_threads_run_and_ends_in_time(path: str) -> None:
    with recstore.open(path) as store, recstore.open(path, "w", lock_timeout=0.2) as impatient:
        store["k"] = b"1"
        inside, leave, ran = threading.Event(), threading.Event(), []

        def hold(old: bytes) -> bytes:
            inside.set()
            assert leave.wait(60)
            return b"2"

        with ThreadPoolExecutor(3) as threads:
            holder = threads.submit(store.modify, "k", hold)
            inside.wait(60)
            waiter = threads.submit(store.modify, "k", lambda old: old + b"3")
            with pytest.raises(recstore.Busy) as busy:
                impatient["k"] = b"too late"
            assert busy.value.waited >= 0.2 and isinstance(busy.value, TimeoutError)
            assert store["k"] == b"1", "a reader waits"
            ran.append(1)
            leave.set()
            assert holder.result(60) == b"2" and waiter.result(60) == b"23"
        assert store["k"] == b"23"


def interrupted(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that prints a line and then waits, and sends it Ctrl-C."""
    program = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has them ignore Ctrl-C, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert program.stdout is not None
    program.stdout.readline()
    for _ in range(600):
        program.send_signal(signal.SIGINT)
        try:
            out, err = program.communicate(timeout=0.1)
            return subprocess.CompletedProcess(program.args, program.returncode, out, err)
        except subprocess.TimeoutExpired:
            pass
    program.kill()
    raise AssertionError("Ctrl-C does not end the wait")


def test_ctrl_c_ends_a_wait_for_a_lock(path: str) -> None:
    with recstore.open(path) as store:
        store["k"] = b"1"
        stopped = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import recstore, sys, os, signal\n"
                "s = recstore.open(sys.argv[1])\n"
                "s.modify('k', lambda old: (print('held', flush=True), os.kill(os.getpid(), signal.SIGSTOP)) and None)",
                path,
            ],
            stdout=subprocess.PIPE,
        )
        assert stopped.stdout is not None
        stopped.stdout.readline()
        try:
            done = interrupted("import recstore, sys\ns = recstore.open(sys.argv[1])\nprint('go', flush=True)\ns['k'] = b'2'", path)
            assert "KeyboardInterrupt" in done.stderr and done.returncode in (1, -signal.SIGINT, 130)
        finally:
            stopped.kill()
            stopped.wait()
            stopped.stdout.close()
        store["k"] = b"3"


def test_an_interpreter_ends_with_stores_that_are_open(path: str, name: str) -> None:
    code = (
        "import recstore, sys, threading\n"
        "s, m = recstore.open(sys.argv[1]), recstore.shared(sys.argv[2])\n"
        "s['k'] = m['k'] = b'v'\n"
        "it = iter(s.items()); next(it); sp = s.space('x'); sp['k'] = b'w'\n"
        "def run():\n"
        "    try:\n"
        "        while True: s['k']\n"
        "    except recstore.Closed: pass\n"
        "threading.Thread(target=run, daemon=True).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path, name], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    with recstore.open(path) as store:
        assert store["k"] == b"v"


def test_subinterpreters_are_refused() -> None:
    interpreters = pytest.importorskip("_xxsubinterpreters", reason="SKIPPED: this Python has no module for them")
    interpreter = interpreters.create()
    try:
        with pytest.raises(Exception, match="subinterpreters"):
            interpreters.run_string(interpreter, "import recstore")
    finally:
        interpreters.destroy(interpreter)


def test_a_holder_lives_until_it_is_closed(path: str) -> None:
    with recstore.open(path) as store:
        with recstore.open(path, "w") as other:
            holder = other.holder()
            space, ring, queue, counter = other.space("s"), other.ring("r", "f8", 3), other.queue("q"), other.counter("c")
            space["k"] = b"v"
            ring.push(1)
            queue.push(b"job")
            counter.add(1)
            assert store.is_alive(holder)
        assert not store.is_alive(holder), "something that lends nothing keeps it open"
        with pytest.raises(recstore.Closed):
            space["k"]
