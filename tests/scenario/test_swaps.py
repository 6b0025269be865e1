"""A trip and a newer snapshot in either order, at every moment of the canary's requests.

Whatever comes first: one reply to each, none by what was stopped, none drawn for it afterwards,
and none lost to the tallies.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from support.http_wire import Got, Wire, post, until
from support.running import (
    Running,
    replace,
    revision,
    running,
    two_tiers,
    two_upstreams,
    with_canary,
)
from support.upstream import (
    DONE,
    STREAM_HEAD,
    Script,
    Upstream,
    chunk,
    chunked,
    completion,
    upstream,
    whole,
)
from weir_core.evidence import CANARY, STABLE
from weir_core.snapshot import Behaviour, Monitoring, Objective, RoutePolicy

CHAT = "/v1/chat/completions"
ERRORS = Monitoring(objectives=(Objective(name="errors", event="Error"),))
WAITING = 4
FIRST = chunk("canary ")


def says(text: str) -> Callable[[dict[str, Any]], Script]:
    def script(request: dict[str, Any]) -> Script:
        if request.get("stream"):
            return chunked(chunk(text), chunk(None, finish="stop"), DONE)
        return whole(completion(text))

    return script


def body(content: str, *, stream: bool = False) -> bytes:
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": "assistant", "messages": messages, "stream": stream}).encode()


# Snapshots that may come: policies made of (the policy, a good behaviour with another backend).

Swap = Callable[[RoutePolicy, Behaviour], tuple[RoutePolicy, ...]]


def _promoted(policy: RoutePolicy, other: Behaviour) -> tuple[RoutePolicy, ...]:
    assert policy.canary is not None
    return (replace(policy, stable=policy.canary, canary=None, weight_bp=0, attempt=0),)


SWAPS: dict[str, Swap] = {
    "the same": lambda policy, other: (policy,),
    "a raise": lambda policy, other: (replace(policy, weight_bp=9_999),),
    "a lowering": lambda policy, other: (replace(policy, weight_bp=100),),
    "weight 0": lambda policy, other: (replace(policy, weight_bp=0),),
    "no canary": lambda policy, other: (replace(policy, canary=None, weight_bp=0, attempt=0),),
    "another canary": lambda policy, other: (
        replace(policy, canary=revision("assistant-other", other)),
    ),
    "another attempt": lambda policy, other: (replace(policy, attempt=2),),
    "a promotion": _promoted,
    "another stable": lambda policy, other: (
        replace(policy, stable=revision("assistant-other", other)),
    ),
    "no route": lambda policy, other: (),
}
KEEPS_ATTEMPT = {"the same", "a raise", "a lowering", "another stable"}
"""Snapshots after which the canary's attempt goes on, if nothing stops it."""
STOPS_NOTHING = {"a promotion", "no route"}
"""Snapshots that leave what is in flight where it is."""


class Moment:
    """How far the canary's requests are: a script that waits, and whether it is committed."""

    def __init__(self, stream: bool, commit: str, begins: bool) -> None:
        self.stream = stream
        self.commit = commit
        self.begins = begins
        self.tokens = 16 if commit == "Prefix" else 0
        self.committed = stream and begins and commit == "FirstToken"

    def script(self, go: asyncio.Event) -> Script:
        if not self.stream:
            return [go, *whole(completion("canary"))]
        rest = chunk("words", finish="stop") + DONE
        begun = [STREAM_HEAD, b"%x\r\n%b\r\n" % (len(FIRST), FIRST)]
        ended = [b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest)]
        return [*begun, go, *ended] if self.begins else [go, *begun, *ended]


MOMENTS = {
    "whole": Moment(False, "AfterVerify", False),
    "no head": Moment(True, "AfterVerify", False),
    "gathered": Moment(True, "AfterVerify", True),
    "held": Moment(True, "Prefix", True),
    "committed": Moment(True, "FirstToken", True),
}


@pytest.mark.parametrize("first", ["trip", "swap"])
@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_every_order_gives_one_reply_and_loses_nothing(moment: str, swap: str, first: str) -> None:
    asyncio.run(asyncio.wait_for(_scene(MOMENTS[moment], swap, first), 30))


