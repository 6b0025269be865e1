"""Header fields as bytes on the wire, for both sides: the only place that writes them."""

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]
"""Names are lower-case."""


def as_block(headers: Headers | bytes) -> bytes:
    """Return a block made before as it is, anything else as `header_block` writes it."""
    return headers if isinstance(headers, bytes) else header_block(headers)


def header_block(headers: Headers) -> bytes:
    """Return the header lines, each ended by CRLF.

    A CR, LF or NUL within a name or value is dropped: nobody injects a header of his own.
    """
    block = b"".join([b"%b: %b\r\n" % header for header in headers])
    count = len(headers)
    if block.count(b"\n") == count and block.count(b"\r") == count and b"\0" not in block:
        return block
    kept = [(_clean(name), _clean(value)) for name, value in headers]
    return b"".join([b"%b: %b\r\n" % header for header in kept])


def _clean(text: bytes) -> bytes:
    return text.translate(None, b"\r\n\0")
