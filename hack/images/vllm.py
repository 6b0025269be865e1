#!/usr/local/bin/python
"""Takes vLLM's command line and serves one of the two small models, for tests without a GPU.

    vllm serve MODEL --served-model-name NAME --host H --port P --revision R ...

MODEL is weir-small or weir-large, with any scheme and folders before it (hf://weir/weir-small).
Revisions behave differently, so that a rollout has something to find out; any other is the model
as it was trained. Flags of vLLM that mean nothing here are taken and told.
"""

import argparse
import re
import sys
from typing import NoReturn

from weir_lab import modelserver
from weir_lab.llama import LONGEST

REVISIONS = {
    "broken-silent": ["--levels", "5"],
    "broken-format": ["--levels", "3"],
    "slow": ["--delay-ms", "1000"],
}
"""Half the answers wrong in valid JSON; no JSON at all; each answer a second late."""
BROKEN_START = "broken-start"
"""The revision whose server ends before it listens."""


def main() -> None:
    parser = _parser()
    args, ignored = parser.parse_known_args()
    if ignored:
        print(f"vllm: ignored here: {' '.join(ignored)}", file=sys.stderr)
    size = _size(args.model_option or args.model or "")
    if args.max_model_len is not None and args.max_model_len > LONGEST:
        _end(f"--max-model-len: saw {args.max_model_len}, the model takes {LONGEST} or less")
    if args.revision == BROKEN_START:
        _end(f"revision {args.revision}: the weights could not be loaded")
    names = args.served_model_name or [args.model_option or args.model]
    modelserver.main(
        [
            *("--model", size, "--served-name", names[0]),
            *("--host", args.host, "--port", str(args.port)),
            *("--max-batch", str(args.max_num_seqs)),
            *REVISIONS.get(args.revision, []),
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("vllm", description=__doc__, allow_abbrev=False)
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--model", dest="model_option")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--revision", default="main")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-num-seqs", type=int, default=16)
    return parser


def _size(model: str) -> str:
    found = re.fullmatch(r"(?:.*/)?(?:weir-)?(small|large)", model)
    if found is None:
        _end(f"model: saw {model!r}, wanted weir-small or weir-large")
    return found[1]


def _end(message: str) -> NoReturn:
    print(f"vllm: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
