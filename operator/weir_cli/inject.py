"""`weir inject`: the router as a sidecar in the pods of a manifest, for clusters that cannot.

Kubernetes from 1.36 on does it by itself to labelled pods (the chart's admission policy); this
prints the same pods for older ones. Nothing is applied.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from weir_cli.errors import CommandError
from weir_cli.kube import Api, RefusedError
from weir_cli.sources import refuse_unused
from weir_core.errors import Problem
from weir_core.manifests import Written, objects
from weir_core.resources import title_of_object
from weir_operator.routers import NAME, RouterSettings, settings_for
from weir_operator.sidecar import sidecar_patch

Obj = Mapping[str, Any]
OPERATORS = "/apis/apps/v1/deployments"
OPERATOR_LABELS = "app.kubernetes.io/name=weir,app.kubernetes.io/component=operator"
SYSTEM = "weir-system"
"""Namespace of the operator, as the README installs it: for those who may not look everywhere."""
SETTINGS = "WEIR_ROUTER"
USE = "weir-router-use"
"""What the chart calls the role that lets a sidecar have its namespace's policy."""


def run(args: argparse.Namespace) -> int:
    """Print the manifests with the sidecar in every pod. Raises CommandError."""
    file, text = _read(args.filename)
    settings, namespace = _settings(args)
    found = list(objects(file, text))
    made = injected(found, settings, namespace=namespace)
    texts = [yaml.safe_dump(one, sort_keys=False, allow_unicode=True) for one in made]
    print("---\n".join(texts), end="")
    for note in notes(found, namespace=namespace):
        print(f"note: {note}", file=sys.stderr)
    return 0


def injected(
    found: Iterable[Written | Problem], settings: RouterSettings, *, namespace: str
) -> list[Obj]:
    """Return all objects, with the sidecar in those that make pods.

    `namespace` is that of objects that name none: a namespace may have settings of its own.
    Raises CommandError with every problem, each with file and line, or where there is no pod.
    """
    made: list[Obj] = []
    problems: list[Problem] = []
    pods = 0
    for one in found:
        if isinstance(one, Problem):
            problems.append(one)
            continue
        path = pod_path(one.value)
        if path is None:
            made.append(one.value)
            continue
        pods += 1
        problems += troubles(one, path)
        if not problems:
            own = settings_for(settings, _namespace(one.value) or namespace)
            made.append(_changed(one.value, path, own))
    if problems:
        raise CommandError("\n".join(problem.sentence() for problem in problems), code=2)
    if not pods:
        wanted = "a Pod, or a Deployment or the like with spec.template"
        raise CommandError(f"no pods to put a router into: wanted {wanted}", code=2)
    return made


def pod_path(obj: Any) -> tuple[str, ...] | None:
    """Return where an object has a pod or a pod template, None for one that makes no pods."""
    if not isinstance(obj, dict):
        return None
    if obj.get("kind") == "Pod":
        return ()
    for path in (("spec", "template"), ("spec", "jobTemplate", "spec", "template")):
        spec = _at(_at(obj, path), ("spec",))
        if isinstance(spec, dict) and "containers" in spec:
            return path
    return None


def troubles(one: Written, path: tuple[str, ...]) -> list[Problem]:
    """Return why the sidecar cannot be put into a pod; nothing where it can."""
    spec = _at(_at(one.value, path), ("spec",))
    at = ".".join((*path, "spec"))
    if not isinstance(spec, dict) or not isinstance(spec.get("containers"), list):
        return [_problem(one, f"{at}.containers", "no list", "the pod's containers")]
    wrong = []
    for list_name in ("containers", "initContainers", "volumes"):
        items = spec.get(list_name) or []
        if not isinstance(items, list) or not all(_is_named(item) for item in items):
            wrong.append(
                _problem(one, f"{at}.{list_name}", "something else", "a list of objects with names")
            )
    if wrong:
        return wrong
    for place, container in enumerate(spec["containers"]):
        if container["name"] == NAME:
            field = f"{at}.containers[{place}].name"
            wrong.append(_problem(one, field, NAME, "another name: it is that of Weir's sidecar"))
    if spec.get("hostNetwork"):
        wanted = "a pod with a network of its own: the sidecar is for its containers alone"
        wrong.append(_problem(one, f"{at}.hostNetwork", "true", wanted))
    if (_at(spec, ("os",)) or {}).get("name") == "windows":
        wrong.append(_problem(one, f"{at}.os.name", "windows", "linux: so is the router's image"))
    return wrong


