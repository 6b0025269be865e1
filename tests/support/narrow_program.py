"""A process with few file descriptors: serves digits' worth of clients, tells what it met.

Arguments: soft and hard bound of descriptors, and whether connections are bounded by them.
Prints its port and bounds; on a line of input what was counted.
"""

import asyncio
import json
import logging
import resource
import socket
import sys
from collections import Counter
from typing import Any

import uvicorn
import uvloop

from weir_router.accept import AcceptingServer, bounded, raise_limit
from weir_router.cycle import Exchange
from weir_router.intake import ServerLimits
from weir_router.load import Bounds
from weir_router.server import model_protocol


async def hello(exchange: Exchange) -> None:
    """Answer."""
    exchange.reply(200, (), b"hello")


async def health(scope: Any, receive: Any, send: Any) -> None:
    """Stand where FastAPI stands."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"well"})


async def main(soft: int, hard: int, is_bounded: bool) -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    counts: Counter[str] = Counter()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = ServerLimits()
    if is_bounded:
        limits = bounded(limits, raise_limit(), Bounds())
    protocol = model_protocol({b"/v1/x": hello}, limits, crowded=lambda: counts.update(["crowded"]))
    config = uvicorn.Config(
        health, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = AcceptingServer(config, limits=limits, starved=lambda: counts.update(["starved"]))
    serving = asyncio.create_task(server.serve([listener]))
    bounds = [
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        limits.max_connections,
        limits.max_crowd,
    ]
    print(json.dumps([listener.getsockname()[1], *bounds]), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    print(json.dumps(counts), flush=True)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "bounded"))
