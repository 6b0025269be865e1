"""Raw sockets for tests of HTTP: what is sent and what comes back, byte by byte."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import uvloop

WAIT_S = 8.0


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine on uvloop (WEIR_TEST_LOOP=asyncio: on asyncio's), bounded."""
    plain = os.environ.get("WEIR_TEST_LOOP") == "asyncio"
    factory = asyncio.new_event_loop if plain else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(asyncio.wait_for(main, WAIT_S))


async def until(fact: Callable[[], object]) -> None:
    """Return when `fact()` is true; the test's bound applies."""
    while not fact():
        await asyncio.sleep(0.005)


class Got(NamedTuple):
    """One answer as a client saw it."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """A client's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int, context: ssl.SSLContext | None = None) -> "Wire":
        """Connect to a local port."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

    async def send(self, *parts: bytes) -> None:
        """Send the parts, each on its own."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            if len(parts) > 1:
                await asyncio.sleep(0.01)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return status and headers of the next answer."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").rstrip().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}

    async def answer(self) -> Got:
        """Return the next answer, 1xx included, by its own framing."""
        status, headers = await self.head()
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif "transfer-encoding" in headers:
            body = b"".join([chunk async for chunk in self.chunks()])
        elif status < 200 or status in (204, 304):
            body = b""
        else:
            body = await self.reader.read()
        return Got(status, headers, body)

    async def chunks(self) -> Any:
        """Yield each chunk of a chunked body."""
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()

    async def rest(self) -> bytes:
        """Return all that comes until the server closes."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def post(path: str = "/v1/x", body: bytes = b"{}", *headers: str) -> bytes:
    """Return a POST as a well-behaved client sends it."""
    lines = [f"POST {path} HTTP/1.1", "host: a", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
