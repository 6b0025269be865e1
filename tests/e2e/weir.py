"""Weir on the cluster of the tests: the chart installed, manifests of small models, traffic."""

import itertools
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import openai

from e2e.cluster import ROOT, Cluster, ClusterError, wait_for
from weir_cli.demo_manifests import facts
from weir_lab import questions

SYSTEM = "weir-system"
CHART = ROOT / "charts" / "weir"
TINY = "localhost/tiny-vllm:dev"
IMAGE = {"repository": "localhost/weir", "tag": "dev", "pullPolicy": "Never"}
VALUES: dict[str, Any] = {
    "image": IMAGE,
    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    "router": {
        "image": IMAGE,
        "replicas": 2,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    },
}
API = "inference.weir.dev/v1alpha1"
Thing = dict[str, Any]


def install(cluster: Cluster, values: Mapping[str, Any] = VALUES, *, release: str = "weir") -> None:
    """Install or upgrade the chart and wait until the operator leads."""
    helm(
        cluster,
        *("upgrade", "--install", release, str(CHART), "--namespace", SYSTEM),
        *("--create-namespace", "--values", "-", "--wait", "--timeout", "3m"),
        given=json.dumps(values),
    )


def helm(cluster: Cluster, *words: str, given: str = "") -> str:
    """Return what helm prints. Raises ClusterError."""
    result = subprocess.run(
        ["helm", *words],
        env={**os.environ, **cluster.environment},
        input=given,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if result.returncode:
        raise ClusterError(f"helm {' '.join(words)}: {result.stderr or result.stdout}")
    return result.stdout


def backend(name: str, size: str, *, revision: str = "main", replicas: int = 1) -> Thing:
    """Return a ModelBackend of one of the small models, run by a pod of the operator's."""
    price = facts().prices[size]
    return {
        "apiVersion": API,
        "kind": "ModelBackend",
        "metadata": {"name": name},
        "spec": {
            "model": {
                "uri": f"hf://weir/weir-{size}",
                "revision": revision,
                "servedName": size,
            },
            "capabilities": ["Chat", "StructuredOutput", "Logprobs"],
            "contextWindow": 256,
            "pricing": {"inputPerMillionTokens": price, "outputPerMillionTokens": price},
            "vllm": {
                "image": TINY,
                "args": ["--max-model-len=256"],
                "startup": {"budget": "2m"},
                "drain": {"preStopDelay": "2s", "gracePeriod": "15s"},
                "podTemplate": {
                    "spec": {
                        "containers": [
                            {
                                "name": "vllm",
                                "imagePullPolicy": "Never",
                                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                            }
                        ]
                    }
                },
            },
            "replicas": replicas,
        },
    }


def route(name: str = "assistant", *, threshold: str | None = None, quick: bool = True) -> Thing:
    """Return the demo's cascade as a ModelRoute."""
    sure = threshold if threshold is not None else f"{facts().min_probability:.3f}"
    accept = [
        {"name": "whole", "type": "Finish"},
        {"name": "shape", "type": "Schema"},
        {
            "name": "sure",
            "type": "Confidence",
            "method": "Logprob",
            "minProbability": sure,
            "calibrationRef": {"name": "small-cal"},
        },
    ]
    small = {"name": "small", "backendRef": {"name": "small"}, "maxTokens": 64, "accept": accept}
    steps = [
        {"setWeight": 25},
        {"hold": {"minRequests": 30}},
        {"setWeight": 50},
        {"prove": {}},
    ]
    return {
        "apiVersion": API,
        "kind": "ModelRoute",
        "metadata": {"name": name},
        "spec": {
            "modelNames": [name],
            "behaviour": {
                "deadline": "10s",
                "tiers": [small, {"name": "large", "backendRef": {"name": "large"}}],
            },
            "monitoring": {
                "monitors": [{"name": "json", "type": "Schema"}],
                "audits": {"duringRollout": 25, "reference": "large", "compare": "Json"},
                "objectives": [
                    {"name": "errors", "event": "Error", "negligibleRate": "0.05"},
                    {
                        "name": "quality",
                        "event": "Harm",
                        "share": 4,
                        "negligibleRate": "0.05",
                    },
                    {
                        "name": "escalations",
                        "event": "Escalated",
                        "share": 2,
                        "maxRatio": "1.2",
                    },
                ],
            },
            "rollout": {
                "steps": steps,
                "bake": {"duration": "1s" if quick else "10m"},
                "promoteRatio": "2",
            },
        },
    }


def calibration() -> Thing:
    """Return the ConfigMap that the cascade's Confidence check reads."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "small-cal"},
        "data": {"calibration.json": facts().calibration},
    }


def status(cluster: Cluster, kind: str, name: str, namespace: str) -> Thing:
    """Return an object's status."""
    found = cluster.get(kind, name, "--namespace", namespace)
    told: Thing = found.get("status") or {}
    return told


def condition(told: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return one condition of a status, {} where it has none of that kind."""
    return next((c for c in told.get("conditions", ()) if c["type"] == kind), {})


def settled(cluster: Cluster, name: str, namespace: str, *, limit_s: float = 120) -> Thing:
    """Wait until a route serves everything by one revision that is the spec's own."""

    def look() -> Thing | None:
        told = status(cluster, "mroute", name, namespace)
        generation = cluster.get("mroute", name, "--namespace", namespace)["metadata"]["generation"]
        is_new = told.get("observedGeneration") == generation
        ready = condition(told, "Ready").get("status") == "True"
        return told if is_new and ready and told["phase"] == "Healthy" else None

    return wait_for(look, limit_s, f"route {name} to be settled")


@dataclass
class Traffic:
    """A steady load of the demo's questions. `failures` are what clients were told."""

    url: str
    model: str
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    arms: dict[str, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _ask(self, number: int, workers: int) -> None:
        asked = itertools.cycle(list(questions.load())[number::workers])
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0) as client:
            while not self._stop.is_set():
                body = next(asked).body(self.model, max_tokens=64, temperature=0)
                try:
                    raw = client.chat.completions.with_raw_response.create(
                        **body, response_format={"type": "json_object"}, timeout=20
                    )
                except openai.OpenAIError as error:
                    self.failures.append(f"{type(error).__name__}: {error}"[:300])
                    continue
                self.answers += 1
                arm = raw.headers.get("x-weir-arm", "")
                self.arms[arm] = self.arms.get(arm, 0) + 1


@contextmanager
def traffic(url: str, model: str = "assistant", *, workers: int = 4) -> Iterator[Traffic]:
    """Ask while the block runs."""
    load = Traffic(url, model)
    threads = [
        threading.Thread(target=load._ask, args=(number, workers)) for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load._stop.set()
        for thread in threads:
            thread.join(30)
