import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from ww_callbacks.spectral.linalg.workers import WorkerPool, available_cores


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_in_the_order_of_the_items(workers):
    items = list(range(17))
    assert WorkerPool(workers).map(lambda n: n * n, items, cost=lambda n: 1e7 * (n % 5)) == [n * n for n in items]
    assert WorkerPool(workers).map(lambda n: n, []) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_two_maps_that_overlap_leave_the_blas_setting_as_it_was(workers):
    """The first ends while the second is inside, and must not give it more threads than one."""
    inside, first_ended = threading.Event(), threading.Event()
    seen = []

    def second(_):
        inside.set()
        assert first_ended.wait(30)
        seen.append(blas_threads())

    np.linalg.eigvalsh(np.eye(3))
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        other = threading.Thread(target=WorkerPool(workers).map, args=(second, [0]))
        WorkerPool(workers).map(lambda _: other.start() or inside.wait(30), [0])
        first_ended.set()
        other.join(30)
        assert blas_threads() == before
    assert seen and set(seen[0]) == {1}


def test_others_may_set_the_blas_threads_once_a_map_has_ended():
    """Also while the thread that called it lives on, as that of the background does."""
    ended, go_on = threading.Event(), threading.Event()

    def in_another_thread():
        WorkerPool(1).map(abs, [0])
        ended.set()
        go_on.wait(30)

    np.linalg.eigvalsh(np.eye(3))
    other = threading.Thread(target=in_another_thread)
    other.start()
    assert ended.wait(30)
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            assert set(blas_threads()) == {threads}
    go_on.set()
    other.join(30)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("workers", [1, 2])
def test_after_an_error_nothing_more_is_begun(error, workers):
    begun, raised = [], threading.Event()

    def work(item):
        begun.append(item)
        if item == 0:
            raised.set()
            raise error
        assert raised.wait(30)
        time.sleep(0.05)

    with pytest.raises(error):
        WorkerPool(workers).map(work, range(50))
    assert len(begun) < 10


def test_ctrl_c_ends_the_waiting_and_begins_nothing_more():
    code = """
import sys, threading, time
from ww_callbacks.spectral.linalg.workers import WorkerPool
def work(item):
    print(item, flush=True)
    time.sleep(0.2)
try:
    WorkerPool(2).map(work, range(100))
except KeyboardInterrupt:
    print("interrupted", threading.active_count())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert all(process.stdout.readline() for _ in range(3))
        began = time.perf_counter()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read().split("\n")
    assert time.perf_counter() - began < 10 and "interrupted 1" in said and len(said) < 12


def test_threads_only_where_they_pay():
    def thread_names(cost):
        return set(WorkerPool(2).map(lambda _: threading.current_thread().name, range(8), cost=lambda _: cost))

    assert thread_names(cost=1000.0) == {threading.current_thread().name}
    assert all(name.startswith("spectral") for name in thread_names(cost=1e7))


def test_one_blas_thread_inside_and_the_old_setting_afterwards():
    np.linalg.eigvalsh(np.eye(3))
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        inside = WorkerPool(2).map(lambda _: blas_threads(), range(3))
        assert all(set(threads) == {1} for threads in inside)
        assert blas_threads() == before
        with pytest.raises(RuntimeError, match="from a worker"):
            WorkerPool(2).map(fail, range(3))
        assert blas_threads() == before
    assert 2 in before


def fail(_):
    raise RuntimeError("from a worker")


def test_several_at_a_time_and_none_left_behind():
    barrier = threading.Barrier(2, timeout=10)  # passes only if two run at the same time
    WorkerPool(2).map(lambda _: barrier.wait(), range(2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spectral")]


def test_the_costliest_start_first():
    started = []
    WorkerPool(1).map(started.append, [3, 1, 2], cost=float)
    assert started == [3, 2, 1]


def test_default_and_refusals():
    assert WorkerPool().workers == available_cores() <= (os.cpu_count() or 1)
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="whole number from 1"):
            WorkerPool(wrong)


def test_pickles():
    pool = WorkerPool(3)
    pool.map(abs, [1])
    assert pickle.loads(pickle.dumps(pool)).workers == 3


def test_the_blas_of_scipy_is_held_to_one_thread_though_nobody_has_loaded_it_yet():
    code = """
from threadpoolctl import threadpool_info
from ww_callbacks.spectral.linalg.workers import WorkerPool
def inside(_):
    import scipy.linalg
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
assert not any("scipy" in library["filepath"].split("/")[-2] for library in threadpool_info())
print(WorkerPool(2).map(inside, range(2)))
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert set(done.stdout) <= set("[1, ]\n"), done.stdout
