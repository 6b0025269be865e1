"""`weir validate`: every problem of the manifests at once, before anything runs them."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from weir_cli.errors import CommandError
from weir_core.compile import compile_world
from weir_core.errors import Problem
from weir_core.manifests import parse
from weir_router.folder import Folder


class Validated(msgspec.Struct, frozen=True, kw_only=True):
    """What was read, and all that is wrong with it, by file and line."""

    files: int
    objects: int
    problems: tuple[Problem, ...]


def run(args: argparse.Namespace) -> int:
    """Print the problems; 2 if there are any."""
    found = validated(args.paths, cluster=args.cluster)
    print(json.dumps(as_json(found), indent=2) if args.output == "json" else as_text(found))
    return 2 if found.problems else 0


def validated(paths: Iterable[str], *, cluster: bool) -> Validated:
    """Read and compile all below the paths. Raises CommandError for one that is not there."""
    texts: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for path in paths:
        _gather(path, texts, unreadable)
    if not texts and not unreadable:
        raise CommandError("no manifests there: wanted *.yaml, *.yml or *.json", code=2)
    parsed = parse(texts)
    compiled = compile_world(parsed.resources, cluster=cluster)
    broken = (
        Problem(object=f"file {name}", field="", seen=why, wanted="a readable file", source=name)
        for name, why in unreadable.items()
    )
    problems = (*broken, *parsed.problems, *map(parsed.placed, compiled.problems))
    return Validated(
        files=len(texts) + len(unreadable),
        objects=len(parsed.sources),
        problems=tuple(sorted(problems, key=_place)),
    )


def _gather(path: str, texts: dict[str, str], unreadable: dict[str, str]) -> None:
    """Read a file, the files of a folder as `weir serve` would, or standard input for `-`."""
    if path == "-":
        texts["stdin"] = sys.stdin.read()
        return
    place = Path(path)
    if place.is_dir():
        found, failed = Folder(place).read()
        texts.update((str(place / name), text) for name, text in found.items())
        unreadable.update((str(place / one.source), one.seen) for one in failed)
        return
    if not place.exists():
        raise CommandError(f"{path}: no such file or folder", code=2)
    try:
        texts[str(place)] = place.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        unreadable[str(place)] = str(error)


def _place(problem: Problem) -> tuple[str, int]:
    file, _, line = problem.source.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (problem.source, 0)


def as_text(found: Validated) -> str:
    """Return one problem a line, and the sum of it."""
    sum_up = f"{_count(found.objects, 'object')} in {_count(found.files, 'file')}"
    if not found.problems:
        return f"{sum_up}: no problems"
    owners = {problem.object for problem in found.problems}
    told = f"{_count(len(found.problems), 'problem')} of {_count(len(owners), 'object')}"
    return "\n".join((*(one.sentence() for one in found.problems), f"{sum_up}: {told}"))


def as_json(found: Validated) -> dict[str, Any]:
    """Return it as plain values; each problem in its fields."""
    values: dict[str, Any] = msgspec.to_builtins(found)
    return values


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
