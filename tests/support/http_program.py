"""A process of its own with the front door: prints its port, streams ten digits at /v1/x."""

import asyncio
import socket

import uvicorn

from weir_router.cycle import Exchange
from weir_router.server import model_protocol


async def digits(exchange: Exchange) -> None:
    """Stream ten digits in half a second."""
    exchange.start(200, [])
    for number in range(10):
        exchange.write(b"%d" % number)
        await asyncio.sleep(0.05)
    exchange.end()


async def app(scope: object, receive: object, send: object) -> None:
    """Answer nothing: no test asks."""


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app, http=model_protocol({b"/v1/x": digits}), ws="none", lifespan="off", log_config=None
    )
    uvicorn.Server(config).run([listener])
