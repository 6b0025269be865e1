"""Flags of vLLM that Weir gives itself; each spelling was given to the parser of vLLM 0.32."""

import pytest

from support.admission import refusals
from support.raw import VLLM, changed, problems_of
from weir_core.vllm_flags import OWNED_FLAGS, flag_of, owned_flag, widened


@pytest.mark.parametrize(
    ("arg", "flag"),
    [
        ("--api_key=x", "--api-key"),
        ("--served-model-name.x=y", "--served-model-name"),
        ("-tp", "-tp"),
        ("-t 4", "-t"),
        ("value", ""),
        ("--a_b.c_d+=1", "--a-b"),
    ],
)
def test_flag_is_read_as_vllm_reads_it(arg, flag):
    assert flag_of(arg) == flag


@pytest.mark.parametrize(
    "arg",
    [
        "--port=9",
        "--port",
        "--model=other",
        "--served_model_name=x",
        "--served-model-name.x=y",
        "--api-key.a=b",
        "--api-k=b",
        "--root-p=/x",
        "--tensor_parallel_size=3",
        "--rev=x",
        "--ssl-keyfile=/x",
        "--ssl-ca-certs=/x",
        "--ssl-ci=x",
        "--enable-ssl-refresh",
        "-tp=4",
        "-t",
        "-t 4",
        "-n 2",
        "-pp",
        "-n",
        "-n2",
        "-r1",
        "-dpe",
        "--nnode=2",
        "--data-parallel-ext",
        "--headl",
        "--grpc",
        "--hf-token=secret",
        "--config=/x.yaml",
        "--uds=/x",
    ],
)
def test_flag_of_weirs_own_is_refused_with_a_reason(arg):
    told = problems_of(changed(VLLM, "spec.vllm.args", ["--max-model-len=9", arg]))
    owned = owned_flag(flag_of(arg))
    assert told["spec.vllm.args[1]"].wanted == f"no {owned}: {OWNED_FLAGS[owned]}"


@pytest.mark.parametrize(
    "args",
    [
        ("--max-model-len=9",),
        ("--model-impl=auto",),
        ("--tokenizer-revision=x",),
        ("--data-parallel-backend=mp",),
        ("-q=awq",),
        ("-O3",),
        ("--allowed-media-domains", "a", "b"),
        ("--compilation-config.mode=3",),
        ("--grpc-port=9",),
    ],
    ids=" ".join,
)
def test_other_flags_are_peoples_own(args):
    assert not problems_of(changed(VLLM, "spec.vllm.args", list(args)))


@pytest.mark.parametrize("owned", OWNED_FLAGS)
def test_api_server_and_core_agree_on_every_beginning_of_a_flag(owned):
    ends = ("", "=1", ".a=1", " 1", "1", "x")
    for arg in (owned[:length] + end for length in range(2, len(owned) + 1) for end in ends):
        obj = changed(VLLM, "spec.vllm.args", [arg])
        assert bool(refusals(obj)) == bool(problems_of(obj)), arg


def test_last_size_of_a_widening_flag_counts():
    args = ["-dp", "4", "--data_parallel_size=2", "-pcp=3", "--other", "9"]
    wanted = {"--data-parallel-size": 2, "--prefill-context-parallel-size": 3}
    assert widened(args) == wanted
