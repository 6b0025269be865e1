"""The chart's files: current, of one mind with the code, every value described and checked."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest
import yaml

from support.admission import CRDS, stale_files, write_files
from support.rendering import REVISION, backend
from weir_core import identity
from weir_operator.mark import LEADS
from weir_operator.routers import MANAGEMENT_PORT, PORT, RouterSettings, router_objects
from weir_operator.sidecar import LABEL
from weir_operator.walk import FIGURES
from weir_operator.workloads import WorkloadSettings, identity_objects
from weir_router.telemetry import Metrics

import chart  # isort: skip - support.admission makes hack/gen importable

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "weir"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
OF_ROUTERS = dict(
    re.findall(r'^  "(\w+)" "(\w+)"$', (CHART / "templates" / "_helpers.tpl").read_text(), re.M)
)
"""Values of `router` and the fields of RouterSettings that the chart makes of them."""


def refusal(values):
    """Return why the schema does not take values, "" if it does."""
    errors = jsonschema_rs.validator_for(SCHEMA).iter_errors(values)
    return "; ".join(error.message for error in errors)


# Generated files.


def test_crds_are_the_same_files_inside_the_chart_and_outside():
    inside = {path.name: path.read_bytes() for path in (CHART / "crds-source").iterdir()}
    assert inside == {path.name: path.read_bytes() for path in (ROOT / "crds").glob("*.yaml")}


def test_uninstalled_chart_leaves_the_crds():
    for crd in CRDS.values():
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_edited_file_of_the_chart_is_told(tmp_path):
    write_files(tmp_path)
    (tmp_path / chart.FILE).write_text("by hand")
    (tmp_path / "charts" / "weir" / "crds-source" / "old.yaml").touch()
    assert stale_files(tmp_path) == [
        "charts/weir/templates/sidecar.yaml: not what its source generates",
        "charts/weir/crds-source/old.yaml: nothing generates it",
    ]


def test_no_stand_in_is_left_in_the_sidecars_policy():
    text = chart.sidecar_template()
    assert not re.search(r"@\w+@", text)
    assert str(chart.USER) not in text


def test_value_without_a_place_in_the_policy_is_told(monkeypatch):
    monkeypatch.setitem(chart.WORDS, "nowhere", "{{ .Values.nowhere }}")
    with pytest.raises(ValueError, match="saw no nowhere in the policy"):
        chart.sidecar_template()


# Values.


def test_default_values_are_taken():
    assert refusal(VALUES) == ""


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"replica": 2}, "'replica' was unexpected"),
        ({"router": {"replica": 2}}, "'replica' was unexpected"),
        ({"router": {"overrides": {"a": {"image": {}}}}}, "'image' was unexpected"),
        ({"router": {"overrides": {"A b": {}}}}, "A b"),
        ({"replicas": 0}, "0 is less than the minimum of 1"),
        ({"replicas": "2"}, '"2" is not of type "integer"'),
        ({"namespaces": ["a", "a"]}, "non-unique"),
        ({"namespaces": "a"}, '"a" is not of type "array"'),
        ({"podTemplate": {"allow": ["Everything"]}}, '"Everything" is not one of'),
        ({"resources": {"request": {}}}, "'request' was unexpected"),
        ({"sidecar": {"enabled": "yes"}}, '"yes" is not of type "boolean"'),
        ({"router": {"env": {"A": 1}}}, '1 is not of type "string"'),
        ({"router": {"env": {"WEIR_FEED": "a:1"}}}, '"WEIR_FEED" is not valid'),
        ({"router": {"overrides": {"a": {"env": {"A=": ""}}}}}, '"A=" does not match'),
        ({"router": {"podLabels": {"a": "of two words"}}}, '"of two words" does not match'),
        ({"podAnnotations": {"of two": ""}}, '"of two" does not match'),
        ({"runAsUser": 0}, "0 is less than the minimum of 1"),
        ({"podTemplate": {"runAsGroup": -1}}, "-1 is less than the minimum of 0"),
        ({"resources": {"limits": {"memory": "lots"}}}, '"lots" does not match'),
        ({"resources": {"requests": {"cpu": "-5"}}}, '"-5" does not match'),
        ({"resources": {"requests": {"cpu": -5}}}, "-5 is less than the minimum of 0"),
        ({"priorityClassName": "Bad_Name"}, "is not valid"),
        ({"imagePullSecrets": [{"name": "A"}]}, '"A" does not match'),
        ({"image": {"repository": "weir:1.0"}}, '"weir:1.0" does not match'),
        ({"image": {"repository": "weir", "tag": "of two"}}, '"of two" does not match'),
    ],
)
def test_wrong_values_are_refused(values, told):
    assert told in refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        {"runAsUser": None, "priorityClassName": "", "podAnnotations": {"a.b/c": "any text!"}},
        {"resources": {"requests": {"cpu": 1.5, "memory": "1.5Gi"}, "limits": {"a/gpu": "1e3"}}},
        {"image": {"repository": "localhost:5000/a/b-c.d", "tag": "1@sha256:" + "0" * 64}},
        {"router": {"env": {"WEIR_LOG_LEVEL": "debug", "my.name": ""}, "podLabels": {"a": ""}}},
        {"podTemplate": {"runAsGroup": 0}},
    ],
)
def test_values_of_every_form_that_kubernetes_has_are_taken(values):
    assert refusal(values) == ""


def places(values, schema, path=""):
    """Give (path, value, schema) of every value; maps that people fill are one value."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    if schema.get("properties") and isinstance(values, dict):
        for name in {**values, **schema["properties"]}:
            below = f"{path}.{name}".lstrip(".")
            yield from places(values.get(name), schema["properties"].get(name, {}), below)
    else:
        yield path, values, schema


