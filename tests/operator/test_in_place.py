"""Which pods an identity keeps, and when an edit in place goes into them."""

import copy
import json

import pytest

from support.rendering import REVISION, backend
from weir_core.identity import identity_of
from weir_operator.in_place import answers, deferral, rendering_for
from weir_operator.workloads import RENDERED, WorkloadSettings, identity_objects, render_template

RESTARTED = "kubectl.kubernetes.io/restartedAt"
TOKEN = {"secretKeyRef": {"name": "absent", "key": "token"}}


def live_of(one, **more):
    """Return the Deployment of a backend as it was applied."""
    return identity_objects(one, revision=REVISION, **more)[2]


def rendered(one, live, *, newest=True, **more):
    return rendering_for(one, live, identity=REVISION.name, newest=newest, **more)


def template_for(one, live, **more):
    found, waiting = rendered(one, live, **more)
    assert waiting == ()
    return found.template


def edited(deployment, image="hand-made"):
    """Return a Deployment whose annotation tells of another rendering than today's."""
    annotations = deployment["metadata"]["annotations"]
    told = json.loads(annotations[RENDERED])
    told["template"]["spec"]["containers"][0]["image"] = image
    annotations[RENDERED] = json.dumps(told)
    return deployment


def image_of(template):
    return template["spec"]["containers"][0]["image"]


