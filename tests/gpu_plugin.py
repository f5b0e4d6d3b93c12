"""For pytest on a GPU: only the tests that use it, in parts; failures are written down as they happen."""

import json
import os
import sys
import zlib
from pathlib import Path

import pytest
from gpu_check import LOST

FIXTURES = {"cuda_backend", "cuda_tensors"}
ELSEWHERE = {"test_nvrtc.py"}  # takes minutes, and no GPU


def pytest_addoption(parser):
    parser.addoption("--gpu-part", default="1/1", help="K/N: the K-th of N parts")
    parser.addoption(
        "--gpu-failures", type=Path, required=True, help="file that gets a line for each failure"
    )


def pytest_collection_modifyitems(config, items):
    part, parts = map(int, config.getoption("--gpu-part").split("/"))
    left_out = [item for item in items if not (uses_gpu(item) and belongs(item, part, parts))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if uses_gpu(item) and belongs(item, part, parts)]


def uses_gpu(item):
    """Whether the test runs on CUDA arrays or tensors."""
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec is not None else {}
    if item.path.name in ELSEWHERE or "profiled" in item.fixturenames:
        return False
    return "cuda" in (params.get("xp"), params.get("device")) or not FIXTURES.isdisjoint(item.fixturenames)


def belongs(item, part, parts):
    """Whether the test is one of a part's."""
    return zlib.crc32(item.nodeid.encode()) % parts == part - 1


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        record = {"test": item.nodeid, "when": report.when, "text": str(report.longrepr)}
        with item.config.getoption("--gpu-failures").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if LOST.search(record["text"]) and hasattr(item.config, "workerinput"):
            sys.stderr.flush()
            os._exit(1)  # another worker takes over; this test counts as its crash
    return report
