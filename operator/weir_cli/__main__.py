"""The `weir` command: reads its arguments, runs one command, tells trouble in one line."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from weir_cli.arguments import own_version, parser, reordered
from weir_cli.errors import CommandError

INTERRUPTED = 130
"""Exit code of a command ended by Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of `argv`, or of the process, and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal without Unicode shows a mark instead of ending the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    prog = _prog()
    try:
        return _run(_parsed(parser(prog=prog, env=os.environ), words))
    except CommandError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has what it wanted; nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _prog() -> str:
    """Return how the command was called: kubectl runs `kubectl-weir` for `kubectl weir`."""
    return "kubectl weir" if Path(sys.argv[0]).name.startswith("kubectl-weir") else "weir"


def _parsed(whole: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    if words[:1] == ["demo"]:
        demo = import_module("weir_cli.demo")
        alone = argparse.ArgumentParser(prog=f"{whole.prog} demo", description=demo.__doc__)
        demo.add_arguments(alone)
        return alone.parse_args(words[1:], argparse.Namespace(command="demo"))
    return whole.parse_args(reordered(words))


def _run(args: argparse.Namespace) -> int:
    """Run one command; only its own module is imported."""
    if args.command == "version":
        print(f"weir {own_version()}")
        return 0
    if args.command == "demo":
        return int(import_module("weir_cli.demo").main(args) or 0)
    code: int = import_module(f"weir_cli.{args.command}").run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
