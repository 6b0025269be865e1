"""From the text of manifests to resources, with the file and line of whatever is wrong.

Reads YAML as Kubernetes means it: several documents, `List`, and only true and false as booleans
(a bare `on` stays a string). Nesting and aliases are bounded, so no file can eat the memory.
It refuses to know where texts come from.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml

from weir_core.errors import Problem
from weir_core.forms import nearest
from weir_core.resources import (
    KINDS,
    MAX_DEPTH,
    Resource,
    from_object,
    title_of,
    title_of_object,
)

MAX_NODES = 200_000
"""Values of one text, those that aliases repeat included."""
MAX_DOCUMENTS = 10_000

_API_VERSION = re.compile(r"(?:[a-z0-9.-]+/)?v\d+(?:(?:alpha|beta)\d+)?", re.ASCII)

Lines = Mapping[str, int]
"""Line of each field, by its path; "" is the object itself."""


class Source(msgspec.Struct, frozen=True):
    """Where an object stands: its file and the line of each of its fields."""

    file: str
    lines: Lines

    def of(self, field: str) -> str:
        """Return "file.yaml:12" of a field, or of what would hold it."""
        return f"{self.file}:{self.line(field)}"

    def line(self, field: str) -> int:
        """Return the line of a field, or of what would hold it."""
        while field and field not in self.lines:
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
        return self.lines.get(field, 1)


class Parsed(msgspec.Struct, frozen=True):
    """What the texts hold. `sources` is by an object's title: "ModelRoute llm/assistant".

    Invalid objects have a source too. `others` counts objects that are none of Weir's business.
    """

    resources: tuple[Resource, ...]
    problems: tuple[Problem, ...]
    sources: Mapping[str, Source]
    others: int = 0

    def placed(self, problem: Problem) -> Problem:
        """Return a problem found later, such as by compile, with its file and line."""
        place = self.place(problem.object, problem.field)
        if problem.source or place is None:
            return problem
        return msgspec.structs.replace(problem, source=place)

    def place(self, title: str, field: str) -> str | None:
        """Return "file.yaml:12" of an object's field, None for an object that is not there.

        Without a field it is the first problem of the object, if it has any.
        """
        source = self.sources.get(title)
        if source is None:
            return None
        found = (one.source for one in self.problems if one.object == title and not field)
        return next(found, source.of(field))


class Written(msgspec.Struct, frozen=True):
    """One object as it was written, of any kind, and where it stands."""

    value: Any
    source: Source


def parse(texts: Mapping[str, str], *, namespace: str = "") -> Parsed:
    """Return the resources of all texts, by file name, and every problem of every object.

    `namespace` is that of objects that name none, "" for the default one.
    """
    resources: list[Resource] = []
    problems: list[Problem] = []
    sources: dict[str, Source] = {}
    titles: set[str] = set()
    others = 0
    for file, text in texts.items():
        for found in objects(file, text, namespace=namespace):
            if isinstance(found, Written) and _is_other(found.value):
                others += 1
                continue
            if isinstance(found, Problem):
                problems.append(found)
                if found.reason == "Duplicate":
                    _, _, line = found.source.rpartition(":")
                    sources.setdefault(found.object, Source(file, {"": int(line)}))
                continue
            read = from_object(found.value)
            if isinstance(read, tuple):
                problems += _placed_in_order(read, found.source)
                sources.setdefault(title_of_object(found.value), found.source)
                continue
            title = title_of(read)
            if title in titles:
                problems.append(_duplicate(title, found.source, sources[title]))
                continue
            titles.add(title)
            sources[title] = found.source
            resources.append(read)
    return Parsed(
        resources=tuple(resources), problems=tuple(problems), sources=sources, others=others
    )


def _is_other(value: Any) -> bool:
    """Whether an object is of another kind and API, and not one of Weir's mistyped."""
    if not isinstance(value, dict):
        return False
    kind, version = value.get("kind"), value.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str):
        return False
    known = kind in KINDS or nearest(kind, list(KINDS))
    return not known and "weir" not in version and bool(_API_VERSION.fullmatch(version))


def _duplicate(title: str, source: Source, first: Source) -> Problem:
    wanted = f"each object once; the first, at {first.of('metadata.name')}, is the one that counts"
    return Problem(
        object=title,
        field="metadata.name",
        seen="the same object again",
        wanted=wanted,
        reason="Duplicate",
        source=source.of("metadata.name"),
    )


