"""The control loop without a cluster: files in, snapshots out, and the order of disk and wire."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from support.objects import backend, route
from weir_core.evidence import Judgement
from weir_router.folder import Folder
from weir_router.keeper import Keeper
from weir_router.ledger import Ledger
from weir_router.serve import Router
from weir_router.standing import Saved, StateFile, StateFileError, readable
from weir_router.telemetry import Metrics
from weir_router.upstreams import Keys, Upstreams

HARM = Judgement(verdict="Harm", log_e=5.0, threshold=4.6, suspect="errors")
FAST = {"steps": [{"setWeight": 5}, {"hold": {"duration": "1s"}}, {"setWeight": 50}, {"prove": {}}]}


class House:
    """A keeper, its folder, its file and its router, on a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.conf = folder / "conf"
        self.conf.mkdir()
        self.now_s = 1_790_000_000.0
        self.file = StateFile(folder / "state.json")
        self.put("backend.yaml", backend())

    def put(self, name: str, *objects: Any) -> None:
        text = "---\n".join(one if isinstance(one, str) else yaml.safe_dump(one) for one in objects)
        (self.conf / name).write_text(text)

    def start(self) -> "House":
        self.file = StateFile(self.file.path)
        self.router = Router(
            name="test",
            ledger=Ledger(router="standalone", boot=f"boot-{self.file.read().boot + 1}"),
            upstreams=Upstreams(Keys(None)),
            metrics=Metrics(),
            clock=lambda: self.now_s,
            on_trip=lambda trip: self.keeper.tripped(trip),
        )
        self.keeper = Keeper(
            folder=Folder(self.conf, but=self.file.path),
            file=self.file,
            router=self.router,
            clock=lambda: self.now_s,
        )
        self.keeper.start()
        return self

    async def walk(self, ticks: int = 3) -> None:
        """Tick often enough for a change to be seen twice and read."""
        for _ in range(ticks):
            self.now_s += 0.5
            await self.keeper.tick()

    def names(self) -> list[str]:
        return sorted(self.router.table.by_model)

    def weight(self, name: str = "assistant") -> int:
        return self.router.table.routes[f"default/{name}"].policy.weight_bp

    def trip(self, name: str = "assistant") -> None:
        self.router._trip(self.router.table.routes[f"default/{name}"], HARM, self.now_s)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def run(scene: Callable[[], Any]) -> None:
    asyncio.run(scene())


def a_route(name: str = "assistant", **behaviour: Any) -> dict[str, Any]:
    made = route(name, **behaviour)
    made["spec"]["rollout"] = FAST
    return made


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


# Disk before a raise, wire before a lowering.


def test_a_raise_is_on_disk_before_the_router_hears_of_it(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        seen: list[tuple[int, int]] = []
        write = house.file.write

        def watched(saved: Saved, turn: int) -> None:
            write(saved, turn)
            on_disk = house.file.read().routes["default/assistant"].state.weight_bp
            seen.append((on_disk, house.weight()))

        house.file.write = watched  # type: ignore[method-assign]
        house.put("route.yaml", a_route(maxAttempts=1))
        await house.walk()

        assert (500, 0) in seen
        assert house.weight() == 500

    run(scene)


def test_a_full_disk_raises_nothing(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        house.put("route.yaml", a_route(maxAttempts=1))

        def full(saved: Saved, turn: int) -> None:
            raise OSError(28, "No space left on device")

        house.file.write = full  # type: ignore[method-assign]
        for _ in range(3):
            house.now_s += 0.5
            try:
                await house.keeper.tick()
            except OSError:
                continue

        assert house.weight() == 0

    run(scene)


def test_a_trip_during_a_write_keeps_another_routes_raise_off_the_wire(house: House) -> None:
    """A route trips while the raise of another is on its way to disk."""

    async def scene() -> None:
        house.put("a.yaml", a_route("a"))
        house.put("b.yaml", a_route("b"))
        house.start()
        house.put("a.yaml", a_route("a", maxAttempts=1))
        await house.walk()
        assert house.weight("a") == 500
        loop, write = asyncio.get_running_loop(), house.file.write
        tripped = threading.Event()

        def slow(saved: Saved, turn: int) -> None:
            write(saved, turn)
            raises_b = saved.routes["default/b"].state.weight_bp > 0
            in_thread = threading.current_thread() is not threading.main_thread()
            if raises_b and in_thread and not tripped.is_set():
                loop.call_soon_threadsafe(lambda: (house.trip("a"), tripped.set()))
                tripped.wait(2)

        house.file.write = slow  # type: ignore[method-assign]
        house.put("b.yaml", a_route("b", maxAttempts=1))
        while not tripped.is_set():
            await house.walk(ticks=1)
        on_disk = house.file.read().routes["default/b"].state.weight_bp

        assert house.weight("b") <= on_disk
        assert house.router.table.routes["default/a"].policy.canary is None

    run(scene)


def test_a_trip_is_on_disk_when_the_brake_has_stopped(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        house.put("route.yaml", a_route(maxAttempts=1))
        await house.walk()
        house.trip()

        assert house.file.read().routes["default/assistant"].state.stage == "RolledBack"
        house.start()
        await house.walk()
        assert house.weight() == 0

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


# The state file.


@pytest.mark.parametrize("text", ["{}", '{"name": "my-package"}', '{"format": 7}', "[]", "x"])
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)

    with pytest.raises(StateFileError, match="move it away"):
        StateFile(path).read()


def test_of_two_writes_that_meet_the_later_turn_stays(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    early, late = file.turn(), file.turn()
    file.write(Saved(format=1, boot=2), late)
    file.write(Saved(format=1, boot=1), early)

    assert file.read().boot == 2


def test_only_tallies_that_fit_a_saved_route_are_restored(house: House) -> None:
    async def scene() -> None:
        house.put("route.yaml", a_route())
        house.start()
        house.put("route.yaml", a_route(maxAttempts=1))
        await house.walk()
        policy = house.router.table.routes["default/assistant"].policy
        assert house.router.ledger.assign(policy, 0, "", house.now_s) is not None
        await house.walk()
        saved = house.file.read()
        (good,) = saved.tallies
        (epoch, *_) = good.epochs
        cut = msgspec.structs.replace(epoch, counts=epoch.counts[:-1])
        odd = msgspec.structs.replace(good, epochs=(cut,))
        foreign = msgspec.structs.replace(
            good, key=msgspec.structs.replace(good.key, objectives="ffffffffff")
        )

        assert readable(saved) == (good,)
        assert readable(msgspec.structs.replace(saved, tallies=(odd, foreign))) == ()

    run(scene)