def _changed(obj: Obj, path: tuple[str, ...], settings: RouterSettings) -> Obj:
    """Return the object with what stands at `path` injected, leaving the original alone."""
    if not path:
        return sidecar_patch(obj, settings)
    head, *rest = path
    return {**obj, head: _changed(obj[head], tuple(rest), settings)}


def _settings(args: argparse.Namespace) -> tuple[RouterSettings, str]:
    """Return the routers' settings as the installed operator has them, with what is given."""
    given = {name: getattr(args, name) for name in ("image", "feed") if getattr(args, name)}
    namespace = args.namespace or ""
    if len(given) == 2:
        refuse_unused(args, ("context", "kubeconfig"), beside="both --image and --feed")
        return RouterSettings(**given), namespace
    try:
        api = Api.connect(kubeconfig=args.kubeconfig, context=args.context)
        installed = settings_of(_operators(api))
    except CommandError as error:
        raise CommandError(f"{error}; or give both --image and --feed", code=error.code) from None
    return msgspec.structs.replace(installed, **given), namespace or api.namespace


def _operators(api: Api) -> list[dict[str, Any]]:
    """Return the Deployments of operators, as far as they may be seen."""
    try:
        return api.every(OPERATORS, labelSelector=OPERATOR_LABELS)
    except RefusedError as refused:
        if refused.status != 403:
            raise
    path = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments"
    return api.every(path, labelSelector=OPERATOR_LABELS)


def settings_of(operators: Iterable[Obj]) -> RouterSettings:
    """Return the routers' settings from the environment of the operator. Raises CommandError."""
    for one in operators:
        for container in _at(one, ("spec", "template", "spec", "containers")) or ():
            for variable in container.get("env") or ():
                if variable.get("name") == SETTINGS:
                    return _parsed(title_of_object(one), str(variable.get("value", "")))
    raise CommandError(f"no operator of Weir is installed: saw no Deployment with {SETTINGS}")


def _parsed(title: str, text: str) -> RouterSettings:
    try:
        return msgspec.json.decode(text, type=RouterSettings)
    except msgspec.DecodeError as error:
        wanted = f"settings that this version knows: {error}"
        raise CommandError(f"{title}: {SETTINGS}: saw {text[:80]}, wanted {wanted}") from None


def notes(found: Iterable[Written | Problem], *, namespace: str) -> list[str]:
    """Return what was left alone, and what the pods need beside the sidecar."""
    told: list[str] = []
    accounts: dict[tuple[str, str], None] = {}
    for one in found:
        if isinstance(one, Problem):
            continue
        path = pod_path(one.value)
        if path is None:
            told.append(f"{one.source.of('')}: {_title(one.value)} has no pods, left as it is")
            continue
        account = _at(one.value, (*path, "spec", "serviceAccountName")) or "default"
        accounts[_namespace(one.value) or namespace or "NAMESPACE", account] = None
    for where, account in accounts:
        told.append(
            f"ServiceAccount {where}/{account} needs the ClusterRole {USE}: kubectl create "
            f"rolebinding {USE} -n {where} --clusterrole={USE} --serviceaccount={where}:{account}"
        )
    return told


def _read(filename: str) -> tuple[str, str]:
    if filename == "-":
        return "stdin", sys.stdin.read()
    try:
        return filename, Path(filename).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{filename}: wanted a readable file: {error}", code=2) from None


def _problem(one: Written, field: str, seen: str, wanted: str) -> Problem:
    return Problem(
        object=_title(one.value),
        field=field,
        seen=seen,
        wanted=wanted,
        source=one.source.of(field),
    )


def _title(obj: Any) -> str:
    """Return an object's kind and name; most manifests of pods name no namespace."""
    name = _at(obj, ("metadata", "name")) or _at(obj, ("metadata", "generateName")) or "?"
    return f"{_at(obj, ('kind',)) or 'object'} {name}"


def _namespace(obj: Any) -> str:
    found = _at(obj, ("metadata", "namespace"))
    return found if isinstance(found, str) else ""


def _at(obj: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _is_named(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)
