"""Signs of life for the kubelet: every path answers while the loop turns."""

import asyncio
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

BEAT_S, STUCK_S = 1.0, 30.0


class Signs:
    """A small server in a thread of its own, so that a stuck loop is seen and not waited for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._beat_s = time.monotonic()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen. Raises OSError if it cannot."""
        signs = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # Of a connection that says nothing.

            def do_GET(self) -> None:
                stuck = time.monotonic() - signs._beat_s > STUCK_S
                self.send_response(503 if stuck else 200)
                self.end_headers()
                self.wfile.write(b"the loop is stuck\n" if stuck else b"ok\n")

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("", self._port), Handler)
        Thread(target=self._server.serve_forever, name="signs", daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    async def beat(self) -> None:
        """Show for ever that the loop turns."""
        while True:
            self._beat_s = time.monotonic()
            await asyncio.sleep(BEAT_S)
