"""Weir on the cluster of the tests: the chart installed, manifests of small models, traffic."""

import copy
import hashlib
import itertools
import json
import os
import subprocess
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
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
STEPS: tuple[Thing, ...] = (
    {"setWeight": 25},
    {"hold": {"minRequests": 30}},
    {"setWeight": 50},
    {"prove": {}},
)
REQUESTS_KEPT = 10
"""So many requests a client sends over one connection."""


def install(cluster: Cluster, values: Mapping[str, Any] = VALUES, *, release: str = "weir") -> None:
    """Install or upgrade the chart and wait until the operator leads.

    Pods carry the digest of the images, so none goes on with the code of an earlier run.
    """
    whole: dict[str, Any] = copy.deepcopy(dict(values))
    stamp = {"weir.dev/images": _digest(cluster)}
    for pods in (whole, whole.setdefault("router", {})):
        pods.setdefault("podAnnotations", {}).update(stamp)
    helm(
        cluster,
        *("upgrade", "--install", release, str(CHART), "--namespace", SYSTEM),
        *("--create-namespace", "--values", "-", "--wait", "--timeout", "3m"),
        "--take-ownership",  # Of CRDs that other tests have applied.
        given=json.dumps(whole),
    )


def _digest(cluster: Cluster) -> str:
    """Return what names the content of the images that the cluster was given."""
    with tarfile.open(cluster.archive) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        return hashlib.sha256(manifest.read()).hexdigest()[:16]


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


def backend(
    name: str, size: str, *, revision: str = "main", replicas: int = 1, length: int = 256
) -> Thing:
    """Return a ModelBackend of one of the small models, run by a pod of the operator's.

    `length` is the longest that the server takes, which changes no answer.
    """
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
                "args": [f"--max-model-len={length}"],
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


def route(
    name: str = "assistant",
    *,
    threshold: str | None = None,
    quick: bool = True,
    steps: Sequence[Thing] = STEPS,
) -> Thing:
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
                "steps": list(steps),
                "bake": {"duration": "1s" if quick else "10m"},
                "promoteRatio": "2",
            },
        },
    }


def hosted(
    name: str = "assistant", *, tokens: int = 64, steps: Sequence[Thing] = STEPS
) -> list[Thing]:
    """Return a route to a model that somebody else serves, and whom nobody here asks.

    It stands in seconds: no pod of the namespace's is one of a model. `tokens` change it.
    """
    free = {"inputPerMillionTokens": "1", "outputPerMillionTokens": "1"}
    there = {
        "apiVersion": API,
        "kind": "ModelBackend",
        "metadata": {"name": "hosted"},
        "spec": {
            "model": {"servedName": "hosted"},
            "capabilities": ["Chat"],
            "contextWindow": 256,
            "pricing": free,
            "external": {"url": "http://127.0.0.1:9/v1"},
        },
    }
    made = route(name, steps=steps)
    tier = {"name": "only", "backendRef": {"name": "hosted"}, "maxTokens": tokens}
    made["spec"]["behaviour"] = {"deadline": "10s", "tiers": [tier]}
    made["spec"]["monitoring"] = {"objectives": [{"name": "errors", "event": "Error"}]}
    return [there, made]


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


def serve(
    cluster: Cluster, namespace: str, *, replicas: int = 1, threshold: str | None = None
) -> None:
    """Apply the cascade and wait until it serves."""
    with cluster.timed("applied until Ready"):
        cluster.apply(
            calibration(),
            backend("small", "small", replicas=replicas),
            backend("large", "large"),
            route(threshold=threshold),
            namespace=namespace,
        )
        cluster.wait("modelbackend/small", "Ready", namespace=namespace, limit_s=120)
        cluster.wait("modelbackend/large", "Ready", namespace=namespace, limit_s=120)
        settled(cluster, "assistant", namespace)


@dataclass(frozen=True)
class Answer:
    """What a client was answered, and when, by the monotonic clock."""

    at_s: float
    arm: str
    tier: str


@dataclass(frozen=True)
class Failure:
    """What a client was not answered.

    "refused": no connection came about, so no router had accepted the request. "cut": the
    connection broke before the answer. "silent": nothing was heard for 20 s. "told": a router
    answered with an error.
    """

    at_s: float
    kind: str
    text: str


def _failure(error: openai.OpenAIError) -> Failure:
    cause, kind = error.__cause__, "told"
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
        kind = "refused"
    elif isinstance(cause, httpx2.TimeoutException):
        kind = "silent"
    elif isinstance(error, openai.APIConnectionError):
        kind = "cut"
    return Failure(time.monotonic(), kind, f"{error!r} from {cause!r}"[:400])


@dataclass
class Traffic:
    """A steady load of the demo's questions, none of them asked twice by the client.

    Each of its workers rests for `every_s` after an answer or a failure.
    """

    url: str
    model: str
    every_s: float = 0.0
    answered: list[Answer] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def answers(self) -> int:
        """How many requests were answered."""
        return len(self.answered)

    @property
    def arms(self) -> Counter[str]:
        """How many answers each arm gave."""
        return Counter(answer.arm for answer in self.answered)

    def since(self, at_s: float) -> Sequence[Answer]:
        """Return the answers after a time of the monotonic clock."""
        return [answer for answer in list(self.answered) if answer.at_s > at_s]

    def _ask(self, number: int, workers: int) -> None:
        asked = itertools.cycle(list(questions.load())[number::workers])
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0) as client:
            for count in itertools.count(1):
                if self._stop.is_set():
                    return
                body = next(asked).body(self.model, max_tokens=64, temperature=0)
                # A kept connection stays with one router for ever, though another was born.
                kept = {} if count % REQUESTS_KEPT else {"connection": "close"}
                try:
                    raw = client.chat.completions.with_raw_response.create(
                        **body,
                        response_format={"type": "json_object"},
                        extra_headers=kept,
                        timeout=20,
                    )
                except openai.OpenAIError as error:
                    self.failures.append(_failure(error))
                    self._stop.wait(max(0.05, self.every_s))
                    continue
                arm, tier = (raw.headers.get(f"x-weir-{name}", "") for name in ("arm", "tier"))
                self.answered.append(Answer(time.monotonic(), arm, tier))
                self._stop.wait(self.every_s)


def _is_up(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", timeout=2).is_success
    except httpx2.HTTPError:
        return False


@contextmanager
def traffic(
    url: str, model: str = "assistant", *, workers: int = 4, every_s: float = 0.0
) -> Iterator[Traffic]:
    """Ask while the block runs.

    It waits until the node leads new connections to the Service. A connection that was tried
    before would time out, however often it is tried again: the kernel remembers where it went.
    """
    wait_for(lambda: _is_up(url), 90, f"{url} to be reached")
    load = Traffic(url, model, every_s)
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
