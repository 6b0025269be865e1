"""`weir get`: one line a route in the columns of kubectl, or the objects as kubectl gives them."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import yaml

from weir_cli import parts
from weir_cli.errors import CommandError
from weir_cli.kinds import meant, resource, rows
from weir_cli.objects import GROUP_VERSION
from weir_cli.sources import Source, source_of
from weir_cli.table import tabled
from weir_core.figures import instant
from weir_core.status import COLUMNS, columns

WIDE = ("READY", "ACTUAL", "THRESHOLD", "ROUTERS", "MESSAGE")


def run(args: argparse.Namespace) -> int:
    """Print what is there, and to standard error what is wrong with anything."""
    kind, names = meant(args.words)
    if args.watch:
        return _watched(args, kind, names)
    source, now_s = source_of(args), time.time()
    if kind != "ModelRoute":
        _print_objects(source, kind, names, args.output, now_s)
        return 0
    told = source.statuses(names)
    if args.output in ("json", "yaml"):
        print(as_data(as_objects(told, alone=len(names) == 1), args.output))
    elif not told["routes"]:
        print(f"no routes {source.where}".rstrip(), file=sys.stderr)
    elif args.output == "name":
        print("\n".join(f"{resource(kind)}/{key.partition('/')[2]}" for key in told["routes"]))
    else:
        wide = args.output == "wide"
        print(listing(told, wide=wide, now_s=now_s, spaced=source.spaced))
    for wrong in (*told["problems"], *parts.outages(told, now_s)):
        print(f"problem: {wrong}", file=sys.stderr)
    return 0


def _watched(args: argparse.Namespace, kind: str, names: Sequence[str]) -> int:
    """Watch one route, or the list of all. Raises CommandError for what cannot be watched."""
    if kind != "ModelRoute" or len(names) > 1:
        raise CommandError("get --watch: wanted one ModelRoute, or none for all of them", code=2)
    if args.output:
        raise CommandError(f"saw --watch and --output {args.output}, wanted one", code=2)
    args.route, args.interval, args.once = (names[0] if names else None), None, False
    return int(import_module("weir_cli.watch").run(args))


def _print_objects(
    source: Source, kind: str, names: Sequence[str], shape: str | None, now_s: float
) -> None:
    found = source.objects(kind, names)
    if shape in ("json", "yaml"):
        alone = len(names) == 1
        print(as_data(found[0] if alone else _list(found), shape))
    elif not found:
        print(f"no {kind}s {source.where}", file=sys.stderr)
    elif shape == "name":
        print("\n".join(f"{resource(kind)}/{one['metadata']['name']}" for one in found))
    else:
        wide = shape == "wide"
        print(tabled(*rows(kind, found, wide=wide, now_s=now_s, spaced=source.spaced)))


def as_data(told: Mapping[str, Any], shape: str) -> str:
    """Return plain values as JSON or YAML text."""
    if shape == "json":
        return json.dumps(told, indent=2, ensure_ascii=False)
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True).rstrip("\n")


def as_objects(told: Mapping[str, Any], *, alone: bool) -> dict[str, Any]:
    """Return the routes as kubectl gives them: a List, or the one that was named `alone`.

    Of a standalone Weir without a spec: it compiles it and keeps no copy of what was written.
    """
    objects, created = told.get("objects") or {}, told.get("created") or {}
    items = [
        objects.get(key) or _object(key, status, created.get(key))
        for key, status in told["routes"].items()
    ]
    return items[0] if alone else _list(items)


def _list(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _object(key: str, status: Mapping[str, Any], created_s: float | None) -> dict[str, Any]:
    namespace, _, name = key.partition("/")
    metadata = {"namespace": namespace, "name": name}
    if created_s is not None:
        metadata["creationTimestamp"] = instant(created_s)
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "ModelRoute",
        "metadata": metadata,
        "status": status,
    }


def listing(
    told: Mapping[str, Any], *, now_s: float, wide: bool = False, spaced: bool = False
) -> str:
    """Return the routes as a table; namespaces are shown if `spaced`, or where there are several.

    `told["created"]`, seconds since the epoch by route, gives AGE where the server has it.
    """
    routes, created = told["routes"], told.get("created") or {}
    spaced = spaced or len({key.partition("/")[0] for key in routes}) > 1
    rows = []
    for key, status in routes.items():
        namespace, _, name = key.partition("/")
        age_s = now_s - created[key] if key in created else None
        row = (name, *columns(status, age_s=age_s), *(_wide(status) if wide else ()))
        rows.append((namespace, *row) if spaced else row)
    header = ("NAME", *COLUMNS, *(WIDE if wide else ()))
    return tabled(("NAMESPACE", *header) if spaced else header, rows)


def _wide(status: Mapping[str, Any]) -> tuple[str, ...]:
    routers = f"{status['routers']['inSync']}/{status['routers']['of']}"
    found = status["canary"].get("changes", ())
    changing = f"; it changes {'; '.join(found)}" if found else ""
    message = f"{status['message']}{changing}"
    ready = next((c["status"] for c in status["conditions"] if c["type"] == "Ready"), "Unknown")
    return ready, status["weight"]["actual"], status["threshold"], routers, message
