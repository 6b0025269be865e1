"""The least a router can do: parse, serialise again, ask the upstream, give its answer back.

Usage: forward.py PORT UPSTREAM_URL
"""

import gc
import sys
from typing import Any

import msgspec
import uvicorn

from weir_router.client import Failure, Pool
from weir_router.server import Exchange, model_protocol

PATH = b"/v1/chat/completions"
TIMEOUT_MS = 30_000


class Forward:
    """Forwards chat requests to one upstream."""

    def __init__(self, url: str) -> None:
        self._pool = Pool(url)

    async def answer(self, exchange: Exchange) -> None:
        """Answer as the upstream does."""
        asked: dict[str, Any] = msgspec.json.decode(exchange.body)
        asked["model"] = "tiny"
        body = msgspec.json.encode(asked)
        if asked.get("stream"):
            await self._relay(exchange, body)
            return
        answer = await self._pool.fetch(b"POST", PATH, [], body, timeout_ms=TIMEOUT_MS)
        if isinstance(answer, Failure):
            exchange.reply(502, [], answer.detail.encode())
            return
        msgspec.json.decode(answer.body)
        exchange.reply(answer.status, [(b"content-type", b"application/json")], answer.body)

    async def _relay(self, exchange: Exchange, body: bytes) -> None:
        stream = await self._pool.open(b"POST", PATH, [], body, timeout_ms=TIMEOUT_MS)
        if isinstance(stream, Failure):
            exchange.reply(502, [], stream.detail.encode())
            return
        exchange.on_gone = stream.close
        exchange.start(stream.status, [(b"content-type", b"text/event-stream")])
        while part := await stream.read():
            if isinstance(part, Failure):
                if exchange.gone:
                    return
                raise ConnectionError(part.detail)
            exchange.write(part)
            await exchange.drain()
        exchange.end()


async def app(scope: object, receive: object, send: object) -> None:
    """Answer nothing: nobody asks for another path."""


def main() -> None:
    """Serve until a signal."""
    forward = Forward(sys.argv[2])
    config = uvicorn.Config(
        app,
        http=model_protocol({PATH: forward.answer}),
        port=int(sys.argv[1]),
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level="warning",
    )
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
