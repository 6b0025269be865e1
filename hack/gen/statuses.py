"""What the statuses say, typed so that `kubectl explain` shows it; nothing is strict in them.

No enum, no bound, nothing required but a condition's type: an operator must never be kept from
telling what it sees. Unknown fields stay, so a newer operator may run before its CRDs.
"""

from typing import Any

Schema = dict[str, Any]

CONDITIONS = {
    "ModelRoute": "Accepted, ResolvedRefs, Programmed, Progressing, Promoted, RolledBack, "
    "StableHealthy, Ready, Reconciling and Stalled.",
    "ModelBackend": "Accepted, ResolvedRefs, WorkloadReady, ModelLoaded, Degraded, Ready, "
    "Promoted, RolledBack, Reconciling and Stalled.",
    "ModelRevision": "Of the form that tools look for; today Weir sets none.",
}


def status_of(kind: str) -> Schema:
    """Return the schema of a kind's status."""
    fields = {"ModelRoute": _route, "ModelBackend": _backend, "ModelRevision": _revision}[kind]()
    return _group("What Weir says of the object; never edit it.", **fields, **_conditions(kind))


def _text(told: str) -> Schema:
    return {"type": "string", "description": told}


def _count(told: str) -> Schema:
    return {"type": "integer", "format": "int64", "description": told}


def _group(told: str, **fields: Schema) -> Schema:
    group = {"type": "object", "description": told, "x-kubernetes-preserve-unknown-fields": True}
    # An empty "properties" is dropped by the API server, and every apply would find a change.
    return {**group, "properties": fields} if fields else group


def _maybe(group: Schema) -> Schema:
    return {**group, "nullable": True}


def _listed(told: str, **fields: Schema) -> Schema:
    return {
        "type": "array",
        "description": told,
        "x-kubernetes-list-type": "atomic",
        "items": _group(told, **fields),
    }


def _texts(told: str) -> Schema:
    return {
        "type": "array",
        "description": told,
        "x-kubernetes-list-type": "atomic",
        "items": {"type": "string"},
    }


def _conditions(kind: str) -> dict[str, Schema]:
    items = _group(
        "One condition, as everywhere in Kubernetes.",
        type=_text("The condition's name."),
        status=_text("True, False or Unknown."),
        reason=_text("One word for why."),
        message=_text("One sentence with the numbers, and what to do where something is to do."),
        observedGeneration=_count("The metadata.generation that it is about."),
        lastTransitionTime=_text("Since when its status is what it is."),
    )
    listed = {
        "type": "array",
        "description": CONDITIONS[kind],
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {**items, "required": ["type"]},
    }
    return {"conditions": listed}


def _versus(told: str) -> Schema:
    return _group(told, canary=_count("Of the canary."), stable=_count("Of stable."))


def _objectives(told: str) -> Schema:
    return _listed(
        told,
        name=_text("The objective's name."),
        event=_text("What is counted."),
        mode=_text("Enforce, Hold or Observe."),
        verdict=_text("InsufficientData, NoHarmYet, Harm or Safe."),
        canary=_text("Failures of settled canary requests, such as 9/812."),
        stable=_text("Failures of settled stable requests."),
        ratio=_text("The canary's rate over stable's."),
        interval=_text("The ratio's 95 % interval."),
        eValue=_text("Evidence of harm."),
        promoteEValue=_text("Evidence that the canary is no worse."),
        suspect={"type": "boolean", "description": "Whether it is the one most to blame."},
        requestsToDetect=_text("Canary requests that a doubling takes at least to be seen."),
    )


def _route() -> dict[str, Schema]:
    return {
        "observedGeneration": _count("The metadata.generation that this status is about."),
        "phase": _text("Healthy, Progressing, Paused or Degraded."),
        "message": _text("One sentence with the numbers, and what to do where something is to do."),
        "stable": _group(
            "What serves, or serves all but the canary's share.",
            revision=_text("Name of its ModelRevision."),
        ),
        "canary": _group(
            "What is tried, or was rolled back.",
            revision=_text("Name of its ModelRevision."),
            attempt=_count("How many times it was begun."),
            changes=_texts("What is different from stable, by field."),
        ),
        "standstill": _listed(
            "All that stops the rollout now; nothing while it moves.",
            reason=_text("One word for what stops it."),
            message=_text("One sentence, and what to do where something is to do."),
        ),
        "step": _group(
            "Where the rollout stands.",
            index=_count("The step, from 1."),
            of=_count("How many there are."),
            kind=_text("What it waits for: hold, pause or prove."),
            progress=_text("The same in short, such as 4/6, promoting or bake."),
        ),
        "weight": _group(
            "The canary's share of new requests.",
            set=_text("As told to the routers."),
            actual=_text("As measured."),
        ),
        "routers": _group(
            "The ready routers of the namespace.",
            inSync=_count("Those that acknowledged the latest snapshot."),
            of=_count("All of them."),
        ),
        **_verdict(),
        "lastRollback": _maybe(_last_rollback()),
        "lastCommand": _maybe(
            _group(
                "The last annotation inference.weir.dev/command, and what came of it.",
                command=_text("As it was given: verb@revision#time."),
                result=_text("Done or Refused."),
                message=_text("What was done, or why not."),
                at=_text("When."),
            )
        ),
        "rollout": _group("What a restarted operator goes on from; not for people."),
    }


