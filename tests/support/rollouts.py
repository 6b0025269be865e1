"""A route's rollout as tests tell it: one call a happening, and what happened in return.

Every call checks what must always hold: the same told twice changes nothing, and the state
survives JSON.
"""

from typing import Any

import msgspec

from weir_core.evidence import Judgement, ObjectiveJudgement, Trip
from weir_core.rollout import (
    Command,
    Inputs,
    RolloutState,
    Transition,
    advance,
    evidence_key,
)
from weir_core.snapshot import Behaviour, Revision, RolloutPolicy, Step

THRESHOLD = 4.83


def revision(letter: str) -> Revision:
    behaviour = Behaviour(deadline_ms=30_000, max_attempts=4, tiers=())
    return Revision(name=f"chat-{letter * 10}", behaviour=behaviour, content=letter)


A, B, C = (revision(letter) for letter in "abc")


def weight(percent: float) -> Step:
    return Step(kind="setWeight", weight_bp=round(percent * 100))


def hold(requests: int = 0, seconds: float = 0) -> Step:
    return Step(kind="hold", min_requests=requests, duration_ms=round(seconds * 1_000))


def pause(seconds: float = 0) -> Step:
    return Step(kind="pause", duration_ms=round(seconds * 1_000))


PROVE = Step(kind="prove")
STEPS = (weight(5), hold(200), weight(25), pause(), weight(50), PROVE)


def judged(verdict: str = "NoHarmYet", canary: int = 0, **changes: Any) -> Judgement:
    """Return a judgement after `canary` settled canary requests."""
    told: dict[str, Any] = {
        "verdict": verdict,
        "log_e": THRESHOLD + 0.05 if verdict == "Harm" else 0.59,
        "threshold": THRESHOLD,
        "suspect": "errors" if verdict == "Harm" else "",
        "assigned": (19 * canary, canary),
        "settled": (19 * canary, canary),
        "objectives": (
            ObjectiveJudgement(
                name="errors",
                event="Error",
                mode="Enforce",
                verdict="NoHarmYet",
                log_e=0.59,
                promote_log_e=1.16,
                failed=(171, 9),
                settled=(15_420, 812),
                ratio=1.0,
                low=0.4,
                high=2.1,
            ),
        ),
    }
    return Judgement(**{**told, **changes})


HARM = judged("Harm", 143, bad_served=9)
SAFE = judged("Safe", 5_000)
SAFE_STILL = judged("Safe", 5_001)
"""One canary request after SAFE."""


class Course:
    """One route. `tell` keeps the judgement and all else that it was told until told otherwise."""

    def __init__(self, *steps: Step, state: RolloutState | None = None, **policy: Any) -> None:
        self.policy = RolloutPolicy(steps=steps or STEPS, **policy)
        self.state = state or RolloutState()
        self.now_s = 1_000.0
        self.told: dict[str, Any] = {"target": A}
        self.happened: tuple[Transition, ...] = ()

    def tell(self, *, after_s: float = 1.0, **told: Any) -> tuple[str, ...]:
        """Advance with these inputs changed and return the reasons of what happened."""
        self.now_s += after_s
        self.told.update(told)
        key = evidence_key(self.state, route_uid="u", objectives=self.told.get("objectives", ""))
        # A judgement is made of the state that was, as a shell does it.
        self.told["judged"] = told.get("judged", key)
        inputs = Inputs(policy=self.policy, **self.told)
        result = advance(self.state, inputs, now_s=self.now_s)
        again = advance(result.state, inputs, now_s=self.now_s)
        assert again.state == result.state
        assert again.transitions == ()
        stored = msgspec.json.encode(result.state)
        assert msgspec.json.decode(stored, type=RolloutState) == result.state
        self.state, self.happened = result.state, result.transitions
        if self.told.get("judgement") and key != evidence_key(
            self.state, route_uid="u", objectives=self.told.get("objectives", "")
        ):
            del self.told["judgement"]
        return tuple(t.reason for t in result.transitions)

    def edit(self, **policy: Any) -> None:
        """Change spec.rollout."""
        self.policy = msgspec.structs.replace(self.policy, **policy)

    def order(self, verb: str, *, of: str = "", age_s: float = 0.0, full: bool = False) -> Any:
        """Give a command for the canary now and return the reasons of what happened."""
        revision = of or self.state.canary or "chat-none"
        issued_s = self.now_s + 1.0 - age_s
        command = Command(verb=verb, revision=revision, issued_s=issued_s, full=full)  # type: ignore[arg-type]
        return self.tell(command=command)

    def messages(self) -> str:
        return "\n".join(t.message for t in self.happened)


def started(*steps: Step, **policy: Any) -> Course:
    """Return a route whose A is stable and whose B has begun."""
    course = Course(*steps, **policy)
    course.tell()
    course.tell(target=B)
    return course


def baking(*, bake_s: float = 3_600, **policy: Any) -> Course:
    """Return a route whose B serves 90 % beside A."""
    course = started(weight(50), PROVE, bake_ms=round(bake_s * 1_000), **policy)
    course.tell(judgement=SAFE)
    return course


def baked(**policy: Any) -> Course:
    """Return a route whose B is stable, and A was before it."""
    course = baking(**policy)
    course.tell(after_s=3_600, judgement=SAFE_STILL)
    return course


def rolled_back(*steps: Step, **policy: Any) -> Course:
    """Return a route whose B did harm."""
    course = started(*steps, **policy)
    course.tell(judgement=HARM)
    return course


def trip(revision: str = B.name, attempt: int = 1, **changes: Any) -> Trip:
    told: dict[str, Any] = {
        "route_uid": "u",
        "decided_by": "router/r-2",
        "reason": "Harm",
        "suspect": "errors",
        "log_e": 6.5,
        "at_s": 1_002.0,
    }
    return Trip(revision=revision, attempt=attempt, **{**told, **changes})
