"""Kill -9 `weir serve` at a random moment of a canary, and see what comes back.

Real model servers, real traffic, the real state file. Every round kills twice: after the first
the same revision, attempt and step must be back at no higher weight, with the evidence of the
last sync; after the second the canary must be at 0. Every fifth round waits for a brake to trip
instead and kills at once: it must stay tripped.
Usage: run.py [--rounds 50] [--seed 1]. Prints a line for each round; exits 1 at a violation.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from weir_core.evidence import ASSIGNED, Tally
from weir_lab import questions
from weir_router.client import Failure, Pool

MANIFESTS = """
apiVersion: inference.weir.dev/v1alpha1
kind: ModelBackend
metadata: {{name: small}}
spec:
  model: {{servedName: small}}
  capabilities: [Chat, Logprobs, StructuredOutput]
  external: {{url: "{small}"}}
---
apiVersion: inference.weir.dev/v1alpha1
kind: ModelBackend
metadata: {{name: large}}
spec:
  model: {{servedName: large}}
  capabilities: [Chat, Logprobs, StructuredOutput]
  external: {{url: "{large}"}}
---
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {{name: assistant}}
spec:
  modelNames: [assistant]
  behaviour:
    deadline: {deadline}
    tiers:
    - {{name: small, backendRef: {{name: small}}, maxTokens: {tokens},
       accept: [{{name: whole, type: Finish}}]}}
    - {{name: large, backendRef: {{name: large}}}}
  monitoring:
    objectives:
    - {{name: errors, event: Error}}
    - {{name: load, event: Escalated}}
  rollout:
    steps: [{{setWeight: 10}}, {{hold: {{minRequests: 120}}}}, {{setWeight: 25}},
            {{hold: {{minRequests: 240}}}}, {{setWeight: 50}}, {{pause: {{}}}}]
"""
KEY = "default/assistant"


class Weir:
    """One `weir serve` after another on the same files and ports."""

    def __init__(self, folder: Path, small: str, large: str) -> None:
        self.folder = folder
        self.state = folder / "state.json"
        self._backends = {"small": small, "large": large}
        self.port, self.admin = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, *, deadline: str, tokens: int = 32) -> None:
        """Write the manifests; another deadline is another revision."""
        text = MANIFESTS.format(deadline=deadline, tokens=tokens, **self._backends)
        beside = self.folder / "route.new"
        beside.write_text(text)
        beside.replace(self.folder / "route.yaml")

    def start(self) -> None:
        """Start and wait until it serves."""
        command = [sys.executable, "-m", "weir_cli", "serve", "--config", str(self.folder)]
        command += ["--state", str(self.state), "--log-level", "error"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not self._process.stdout.readline().startswith(b"listening"):
            raise RuntimeError("weir serve did not start")

    def kill(self) -> None:
        """Kill -9 and wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def status(self) -> dict[str, Any]:
        """Return the route's status."""
        address = f"http://127.0.0.1:{self.admin}/weir/v1/status"
        with urllib.request.urlopen(address, timeout=5) as reply:
            found: dict[str, Any] = json.load(reply)["routes"][KEY]
        return found

    def saved(self) -> dict[str, Any]:
        """Return the route's part of the state file, and its tallies."""
        saved = json.loads(self.state.read_bytes())
        return {**saved["routes"][KEY]["state"], "tallies": saved["tallies"]}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.asynccontextmanager
async def load(port: int, chance: random.Random) -> AsyncIterator[None]:
    """Ask real questions, eight at a time, until the end of the block."""
    asked = questions.load()
    pool = Pool(f"http://127.0.0.1:{port}")

    async def one() -> None:
        while True:
            body = json.dumps(chance.choice(asked).body("assistant")).encode()
            fields = [(b"content-type", b"application/json")]
            path = b"/v1/chat/completions"
            found = await pool.fetch(b"POST", path, fields, body, timeout_ms=5_000)
            if isinstance(found, Failure):
                await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(one()) for _ in range(8)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await pool.aclose()


