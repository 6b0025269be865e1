"""The CRDs: current, as Kubernetes demands, named as designed, open in their statuses."""

import itertools
import json
import os
import re
from pathlib import Path

import pytest

from support.admission import (
    CRDS,
    OPEN,
    RULES,
    SCHEMAS,
    nodes,
    refusals,
    stale_files,
    unknown_fields,
    write_files,
)
from support.raw import ROUTE, VLLM, changed
from support.rollouts import HARM, Course, baking, judged, rolled_back, started
from weir_core.backend_status import BackendSeen, IdentitySeen, backend_status
from weir_core.conditions import CONDITIONS
from weir_core.history import Rollback, find
from weir_core.revision_spec import RevisionOf, record_status, revision_object
from weir_core.status import COLUMNS, Observed, route_status

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"

KNOWN_KEYWORDS = {
    *("type", "format", "description", "nullable", "enum", "pattern", "required", "properties"),
    *("items", "additionalProperties", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties"),
    *("x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    *(OPEN, RULES),
}
"""All that we use of what a structural schema may say: no $ref, anyOf, const, default."""


def of(part):
    """Return (kind, path, schema) of every node in the part, spec or status, of each kind."""
    return [
        (kind, path, node)
        for kind, schema in SCHEMAS.items()
        for path, node in nodes(schema["properties"][part], part)
    ]


def title(one):
    return f"{one[0]}-{one[1]}"


# The files.


def test_committed_files_are_what_the_models_generate():
    assert stale_files(ROOT) == []


def test_edited_file_is_told(tmp_path):
    write_files(tmp_path)
    (tmp_path / "crds" / "README.md").write_text("by hand")
    assert stale_files(tmp_path) == ["crds/README.md: not what its source generates"]


def test_file_that_nothing_generates_is_told_and_removed(tmp_path):
    write_files(tmp_path)
    (tmp_path / "crds" / "old.yaml").write_text("")
    assert stale_files(tmp_path) == ["crds/old.yaml: nothing generates it"]
    write_files(tmp_path)
    assert stale_files(tmp_path) == []


@pytest.mark.parametrize("path", sorted((ROOT / "crds").glob("*.yaml")), ids=lambda path: path.stem)
def test_crd_fits_the_annotation_of_client_side_apply(path):
    assert len(path.read_text()) < 262_144 / 2


@pytest.mark.parametrize("kind", CRDS)
def test_reference_names_every_field(kind):
    text = (ROOT / "crds" / "README.md").read_text()
    chapter = text.partition(f"## {kind} (")[2].partition("\n## ")[0]
    for part in ("spec", "status"):
        for path, node in nodes(SCHEMAS[kind]["properties"][part], part):
            if not path.endswith("[]") and path != part:
                assert f"`{path}`" in chapter, node


# What Kubernetes demands.


@pytest.mark.parametrize("kind", CRDS)
def test_schema_uses_no_keyword_that_is_refused(kind):
    used = set(itertools.chain.from_iterable(node for _, node in nodes(SCHEMAS[kind])))
    assert used <= KNOWN_KEYWORDS


@pytest.mark.parametrize("kind", CRDS)
def test_schema_says_nothing_empty(kind):
    """The API server drops it, so that every apply would find a change."""
    for path, node in nodes(SCHEMAS[kind]):
        assert all(value not in ({}, [], "") for value in node.values()), path


@pytest.mark.parametrize("kind", CRDS)
def test_every_field_has_a_type(kind):
    untyped = [path for path, node in nodes(SCHEMAS[kind]) if "type" not in node]
    marked = [p for p, n in nodes(SCHEMAS[kind]) if n.get("x-kubernetes-int-or-string")]
    assert untyped == marked


@pytest.mark.parametrize("kind", CRDS)
def test_what_an_object_requires_it_has(kind):
    for path, node in nodes(SCHEMAS[kind]):
        assert set(node.get("required", ())) <= set(node.get("properties", ())), path


@pytest.mark.parametrize("one", of("spec"), ids=title)
def test_size_in_a_spec_is_bounded(one):
    _, _, node = one
    bound = {"array": "maxItems", "string": "maxLength"}.get(node.get("type"))
    if "additionalProperties" in node:
        bound = "maxProperties"
    assert bound is None or bound in node or "enum" in node


@pytest.mark.parametrize("one", [one for one in of("spec") if "items" in one[2]], ids=title)
def test_list_in_a_spec_is_replaced_whole_but_for_names(one):
    kind, path, node = one
    is_set = (kind, path) == ("ModelRoute", "spec.modelNames")
    assert node["x-kubernetes-list-type"] == ("set" if is_set else "atomic")


@pytest.mark.parametrize("one", of("status"), ids=title)
def test_status_refuses_nothing(one):
    _, path, node = one
    strict = {"enum", "pattern", "minimum", "maximum", "maxLength", "maxItems", RULES}
    assert not strict & set(node)
    assert node.get("required", ["type"]) == ["type"]
    assert node["type"] != "object" or node[OPEN], path


@pytest.mark.parametrize("one", [*of("spec"), *of("status")], ids=title)
def test_field_says_what_it_means(one):
    _, path, node = one
    assert path.endswith("[]") or re.fullmatch(r".+[.!?]", node["description"], re.DOTALL)


# Names and columns.


@pytest.mark.parametrize(
    ("kind", "short", "columns"),
    [
        ("ModelRoute", "mroute", COLUMNS),
        ("ModelBackend", "mbackend", ("MODEL", "READY", "REPLICAS", "REASON", "AGE")),
        ("ModelRevision", "mrev", ("OF", "OUTCOME", "ATTEMPT", "E-VALUE", "AGE")),
    ],
)
def test_kind_has_its_names_and_columns(kind, short, columns):
    spec = CRDS[kind]["spec"]
    assert spec["names"]["shortNames"] == [short]
    assert spec["names"]["categories"] == ["inference"]
    (version,) = spec["versions"]
    assert version["subresources"] == {"status": {}}
    shown = version["additionalPrinterColumns"]
    assert tuple(one["name"].upper() for one in shown if not one.get("priority")) == columns


@pytest.mark.parametrize("kind", CRDS)
def test_column_shows_a_field_that_there_is(kind):
    for column in CRDS[kind]["spec"]["versions"][0]["additionalPrinterColumns"]:
        at = SCHEMAS[kind]
        for part in column["jsonPath"].partition("[?")[0].strip(".").split("."):
            at = at["properties"].get(part, {}) if part != "creationTimestamp" else {"type": ""}
            assert at or part == "metadata", column
            at = at or {"properties": {}}


# Statuses.

HEALTHY, STARTED = Course(), started()
HEALTHY.tell()
STARTED.tell(judgement=judged(canary=112))


@pytest.mark.parametrize(
    "course", [HEALTHY, STARTED, baking(), rolled_back()], ids=["healthy", "steps", "bake", "back"]
)
def test_status_of_a_route_is_all_typed(course):
    observed = Observed(policy=course.policy, target="chat-1", judgement=HARM)
    status = route_status(course.state, observed, now_s=course.now_s)
    obj = {**ROUTE, "status": {**status, "rollout": {"state": {"any": 1}, "checkpoint": ""}}}
    assert refusals(obj) == []
    assert list(_untyped(obj)) == [".status.rollout.state", ".status.rollout.checkpoint"]


def test_status_of_a_backend_is_all_typed():
    identity = IdentitySeen(name="small-1", newest=True, wanted=2, routes=("a",), load_s=3)
    seen = BackendSeen(identities=(identity,), model="m", promoted=("a",))
    obj = {**VLLM, "status": backend_status(seen, now_s=0)}
    assert refusals(obj) == []
    assert list(_untyped(obj)) == []


def test_conditions_are_named_as_they_are_set():
    said = SCHEMAS["ModelRoute"]["properties"]["status"]["properties"]["conditions"]["description"]
    assert re.findall(r"[A-Z]\w+", said) == list(CONDITIONS)
    status = backend_status(BackendSeen(), now_s=0)
    said = SCHEMAS["ModelBackend"]["properties"]["status"]["properties"]["conditions"]
    assert re.findall(r"[A-Z]\w+", said["description"]) == [c["type"] for c in status["conditions"]]


def _untyped(obj):
    """Give the paths of a status that `kubectl explain` knows nothing of."""
    schema = _closed(SCHEMAS[obj["kind"]])
    return unknown_fields(schema, obj, "")


def _closed(schema):
    closed = {key: value for key, value in schema.items() if key != OPEN}
    if "properties" in closed:
        closed["properties"] = {k: _closed(v) for k, v in closed["properties"].items()}
    if "items" in closed:
        closed["items"] = _closed(closed["items"])
    return closed


# Revisions.


def revision():
    of = RevisionOf(name="chat", uid="u1")
    return revision_object(kind="Route", name="chat-1", namespace="llm", of=of, content="{}")


def test_revision_with_its_status_is_taken():
    course = rolled_back()
    record = find(course.state.records, course.state.canary)
    assert isinstance(record.rollback, Rollback)
    obj = {**revision(), "status": record_status(record)}
    assert refusals(obj) == []
    assert list(_untyped(obj)) == []


def test_spec_of_a_revision_never_changes():
    old, new = revision(), changed(revision(), "spec.of.uid", "u2")
    assert refusals(old, old) == []
    (told,) = refusals(new, old)
    assert told.startswith(".spec: a revision never changes")


def test_revision_is_named_as_its_object():
    (told,) = refusals(changed(revision(), "metadata.name", "chat-2"))
    assert told == ".metadata.name: wanted metadata.name to be spec.revision"


# What a release had.


def fields():
    """Return each field of the specs: its type, and whether what holds it must have it."""
    found = {}
    for kind, path, node in of("spec"):
        for name, below in node.get("properties", {}).items():
            needed = ", required" if name in node.get("required", ()) else ""
            found[f"{kind} {path}.{name}"] = below.get("type", "percent") + needed
    return found


@pytest.mark.parametrize("release", sorted(path.name for path in GOLDEN.glob("v*")))
def test_no_field_of_a_release_is_gone_or_of_another_type_or_needed_now(release):
    """Set WEIR_UPDATE_GOLDEN=1 to write the file anew, before the release only."""
    file, now = GOLDEN / release / "fields.json", fields()
    if os.environ.get("WEIR_UPDATE_GOLDEN"):
        file.write_text(json.dumps(now, indent=1) + "\n")
    then = json.loads(file.read_text())
    assert {name: now.get(name) for name in then} == then


@pytest.mark.parametrize("release", sorted(path.name for path in GOLDEN.glob("v*")))
def test_field_that_a_release_did_not_have_is_not_needed_in_what_it_had(release):
    then = json.loads((GOLDEN / release / "fields.json").read_text())
    needed = {name for name, told in fields().items() if told.endswith("required")}
    for name in needed - set(then):
        holder = name.rpartition(".")[0].removesuffix("[]")
        assert holder not in then
        assert not holder.endswith(" spec")
