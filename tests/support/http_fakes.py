"""A transport without a socket, to say what came in which pieces."""

import asyncio
from typing import Any


class Wireless(asyncio.Transport):
    """Keeps what is written. Closing is noted, and told to nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        """Keep the data."""
        self.written += data

    def write_eof(self) -> None:
        """Take note of the close."""
        self.closed = True

    def can_write_eof(self) -> bool:
        """Return True, as TCP does."""
        return True

    def close(self) -> None:
        """Take note of the close."""
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        """Return whether it was closed."""
        return self.closed

    def get_write_buffer_size(self) -> int:
        """Return 0: everything is written at once."""
        return 0

    def pause_reading(self) -> None:
        """Do nothing: the test decides what comes."""

    def resume_reading(self) -> None:
        """Do nothing: the test decides what comes."""


def splits(data: bytes) -> list[list[bytes]]:
    """Return the data in two pieces, cut at every place, and byte by byte."""
    cuts = [[data[:at], data[at:]] for at in range(1, len(data))]
    return [*cuts, [data[at : at + 1] for at in range(len(data))]]