async def until(what: str, look: Any, *, seconds: float = 15) -> Any:
    """Return the first true thing that `look` sees; RuntimeError when none comes."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        found = await asyncio.to_thread(look)
        if found:
            return found
        await asyncio.sleep(0.02)
    raise RuntimeError(f"waited {seconds} s for {what}")


def percent(status: dict[str, Any]) -> float:
    """Return the weight that a status tells."""
    return float(status["weight"]["set"].rstrip("%"))


def compare(saved: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what is wrong after the first kill."""
    wrong = []
    if after["canary"]["revision"] != saved["canary"]:
        wrong.append(f"canary {after['canary']['revision']}, was {saved['canary']}")
    if after["canary"]["attempt"] != saved["attempt"]:
        wrong.append(f"attempt {after['canary']['attempt']}, was {saved['attempt']}")
    if after["step"]["index"] - 1 < saved["step"]:
        wrong.append(f"step {after['step']['index'] - 1}, was {saved['step']}")
    if percent(after) * 100 > saved["weight_bp"]:
        wrong.append(f"weight {percent(after)}%, was {saved['weight_bp'] / 100}%")
    kept = sum(after["evidence"].get("assigned", {}).values())
    known = assigned(saved["tallies"])
    if kept != known:
        wrong.append(f"evidence of {kept} requests, {known} were synced")
    return wrong


def assigned(tallies: list[dict[str, Any]]) -> int:
    """Return how many requests the saved tallies count as assigned."""
    rows = [
        part.counts
        for tally in msgspec.convert(tallies, list[Tally])
        for part in (*tally.epochs, *tally.cells)
    ]
    return sum(row[ASSIGNED] + row[ASSIGNED + 1] for row in rows)


async def killed_in_canary(weir: Weir, chance: random.Random) -> tuple[str, list[str]]:
    """Kill twice in one attempt; the load rests while it comes back, so that nothing is added."""
    async with load(weir.port, chance):
        weir.write(deadline="9s")
        await until("the canary", lambda: percent(weir.status()) > 0)
        await asyncio.sleep(chance.uniform(0, 4))
        before = weir.status()
        weir.kill()
    saved = weir.saved()
    weir.start()
    after = weir.status()
    wrong = compare(saved, after)
    if percent(after) > percent(before) and percent(after) * 100 > saved["weight_bp"]:
        wrong.append(f"weight {percent(after)}% after {percent(before)}%")
    async with load(weir.port, chance):
        await asyncio.sleep(chance.uniform(0, 0.5))
        weir.kill()
    weir.start()
    last = await until("the second end", lambda: weir.status())
    if percent(last) != 0 or last["phase"] != "Degraded":
        wrong.append(f"after two unclean ends: {last['phase']} at {percent(last)}%")
    return f"step {saved['step']}, {saved['weight_bp'] / 100:g}%", wrong


async def killed_after_trip(weir: Weir, chance: random.Random) -> tuple[str, list[str]]:
    """Let a bad canary trip the brake and kill at once."""
    async with load(weir.port, chance):
        weir.write(deadline="9s", tokens=6)
        await until("the trip", lambda: weir.status()["phase"] == "Degraded", seconds=30)
        await asyncio.sleep(chance.uniform(0, 0.05))
        weir.kill()
    weir.start()
    after = weir.status()
    wrong = []
    if after["phase"] != "Degraded" or percent(after) != 0:
        wrong.append(f"after a trip: {after['phase']} at {percent(after)}%")
    return "tripped", wrong


async def rounds(count: int, seed: int, small: str, large: str) -> int:
    """Run all rounds; return how many had something wrong."""
    chance, bad = random.Random(seed), 0
    for number in range(1, count + 1):
        with tempfile.TemporaryDirectory() as name:
            weir = Weir(Path(name), small, large)
            weir.write(deadline="10s")
            weir.start()
            deed = killed_after_trip if number % 5 == 0 else killed_in_canary
            moment, wrong = await deed(weir, chance)
            weir.kill()
        bad += bool(wrong)
        print(f"{number:3} {moment:<18} {'; '.join(wrong) or 'ok'}", flush=True)
    return bad


@contextlib.contextmanager
def model(size: str) -> Any:
    """Run one model server for the time of the block; give its URL."""
    command = [sys.executable, "-m", "weir_lab.modelserver", "--model", size, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def main() -> int:
    """Print a line for each round; 1 if any of them found something wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    os.environ["PYTHONUNBUFFERED"] = "1"
    with model("small") as small, model("large") as large:
        bad = asyncio.run(rounds(args.rounds, args.seed, small, large))
    print(f"{args.rounds - bad} of {args.rounds} rounds as promised")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
