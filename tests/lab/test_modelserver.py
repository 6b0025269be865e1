"""The contract of the model server: a real process, real sockets, raw HTTP."""

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from weir_lab import questions

QUESTION = questions.load()[0]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


class Client:
    """One server's address, and one connection a request."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request(method, path, body)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def post(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        status, data = self.send("POST", path, json.dumps({"model": "small"} | body).encode())
        return status, json.loads(data)

    def chat(self, **more: Any) -> dict[str, Any]:
        status, reply = self.post(CHAT, **QUESTION.body("small", **more))
        assert status == 200, reply
        return reply

    def events(self, path: str, **body: Any) -> list[Any]:
        status, data = self.send("POST", path, json.dumps(body | {"stream": True}).encode())
        assert status == 200
        parts = data.decode().split("\n\n")
        assert parts[-2:] == ["data: [DONE]", ""]
        return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]

    def metrics(self) -> str:
        return self.send("GET", "/metrics")[1].decode()


@contextmanager
def serving(*arguments: str) -> Iterator[Client]:
    command = [sys.executable, "-m", "weir_lab.modelserver", "--model", "small", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            host, port = line.removeprefix("listening on http://").split(":")
            yield Client(host, int(port))
        finally:
            process.terminate()
            assert process.wait(timeout=10) in (0, -15)


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    with serving("--max-batch", "4") as client:
        yield client


def test_a_chat_reply_has_the_openai_shape(server: Client) -> None:
    reply = server.chat()
    [choice] = reply["choices"]
    assert reply["object"] == "chat.completion"
    assert reply["id"].startswith("chatcmpl-")
    assert reply["model"] == "small"
    assert choice["message"]["role"] == "assistant"
    assert isinstance(json.loads(choice["message"]["content"])["intent"], str)
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)


def test_usage_adds_up(server: Client) -> None:
    reply = server.chat(logprobs=True)
    used, [choice] = reply["usage"], reply["choices"]
    assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]
    assert used["completion_tokens"] == len(choice["logprobs"]["content"])


def test_chat_logprobs_name_each_token_and_its_alternatives(server: Client) -> None:
    [choice] = server.chat(logprobs=True, top_logprobs=2)["choices"]
    content = choice["logprobs"]["content"]
    spelled = b"".join(bytes(entry["bytes"]) for entry in content[:-1]).decode()
    assert spelled == choice["message"]["content"]
    assert content[-1]["token"] == "<|end|>"
    for entry in content:
        assert entry["logprob"] <= 0
        assert entry["top_logprobs"][0]["token"] == entry["token"]
        assert len(entry["top_logprobs"]) == 2


def test_a_completion_is_framed_as_one_question(server: Client) -> None:
    status, reply = server.post(TEXT, prompt=QUESTION.text, max_tokens=32, logprobs=2)
    [choice] = reply["choices"]
    assert (status, reply["object"]) == (200, "text_completion")
    assert choice["text"] == server.chat()["choices"][0]["message"]["content"]
    told = choice["logprobs"]
    sizes = {len(told[name]) for name in told}
    assert sizes == {reply["usage"]["completion_tokens"]}
    assert told["text_offset"][:2] == [0, len(told["tokens"][0])]
    assert all(len(alternatives) == 2 for alternatives in told["top_logprobs"])


def test_a_completion_takes_token_ids_as_they_are(server: Client) -> None:
    status, reply = server.post(TEXT, prompt=[1, 2, 3], max_tokens=1)
    assert (status, reply["usage"]["prompt_tokens"]) == (200, 3)


def test_a_stream_says_what_the_whole_reply_says(server: Client) -> None:
    events = server.events(CHAT, **QUESTION.body("small", logprobs=True))
    whole = server.chat(logprobs=True)["choices"][0]
    deltas = [event["choices"][0] for event in events]
    assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
    said = "".join(choice["delta"].get("content", "") for choice in deltas)
    assert said == whole["message"]["content"]
    assert [choice["finish_reason"] for choice in deltas if choice["finish_reason"]] == ["stop"]
    told = [entry for c in deltas if c["logprobs"] for entry in c["logprobs"]["content"]]
    assert [e["token"] for e in told] == [e["token"] for e in whole["logprobs"]["content"]]


def test_a_stream_sends_a_chunk_a_token(server: Client) -> None:
    events = server.events(CHAT, **QUESTION.body("small"))
    assert len(events) == server.chat()["usage"]["completion_tokens"] + 1


def test_a_stream_ends_with_usage_where_asked(server: Client) -> None:
    options = {"include_usage": True}
    events = server.events(CHAT, **QUESTION.body("small", stream_options=options))
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == server.chat()["usage"]
    assert all(event["usage"] is None for event in events[:-1])


def test_a_completion_streams_text(server: Client) -> None:
    events = server.events(TEXT, model="small", prompt=QUESTION.text, max_tokens=32)
    said = "".join(event["choices"][0]["text"] for event in events)
    assert said == server.chat()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_eight_tokens_may_cut_the_json_and_say_so(server: Client, name: str) -> None:
    reply = server.chat(**{name: 8})
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 8


def test_a_stop_text_ends_the_answer(server: Client) -> None:
    [choice] = server.chat(stop='"}')["choices"]
    assert choice["finish_reason"] == "stop"
    assert not choice["message"]["content"].endswith('"}')


def test_text_parts_are_joined(server: Client) -> None:
    parts = [{"type": "text", "text": part} for part in ("How do I ", "top up?")]
    _, first = server.post(CHAT, messages=[{"role": "user", "content": parts}])
    _, second = server.post(CHAT, messages=[{"role": "user", "content": "How do I top up?"}])
    assert first["choices"] == second["choices"]


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_a_response_format_keeps_to_known_intents(server: Client, kind: str) -> None:
    chosen = {"type": kind, "json_schema": {"name": "intent", "schema": {}}}
    more = {"response_format": chosen, "temperature": 2.0, "seed": 5}
    text = server.chat(**more)["choices"][0]["message"]["content"]
    assert json.loads(text).keys() == {"intent"}


REFUSED = {
    "no model": ({"model": None}, 400, "model"),
    "another model": ({"model": "gpt"}, 404, "model"),
    "no messages": ({"messages": []}, 400, "messages"),
    "an unknown role": ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role"),
    "no text": ({"messages": [{"role": "user"}]}, 400, "messages[0].content"),
    "two answers": ({"n": 2}, 400, "n"),
    "no tokens": ({"max_tokens": 0}, 400, "max_tokens"),
    "a temperature of 3": ({"temperature": 3}, 400, "temperature"),
    "alternatives without logprobs": ({"top_logprobs": 2}, 400, "top_logprobs"),
    "too many alternatives": ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
    "a stream that is no flag": ({"stream": "yes"}, 400, "stream"),
    "five stops": ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop"),
    "an unknown format": ({"response_format": {"type": "xml"}}, 400, "response_format"),
}


@pytest.mark.parametrize(("more", "status", "param"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_request_is_refused_by_its_field(
    server: Client, more: dict[str, Any], status: int, param: str
) -> None:
    found, reply = server.post(CHAT, **QUESTION.body("small") | more)
    assert (found, reply["error"]["param"]) == (status, param)
    assert reply["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("text", ["card " * 300, "x" * 900_000], ids=["tokens", "letters"])
def test_a_prompt_beyond_the_context_is_refused(server: Client, text: str) -> None:
    status, reply = server.post(CHAT, messages=[{"role": "user", "content": text}])
    assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", CHAT, b"{", 400),
        ("POST", CHAT, b"[]", 400),
        ("POST", CHAT, b"\xff", 400),
        ("POST", CHAT, b" " * (1 << 20) + b"{}", 413),
        ("GET", CHAT, None, 405),
        ("POST", "/v1/models", b"{}", 405),
        ("GET", "/v2", None, 404),
    ],
    ids=["cut", "a list", "no UTF-8", "too large", "GET", "POST to models", "unknown path"],
)
def test_what_is_no_request_is_refused(
    server: Client, method: str, path: str, body: bytes | None, status: int
) -> None:
    found, data = server.send(method, path, body)
    assert found == status
    assert json.loads(data)["error"]["message"]


def test_health_and_models_answer(server: Client) -> None:
    assert server.send("GET", "/health") == (200, b"")
    [model] = json.loads(server.send("GET", "/v1/models")[1])["data"]
    assert (model["id"], model["object"]) == ("small", "model")


def test_metrics_count_finished_requests(server: Client) -> None:
    line = 'vllm:request_success_total{model_name="small",finished_reason="stop"}'
    server.chat()
    before = int(server.metrics().split(line)[1].split()[0])
    server.chat()
    assert int(server.metrics().split(line)[1].split()[0]) == before + 1


def test_two_requests_share_one_connection(server: Client) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    body = json.dumps(QUESTION.body("small"))
    for _ in range(2):
        connection.request("POST", CHAT, body)
        assert json.loads(connection.getresponse().read())["choices"]
    connection.close()


def test_a_name_levels_and_a_delay_are_as_told() -> None:
    with serving("--served-name", "desk", "--levels", "5", "--delay-ms", "120") as client:
        began = time.monotonic()
        status, reply = client.post(CHAT, **QUESTION.body("desk"))
        assert (status, reply["model"]) == (200, "desk")
        assert reply["system_fingerprint"].endswith("-5levels")
        assert time.monotonic() - began >= 0.12


def test_a_client_that_leaves_ends_its_request() -> None:
    with serving("--delay-ms", "5000") as client:
        body = json.dumps(QUESTION.body("small")).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection((client.host, client.port)) as gone:
            gone.sendall(head.encode() + body)
            time.sleep(0.1)  # The request is to be read before the client leaves.
        for _ in range(100):
            if 'finished_reason="abort"} 1' in client.metrics():
                return
            time.sleep(0.02)
        pytest.fail("no abort was counted within 2 s")
