"""Every reason that a transition or a condition can carry, with what it means.

Written once so that Events, conditions, `weir describe` and the documentation say the same.
"""

# Events of a rollout, in the order in which a good one meets them.
REVISION_CREATED = "RevisionCreated"
"""The behaviour compiled to content that no known revision has."""
ROLLOUT_STARTED = "RolloutStarted"
"""An attempt began; the canary has no traffic yet."""
WEIGHT_UPDATED = "WeightUpdated"
"""The canary's share of new requests changed."""
STEP_COMPLETED = "StepCompleted"
"""What a hold, pause or prove waited for came, or a person waived it."""
STEPS_SKIPPED = "StepsSkipped"
"""A person promoted in full, or maxDuration passed with onInconclusive Promote."""
PROVED = "Proved"
"""Every gate showed that the canary is not promoteRatio times as bad as stable."""
BAKE_STARTED = "BakeStarted"
"""The canary serves nearly all; the old revision keeps the holdback and all of its capacity."""
BAKE_COMPLETED = "BakeCompleted"
"""The bake ended without harm; the holdback is given up."""
PROMOTED = "Promoted"
"""The canary is the stable revision now, and the old one may be torn down."""
INITIAL = "Initial"
"""The first revision of a route is stable at once: there is nothing to compare it with."""
PAUSED = "Paused"
"""A person stopped the rollout: by spec, by a pause step or by a command. Evidence goes on."""
RESUMED = "Resumed"
"""Nothing stops the rollout any more."""
REVERTED = "Reverted"
"""The spec asks for stable again, after a revision that was rolled back or refused."""
OBJECTIVES_CHANGED = "ObjectivesChanged"
"""Objectives or audits were edited: evidence is counted afresh, the step begins again."""

# Events of a rollout that does not go well.
BRAKE_TRIPPED = "BrakeTripped"
"""A router set the canary to 0 by itself."""
ROLLED_BACK = "RolledBack"
"""The canary has no traffic until it is retried; stable serves everything."""
REVISION_SUPERSEDED = "RevisionSuperseded"
"""The spec asks for another revision: the canary gave way before it was decided on."""
ATTEMPT_REFUSED = "AttemptRefused"
"""The spec asks for a revision that must not begin by itself; a person must retry it."""
COMMAND_REFUSED = "CommandRefused"
"""A command was late, seen before, for another revision, or does not fit the state."""
INCONCLUSIVE = "Inconclusive"
"""maxDuration passed and nothing was decided."""

# Events of what Weir makes.
PUT_BACK = "PutBack"
"""Somebody changed an object that Weir makes; it is as its spec says again."""
FOREIGN_OBJECT = "ForeignObject"
"""An object that is not Weir's has the name of one that it must make."""
REFUSED = "Refused"
"""The API server does not take an object that Weir must make."""
NOT_APPLIED = "NotApplied"
"""An object that Weir must make could not be written for a while."""
EDIT_DEFERRED = "EditDeferred"
"""An edit in place waits, for it would end a server that answers before another one can begin."""
ROUTERS_REFUSE = "RoutersRefuse"
"""Routers do not take the route's newest form; they keep the last good one."""
SNAPSHOT_TOO_LARGE = "SnapshotTooLarge"
"""A namespace's routes are more than its routers' ConfigMap holds."""
NAMESPACE_ENDS = "NamespaceTerminating"
"""The namespace is being deleted: the API server takes nothing new in it, not even Events."""
SIDECARS_LEFT = "SidecarsLeftBehind"
"""Sidecars take nothing new for long; the model servers that they may still call go."""

# Why a rollout stands still by itself; each clears by itself when its cause does.
ROUTERS_OUT_OF_SYNC = "RoutersOutOfSync"
"""A raise is due, and a ready router has not acknowledged or not reported yet."""
NO_CAPACITY = "NoCapacity"
"""A raise is due, and the canary's backends could not carry it."""
EVIDENCE_MISSING = "EvidenceMissing"
"""A raise or a proof is due, and no outcome of this attempt is known: no traffic, a restart,
lost reports."""
CLOCKS_DISAGREE = "ClocksDisagree"
"""Most routers' clocks and the operator's are far apart: nobody knows how long anything took."""
NOT_ACCEPTED = "NotAccepted"
"""The spec has a problem, so nobody knows what its owner wants: no raise until it is mended."""
STABLE_UNHEALTHY = "StableUnhealthy"
"""Both arms are worse than maxRate: the cause is not the canary."""
SAMPLE_RATIO_MISMATCH = "SampleRatioMismatch"
"""The arms did not get the shares they were drawn with: the counts cannot be trusted."""
OUTCOMES_MISSING = "OutcomesMissing"
"""Too many requests never told how they ended."""
OBJECTIVE_HELD = "ObjectiveHeld"
"""An objective with mode Hold is worse in the canary."""

