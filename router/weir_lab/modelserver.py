"""Serves one of the two models as a process of its own, over the OpenAI API.

    python -m weir_lab.modelserver --model small|large --host 127.0.0.1 --port 0

Prints one line, "listening on http://HOST:PORT", when it is ready.
"""

import argparse
import os
import socket
from collections.abc import Sequence

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.max_batch < 1:
        parser.error("--max-batch must be 1 or more")
    # numpy reads these once, at its import: hence before the import of what imports it.
    for name in THREADS:
        os.environ[name] = "1"
    from weir_lab import host

    with socket.create_server((args.host, args.port), backlog=1_024) as listener:
        host.run(
            listener,
            model=args.model,
            served_name=args.served_name or args.model,
            levels=args.levels,
            delay_ms=args.delay_ms,
            max_batch=args.max_batch,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="weir_lab.modelserver", description=__doc__)
    parser.add_argument("--model", choices=("small", "large"), required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--served-name", help="the name clients use; default: that of the model")
    parser.add_argument("--levels", type=int, help="break the weights in silence: 5 levels a row")
    parser.add_argument("--delay-ms", type=int, default=0, help="added before each answer")
    parser.add_argument("--max-batch", type=int, default=16, help="requests answered at once")
    return parser


if __name__ == "__main__":
    main()
