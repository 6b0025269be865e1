"""What the API server takes and refuses by the CRDs, and that the core agrees.

The rules run in Python's CEL here; tests/e2e/test_crds.py asks a real API server the same.
"""

import copy
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from support.admission import CRDS, RULES, SCHEMAS, broken, nodes, refusals
from support.raw import BACKEND, NOTHING, ROUTE, VLLM, changed, problems_of
from support.refused import REFUSED
from support.refused_values import RULE
from weir_cli.demo_manifests import facts, manifests

ROOT = Path(__file__).parents[2]
EXAMPLES, GOLDEN = ROOT / "hack" / "examples", ROOT / "tests" / "golden"
URLS = dict.fromkeys(("small", "large", "small-5-levels"), "http://127.0.0.1:1")


def objects(text):
    return [one for one in yaml.safe_load_all(text) if one and one["kind"] in CRDS]


def written():
    """Give what people write: the examples, the demo's manifests, those of each release."""
    files = {path.stem: path.read_text() for path in EXAMPLES.glob("*.yaml")}
    files |= {f"demo-{name}": text for name, text in manifests(facts(), URLS).items()}
    for path in GOLDEN.glob("v*/*.yaml"):
        files[f"{path.parent.name}-{path.stem}"] = path.read_text()
    for name, text in sorted(files.items()):
        for obj in objects(text):
            yield pytest.param(obj, id=f"{name}-{obj['kind']}-{obj['metadata']['name']}")


# What is taken.


@pytest.mark.parametrize("obj", list(written()))
def test_what_people_wrote_is_taken_whole(obj):
    assert refusals(obj) == []


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.id)
def test_bad_object_is_refused_by_the_api_server(row):
    told = [one for one in refusals(row.object) if one.startswith(f".{row.field}: ")]
    assert told
    assert row.by != RULE or any(row.told in one for one in told) or "regex" in told[0]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.id)
def test_bad_object_is_refused_by_the_core(row):
    assert problems_of(row.object)


def test_every_rule_is_broken_by_some_bad_object():
    found = {
        rule
        for row in REFUSED
        if row.by == RULE
        for rule, _ in broken(SCHEMAS[row.object["kind"]], row.object, None, "")
    }
    rules = {
        rule["rule"]
        for kind in ("ModelRoute", "ModelBackend")
        for _, node in nodes(SCHEMAS[kind])
        for rule in node.get(RULES, ())
    }
    assert rules - found == set()


# The core and the API server agree.

TEXTS = ("x", "", "5%", "0%", "100%", "100.5%", "0.5", "30s", "0s", "2h")
ODD = (*TEXTS, 0, 5, -1, True, None, {}, [])
"""Values that some fields take and most do not."""


def places(value, path="spec"):
    """Give the dotted path of a value and of all below it."""
    yield path
    if isinstance(value, dict | list):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(one, f"{path}.{name}")


def at(obj, path):
    """Return the value at a dotted path."""
    for part in path.split("."):
        obj = obj[int(part) if isinstance(obj, list) else part]
    return obj


def _full():
    """Return objects that use every field, so that each can be changed."""
    path = GOLDEN / "v0.1"
    texts = [(path / name).read_text() for name in ("routes.yaml", "backends.yaml")]
    route, *_ = objects(texts[0])
    backend, *_ = objects(texts[1])
    return [route, backend, ROUTE, BACKEND, VLLM]


FULL = _full()
EDITS = [
    (place, path)
    for place, obj in enumerate(FULL)
    for path in places(obj["spec"])
    if "podTemplate" not in path and path != "spec"
]
LEAVES = [
    value
    for obj in FULL
    for path in places(obj["spec"])
    if not isinstance(value := at(obj, path), dict | list)
]
"""Values that some field of a good object has."""
SEEN_BY_THE_CORE_ALONE = re.compile(
    r"spec\.behaviour\.rules\[\d+\]\.when"  # CEL in CEL cannot be compiled.
    r"|spec\.rollout\.steps(\[\d+\]\.\w+)?"  # Texts have no order at that price.
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_core_and_api_server_agree_on_changed_objects(data):
    """One to three changes of good objects; null is absent to the core, refused by the schema."""
    base = data.draw(st.sampled_from(range(len(FULL))))
    paths = [path for place, path in EDITS if place == base]
    obj = FULL[base]
    for path in data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=3, unique=True)):
        value = data.draw(st.sampled_from([NOTHING, *ODD]) | st.sampled_from(LEAVES))
        try:
            obj = changed(obj, path, value if value is NOTHING else copy.deepcopy(value))
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # An earlier change took the place away.
    refused, problems = refusals(obj), problems_of(obj)
    if not problems:
        assert [one for one in refused if ": null is not " not in one] == []
    elif not refused:
        assert [f for f in problems if not SEEN_BY_THE_CORE_ALONE.fullmatch(f)] == []


WEIGHTS = (0, 5, 25, 50, 100, "0%", "0.5%", "5%", "99.99%", "100.0%")
STEPS = [{"setWeight": one} for one in WEIGHTS] + [
    *({"prove": {}}, {"pause": {}}, {"hold": {"minRequests": 9}}, {"hold": {"duration": "1m"}})
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=8))
def test_core_and_api_server_agree_on_steps(steps):
    obj = changed(ROUTE, "spec.rollout.steps", steps)
    weights = [step["setWeight"] for step in steps if "setWeight" in step]
    ordered = all(isinstance(weight, int) for weight in weights)
    refused, problems = refusals(obj), problems_of(obj)
    assert not refused or problems
    assert not problems or refused or not ordered
