"""A real server with the front door, inside a test's loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import uvicorn

from support.http_wire import Wire, until
from weir_router.accept import AcceptingServer
from weir_router.cycle import Exchange, Handler
from weir_router.server import ServerLimits, model_protocol


async def echo(exchange: Exchange) -> None:
    """Answer with the body that came."""
    exchange.reply(200, [(b"content-type", b"text/plain")], exchange.body)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Stand where FastAPI stands: read the body, answer with path and body."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    text = b"app " + scope["raw_path"] + b" " + body
    length = (b"content-length", str(len(text)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": text})


class Served:
    """A server that listens."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.state = server.server_state
        self.wires: list[Wire] = []

    async def wire(self) -> Wire:
        """Return a new connection; it is closed with the server."""
        self.wires.append(await Wire.to(self.port))
        return self.wires[-1]


@contextlib.asynccontextmanager
async def serving(
    handlers: Mapping[bytes, Handler] | None = None,
    *,
    limits: ServerLimits | None = None,
    door: dict[str, Any] | None = None,
    whole: bool = False,
    **config: Any,
) -> AsyncIterator[Served]:
    """Serve `handlers` (an echo at /v1/x). `whole` runs uvicorn's main loop and shutdown too."""
    protocol = model_protocol(handlers or {b"/v1/x": echo}, limits, **(door or {}))
    given = {"app": app, "lifespan": "off", "ws": "none", "log_config": None, **config}
    listener = socket.create_server(("127.0.0.1", 0))
    config_of = uvicorn.Config(http=protocol, loop="none", **given)
    server = AcceptingServer(config_of, limits=limits)
    served = Served(server, listener.getsockname()[1])
    main = asyncio.create_task(server.serve([listener])) if whole else None
    try:
        if main is None:
            server.config.load()
            server.lifespan = server.config.lifespan_class(server.config)
            await server.startup([listener])
        await until(lambda: server.started)
        await server.on_tick(0)
        yield served
    finally:
        for wire in served.wires:
            await wire.close()
        if main is not None:
            server.should_exit = True
            await main
        await stop(served, listener)


async def stop(served: Served, listener: socket.socket) -> None:
    """Close everything, as uvicorn's shutdown but without its pauses."""
    for listening in served.server.servers:
        listening.close()
    listener.close()
    for task in list(served.state.tasks):
        task.cancel()
    for connection in list(served.state.connections):
        connection.transport.abort()
    await until(lambda: not served.state.connections and not served.state.tasks)
