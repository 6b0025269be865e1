"""A namespace's snapshot, packed within what one ConfigMap takes: what is too large is left out.

The feed has no such bound, so routers that hear the operator obey all of it. Pure.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from weir_core import reasons
from weir_core.errors import Problem
from weir_core.wire import Packed, pack


def fitting(packed: Packed, most: int) -> tuple[bytes, Mapping[str, int]]:
    """Return as much of a snapshot as packs into `most` bytes, and the packed size of the rest.

    The largest routes are left out first, by key "ns/name".
    """
    data = pack(packed)
    if len(data) <= most:
        return data, {}
    sizes = {key: len(pack(Packed(routes={key: one}))) for key, one in packed.routes.items()}
    largest = sorted(sizes, key=lambda key: (-sizes[key], key))
    left_out: dict[str, int] = {}
    while len(data) > most and largest:
        excess = len(data) - most
        while excess > 0 and largest:
            key = largest.pop(0)
            left_out[key] = sizes[key]
            excess -= sizes[key]
        kept = {key: one for key, one in packed.routes.items() if key not in left_out}
        data = pack(replace(packed, routes=kept))
    return data, left_out


def too_large(key: str, size: int, most: int) -> Problem:
    """Return what is wrong with a route that the snapshot has no room for."""
    return Problem(
        object=f"ModelRoute {key}",
        field="",
        seen=f"{size:,} packed bytes, for which the routers' snapshot has no room",
        wanted=f"at most {most:,} bytes of all routes together: shorten its prompts, or move it to "
        "another namespace; until then only routers that hear the operator know it",
        reason=reasons.SNAPSHOT_TOO_LARGE,
        condition="Programmed",
    )
