"""Objects as the API server gives them, in the pieces that every command needs.

Pure, and quick to import. A status may lack what nobody has written yet, or what an older
operator did not know: `whole` fills it up.
"""

import copy
from collections.abc import Mapping
from datetime import datetime
from typing import Any

GROUP = "inference.weir.dev"
GROUP_VERSION = f"{GROUP}/v1alpha1"
"""As `weir_core.resources` has it, whose import takes longer than a whole `weir get`."""
Obj = Mapping[str, Any]
UNSEEN = "no operator has looked at it yet"
BLANK: Mapping[str, Any] = {
    "observedGeneration": 0,
    "phase": "Unknown",
    "message": UNSEEN,
    "stable": {"revision": ""},
    "canary": {"revision": "", "attempt": 0},
    "step": {"index": 0, "of": 0, "kind": "", "progress": ""},
    "weight": {"set": "", "actual": ""},
    "routers": {"inSync": 0, "of": 0},
    "verdict": "",
    "eValue": "",
    "threshold": "",
    "promoteThreshold": "",
    "evidence": {"objectives": []},
    "lastRollback": None,
    "lastCommand": None,
    "conditions": [],
}
"""A status in which nothing is known."""


def whole(status: Obj | None) -> dict[str, Any]:
    """Return a status with every field that the screens read, without the operator's notes."""
    made: dict[str, Any] = copy.deepcopy(dict(BLANK))
    for name, value in (status or {}).items():
        known = made.get(name)
        made[name] = {**known, **value} if isinstance(known, dict) else value
    made.pop("rollout", None)
    return made


def key_of(obj: Obj) -> str:
    """Return "namespace/name"."""
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def created_s(obj: Obj) -> float:
    """Return when an object was made, seconds since the epoch."""
    return seconds_of(obj["metadata"].get("creationTimestamp"))


def seconds_of(instant: object) -> float:
    """Return an instant as Kubernetes writes it, 0 for anything else."""
    try:
        return datetime.fromisoformat(str(instant)).timestamp()
    except ValueError:
        return 0.0
