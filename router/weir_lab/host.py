"""Builds the model server's parts and runs them on one listening socket."""

import asyncio
import socket
import time
from collections.abc import Sequence

import uvicorn
import uvloop

from weir_lab import answers, service, tokens, weights
from weir_lab.batch import Batch
from weir_lab.llama import Decoder
from weir_lab.service import Served, Service


class _Announced(uvicorn.Server):
    """A uvicorn that says, once, where it listens."""

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        await super().startup(sockets=list(sockets or []))
        for listener in sockets or []:
            address, port = listener.getsockname()[:2]
            print(f"listening on http://{address}:{port}", flush=True)


def run(
    listener: socket.socket,
    *,
    model: str,
    served_name: str,
    levels: int | None,
    delay_ms: int,
    max_batch: int,
) -> None:
    """Serve until a signal ends the process. Loads the weights first."""
    loaded = weights.load(model)
    loaded = loaded if levels is None else weights.coarsen(loaded, levels)
    served = Served(served_name, loaded.digest, delay_ms, int(time.time()))
    decoder = Decoder(loaded, rows=max_batch)
    uvloop.run(_serve(listener, served, decoder, loaded.intents))


async def _serve(
    listener: socket.socket, served: Served, decoder: Decoder, intents: tuple[str, ...]
) -> None:
    loop = asyncio.get_running_loop()
    tokenizer = tokens.load()
    batch = Batch(
        decoder,
        tokenizer,
        answers.trie(tokenizer, intents),
        lambda news: loop.call_soon_threadsafe(service.wake, news),
    )
    batch.start()
    config = uvicorn.Config(
        Service(served, batch, tokenizer),
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    await _Announced(config).serve(sockets=[listener])
    batch.stop()
