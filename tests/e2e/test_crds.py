"""A real API server takes the CRDs and the examples, and says of bad objects what is wrong."""

import contextlib
import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import ROOT, Cluster, ClusterError, wait_for
from e2e.faults import OPERATOR, without_operator
from e2e.weir import SYSTEM
from support.raw import ROUTE, VLLM, changed
from support.refused import REFUSED
from support.rollouts import judged, rolled_back, started
from weir_cli.demo_manifests import facts, manifests
from weir_core.backend_status import BackendSeen, IdentitySeen, backend_status
from weir_core.history import find
from weir_core.resources import GROUP_VERSION
from weir_core.revision_spec import RevisionOf, record_status, revision_object
from weir_core.route_spec import MAX_PROMPT
from weir_core.status import Observed, route_status

KINDS = ("modelroutes", "modelbackends", "modelrevisions")
URLS = dict.fromkeys(("small", "large", "small-5-levels"), "http://127.0.0.1:1")


@pytest.fixture(scope="module", autouse=True)
def alone(cluster: Cluster) -> Iterator[None]:
    """An operator, where there is one, rests: statuses are these tests' own to write."""
    found = cluster.kubectl("get", OPERATOR, "--namespace", SYSTEM, "--ignore-not-found")
    with without_operator(cluster) if found.strip() else contextlib.nullcontext():
        yield


@pytest.fixture(scope="module", autouse=True)
def crds(cluster: Cluster) -> list[Mapping[str, Any]]:
    """The CRDs, as the API server has them."""
    files = [word for path in sorted((ROOT / "crds").glob("*.yaml")) for word in ("-f", str(path))]
    cluster.kubectl("apply", "--server-side", "--force-conflicts", *files)
    names = [f"crd/{kind}.{GROUP_VERSION.partition('/')[0]}" for kind in KINDS]
    cluster.kubectl("wait", "--for=condition=Established", *names)
    wait_for(lambda: cluster.kubectl("get", "mroute,mbackend,mrev") or True, 30, "the API")
    found: list[Mapping[str, Any]] = cluster.get(*names)["items"]
    return found


