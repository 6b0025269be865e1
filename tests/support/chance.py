"""A ring to which things happen at random: people, faults, several operators, in virtual time.

The operators' walks, saves, applies and leases, and the routers' taking of orders, are the
product's own. API server, streams and requests are in memory. What must hold whatever happens is
looked at with every write and every order; what does not is a line in `broken`.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from support.chance_parts import Operator, Pair, Router, View
from support.objects import backend
from support.walking import SPACE, STEPS, Obj, _pod, routed
from weir_core.snapshot import RoutePolicy
from weir_core.wire import Routed, Version
from weir_operator.cache import Cache

ROUTE = ("ModelRoute", SPACE, "assistant")
TICK_S = 0.25
PEOPLE_CHOOSE = ("AttemptRefused", "Paused", "StableLost")
Act = Callable[["Ring"], Awaitable[None]]


class Ring:
    """The cluster, its operators and routers, and what must hold of all they do.

    `saved` is the greatest weight that was saved of each attempt, `dead` are those that were
    rolled back.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.objects: dict[tuple[str, str, str], Obj] = {}
        self.watchers: list[Cache] = []
        self.versions = itertools.count(1)
        self.numbers = itertools.count(1)
        self.writes: list[tuple[float, str, str]] = []
        self.broken: list[str] = []
        self.saved: dict[Pair, int] = {}
        self.dead: set[Pair] = set()
        self.snapshots: list[Obj] = []
        self.people = View(self)
        self.operators: list[Operator] = []
        self.routers: list[Router] = []
        self._told: dict[Version, RoutePolicy] = {}
        self.state: dict[str, Any] = {}

    def told(self, routed_: Routed) -> None:
        """Take note of what an operator publishes: no version says two things."""
        if routed_.policy is None:
            return
        if self._told.setdefault(routed_.version, routed_.policy) != routed_.policy:
            self.broken.append(f"version {routed_.version} was given twice")

    def stored(self, obj: Obj) -> None:
        """Take note of what the API server has now."""
        kind, name = obj["kind"], obj["metadata"]["name"]
        if (kind, name) == ("ConfigMap", "weir-router-snapshot"):
            self.snapshots.append(obj)
        status = obj.get("status") or {}
        if kind == "ModelRevision" and status.get("outcome") == "RolledBack":
            self.dead.add((name, int(status.get("attempt", 0))))
        text = (status.get("rollout") or {}).get("state") if kind == "ModelRoute" else None
        if text:
            self._kept(json.loads(text))

    def _kept(self, state: dict[str, Any]) -> None:
        before, self.state = self.state, state
        if state == before:
            return  # Somebody wrote something else of the route.
        pair = state["canary"], state["attempt"]
        stable = state["stable"]
        if before.get("stage") == "Refused" and before["canary"] == stable:
            # Somebody tried it again where nothing else was known.
            self.dead = {one for one in self.dead if one[0] != stable}
        if state["stage"] in ("Steps", "Promoting", "Bake"):
            self.saved[pair] = max(self.saved.get(pair, 0), state["weight_bp"])
            if pair in self.dead:
                self.broken.append(f"{pair} goes on though it was rolled back")
        elif state["stage"] == "RolledBack":
            self.dead.add(pair)
        attempts = [attempt for name, attempt in self.dead if name == stable]
        tried = [attempt for name, attempt in self.saved if name == stable]
        if before.get("stable", stable) != stable and max(attempts, default=-1) >= max(
            tried, default=0
        ):
            self.broken.append(f"{stable} is stable though attempt {max(attempts)} was rolled back")

    # What happens.

    def route(self, seconds: int | None = None) -> Obj:
        """Return the route with a behaviour and steps by chance."""
        steps = self.chance.choice(
            [
                STEPS,
                [{"setWeight": 20}, {"hold": {"duration": "2s"}}, {"setWeight": 60}],
                [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}],
            ]
        )
        deadline = f"{seconds or self.chance.randrange(20, 27)}s"
        return routed(deadline, steps=steps, bake={"duration": "3s"})

    def add_router(self) -> None:
        router = Router(self)
        self.routers.append(router)
        self.people.write(_pod(router.uid))
        if self.snapshots and self.chance.random() < 0.7:
            router.mount(self.snapshots[-1])

    async def run(self, steps: int, acts: Sequence[Act]) -> None:
        """Let so many things happen, then nothing more; all of it must come to rest."""
        self.people.write(backend(), self.route())
        for _ in range(3):
            self.add_router()
        self.operators.append(Operator(self))
        serving = asyncio.create_task(self._serve())
        await asyncio.sleep(5)
        for _ in range(steps):
            await asyncio.sleep(self.chance.choice([0.01, 0.1, 0.5, 1, 3, 8]))
            await self.chance.choice(acts)(self)
        await self._settle()
        serving.cancel()
        for operator in self.operators:
            await operator.kill()

    async def _serve(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            leads = [one for one in self.operators if one.streams and one.streams.told]
            for router in self.routers:
                if router.operator is None and time.monotonic() > router.cut_until_s and leads:
                    router.join(self.chance.choice(leads))
                router.serve(self.chance)

    def heal(self) -> None:
        """End all faults, and have an operator."""
        for operator in self.operators:
            operator.view.mend()
            if operator.watch is not None:
                operator.watch.lag_s = 0.0
        for router in self.routers:
            router.cut_until_s = 0.0
        if not self.operators:
            self.operators.append(Operator(self))

    async def _settle(self) -> None:
        self.heal()
        final = self.route(25)
        final["spec"]["rollout"] = {"steps": [{"setWeight": 50}], "bake": {"duration": "3s"}}
        self.people.write(backend(), final)
        await asyncio.sleep(400)
        calm_s = time.monotonic()
        await asyncio.sleep(60)
        late = [write for write in self.writes if write[0] > calm_s]
        status = self.objects[ROUTE].get("status") or {}
        conditions = {one["type"]: one for one in status.get("conditions", ())}
        if conditions.get("Progressing", {}).get("reason") in PEOPLE_CHOOSE:
            return
        if conditions.get("Programmed", {}).get("status") != "True" or self.state["stage"] not in (
            "Idle",
            "RolledBack",
        ):
            self.broken.append(f"not at rest: {self.state['stage']} {conditions}")
        if len(late) > 2:
            self.broken.append(f"{len(late)} writes while nothing happens, {late[0]}")
        if len({router.policy for router in self.routers}) != 1:
            self.broken.append("routers obey different things")