def test_newest_identity_follows_its_spec():
    live = live_of(backend())
    template = template_for(backend(vllm__sharedMemory="9Gi"), live)
    assert template["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] == "9Gi"


def test_same_spec_keeps_what_an_older_release_rendered():
    """Upgrading Weir restarts no model server."""
    live = edited(live_of(backend()), image="as-rendered-then")
    template = template_for(backend(), live)
    assert image_of(template) == "as-rendered-then"


def test_what_does_not_show_in_pods_renders_nothing_anew():
    live = edited(live_of(backend()), image="as-rendered-then")
    priced = backend(
        pricing={"inputPerMillionTokens": "9", "outputPerMillionTokens": "9"}, replicas=7
    )
    template = template_for(priced, live)
    assert image_of(template) == "as-rendered-then"


def test_other_settings_of_the_chart_render_anew():
    live = edited(live_of(backend()))
    template = template_for(
        backend(),
        live,
        settings=WorkloadSettings(run_as_user=1000),
    )
    assert template["spec"]["securityContext"]["runAsUser"] == 1000


def test_older_identity_stays_as_it_was_last_applied():
    """Its neutral fields were edited after its revision was written; repair must not undo them."""
    live = live_of(backend(vllm__sharedMemory="9Gi"))
    stored = render_template(backend(), identity=REVISION.name)
    template = template_for(backend(), live, newest=False, stored=stored)
    assert template["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] == "9Gi"


def test_older_identity_without_a_deployment_is_made_as_its_revision_says():
    stored = {"metadata": {}, "spec": {"containers": [{"name": "vllm", "image": "then"}]}}
    template = template_for(backend(), None, newest=False, stored=stored)
    assert template == stored


@pytest.mark.parametrize("text", ["", "{", "[]", '{"of": 1, "template": {"spec": {}}}', '"x"'])
def test_annotation_that_is_none_is_rendered_over(text):
    live = {"metadata": {"annotations": {RENDERED: text}}}
    for newest in (True, False):
        template = template_for(backend(), live, newest=newest)
        assert template == render_template(backend(), identity=REVISION.name)


def test_template_that_was_given_is_run_and_remembered():
    live = edited(live_of(backend()), image="then")
    found, _ = rendered(backend(), live)
    deployment = live_of(backend(), rendering=found)
    assert image_of(deployment["spec"]["template"]) == "then"
    again = template_for(backend(), deployment)
    assert again == found.template


# An edit in place of a server that answers.

EDITS = {
    "token": {"vllm__huggingFaceToken": TOKEN},
    "no token": {"vllm__huggingFaceToken": None},
    "cache": {"vllm__weightsCache": {"persistentVolumeClaim": {"claimName": "absent"}}},
    "node selector": {"vllm__accelerator__nodeSelector": {"gpu": "none"}},
    "probe": {"vllm__startup": {"budget": "10s"}},
    "labels": {"vllm__podTemplate": {"metadata": {"labels": {"team": "search"}}}},
}
CPU = {"vllm__accelerator": None}


def restarted(deployment, when="2026-01-01T00:00:00Z"):
    """Return a Deployment as `kubectl rollout restart` leaves it."""
    made = copy.deepcopy(deployment)
    meta = made["spec"]["template"]["metadata"]
    meta["annotations"] = {**meta.get("annotations", {}), RESTARTED: when}
    return made


@pytest.mark.parametrize("edit", EDITS)
def test_edit_waits_while_a_server_answers_that_must_end_first(edit):
    live, now = live_of(backend()), backend(**EDITS[edit])
    assert identity_of(now) == identity_of(backend())
    found, waiting = rendered(now, live, answering=True)
    assert found.template == render_template(backend(), identity=REVISION.name)
    assert waiting
    again, still = rendered(now, live_of(now, rendering=found), answering=True)
    assert (again, still) == (found, waiting), "it waits until it goes in"


@pytest.mark.parametrize("edit", EDITS)
def test_edit_goes_in_when_no_server_answers(edit):
    now = backend(**EDITS[edit])
    template = template_for(now, live_of(backend()), answering=False)
    assert template == render_template(now, identity=REVISION.name)


def test_edit_goes_in_at_once_where_the_old_pod_stays_until_the_new_one_is_ready():
    now = backend(**CPU, vllm__huggingFaceToken=TOKEN)
    live = live_of(now)
    assert live["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    template = template_for(now, live_of(backend(**CPU)), answering=True)
    assert template == render_template(now, identity=REVISION.name)


def test_edit_that_is_taken_back_waits_no_more():
    live, now = live_of(backend()), backend(**EDITS["token"])
    found, _ = rendered(now, live, answering=True)
    template_for(backend(), live_of(now, rendering=found), answering=True)


def test_edit_that_shows_in_no_pod_is_noted_and_waits_for_nothing():
    now = backend(vllm__parallelism={"tensor": 1, "pipeline": 1})
    before = backend(vllm__parallelism=None)
    found, waiting = rendered(now, live_of(before), answering=True)
    assert waiting == ()
    assert found.of != rendered(before, live_of(before))[0].of


def test_settings_of_the_chart_end_no_server_that_answers():
    settings = WorkloadSettings(run_as_user=1000)
    found, waiting = rendered(backend(), live_of(backend()), answering=True, settings=settings)
    assert found.template["spec"]["securityContext"]["runAsUser"] == 2000
    assert waiting == ("spec.securityContext.runAsUser",)


def test_restart_by_people_takes_the_edit_that_waits():
    live, now = live_of(backend()), backend(**EDITS["token"])
    template = template_for(now, restarted(live), answering=True)
    assert template == render_template(now, identity=REVISION.name)


def test_restart_of_before_the_edit_lets_nothing_in():
    before, _ = rendered(backend(), restarted(live_of(backend())), answering=True)
    live = restarted(live_of(backend(), rendering=before))
    _, waiting = rendered(backend(**EDITS["token"]), live, answering=True)
    assert waiting
    _, waiting = rendered(
        backend(**EDITS["token"]), restarted(live, "2026-02-01T00:00:00Z"), answering=True
    )
    assert not waiting


def test_deferral_says_which_field_waits_and_how_to_force_it():
    one = backend(**EDITS["token"])
    _, waiting = rendered(one, live_of(backend()), answering=True)
    told = deferral(one, REVISION.name, waiting)
    assert (told.reason, told.condition) == ("EditDeferred", "WorkloadReady")
    assert "env[HF_TOKEN].valueFrom.secretKeyRef.name" in told.seen
    assert f"kubectl rollout restart deployment/{REVISION.name} --namespace llm" in told.wanted


def container(**more):
    return {"status": {"containerStatuses": [{"name": "vllm", **more}]}}


@pytest.mark.parametrize(
    ("ready", "pods", "wanted"),
    [
        (1, [], True),
        (0, [container(ready=False, started=True)], True),
        (0, [container(ready=False, started=False)], False),
        (0, [container()], False),
        (None, [{}], False),
    ],
    ids=["ready", "busy", "loading", "waiting", "no container"],
)
def test_server_answers_that_is_ready_or_once_was(ready, pods, wanted):
    assert answers({"status": {"readyReplicas": ready}}, pods) is wanted


def test_no_deployment_has_a_server():
    assert not answers(None, ())
