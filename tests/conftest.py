"""Tests that speak gRPC run in an interpreter of their own, with one event loop as in a pod."""

import os
import subprocess
import sys
import warnings

import pytest

ALONE = "WEIR_TEST_ALONE"
LIMIT_S = 120
SPEAK_GRPC = {
    "operator": ("test_process", "test_feed", "test_feed_reports", "test_feed_tls", "test_health"),
    "router": ("test_feed", "test_feed_alone", "test_feed_latches"),
    "scenario": ("test_ring",),
}
"""Files by folder."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test of one of these files in another process; one that gRPC crashes once more, told.

    gRPC's asyncio half knows the loop of an operation by a bare pointer. What ends later than its
    loop, as in a process of many tests, has crashed later ones in native code, now and then.
    """
    path = pyfuncitem.path
    if path.stem not in SPEAK_GRPC.get(path.parent.name, ()) or os.environ.get(ALONE):
        return None
    ran = _alone(pyfuncitem)
    if ran.returncode < 0:
        told = f"{pyfuncitem.nodeid}: ended by signal {-ran.returncode}, run once more"
        warnings.warn(pytest.PytestWarning(told), stacklevel=1)
        ran = _alone(pyfuncitem)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return True


def _alone(item: pytest.Function) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", item.nodeid]
    return subprocess.run(
        command,
        cwd=item.config.rootpath,
        env={**os.environ, ALONE: "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
