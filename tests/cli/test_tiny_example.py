"""The example of two small models says what is known of them."""

import json
from pathlib import Path

import pytest
import yaml

from weir_cli.demo_manifests import facts
from weir_core.compile import compile_world
from weir_core.manifests import parse

FILE = Path(__file__).parents[2] / "hack" / "examples" / "tiny.yaml"


@pytest.fixture(scope="module")
def objects():
    return {
        (one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(FILE.read_text())
    }


def test_prices_and_calibration_are_those_of_the_models(objects):
    known = facts()
    for size in ("small", "large"):
        pricing = objects["ModelBackend", size]["spec"]["pricing"]
        assert set(pricing.values()) == {known.prices[size]}
    told = json.loads(objects["ConfigMap", "small-cal"]["data"]["calibration.json"])
    fitted = json.loads(known.calibration)
    assert told == {key: fitted[key] for key in told}
    tiers = objects["ModelRoute", "assistant"]["spec"]["behaviour"]["tiers"]
    sure = next(one for one in tiers[0]["accept"] if one["name"] == "sure")
    assert sure["minProbability"] == f"{known.min_probability:.3f}"


def test_a_cluster_runs_it_and_its_other_kinds_are_left_alone(objects):
    parsed = parse({FILE.name: FILE.read_text()})
    compiled = compile_world(parsed.resources, cluster=True)
    assert parsed.problems + compiled.problems == ()
    assert set(compiled.routes) == {"demo/assistant"}
    assert parsed.others == 2 == len(objects) - len(parsed.resources)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("inference.weir.dev/v1alpha1", "Deployment"),
        ("inference.weirdev/v1alpha1", "Model"),
        ("v1", "ModelRouter"),
        ("v1", "ConfigMaps"),
        ("apps", "Deployment"),
    ],
)
def test_what_may_be_ours_mistyped_is_refused(version, kind):
    text = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n"
    parsed = parse({"x.yaml": text})
    assert parsed.others == 0
    assert [one.field for one in parsed.problems] == ["kind"]
