"""However the network cuts an answer, it is the same answer, and the same connection."""

import asyncio
from typing import Any

import pytest

from support.http_fakes import Wireless, splits
from support.http_wire import run
from weir_router.client import ClientLimits, Stream
from weir_router.connection import Connection

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: 1\r\n\r\nhi"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-t: 1\r\n\r\n"
)
SAID = {
    "a-length": (OK, b"hi", True),
    "chunked": (CHUNKED, b"abcde", True),
    "after-a-103": (b"HTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n" + OK, b"hi", True),
    "no-content": (b"HTTP/1.1 204 No\r\n\r\n", b"", True),
    "connection-close": (OK.replace(b"x-a: 1", b"connection: close"), b"hi", False),
    "http-1.0": (OK.replace(b"1.1", b"1.0"), b"hi", False),
}


class Home:
    """Takes connections back and counts them."""

    def __init__(self) -> None:
        self.name = "home"
        self.limits = ClientLimits()
        self.back = 0

    def returned(self, connection: Connection) -> None:
        """Count it."""
        self.back += 1

    def lost(self, connection: Connection) -> None:
        """Do nothing."""


async def _heard(pieces: list[bytes]) -> tuple[Any, ...]:
    """Return what became of one request."""
    home, transport, stream = Home(), Wireless(), Stream(whole=True)
    loop = asyncio.get_running_loop()
    connection = Connection(home, loop)
    connection.connection_made(transport)
    connection.send(stream, b"", b"", until_s=loop.time() + 9, headless=False)
    for piece in pieces:
        connection.data_received(piece)
    connection.connection_lost(None)
    kept = home.back == 1 and not transport.closed
    return stream.status, stream.headers, stream.take(), stream.complete, stream.failure, kept


@pytest.mark.parametrize(("said", "body", "kept"), SAID.values(), ids=SAID.keys())
def test_no_cut_changes_an_answer(said: bytes, body: bytes, kept: bool) -> None:
    async def main() -> None:
        whole = await _heard([said])
        assert whole[2:] == (body, True, None, kept)
        for pieces in splits(said):
            assert await _heard(pieces) == whole, pieces

    run(main())


@pytest.mark.parametrize(("said", "body", "kept"), SAID.values(), ids=SAID.keys())
def test_no_beginning_of_an_answer_is_an_answer(said: bytes, body: bytes, kept: bool) -> None:
    async def main() -> None:
        for at in range(len(said)):
            *_, complete, failure, back = await _heard([said[:at]] if at else [])
            assert (complete, failure.cause, back) == (False, "BrokenStream", False), said[:at]

    run(main())
