"""`weir serve` as people run it: a real process, its files, its two addresses, its state."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.upstream import completion

ROUTE = """
apiVersion: inference.weir.dev/v1alpha1
kind: ModelBackend
metadata: {{name: only}}
spec:
  model: {{servedName: up}}
  external: {{url: "{url}"}}
---
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {{name: assistant}}
spec:
  modelNames: [assistant]
  behaviour:
    deadline: {deadline}
    tiers: [{{name: only, backendRef: {{name: only}}}}]
  rollout: {{steps: [{{setWeight: 50}}, {{pause: {{}}}}]}}
"""


class Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(completion("hello")).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Weir:
    """One process and the addresses that it printed."""

    def __init__(self, process: subprocess.Popen[str], line: str) -> None:
        self.process = process
        self.front, self.admin = line.split()[2].rstrip(","), line.split()[-1]

    def status(self) -> Any:
        return get(f"{self.admin}/weir/v1/status")

    def route(self) -> Any:
        return self.status()["routes"]["default/assistant"]

    def ask(self) -> str:
        body = {"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}
        return str(post(f"{self.front}/v1/chat/completions", body)["choices"][0]["message"])

    def command(self, verb: str, revision: str) -> Any:
        address = f"{self.admin}/weir/v1/routes/default/assistant/command"
        return post(address, {"verb": verb, "revision": revision})


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=5) as reply:
        return json.load(reply)


def post(address: str, body: Any) -> Any:
    data, headers = json.dumps(body).encode(), {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, data, headers), timeout=5) as reply:
        return json.load(reply)


@contextlib.contextmanager
def serve(config: Path, *, descriptors: int = 0) -> Iterator[Weir]:
    few = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"] if descriptors else []
    command = [*few, sys.executable, "-m", "weir_cli", "serve", "--config", str(config)]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "error"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONWARNINGS": "error"}
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield Weir(process, line)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(10)


def write(config: Path, url: str, deadline: str = "9s") -> None:
    (config / "route.yaml").write_text(ROUTE.format(url=url, deadline=deadline))


def until(look: Any, seconds: float = 10) -> Any:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain")


def test_a_folder_is_served(tmp_path: Path, url: str) -> None:
    write(tmp_path, url)
    with serve(tmp_path) as weir:
        assert "hello" in weir.ask()
        assert weir.route()["phase"] == "Healthy"
        assert weir.process.poll() is None
    assert weir.process.returncode == 0


def test_a_changed_route_becomes_a_canary_and_a_command_ends_it(tmp_path: Path, url: str) -> None:
    write(tmp_path, url)
    with serve(tmp_path) as weir:
        stable = weir.route()["stable"]["revision"]
        write(tmp_path, url, deadline="8s")
        canary = until(lambda: weir.route()["canary"]["revision"])
        done = weir.command("abort", canary)

        assert done["result"] == "Done"
        assert weir.route()["phase"] == "Degraded"
        assert weir.route()["stable"]["revision"] == stable


def test_a_command_for_another_revision_is_refused(tmp_path: Path, url: str) -> None:
    write(tmp_path, url)
    with serve(tmp_path) as weir:
        assert weir.command("promote", "assistant-ffffffffff")["result"] == "Refused"


def test_a_broken_file_leaves_what_serves(tmp_path: Path, url: str) -> None:
    write(tmp_path, url)
    with serve(tmp_path) as weir:
        (tmp_path / "route.yaml").write_text("kind: [")
        problems = until(lambda: weir.status()["problems"])

        assert "route.yaml:1" in problems[0]
        assert "hello" in weir.ask()


def test_a_broken_file_leaves_what_served_before_a_restart(tmp_path: Path, url: str) -> None:
    write(tmp_path, url)
    with serve(tmp_path) as weir:
        weir.ask()
    (tmp_path / "route.yaml").write_text("kind: [")
    with serve(tmp_path) as weir:
        assert "hello" in weir.ask()


def test_a_route_taken_out_is_served_no_more(tmp_path: Path, url: str) -> None:
    write(tmp_path, url)
    with serve(tmp_path) as weir:
        (tmp_path / "route.yaml").unlink()
        until(lambda: not weir.status()["routes"])

        with pytest.raises(urllib.error.HTTPError) as refused:
            weir.ask()
        assert refused.value.code == 404
        refused.value.close()


def test_a_rolled_back_revision_does_not_come_back_with_its_route(tmp_path: Path, url: str) -> None:
    """Taken out and put back, with a restart between: it is remembered as rolled back."""
    write(tmp_path, url)
    with serve(tmp_path) as weir:
        write(tmp_path, url, deadline="8s")
        canary = until(lambda: weir.route()["canary"]["revision"])
        weir.command("abort", canary)
        (tmp_path / "route.yaml").unlink()
        until(lambda: not weir.status()["routes"])
    write(tmp_path, url, deadline="8s")
    with serve(tmp_path) as weir:
        assert weir.route()["phase"] == "Degraded"
        assert weir.route()["stable"]["revision"] != canary


def test_two_processes_do_not_share_a_state_file(tmp_path: Path, url: str) -> None:
    write(tmp_path, url)
    with serve(tmp_path):
        command = [sys.executable, "-m", "weir_cli", "serve", "--config", str(tmp_path)]
        command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

        assert second.returncode != 0
        assert "another weir serve is using it" in second.stderr


def test_a_foreign_state_file_is_never_overwritten(tmp_path: Path, url: str) -> None:
    write(tmp_path, url)
    state = tmp_path / ".weir" / "state.json"
    state.parent.mkdir()
    state.write_text("{}garbage")
    command = [sys.executable, "-m", "weir_cli", "serve", "--config", str(tmp_path)]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    assert ended.returncode != 0
    assert "move it away" in ended.stderr
    assert state.read_text() == "{}garbage"


def test_health_is_on_both_addresses_and_metrics_are_on_one(tmp_path: Path, url: str) -> None:
    write(tmp_path, url)
    with serve(tmp_path) as weir:
        weir.ask()
        health = (weir.front + "/healthz", weir.front + "/readyz", weir.admin + "/readyz")
        for address in (*health, weir.admin + "/healthz", weir.admin + "/metrics"):
            with urllib.request.urlopen(address, timeout=5) as reply:
                text = reply.read().decode()
            assert reply.status == 200
        assert 'weir_requests_total{arm="stable",code="200"' in text


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/metrics/",
        "//metrics",
        "/weir/v1/status",
        "/weir/v1/routes/default/assistant",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/",
    ],
)
def test_the_clients_address_has_model_endpoints_and_health_alone(served: Weir, path: str) -> None:
    """Whoever may ask a model may not see who else does, and may not promote a canary."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(served.front + path)
    assert refused.value.code == 404
    refused.value.close()


