"""`weir validate`: every problem of the manifests at once, before anything runs them."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from weir_cli.errors import CommandError
from weir_cli.sources import is_cluster, refuse_unused
from weir_core.compile import compile_world
from weir_core.errors import Problem
from weir_core.manifests import Written, objects, parse
from weir_core.resources import ModelBackend, Resource
from weir_router.folder import Folder


class Validated(msgspec.Struct, frozen=True, kw_only=True):
    """What was read, and all that is wrong with it, by file and line.

    `others` are objects of other APIs, which nothing is said of.
    """

    files: int
    objects: int
    others: int = 0
    problems: tuple[Problem, ...]


def run(args: argparse.Namespace) -> int:
    """Print the problems; 2 if there are any."""
    if args.offline:
        refuse_unused(args, ("context", "kubeconfig"), beside="--offline")
    texts, unreadable = gathered(args.paths)
    if is_cluster(args) and not args.offline:
        found = _asked(texts, unreadable, args)
    else:
        namespace = args.namespace or ""
        cluster = args.cluster or is_cluster(args)
        found = validated(texts, unreadable, cluster=cluster, namespace=namespace)
    print(json.dumps(as_json(found), indent=2) if args.output == "json" else as_text(found))
    return 2 if found.problems else 0


def gathered(paths: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the texts below the paths by file name, and why others cannot be read.

    Raises CommandError for a path that is not there.
    """
    texts: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for path in paths:
        _gather(path, texts, unreadable)
    if not texts and not unreadable:
        raise CommandError("no manifests there: wanted *.yaml, *.yml or *.json", code=2)
    return texts, unreadable


def validated(
    texts: Mapping[str, str],
    unreadable: Mapping[str, str],
    *,
    cluster: bool,
    namespace: str = "",
    standing: Sequence[Mapping[str, Any]] = (),
) -> Validated:
    """Read and compile the texts, beside objects that stand in a cluster already."""
    parsed = parse(texts, namespace=namespace)
    resources: Iterable[Resource] = parsed.resources
    place = parsed.place
    if standing:
        from weir_cli.dry_run import joined

        resources, known = joined(parsed.resources, standing)

        def place(title: str, field: str) -> str | None:
            return parsed.place(title, field) or ("" if title in known else None)

    compiled = compile_world(resources, cluster=cluster, place=place)
    broken = (
        Problem(object=f"file {name}", field="", seen=why, wanted="a readable file", source=name)
        for name, why in unreadable.items()
    )
    own = (one for one in compiled.problems if one.object in parsed.sources)
    pods = _of_pods(parsed.resources) if cluster else ()
    problems = (*broken, *parsed.problems, *map(parsed.placed, (*own, *pods)))
    return Validated(
        files=len(texts) + len(unreadable),
        objects=len(parsed.sources),
        others=parsed.others,
        problems=tuple(sorted(problems, key=_place)),
    )


def _of_pods(resources: Iterable[Resource]) -> Iterator[Problem]:
    """Find what no operator makes pods of, whatever its chart allows."""
    from weir_operator.overlay import PERMISSIONS
    from weir_operator.workloads import WorkloadSettings, workload_problems

    settings = WorkloadSettings(allow=PERMISSIONS)
    for one in resources:
        if isinstance(one, ModelBackend):
            yield from workload_problems(one, settings)


def _asked(
    texts: Mapping[str, str], unreadable: Mapping[str, str], args: argparse.Namespace
) -> Validated:
    """Validate against what a cluster has, and ask its API server too. Raises CommandError."""
    from weir_cli.dry_run import beside, further, refusals
    from weir_cli.kube import Api

    api = Api.connect(kubeconfig=args.kubeconfig, context=args.context)
    namespace = args.namespace or api.namespace
    written = [
        one
        for file, text in texts.items()
        for one in objects(file, text, namespace=namespace)
        if isinstance(one, Written)
    ]
    found = validated(
        texts, unreadable, cluster=True, namespace=namespace, standing=beside(api, written)
    )
    refused = further(refusals(api, written), found.problems)
    problems = tuple(sorted((*found.problems, *refused), key=_place))
    return msgspec.structs.replace(found, problems=problems)


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
    if found.others:
        sum_up += f" ({found.others} of other kinds left alone)"
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
