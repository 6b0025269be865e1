"""Everything the operator can be told, from its environment. The chart writes all of it."""

import os
from collections.abc import Mapping

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one operator process.

    `namespaces` are those it serves, () for the whole cluster. `identity` names this process in
    the Lease. `max_routers` is the most routers a namespace can have at once, which the routers'
    own share of α is divided by.
    """

    namespace: str
    identity: str
    namespaces: tuple[str, ...] = ()
    router: Mapping[str, object] = {}
    """What `weir_operator.routers.RouterSettings` is made of."""
    workloads: Mapping[str, object] = {}
    """What `weir_operator.workloads.WorkloadSettings` is made of."""
    server_names: tuple[str, ...] = ()
    """DNS names that routers call the feed by."""
    lease: str = "weir-operator"
    log_level: str = "INFO"
    feed_port: int = 8443
    metrics_port: int = 8081
    health_port: int = 8082
    max_routers: int = 10


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. Raises ValueError that names the variable, what it is and should be."""
    namespace = environ.get("WEIR_OPERATOR_NAMESPACE", "")
    identity = environ.get("WEIR_POD_NAME", "")
    for name, value in (("WEIR_OPERATOR_NAMESPACE", namespace), ("WEIR_POD_NAME", identity)):
        if not value:
            raise ValueError(f"{name}: saw nothing, wanted the pod's own (fieldRef)")
    return Settings(
        namespace=namespace,
        identity=identity,
        namespaces=tuple(filter(None, environ.get("WEIR_NAMESPACES", "").split(","))),
        router=_object(environ, "WEIR_ROUTER"),
        workloads=_object(environ, "WEIR_WORKLOADS"),
        server_names=tuple(filter(None, environ.get("WEIR_SERVER_NAMES", "").split(",")))
        or (f"weir-operator.{namespace}.svc",),
        log_level=environ.get("WEIR_LOG_LEVEL", "INFO").upper(),
        max_routers=_number(environ, "WEIR_MAX_ROUTERS", 10),
        feed_port=_number(environ, "WEIR_FEED_PORT", 8443),
        metrics_port=_number(environ, "WEIR_METRICS_PORT", 8081),
        health_port=_number(environ, "WEIR_HEALTH_PORT", 8082),
    )


def _object(environ: Mapping[str, str], name: str) -> dict[str, object]:
    try:
        return msgspec.json.decode(environ.get(name) or "{}", type=dict[str, object])
    except msgspec.DecodeError as error:
        raise ValueError(f"{name}: saw {error}, wanted a JSON object") from error


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    if not text.isdigit() or not 0 < int(text) < 65_536:
        raise ValueError(f"{name}: saw {text!r}, wanted a whole number from 1 to 65535")
    return int(text)
