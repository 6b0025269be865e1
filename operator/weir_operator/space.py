"""What the two halves of a namespace's walk keep between them: the quick one and the slow one.

The quick half thinks and publishes and never waits for the API (`walk`); the slow one saves what
was thought and applies what follows (`settle`). Both run on one loop and hand over here.
"""

import asyncio
from typing import Any

import msgspec

from weir_core.compile import Compiled
from weir_operator.attention import Attention
from weir_operator.forgotten import Orphans
from weir_operator.gather import Reader, World
from weir_operator.think import Thinker, Thought

Obj = dict[str, Any]


class Job(msgspec.Struct, frozen=True):
    """A thought that the cluster does not know yet, with the world that it was thought in."""

    world: World
    thought: Thought
    now_s: float


class Namespace:
    """One namespace. `jobs` wait to be saved, the newest of each route; `saving` is under way.

    `raising` are the raises that still hold: a lowering since takes a route out. `latest` is what
    was last gathered and compiled. `bodies` are the ModelRevisions of the model servers that should
    run, as last seen: one that somebody deletes is made again. `told` is what a backend's status
    says and when that was written, by name.
    """

    def __init__(self, max_routers: int) -> None:
        self.thinker = Thinker(max_routers=max_routers)
        self.awake = asyncio.Event()
        self.unsettled = asyncio.Event()
        self.primed = False
        self.latest: tuple[World, Compiled] | None = None
        self.jobs: dict[str, Job] = {}
        self.raising: dict[str, Thought] = {}
        self.saving: Thought | None = None
        self.settling = False
        self.config_maps: list[Obj] = []
        self.configured_s = float("-inf")
        self.asked_for: set[str] = set()
        self.bodies: dict[str, Obj] = {}
        self.compiled: tuple[object, Compiled] | None = None
        self.refused: dict[str, str] = {}
        self.told: dict[str, tuple[object, float]] = {}
        self.figures: dict[str, float] = {}
        self.parked: dict[str, tuple[str, str]] = {}
        self.empty_since_s: float | None = None
        self.reader = Reader()
        self.orphans = Orphans()
        self.attention = Attention()

    def forget_gone(self) -> None:
        """Forget what was noted of routes and backends that are no more."""
        for noted in (self.raising, self.refused):
            for name in noted.keys() - self.thinker.memories.keys():
                del noted[name]
        if self.latest is not None:
            for name in self.told.keys() - self.latest[0].backends.keys():
                del self.told[name]

    @property
    def lacks_calibration(self) -> bool:
        """Whether a ConfigMap that a route refers to is not there."""
        return len(self.config_maps) < len(self.asked_for)
