"""Measure what forwarding a request costs, beside no router, in one run on one machine.

The router has one core, upstream and wrk share another. CPU time of the router's process is
robust to a busy machine; requests/s are not, so their ratio to no router is of interleaved
rounds. Needs wrk and go. Usage: run.py [--rounds 3] [--seconds 5] [--connections 32]
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROUTER_CORE, LOAD_CORE = 0, 1
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CASES = {
    "300 bytes": "",
    "32 logprobs": '"logprobs":true',
    "stream of 64": '"stream":true',
}
"""Name, and what the request's body has besides."""


class Round(NamedTuple):
    """One run of wrk. `cpu_us` is of the router for each request, 0 without one."""

    requests_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us: float


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def pinned(core: int, *command: str) -> list[str]:
    """Return the command as it runs on one core."""
    return ["taskset", "-c", str(core), *command]


@contextmanager
def running(port: int, *command: str) -> Iterator[int]:
    """Run a server until the end of the block; give its process id once it listens."""
    with subprocess.Popen(command) as process:
        try:
            await_port(port, process)
            yield process.pid
        finally:
            process.terminate()


def await_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Return when somebody listens; raise RuntimeError after ten seconds."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r}: does not listen on port {port}")


def load(port: int, fields: str, seconds: float, connections: int, pid: int | None) -> Round:
    """Run wrk once; `pid` is the router's."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    duration = f"-d{seconds:g}s" if seconds >= 1 else "-d1s"
    command = ["wrk", "-t1", f"-c{connections}", duration, "-s", str(HERE / "post.lua"), url]
    before_s = cpu_s(pid) if pid else 0.0
    out = subprocess.run(
        pinned(LOAD_CORE, *command),
        env={**os.environ, "WRK_FIELDS": fields},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    used_s = (cpu_s(pid) if pid else 0.0) - before_s
    line = next(line for line in out.splitlines() if line.startswith("RESULT"))
    count, duration_us, p50_us, p99_us, errors = (int(word) for word in line.split()[1:])
    rate = count / (duration_us / 1e6)
    return Round(rate, p50_us / 1e3, p99_us / 1e3, errors, used_s / max(count, 1) * 1e6)


def median(rounds: list[Round]) -> Round:
    """Return the median of each column, and the sum of the errors."""
    columns = list(zip(*rounds, strict=True))
    rate, p50, p99, _, cpu = (statistics.median(column) for column in columns)
    return Round(rate, p50, p99, sum(columns[3]), cpu)


def measure(ports: dict[str, tuple[int, int | None]], args: argparse.Namespace) -> None:
    """Print a row for each case and each way to the upstream."""
    print(f"{'case':<14}{'way':<12}{'req/s':>9}{'ratio':>8}{'CPU µs':>9}{'p50 ms':>9}{'p99 ms':>9}")
    for case, fields in CASES.items():
        rounds: dict[str, list[Round]] = {way: [] for way in ports}
        for port, pid in ports.values():
            load(port, fields, 1, args.connections, pid)
        for _ in range(args.rounds):
            for way, (port, pid) in ports.items():
                rounds[way].append(load(port, fields, args.seconds, args.connections, pid))
        direct = median(rounds["no router"])
        for way, kept in rounds.items():
            one = median(kept)
            ratio = direct.requests_s / one.requests_s
            cpu = f"{one.cpu_us:.1f}" if one.cpu_us else ""
            row = f"{case:<14}{way:<12}{one.requests_s:>9,.0f}{ratio:>8.2f}{cpu:>9}"
            print(f"{row}{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}", flush=True)
            if one.errors:
                print(f"    {one.errors} errors: the row does not count")


def main() -> None:
    """Build the upstream, start it and the forward, measure both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=32)
    args = parser.parse_args()
    for tool in ("wrk", "go", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool}: wanted on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        mock = str(Path(folder) / "mock")
        subprocess.run(["go", "build", "-o", mock, "."], cwd=HERE / "mock", check=True)
        up, own = free_port(), free_port()
        upstream = pinned(LOAD_CORE, mock, f"127.0.0.1:{up}")
        forward = [sys.executable, str(HERE / "forward.py"), str(own), f"http://127.0.0.1:{up}"]
        with running(up, *upstream), running(own, *pinned(ROUTER_CORE, *forward)) as pid:
            measure({"no router": (up, None), "forward": (own, pid)}, args)


if __name__ == "__main__":
    main()
