"""SIGTERM at the worst moment: requests finish, audits are dropped and counted, state is saved."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from support.upstream import DONE, chunk, completion
from weir_core.evidence import AUDITS_BEGUN, AUDITS_DROPPED, AUDITS_ENDED, Tally

BACKENDS = """
apiVersion: inference.weir.dev/v1alpha1
kind: ModelBackend
metadata: {{name: {name}}}
spec:
  model: {{servedName: {name}}}
  external: {{url: "{url}"}}
---
"""
ROUTE = """
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {{name: assistant}}
spec:
  modelNames: [assistant]
  behaviour:
    deadline: 20s
    tiers:
    - {{name: small, backendRef: {{name: {small}}}}}
    - {{name: large, backendRef: {{name: large}}}}
  monitoring:
    audits: {{duringRollout: 100, reference: large}}
    objectives: [{{name: errors, event: Error}}, {{name: quality, event: Harm}}]
  rollout: {{steps: [{{setWeight: 50}}, {{pause: {{}}}}]}}
"""
ASK = {"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}


class Quiet(ThreadingHTTPServer):
    """A server whose clients may go."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


class Models:
    """The model servers: `small` answers, `broken` fails, `large` leaves audits waiting.

    Streams and held failures go on once `go` is set.
    """

    def __init__(self) -> None:
        self.go = threading.Event()
        self.holding = False
        self.held = self.audited = self.streams = 0
        owner = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with contextlib.suppress(ConnectionError):
                    owner.answer(self, body)

            def log_message(self, *args: Any) -> None:
                """Stay silent."""

        self.server = Quiet(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if to.headers["x-request-id"] == "audit":
            self.audited += 1
            time.sleep(30)
        elif body["model"] == "broken":
            if self.holding:
                self.held += 1
                turn = self.held
                self.go.wait(20)
                time.sleep(turn * 0.01)  # So many at once would be more than may move elsewhere.
            self.whole(to, 500, {"error": {"message": "broken"}})
        elif body.get("stream"):
            self.stream(to)
        else:
            self.whole(to, 200, completion(body["model"]))

    def whole(self, to: BaseHTTPRequestHandler, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        to.send_response(status)
        to.send_header("content-type", "application/json")
        to.send_header("content-length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)

    def stream(self, to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.send_header("content-type", "text/event-stream")
        to.send_header("connection", "close")
        to.end_headers()
        to.wfile.write(chunk("first "))
        to.wfile.flush()
        self.streams += 1
        self.go.wait(20)
        to.wfile.write(chunk("last", finish="stop") + DONE)
        to.close_connection = True


class Weir:
    """One process of `weir serve`."""

    def __init__(self, process: subprocess.Popen[str], line: str) -> None:
        self.process = process
        self.front, self.admin = line.split()[2].rstrip(","), line.split()[-1]

    def route(self) -> Any:
        with urllib.request.urlopen(f"{self.admin}/weir/v1/status", timeout=5) as reply:
            return json.load(reply)["routes"]["default/assistant"]

    def ask(self, **changes: Any) -> tuple[int, bytes]:
        parts = urlsplit(self.front)
        line = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=25)
        with contextlib.closing(line):
            line.request("POST", "/v1/chat/completions", json.dumps(ASK | changes))
            reply = line.getresponse()
            return reply.status, reply.read()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def serve(config: Path) -> Iterator[Weir]:
    command = [sys.executable, "-m", "weir_cli", "serve", "--config", str(config)]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "error"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONWARNINGS": "error"}
    ) as process:
        assert process.stdout is not None
        try:
            yield Weir(process, process.stdout.readline())
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)


class Clients:
    """Requests in threads of their own."""

    def __init__(self, weir: Weir, count: int, **changes: Any) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(weir, changes), daemon=True)
            for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, weir: Weir, changes: dict[str, Any]) -> None:
        self.answers.append(weir.ask(**changes))

    def all(self) -> list[tuple[int, bytes]]:
        for thread in self._threads:
            thread.join(25)
        return self.answers


def until(look: Callable[[], Any], seconds: float = 20) -> Any:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s in vain")


@pytest.fixture
def models() -> Iterator[Models]:
    one = Models()
    yield one
    one.go.set()
    one.server.shutdown()
    one.server.server_close()


