"""The main job on a real cluster: apply, answer, promote what is good, roll back what is not."""

import itertools
import json
import re

import openai

from e2e.cluster import Cluster, wait_for
from e2e.weir import Thing, backend, condition, route, serve, settled, status, traffic
from weir_cli.demo_manifests import facts
from weir_lab import questions


def test_a_route_is_served_and_every_change_is_decided(weir: Cluster, namespace: str) -> None:
    serve(weir, namespace)
    with weir.url("weir-router", 80, namespace=namespace) as url:
        first = status(weir, "mroute", "assistant", namespace)["stable"]["revision"]
        _answers(url, first)
        with traffic(url) as load:
            _good_change_is_promoted(weir, namespace, first)
            _bad_threshold_is_rolled_back(weir, namespace)
            _bad_model_is_rolled_back(weir, namespace)
            _right_edit_of_a_backend_is_promoted(weir, namespace, 255)
            # Promoted is True of the edit before when this one comes.
            _right_edit_of_a_backend_is_promoted(weir, namespace, 254)
        assert load.failures == []
        assert load.answers > 500
        assert load.arms.get("canary", 0) > 50


def _answers(url: str, revision: str) -> None:
    """Ask until each tier has answered: the small one at once, the large one after it."""
    seen: dict[str, tuple[str, str]] = {}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=5) as client:
        assert [model.id for model in client.models.list()] == ["assistant"]
        for question in itertools.islice(questions.load(), 60):
            raw = client.chat.completions.with_raw_response.create(
                **question.body("assistant", max_tokens=64, temperature=0),
                response_format={"type": "json_object"},
            )
            assert raw.headers["x-weir-arm"] == "stable"
            assert raw.headers["x-weir-revision"] == revision
            assert float(raw.headers["x-weir-cost"]) > 0
            assert set(json.loads(raw.parse().choices[0].message.content or "")) == {"intent"}
            why = raw.headers["x-weir-reason"], raw.headers["x-weir-attempts"]
            seen[raw.headers["x-weir-tier"]] = why
    assert seen["small"] == ("first-tier", "1")
    assert seen["large"] == ("escalated:sure", "2")


def _good_change_is_promoted(weir: Cluster, namespace: str, first: str) -> None:
    stricter = route(threshold=_stricter())
    with weir.timed("good change promoted"):
        weir.apply(stricter, namespace=namespace)
        told = settled(weir, "assistant", namespace, limit_s=240)
    assert told["stable"]["revision"] != first
    assert condition(told, "Promoted")["status"] == "True"
    weir.kubectl("wait", "mroute/assistant", "--for=condition=Promoted", "-n", namespace)
    assert _outcomes(weir, namespace)[first] == "Superseded"


def _stricter() -> str:
    """Return a threshold that lets stable escalate hardly more than before.

    At half of the questions all of a broken canary's would be less than twice as many: proven.
    """
    return f"{facts().min_probability + 0.005:.3f}"


def _bad_threshold_is_rolled_back(weir: Cluster, namespace: str) -> None:
    before = status(weir, "mroute", "assistant", namespace)["stable"]["revision"]
    with weir.timed("threshold 0 rolled back"):
        weir.apply(route(threshold="0"), namespace=namespace)
        told = _rolled_back(weir, namespace)
    assert told["stable"]["revision"] == before
    assert told["lastRollback"]["suspect"] == "quality"
    assert float(told["lastRollback"]["eValue"]) >= float(told["lastRollback"]["threshold"])
    assert _outcomes(weir, namespace)[told["canary"]["revision"]] == "RolledBack"
    events = weir.get("events", "--namespace", namespace)["items"]
    told_why = [e["message"] for e in events if e["reason"] == "RolledBack"]
    assert told_why, [e["reason"] for e in events]
    assert any("on quality" in why and "E " in why for why in told_why)
    _is_told_by_kubectl(weir, namespace, told)


def _bad_model_is_rolled_back(weir: Cluster, namespace: str) -> None:
    weir.apply(route(threshold=_stricter()), namespace=namespace)
    settled(weir, "assistant", namespace)
    with weir.timed("bad backend edit rolled back"):
        weir.apply(backend("small", "small", revision="broken-format"), namespace=namespace)
        told = _rolled_back(weir, namespace)
    assert told["lastRollback"]["suspect"] in ("escalations", "quality")
    backend_told = status(weir, "mbackend", "small", namespace)
    assert condition(backend_told, "RolledBack")["status"] == "True"
    assert condition(backend_told, "Promoted")["status"] == "False"
    wait_for(lambda: _was_told(weir, namespace, "RolledBack"), 10, "an Event of the backend")


def _was_told(weir: Cluster, namespace: str, reason: str) -> bool:
    """Whether an Event of the edited backend has this reason."""
    return any(
        (one["involvedObject"]["kind"], one["reason"]) == ("ModelBackend", reason)
        for one in weir.get("events", "--namespace", namespace)["items"]
    )


def _is_told_by_kubectl(weir: Cluster, namespace: str, told: Thing) -> None:
    """The numbers stand where people look first: columns of the history, `kubectl describe`."""
    reached = told["lastRollback"]["eValue"]
    rows = weir.kubectl("get", "mrev", "-o", "wide", "-n", namespace).splitlines()
    (row,) = [row for row in rows if row.startswith(told["canary"]["revision"])]
    assert {"RolledBack", "quality", reached} <= set(row.split()), row
    described = weir.kubectl("describe", "modelroute", "assistant", "-n", namespace)
    assert "Harm on quality (canary " in described
    assert f", E {reached} of " in described
    events = weir.kubectl("events", "-n", namespace, "--for", "modelroute/assistant")
    assert f", E {reached} of " in events


def _right_edit_of_a_backend_is_promoted(weir: Cluster, namespace: str, length: int) -> None:
    servers = ("deployments", "-n", namespace, "-l", "inference.weir.dev/backend=small")
    before = {one["metadata"]["name"] for one in weir.get(*servers)["items"]}
    stable = status(weir, "mroute", "assistant", namespace)["stable"]["revision"]
    with weir.timed("right backend edit promoted"):
        weir.apply(backend("small", "small", length=length), namespace=namespace)
        weir.wait("modelbackend/small", "Promoted", namespace=namespace, limit_s=240)
    told = status(weir, "mroute", "assistant", namespace)
    assert told["stable"]["revision"] != stable, "Promoted was told too early"
    assert (told["phase"], told["weight"]["set"]) == ("Healthy", "0%")
    assert re.fullmatch(
        r"\d+m?\d*s", status(weir, "mbackend", "small", namespace)["lastLoadDuration"]
    )

    def alone() -> bool:
        left = {one["metadata"]["name"] for one in weir.get(*servers)["items"]}
        return len(left) == 1 and not left & before

    wait_for(alone, 120, "the new model server alone")


def _rolled_back(weir: Cluster, namespace: str) -> Thing:
    def look() -> Thing | None:
        told = status(weir, "mroute", "assistant", namespace)
        return told if condition(told, "RolledBack").get("status") == "True" else None

    return wait_for(look, 240, "the canary to be rolled back")


def _outcomes(weir: Cluster, namespace: str) -> dict[str, str]:
    found = weir.get("mrev", "--namespace", namespace)["items"]
    return {obj["metadata"]["name"]: obj.get("status", {}).get("outcome", "") for obj in found}