# Why a revision was rolled back.
HARM = "Harm"
"""The evidence of harm crossed 1/α."""
UNCLEAN_BOOTS = "UncleanBoots"
"""Routers died twice while the canary had traffic; it may be the one that kills them."""
ABORTED = "Aborted"
"""A person ended the attempt."""

# Conditions only.
ACCEPTED = "Accepted"
"""The spec is valid."""
RESOLVED = "ResolvedRefs"
"""Everything that the spec names was found."""
PROGRAMMED = "Programmed"
"""Every ready router acknowledged."""
NO_ROUTERS = "NoRouters"
"""No ready router is known."""
NO_STABLE = "NoStableRevision"
"""No revision serves yet."""
STABLE_LOST = "StableLost"
"""The body of the stable revision is nowhere any more: a person must say what serves."""
STEPPING = "Stepping"
"""The rollout walks its steps."""
PROMOTING = "Promoting"
"""The steps are over, the canary is about to serve nearly all."""
BAKING = "Baking"
"""The canary serves nearly all, the old revision keeps the holdback."""
HEALTHY = "Healthy"
"""The stable revision serves everything, and it is what the spec asks for."""
NOT_TRIED = "NotTried"
"""There is nothing to say: no rollout, or no evidence yet."""
NO_ALARM = "NoAlarm"
"""Nothing speaks against it."""
NO_DATA = "NoData"
"""No outcome of a request is known yet."""
NO_CEILING = "NoCeiling"
"""No objective has a maxRate to be measured by."""
SERVING = "Serving"
"""Requests are answered."""
SERVING_IN_PART = "ServingInPart"
"""Requests are answered, but some tier or fallback has no healthy backend; also an Event."""
NO_HEALTHY_BACKEND = "NoHealthyBackend"
"""No backend is left that could answer most of the requests; also an Event."""

NEEDS_PERSON = frozenset((FOREIGN_OBJECT, REFUSED, ROUTERS_REFUSE, SNAPSHOT_TOO_LARGE))
"""What is wrong with objects that Weir makes, and stays so until somebody does something."""

ADVICE = {
    ROUTERS_OUT_OF_SYNC: "a raise waits until every ready router has acknowledged and reported",
    NO_CAPACITY: "a raise waits until the canary's backends can carry it",
    EVIDENCE_MISSING: "a raise waits for the first outcome of this attempt; without traffic "
    "`weir rollout promote --full` goes on",
    CLOCKS_DISAGREE: "no raise, and no step or bake ends, until the clocks of routers and operator "
    "agree; what lowers is obeyed",
    NOT_ACCEPTED: "no raise while the spec has a problem; see condition Accepted",
    STABLE_UNHEALTHY: "stable is worse than its ceiling too, so the cause is not the canary; "
    "it goes on some minutes after stable is well again, `weir rollout promote --full` overrides",
    SAMPLE_RATIO_MISMATCH: "the arms did not get the shares they were drawn with; "
    "look for retries or caches in front of the router, then `weir rollout abort`, or "
    "`weir rollout promote --full` if the canary is well",
    OUTCOMES_MISSING: "too many requests never told how they ended, or audits could not be "
    "carried out; look for routers that vanished, reports that were lost or a reference tier that "
    "does not answer, then `weir rollout abort`, or `weir rollout promote --full` if the canary "
    "is well",
    OBJECTIVE_HELD: "the objective is worse in the canary; it goes on when that is no longer so, "
    "`weir rollout promote --full` overrides",
}
"""What a person should know about each reason to stand still."""

UNDECIDED = "nothing was decided within maxDuration; promote, abort or resume it by command"
"""What a person should know about a rollout that is inconclusive."""


def hold_reason(hold: str) -> str:
    """Return the CamelCase reason of a hold: "Objective/load" is an ObjectiveHeld."""
    return OBJECTIVE_HELD if hold.startswith("Objective/") else hold


def hold_message(hold: str) -> str:
    """Return one sentence about a hold; one that this version does not know speaks for itself."""
    advice = ADVICE.get(hold_reason(hold), "it goes on when that clears")
    return f"{hold}: {advice}"
