"""vLLM's command line: what Weir says, what people may add, what they may not.

The spellings here were each given to the parser of vLLM 0.32.
"""

import pytest

from support.rendering import backend
from weir_operator.flags import arguments, device_problems, weights_of


def said(**changes):
    return arguments(backend(**changes), shutdown_s=9)


def test_model_comes_first_and_peoples_flags_last():
    assert said(vllm__args=["--max-model-len=9", "--enforce-eager"]) == [
        "Qwen/Qwen3-8B",
        "--served-model-name=qwen3-8b",
        "--host=0.0.0.0",
        "--port=8000",
        "--tensor-parallel-size=1",
        "--pipeline-parallel-size=1",
        "--shutdown-timeout=9",
        "--revision=9c925d6",
        "--disable-access-log-for-endpoints=/health,/metrics,/ping",
        "--max-model-len=9",
        "--enforce-eager",
    ]


@pytest.mark.parametrize(
    ("uri", "revision", "model", "flag"),
    [
        ("hf://org/m", "abc", "org/m", "--revision=abc"),
        ("hf://org/m", None, "org/m", None),
        ("s3://bucket/m", "abc", "s3://bucket/m", None),
        ("pvc://claim/a/b/", "abc", "/models/a/b", None),
        ("pvc://claim", None, "/models", None),
        ("oci://reg/m", "v1", "/models", None),
    ],
)
def test_weights_are_where_the_uri_says(uri, revision, model, flag):
    args = said(model__uri=uri, model__revision=revision)
    assert args[0] == model
    assert [one for one in args if one.startswith("--revision")] == ([flag] if flag else [])


def test_claim_is_the_first_part_of_its_uri():
    assert weights_of("pvc://claim/a/b", "").claim == "claim"


@pytest.mark.parametrize(
    ("revision", "reference"),
    [("v1", "reg/m:v1"), ("sha256:aa", "reg/m@sha256:aa"), ("", "reg/m")],
)
def test_revision_of_an_artefact_is_its_tag_or_digest(revision, reference):
    assert weights_of("oci://reg/m", revision).image == reference


@pytest.mark.parametrize(
    "flag", ["--disable-access-log-for-endpoints=/x", "--disable_access_log_for_endpoints"]
)
def test_own_choice_of_quiet_paths_is_left_alone(flag):
    args = said(vllm__args=[flag])
    assert sum("access" in one for one in args) == 1


def devices(count, tensor, pipeline, *args, resource="nvidia.com/gpu"):
    one = backend(
        vllm__accelerator={"resourceName": resource, "count": count},
        vllm__parallelism={"tensor": tensor, "pipeline": pipeline},
        vllm__args=list(args),
    )
    return device_problems(one, one.spec.vllm)


@pytest.mark.parametrize(
    ("count", "tensor", "pipeline", "args"),
    [
        (1, 1, 1, ()),
        (8, 4, 2, ()),
        (8, 4, 1, ("--data-parallel-size=2",)),
        (8, 4, 1, ("-dp", "2")),
        (8, 4, 1, ("-dp", "4", "--data_parallel_size", "2")),
        (8, 4, 1, ("-pcp=2",)),
        (0, 2, 1, ()),
    ],
)
def test_devices_that_vllm_takes_are_asked_for(count, tensor, pipeline, args):
    assert devices(count, tensor, pipeline, *args) == ()


@pytest.mark.parametrize(
    ("count", "tensor", "wanted"), [(1, 2, "2: "), (8, 1, "1: "), (8, 4, "4: ")]
)
def test_count_that_vllm_would_not_take_is_told(count, tensor, wanted):
    (problem,) = devices(count, tensor, 1)
    assert problem.field == "spec.vllm.accelerator.count"
    assert problem.seen == str(count)
    assert problem.wanted.startswith(wanted)


def test_device_of_many_cores_may_have_more_ranks():
    assert devices(1, 8, 1, resource="aws.amazon.com/neuron") == ()
