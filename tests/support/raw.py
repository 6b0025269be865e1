"""Well-formed raw objects, and a way to change one field of a copy."""

import copy

from weir_core.resources import GROUP_VERSION, from_object

ROUTE = {
    "apiVersion": GROUP_VERSION,
    "kind": "ModelRoute",
    "metadata": {"name": "assistant", "namespace": "llm"},
    "spec": {
        "modelNames": ["assistant"],
        "behaviour": {
            "deadline": "30s",
            "tiers": [
                {"name": "small", "backendRef": {"name": "small"}, "timeout": "6s"},
                {"name": "large", "backendRef": {"name": "large"}},
            ],
            "rules": [{"name": "risky", "when": "risk == 'legal'", "start": "large"}],
        },
        "monitoring": {"monitors": [{"name": "whole", "type": "Finish"}]},
        "rollout": {"alpha": "0.01"},
    },
}
BACKEND = {
    "apiVersion": GROUP_VERSION,
    "kind": "ModelBackend",
    "metadata": {"name": "small"},
    "spec": {
        "model": {"servedName": "small-model"},
        "external": {"url": "https://api.example.com/v1"},
    },
}
VLLM = {
    "apiVersion": GROUP_VERSION,
    "kind": "ModelBackend",
    "metadata": {"name": "small"},
    "spec": {
        "model": {"uri": "hf://org/model", "servedName": "small-model"},
        "vllm": {"image": "vllm/vllm-openai:v0.32.0"},
    },
}
NOTHING = object()


def changed(base, path, value):
    """Return a copy of an object with `value` at a dotted path; NOTHING takes the field away."""
    obj = copy.deepcopy(base)
    place = obj
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        place = place.setdefault(part, {}) if isinstance(part, str) else place[part]
    if value is NOTHING:
        del place[last]
    else:
        place[last] = value
    return obj


def problems_of(obj):
    read = from_object(obj)
    return {one.field: one for one in read} if isinstance(read, tuple) else {}
