"""Measure the whole router, all policies on, beside a bare forward and no router, in one run.

One core for the router, another for upstream and wrk. `weir serve` is the product as it stands,
with a canary at 5 % that is kept there by a pause. Needs wrk and go.
Usage: run.py [--rounds 3] [--seconds 5] [--connections 32] [--only NAME]
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HTTP = HERE.parent / "http"
_spec = importlib.util.spec_from_file_location("http_bench", HTTP / "run.py")
assert _spec is not None
assert _spec.loader is not None
http: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(http)

BACKEND = """
apiVersion: inference.weir.dev/v1alpha1
kind: ModelBackend
metadata: {{name: {name}}}
spec:
  model: {{servedName: tiny}}
  capabilities: [Chat, Tools, StructuredOutput, Logprobs]
  contextWindow: 32768
  pricing: {{inputPerMillionTokens: "0.05", outputPerMillionTokens: "0.20"}}
  external: {{url: "{url}"}}
  limits: {{maxInFlight: 1024}}
---
"""
CALIBRATION = """
apiVersion: v1
kind: ConfigMap
metadata: {name: cal}
data:
  calibration.json: >-
    {"version": 1, "method": "Logprob", "features": {"sum": 0.01, "min": 0.1}, "intercept": 9.0}
---
"""
FORWARD = """
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {name: bench}
spec:
  modelNames: [tiny]
  behaviour:
    deadline: 30s
    tiers: [{name: only, backendRef: {name: small}}]
  monitoring: {objectives: [{name: errors, event: Error}]}
"""
POLICIES = """
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {{name: bench}}
spec:
  modelNames: [tiny]
  behaviour:
    deadline: {deadline}
    budget: {{maxCostPerRequest: "0.02"}}
    tiers:
    - name: small
      backendRef: {{name: small}}
      timeout: 6s
      accept:
      - {{name: whole, type: Finish}}
      - {{name: format, type: Schema}}
{confidence}
    - {{name: large, backendRef: {{name: large}}}}
    rules:
    - {{name: hurry, when: "deadline_ms < 2000 && prompt_tokens < 500", start: small, end: small}}
    - {{name: tools, when: "has_tools && turns > 20", start: large}}
    fallback: {{causes: [Connect, Timeout, Overload, ServerError, BrokenStream],
                backendRefs: [{{name: large}}]}}
  monitoring:
    monitors: [{{name: json, type: Schema}}, {{name: card, type: Pattern,
                mustNotMatch: "[0-9]{{4}}-[0-9]{{4}}-[0-9]{{4}}-[0-9]{{4}}"}}]
    objectives:
    - {{name: errors, event: Error, share: 2}}
    - {{name: format, event: Invalid, monitor: json}}
    - {{name: safety, event: Violation, monitor: card}}
    - {{name: ttft, event: Slow, of: TimeToFirstToken, over: 800ms}}
    - {{name: load, event: Escalated, maxRatio: "1.5", mode: Hold}}
  rollout:
    assignment: {{unit: Session}}
    steps: [{{setWeight: 5}}, {{pause: {{}}}}]
"""
SURE = (
    "      - {name: sure, type: Confidence, method: Logprob, minProbability: '0.5', "
    "calibrationRef: {name: cal}}"
)
WAYS = {
    "forward only": (FORWARD, "", "300 bytes"),
    "all policies": (POLICIES, "", "300 bytes"),
    "confidence, 20 tokens": (POLICIES, SURE, "20 logprobs"),
    "confidence, 200 tokens": (POLICIES, SURE, "200 logprobs"),
}
http.CASES = {
    "300 bytes": "",
    "20 logprobs": '"max_completion_tokens":20',
    "200 logprobs": '"max_completion_tokens":200',
}


def write(folder: Path, route: str, confidence: str, url: str, deadline: str) -> None:
    """Write the manifests of one way."""
    backends = BACKEND.format(name="small", url=url) + BACKEND.format(name="large", url=url)
    text = route.format(deadline=deadline, confidence=confidence) if "{{" in route else route
    (folder / "route.yaml").write_text(backends + CALIBRATION + textwrap.dedent(text))


@contextmanager
def weir(folder: Path, url: str, name: str) -> Iterator[tuple[int, int]]:
    """Serve one way with a canary under way; give its port and process id."""
    route, confidence, _ = WAYS[name]
    write(folder, route, confidence, url, "30s")
    port, admin = http.free_port(), http.free_port()
    command = [sys.executable, "-m", "weir_cli", "serve", "--config", str(folder)]
    command += ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
    with http.running(port, *http.pinned(http.ROUTER_CORE, *command)) as pid:
        if route is POLICIES:
            write(folder, route, confidence, url, "29s")
            await_weight(admin)
        yield port, pid


def await_weight(admin: int) -> None:
    """Return when the canary has its traffic; raise RuntimeError after ten seconds."""
    for _ in range(100):
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/weir/v1/status") as reply:
            status = json.load(reply)["routes"]["default/bench"]
        if status["weight"]["set"] == "5%":
            return
        time.sleep(0.1)
    raise RuntimeError(f"no canary came: {status['message']}")


def measure(name: str, ports: dict[str, tuple[int, int | None]], args: argparse.Namespace) -> None:
    """Print the rows of one way and of no router, from interleaved rounds."""
    fields = http.CASES[WAYS[name][2]]
    rounds: dict[str, list[Any]] = {way: [] for way in ports}
    for port, pid in ports.values():
        http.load(port, fields, 1, args.connections, pid)
    for _ in range(args.rounds):
        for way, (port, pid) in ports.items():
            rounds[way].append(http.load(port, fields, args.seconds, args.connections, pid))
    for way, kept in rounds.items():
        one = http.median(kept)
        cpu = f"{one.cpu_us:.0f}" if one.cpu_us else ""
        row = f"{way:<24}{one.requests_s:>9,.0f}{cpu:>9}{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}"
        print(row + (f"   {one.errors} errors" if one.errors else ""), flush=True)


def main() -> None:
    """Build the upstream and measure every way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--only", choices=WAYS)
    args = parser.parse_args()
    print(f"{'way':<24}{'req/s':>9}{'CPU µs':>9}{'p50 ms':>9}{'p99 ms':>9}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mock = str(folder / "mock")
        subprocess.run(["go", "build", "-o", mock, "."], cwd=HTTP / "mock", check=True)
        up = http.free_port()
        stack.enter_context(http.running(up, *http.pinned(http.LOAD_CORE, mock, f"127.0.0.1:{up}")))
        for number, name in enumerate([args.only] if args.only else WAYS):
            config = folder / str(number)
            config.mkdir()
            with weir(config, f"http://127.0.0.1:{up}", name) as (port, pid):
                measure(name, {"no router": (up, None), name: (port, pid)}, args)


if __name__ == "__main__":
    main()
