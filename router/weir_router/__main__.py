"""`python -m weir_router`: the router in a pod, told by its environment."""

import os
import signal
import sys

from weir_router.logs import LEVELS, set_up_logging


def main() -> int:
    """Serve until SIGTERM and return the exit code: 0, or 2 for settings that are wrong."""
    # A container's first process hears no signal that it has no handler for: also not now.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from weir_router.cluster import from_environment, serve

    level = os.environ.get("WEIR_LOG_LEVEL", "info")
    set_up_logging(shape="json", level=level if level in LEVELS else "info")
    try:
        settings = from_environment()
        serve(settings)
    except (ValueError, OSError) as error:
        print(f"weir_router: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
