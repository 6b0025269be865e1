"""Objects as people write them, for tests of whatever reads or compiles them."""

import copy
import json

from weir_core.compile import compile_world
from weir_core.resources import GROUP_VERSION, from_object

CALIBRATION = {"version": 1, "method": "Logprob", "features": {"mean": 2.5}, "intercept": 0.5}
SURE = {
    "name": "sure",
    "type": "Confidence",
    "method": "Logprob",
    "minProbability": "0.8",
    "calibrationRef": {"name": "cal"},
}

PRICES = {"inputPerMillionTokens": "0.2", "outputPerMillionTokens": "1"}
TIER = {"name": "small", "backendRef": {"name": "small"}}


def backend(name="small", **spec):
    base = {"model": {"servedName": "m"}, "external": {"url": f"http://{name}:8000"}}
    return _object("ModelBackend", name, {**base, **spec})


def vllm(name="small", model=None, **fields):
    spec = {"model": {"uri": "hf://org/m", "servedName": "m", **(model or {})}}
    return _object("ModelBackend", name, {**spec, "vllm": {"image": "vllm:1", **fields}})


def route(name="assistant", *, created="", models=None, **behaviour):
    base = {"deadline": "30s", "tiers": [{"name": "small", "backendRef": {"name": "small"}}]}
    spec = {"modelNames": models or [name], "behaviour": {**base, **behaviour}}
    made = _object("ModelRoute", name, spec)
    made["metadata"]["creationTimestamp"] = created
    return made


def calibration(text=None, **changes):
    text = json.dumps({**CALIBRATION, **changes}) if text is None else text
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cal"},
        "data": {"calibration.json": text},
    }


def _object(kind, name, spec):
    return {
        "apiVersion": GROUP_VERSION,
        "kind": kind,
        "metadata": {"name": name},
        "spec": copy.deepcopy(spec),
    }


def compiled(*objects, cluster=False, **options):
    resources = [from_object(one) for one in objects]
    assert not [one for one in resources if isinstance(one, tuple)], resources
    return compile_world(resources, cluster=cluster, **options)


def revision(*objects, **options):
    world = compiled(*objects, **options)
    assert world.problems == ()
    return world.routes["default/assistant"].revision


def reason(*objects, **options):
    (problem,) = compiled(*objects, **options).problems
    return problem.condition, problem.reason