async def _scene(moment: Moment, swap: str, first: str) -> None:
    go = asyncio.Event()

    def canary_says(request: dict[str, Any]) -> Script:
        content = request["messages"][0]["content"]
        if content == "fail":
            return whole({"error": {"message": "busy"}}, status=503)  # Ejects nobody.
        return moment.script(go) if content == "wait" else says("canary")(request)

    async with two_upstreams(says("stable"), says("stable")) as (small, large):
        async with upstream(canary_says) as one, upstream(says("other")) as two:
            stable = two_tiers(small, large)
            canary = two_tiers(one, large, commit=moment.commit, prefix_tokens=moment.tokens)
            other = two_tiers(two, large)
            # The brake is off until the evidence for it is there, so that it trips on a word.
            policy = with_canary(
                stable, canary, monitoring=ERRORS, weight_bp=5_000, brake_alpha=0.0
            )
            side = [0.25]
            async with running(policy, coin=lambda: side[0]) as weir:
                await _fail(weir, side, 40)
                side[0] = 0.25
                waiting = [await _ask(weir, "wait", moment.stream) for _ in range(WAITING)]
                await until(lambda: one.in_flight == WAITING)
                if moment.begins:
                    await _until_begun(weir)
                policy = replace(policy, brake_alpha=0.01)
                weir.obey(policy)

                tripped = _collide(weir, SWAPS[swap](policy, other), first)
                drawn = _assigned(weir, policy)
                asked = len(one.asked)
                news = [await _ask(weir, "new", False) for _ in range(10)]
                answers = [json.loads((await wire.answer()).body) for wire in news]
                go.set()
                told = [await wire.answer() for wire in waiting]

                assert tripped == (first == "trip" or swap in KEEPS_ATTEMPT)
                stopped = tripped or swap not in STOPS_NOTHING
                for got in told:
                    _check(got, moment, stopped=stopped, swap=swap)
                assert all(_is_one_reply(answer, swap) for answer in answers)
                if tripped or swap not in KEEPS_ATTEMPT:
                    assert _assigned(weir, policy) == drawn
                if tripped and swap not in ("a promotion", "another attempt"):
                    assert len(one.asked) == asked
                await _check_all_settled(weir, [*waiting, *news], one)


def _collide(weir: Running, newer: tuple[RoutePolicy, ...], first: str) -> bool:
    """Let the brake look and the snapshot come, in one turn of the loop; whether it tripped."""
    if first == "trip":
        weir.router.brake()
        weir.obey(*newer)
    else:
        weir.obey(*newer)
        weir.router.brake()
    return bool(weir.trips)


async def _ask(weir: Running, content: str, stream: bool) -> Wire:
    wire = await Wire.to(weir.port)
    await wire.send(post(CHAT, body(content, stream=stream)))
    return wire


async def _fail(weir: Running, side: list[float], count: int) -> None:
    """Let both arms serve in turn; the canary fails and is healed."""
    for number in range(count):
        side[0] = 0.25 if number % 2 else 0.75
        wire = await _ask(weir, "fail", False)
        assert (await wire.answer()).status == 200
        await wire.close()
    assert weir.trips == []


async def _until_begun(weir: Running) -> None:
    """Return when the first event of every waiting stream has reached the router."""
    (walks,) = (walks for walks in weir.router._in_canary.values() if walks)
    await until(lambda: all(walk._inflow and walk._inflow.started for walk in walks))


def _assigned(weir: Running, policy: RoutePolicy) -> int:
    """Return how many requests were drawn for the canary's first attempt."""
    assert policy.canary is not None
    total = 0
    for tally in weir.router.ledger.tallies(weir.router.clock()):
        if (tally.key.revision, tally.key.attempt) == (policy.canary.name, 1):
            rows = [part.counts for part in (*tally.epochs, *tally.cells)]
            total += sum(row[CANARY] for row in rows)
    return total


def _is_one_reply(answer: Any, swap: str) -> bool:
    if swap == "no route":
        return bool(answer["error"]["code"] == "model_not_found")
    return answer["choices"][0]["message"]["content"] in ("stable", "other", "canary")


def _check(got: Got, moment: Moment, *, stopped: bool, swap: str) -> None:
    """A committed stream goes on to its end; anything else that was stopped is stable's."""
    assert got.status == 200
    arm = got.headers["x-weir-arm"]
    if moment.committed or not stopped:
        assert arm == "canary"
        assert b"canary" in got.body
        assert b"stable" not in got.body
    else:
        assert arm == "stable"
        # A promotion after the trip: what was stopped is stable's now, and stable's word holds.
        assert b"stable" in got.body or (swap, b"other" in got.body) == ("another stable", True)
    if moment.stream:
        assert got.body.count(b"[DONE]") == 1
        assert got.body.endswith(DONE)


async def _check_all_settled(weir: Running, wires: list[Wire], one: Upstream) -> None:
    """Nothing is left behind: no byte, no request, no place, no count."""
    await until(lambda: one.in_flight == 0)
    for wire in wires:
        await wire.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await wire.answer()).body == b"ok\n"
        await wire.close()
    load = weir.router.load
    await until(lambda: load.in_flight == 0)
    assert (load.moving, load.escalating) == (0, {"stable": 0, "canary": 0})
    assert not any(weir.router._in_canary.values())
    for tally in weir.router.ledger.tallies(weir.router.clock()):
        rows = [part.counts for part in (*tally.epochs, *tally.cells)]
        sums = [sum(column) for column in zip(*rows, strict=True)]
        assert sums[STABLE] == sums[2 + STABLE]
        assert sums[CANARY] == sums[2 + CANARY]
