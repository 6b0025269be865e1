"""A real upstream on a real socket, that answers as the test says, good or nonsense."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

Raw = bytes
Pause = float | asyncio.Event
Script = list[Raw | Pause]
"""Bytes are sent as they are, a number is a pause in seconds, an event is waited for; at the end
the connection stays open, unless the last item is CLOSE."""
CLOSE = b"\0close"


def whole(body: Any, status: int = 200, kind: str = "application/json") -> Script:
    """Return a whole HTTP answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n\r\n"
    return [head.encode() + data]


def completion(
    text: str, *, model: str = "up", finish: str = "stop", **message: Any
) -> dict[str, Any]:
    """Return a chat completion as an upstream writes it."""
    said = {"role": "assistant", "content": text, **message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def with_logprobs(reply: dict[str, Any], logprobs: list[float]) -> dict[str, Any]:
    """Return the completion with token logprobs."""
    content = [{"token": "t", "logprob": value, "top_logprobs": []} for value in logprobs]
    reply["choices"][0]["logprobs"] = {"content": content}
    return reply


def chunk(text: str | None, *, finish: str | None = None, **more: Any) -> bytes:
    """Return one event of a chat stream."""
    delta = {} if text is None else {"content": text}
    event = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "up",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}],
    }
    return b"data: " + json.dumps(event).encode() + b"\n\n"


USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"up",'
    b'"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'
)
DONE = b"data: [DONE]\n\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunked(*events: bytes | Pause) -> Script:
    """Return a chunked event stream of these events, with its proper end."""
    script: Script = [STREAM_HEAD]
    for event in events:
        script.append(b"%x\r\n%b\r\n" % (len(event), event) if isinstance(event, bytes) else event)
    return [*script, b"0\r\n\r\n"]


@dataclass
class Upstream:
    """What was asked, and what will be answered: `script` gets each request's JSON body."""

    script: Callable[[dict[str, Any]], Script]
    port: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    disconnects: int = 0
    in_flight: int = 0

    @property
    def url(self) -> str:
        """Base URL of this upstream."""
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.disconnects += 1
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
        fields = dict(
            line.decode().lower().split(": ", 1) for line in head.split(b"\r\n")[1:] if line
        )
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        request = json.loads(body) if body else {}
        self.asked.append(request)
        self.headers.append(fields)
        self.in_flight += 1
        try:
            return await self._play(self.script(request), reader, writer)
        finally:
            self.in_flight -= 1

    async def _play(
        self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        for item in script:
            if item == CLOSE:
                return False
            if isinstance(item, float | asyncio.Event):
                await self._pause(item, reader)
                continue
            writer.write(item)
            await writer.drain()
        return True

    async def _pause(self, pause: Pause, reader: asyncio.StreamReader) -> None:
        """Wait, but notice a client that goes away meanwhile."""
        try:
            async with asyncio.timeout(pause if isinstance(pause, float) else None):
                while not reader.at_eof():
                    if isinstance(pause, asyncio.Event) and pause.is_set():
                        return
                    await asyncio.sleep(0.005)
                raise ConnectionResetError
        except TimeoutError:
            return


@contextlib.asynccontextmanager
async def upstream(script: Callable[[dict[str, Any]], Script]) -> AsyncIterator[Upstream]:
    """Run an upstream for the time of a test."""
    one = Upstream(script)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await one.handle(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
