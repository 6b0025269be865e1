"""The control loop without a cluster: the order of disk and wire, and the state file."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from support.house import House, a_route, run
from weir_router.standing import Saved, StateFile, StateFileError, readable


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


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
