"""The ModelRevision: what the operator writes down of each revision, and reads back after a loss.

Its spec never changes; `content` is one text, since JSON objects lose what sameness hangs on in
Kubernetes (integers beyond 64 bits, absent beside empty) and would be owned field by field.
Its status says what became of the revision: fields for people, and `record` for the operator.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema

from weir_core.canonical import behaviour_of, canonical
from weir_core.errors import Problem
from weir_core.figures import e_value, instant, percent
from weir_core.forms import Form, FormError, Label, ObjectName
from weir_core.history import Outcome, RevisionRecord, Rollback
from weir_core.resources import GROUP_VERSION, path_of, title_of_object
from weir_core.snapshot import Revision

KIND = "ModelRevision"
MAX_CONTENT = 1_048_576
"""Characters of a content; etcd takes 1.5 MiB of one object."""
FINGERPRINT_PATTERN = r"^sha256:[0-9a-f]{64}$"


def too_large(content: str) -> tuple[str, str] | None:
    """Return (seen, wanted) of a content that no object can hold as JSON text, None for others."""
    size = len(msgspec.json.encode(content)) - 2
    if size <= MAX_CONTENT:
        return None
    wanted = f"at most {MAX_CONTENT:,}: shorten prompts, patterns or calibrations"
    return f"{size:,} bytes when it is compiled", wanted


def fingerprint_of(content: str) -> str:
    """Return what tells a content from one that was cut or edited."""
    return f"sha256:{hashlib.sha256(content.encode(errors='surrogatepass')).hexdigest()}"


def _as_fingerprint(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(FINGERPRINT_PATTERN, value, re.ASCII):
        raise FormError("sha256: and 64 hexadecimal digits")
    return value


Fingerprint = Annotated[
    str,
    BeforeValidator(_as_fingerprint),
    WithJsonSchema({"type": "string", "pattern": FINGERPRINT_PATTERN, "maxLength": 71}),
]


class RevisionOf(Form):
    """The object that this is a revision of, in the same namespace."""

    name: ObjectName
    """Its name."""
    uid: str = Field(min_length=1, max_length=64)
    """Its UID: an object of the same name that was made anew is another one."""


class RevisionSpec(Form):
    """One revision of a route's behaviour, or of what a backend runs. It never changes."""

    kind: Literal["Route", "Backend"]
    """Whether it is of a ModelRoute or of a ModelBackend."""
    of: RevisionOf
    """The object that this is a revision of, in the same namespace."""
    revision: Label
    """The revision's name, given once; the object's name too."""
    content: str = Field(min_length=2, max_length=MAX_CONTENT)
    """Canonical JSON. Of a Route: its compiled behaviour, with prompts, calibrations and facts of
    backends. Of a Backend: its resolved spec and the rendered pod template."""
    fingerprint: Fingerprint
    """SHA-256 of the content."""


class BackendContent(msgspec.Struct, frozen=True, kw_only=True):
    """What a revision of a backend holds: enough to make its pods again after any edit."""

    spec: dict[str, Any]
    pod_template: dict[str, Any]


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """A `RevisionRecord` without its revision, which is the spec."""

    outcome: Outcome
    since_s: float
    attempt: int = 0
    reason: str = ""
    promoted_s: float | None = None
    tripped: int = 0
    rollback: Rollback | None = None


def revision_object(
    *, kind: Literal["Route", "Backend"], name: str, namespace: str, of: RevisionOf, content: str
) -> dict[str, Any]:
    """Return the ModelRevision to be written, without a status and without owners.

    Raises ValueError for what the API server would refuse, such as content beyond MAX_CONTENT.
    """
    spec = RevisionSpec(
        kind=kind, of=of, revision=name, content=content, fingerprint=fingerprint_of(content)
    )
    return {
        "apiVersion": GROUP_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec.model_dump(mode="json", by_alias=True),
    }


def read_revision(obj: Mapping[str, Any]) -> RevisionSpec | Problem:
    """Return the spec of a ModelRevision object, or why it must not be used."""
    try:
        spec = RevisionSpec.model_validate(obj.get("spec"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = path_of(("spec", *first["loc"]))
        return _problem(obj, field, first["msg"], "a revision as Weir wrote it")
    if spec.fingerprint != fingerprint_of(spec.content):
        seen = "content of another fingerprint"
        return _problem(obj, "spec.content", seen, "the content that was written")
    return spec


def backend_content(content: BackendContent) -> str:
    """Return the text of a backend's revision, equal for equal content."""
    return canonical(msgspec.to_builtins(content))


def backend_of(spec: RevisionSpec) -> BackendContent:
    """Return what a backend's revision holds. Raises msgspec.DecodeError on other text."""
    return msgspec.json.decode(spec.content, type=BackendContent)


def record_of(obj: Mapping[str, Any]) -> RevisionRecord | Problem:
    """Return a route's revision and what became of it, or why that cannot be read.

    Without a status it was written just before a crash: nobody has decided anything about it.
    Where only the fields for people are left, a rolled-back one stays rolled back.
    """
    spec = read_revision(obj)
    if isinstance(spec, Problem):
        return spec
    told = obj.get("status") or {}
    try:
        revision = Revision(
            name=spec.revision, behaviour=behaviour_of(spec.content), content=spec.content
        )
    except msgspec.DecodeError as error:
        return _problem(obj, "spec.content", str(error), "the behaviour of a route")
    try:
        record = msgspec.json.decode(told.get("record", ""), type=_Record)
    except (msgspec.DecodeError, TypeError, UnicodeEncodeError):
        record = _bare(told)
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    return RevisionRecord(revision=revision, **fields)


def record_status(record: RevisionRecord) -> dict[str, Any]:
    """Return the status of a route's revision: fields for people, and all of it as `record`."""
    kept = _Record(**{name: getattr(record, name) for name in _Record.__struct_fields__})
    why = record.rollback
    status: dict[str, Any] = {
        "outcome": record.outcome,
        "attempt": record.attempt,
        "reason": record.reason,
        "transitionTime": instant(record.since_s),
        "record": msgspec.json.encode(kept).decode(),
    }
    if record.promoted_s is not None:
        status["promotionTime"] = instant(record.promoted_s)
    if record.tripped:
        status["tripped"] = record.tripped
    return status | (_shown(why) if why and record.outcome == "RolledBack" else {})


def _shown(why: Rollback) -> dict[str, Any]:
    """Return what people want to know of a rollback; trips without a test have no evidence."""
    judged = bool(why.threshold)
    return {
        "suspect": why.suspect,
        "eValue": e_value(why.log_e) if judged else "",
        "logE": f"{why.log_e:.6g}" if judged else "",
        "weight": percent(why.weight_bp),
        "requests": why.requests,
        "canaryRequests": why.canary_requests,
        "badServed": why.bad_served,
        "decidedBy": why.decided_by,
    }


def _bare(told: Mapping[str, Any]) -> _Record:
    """Return what the fields for people say; anything unclear is an attempt that gave way."""
    attempt = told.get("attempt")
    attempt = attempt if isinstance(attempt, int) and attempt > 0 else 0
    if told.get("outcome") != "RolledBack":
        return _Record(outcome="Superseded", since_s=0.0, attempt=attempt)
    reason = told.get("reason")
    return _Record(
        outcome="RolledBack",
        since_s=0.0,
        attempt=max(attempt, 1),
        tripped=max(attempt, 1),
        reason=reason if isinstance(reason, str) else "",
    )


def _problem(obj: Mapping[str, Any], field: str, seen: str, wanted: str) -> Problem:
    return Problem(object=title_of_object(obj), field=field, seen=seen, wanted=wanted)
