"""The demo's processes: three model servers and the product, each on a free loopback port.

Every one says "listening on URL" once it is ready, and is ended when the demo ends.
"""

import asyncio
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weir_cli.errors import CommandError

START_S = 60.0
"""The slowest start that is waited for."""
STOP_S = 5.0
_URL = re.compile(r"http://[0-9.:]+")
MODELS: Mapping[str, tuple[str, ...]] = {
    "small": ("--model", "small"),
    "large": ("--model", "large"),
    "small-5-levels": ("--model", "small", "--levels", "5"),
}


@dataclass(frozen=True, slots=True)
class Weir:
    """The product's two addresses."""

    public: str
    admin: str


class Processes:
    """What was started, to be ended together. Logs are files in `logs`."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[asyncio.subprocess.Process] = []

    async def models(self) -> dict[str, str]:
        """Start the model servers, all at once; return their URLs by name."""
        starts = (self._start(name, "weir_lab.modelserver", *args) for name, args in MODELS.items())
        urls = await asyncio.gather(*starts)
        return {name: url for name, (url, *_) in zip(MODELS, urls, strict=True)}

    async def weir(self, config: Path) -> Weir:
        """Start the product on a folder of manifests."""
        anywhere = "127.0.0.1:0"
        options = ("--config", str(config), "--listen", anywhere, "--admin", anywhere)
        public, admin = await self._start("weir", "weir_cli", "serve", *options)
        return Weir(public, admin)

    async def end(self) -> None:
        """End everything that still runs, politely first."""
        alive = [process for process in self._running if process.returncode is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        waits = [asyncio.create_task(process.wait()) for process in alive]
        if waits:
            await asyncio.wait(waits, timeout=STOP_S)
        for process in alive:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*waits)
        self._running.clear()

    async def _start(self, name: str, module: str, *args: str) -> list[str]:
        """Return the URLs that a process says it listens on. Raises CommandError for none."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *args),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                # Ctrl-C is the demo's to hear: it ends them in order.
                start_new_session=True,
            )
        self._running.append(process)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        urls = _URL.findall(line.decode())
        if not urls:
            said = log.read_text("utf8", "replace").strip()[-2_000:]
            raise CommandError(f"{name} did not start; it said:\n{said or 'nothing'}")
        return urls
