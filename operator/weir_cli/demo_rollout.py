"""One change on live traffic: edit the file, follow what the product does, undo it if it must."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weir_cli.demo_figures import Outcome
from weir_cli.demo_manifests import PROVEN, Change, edited
from weir_cli.demo_traffic import Clients, Flow
from weir_cli.errors import CommandError
from weir_cli.parts import is_refused
from weir_lab.questions import Question

PATIENCE_S = 120.0
"""A rollout that takes longer is left undecided."""
LOOK_S = 0.1
PROMOTER = "controller"
"""Who promotes: the control loop alone, never a router by itself."""
Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """What is to be seen of a rollout at one moment; `told` is the route as the API tells it."""

    told: Mapping[str, Any]
    requests: int
    canary_requests: int
    seconds: float

    @property
    def step(self) -> str:
        """Where the rollout stands: "1/4", "bake"."""
        return str(self.told["status"]["step"]["progress"])

    @property
    def sentence(self) -> str:
        """One line of it."""
        status = self.told["status"]
        least, proof = least_proven(status)
        return (
            f"{self.seconds:5.1f} s  {self.requests:,} requests, {self.canary_requests:,} to the "
            f"canary   step {self.step} at {status['weight']['set']}   "
            f"E {status['eValue'] or 0} of {status['threshold'] or 100}, "
            f"proof {proof or 0} of {PROVEN:.0f}" + (f" ({least})" if least else "")
        )


Told = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class _End:
    """How a rollout ended, and on which evidence: the least proof, or what `lastRollback` says."""

    verdict: str
    seconds: float
    proof: float = 0.0
    rollback: Status | None = None


class Site:
    """The running product and its folder: where changes are tried, one after the other."""

    def __init__(
        self,
        folder: Path,
        clients: Clients,
        questions: Sequence[Question],
        *,
        per_s: float,
        chance: random.Random,
    ) -> None:
        self._folder, self._clients, self._questions = folder, clients, questions
        self._per_s, self._chance = per_s, chance

    def flow(self, route: str) -> Flow:
        """Return traffic to a route, not begun yet."""
        return Flow(self._clients, route, self._questions, per_s=self._per_s, chance=self._chance)

    async def attempt(self, change: Change, told: Told) -> Outcome:
        """Make one change on live traffic and return how it ended; undo what was not promoted."""
        file = self._folder / change.file
        before = file.read_text("utf8")
        earlier = await self._clients.audits(change.route)
        stable = (await self._clients.status(change.route))["status"]["stable"]["revision"]
        async with self.flow(change.route) as flow:
            write(file, edited(before, change))
            end = await self._followed(change, stable, flow, told)
        audits, cost = await self._clients.audits(change.route)
        if end.verdict != "Promoted":
            write(file, before)
            await self._restored(change.route, stable)
        return _outcome(change, end, flow, audits=audits - earlier[0], audit_cost=cost - earlier[1])

    async def _followed(self, change: Change, stable: str, flow: Flow, told: Told) -> "_End":
        """Look at the route until its rollout has ended, or patience has."""
        began_s = time.monotonic()
        canary, proof, is_baking = "", 0.0, False
        while (seconds := time.monotonic() - began_s) < PATIENCE_S:
            found = await self._clients.status(change.route)
            status = found["status"]
            canary = canary or status["canary"]["revision"]
            if status["stable"]["revision"] != stable:
                return _End("Promoted", seconds, proof=proof)
            if canary and is_refused(status):
                return _End("RolledBack", seconds, rollback=status["lastRollback"])
            if canary:
                # What was proven is what let it into the bake; what the bake adds comes after.
                proof = proof if is_baking else max(proof, number(least_proven(status)[1]))
                is_baking = status["step"]["progress"] == "bake"
                told(Progress(found, len(flow.answers), _canaries(flow), seconds))
            await asyncio.sleep(LOOK_S)
        return _End("Undecided", seconds)

    async def _restored(self, route: str, stable: str) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            status = (await self._clients.status(route))["status"]
            if status["phase"] == "Healthy" and status["stable"]["revision"] == stable:
                return
            await asyncio.sleep(LOOK_S)
        raise CommandError(f"{route} did not return to {stable}: {status['message']}")


def write(file: Path, text: str) -> None:
    """Replace a file whole, as an editor does: nobody reads half of it."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text, "utf8")
    beside.replace(file)


def number(shown: str) -> float:
    """Return an e-value as statuses show it ("12", "1.2e+05", "<0.01") as a number."""
    return float(shown.lstrip("<") or 0)


def least_proven(status: Status) -> tuple[str, str]:
    """Return the objective that is proven least, and its proof as it is shown."""
    objectives = status["evidence"]["objectives"]
    shown = [(one["name"], one["promoteEValue"]) for one in objectives]
    return min(shown, key=lambda one: number(one[1]), default=("", ""))


def _canaries(flow: Flow) -> int:
    return sum(one.arm == "canary" for one in flow.answers)


def _outcome(change: Change, end: _End, flow: Flow, *, audits: int, audit_cost: float) -> Outcome:
    canary = [one for one in flow.answers if one.arm == "canary"]
    stable = [one for one in flow.answers if one.arm == "stable"]
    why = end.rollback
    return Outcome(
        change=change,
        verdict=end.verdict,
        suspect=why["suspect"] if why else "",
        decided_by=why["decidedBy"] if why else PROMOTER,
        e_value=number(why["eValue"]) if why else end.proof,
        threshold=number(why["threshold"]) if why else PROVEN,
        requests=len(flow.answers),
        canary_requests=len(canary),
        bad_served=sum(not one.right for one in canary),
        stable_wrong=sum(not one.right for one in stable) / max(1, len(stable)),
        audits=audits,
        cost=sum(one.cost for one in flow.answers),
        audit_cost=audit_cost,
        seconds=end.seconds,
    )