def test_with_few_descriptors_clients_are_refused_and_models_still_reached(
    tmp_path: Path, url: str
) -> None:
    """A hundred and sixty descriptors: some dozen clients are let in, and each is answered."""
    write(tmp_path, url)
    body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "hi"}]})
    with serve(tmp_path, descriptors=160) as weir, contextlib.ExitStack() as held:
        place = urlsplit(weir.front)
        statuses = []
        lines = []
        while 503 not in statuses:
            line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=5)
            lines.append(held.enter_context(contextlib.closing(line)))
            line.request("POST", "/v1/chat/completions", body)
            reply = line.getresponse()
            statuses.append(reply.status)
            reply.read()
        assert 10 <= statuses.count(200) <= 80
        assert 1 <= int(reply.headers["retry-after"]) <= 30
        lines[0].request("POST", "/v1/chat/completions", body)
        assert lines[0].getresponse().status == 200
        with urllib.request.urlopen(f"{weir.admin}/metrics", timeout=5) as page:
            assert "weir_connections_refused_total 1.0" in page.read().decode()


def test_no_command_is_taken_at_the_clients_address(served: Weir) -> None:
    address = f"{served.front}/weir/v1/routes/default/assistant/command"
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(address, {"verb": "abort", "revision": "x"})
    assert refused.value.code == 404
    refused.value.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[Weir]:
    """One process for tests that change nothing."""
    folder = tmp_path_factory.mktemp("served")
    write(folder, url)
    with serve(folder) as weir:
        yield weir
