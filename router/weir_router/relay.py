"""An upstream's event stream on its way to the client, framed but not parsed.

Most chunks pass as they came; only those that may end the stream, carry usage or tell of an
error are looked into.
"""

import msgspec

from weir_router.answer import Usage, is_usage_only

MAX_EVENT_BYTES = 1 << 20
MAX_KEPT_BYTES = 4 << 20


class _UsageOnly(msgspec.Struct):
    usage: Usage | None = None


_USAGE = msgspec.json.Decoder(_UsageOnly)


class Relay:
    """Frames events; feed() returns what the client gets of a chunk.

    `broken` says what is wrong with the stream, "" while nothing is. `kept` is all that came, up
    to MAX_KEPT_BYTES when `keep` (then `overflowed`).
    """

    __slots__ = (
        "_keep",
        "_rest",
        "_strip_usage",
        "broken",
        "done",
        "kept",
        "overflowed",
        "started",
        "usage",
    )

    def __init__(self, *, strip_usage: bool, keep: bool) -> None:
        self._strip_usage = strip_usage
        self._keep = keep
        self._rest = b""
        self.kept = bytearray()
        self.started = False
        self.done = False
        self.broken = ""
        self.overflowed = False
        self.usage = Usage()

    def feed(self, chunk: bytes) -> bytes:
        """Return the whole events that `chunk` completed, as the client gets them."""
        data = self._rest + chunk if self._rest else chunk
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(b"\n\n")
        if end < 0:
            self._rest = data
            if len(data) > MAX_EVENT_BYTES:
                self.broken = f"an event of more than {MAX_EVENT_BYTES} bytes"
            return b""
        block, self._rest = data[: end + 2], data[end + 2 :]
        if self._keep:
            self._remember(block)
        if b'"usage"' in block or b'"error"' in block or b"[DONE]" in block or not self.started:
            return self._look(block)
        return block

    def _remember(self, block: bytes) -> None:
        if len(self.kept) + len(block) > MAX_KEPT_BYTES:
            self.overflowed = True
        else:
            self.kept += block

    def _look(self, block: bytes) -> bytes:
        out = []
        for event in block.split(b"\n\n"):
            data = event[5:].strip() if event.startswith(b"data:") else b""
            if not data:
                if event:
                    out.append(event)
                continue
            if data == b"[DONE]":
                self.done = True
            elif data.startswith((b'{"error"', b'{ "error"')):
                self.broken = "an error event"
                break
            elif b'"usage"' in data and self._took_usage(data):
                continue
            self.started = True
            out.append(event)
        return b"".join(event + b"\n\n" for event in out)

    def _took_usage(self, data: bytes) -> bool:
        """Read the usage of an event; whether the event is to be left out."""
        try:
            usage = _USAGE.decode(data).usage
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
            self.broken = "an event that is no JSON"
            return True
        if usage is not None:
            self.usage = usage
        return self._strip_usage and is_usage_only(data)
