"""Whether an object in the cluster still is what Weir wants, in the fields that Weir sets.

What the API server fills in, and what others add, is none of Weir's business: comparing that
would apply for ever. A field that Weir wanted once and wants no more shows in the digest that
`objects.stamped` leaves. A server-side apply puts right what is found here.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from weir_operator.objects import key_of, keys_of

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
    return _differs("", live, wanted)


def _differs(field: str, live: Any, wanted: Any) -> bool:
    if live is None and _says_nothing(field, wanted):
        return False
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            return True
        if field in _QUANTITIES:
            return any(_amount(live.get(key)) != _amount(one) for key, one in wanted.items())
        return any(_differs(key, live.get(key), one) for key, one in wanted.items())
    if isinstance(wanted, list | tuple):
        return not isinstance(live, list) or _list_differs(field, live, list(wanted))
    if field in _QUANTITY_FIELDS:
        return bool(_amount(live) != _amount(wanted))
    return bool(live != wanted)


def _list_differs(field: str, live: list[Any], wanted: list[Any]) -> bool:
    keys = keys_of(field, [*live, *wanted])
    if keys is None:
        return len(live) != len(wanted) or any(
            _differs("", one, other) for one, other in zip(live, wanted, strict=True)
        )
    found = {key_of(one, keys): one for one in live}
    return any(_differs("", found.get(key_of(one, keys)), one) for one in wanted)


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
