"""Labels of people behind one Service with two routers: each reaches the one that answered."""

import re
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest

from e2e.cluster import Cluster, wait_for
from e2e.faults import ROUTERS, all_ready, name_of, pods, weights
from e2e.weir import Thing, route, serve
from weir_lab import questions
from weir_router.peers import mark_of

REPLIES = 40
GONE_S = 90
"""A router that ends finishes what it has, and a name server forgets it a while later."""


@pytest.fixture
def url(weir: Cluster, namespace: str) -> Iterator[str]:
    """The Service of two routers, with a canary at 50 % that waits there."""
    serve(weir, namespace)
    weir.apply(waiting(), namespace=namespace)
    with weir.timed("canary at 50 % in both routers"):
        wait_for(lambda: list(weights(weir, namespace).values()) == [0.5, 0.5], 60, "the canary")
    with weir.url("weir-router", 80, namespace=namespace) as url:
        yield url


def waiting() -> Thing:
    """Return the demo's route with a change of it, labels as evidence, and a step that stays."""
    made = route(threshold="0.99")
    made["spec"]["monitoring"] = {
        "objectives": [
            {"name": "errors", "event": "Error"},
            {"name": "thumbs", "event": "Feedback", "within": "10m"},
        ]
    }
    made["spec"]["rollout"]["steps"] = [{"setWeight": 50}, {"hold": {"minRequests": 100_000}}]
    return made


def asked(url: str, count: int) -> list[str]:
    """Return the ids of so many replies, each over a connection of its own."""
    ids = []
    for question in list(questions.load())[:count]:
        body = question.body("assistant", max_tokens=64, temperature=0)
        body["response_format"] = {"type": "json_object"}
        got = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=20)
        assert got.status_code == 200, got.text
        ids.append(got.headers["x-request-id"])
    return ids


def labelled(url: str, id: str) -> int:
    """Label a reply over a connection of its own."""
    return httpx2.post(f"{url}/v1/feedback", json={"id": id, "harm": False}, timeout=20).status_code


def counted(cluster: Cluster, namespace: str, metric: str) -> list[float]:
    """Return what each router counts of a metric, over all its labels."""
    found = []
    for name in map(name_of, pods(cluster, namespace, ROUTERS)):
        path = f"/api/v1/namespaces/{namespace}/pods/{name}:8081/proxy/metrics"
        rows = re.findall(rf"^{metric}\{{.*\}} (.*)$", cluster.kubectl("get", "--raw", path), re.M)
        found.append(sum(map(float, rows)))
    return found


def test_every_label_is_taken_until_its_router_has_ended(
    weir: Cluster, namespace: str, url: str
) -> None:
    ids = asked(url, REPLIES)
    with weir.timed(f"{REPLIES} labels"):
        assert Counter(labelled(url, id) for id in ids) == {204: REPLIES}
    own, brought = (
        counted(weir, namespace, metric)
        for metric in ("weir_labels_total", "weir_labels_elsewhere_total")
    )
    assert sum(own) == REPLIES
    assert all(own)
    assert all(brought)
    print(f"\n    {REPLIES} labels: {own} taken, {brought} of them brought by the other router")

    gone, stays = all_ready(weir, namespace, ROUTERS, 2)
    marks = {name_of(one): mark_of(one["status"]["podIP"]) for one in (gone, stays)}
    lost, kept = (
        next(id for id in ids if id.startswith(f"weir-{marks[name_of(one)]}-"))
        for one in (gone, stays)
    )
    with weir.timed("router ended until nobody has its replies"):
        weir.kubectl("delete", "pod", name_of(gone), "--namespace", namespace)
        wait_for(lambda: labelled(url, lost) == 404, GONE_S, "its labels to be refused")
    assert labelled(url, kept) == 204
