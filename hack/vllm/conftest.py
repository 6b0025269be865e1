"""One vLLM, started as rendered, for all tests here; those that end it run last."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from container import Container, start
from kubelet import Pod, Probe, Watch, probe_of, starts
from places import CLAIMS, PROGRAMS
from rendered import LARGE, pod_spec

DOES_NOT_START = 43
"""Exit code for `run.sh`: vLLM starts here in no way. pytest has 0 to 5 for itself."""
TOLD = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep a list of what was measured, and know the mark of tests that end the pod."""
    config.addinivalue_line("markers", "ends_pod: it ends the vLLM that the other tests ask")
    config.stash[TOLD] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that end the shared pod run after those that use it."""
    items.sort(key=lambda item: item.get_closest_marker("ends_pod") is not None)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was measured."""
    for line in config.stash[TOLD]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Any:
    """Keep a line for the end of the run."""
    return request.config.stash[TOLD].append


@pytest.fixture(scope="session")
def pod(tmp_path_factory: pytest.TempPathFactory, tell: Any) -> Iterator[Pod]:
    """Run vLLM by the rendered pod until its startup probe passes, and probe it from then on."""
    spec = pod_spec(LARGE)
    (container,) = spec["containers"]
    running = start(spec, programs=PROGRAMS, claims=CLAIMS, work=tmp_path_factory.mktemp("pod"))
    try:
        started = starts(container, running)
        if not started.passed:
            _give_up(container, running, tmp_path_factory.mktemp("plain"))
        tell(f"startup probe passed at try {started.asked}, {started.took_s:.0f} s after the start")
        watches = {
            kind: Watch(probe_of(container, kind)).begin()
            for kind in ("readinessProbe", "livenessProbe")
        }
        yield Pod(spec, running, started, watches)
        for watch in watches.values():
            watch.stop()
    finally:
        running.end()


def _give_up(container: dict[str, Any], running: Container, work: Path) -> None:
    """Tell a rendering that vLLM does not take from a machine on which no vLLM starts."""
    running.end()
    log = running.log.read_text()[-6_000:]
    if _starts_plainly(probe_of(container, "startupProbe"), work):
        pytest.fail(f"vLLM starts on this machine, but not as rendered:\n{log}")
    pytest.exit(f"vLLM does not start on this machine:\n{log}", returncode=DOES_NOT_START)


def _starts_plainly(probe: Probe, work: Path) -> bool:
    """Return whether vLLM serves the same folder by its own defaults, outside any container."""
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAMS / "bin" / "vllm", "serve", CLAIMS["weights"] / "large"],
            env={
                "PATH": f"{PROGRAMS}/bin:{os.environ['PATH']}",
                "HOME": str(work),
                "VLLM_CPU_KVCACHE_SPACE": "1",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            for _ in range(probe.failures):
                if probe.passes():
                    return True
                if process.poll() is not None:
                    return False
                time.sleep(probe.period_s)
            return False
        finally:
            process.terminate()
            process.wait()
