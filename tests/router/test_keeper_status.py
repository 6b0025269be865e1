"""What the control loop without a cluster tells of its routes."""

import logging
from pathlib import Path
from typing import Any

import pytest

from support.house import House, a_route, run
from support.objects import backend
from weir_core.evidence import CANARY, STABLE
from weir_core.figures import instant
from weir_router.standing import Saved
from weir_router.upstreams import Ejection

KEY = "default/assistant"


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def conditions(house: House, name: str = "assistant") -> dict[str, dict[str, str]]:
    status = house.keeper.statuses()["routes"][f"default/{name}"]
    return {one["type"]: one for one in status["conditions"]}


def described(house: House, name: str = "assistant") -> dict[str, Any]:
    found = house.keeper.describe(f"default/{name}")
    assert found is not None
    return found


def reasons(house: House) -> list[str]:
    return [one["reason"] for one in described(house)["events"]]


async def with_canary(house: House) -> None:
    """Serve, then let a canary begin that may only try once, and that stays at 5 %."""
    for changes in ({}, {"maxAttempts": 1}):
        made = a_route(**changes)
        made["spec"]["rollout"] = {"steps": [{"setWeight": 5}, {"hold": {"minRequests": 999}}]}
        house.put("route.yaml", made)
        if not changes:
            house.start()
    await house.walk()


def out(house: House, cause: str = "Connect", failures: int = 5) -> None:
    """Let the route's backend be ejected, as the router would tell."""
    stable = house.router.table.routes[KEY].policy.stable
    (tier,) = stable.behaviour.tiers
    ejection = Ejection(
        backend=tier.backend, cause=cause, failures=failures, since_s=house.now_s - 7
    )
    house.ejected = (ejection,)


# Conditions, and since when.


def test_conditions_keep_their_times_over_a_restart(house: House) -> None:
    async def scene() -> None:
        await with_canary(house)
        before = {kind: one["lastTransitionTime"] for kind, one in conditions(house).items()}
        house.keeper.end()
        house.now_s += 1_000
        house.start()
        await house.walk()

        after = {kind: one["lastTransitionTime"] for kind, one in conditions(house).items()}
        assert after == before
        assert len(set(before.values())) > 1

    run(scene)


