"""Keys of hosted models: a Secret that may come later than the route that needs it."""

from e2e.cluster import Cluster
from e2e.devices import external, route, told

LIMIT_S = 150.0
"""Until the kubelet has a Secret that came late in the routers' pods."""


def test_a_hosted_model_waits_for_its_key(weir: Cluster, namespace: str) -> None:
    hosted = external("hosted")
    hosted["spec"]["external"]["apiKeyRef"] = {"key": "hosted-key"}
    weir.apply(hosted, route(to="hosted"), namespace=namespace)
    found = told(weir, namespace, "mroute/assistant", "Ready", "NoHealthyBackend")
    assert "no key 'hosted-key' in Secret weir-router-keys" in found["message"]
    given = "--from-literal=hosted-key=s3cret"
    weir.kubectl(
        *("create", "secret", "generic", "weir-router-keys", given, "--namespace", namespace)
    )
    with weir.timed("Secret with a hosted model's key until Ready"):
        weir.wait("mroute/assistant", "Ready", namespace=namespace, limit_s=LIMIT_S)
