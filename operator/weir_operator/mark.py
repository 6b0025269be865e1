"""The label by which the operator's Service finds the pod that leads.

Only the leader's feed is open, and a pod that waits for its turn is ready all the same: were it
not, no rollout of the operator would ever end. So the Service selects by this label too, and
whoever takes the lead takes it from the one before.
"""

import asyncio
import logging

from weir_operator.kube import Kube, KubeError

LEADS = "inference.weir.dev/leads"
KEPT_S = 30.0
RETRY_S = 2.0
log = logging.getLogger("weir.operator")


async def mark(kube: Kube, namespace: str, pod: str) -> None:
    """Give a pod the label and take it from every other. Raises KubeError."""
    marked, _ = await kube.every("Pod", namespace, f"{LEADS}=true")
    uids = {one["metadata"]["name"]: one["metadata"]["uid"] for one in marked}
    if pod not in uids:
        own = {"name": pod, "namespace": namespace, "labels": {LEADS: "true"}}
        await kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": own})
    for name in sorted(set(uids) - {pod}):
        # An apply without the label takes it away; of a pod that is gone meanwhile it makes none.
        other = {"name": name, "namespace": namespace, "uid": uids[name]}
        await kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": other})


async def keep_marked(kube: Kube, namespace: str, pod: str) -> None:
    """Mark a pod for ever, whoever else touches its labels."""
    while True:
        wait_s = KEPT_S
        try:
            await mark(kube, namespace, pod)
        except KubeError as error:
            log.warning("leader not marked", extra={"error": str(error)})
            wait_s = RETRY_S
        await asyncio.sleep(wait_s)
