"""A real vLLM takes the pod that the operator renders: its command, its user, its probes, its end.

The tests are the kubelet; a router with the backend's own URL asks the questions.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from container import Container, may_change_user, start
from kubelet import Ending, Pod, starts, termination_message
from places import CLAIMS, PROGRAMS
from rendered import UPSTREAM, deployment_of, pod_spec, read_backend

from support.running import plain, running
from support.thinking import Space
from weir_core.identity import identity_of
from weir_core.resources import ModelBackend
from weir_core.snapshot import Behaviour, Tier
from weir_operator.gather import World
from weir_operator.trouble import trouble

Tell = Callable[[str], None]
QUESTION = [
    {"role": "system", "content": "banking desk"},
    {"role": "user", "content": "I am still waiting on my card?"},
]
BEHAVIOUR = Behaviour(
    deadline_ms=60_000, max_attempts=1, tiers=(Tier(name="only", backend=UPSTREAM),)
)
STREAMS = 4


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "assistant", "messages": QUESTION, "temperature": 0, "max_tokens": 24} | more


def test_the_rendered_command_serves_within_the_startup_budget(pod: Pod, tell: Tell) -> None:
    async def scene() -> str:
        async with (
            running(plain(BEHAVIOUR)) as one,
            openai.AsyncOpenAI(base_url=one.url, api_key="none", max_retries=0) as api,
        ):
            for kind, more in (("answer", {}), ("answer with logprobs", {"logprobs": True})):
                began_s = time.monotonic()
                reply = await api.chat.completions.create(**ask(**more))
                tell(f"the first {kind} took {time.monotonic() - began_s:.2f} s")
            assert reply.choices[0].logprobs is not None
            return reply.choices[0].message.content or ""

    assert json.loads(asyncio.run(scene())) == {"intent": "card_arrival"}
    assert pod.started.asked <= pod.spec["containers"][0]["startupProbe"]["failureThreshold"]


@pytest.mark.skipif(not may_change_user(), reason="needs root: one user cannot become another")
def test_it_runs_as_the_rendered_user_without_any_privilege(pod: Pod) -> None:
    status = dict(
        line.split(":\t", 1) for line in pod.running.process("status").splitlines() if ":\t" in line
    )

    assert status["Uid"].split() == ["2000"] * 4
    assert status["Gid"].split() == ["0"] * 4
    assert {status[one].strip("0") for one in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert status["NoNewPrivs"] == "1"
    assert status["NSpid"].split()[-1] == "1"


def test_probes_pass_all_the_time_while_questions_are_answered(pod: Pod, tell: Tell) -> None:
    """More questions at once than vLLM works on, until each probe was asked twice meanwhile."""
    before = {kind: watch.asked for kind, watch in pod.watches.items()}

    def probed() -> bool:
        return all(watch.asked >= before[kind] + 2 for kind, watch in pod.watches.items())

    async def scene() -> int:
        answered = 0
        async with (
            running(plain(BEHAVIOUR)) as one,
            openai.AsyncOpenAI(base_url=one.url, api_key="none", max_retries=0) as api,
        ):
            for _ in range(1_000):
                questions = [ask(max_tokens=100, extra_body={"ignore_eos": True})] * 24
                replies = await asyncio.gather(
                    *(api.chat.completions.create(**one) for one in questions)
                )
                answered += sum(reply.usage.completion_tokens == 100 for reply in replies)
                if probed():
                    break
        return answered

    answered = asyncio.run(scene())

    assert answered >= 24
    assert probed()
    for kind, watch in pod.watches.items():
        tell(
            f"{kind}: {watch.failed} of {watch.asked} failed, the slowest took "
            f"{watch.slowest_s:.2f} s, with {answered} answers under load"
        )
        assert watch.worst_run < watch.probe.failures, kind


@pytest.mark.ends_pod
def test_requests_in_flight_end_whole_when_the_pod_is_deleted(pod: Pod, tell: Tell) -> None:
    """Deleted: preStop, during which it serves as ever; SIGTERM amid streams; then it is gone."""
    for watch in pod.watches.values():
        watch.stop()

    async def stream(api: openai.AsyncOpenAI) -> tuple[Any, Any]:
        told = await api.chat.completions.create(
            **ask(max_tokens=200, stream=True, extra_body={"ignore_eos": True})
        )
        chunks = aiter(told)
        return chunks, await anext(chunks)

    async def finish(chunks: Any) -> tuple[str | None, float]:
        reasons = [choice.finish_reason async for chunk in chunks for choice in chunk.choices]
        return reasons[-1], time.monotonic()

    async def late(api: openai.AsyncOpenAI) -> str:
        try:
            await api.chat.completions.create(**ask())
        except openai.InternalServerError as error:
            return f"refused at once, as other tiers would see it: {error.message}"
        return "answered"

    async def scene() -> tuple[Ending, float, list[tuple[str | None, float]], int]:
        async with (
            running(plain(BEHAVIOUR)) as one,
            openai.AsyncOpenAI(base_url=one.url, api_key="none", max_retries=0) as api,
        ):
            ending = Ending(pod.spec, pod.running)
            hook = asyncio.create_task(asyncio.to_thread(ending.pre_stop))
            assert (await api.chat.completions.create(**ask())).choices
            assert not hook.done(), "answered during preStop"
            await hook
            begun = [await stream(api) for _ in range(STREAMS)]
            signalled_s = time.monotonic()
            ending.terminate()
            ended = await asyncio.gather(*(finish(chunks) for chunks, _ in begun))
            tell(f"drain: a question after SIGTERM was {await late(api)}")
            code = await asyncio.to_thread(ending.await_exit)
            return ending, signalled_s, list(ended), code

    ending, signalled_s, ended, code = asyncio.run(scene())

    last_s = max(at_s for _, at_s in ended) - signalled_s
    tell(
        f"drain: streams ended {last_s:.2f} s after SIGTERM, the process {ending.age_s:.1f} s "
        f"after the deletion with exit code {code}"
    )
    assert [reason for reason, _ in ended] == ["length"] * STREAMS
    assert last_s > 0, "they were in flight"
    assert not ending.killed
    assert code == 0


@pytest.mark.ends_pod
def test_a_flag_that_vllm_refuses_is_told_by_the_operator(
    pod: Pod, tmp_path: Path, tell: Tell
) -> None:
    pod.running.end()
    backend = read_backend("--no-such-flag")
    spec = pod_spec(backend)
    (container,) = spec["containers"]
    began = datetime.now(UTC)
    refused = start(spec, programs=PROGRAMS, claims=CLAIMS, work=tmp_path)
    try:
        started = starts(container, refused)
    finally:
        refused.end()
    tell(f"a refused flag: ended {started.took_s:.0f} s after the start, {refused.exit_code=}")

    assert not started.passed
    assert refused.exit_code == 2
    reason, message = trouble(_world(backend, refused, began), identity_of(backend))
    assert reason == "CrashLoopBackOff"
    assert re.search(r"unrecognized arguments: --no-such-flag", message), message


def _world(backend: ModelBackend, ended: Container, began: datetime) -> World:
    """Return what the operator sees when the kubelet has told how that container ended."""
    template = deployment_of(backend)["spec"]["template"]
    told = {
        "exitCode": ended.exit_code,
        "reason": "Error",
        "startedAt": began.isoformat(timespec="seconds"),
        "finishedAt": datetime.now(UTC).isoformat(timespec="seconds"),
        "message": termination_message(ended),
    }
    status = {"name": "vllm", "ready": False, "started": False, "lastState": {"terminated": told}}
    space = Space()
    space.put(
        {
            "kind": "Pod",
            "metadata": template["metadata"]
            | {"name": "large-x", "namespace": backend.metadata.namespace, "uid": "u"},
            "spec": template["spec"],
            "status": {"containerStatuses": [status]},
        }
    )
    return space.world()
