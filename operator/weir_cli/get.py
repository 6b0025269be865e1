"""`weir get routes`: one line a route, in the columns that kubectl shows."""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import yaml

from weir_cli.client import Client, find_route
from weir_cli.table import tabled
from weir_core.status import COLUMNS, columns

WIDE = ("ACTUAL", "THRESHOLD", "ROUTERS", "MESSAGE")


def run(args: argparse.Namespace) -> int:
    """Print the routes, and to standard error what is wrong with the configuration."""
    told = Client(args.server).statuses()
    if args.route:
        key = find_route(args.route, told["routes"])
        told = {**told, "routes": {key: told["routes"][key]}}
    if args.output in ("json", "yaml"):
        print(as_data(told, args.output))
        return 0
    if told["routes"]:
        print(listing(told, wide=args.output == "wide", now_s=time.time()))
    else:
        print("no routes", file=sys.stderr)
    for problem in told["problems"]:
        print(f"problem: {problem}", file=sys.stderr)
    return 0


def as_data(told: Mapping[str, Any], shape: str) -> str:
    """Return plain values as JSON or YAML text."""
    if shape == "json":
        return json.dumps(told, indent=2, ensure_ascii=False)
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True).rstrip("\n")


def listing(told: Mapping[str, Any], *, wide: bool, now_s: float) -> str:
    """Return the routes as a table; namespaces are shown where there are several.

    `told["created"]`, seconds since the epoch by route, gives AGE where the server has it.
    """
    routes, created = told["routes"], told.get("created") or {}
    spaces = {key.partition("/")[0] for key in routes}
    rows = []
    for key, status in routes.items():
        namespace, _, name = key.partition("/")
        age_s = now_s - created[key] if key in created else None
        row = (name, *columns(status, age_s=age_s), *(_wide(status) if wide else ()))
        rows.append((namespace, *row) if len(spaces) > 1 else row)
    header = ("NAME", *COLUMNS, *(WIDE if wide else ()))
    return tabled(("NAMESPACE", *header) if len(spaces) > 1 else header, rows)


def _wide(status: Mapping[str, Any]) -> tuple[str, ...]:
    routers = f"{status['routers']['inSync']}/{status['routers']['of']}"
    return status["weight"]["actual"], status["threshold"], routers, status["message"]
