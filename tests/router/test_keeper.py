"""The control loop without a cluster: files in, snapshots out, commands obeyed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.house import FAST, House, a_route, run
from support.objects import backend, route
from weir_router.standing import Saved, StateFile


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# What is broken goes on serving, what is taken out does not.


@pytest.mark.parametrize("file", ["route.yaml", "ModelRoute.yaml"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("kind: [", id="no YAML"),
        pytest.param("", id="emptied"),
        pytest.param(yaml.safe_dump({**route("assistant"), "kind": "ModelRout"}), id="a typo"),
    ],
)
def test_a_file_that_breaks_takes_nothing_out(house: House, file: str, text: str) -> None:
    async def scene() -> None:
        house.put(file, a_route())
        house.start()
        house.put(file, text)
        await house.walk()

        assert house.names() == ["assistant"]
        assert house.keeper.statuses()["problems"]

    run(scene)


def test_a_folder_that_vanishes_takes_nothing_out(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        house.conf.rename(house.conf.with_name("elsewhere"))
        await house.walk()

        assert house.names() == ["assistant"]
        assert "no folder" in house.keeper.statuses()["problems"][0]

    run(scene)


def test_a_removed_file_takes_its_route_out_though_another_file_has_a_problem(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.put("other.yaml", "kind: [")
        house.start()
        (house.conf / "route.yaml").unlink()
        await house.walk()

        assert house.names() == []

    run(scene)


def test_a_file_that_still_changes_is_not_read(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        for count in range(4):
            house.put("route.yaml", a_route(maxAttempts=1 + count % 2))
            house.put("note.yaml", "#" * count)
            await house.walk(ticks=1)

        assert house.weight() == 0

    run(scene)


def test_a_state_file_in_the_folder_is_no_manifest(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.file = StateFile(house.conf / "state.json")
        house.start()
        await house.walk()
        house.put("route.yaml", a_route(maxAttempts=1))
        await house.walk()

        assert house.weight() == 500
        assert house.keeper.statuses()["problems"] == []

    run(scene)


def test_a_missing_key_file_is_told_and_harms_nobody(house: House) -> None:
    async def scene() -> None:
        with_key = backend("keyed")
        with_key["spec"]["external"]["apiKeyRef"] = {"key": "provider"}
        house.put("keyed.yaml", with_key)
        house.put("route.yaml", a_route())
        house.start()
        house.keeper._has_key = lambda name: False
        house.put("note.yaml", "# read again")
        await house.walk()

        assert "no key file 'provider'" in house.keeper.statuses()["problems"][0]
        assert house.names() == ["assistant"]

    run(scene)


def test_a_newer_route_does_not_take_an_older_ones_model_name(house: House) -> None:
    async def scene() -> None:
        house.put("zeta.yaml", a_route("zeta"))
        house.start()
        name = house.names()[0]
        house.put("alpha.yaml", a_route("alpha"))
        made = a_route("alpha")
        made["spec"]["modelNames"] = [name]
        house.put("alpha.yaml", made)
        await house.walk()

        assert house.router.table.by_model[name].key == "default/zeta"
        assert "default/zeta has" in house.keeper.statuses()["problems"][0]

    run(scene)


def test_an_unreadable_older_route_keeps_its_model_name(house: House) -> None:
    async def scene() -> None:
        house.put("zeta.yaml", a_route("zeta"))
        house.start()
        name = house.names()[0]
        made = a_route("alpha")
        made["spec"]["modelNames"] = [name]
        house.put("alpha.yaml", made)
        house.put("zeta.yaml", "kind: [")
        await house.walk()

        assert house.router.table.by_model[name].key == "default/zeta"

    run(scene)


# Commands.


def test_a_command_that_cannot_be_written_is_refused_and_not_obeyed_later(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        house.put("route.yaml", a_route(maxAttempts=1))
        await house.walk()
        canary = house.router.table.routes["default/assistant"].policy.canary
        assert canary is not None
        write = house.file.write

        def full(saved: Saved, turn: int) -> None:
            raise OSError(28, "No space left on device")

        house.file.write = full  # type: ignore[method-assign]
        key = "default/assistant"
        done = await house.keeper.command(key, "promote", canary.name, full=True)
        house.file.write = write  # type: ignore[method-assign]
        house.now_s += 100
        await house.walk()

        assert done["result"] == "Refused"
        assert house.weight() < 5_000

    run(scene)


def test_two_commands_at_once_are_both_weighed(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        house.put("route.yaml", a_route(maxAttempts=1))
        await house.walk()
        canary = house.router.table.routes["default/assistant"].policy.canary
        assert canary is not None
        name, key = canary.name, "default/assistant"

        async def tell(verb: str, later_s: float) -> Any:
            house.now_s += later_s
            return await house.keeper.command(key, verb, name, full=False)

        paused, aborted = await asyncio.gather(tell("pause", 0.1), tell("abort", 0.1))

        assert (paused["result"], aborted["result"]) == ("Done", "Done")
        assert house.weight() == 0

    run(scene)


# Time in which nothing was served.


def test_a_bake_does_not_end_while_nothing_was_served(house: House) -> None:
    """Promoted in full, then down for an hour of a ten-minute bake."""

    async def scene() -> None:
        slow = {**FAST, "bake": {"duration": "10m", "holdback": 10}}
        for changes in ({}, {"maxAttempts": 1}):
            made = a_route(**changes)
            made["spec"]["rollout"] = slow
            house.put("route.yaml", made)
            if not changes:
                house.start()
        await house.walk()
        canary = house.router.table.routes["default/assistant"].policy.canary
        assert canary is not None
        await house.keeper.command("default/assistant", "promote", canary.name, full=True)
        before = house.file.read().routes["default/assistant"].state
        house.now_s += 3_600
        house.start()
        await house.walk()
        after = house.file.read().routes["default/assistant"].state

        assert after.stage == before.stage
        assert after.stable == before.stable

    run(scene)
