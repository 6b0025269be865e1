"""The main job on a real cluster: apply, answer, promote what is good, roll back what is not."""

import json

import openai

from e2e.cluster import Cluster, wait_for
from e2e.weir import backend, condition, route, serve, settled, status, traffic
from weir_lab import questions


def test_a_route_is_served_and_every_change_is_decided(weir: Cluster, namespace: str) -> None:
    serve(weir, namespace)
    with weir.url("weir-router", 80, namespace=namespace) as url:
        _answers(url)
        with traffic(url) as load:
            first = status(weir, "mroute", "assistant", namespace)["stable"]["revision"]
            _good_change_is_promoted(weir, namespace, first)
            _bad_threshold_is_rolled_back(weir, namespace)
            _bad_model_is_rolled_back(weir, namespace)
        assert load.failures == []
        assert load.answers > 500
        assert load.arms.get("canary", 0) > 50


def _answers(url: str) -> None:
    question = next(iter(questions.load()))
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=5) as client:
        assert [model.id for model in client.models.list()] == ["assistant"]
        raw = client.chat.completions.with_raw_response.create(
            **question.body("assistant", max_tokens=64, temperature=0),
            response_format={"type": "json_object"},
        )
    assert raw.headers["x-weir-tier"] in ("small", "large")
    assert raw.headers["x-weir-arm"] == "stable"
    assert set(json.loads(raw.parse().choices[0].message.content or "")) == {"intent"}


def _good_change_is_promoted(weir: Cluster, namespace: str, first: str) -> None:
    from weir_cli.demo_manifests import facts

    stricter = route(threshold=f"{facts().min_probability + 0.02:.3f}")
    with weir.timed("good change promoted"):
        weir.apply(stricter, namespace=namespace)
        told = settled(weir, "assistant", namespace, limit_s=240)
    assert told["stable"]["revision"] != first
    assert condition(told, "Promoted")["status"] == "True"
    weir.kubectl("wait", "mroute/assistant", "--for=condition=Promoted", "-n", namespace)
    assert _outcomes(weir, namespace)[first] == "Superseded"


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


def _bad_model_is_rolled_back(weir: Cluster, namespace: str) -> None:
    from weir_cli.demo_manifests import facts

    good = route(threshold=f"{facts().min_probability + 0.02:.3f}")
    weir.apply(good, namespace=namespace)
    settled(weir, "assistant", namespace)
    with weir.timed("bad backend edit rolled back"):
        weir.apply(backend("small", "small", revision="broken-format"), namespace=namespace)
        told = _rolled_back(weir, namespace)
    assert told["lastRollback"]["suspect"] in ("escalations", "quality")
    backend_told = status(weir, "mbackend", "small", namespace)
    assert condition(backend_told, "RolledBack")["status"] == "True"
    assert condition(backend_told, "Promoted")["status"] == "False"


def _rolled_back(weir: Cluster, namespace: str) -> dict[str, object]:
    def look() -> dict[str, object] | None:
        told = status(weir, "mroute", "assistant", namespace)
        return told if condition(told, "RolledBack").get("status") == "True" else None

    return wait_for(look, 240, "the canary to be rolled back")


def _outcomes(weir: Cluster, namespace: str) -> dict[str, str]:
    found = weir.get("mrev", "--namespace", namespace)["items"]
    return {obj["metadata"]["name"]: obj.get("status", {}).get("outcome", "") for obj in found}
