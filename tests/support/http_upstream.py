"""A scripted upstream on a raw socket: it says exactly what a test tells it to say."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

from support.http_wire import until
from weir_router.client import ClientLimits, Pool


class Line:
    """The upstream's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def asked(self) -> tuple[bytes, bytes]:
        """Return head and body of the next request; raise EOFError when there is none."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head, await self.reader.readexactly(length)

    async def say(self, *parts: bytes) -> None:
        """Send the parts, a moment apart."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            if len(parts) > 1:
                await asyncio.sleep(0.01)

    async def closed(self) -> None:
        """Return when the client has closed."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass


Script = Callable[[Line], Awaitable[None]]


class Upstream:
    """A listening script. `lines` are the connections so far."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.lines: list[Line] = []
        self.open = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run the script on one connection and close it."""
        line = Line(reader, writer)
        self.lines.append(line)
        self.open += 1
        try:
            await self._script(line)
        except (EOFError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def upstream(
    script: Script,
    *,
    limits: ClientLimits | None = None,
    server_ssl: ssl.SSLContext | None = None,
    client_ssl: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[tuple[Upstream, Pool]]:
    """Listen with `script`, and give a pool to it; both are closed at the end."""
    up = Upstream(script)
    server = await asyncio.start_server(up.serve, host, 0, ssl=server_ssl)
    up.port = server.sockets[0].getsockname()[1]
    scheme = "https" if server_ssl else "http"
    place = f"[{host}]" if ":" in host else host
    pool = Pool(f"{scheme}://{place}:{up.port}", limits=limits, ssl_context=client_ssl)
    try:
        yield up, pool
    finally:
        await pool.aclose()
        server.close()
        await until(lambda: up.open == 0)


def ok(body: bytes, *headers: str) -> bytes:
    """Return a proper answer."""
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def echo(line: Line) -> None:
    """Answer each request with its own body."""
    while True:
        _, body = await line.asked()
        await line.say(ok(body))


def saying(*parts: bytes) -> Script:
    """Return a script that answers each request with the parts and goes on."""

    async def script(line: Line) -> None:
        while True:
            await line.asked()
            await line.say(*parts)

    return script


def saying_once(*parts: bytes) -> Script:
    """Return a script that answers one request with the parts and closes."""

    async def script(line: Line) -> None:
        await line.asked()
        await line.say(*parts)

    return script
