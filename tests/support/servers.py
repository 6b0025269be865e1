"""Model servers in the cluster that `walking` keeps in memory."""

import copy

from support.walking import SPACE


def vllm(revision="main"):
    """Return a backend that the operator runs."""
    return {
        "apiVersion": "inference.weir.dev/v1alpha1",
        "kind": "ModelBackend",
        "metadata": {"name": "small", "namespace": SPACE, "uid": "backend-small"},
        "spec": {
            "model": {"uri": "hf://a/small", "revision": revision, "servedName": "small"},
            "capabilities": ["Chat", "Logprobs"],
            "vllm": {"image": "vllm:1"},
        },
    }


def loaded(ring):
    """Have every model server ready."""
    for obj in ring.api.of("Deployment"):
        replicas = obj["spec"].get("replicas", 1)
        if obj["metadata"]["name"] != "weir-router":
            ring.api.write({**copy.deepcopy(obj), "status": {"readyReplicas": replicas}})


def servers(ring, kind="ModelRevision"):
    return {
        obj["metadata"]["name"]: obj
        for obj in ring.api.of(kind)
        if obj["metadata"]["name"].startswith("small-")
    }
