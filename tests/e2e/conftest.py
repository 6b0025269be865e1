"""One cluster for the whole run, brought up if it is not, with this checkout's images."""

import contextlib
import fcntl
import itertools
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from e2e.cluster import CANNOT, PROGRAM, ROOT, Cluster, ClusterError
from e2e.weir import SYSTEM, install

_HERE = Path(__file__).resolve().parent
_CLUSTER = pytest.StashKey[Cluster]()
_BEGAN = time.monotonic()
_FIRST = ("test_crds", "test_ring", "test_faults", "test_faults_operator", "test_chart")
"""What is run first, should the time not suffice for all; without time for these a run fails."""
_CUT = pytest.StashKey[list[str]]()
_FAILED = pytest.StashKey[bool]()
_TOLD = (
    ("describe", "mroute,mbackend", "-n", "{namespace}"),
    ("get", "mrev,pods", "-o", "wide", "-n", "{namespace}"),
    ("get", "events", "--sort-by=.lastTimestamp", "-n", "{namespace}"),
    ("get", "mroute,mbackend", "-o", "yaml", "-n", "{namespace}"),
    ("logs", "deployment/weir-operator", "--tail=300", "-n", SYSTEM),
    ("logs", "deployment/weir-router", "--tail=100", "-n", "{namespace}"),
)
"""What a failed test's reader wants to know, while its namespace is there."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out unless they are asked for: `make e2e`, or by their path."""
    paths = (Path(str(word).partition("::")[0]) for word in config.invocation_params.args)
    asked = any(path.resolve().is_relative_to(_HERE) for path in paths)
    return None if asked else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files first that matter most; the order within a file stays."""
    place = {name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what begins after WEIR_E2E_SECONDS, where that is set: a run of CI has an end."""
    budget_s = float(os.environ.get("WEIR_E2E_SECONDS") or "inf")
    if item.path.is_relative_to(_HERE) and time.monotonic() - _BEGAN > budget_s:
        if item.path.stem in _FIRST:
            item.config.stash.setdefault(_CUT, []).append(item.nodeid)
        pytest.skip(f"not run: the {budget_s:.0f} s of WEIR_E2E_SECONDS are over")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures know of a failure while they still have what it was of."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that had no time for what matters most, and leave word of it."""
    cut = session.config.stash.get(_CUT, [])
    if cut and (word := os.environ.get("WEIR_E2E_CUT")):
        Path(word).write_text("\n".join(cut), "utf-8")
    if cut and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tell what took how long; nothing is asserted of it."""
    if cut := config.stash.get(_CUT, []):
        terminalreporter.section("no time for what matters most: failed", red=True)
        terminalreporter.line(f"{len(cut)} tests, the first {cut[0]}")
    if cluster := config.stash.get(_CLUSTER, None):
        terminalreporter.section("cluster")
        for what, seconds in cluster.timings.items():
            terminalreporter.line(f"{seconds:7.1f} s  {what}")


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The cluster. Goes down again if it came up here, unless WEIR_CLUSTER_KEEP says otherwise."""
    with _alone():
        was_up = _call(str(PROGRAM), "status").returncode == 0
        found = Cluster({})
        pytestconfig.stash[_CLUSTER] = found
        with found.timed("weir-cluster up" + (" (it was)" if was_up else "")):
            _must(str(PROGRAM), "up")
        found.environment = _environment(_must(str(PROGRAM), "env"))
        try:
            with found.timed("images built"):
                archive = _must(sys.executable, str(ROOT / "hack" / "images" / "build.py")).strip()
            with found.timed("images loaded"):
                _must(str(PROGRAM), "load", archive)
            found.archive = archive
            yield found
        finally:
            if not was_up and not os.environ.get("WEIR_CLUSTER_KEEP"):
                with found.timed("weir-cluster down"):
                    _must(str(PROGRAM), "down")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one run at a time have the cluster: these tests kill its programs."""
    path = Path(tempfile.gettempdir()) / "weir-e2e.lock"
    if not path.exists():
        path.touch()
    with path.open() as held:  # To be read alone: another user may have made it.
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def weir(cluster: Cluster) -> Cluster:
    """The cluster with Weir's chart on it."""
    with cluster.timed("chart installed"):
        install(cluster)
    return cluster


_numbers = itertools.count(1)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, gone some time after it; a failed test's is told first."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    if request.node.stash.get(_FAILED, False):
        for words in _TOLD:
            try:
                said = cluster.kubectl(*(word.format(namespace=name) for word in words))
            except (ClusterError, subprocess.TimeoutExpired) as error:
                said = str(error)
            print(f"--- kubectl {shlex.join(words)}", said, sep="\n")
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _must(*command: str) -> str:
    """Return a command's output; without it there is no test to run."""
    result = _call(*command)
    if result.returncode != 0:
        code = CANNOT if result.returncode == CANNOT else 1
        pytest.exit(f"{shlex.join(command)}:\n{result.stdout}{result.stderr}", returncode=code)
    return result.stdout


def _environment(exports: str) -> dict[str, str]:
    words = (word for word in shlex.split(exports) if word != "export")
    return {name: value for name, _, value in (word.partition("=") for word in words)}
