"""What comes of a command, and what an API server's refusals mean."""

import json

import pytest

from weir_cli.cluster import acknowledgement, of_route
from weir_cli.errors import CommandError, MissingError, UnreachableError
from weir_cli.kube import Api, RefusedError, path_to, refusal
from weir_cli.totals import counted, summed, unheard

TEXT = "abort@chat-aaaaaaaaaa#1700000000.5"
ROUTES = "/apis/inference.weir.dev/v1alpha1/namespaces/llm/modelroutes"


def obj(annotation=TEXT, last=None):
    notes = {"inference.weir.dev/command": annotation} if annotation else {}
    return {"metadata": {"annotations": notes}, "status": {"lastCommand": last} if last else {}}


def test_command_is_acknowledged_by_its_own_text():
    last = {"command": TEXT, "result": "Refused", "message": "too late"}
    assert acknowledgement(obj(last=last), TEXT) == {"result": "Refused", "message": "too late"}


def test_answer_to_another_command_is_none():
    last = {"command": "pause@chat-aaaaaaaaaa#1", "result": "Done", "message": ""}
    assert acknowledgement(obj(last=last), TEXT) is None
    assert (
        acknowledgement({"metadata": {"annotations": obj()["metadata"]["annotations"]}}, TEXT)
        is None
    )


def test_acknowledgement_counts_although_another_command_came_after():
    last = {"command": TEXT, "result": "Done", "message": "abort obeyed"}
    assert acknowledgement(obj("pause@x#2", last), TEXT)["result"] == "Done"


@pytest.mark.parametrize(
    ("annotation", "why"),
    [("pause@x#2", "pause@x#2 took its place"), ("", "somebody took it away")],
)
def test_command_that_was_replaced_is_told_of(annotation, why):
    with pytest.raises(CommandError, match=why):
        acknowledgement(obj(annotation), TEXT)


def test_revisions_are_told_apart_by_their_route():
    made = [{"metadata": {"labels": {"inference.weir.dev/route": name}}} for name in "aba"]
    assert len(of_route(made, "a")) == 2


# Refusals.


def status(message, **details):
    return json.dumps({"kind": "Status", "message": message, "details": details})


def refused(code, path, content):
    return refusal(code, path, content, server="https://k:6443 (context c)")


def test_cluster_without_the_kinds_has_no_weir():
    told = refused(404, ROUTES, "404 page not found\n")
    assert str(told).startswith("https://k:6443 (context c) has no Weir: it does not know")
    assert "helm install" in str(told)
    assert not isinstance(told, MissingError)


def test_field_that_the_schema_has_not_is_a_refusal_though_the_server_calls_it_its_fault():
    message = "failed to create typed patch object (llm/x; y): .spec.foo: field not declared"
    told = refused(500, ROUTES, status(message))
    assert isinstance(told, RefusedError)
    assert isinstance(refused(500, ROUTES, status("etcd is away")), UnreachableError)


def test_kind_that_is_gone_means_the_same():
    told = refused(404, ROUTES, status("the server could not find the requested resource"))
    assert "has no Weir" in str(told)


def test_object_that_is_not_there_is_missing():
    told = refused(404, f"{ROUTES}/a", status('modelroutes "a" not found', name="a"))
    assert isinstance(told, MissingError)


def test_forbidden_says_which_roles_help():
    told = refused(403, ROUTES, status('User "x" cannot list resource "modelroutes"'))
    assert isinstance(told, RefusedError)
    assert told.status == 403
    assert str(told).startswith('User "x" cannot list')
    assert "ClusterRoles view and edit" in str(told)


def test_forbidden_elsewhere_promises_nothing():
    told = refused(403, "/api/v1/namespaces/llm/events", status("no"))
    assert str(told) == "no"


def test_unknown_user_is_told_to_log_in():
    assert "log in again" in str(refused(401, ROUTES, status("Unauthorized")))


def test_causes_are_kept_for_those_who_can_place_them():
    told = refused(422, ROUTES, status("invalid", causes=[{"field": "spec"}]))
    assert told.causes == [{"field": "spec"}]


@pytest.mark.parametrize("code", [429, 500, 503])
def test_server_that_is_busy_may_be_asked_again(code):
    """A watch goes on."""
    assert isinstance(refused(code, ROUTES, status("apiserver is starting")), UnreachableError)


@pytest.mark.parametrize("content", ["<html>\n no </html>", "[]", "", '{"message": 1}'])
def test_answer_of_a_stranger_is_one_line(content):
    assert "\n" not in str(refused(500, ROUTES, content))


