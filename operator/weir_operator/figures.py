"""What a namespace's walk shows in metrics, by name; `telemetry` hands it out. Pure."""

from collections.abc import Mapping, Sequence

from weir_operator.backends import Identity, devices
from weir_operator.gather import World
from weir_operator.memory import RouteMemory

FIGURES = {
    "weir_operator_routes": "Routes that are there",
    "weir_operator_routers_connected": "Routers with an open stream",
    "weir_operator_canaries": "Routes with a canary under way",
    "weir_operator_routers_out_of_sync": "Ready routers that do not obey the latest of some route",
    "weir_operator_trips_unpersisted": "Trips of routers that no status tells yet",
    "weir_operator_identities": "Model servers kept",
    "weir_operator_identity_devices": "Accelerators that kept model servers ask for",
}


def kept(wanted: Sequence[Identity]) -> dict[str, float]:
    """Return the gauges of what a namespace's model servers hold."""
    return {
        "weir_operator_identities": len(wanted),
        "weir_operator_identity_devices": sum(map(devices, wanted)),
    }


def heard(
    world: World, memories: Mapping[str, RouteMemory], *, out_of_sync: int
) -> dict[str, float]:
    """Return the gauges of what routers of a namespace say and what became of it."""
    told = {(t.route_uid, t.revision, t.attempt) for r in world.connected for t in r.report.trips}
    live = {
        (world.routes[name]["metadata"]["uid"], memory.state.canary, memory.state.attempt)
        for name, memory in memories.items()
        if memory.saved is not None and memory.saved.live
    }
    return {
        "weir_operator_routes": len(world.routes),
        "weir_operator_routers_connected": sum(one.alive for one in world.connected),
        "weir_operator_canaries": sum(m.state.live for m in memories.values()),
        "weir_operator_routers_out_of_sync": out_of_sync,
        "weir_operator_trips_unpersisted": len(told & live),
    }
