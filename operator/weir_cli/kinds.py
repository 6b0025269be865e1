"""The kinds that can be listed: their words, as kubectl takes them, and their columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from weir_cli.objects import GROUP, created_s
from weir_core.figures import duration

WORDS: Mapping[str, tuple[str, ...]] = {
    "ModelRoute": ("route", "modelroute", "mroute"),
    "ModelBackend": ("backend", "modelbackend", "mbackend"),
    "ModelRevision": ("revision", "modelrevision", "mrev"),
}
NOUNS: Mapping[str, str] = {
    f"{word}{end}": kind
    for kind, words in WORDS.items()
    for word in words
    for end in ("", "s", f".{GROUP}", f"s.{GROUP}")
}
Path = tuple[str, ...]
COLUMNS: Mapping[str, Mapping[str, Path]] = {
    "ModelBackend": {
        "MODEL": ("status", "model"),
        "READY": ("status", "ready"),
        "REPLICAS": ("status", "replicas"),
        "REASON": ("status", "reason"),
    },
    "ModelRevision": {
        "OF": ("spec", "of", "name"),
        "OUTCOME": ("status", "outcome"),
        "ATTEMPT": ("status", "attempt"),
        "E-VALUE": ("status", "eValue"),
    },
}
"""Columns before AGE, as `kubectl get` has them, and where an object says them."""
WIDE: Mapping[str, Mapping[str, Path]] = {
    "ModelBackend": {"MESSAGE": ("status", "message")},
    "ModelRevision": {
        "KIND": ("spec", "kind"),
        "REASON": ("status", "reason"),
        "SUSPECT": ("status", "suspect"),
    },
}


def meant(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return which kind and which names are meant: `routes a`, `route/a` and `a` mean the same.

    A kind that comes first, or in front of the first name, is that of them all.
    """
    if not words:
        return "ModelRoute", []
    if words[0].lower() in NOUNS:
        kind, rest = NOUNS[words[0].lower()], words[1:]
    else:
        noun, slash, _ = words[0].partition("/")
        kind, rest = (NOUNS.get(noun.lower(), "ModelRoute") if slash else "ModelRoute"), words
    return kind, [_bare(word, kind) for word in rest]


def _bare(word: str, kind: str) -> str:
    noun, slash, name = word.partition("/")
    return name if slash and NOUNS.get(noun.lower()) == kind else word


def resource(kind: str) -> str:
    """Return what `-o name` puts before the slash."""
    return f"{kind.lower()}.{GROUP}"


def rows(
    kind: str, objects: Sequence[Mapping[str, Any]], *, wide: bool, now_s: float, spaced: bool
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and one row an object, in kubectl's columns."""
    more = WIDE[kind] if wide else {}
    space = ("NAMESPACE",) if spaced else ()
    header = (*space, "NAME", *COLUMNS[kind], "AGE", *more)
    made = []
    for one in objects:
        meta = one["metadata"]
        cells = [meta["namespace"]] if spaced else []
        cells += [meta["name"], *(_cell(one, path) for path in COLUMNS[kind].values())]
        cells += [duration(now_s - created_s(one)), *(_cell(one, path) for path in more.values())]
        made.append(tuple(cells))
    return header, made


def _cell(obj: Mapping[str, Any], path: Path) -> str:
    value: Any = obj
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)
