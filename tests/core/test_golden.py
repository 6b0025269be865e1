"""Upgrading Weir starts no canary; the examples compile."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from weir_core.compile import compile_world
from weir_core.manifests import parse
from weir_core.snapshot import Behaviour, Revision

GOLDEN = Path(__file__).parents[1] / "golden"
EXAMPLES = Path(__file__).parents[2] / "hack" / "examples"


def texts(folder):
    return {path.name: path.read_text() for path in sorted(folder.glob("*.yaml"))}


def told(world):
    return {
        "identities": dict(world.identities),
        "routes": {
            key: {"name": one.revision.name, "content": json.loads(one.revision.content)}
            for key, one in world.routes.items()
        },
    }


@pytest.mark.parametrize("release", sorted(path.name for path in GOLDEN.glob("v*")))
def test_upgrade_starts_no_canary(release):
    """Set WEIR_UPDATE_GOLDEN=1 to write the file anew, before the release only."""
    parsed = parse(texts(GOLDEN / release))
    world = compile_world(parsed.resources, cluster=True)
    assert parsed.problems + world.problems == ()
    golden = GOLDEN / release / "compiled.json"
    if os.environ.get("WEIR_UPDATE_GOLDEN"):
        golden.write_text(json.dumps(told(world), indent=1, ensure_ascii=False) + "\n")
    assert told(world) == json.loads(golden.read_text())


@pytest.mark.parametrize("release", sorted(path.name for path in GOLDEN.glob("v*")))
def test_stored_revision_of_a_release_is_known_again(release):
    parsed = parse(texts(GOLDEN / release))
    golden = json.loads((GOLDEN / release / "compiled.json").read_text())
    known = {
        key: (
            Revision(
                name=f"{one['name']}-given-once",
                behaviour=msgspec.convert(one["content"], Behaviour),
                content="",
            ),
        )
        for key, one in golden["routes"].items()
    }
    world = compile_world(parsed.resources, cluster=True, known=known)
    assert {one.revision.name[-11:] for one in world.routes.values()} == {"-given-once"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_example_compiles(path):
    parsed = parse({path.name: path.read_text()})
    assert parsed.problems + compile_world(parsed.resources, cluster=True).problems == ()


def test_hosted_example_needs_no_cluster():
    parsed = parse({"hosted.yaml": (EXAMPLES / "hosted.yaml").read_text()})
    assert compile_world(parsed.resources, cluster=False).problems == ()
