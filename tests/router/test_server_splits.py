"""However the network cuts what a client sends, the answers are the same."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from support.http_door import app, echo
from support.http_fakes import Wireless, splits
from support.http_wire import post, run
from weir_router.server import model_protocol

CHUNKED = (
    b"POST /v1/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-t: 1\r\n\r\n"
)
UPGRADE = post("/v1/x", b"up", "connection: upgrade", "upgrade: h2c")
SENT = {
    "two-pipelined": post(body=b"one") + post(body=b"two"),
    "chunked-then-the-app": CHUNKED + post("/other", b"app"),
    "an-upgrade-then-another": UPGRADE + post(body=b"two"),
    "a-request-then-garbage": post(body=b"one") + b"garbage\r\n\r\n",
    "closed-with-a-surplus": post("/v1/x", b"one", "connection: close") + post(),
    "two-hosts": b"POST /v1/x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
}


async def _said(pieces: list[bytes]) -> tuple[bytes, bool]:
    """Return what the door writes, and whether it closes."""
    protocol = model_protocol({b"/v1/x": echo})
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    door: Any = protocol(config, state, {}, None)
    transport = Wireless()
    door.connection_made(transport)
    for piece in pieces:
        door.data_received(piece)
        await asyncio.sleep(0)
    while state.tasks:
        await asyncio.sleep(0)
    door.connection_lost(None)
    return transport.written, transport.closed


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT.keys())
def test_no_cut_changes_an_answer(sent: bytes) -> None:
    async def main() -> None:
        whole = await _said([sent])
        assert whole[0]
        for pieces in splits(sent):
            assert await _said(pieces) == whole, pieces

    run(main())
