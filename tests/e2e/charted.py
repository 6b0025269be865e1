"""The chart with other values than the tests' own, and what can be asked of what it made."""

import copy
from typing import Any

from e2e.cluster import Cluster, ClusterError, wait_for
from e2e.faults import ROUTERS, name_of, pods
from e2e.weir import SYSTEM, VALUES, Thing

RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
_ACCOUNT = f"system:serviceaccount:{SYSTEM}:weir-operator"


def changed(**values: Any) -> Thing:
    """Return the tests' values with changes."""
    return {**copy.deepcopy(VALUES), **values}


def with_router(**values: Any) -> Thing:
    """Return the tests' values with changes of the routers'."""
    return changed(router={**VALUES["router"], **values})


def hearing(cluster: Cluster, namespace: str) -> list[str]:
    """Return the routers that hear the operator, as they say themselves."""
    found = []
    for name in map(name_of, pods(cluster, namespace, ROUTERS)):
        path = f"/api/v1/namespaces/{namespace}/pods/{name}:8081/proxy/metrics"
        if "\nweir_feed_connected 1.0\n" in cluster.kubectl("get", "--raw", path):
            found.append(name)
    return found


def heard(cluster: Cluster, namespace: str, *, limit_s: float = 30) -> None:
    """Wait until both routers hear the operator."""
    wait_for(lambda: len(hearing(cluster, namespace)) == 2, limit_s, "routers to hear the operator")


def may(cluster: Cluster, verb: str, resource: str, *where: str) -> bool:
    """Whether the operator's account may do something, as the API server says."""
    try:
        said = cluster.kubectl("auth", "can-i", verb, resource, "--as", _ACCOUNT, *where)
    except ClusterError as error:
        if str(error).endswith("failed: no"):
            return False
        raise
    return said.strip() == "yes"


def refused_calls(cluster: Cluster) -> list[str]:
    """Return the operator's calls that its role forbade, as it counted them."""
    path = f"/api/v1/namespaces/{SYSTEM}/services/weir-operator:metrics/proxy/metrics"
    lines = cluster.kubectl("get", "--raw", path).splitlines()
    assert any(line.startswith("weir_operator_api_calls_total{") for line in lines)
    return [line for line in lines if 'code="403"' in line]