PLACES = list(places(VALUES, SCHEMA))
NOT_SHOWN = {"global", "resources.claims", "router.resources.claims", "sidecar.resources.claims"}


def test_every_value_is_of_a_described_form():
    assert [path for path, _, schema in PLACES if not schema] == []


def test_every_value_stands_in_the_values_file():
    absent = {path for path, value, _ in PLACES if value is None}
    assert absent == NOT_SHOWN


def test_reference_tells_every_value_with_its_default():
    text = (CHART / "README.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| ", text, re.M)
    told = {path: json.loads(default) for path, default in rows}
    assert told == {path: value for path, value, _ in PLACES if path not in NOT_SHOWN}


def test_override_of_a_namespace_may_change_what_its_own_routers_are():
    of_all = SCHEMA["properties"]["router"]["properties"]
    one = SCHEMA["definitions"]["override"]["properties"]
    assert {name: of_all[name] for name in one} == one
    assert set(of_all) - set(one) == {"image", "maxReplicas", "overrides"}


# The same in chart and code.


def test_chart_is_of_the_projects_version():
    told = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert told["version"] == told["appVersion"] == project["version"]


def test_router_values_have_the_defaults_of_the_code():
    code = RouterSettings(image="", feed="")
    told = {field: VALUES["router"][name] for name, field in OF_ROUTERS.items()}
    told["service_type"] = VALUES["router"]["service"]["type"]
    told["service_annotations"] = VALUES["router"]["service"]["annotations"]
    told["sidecar_resources"] = VALUES["sidecar"]["resources"]
    made = msgspec.convert({"image": "", "feed": "", **told}, RouterSettings)
    assert made == code


def test_every_setting_of_routers_comes_from_the_chart():
    named = {*OF_ROUTERS.values(), "service_type", "service_annotations", "sidecar_resources"}
    named |= {"image", "image_pull_policy", "image_pull_secrets", "feed", "overrides"}
    assert set(RouterSettings.__struct_fields__) - named == {"command"}


def test_model_server_values_are_the_settings_of_the_code():
    assert msgspec.convert(VALUES["podTemplate"], WorkloadSettings) == WorkloadSettings()
    assert set(VALUES["podTemplate"]) == set(WorkloadSettings.__struct_encode_fields__)


# Policies that the README gives.


def example_policies():
    """Return the NetworkPolicies of the README by their names."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (CHART / "README.md").read_text(), re.M | re.S)
    return {one["metadata"]["name"]: one["spec"] for one in yaml.safe_load_all(text)}


def selects(selector, labels):
    """Whether a label selector matches labels."""
    wanted = selector.get("matchLabels", {}).items()
    among = selector.get("matchExpressions", ())
    return wanted <= labels.items() and all(labels.get(o["key"]) in o["values"] for o in among)


def open_to(rule, labels):
    """Whether a rule lets pods of the namespace with such labels in."""
    return any(selects(one["podSelector"], labels) for one in rule["from"] if "podSelector" in one)


def template_of(objects):
    (labels,) = [
        obj["spec"]["template"]["metadata"]["labels"]
        for obj in objects
        if obj["kind"] == "Deployment"
    ]
    return labels


ROUTERS = template_of(
    router_objects("llm", settings=RouterSettings(image="", feed=""), owner=REVISION)
)
MODELS = template_of(identity_objects(backend(), revision=REVISION))


def test_only_routers_and_sidecars_reach_the_model_servers_of_the_readme():
    spec = example_policies()["weir-model-servers"]
    (rule,) = spec["ingress"]
    assert selects(spec["podSelector"], MODELS)
    assert not selects(spec["podSelector"], ROUTERS)
    assert [open_to(rule, who) for who in (ROUTERS, LABEL, {"app": "x"})] == [True, True, False]
    assert rule["ports"] == [{"port": identity.PORT}]


def test_routers_of_the_readme_are_open_to_clients_and_to_one_another():
    spec = example_policies()["weir-routers"]
    clients, others = spec["ingress"]
    assert selects(spec["podSelector"], ROUTERS)
    assert not selects(spec["podSelector"], LABEL)
    assert (open_to(clients, {"app": "x"}), clients["ports"]) == (True, [{"port": PORT}])
    assert [open_to(others, who) for who in (ROUTERS, {"app": "x"})] == [True, False]
    assert others["ports"] == [{"port": MANAGEMENT_PORT}]


# Names.


def test_service_selects_by_the_label_that_the_leader_gives_itself():
    assert f'    {LEADS}: "true"\n' in (CHART / "templates" / "operator.yaml").read_text()


def test_alerts_are_about_metrics_that_there_are():
    text = (CHART / "templates" / "monitoring.yaml").read_text()
    asked = set(re.findall(r"weir_\w+", " ".join(re.findall(r"expr: (.*)", text))))
    totals = {"counter": "_total"}
    of_routers = {f"{one.name}{totals.get(one.type, '')}" for one in Metrics().collect()}
    assert asked
    assert asked <= {*FIGURES, "weir_operator_leader"} | of_routers