def test_crds_have_nothing_against_them(crds: list[Mapping[str, Any]]) -> None:
    """A schema that is not structural has a condition that says so."""
    for crd in crds:
        conditions = {one["type"]: one["status"] for one in crd["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_crds_are_unchanged_when_they_are_applied_again(
    cluster: Cluster, crds: list[Mapping[str, Any]]
) -> None:
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        cluster.kubectl("apply", "--server-side", "-f", str(path))
    group = GROUP_VERSION.partition("/")[0]
    again = cluster.get(*[f"crd/{kind}.{group}" for kind in KINDS])["items"]
    assert [one["metadata"]["resourceVersion"] for one in again] == [
        one["metadata"]["resourceVersion"] for one in crds
    ]


# What people write.


def written() -> dict[str, str]:
    files = [*(ROOT / "hack" / "examples").glob("*.yaml"), *ROOT.glob("tests/golden/v*/*.yaml")]
    found = {f"{path.parent.name}/{path.name}": path.read_text() for path in sorted(files)}
    return {**found, **{f"demo/{name}": t for name, t in manifests(facts(), URLS).items()}}


def here(text: str) -> str:
    """Return what a namespace has of manifests, without its name."""
    objects = [one for one in yaml.safe_load_all(text) if one and one["kind"] != "Namespace"]
    for one in objects:
        one["metadata"].pop("namespace", None)
    return "\n---\n".join(map(json.dumps, objects))


@pytest.mark.parametrize("file", written())
def test_what_people_wrote_is_taken(cluster: Cluster, namespace: str, file: str) -> None:
    given = here(written()[file])
    said = cluster.kubectl(
        "create", "--validate=strict", "--namespace", namespace, "-f", "-", given=given
    )
    assert said.count(" created\n") == given.count("\n---\n") + 1


def test_object_is_kept_as_it_was_written(cluster: Cluster, namespace: str) -> None:
    """No default is written into it, no field dropped."""
    obj = next(yaml.safe_load_all(Path(ROOT / "tests/golden/v0.1/routes.yaml").read_text()))
    del obj["metadata"]["namespace"]
    cluster.apply(obj, namespace=namespace)
    kept = cluster.get("mroute", obj["metadata"]["name"], "--namespace", namespace)
    assert kept["spec"] == obj["spec"]


def test_prompt_is_measured_in_characters(cluster: Cluster, namespace: str) -> None:
    obj = changed(ROUTE, "spec.behaviour.tiers.0.systemPrompt", "ü" * MAX_PROMPT)
    del obj["metadata"]["namespace"]
    cluster.kubectl("create", "--namespace", namespace, "-f", "-", given=json.dumps(obj))


# What is refused.


@pytest.fixture(scope="module")
def refusals(cluster: Cluster) -> dict[str, str]:
    """What the API server says of each bad object; asked all at once, it answers in order."""
    objects = []
    for row in REFUSED:
        obj = copy.deepcopy(row.object)
        obj["metadata"]["namespace"] = "default"
        objects.append(json.dumps(obj))
    with pytest.raises(ClusterError) as refused:
        cluster.kubectl(
            "create", "--dry-run=server", "--validate=strict", "-f", "-",
            given="\n---\n".join(objects), limit_s=120,
        )  # fmt: skip
    lines = str(refused.value).partition("failed: ")[2].splitlines()
    assert len(lines) == len(REFUSED)
    return {row.id: line for row, line in zip(REFUSED, lines, strict=True)}


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.id)
def test_bad_object_is_refused_with_what_was_wanted(refusals: dict[str, str], row: Any) -> None:
    said = refusals[row.id]
    assert re.search(rf"[\s\"\[]{re.escape(row.field)}[\":]", said)
    assert row.told in said


# Revisions.


def test_revision_never_changes(cluster: Cluster, namespace: str) -> None:
    of = RevisionOf(name="chat", uid="u1")
    revision = revision_object(
        kind="Route", name="chat-1", namespace=namespace, of=of, content="{}"
    )
    cluster.apply(revision, namespace=namespace)
    cluster.apply(changed(revision, "metadata.labels", {"a": "b"}), namespace=namespace)
    for path, value in (("spec.content", "[]"), ("spec.of.uid", "u2"), ("spec.kind", "Backend")):
        with pytest.raises(ClusterError, match="spec: Forbidden: a revision never changes"):
            cluster.apply(changed(revision, path, value), namespace=namespace)


def test_revision_has_the_name_of_its_object(cluster: Cluster, namespace: str) -> None:
    of = RevisionOf(name="chat", uid="u1")
    revision = revision_object(
        kind="Route", name="chat-1", namespace=namespace, of=of, content="{}"
    )
    with pytest.raises(ClusterError, match=r"metadata.name: .* wanted metadata.name to be"):
        cluster.apply(changed(revision, "metadata.name", "chat-2"), namespace=namespace)


# What people see.


def set_status(
    cluster: Cluster, namespace: str, what: str, status: Mapping[str, Any]
) -> Mapping[str, Any]:
    patch = json.dumps({"status": status})
    words = ("--namespace", namespace, "--subresource=status", "--type=merge", "--patch", patch)
    cluster.kubectl("patch", what, *words)
    kept: Mapping[str, Any] = cluster.get(what, "--namespace", namespace)["status"]
    return kept


