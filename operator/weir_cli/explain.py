"""`weir explain`: which revision, rule, tiers and checks a request would meet, and why."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from weir_cli.errors import CommandError
from weir_cli.sources import source_of
from weir_cli.table import tabled

SESSION_HEADER = "x-session-id"


def run(args: argparse.Namespace) -> int:
    """Print the decision; 1 if the request would be refused."""
    headers = headers_of(args)
    told = source_of(args).explain(body_of(args), headers)
    print(json.dumps(told, indent=2) if args.output == "json" else as_text(told))
    if args.session is not None and told.get("session", args.session) != args.session:
        hint = "the route has sessions by another header: name it by --header"
        print(f"note: {SESSION_HEADER} was not looked at; {hint}", file=sys.stderr)
    return 1 if "refused" in told else 0


def headers_of(args: argparse.Namespace) -> dict[str, str]:
    """Return the request's headers. Raises CommandError where one is given twice."""
    session = [] if args.session is None else [(SESSION_HEADER, args.session)]
    headers: dict[str, str] = {}
    for name, value in (*args.header, *session):
        if name.lower() in (known.lower() for known in headers):
            raise CommandError(f"explain: saw header {name} twice, wanted each once", code=2)
        headers[name] = value
    return headers


def body_of(args: argparse.Namespace) -> str:
    """Return the request as JSON text. Raises CommandError if there is none to be had."""
    if args.file is None:
        if not args.model:
            raise CommandError("explain: wanted --model NAME or --file JSON", code=2)
        message = "hello" if args.message is None else args.message
        return json.dumps({"model": args.model, "messages": [{"role": "user", "content": message}]})
    try:
        text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text("utf-8")
        body = json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandError(f"{args.file}: wanted a request as JSON: {error}", code=2) from None
    if args.model and isinstance(body, dict):
        return json.dumps({**body, "model": args.model})
    return text


def as_text(told: dict[str, Any]) -> str:
    """Return the decision as people read it."""
    if "refused" in told:
        refused = told["refused"]
        return f"refused with {refused['status']} {refused['code']}: {refused['why']}"
    lines = [
        f"Route:    {told['route']}",
        f"Session:  {told['session'] or '-'}",
        f"Draw:     {told['draw']}",
    ]
    for arm in told["arms"]:
        lines += ["", *_arm(arm)]
    return "\n".join(lines)


def _seen(signals: dict[str, Any]) -> str:
    """Return what rules saw of the request: the rest of it makes no difference."""
    told = ", ".join(f"{name} {json.dumps(value)}" for name, value in signals.items())
    return told or "nothing of the request: no rule asks"


def _arm(arm: dict[str, Any]) -> list[str]:
    rows = [
        (
            f"{place}. {tier['tier']}",
            tier["backend"],
            tier["model"],
            "; ".join(tier["accepts"]),
            tier["otherwise"],
        )
        for place, tier in enumerate(arm["tiers"], 1)
    ]
    fallback = ", ".join(arm["fallback"]) or "none"
    return [
        f"{arm['arm'].capitalize()}: {arm['revision']}",
        f"  Rule:      {arm['rule']}",
        *([f"  Seen:      {_seen(arm['seen'])}"] if "seen" in arm else []),
        f"  Deadline:  {arm['deadlineMs']:,} ms, at most {arm['maxAttempts']} attempts",
        f"  Fallback:  {fallback}",
        tabled(("TIER", "BACKEND", "MODEL", "ACCEPTS", "OTHERWISE"), rows, indent="  "),
    ]