def test_names_are_quoted_in_paths():
    assert path_to("ModelRoute", "llm", "../x") == f"{ROUTES}/..%2Fx"
    assert path_to("ModelRoute") == "/apis/inference.weir.dev/v1alpha1/modelroutes"


# Finding the cluster.

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: k, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts:
- {name: c, context: {cluster: k, user: u, namespace: llm}}
- {name: d, context: {cluster: k, user: u}}
current-context: c
"""


@pytest.fixture
def kubeconfig(tmp_path):
    file = tmp_path / "config"
    file.write_text(KUBECONFIG)
    return str(file)


def test_namespace_is_that_of_the_context(kubeconfig):
    assert Api.connect(kubeconfig=kubeconfig, context=None).namespace == "llm"
    assert Api.connect(kubeconfig=kubeconfig, context="d").namespace == "default"


def test_unknown_context_is_told_with_those_there_are(weir_command, kubeconfig):
    ran = weir_command("get", "--kubeconfig", kubeconfig, "--context", "e")
    assert (ran.code, ran.err) == (2, "weir: --context: saw e, wanted one of c, d\n")


def test_absent_kubeconfig_is_told_in_one_line(weir_command, tmp_path):
    ran = weir_command("get", "--kubeconfig", str(tmp_path / "none"))
    assert ran.code == 2
    assert ran.err == (
        f"weir: kubeconfig {tmp_path}/none: no such file; name one that has a cluster by "
        "--kubeconfig or KUBECONFIG\n"
    )


def test_cluster_that_is_down_is_told_in_one_line(weir_command, kubeconfig):
    ran = weir_command("describe", "a", "--kubeconfig", kubeconfig)
    assert ran.code == 1
    assert ran.err == (
        "weir: http://127.0.0.1:1 (context c) does not answer (connection refused); is the "
        "cluster up? name another by --context or --kubeconfig\n"
    )


# Totals.

METRICS = """\
# TYPE weir_requests counter
weir_requests_total{route="llm/a",revision="a-1",arm="stable",tier="small",code="200"} 5.0
weir_requests_total{route="llm/a",revision="a-1",arm="stable",tier="small",code="500"} 1.0
weir_requests_total{route="llm/a",revision="a-2",arm="canary",tier="large",code="200"} 2.0
weir_requests_total{route="llm/a",revision="a-2",arm="canary",tier="",code="503"} 9.0
weir_requests_total{route="llm/b",revision="b-1",arm="stable",tier="small",code="200"} 7.0
# TYPE weir_tokens counter
weir_tokens_total{route="llm/a",revision="a-1",arm="stable",tier="small",direction="input"} 50.0
weir_tokens_total{route="llm/a",revision="a-1",arm="stable",tier="small",direction="output"} 5.0
# TYPE weir_cost counter
weir_cost_total{route="llm/a",revision="a-1",arm="stable",tier="small"} 2e-06
"""


def test_metrics_of_a_router_are_summed_by_tier():
    found = counted(METRICS, "llm/a").tiers
    assert set(found) == {"small", "large"}
    assert found["small"]["requests"] == 5, "what failed was not answered"
    assert found["small"]["inputTokens"] == 50
    assert found["small"]["costPico"] == pytest.approx(2_000_000)


def test_totals_of_routers_add_up():
    both = summed([counted(METRICS, "llm/a").tiers] * 2)
    assert both["small"]["outputTokens"] == 10
    assert both["large"] == {"requests": 4, "inputTokens": 0, "outputTokens": 0, "costPico": 0}


ROUTER = """\
# TYPE weir_feed_connected gauge
weir_feed_connected {hears}
# TYPE weir_canary_weight gauge
weir_canary_weight{{route="llm/a"}} {weight}
weir_canary_weight{{route="llm/b"}} 0.5
"""


@pytest.mark.parametrize(
    ("routers", "told"),
    [
        (((1.0, 0.25), (0.0, 0.0)), []),
        (((0.0, 0.25), (0.0, 0.0)), ["is one running?"]),
        (((0.0, 0.0), (0.0, 0.0)), ["is one running? By now no router gives the canary anything"]),
    ],
    ids=["one hears", "none hears", "none hears and all braked"],
)
def test_a_status_that_nobody_writes_is_told(routers, told):
    asked = [counted(ROUTER.format(hears=hears, weight=w), "llm/a") for hears, w in routers]
    found = unheard(asked, gives=True)
    assert [one.partition("may be old, ")[2] for one in found] == told
    assert "By now" not in "".join(unheard(asked, gives=False))