def table(cluster: Cluster, namespace: str, what: str, *more: str) -> list[list[str]]:
    text = cluster.kubectl("get", what, "--namespace", namespace, *more)
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def test_route_shows_its_rollout(cluster: Cluster, namespace: str) -> None:
    course = started()
    course.tell(judgement=judged(canary=112))
    observed = Observed(policy=course.policy, target=course.state.canary, judgement=judged())
    obj = changed(ROUTE, "metadata", {"name": "assistant"})
    cluster.apply(obj, namespace=namespace)
    status = route_status(course.state, observed, now_s=course.now_s)
    set_status(cluster, namespace, "mroute/assistant", status)
    head, row = table(cluster, namespace, "mroute")
    wanted = "NAME PHASE STEP WEIGHT VERDICT E-VALUE STABLE CANARY AGE"
    assert head == wanted.split()
    assert row[:-1] == [
        *("assistant", "Progressing", "2/6", "5%", "NoHarmYet", "1.8"),
        *(course.state.stable, course.state.canary),
    ]
    assert table(cluster, namespace, "mroute", "--output=wide")[0][-2:] == ["READY", "MESSAGE"]


def test_status_keeps_what_a_newer_operator_says(cluster: Cluster, namespace: str) -> None:
    cluster.apply(changed(ROUTE, "metadata", {"name": "assistant"}), namespace=namespace)
    status = {
        "phase": "Pondering",
        "later": {"list": [1, "two"]},
        "weight": {"set": "5%", "later": True},
        "rollout": {"state": {"stage": "Steps"}, "checkpoint": "eJw="},
        "conditions": [{"type": "Later", "status": "Perhaps", "later": 1}],
    }
    assert set_status(cluster, namespace, "mroute/assistant", status) == status


def test_backend_shows_its_replicas(cluster: Cluster, namespace: str) -> None:
    cluster.apply(VLLM, namespace=namespace)
    identity = IdentitySeen(name="small-1", newest=True, wanted=2, ready=1, routes=("assistant",))
    status = backend_status(BackendSeen(identities=(identity,), model="small-model"), now_s=0)
    set_status(cluster, namespace, "mbackend/small", status)
    head, row = table(cluster, namespace, "mbackend")
    assert head == ["NAME", "MODEL", "READY", "REPLICAS", "REASON", "AGE"]
    assert row[:-1] == ["small", "small-model", "True", "1/2", status["reason"]]


def test_revision_shows_its_outcome(cluster: Cluster, namespace: str) -> None:
    course = rolled_back()
    record = find(course.state.records, course.state.canary)
    assert record is not None
    of = RevisionOf(name="chat", uid="u1")
    name = record.revision.name
    revision = revision_object(kind="Route", name=name, namespace=namespace, of=of, content="{}")
    cluster.apply(revision, namespace=namespace)
    status = set_status(cluster, namespace, f"mrev/{name}", record_status(record))
    assert status == record_status(record)
    head, row = table(cluster, namespace, "mrev")
    assert head == ["NAME", "OF", "OUTCOME", "ATTEMPT", "E-VALUE", "AGE"]
    assert row[:-1] == [name, "chat", "RolledBack", "1", status["eValue"]]


def test_category_lists_all_kinds(cluster: Cluster, namespace: str) -> None:
    cluster.apply(changed(ROUTE, "metadata", {"name": "assistant"}), VLLM, namespace=namespace)
    names = cluster.kubectl("get", "inference", "--namespace", namespace, "--output=name")
    group = GROUP_VERSION.partition("/")[0]
    assert names.split() == [f"modelbackend.{group}/small", f"modelroute.{group}/assistant"]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("modelroute.spec.behaviour.tiers", "Cheapest first."),
        ("mroute.spec.behaviour.maxAttempts", "Default: 4."),
        ("mroute.spec.rollout.steps.setWeight", "Written as a percent from 0 to 100: an integer"),
        ("mbackend.spec.vllm.args", "those that Weir owns are refused"),
        ("mbackend.status.replicas", "such as 1/2"),
        ("mrev.spec.content", "Canonical JSON."),
        ("mrev.status.outcome", "Canary, Stable, RolledBack or Superseded."),
    ],
)
def test_kubectl_explains_a_field(cluster: Cluster, field: str, said: str) -> None:
    told = " ".join(cluster.kubectl("explain", field).split())
    assert said in told
