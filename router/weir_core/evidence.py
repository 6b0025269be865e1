"""What requests showed, as mergeable counts, and what was concluded from them.

Counts are of requests (or sessions' first failures). A tally is cumulative per router boot and
carries `seq`: of two tallies of one boot the higher seq wins whole, distinct boots are summed.
It refuses to know how a verdict is reached (`sequential`) or what follows (`rollout`).
"""

from typing import Literal

import msgspec

STABLE, CANARY = 0, 1
"""Positions of the arms in every pair of counts."""

Verdict = Literal["InsufficientData", "NoHarmYet", "Harm", "Safe"]

Pair = tuple[int, int]
"""(stable, canary)."""


class Key(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What one body of evidence is about; any other objectives are other evidence."""

    route_uid: str
    revision: str
    attempt: int
    objectives: str
    """Fingerprint of the objectives and audits, 10 hex digits."""


ASSIGNED, SETTLED, BAD = 0, 2, 4
"""Places in a row of counts: of the arms' first two add the arm; BAD is of the canary alone."""

AUDITS_BEGUN, AUDITS_ENDED, AUDITS_DROPPED = 5, 6, 7
BOTH_HARMED, CANARY_HARMED, STABLE_HARMED = 8, 9, 10
"""Audited requests that harmed in both arms, in the canary only, in stable only."""

FAILED = 11
"""From here on failures, two places an objective: FAILED + 2·objective + arm."""


def row_length(objectives: int) -> int:
    """Return how many counts one row has."""
    return FAILED + 2 * objectives


class Epoch(msgspec.Struct, frozen=True, array_like=True):
    """A stretch with one canary weight, begun in one period of ten minutes of Unix time.

    `first_s` is the second of its first assignment. `units` counts sessions (and requests that
    are units of their own) by arm when first seen; (0, 0) where the unit is the request.
    `counts` is a row of what is older than `Tally.cells`; `lost` are those assigned and not
    settled because the boot ended.
    """

    weight_bp: int
    period: int
    first_s: int
    units: Pair
    counts: tuple[int, ...]
    lost: Pair = (0, 0)


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """A row of counts of requests assigned from `begin_s` on, of the epoch at that position."""

    begin_s: float
    epoch: int
    counts: tuple[int, ...]


class SessionFailure(msgspec.Struct, frozen=True, array_like=True):
    """The first failure of a session, by objective; `session` is a salted hash, 16 hex digits."""

    session: str
    objective: int
    arm: int
    begin_s: float
    epoch: int


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """All that one boot of one router saw of one key, cumulative.

    Rows hold failures of units that are single requests; those of sessions are in `failures`,
    to be united with other routers' before they are counted. `level` says how far they are
    sampled: only sessions whose hash ends in a number with that many leading zero bits.
    """

    key: Key
    router: str
    boot: str
    seq: int
    as_of_s: float
    epochs: tuple[Epoch, ...] = ()
    cells: tuple[Cell, ...] = ()
    level: int = 0
    failures: tuple[SessionFailure, ...] = ()


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """Tallies of distinct boots of one key, sorted, and the sum of boots that are gone.

    A boot (router, boot) named in `retired_boots` is refused from then on, and where boots are
    counted those before it.
    """

    tallies: tuple[Tally, ...] = ()
    retired: Tally | None = None
    retired_boots: tuple[tuple[str, str], ...] = ()


class ObjectiveJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one objective. Rates are of settled units; logs are natural.

    `log_e` is the evidence of harm, `promote_log_e` that of no harm; `ratio` is canary over
    stable with its 95 % interval, NaN-free: 0 where stable has shown nothing yet, and `high` is
    1e9 where there is no bound.
    """

    name: str
    event: str
    mode: str
    verdict: Verdict
    log_e: float
    promote_log_e: float
    failed: Pair
    settled: Pair
    ratio: float = 0.0
    low: float = 0.0
    high: float = 1e9
    suspect: bool = False


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one canary from all evidence at hand.

    Harm: log_e ≥ threshold (= ln 1/α'), `suspect` names the objective with the largest
    share × E; log_e is of their sum, or of a Feedback objective's share × E if larger. Safe:
    every gate's promotion evidence crossed and coverage and sample ratio hold.
    `holds` lists reasons to stand still: StableUnhealthy, SampleRatioMismatch, OutcomesMissing,
    Objective/<name>. `coverage` is settled/assigned of the arm that has less of it, in [0, 1].
    """

    verdict: Verdict
    log_e: float
    threshold: float
    suspect: str = ""
    objectives: tuple[ObjectiveJudgement, ...] = ()
    holds: tuple[str, ...] = ()
    assigned: Pair = (0, 0)
    settled: Pair = (0, 0)
    audits: int = 0
    coverage: float = 1.0
    sample_ratio_log_e: float = 0.0
    bad_served: int = 0
    """Canary answers with a problem that reached the client, or found harmful by audit or label."""


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """A brake that was pulled: who decided, why, on what. Latched on (revision, attempt)."""

    route_uid: str
    revision: str
    attempt: int
    decided_by: str
    reason: str
    suspect: str
    log_e: float
    at_s: float
    judgement: Judgement | None = None
