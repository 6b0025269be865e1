"""A control loop with its folder, its file and its router, on a clock that the test moves."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from support.objects import backend, route
from weir_core.evidence import Judgement
from weir_router.folder import Folder
from weir_router.keeper import Keeper
from weir_router.ledger import Ledger
from weir_router.serve import Router
from weir_router.standing import StateFile
from weir_router.telemetry import Metrics
from weir_router.upstreams import Ejection, Keys, Upstreams

HARM = Judgement(verdict="Harm", log_e=5.0, threshold=4.6, suspect="errors")
FAST = {"steps": [{"setWeight": 5}, {"hold": {"duration": "1s"}}, {"setWeight": 50}, {"prove": {}}]}


class House:
    """A keeper, its folder, its file and its router, on a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.conf = folder / "conf"
        self.conf.mkdir()
        self.now_s = 1_790_000_000.0
        self.ejected: tuple[Ejection, ...] = ()
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
            ejected=lambda: self.ejected,
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


def run(scene: Callable[[], Any]) -> None:
    """Play a scene in a loop of its own."""
    asyncio.run(scene())


def a_route(name: str = "assistant", **behaviour: Any) -> dict[str, Any]:
    """Return a route whose canary gets 5 % at once and 50 % a second later."""
    made = route(name, **behaviour)
    made["spec"]["rollout"] = FAST
    return made
