"""`weir rollout`: tell a rollout what to do, and hear whether it was obeyed."""

import argparse

from weir_cli.errors import CommandError
from weir_cli.sources import source_of


def run(args: argparse.Namespace) -> int:
    """Give one command and print how it was acknowledged; 1 if it was refused."""
    source = source_of(args)
    (key, status), *_ = source.statuses([args.route])["routes"].items()
    revision = args.revision or status["canary"]["revision"]
    if not revision:
        raise CommandError(f"{key} has no canary to {args.verb}; name a revision by --revision")
    full = getattr(args, "full", False)
    answer = source.command(key, verb=args.verb, revision=revision, full=full)
    print(f"{answer['result']}: {args.verb} {revision} of {key}: {answer['message']}")
    return 0 if answer["result"] == "Done" else 1
