"""Backends and golden files for tests of what the operator renders."""

import copy
import os
from pathlib import Path
from typing import Any

import yaml

from weir_core.resources import ModelBackend, from_object
from weir_operator.objects import Owner

Obj = dict[str, Any]
GOLDEN = Path(__file__).parents[1] / "golden" / "operator"
EXAMPLES = Path(__file__).parents[2] / "hack" / "examples"
REVISION = Owner(
    api_version="inference.weir.dev/v1alpha1",
    kind="ModelRevision",
    name="qwen3-8b-b0a61cc4e0",
    uid="00000000-0000-4000-8000-000000000001",
)


def written(**changes: Any) -> Obj:
    """Return the example's first backend as people wrote it, with changes at paths (a__b)."""
    obj: Obj = copy.deepcopy(
        next(iter(yaml.safe_load_all((EXAMPLES / "assistant.yaml").read_text())))
    )
    obj["metadata"] |= {"uid": "00000000-0000-4000-8000-000000000002"}
    obj["metadata"]["name"] = changes.pop("name", obj["metadata"]["name"])
    for path, value in changes.items():
        *above, last = path.split("__")
        at = obj["spec"]
        for name in above:
            at = at.setdefault(name, {})
        if value is None:
            at.pop(last, None)
        else:
            at[last] = value
    return obj


def backend(**changes: Any) -> ModelBackend:
    """Return the same as a resource."""
    found = from_object(written(**changes))
    assert isinstance(found, ModelBackend), found
    return found


def matches_golden(name: str, objects: list[Obj]) -> bool:
    """Compare with a golden file; WEIR_UPDATE_GOLDEN=1 writes it anew, to be read in the diff."""
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("WEIR_UPDATE_GOLDEN"):
        GOLDEN.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=100))
    return objects == list(yaml.safe_load_all(path.read_text()))


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Plain, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _text)
