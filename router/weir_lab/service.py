"""The model server's HTTP door: raw ASGI around one batch of one model.

The event loop reads, checks and writes; all arithmetic is in the batch's thread.
"""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from weir_lab import wire
from weir_lab.answers import Answer
from weir_lab.batch import Batch
from weir_lab.llama import LONGEST
from weir_lab.replies import Reply, usage
from weir_lab.tokens import Tokenizer
from weir_lab.wire import Order, RequestError

LARGEST_BODY = 1 << 20
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_READERS = {
    "/v1/chat/completions": wire.read_chat,
    "/v1/completions": wire.read_completion,
}
_PAGES = ("/v1/models", "/health", "/metrics")


@dataclass(frozen=True, slots=True)
class Served:
    """What this server is: the name it answers to, its weights' digest, its added delay."""

    name: str
    digest: str
    delay_ms: int
    since_s: int


@dataclass(slots=True)
class Counts:
    """What /metrics tells, counted on the event loop alone."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)

    def add(self, answer: Answer) -> None:
        used = usage(answer)
        self.prompt_tokens += used["prompt_tokens"]
        self.generation_tokens += used["completion_tokens"]
        self.finished[answer.finish or "abort"] += 1


class Service:
    """The ASGI application. `batch` is started and stopped by whoever builds this."""

    def __init__(self, served: Served, batch: Batch, tokenizer: Tokenizer) -> None:
        self._served, self._batch, self._tokenizer = served, batch, tokenizer
        self._counts = Counts()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        try:
            await self._route(scope, receive, send)
        except RequestError as error:
            await _reply(send, json.dumps(error.body()).encode(), status=error.status)

    async def _route(self, scope: Message, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        wanted = "POST" if path in _READERS else "GET"
        if path not in _READERS and path not in _PAGES:
            raise RequestError(f"Unknown path: {method} {path}", status=404)
        if method != wanted:
            raise RequestError(f"{path} takes {wanted}, not {method}", status=405)
        if path in _READERS:
            body = _parse(await _body(receive))
            order = _READERS[path](body, self._tokenizer, self._served.name)
            await self._answer(order, receive, send)
        elif path == "/v1/models":
            await _reply(send, json.dumps(self._models()).encode())
        elif path == "/metrics":
            await _reply(send, self._metrics().encode(), kind=b"text/plain; version=0.0.4")
        else:
            await _reply(send, b"", status=200 if self._batch.alive else 503)

    async def _answer(self, order: Order, receive: Receive, send: Send) -> None:
        if not self._batch.alive:
            raise RequestError("the model has stopped", status=503)
        answer = Answer(order.ask, stream=order.stream)
        watcher = asyncio.create_task(_watch(receive, answer))
        try:
            await self._delay(answer)
            if not answer.cancelled:
                self._batch.submit(answer)
                write = self._stream if order.stream else self._whole
                await write(self._shape(order), answer, send)
        finally:
            watcher.cancel()
            answer.cancelled = True
            self._counts.add(answer)

    async def _delay(self, answer: Answer) -> None:
        """Wait as long as a slower machine would, unless the client leaves."""
        if not self._served.delay_ms:
            return
        try:
            async with asyncio.timeout(self._served.delay_ms / 1_000):
                await answer.changed.wait()
        except TimeoutError:
            return

    def _shape(self, order: Order) -> Reply:
        kind = "chatcmpl" if order.chat else "cmpl"
        return Reply(
            id=f"{kind}-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=self._served.name,
            fingerprint=f"fp_{self._served.digest}",
            order=order,
            tokenizer=self._tokenizer,
        )

    async def _whole(self, reply: Reply, answer: Answer, send: Send) -> None:
        await answer.changed.wait()
        if answer.finish == "error":
            raise RequestError("the model has stopped", status=503)
        if not answer.cancelled:
            await _reply(send, reply.whole(answer))

    async def _stream(self, reply: Reply, answer: Answer, send: Send) -> None:
        await send(_start(200, b"text/event-stream; charset=utf-8"))
        await send(_chunk(reply.opening(), more=True))
        sent = offset = 0
        # Each turn sends at least one token, so max_tokens bounds the turns.
        while not answer.cancelled:
            await answer.changed.wait()
            answer.changed.clear()
            finish, pieces = answer.finish, answer.pieces[sent:]
            if finish == "error":
                break
            chunk = reply.parts(pieces, offset, finish)
            sent += len(pieces)
            offset += sum(len(piece.text) for piece in pieces)
            if finish:
                await send(_chunk(chunk + reply.closing(answer), more=False))
                return
            if chunk:
                await send(_chunk(chunk, more=True))
        if not answer.cancelled:
            error = json.dumps(RequestError("the model has stopped", status=503).body())
            await send(_chunk(f"data: {error}\n\n".encode(), more=False))

    def _models(self) -> dict[str, Any]:
        model = {
            "id": self._served.name,
            "object": "model",
            "created": self._served.since_s,
            "owned_by": "weir",
            "root": self._served.digest,
            "max_model_len": LONGEST,
        }
        return {"object": "list", "data": [model]}

    def _metrics(self) -> str:
        """Return the counters under the names vLLM gives them."""
        label = f'model_name="{self._served.name}"'
        counts = self._counts
        lines = [
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{{{label}}} {self._batch.running}",
            "# TYPE vllm:num_requests_waiting gauge",
            f"vllm:num_requests_waiting{{{label}}} {self._batch.waiting}",
            "# TYPE vllm:prompt_tokens counter",
            f"vllm:prompt_tokens_total{{{label}}} {counts.prompt_tokens}",
            "# TYPE vllm:generation_tokens counter",
            f"vllm:generation_tokens_total{{{label}}} {counts.generation_tokens}",
            "# TYPE vllm:request_success counter",
        ]
        lines += [
            f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {count}'
            for reason, count in sorted(counts.finished.items())
        ]
        return "\n".join(lines) + "\n"


def wake(answers: Iterable[Answer]) -> None:
    """Tell the waiting requests that their answers have news. Runs on the event loop."""
    for answer in answers:
        answer.changed.set()


async def _watch(receive: Receive, answer: Answer) -> None:
    """Cancel the answer when its client leaves."""
    message = await receive()
    if message["type"] == "http.disconnect":
        answer.cancel()


async def _body(receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError("the client left before its request was whole")
        part = message.get("body", b"")
        size += len(part)
        if size > LARGEST_BODY:
            raise RequestError(f"the body is larger than {LARGEST_BODY:,} bytes", status=413)
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _parse(body: bytes) -> wire.Body:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RequestError("the body must be a JSON object")
    return value


async def _reply(
    send: Send, body: bytes, *, status: int = 200, kind: bytes = b"application/json"
) -> None:
    await send(_start(status, kind, len(body)))
    await send(_chunk(body, more=False))


def _start(status: int, kind: bytes, length: int | None = None) -> Message:
    headers = [(b"content-type", kind)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": status, "headers": headers}


def _chunk(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
