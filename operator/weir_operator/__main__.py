"""`python -m weir_operator`: the control plane of one cluster, or of some namespaces of it."""

import asyncio
import logging
import os
import signal
import sys

from weir_core.lines import json_line

log = logging.getLogger("weir.operator")


class _Lines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        exception = self.formatException(record.exc_info) if record.exc_info else ""
        return json_line(vars(record), message=record.getMessage(), exception=exception)


def main() -> int:
    """Run the operator; 2 for settings that cannot be used, 1 for what it cannot begin with."""
    # A container's first process hears no signal that it has no handler for: also not now.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from weir_operator.kube import Kube, KubeError
    from weir_operator.process import Operator
    from weir_operator.settings import from_environment

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    try:
        settings = from_environment()
    except ValueError as error:
        print(f"weir_operator: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # That kopf in its thread hears no signals is as it should be.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)

    async def whole() -> None:
        kube = await Kube.connect()
        try:
            await Operator(settings, kube).run()
        finally:
            await kube.close()

    try:
        asyncio.run(whole())
    except (KubeError, OSError, RuntimeError) as error:
        log.error("ends", extra={"error": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
