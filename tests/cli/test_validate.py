"""Problems of real files, each with its line."""

import io
import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "hack" / "examples"
BACKEND = """\
apiVersion: inference.weir.dev/v1alpha1
kind: ModelBackend
metadata: {name: small}
spec:
  model: {servedName: small}
  external: {url: http://127.0.0.1:8001}
"""
ROUTE = """\
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {name: assistant}
spec:
  modelNames: [assistant]
  behaviour:
    deadline: 30s
    tiers:
    - name: small
      backendRef: {name: smal}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "backend.yaml").write_text(BACKEND)
    (tmp_path / "route.yaml").write_text(ROUTE)
    return tmp_path


def test_a_reference_to_an_invalid_object_says_where_that_is(weir_command, folder):
    (folder / "backend.yaml").write_text(BACKEND.replace("small}\n  ext", "small, a: b}\n  ext"))
    mend(folder)
    first, second, _ = weir_command("validate", str(folder)).out.splitlines()
    assert first.startswith(f"{folder}/backend.yaml:5: ModelBackend default/small: ")
    assert second == (
        f"{folder}/route.yaml:10: ModelRoute default/assistant: "
        "spec.behaviour.tiers[0].backendRef.name: saw 'small', which is invalid itself "
        f"({folder}/backend.yaml:5), wanted ModelBackend default/small without problems"
    )


def test_a_key_given_twice_makes_an_object_invalid_not_missing(weir_command, folder):
    twice = BACKEND.replace("  model:", "  model: {servedName: small}\n  model:")
    (folder / "backend.yaml").write_text(twice)
    mend(folder)
    told = weir_command("validate", str(folder)).out
    assert f"which is invalid itself ({folder}/backend.yaml:6)" in told
    assert "2 objects in 2 files" in told


def test_a_conflict_says_where_the_older_route_has_the_name(weir_command, folder):
    mend(folder)
    text = (folder / "route.yaml").read_text()
    (folder / "second.yaml").write_text(text.replace("{name: assistant}", "{name: second}"))
    problem, _ = weir_command("validate", str(folder)).out.splitlines()
    assert problem.startswith(f"{folder}/second.yaml:5: ModelRoute default/second: ")
    assert (
        f"saw 'assistant', which the older ModelRoute default/assistant has ({folder}/route.yaml:5)"
        in problem
    )


def mend(folder):
    (folder / "route.yaml").write_text(ROUTE.replace("smal}", "small}"))


def test_good_folder_ends_with_0(weir_command, folder):
    mend(folder)
    ran = weir_command("validate", str(folder))
    assert (ran.code, ran.out) == (0, "2 objects in 2 files: no problems\n")


def test_problem_names_file_line_and_field(weir_command, folder):
    ran = weir_command("validate", str(folder))
    assert ran.code == 2
    problem, summary = ran.out.splitlines()
    assert problem == (
        f"{folder}/route.yaml:10: ModelRoute default/assistant: "
        "spec.behaviour.tiers[0].backendRef.name: saw 'smal', "
        "wanted a ModelBackend in namespace default; did you mean 'small'?"
    )
    assert summary == "2 objects in 2 files: 1 problem of 1 object"


def test_all_problems_are_told_at_once_from_top_to_bottom(weir_command, folder):
    (folder / "a.yaml").write_text("kind: [\n")
    broken = BACKEND.replace("small}\n  ext", "small, colour: red}\n  ext")
    (folder / "backend.yaml").write_text(broken)
    places = [line.partition(": ")[0] for line in problems(weir_command("validate", str(folder)))]
    assert places[0].startswith(f"{folder}/a.yaml:")
    assert places[1:] == [f"{folder}/backend.yaml:5", f"{folder}/route.yaml:10"]


def problems(ran):
    return ran.out.splitlines()[:-1]


def test_json_has_each_problem_in_its_fields(weir_command, folder):
    ran = weir_command("validate", str(folder), "-o", "json")
    told = json.loads(ran.out)
    assert ran.code == 2
    assert (told["files"], told["objects"]) == (2, 2)
    assert told["problems"][0]["field"] == "spec.behaviour.tiers[0].backendRef.name"
    assert told["problems"][0]["source"] == f"{folder}/route.yaml:10"


def test_files_may_be_named_one_by_one(weir_command, folder):
    ran = weir_command("validate", str(folder / "backend.yaml"))
    assert (ran.code, ran.out) == (0, "1 object in 1 file: no problems\n")


def test_dash_is_standard_input(weir_command, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(BACKEND.replace("small}", "small", 1)))
    ran = weir_command("validate", "-")
    assert ran.code == 2
    assert ran.out.startswith("stdin:")


def test_vllm_backends_are_for_clusters_only(weir_command):
    example = str(EXAMPLES / "assistant.yaml")
    assert "only Kubernetes runs vllm ones" in weir_command("validate", example).out
    assert weir_command("validate", example, "--cluster").code == 0


def test_pods_that_could_not_be_made_are_told_where_it_is_written(weir_command, folder):
    text = (EXAMPLES / "assistant.yaml").read_text()
    sized = {"containers": [{"name": "vllm", "resources": {"limits": {"memory": "128Mb"}}}]}
    laid = f"  vllm:\n    podTemplate: {json.dumps({'spec': {'hostNetwork': True, **sized}})}\n"
    (folder / "pods.yaml").write_text(text.replace("  vllm:\n", laid, 1))
    (told,) = problems(weir_command("validate", str(folder / "pods.yaml"), "--cluster"))
    assert "podTemplate.spec.containers[0].resources.limits.memory: saw '128Mb'" in told
    assert told.startswith(f"{folder}/pods.yaml:"), "hostNetwork is for the chart to say"


def test_file_that_is_not_text_is_a_problem_beside_others(weir_command, folder):
    (folder / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    ran = weir_command("validate", str(folder))
    assert ran.code == 2
    assert "wanted a readable file" in ran.out
    assert "saw 'smal'" in ran.out


def test_folder_without_manifests_does_not_pass(weir_command, tmp_path):
    ran = weir_command("validate", str(tmp_path))
    assert ran.code == 2
    assert "no manifests there" in ran.err
