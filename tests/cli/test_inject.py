"""The router put into what makes pods, and what is refused."""

import pytest
import yaml

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  serviceAccountName: reader
  containers: [{name: app, image: app:1}]
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: llm}
spec:
  template:
    spec:
      containers:
      - {name: app, image: app:1}
"""
CRON = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: app}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: app, image: app:1}]}}}}}
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: app}\n"


@pytest.fixture
def inject(weir_command, tmp_path):
    """Run the command on a text; no cluster is needed."""

    def run(text, *words):
        file = tmp_path / "app.yaml"
        file.write_text(text)
        ran = weir_command(
            "inject", "-f", str(file), "--image", "weir:1", "--feed", "op:8443", *words
        )
        return ran, list(yaml.safe_load_all(ran.out)) if ran.code == 0 else []

    return run


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (POD, ("spec",)),
        (DEPLOYMENT, ("spec", "template", "spec")),
        (CRON, ("spec", "jobTemplate", "spec", "template", "spec")),
    ],
    ids=["pod", "deployment", "cron"],
)
def test_router_is_put_into_every_pod(inject, text, path):
    _, (made,) = inject(text)
    for name in path:
        made = made[name]
    (router,) = made["initContainers"]
    assert (router["name"], router["image"]) == ("weir-router", "weir:1")
    assert {"name": "WEIR_FEED", "value": "op:8443"} in router["env"]
    assert made["containers"][0]["env"][0]["name"] == "OPENAI_BASE_URL"


def test_twice_is_as_good_as_once(inject):
    first, _ = inject(DEPLOYMENT)
    second, _ = inject(first.out)
    assert second.out == first.out


def test_objects_without_pods_are_left_and_noted(inject):
    ran, (service, deployment) = inject(f"{SERVICE}---\n{DEPLOYMENT}")
    assert service == yaml.safe_load(SERVICE)
    assert "initContainers" in deployment["spec"]["template"]["spec"]
    assert "app.yaml:1: Service app has no pods, left as it is" in ran.err


def test_right_that_the_pods_need_is_told_as_a_command(inject):
    ran, _ = inject(f"{POD}---\n{DEPLOYMENT}", "-n", "apps")
    assert "--serviceaccount=apps:reader" in ran.err
    assert "--serviceaccount=llm:default" in ran.err


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "containers:\n",
            "hostNetwork: true\n      containers:\n",
            ":7: Deployment app: spec.template.spec.hostNetwork: saw true, wanted",
        ),
        (
            "{name: app, image: app:1}",
            "{name: weir-router, image: x}",
            ":8: Deployment app: spec.template.spec.containers[0].name: saw weir-router, wanted",
        ),
        (
            "- {name: app, image: app:1}",
            "  - text",
            ":7: Deployment app: spec.template.spec.containers: saw something else, wanted",
        ),
        (
            "\n      - {name: app, image: app:1}",
            " {}",
            ":7: Deployment app: spec.template.spec.containers: saw no list, wanted",
        ),
        (
            "containers:\n",
            "os: {name: windows}\n      containers:\n",
            ":7: Deployment app: spec.template.spec.os.name: saw windows, wanted",
        ),
    ],
    ids=["host network", "name taken", "no object", "no list", "windows"],
)
def test_pod_that_cannot_have_it_is_refused_with_its_line(inject, old, new, told):
    assert old in DEPLOYMENT
    ran, _ = inject(DEPLOYMENT.replace(old, new))
    assert (ran.code, ran.out) == (2, "")
    assert f"app.yaml{told}" in ran.err


def test_all_problems_are_told_and_nothing_is_printed(inject):
    bad = DEPLOYMENT.replace("containers:\n", "hostNetwork: true\n      containers:\n")
    ran, _ = inject(f"{POD}---\n{bad}---\nkind: [\n")
    assert (ran.code, ran.out) == (2, "")
    ran, _ = inject(f"{POD}---\n{bad}---\n{bad}")
    assert ran.err.count("hostNetwork") == 2


def test_file_without_pods_is_refused(inject):
    ran, _ = inject(SERVICE)
    assert ran.code == 2
    assert "no pods to put a router into" in ran.err


def test_feed_must_be_an_address(inject):
    ran, _ = inject(POD, "--feed", "nowhere")
    assert ran.code == 2
    assert "wanted HOST:PORT" in ran.err


def test_settings_come_from_the_operator_unless_they_are_given(weir_command, tmp_path):
    (tmp_path / "pod.yaml").write_text(POD)
    ran = weir_command(
        "inject",
        "-f",
        str(tmp_path / "pod.yaml"),
        "--image",
        "x",
        "--kubeconfig",
        str(tmp_path / "no"),
    )
    assert ran.code == 2
    assert ran.err.endswith("; or give both --image and --feed\n")