def test_a_condition_that_turned_while_it_was_down_is_dated_now(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        await house.walk()
        house.keeper.end()
        house.put("route.yaml", a_route(maxAttempts=1))
        house.now_s += 1_000
        house.start()

        shown = conditions(house)["Promoted"]
        assert (shown["status"], shown["lastTransitionTime"]) == ("False", instant(house.now_s))

    run(scene)


def test_a_state_file_without_conditions_is_read(house: House) -> None:
    async def scene() -> None:
        await with_canary(house)
        house.keeper.end()
        text = house.file.path.read_bytes()
        begin = text.index(b',"conditions":{')
        end = text.index(b"}", begin) + 1
        house.file.path.write_bytes(text[:begin] + text[end:])
        house.start()
        await house.walk()

        assert house.weight() == 500
        assert conditions(house)["Accepted"]["status"] == "True"

    run(scene)


def test_a_status_that_does_not_turn_writes_nothing(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        await house.walk()
        written: list[Saved] = []
        house.file.write = lambda saved, turn: written.append(saved)  # type: ignore[method-assign]
        await house.walk(ticks=4)

        assert written == []

    run(scene)


# What is wrong.


def test_an_outage_is_a_condition_an_event_and_a_warning(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        await house.walk()
        out(house)
        await house.walk()

        shown = conditions(house)["Ready"]
        told = "no healthy backend: tier small (small: Connect)"
        assert (shown["status"], shown["reason"]) == ("False", "NoHealthyBackend")
        assert shown["message"] == told
        assert house.keeper.statuses()["routes"][KEY]["phase"] == "Degraded"
        assert reasons(house)[-1] == "NoHealthyBackend"
        (record,) = (one for one in caplog.records if one.message == "NoHealthyBackend")
        assert (record.levelno, record.__dict__["why"]) == (logging.WARNING, told)

    run(scene)


def test_an_outage_is_told_once_and_its_end_once(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        for failures in (5, 6, 7):
            out(house, failures=failures)
            await house.walk(ticks=1)
        house.ejected = ()
        await house.walk()

        assert reasons(house)[-2:] == ["NoHealthyBackend", "Serving"]
        assert reasons(house).count("NoHealthyBackend") == 1

    run(scene)


def test_a_fallback_that_is_out_and_its_return_are_an_event_each(house: House) -> None:
    async def scene() -> None:
        house.put("spare.yaml", backend("spare"))
        house.put("route.yaml", a_route(fallback={"backendRefs": [{"name": "spare"}]}))
        house.start()
        await house.walk()
        out(house)
        await house.walk()
        house.ejected = ()
        await house.walk()

        latest = described(house)["events"][-2:]
        assert [one["reason"] for one in latest] == ["ServingInPart", "Serving"]
        assert "without tier small (small: Connect)" in latest[0]["message"]
        assert "without" not in latest[1]["message"]

    run(scene)


def test_an_ejected_backend_is_told_with_its_cause(house: House) -> None:
    async def scene() -> None:
        await with_canary(house)
        out(house, "Timeout", failures=6)

        (row,) = described(house)["backends"]
        assert (row["name"], row["parts"]) == ("small", ["tier small"])
        assert row["arms"] == ["stable", "canary"]
        assert row["ejected"] == {
            "cause": "Timeout",
            "failures": 6,
            "since": house.now_s - 7,
        }
        (everywhere,) = house.keeper.statuses()["ejected"]
        assert everywhere["ejected"] == row["ejected"]

    run(scene)


def test_a_refused_file_is_told_by_the_route_that_keeps_its_last_good_form(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        house.put("route.yaml", "kind: [")
        await house.walk()

        shown = conditions(house)["Accepted"]
        assert (shown["status"], shown["reason"]) == ("False", "InvalidYaml")
        assert shown["message"].startswith("keeps revision assistant-")
        assert described(house)["problems"][0].startswith("route.yaml:")
        assert reasons(house)[-1] == "InvalidYaml"

    run(scene)


def test_a_problem_of_another_route_is_not_this_ones(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route(), a_route("other", deadline="soon"))
        house.put("broken.yaml", "kind: [")
        house.start()
        await house.walk()

        assert conditions(house)["Accepted"]["status"] == "True"
        assert described(house)["problems"] == []
        assert len(house.keeper.statuses()["problems"]) == 2

    run(scene)


def test_a_route_tells_the_problems_of_its_backends(house: House) -> None:
    async def scene() -> None:
        with_key = backend()
        with_key["spec"]["external"]["apiKeyRef"] = {"key": "provider"}
        house.put("backend.yaml", with_key)
        house.put("route.yaml", a_route())
        house.start()
        house.keeper._has_key = lambda name: False
        house.put("note.yaml", "# read again")
        await house.walk()

        assert "no key file 'provider'" in described(house)["problems"][0]

    run(scene)


def test_a_backend_that_became_invalid_is_not_called_missing(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        house.put("backend.yaml", backend(colour="red"))
        await house.walk()

        shown = conditions(house)["ResolvedRefs"]
        assert shown["reason"] == "BackendInvalid"
        assert "saw 'small', which is invalid itself (backend.yaml:" in shown["message"]

    run(scene)


# What a canary is.


def test_the_measured_share_and_the_outlook_are_filled(house: House) -> None:
    async def scene() -> None:
        await with_canary(house)
        policy = house.router.table.routes[KEY].policy
        errors = [o.event for o in policy.monitoring.objectives].index("Error")
        for at in range(100):
            arm = CANARY if at % 10 == 0 else STABLE
            ticket = house.router.ledger.assign(policy, arm, "", house.now_s)
            assert ticket is not None
            failed = (1 << errors) if at % 20 == 1 else 0
            house.router.ledger.settle(ticket, failed, house.now_s)
        await house.walk(ticks=1)

        status = described(house)["status"]
        (shown,) = (one for one in status["evidence"]["objectives"] if one["event"] == "Error")
        assert status["weight"] == {"set": "5%", "actual": "10%"}
        assert int(shown["requestsToDetect"]) > 0

    run(scene)


def test_a_route_without_a_canary_has_no_measured_share(house: House) -> None:
    house.put("route.yaml", a_route())
    house.start()

    assert described(house)["status"]["weight"] == {"set": "0%", "actual": ""}


def test_what_a_canary_changes_is_told(house: House) -> None:
    async def scene() -> None:
        await with_canary(house)

        assert described(house)["status"]["canary"]["changes"] == ["maxAttempts: 4 → 1"]
        told = [one["message"] for one in described(house)["events"]]
        assert any(one.endswith("; it changes maxAttempts: 4 → 1") for one in told)

    run(scene)


def test_the_history_says_on_what_evidence_a_revision_was_rolled_back(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        house.put("route.yaml", a_route(maxAttempts=1))
        await house.walk()
        house.trip()
        told = described(house)
        last = told["history"][-1]

        assert last["eValue"] == told["status"]["lastRollback"]["eValue"] != ""
        assert last["suspect"] == told["status"]["lastRollback"]["suspect"]

    run(scene)
