"""Whether an object in the cluster still is what Weir wants, in the fields that Weir sets.

What the API server fills in, and what others add, is none of Weir's business: comparing that
would apply for ever. A field that Weir wanted once and wants no more shows in the digest that
`objects.stamped` leaves. A server-side apply puts right what is found here.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from weir_core import reasons
from weir_core.resources import title_of_object
from weir_core.rollout_state import Transition
from weir_operator.objects import APPLIED, key_of, keys_of

_BEHAVIOUR = ("command", "args", "env", "envFrom", "volumeMounts", "volumeDevices")
"""Fields of a container that change what it does, all of them lists."""

MAX_FIELDS = 3
"""Told of an object that was changed."""

_QUANTITIES = frozenset({"limits", "requests"})
"""Maps whose values are quantities."""
_QUANTITY_FIELDS = frozenset({"sizeLimit", "divisor"})
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(m|[numkMGTPE]|[KMGTPE]i)?")
_SIZES = {
    **{sign: Decimal(1000) ** power for power, sign in enumerate("num", start=-3)},
    **{sign: Decimal(1000) ** power for power, sign in enumerate("kMGTPE", start=1)},
    **{f"{sign}i": Decimal(1024) ** power for power, sign in enumerate("KMGTPE", start=1)},
}

KEPT_ZEROS = frozenset(
    {
        "allowPrivilegeEscalation",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "maxSurge",
        "maxUnavailable",
        "replicas",
    }
)
"""Fields whose false or 0 the API server keeps: absent they mean something else."""


def drifted(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether an object differs from `wanted` in a field that `wanted` has."""
    return next(_differences("", "", live, wanted), None) is not None


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the paths of all fields in which two objects of Weir's own differ, without order."""
    found = (*_differences("", "", before, now), *_differences("", "", now, before))
    return tuple(dict.fromkeys(path.lstrip(".") for path in found))


def added(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return what somebody added to a Deployment's containers, which an apply does not take out.

    A variable or a command of somebody's would be a change of behaviour without a canary.
    """
    found = []
    for kind in ("containers", "initContainers"):
        ours = {one["name"]: one for one in _pod(wanted).get(kind) or ()}
        for one in _pod(live).get(kind) or ():
            mine = ours.get(one["name"])
            place = f"spec.template.spec.{kind}[{one['name']}]"
            if mine is None:
                found.append(place)
                continue
            found += [
                f"{place}.{f}" for f in _BEHAVIOUR if len(one.get(f) or ()) > len(mine.get(f) or ())
            ]
    return found


def without_additions(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that leaves a Deployment no containers but those that are wanted."""
    pod = _pod(wanted)
    kinds = {kind: pod.get(kind) for kind in ("containers", "initContainers")}
    return {"spec": {"template": {"spec": kinds}}}


def _pod(deployment: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def hand_edit(
    live: Mapping[str, Any], wanted: Mapping[str, Any], *, manager: str
) -> Transition | None:
    """Return what to tell of an object that somebody else changed and that is put back now.

    `manager` is the field manager that Weir writes as. None for an object of which Weir itself
    wants something new.
    """
    stamps = (((one.get("metadata") or {}).get("annotations") or {}) for one in (live, wanted))
    before, now = (one.get(APPLIED) for one in stamps)
    fields = [field.lstrip(".") for field in _differences("", "", live, wanted)]
    if wanted.get("kind") == "Deployment":
        fields += added(live, wanted)
    if before != now or not fields:
        return None
    told = ", ".join(fields[:MAX_FIELDS])
    more = f" and {len(fields) - MAX_FIELDS} more" if len(fields) > MAX_FIELDS else ""
    return Transition(
        reason=reasons.PUT_BACK,
        message=f"{title_of_object(wanted)}: {told}{more} changed{_by(live, manager)}, put back; "
        "edit the ModelBackend, the ModelRoute or the chart's values instead",
        warning=True,
    )


def _by(live: Mapping[str, Any], manager: str) -> str:
    """Return who wrote last beside Weir and the cluster's own controllers, as the server knows."""
    found = [
        (str(one.get("time")), str(one.get("manager")))
        for one in (live.get("metadata") or {}).get("managedFields") or ()
        if one.get("manager") != manager and one.get("subresource") != "status"
    ]
    return f" by {max(found)[1]}" if found else ""


def _differences(path: str, field: str, live: Any, wanted: Any) -> Iterator[str]:
    """Give the path of each field that differs, such as .spec.replicas."""
    if live is None and _says_nothing(field, wanted):
        return
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for key, one in wanted.items():
            if field not in _QUANTITIES:
                yield from _differences(f"{path}.{key}", key, live.get(key), one)
            elif _amount(live.get(key)) != _amount(one):
                yield f"{path}.{key}"
    elif isinstance(wanted, list | tuple) and isinstance(live, list):
        yield from _in_list(path, field, live, list(wanted))
    elif field in _QUANTITY_FIELDS:
        if _amount(live) != _amount(wanted):
            yield path
    elif live != wanted:
        yield path


def _in_list(path: str, field: str, live: list[Any], wanted: list[Any]) -> Iterator[str]:
    keys = keys_of(field, [*live, *wanted])
    if keys is None:
        alike = len(live) == len(wanted) and not any(
            drifted({"": one}, {"": other}) for one, other in zip(live, wanted, strict=True)
        )
        if not alike:
            yield path
        return
    found = {key_of(one, keys): one for one in live}
    for one in wanted:
        key = key_of(one, keys)
        yield from _differences(f"{path}[{','.join(key)}]", "", found.get(key), one)


def _says_nothing(field: str, wanted: Any) -> bool:
    """Whether the API server leaves a value out, since it means what absence means."""
    if isinstance(wanted, Mapping):
        return all(_says_nothing(key, one) for key, one in wanted.items())
    return not wanted and field not in KEPT_ZEROS


def _amount(value: Any) -> Any:
    """Return a quantity as a number, so that 2048Mi is 2Gi and 1 is "1"."""
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        return value
    return Decimal(found[1]) * _SIZES.get(found[2] or "", Decimal(1))
