"""One call to one backend: its head, its answer read, its failure named.

It refuses to know tiers and revisions: what to do next is the step machine's to say.
"""

import asyncio
import contextlib

import msgspec

from weir_core.snapshot import Backend
from weir_core.turns import Cause
from weir_router import answer, client, dialect
from weir_router.dialect import Ask, Request
from weir_router.upstreams import Upstream

LINGER_S = 0.1
"""How long an upstream may take from [DONE] to the end of its stream."""
MAX_REFUSAL_BYTES = 1 << 16


class Trouble(msgspec.Struct, frozen=True):
    """Why a call gave no usable answer. `body` is an upstream's own refusal to pass on.

    `blames` False: it tells nothing of the backend's health. `retry_after_s` is what the
    upstream asked for, 0 when it did not. `detail` holds nothing of prompts, answers and keys.
    """

    cause: Cause
    status: int = 0
    billed: bool = False
    detail: str = ""
    body: bytes = b""
    blames: bool = True
    retry_after_s: float = 0.0


class Context(msgspec.Struct, frozen=True):
    """What travels with every call of one request."""

    request_id: bytes
    hops: int
    traceparent: bytes = b""


_REJECTED = frozenset({400, 405, 409, 413, 415, 422})
_OVERLOAD = frozenset({429, 503, 529})


async def fetch(
    upstream: Upstream, request: Request, ask: Ask, context: Context, timeout_ms: int
) -> answer.Answer | Trouble:
    """Return the whole answer of one call, or what went wrong."""
    reply = await upstream.pool.fetch(
        b"POST",
        dialect.PATHS[request.kind],
        headers(upstream, context, timeout_ms),
        dialect.upstream_body(request, ask),
        timeout_ms=timeout_ms,
    )
    if isinstance(reply, client.Failure):
        return Trouble(reply.cause, billed=reply.sent, detail=reply.detail)
    if reply.status != 200:
        return refused(reply.status, reply.headers, reply.body)
    return read(request, ask, reply.headers, reply.body)


def headers(upstream: Upstream, context: Context, timeout_ms: int) -> list[tuple[bytes, bytes]]:
    """Return the header fields of one call."""
    fields = upstream.headers()
    fields.append((b"x-request-id", context.request_id))
    fields.append((b"x-weir-hops", b"%d" % (context.hops + 1)))
    fields.append((b"x-weir-deadline-ms", b"%d" % timeout_ms))
    if context.traceparent:
        fields.append((b"traceparent", context.traceparent))
    return fields


def read(
    request: Request, ask: Ask, fields: list[tuple[bytes, bytes]], body: bytes
) -> answer.Answer | Trouble:
    """Return the answer in a good reply; a reply that is none is a failed attempt."""
    kind = content_type(fields)
    if kind != b"application/json":
        return Trouble("ServerError", 200, True, f"content type {kind.decode('latin-1')!r}")
    wants = ask.logprobs >= 0
    found = answer.read(request.kind, body, logprobs=wants)
    if found is None:
        return Trouble("ServerError", 200, True, "the body is no completion")
    return found


def content_type(fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return the media type of a reply, lower case, without parameters."""
    for name, value in fields:
        if name == b"content-type":
            return value.partition(b";")[0].strip().lower()
    return b""


def refused(status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> Trouble:
    """Return what an upstream's bad status means for the walk."""
    if status in _OVERLOAD:
        wait_s = retry_after_s(fields)
        return Trouble("Overload", status, False, f"status {status}", retry_after_s=wait_s)
    if status in _REJECTED:
        return Trouble("Rejected", status, False, f"status {status}", body)
    if status == 408:
        return Trouble("Timeout", status, False, "status 408")
    return Trouble("ServerError", status, False, f"status {status}")


def retry_after_s(fields: list[tuple[bytes, bytes]]) -> float:
    """Return the seconds that an upstream asks for, 0 when it names none (or a date)."""
    for name, value in fields:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 9:
            return float(value)
    return 0.0


async def refused_stream(stream: client.Stream) -> Trouble:
    """Return what a bad status means where a stream was asked for."""
    body = b""
    while len(body) < MAX_REFUSAL_BYTES:
        chunk = await stream.read()
        if isinstance(chunk, client.Failure) or not chunk:
            break
        body += chunk
    return refused(stream.status, stream.headers, body)


async def let_end(stream: client.Stream) -> None:
    """Give the upstream a moment to end its stream well: then the connection is kept."""
    if not stream.complete:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await stream.read()


def cost_pico(backend: Backend, usage: answer.Usage) -> int:
    """Return what the tokens of one call cost, in pico units."""
    inputs = usage.prompt_tokens * backend.input_price_pico
    return inputs + usage.completion_tokens * backend.output_price_pico
