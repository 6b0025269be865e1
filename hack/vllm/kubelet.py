"""What a kubelet does with a container that it has started: it probes, it ends.

Periods, time-outs and thresholds are those of the template; nothing here has a default of its
own but Kubernetes' defaults.
"""

import signal
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from container import Container

Obj = dict[str, Any]
HOST = "127.0.0.1"
LEAST_ENDING_S = 2
"""The kubelet leaves so much after SIGTERM, however long preStop took."""
MESSAGE_BYTES, MESSAGE_LINES = 2048, 80
"""Of the log's end, kept with FallbackToLogsOnError."""


@dataclass(frozen=True)
class Probe:
    """One HTTP probe of a container."""

    url: str
    period_s: float
    timeout_s: float
    failures: int

    def passes(self) -> bool:
        """Return whether the server answers with a status from 200 to 399, in time."""
        try:
            with urllib.request.urlopen(self.url, timeout=self.timeout_s) as reply:
                return bool(200 <= reply.status < 400)
        except OSError:
            return False


def probe_of(container: Obj, kind: str) -> Probe:
    """Return a container's startupProbe, readinessProbe or livenessProbe."""
    told = container[kind]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    get = told["httpGet"]
    return Probe(
        url=f"http://{HOST}:{ports[get['port']]}{get['path']}",
        period_s=told.get("periodSeconds", 10),
        timeout_s=told.get("timeoutSeconds", 1),
        failures=told.get("failureThreshold", 3),
    )


@dataclass(frozen=True)
class Started:
    """How the startup probe ended."""

    passed: bool
    asked: int
    took_s: float


def starts(container: Obj, running: Container) -> Started:
    """Ask the startup probe until it passes, its threshold is reached or the process has ended."""
    probe, began_s = probe_of(container, "startupProbe"), time.monotonic()
    for asked in range(1, probe.failures + 1):
        due_s = began_s + asked * probe.period_s
        if probe.passes():
            return Started(True, asked, time.monotonic() - began_s)
        if running.wait(max(due_s - time.monotonic(), 0.0)):
            return Started(probe.passes(), asked + 1, time.monotonic() - began_s)
    return Started(False, probe.failures, time.monotonic() - began_s)


@dataclass
class Watch:
    """A probe that is asked again and again, in a thread of its own."""

    probe: Probe
    slowest_s: float = 0.0
    asked: int = 0
    failed: int = 0
    worst_run: int = 0
    """Most failures one after the other; at the probe's threshold the kubelet acts."""
    _run: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> "Watch":
        """Begin asking; returns itself."""
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop asking, after the question under way."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _ask(self) -> None:
        while not self._stopped.is_set():
            began_s = time.monotonic()
            passed = self.probe.passes()
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            self.asked += 1
            self.failed += not passed
            self._run = 0 if passed else self._run + 1
            self.worst_run = max(self.worst_run, self._run)
            self._stopped.wait(max(began_s + self.probe.period_s - time.monotonic(), 0.0))


@dataclass(frozen=True)
class Pod:
    """A pod that passed its startup probe, with its two other probes at work."""

    spec: Obj
    running: Container
    started: Started
    watches: dict[str, Watch]


class Ending:
    """The end of a pod: preStop, SIGTERM, and SIGKILL when the grace period is over."""

    def __init__(self, spec: Obj, running: Container) -> None:
        (self._container,) = spec["containers"]
        self._grace_s = float(spec["terminationGracePeriodSeconds"])
        self._running = running
        self._began_s = time.monotonic()
        self.killed = False

    @property
    def age_s(self) -> float:
        """Seconds since the pod was deleted."""
        return time.monotonic() - self._began_s

    def pre_stop(self) -> None:
        """Run the hook that the template has; only `sleep` is known here."""
        time.sleep(self._container["lifecycle"]["preStop"]["sleep"]["seconds"])

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._running.signal(signal.SIGTERM)

    def await_exit(self) -> int:
        """Wait for the end within what is left, then kill; return the exit code."""
        self.killed = not self._running.wait(max(self._grace_s - self.age_s, LEAST_ENDING_S))
        if self.killed:
            self._running.end()
        code = self._running.exit_code
        assert code is not None, "it has ended"
        return code


def termination_message(running: Container) -> str:
    """Return what the container's status says of a failed end with FallbackToLogsOnError."""
    end = running.log.read_bytes()[-MESSAGE_BYTES:].decode(errors="replace")
    return "\n".join(end.splitlines()[-MESSAGE_LINES:])
