"""What keeps `weir serve` from starting, and a real start and end."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from weir_cli.arguments import parser
from weir_cli.serve import settings_of

HOSTED = Path(__file__).parents[2] / "hack" / "examples" / "hosted.yaml"
ANY_PORT = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")


def settings(*words):
    return settings_of(parser(prog="weir", env={}).parse_args(["serve", *words]))


def test_state_stands_beside_the_manifests(tmp_path):
    assert settings("--config", str(tmp_path)).state == tmp_path / ".weir" / "state.json"


def test_addresses_may_be_ipv6(tmp_path):
    told = settings("--config", str(tmp_path), "--listen", "[::1]:9000", "--admin", "a.b:0")
    assert (told.host, told.port) == ("::1", 9000)
    assert (told.admin_host, told.admin_port) == ("a.b", 0)


def test_keys_must_be_a_folder(weir_command, tmp_path):
    ran = weir_command("serve", "--config", str(tmp_path), "--keys", str(tmp_path / "none"))
    assert ran.code == 2
    assert ran.err.startswith("weir: --keys: saw ")


def test_taken_port_is_told_in_one_line(weir_command, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = weir_command("serve", "--config", str(tmp_path), "--listen", place)
    assert ran.code == 1
    assert ran.err == f"weir: --listen: cannot listen on {place}: address already in use\n"


def started(*words):
    command = [sys.executable, "-m", "weir_cli", "serve", *ANY_PORT, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_strange_state_file_is_left_alone(tmp_path):
    state = tmp_path / "state.json"
    state.write_text("not ours")
    process = started("--config", str(tmp_path), "--state", str(state))
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "move it away to start with no history" in err
    assert "Traceback" not in err
    assert state.read_text() == "not ours"


@pytest.fixture
def served(tmp_path):
    """Serve an example beside a broken file; give the process and its management address."""
    (tmp_path / "good.yaml").write_text(HOSTED.read_text())
    (tmp_path / "bad.yaml").write_text("kind: Unknown\n")
    process = started("--config", str(tmp_path))
    first = process.stdout.readline()
    yield process, re.search(r"management on (\S+)", first)[1]
    process.kill()
    process.communicate()


def test_good_routes_are_served_beside_bad_ones_until_told_to_end(served, weir_command):
    process, server = served
    ran = weir_command("get", "--server", server)
    assert ran.out.splitlines()[1].split()[:2] == ["assistant", "Healthy"]
    assert ran.err.startswith("problem: bad.yaml:1: Unknown")
    assert weir_command("describe", "assistant", "--server", server).code == 0
    assert "assistant" in weir_command("watch", "--once", "--server", server).out
    words = ("explain", "--model", "assistant", "--header", "x-weir-risk=low")
    assert "small-instruct" in weir_command(*words, "--server", server).out
    refused = weir_command("rollout", "abort", "assistant", "--revision", "x", "--server", server)
    assert (refused.code, refused.out[:8]) == (1, "Refused:")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "problem in the configuration" in err
    assert "Traceback" not in err


def test_interrupt_is_answered_with_a_line_and_an_orderly_end(served):
    process, _ = served
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    stopping, stopped = err.splitlines()[-2:]
    assert "stopping; interrupt again to stop at once in_flight=0" in stopping
    assert " stopped " in stopped


SILENT = """\
apiVersion: inference.weir.dev/v1alpha1
kind: ModelBackend
metadata: {name: silent}
spec: {model: {servedName: m}, external: {url: "http://127.0.0.1:%d"}}
---
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {name: silent}
spec:
  modelNames: [silent]
  behaviour: {deadline: 5m, tiers: [{name: one, backendRef: {name: silent}}]}
"""
QUESTION = b'{"model": "silent", "messages": [{"role": "user", "content": "hello"}]}'


@pytest.fixture
def asked(tmp_path):
    """Serve with one request in flight, to a backend that never answers; give the process."""
    with socket.create_server(("127.0.0.1", 0)) as backend:
        (tmp_path / "silent.yaml").write_text(SILENT % backend.getsockname()[1])
        process = started("--config", str(tmp_path))
        port = int(re.search(r"listening on http://127.0.0.1:(\d+)", process.stdout.readline())[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
            client.sendall(head % len(QUESTION) + QUESTION)
            with backend.accept()[0]:
                yield process
        process.kill()
        process.communicate()


def test_second_interrupt_waits_for_no_request(asked):
    asked.send_signal(signal.SIGINT)
    while "stopping" not in (line := asked.stderr.readline()):
        assert line, "it ended without a word"
    assert "in_flight=1" in line
    asked.send_signal(signal.SIGINT)
    _, err = asked.communicate(timeout=25)
    assert asked.returncode == 0
    assert " stopped " in err
