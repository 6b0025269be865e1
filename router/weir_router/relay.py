"""An upstream's event stream on its way to the client, framed but not parsed.

Most chunks pass as they came; only those that may end the stream, carry usage or tell of an
error are looked into.
"""

import msgspec
from msgspec import Raw

from weir_router.answer import (
    NULL_USAGE,
    UNREADABLE,
    Usage,
    event_data,
    is_chunk,
    is_usage_only,
    without_logprobs,
    without_null_usage,
)

MAX_EVENT_BYTES = 1 << 20
MAX_KEPT_BYTES = 4 << 20
MAX_PRELUDE_BYTES = 64 << 10
"""Of comments and empty events before the first chunk: nothing is relayed until then."""


class _Noted(msgspec.Struct):
    usage: Usage | None = None
    error: Raw = Raw(b"null")


_NOTED = msgspec.json.Decoder(_Noted)
_NULL = Raw(b"null")


class Relay:
    """Frames events; feed() returns what the client gets of a chunk, nothing after [DONE].

    `started`: the first event came and is a chunk of a completion. `broken` says what is wrong
    with the stream, "" while nothing is. `kept` is all that came, up to MAX_KEPT_BYTES when
    `keep` (then `overflowed`).
    """

    __slots__ = (
        "_keep",
        "_prelude",
        "_rest",
        "_strip_logprobs",
        "_strip_usage",
        "broken",
        "done",
        "kept",
        "overflowed",
        "started",
        "usage",
    )

    def __init__(self, *, strip_usage: bool, keep: bool, strip_logprobs: bool = False) -> None:
        self._strip_usage = strip_usage
        self._strip_logprobs = strip_logprobs
        self._keep = keep
        self._rest = b""
        self._prelude = 0
        self.kept = bytearray()
        self.started = False
        self.done = False
        self.broken = ""
        self.overflowed = False
        self.usage = Usage()

    def feed(self, chunk: bytes) -> bytes:
        """Return the whole events that `chunk` completed, as the client gets them."""
        if self.done:
            return b""
        if not self.started:
            self._prelude += len(chunk)
        data = self._rest + chunk if self._rest else chunk
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(b"\n\n")
        if end < 0:
            self._rest = data
            if len(data) > MAX_EVENT_BYTES:
                self.broken = f"an event of more than {MAX_EVENT_BYTES:,} bytes"
            return b""
        block, self._rest = data[: end + 2], data[end + 2 :]
        if self._keep:
            self._remember(block)
        if b'"usage"' in block or b'"error"' in block or b"[DONE]" in block or not self.started:
            return self._look(block)
        return self._look(block) if self._strip_logprobs else block

    def forget(self) -> None:
        """Keep nothing, now and later: it has been judged."""
        self._keep = False
        self.kept.clear()

    def _remember(self, block: bytes) -> None:
        if len(self.kept) + len(block) > MAX_KEPT_BYTES:
            self.overflowed = True
        else:
            self.kept += block

    def _look(self, block: bytes) -> bytes:
        out = []
        for event in block.split(b"\n\n"):
            data = event_data(event)
            if data == b"[DONE]":
                self.done = True
                if not self.started:
                    self.broken = "[DONE] before any event"
            elif data:
                told = self._told(data)
                if self.broken:
                    return b""
                if told is not data:
                    event = _with_data(event, told)
            if event:
                out.append(event)
            if self.done:
                break
        if self.broken:
            return b""
        if not self.started and self._prelude > MAX_PRELUDE_BYTES:
            self.broken = f"no event within {MAX_PRELUDE_BYTES:,} bytes"
            return b""
        return b"".join(event + b"\n\n" for event in out)

    def _told(self, data: bytes) -> bytes:
        """Read an event that may matter; return what the client gets of it, b"" for nothing."""
        if not self.started:
            self.started = is_chunk(data)
            if not self.started:
                self.broken = "a first event that is no completion"
                return b""
        try:
            if b'"usage"' in data or b'"error"' in data:
                data = self._noted(data)
            if self._strip_logprobs and b'"logprobs"' in data:
                data = without_logprobs(data)
        except UNREADABLE:
            self.broken = "an event that is no JSON"
        return data

    def _noted(self, data: bytes) -> bytes:
        """Take note of usage and errors; leave out what only Weir asked for."""
        if self._strip_usage and data.endswith(NULL_USAGE) and b'"error"' not in data:
            return without_null_usage(data)
        noted = _NOTED.decode(data)
        if noted.error != _NULL:
            self.broken = "an error event"
        if noted.usage is not None:
            self.usage = noted.usage
        if not self._strip_usage:
            return data
        return b"" if is_usage_only(data) else without_null_usage(data)


def _with_data(event: bytes, data: bytes) -> bytes:
    """Return an event with other data, b"" where there is none left; other fields stay."""
    if not data:
        return b""
    other = [line for line in event.split(b"\n") if not line.startswith(b"data:")]
    return b"\n".join((*other, b"data: " + data))
