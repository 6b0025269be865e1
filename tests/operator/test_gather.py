"""What is taken for what in a namespace."""

from typing import Any

import pytest

from support.thinking import (
    NOW,
    ROUTERS,
    Space,
    deployment,
    edited,
    router_pod,
    serving,
    trip,
)
from weir_core import reasons

STRAYS: list[Any] = [
    pytest.param({"ownerReferences": []}, id="without a controller"),
    pytest.param({"ownerReferences": [{**ROUTERS, "uid": "u"}]}, id="that a ReplicaSet only owns"),
    pytest.param(
        {"ownerReferences": [{**ROUTERS, "name": "mine-5d8f", "uid": "u", "controller": True}]},
        id="of another Deployment",
    ),
    pytest.param({"account": "mine"}, id="of another ServiceAccount"),
]


@pytest.mark.parametrize("told", STRAYS)
def test_a_stray_pod_with_a_routers_labels_holds_no_raise(told: dict[str, Any]) -> None:
    """It may not connect, so that no raise could ever come if one waited for it."""
    space = serving()
    space.put(router_pod("stray", **told))
    thought, _ = edited(space)

    assert space.world().routers == {"uid-Pod-r1"}
    assert thought.observed.routers == 1
    assert reasons.ROUTERS_OUT_OF_SYNC not in space.walk()[0].state.holds


def test_a_router_that_has_not_connected_yet_holds_raises() -> None:
    space = serving()
    space.put(router_pod("r2"))
    edited(space)

    assert reasons.ROUTERS_OUT_OF_SYNC in space.walk()[0].state.holds


# Clocks.


def ready_to_begin() -> Space:
    """Return a space whose canary waits for nothing but its first raise."""
    space = serving()
    _, backend = edited(space)
    space.put(deployment(backend))
    return space


@pytest.mark.parametrize("off_s", [3_600.0, -3_600.0], ids=["behind", "ahead"])
def test_who_leads_with_a_clock_that_is_an_hour_off_raises_nothing(off_s: float) -> None:
    space = ready_to_begin()
    space.report(as_of_s=NOW + off_s)
    thought, order = space.walk(now_s=NOW)

    assert order == "same"
    assert thought.state.holds == (reasons.CLOCKS_DISAGREE,)
    (told,) = (one for one in thought.transitions if one.reason == reasons.CLOCKS_DISAGREE)
    assert told.warning
    status = space.thinker.status(thought, now_s=NOW)
    progressing = next(one for one in status["conditions"] if one["type"] == "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", reasons.CLOCKS_DISAGREE)
    assert "1h" in status["standstill"][0]["message"]

    space.report(as_of_s=NOW)
    assert space.walk(now_s=NOW)[1] == "raise"


def test_a_brake_is_heeded_whatever_the_clocks_say() -> None:
    space = ready_to_begin()
    thought, _ = space.walk(now_s=NOW)
    assert thought.policy is not None
    assert thought.policy.weight_bp > 0
    space.report(as_of_s=NOW - 3_600, trips=(trip(thought.policy),))

    assert space.walk(now_s=NOW)[0].state.stage == "RolledBack"


def test_a_router_that_is_lost_has_no_time() -> None:
    """What it said last is old, and would be taken for a clock that is behind."""
    space = ready_to_begin()
    space.report("uid-Pod-gone", as_of_s=NOW - 3_600)
    space.report("uid-Pod-gone-too", as_of_s=NOW - 3_600)

    assert space.walk(now_s=NOW)[1] == "raise"