def _verdict() -> dict[str, Schema]:
    return {
        "verdict": _text("InsufficientData, NoHarmYet, Harm, Safe, Inconclusive, or why it ended."),
        "eValue": _text("Evidence of harm; at the threshold the canary is rolled back."),
        "threshold": _text("The e-value that rolls back."),
        "promoteThreshold": _text("The e-value that each objective in Enforce needs for a proof."),
        "evidence": _group(
            "What the verdict rests on.",
            assigned=_versus("Requests drawn for each arm."),
            settled=_versus("Those whose outcome is known."),
            coverage=_text("Settled of assigned, in the arm that has less."),
            sampleRatioEValue=_text("Evidence that the arms did not get the shares drawn."),
            audits=_count("Audited requests."),
            badServed=_count("Canary answers with a problem that reached a client."),
            objectives=_objectives("What is known of each objective."),
        ),
    }


def _last_rollback() -> Schema:
    return _group(
        "The last revision that was rolled back, and why.",
        revision=_text("Name of its ModelRevision."),
        attempt=_count("Which attempt it was."),
        reason=_text("Harm, UncleanBoots, Inconclusive or Aborted."),
        suspect=_text("The objective most to blame."),
        eValue=_text("Evidence of harm."),
        threshold=_text("The e-value that rolls back."),
        weight=_text("The share that it had."),
        requests=_count("Settled requests of both arms."),
        canaryRequests=_count("Settled requests of the canary."),
        badServed=_count("Its answers with a problem that reached a client."),
        objectives=_objectives("What was known of each objective."),
        decidedBy=_text("Which router, or operator."),
        at=_text("When."),
        message=_text("All of it in one sentence."),
    )


def _backend() -> dict[str, Schema]:
    return {
        "observedGeneration": _count("The metadata.generation that this status is about."),
        "model": _text("The name of the model that it serves."),
        "address": _text("Where routers reach it."),
        "identity": _text("The version of the model server that the spec asks for."),
        "replicas": _text("Ready of wanted pods of that identity, such as 1/2."),
        "ready": _text("The status of condition Ready."),
        "reason": _text("The reason of condition Ready."),
        "message": _text("The message of condition Ready."),
        "loadedRevision": _text("That identity, as soon as it answers."),
        "lastLoadDuration": _text("How long that identity took to load."),
        "identities": _listed(
            "Every version of the model server that runs or is in use.",
            name=_text("Name of its ModelRevision, and of its workload."),
            newest={"type": "boolean", "description": "Whether the spec asks for it."},
            replicas=_text("Ready of wanted pods."),
            reason=_text("What its pods suffer from, in one word."),
            routes=_texts("ModelRoutes that use it."),
        ),
    }


def _revision() -> dict[str, Schema]:
    return {
        "outcome": _text("Canary, Stable, RolledBack or Superseded."),
        "attempt": _count("Its latest attempt; 0 when it never had to prove itself."),
        "reason": _text("Why the outcome is what it is, in one word."),
        "transitionTime": _text("Since when the outcome is what it is."),
        "promotionTime": _text("Since when it counts as proven."),
        "tripped": _count("The latest attempt that was rolled back."),
        "suspect": _text("The objective most to blame for the rollback."),
        "eValue": _text("Evidence of harm when it was rolled back."),
        "logE": _text("The natural logarithm of that evidence."),
        "weight": _text("The share that it had when it was rolled back."),
        "requests": _count("Settled requests of both arms until then."),
        "canaryRequests": _count("Settled requests of the canary until then."),
        "badServed": _count("Its answers with a problem that reached a client."),
        "decidedBy": _text("Which router, or operator, rolled it back."),
        "record": _text("All of it for the operator, as JSON; not for people."),
    }