def write(config: Path, models: Models, small: str) -> None:
    names = ("small", "broken", "large")
    backends = "".join(BACKENDS.format(name=name, url=models.url) for name in names)
    (config / "route.yaml").write_text(backends + ROUTE.format(small=small))


def saved(config: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((config / ".weir" / "state.json").read_text())
    return state


def audits(state: dict[str, Any]) -> dict[str, int]:
    """Return what the tallies of a saved state count of audits."""
    tallies = msgspec.convert(state["tallies"], list[Tally])
    rows = [part.counts for one in tallies for part in (*one.epochs, *one.cells)]
    names = {"begun": AUDITS_BEGUN, "ended": AUDITS_ENDED, "dropped": AUDITS_DROPPED}
    return {name: sum(row[place] for row in rows) for name, place in names.items()}


def test_a_stream_ends_whole_audits_are_dropped_and_a_trip_is_remembered(
    tmp_path: Path, models: Models
) -> None:
    """All at once: a stream in flight, audits in flight, and a brake that has just tripped."""
    write(tmp_path, models, "small")
    with serve(tmp_path) as weir:
        stable = weir.route()["stable"]["revision"]
        streams = Clients(weir, 3, stream=True)
        until(lambda: models.streams == 3)
        write(tmp_path, models, "broken")
        canary = until(lambda: weir.route()["canary"]["revision"])
        until(lambda: weir.route()["weight"]["set"] == "50%")
        clients = []
        while not weir.route()["lastRollback"]:
            clients.append(Clients(weir, 8))
            assert {status for status, _ in clients[-1].all()} == {200}
        until(lambda: models.audited)
        weir.terminate()
        time.sleep(0.3)

        assert weir.process.poll() is None
        with pytest.raises(ConnectionError):
            weir.ask()
        assert streams.answers == []
        models.go.set()
        for status, body in streams.all():
            assert status == 200
            assert body.endswith(chunk("last", finish="stop") + DONE)
        assert weir.process.wait(20) == 0

    assert saved(tmp_path)["clean"]
    with serve(tmp_path) as weir:
        assert weir.route()["stable"]["revision"] == stable
        assert weir.route()["lastRollback"]["revision"] == canary
        assert weir.route()["weight"]["set"] == "0%"
        assert weir.ask()[0] == 200
        weir.terminate()
        assert weir.process.wait(20) == 0


def test_audits_in_flight_are_dropped_and_counted_as_dropped(
    tmp_path: Path, models: Models
) -> None:
    """Every request of the rollout is audited, and no reference ever answers."""
    write(tmp_path, models, "small")
    with serve(tmp_path) as weir:
        weir.route()
        write(tmp_path, models, "large")
        until(lambda: weir.route()["weight"]["set"] == "50%")
        assert {status for status, _ in Clients(weir, 12).all()} == {200}
        until(lambda: models.audited)
        assert audits(saved(tmp_path))["dropped"] == 0
        weir.terminate()
        assert weir.process.wait(20) == 0

    counted = audits(saved(tmp_path))
    assert counted["begun"] == counted["ended"] + counted["dropped"] == 12
    assert counted["dropped"] >= 1


def test_a_brake_that_trips_while_the_process_ends_is_remembered(
    tmp_path: Path, models: Models
) -> None:
    """The canary's failures come only after SIGTERM: each request is healed, the trip is kept."""
    write(tmp_path, models, "small")
    models.holding = True
    with serve(tmp_path) as weir:
        stable = weir.route()["stable"]["revision"]
        write(tmp_path, models, "broken")
        until(lambda: weir.route()["canary"]["revision"])
        until(lambda: weir.route()["weight"]["set"] == "50%")
        clients = Clients(weir, 80)
        until(lambda: models.held + len(clients.answers) == 80)
        assert models.held > 20
        assert not weir.route()["lastRollback"]
        weir.terminate()
        time.sleep(0.3)
        models.go.set()

        assert {status for status, _ in clients.all()} == {200}
        assert len(clients.answers) == 80
        assert weir.process.wait(20) == 0
    with serve(tmp_path) as weir:
        assert weir.route()["lastRollback"]["reason"]
        assert weir.route()["stable"]["revision"] == stable
        assert weir.route()["weight"]["set"] == "0%"
        weir.terminate()
        assert weir.process.wait(20) == 0