def _placed_in_order(problems: tuple[Problem, ...], source: Source) -> list[Problem]:
    """Return the problems of one object with their places, from top to bottom."""
    ordered = sorted(problems, key=lambda problem: source.line(problem.field))
    return [msgspec.structs.replace(one, source=source.of(one.field)) for one in ordered]


def objects(file: str, text: str, *, namespace: str = "") -> Iterator[Written | Problem]:
    """Give the objects of one text, of any kind, those of a List one by one; see `parse`."""
    try:
        _bounded(text)
        roots = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        yield _yaml_problem(file, error)
        return
    nodes = 0
    for root in roots:
        if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == _NULL):
            continue
        for node in _items_of_list(root):
            building = _Building(file, nodes)
            try:
                value = building.value(node, "", 0)
            except yaml.YAMLError as error:
                yield _yaml_problem(file, error)
                return
            nodes = building.nodes
            if building.repeated:
                title = title_of_object(value)
                yield from (msgspec.structs.replace(one, object=title) for one in building.repeated)
            else:
                yield Written(_placed_in(namespace, value), Source(file, building.lines))


def _placed_in(namespace: str, value: Any) -> Any:
    """Return an object with a namespace, where it can have one and has none."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not namespace or not isinstance(metadata, dict) or metadata.get("namespace"):
        return value
    return {**value, "metadata": {**metadata, "namespace": namespace}}


def _items_of_list(root: yaml.Node) -> list[yaml.Node]:
    if not isinstance(root, yaml.MappingNode):
        return [root]
    top = {key.value: value for key, value in root.value if isinstance(key, yaml.ScalarNode)}
    kind, items = top.get("kind"), top.get("items")
    if getattr(kind, "value", None) != "List" or not isinstance(items, yaml.SequenceNode):
        return [root]
    return list(items.value)


def _bounded(text: str) -> None:
    """Raise YAMLError where text nests too deep: composing recurses, giving events does not."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _refused(event.start_mark, f"nesting deeper than {MAX_DEPTH}")
        if documents > MAX_DOCUMENTS:
            raise _refused(event.start_mark, f"more than {MAX_DOCUMENTS} documents")


class _Building:
    """Turns nodes into plain data, noting lines and repeated keys on the way."""

    def __init__(self, file: str, nodes: int) -> None:
        self.file = file
        self.nodes = nodes
        self.lines: dict[str, int] = {}
        self.repeated: list[Problem] = []

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        """Return the plain value of a node. Raises YAMLError past the bounds."""
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise _refused(node.start_mark, "aliases that repeat too much")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_COLLECTIONS:
            raise _refused(node.start_mark, f"the tag {node.tag}")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.value(item, f"{path}[{place}]", depth + 1)
                for place, item in enumerate(node.value)
            ]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refused(key_node.start_mark, "a key that is not a word")
            key, line = key_node.value, key_node.start_mark.line + 1
            below = f"{path}.{key}".removeprefix(".")
            if key in mapping:
                self.repeated.append(_repeated_key(self.file, below, self.lines[below], line))
                continue
            self.lines[below] = line
            mapping[key] = self.value(value_node, below, depth + 1)
        return mapping


def _repeated_key(file: str, field: str, first: int, line: int) -> Problem:
    return Problem(
        object="",
        field=field,
        seen=f"the key again, first on line {first}",
        wanted="each key once",
        reason="Duplicate",
        source=f"{file}:{line}",
    )


_STR, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
_PLAIN_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float"))


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2: no bare on, yes, dates or 1:30 as numbers."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_Loader.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    _BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?[0-9]{1,18}$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?$"),
    list("-+.0123456789"),
)


def _scalar(node: yaml.Node) -> Any:
    text = str(node.value)
    match node.tag:
        case "tag:yaml.org,2002:null":
            return None
        case "tag:yaml.org,2002:bool":
            return text.lower() == "true"
        case "tag:yaml.org,2002:int" if re.fullmatch(r"[-+]?[0-9]{1,18}", text, re.ASCII):
            return int(text)
        case "tag:yaml.org,2002:float":
            return _float(node, text)
        case "tag:yaml.org,2002:str":
            return text
    raise _refused(node.start_mark, f"the tag {node.tag}")


def _float(node: yaml.Node, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _refused(node.start_mark, f"'{text[:40]}' as a number") from None


def _refused(mark: Any, problem: str) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _yaml_problem(file: str, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "no reason given"
    return Problem(
        object=file,
        field="",
        seen=str(said),
        wanted="YAML that can be read",
        reason="InvalidYaml",
        source=f"{file}:{mark.line + 1 if mark else 1}",
    )
