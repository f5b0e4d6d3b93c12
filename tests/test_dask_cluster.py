"""Dask arrays on a cluster of two processes, also when one of them is lost."""

import os
import signal
import time

import numpy as np
import pytest
from tolerances import assert_close, assert_equal, noise

import cuvarconv

da = pytest.importorskip("dask.array", reason="needs dask (the extra `dask`)")
distributed = pytest.importorskip("distributed", reason="needs distributed (the extra `dask`)")

SHAPE = (60, 70)


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


@pytest.mark.parametrize("mode", ["wrap", "constant"])
def test_two_processes(client, mode):
    x, k = noise((2, *SHAPE)), noise((5, 5, *SHAPE), seed=1)
    lazy_x, lazy_k = da.from_array(x, (1, 17, 23)), da.from_array(k, (3, 5, 30, 20))
    assert_equal(
        cuvarconv.correlate(lazy_x, lazy_k, mode=mode).compute(), cuvarconv.correlate(x, k, mode=mode)
    )
    wide = [array.astype(np.float64) for array in (x, k)]
    assert_close(cuvarconv.spread(lazy_x, lazy_k, mode=mode).compute(), cuvarconv.spread(*wide, mode=mode))
    gradient = cuvarconv.correlate_vjp(lazy_x, lazy_x, lazy_k[..., :1, :1], mode=mode, wrt="weights")
    expected = cuvarconv.correlate_vjp(wide[0], wide[0], wide[1][..., :1, :1], mode=mode, wrt="weights")
    assert_close(gradient.compute(), expected)


def test_a_worker_is_lost(cluster, client):
    x, k = noise(SHAPE), noise((5, 5, *SHAPE), seed=1)
    expected = cuvarconv.correlate(x, k, mode="mirror")

    def slow(block):
        time.sleep(0.05)
        return block

    lazy = da.from_array(x, 10).map_blocks(slow, dtype=x.dtype, meta=np.empty((0, 0), x.dtype))
    future = client.compute(cuvarconv.correlate(lazy, da.from_array(k, (5, 5, 10, 10)), mode="mirror"))
    deadline = time.monotonic() + 60
    while len(finished := [key for keys in client.has_what().values() for key in keys]) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert future.status == "pending"
    assert finished
    lost = next(iter(cluster.workers.values())).pid
    os.kill(lost, signal.SIGKILL)
    assert_equal(future.result(timeout=60), expected)
    client.wait_for_workers(2, timeout=60)
    assert lost not in [worker.pid for worker in cluster.workers.values()]
