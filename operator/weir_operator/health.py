"""The gRPC health protocol (grpc.health.v1), written out: its two messages have one field each.

The request names a service, the answer is an enumeration; a protobuf library for that would be
a dependency of every image.
"""

import asyncio
from typing import Any

import grpc

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
"""Of HealthCheckResponse.ServingStatus."""

MAX_WATCHERS = 16
"""At one time: anybody may watch, and each holds one of the server's places."""
_WATCH_S = 1.0


class Health:
    """Tells whether the services it is told of serve; "" is the server as a whole."""

    def __init__(self, *services: str) -> None:
        self._services = frozenset(("", *services))
        self._watchers = 0
        self.serving = True

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service as a generic handler."""
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods)

    async def _check(self, request: bytes, context: Any) -> bytes:
        status = self._status(request)
        if status == SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _answer(status)

    async def _watch(self, request: bytes, context: Any) -> None:
        if self._watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already")
        self._watchers += 1
        try:
            await self._tell(request, context)
        finally:
            self._watchers -= 1

    async def _tell(self, request: bytes, context: Any) -> None:
        told = 0
        while True:
            status = self._status(request)
            if status != told:
                await context.write(_answer(status))
                told = status
            await asyncio.sleep(_WATCH_S)

    def _status(self, request: bytes) -> int:
        if _service(request) not in self._services:
            return SERVICE_UNKNOWN
        return SERVING if self.serving else NOT_SERVING


def _service(request: bytes) -> str:
    """Return field 1, a string shorter than 128 bytes; anything else is no name of ours."""
    if not request:
        return ""
    is_short = len(request) >= 2 and request[0] == 0x0A and request[1] < 128
    if not is_short or len(request) != 2 + request[1]:
        return "?"
    return request[2:].decode("utf8", "replace")


def _answer(status: int) -> bytes:
    return bytes((0x08, status))
