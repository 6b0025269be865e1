"""A namespace as the operator sees it, without a cluster: objects, routers, a walk's thinking."""

import copy

from support.objects import route, vllm
from weir_core.evidence import Trip
from weir_core.revision_spec import record_status
from weir_core.wire import Report
from weir_operator.cache import Cache
from weir_operator.gather import gather
from weir_operator.inbox import Connected
from weir_operator.memory import labels_of, stored
from weir_operator.revisions import route_revision
from weir_operator.think import Thinker

NOW = 1_700_000_000.0
SPACE = "default"


def live(obj, *, generation=1, version=1, **status):
    """Return an object as the API server shows it."""
    made = copy.deepcopy(obj)
    name = f"{made['kind']}-{made['metadata']['name']}"
    made["metadata"] |= {
        "namespace": SPACE,
        "uid": f"uid-{name}",
        "generation": generation,
        "resourceVersion": str(version),
    }
    return made | ({"status": status} if status else {})


ROUTERS = {"kind": "ReplicaSet", "apiVersion": "apps/v1", "name": "weir-router-5d8f9c7b6"}
"""What controls the pods of a router Deployment."""


def router_pod(uid="r1", *, account="weir-router", **meta):
    """Return a ready pod of the router Deployment; `meta` is of one that is none."""
    owners = [{**ROUTERS, "uid": "uid-of-owner", "controller": True}]
    labels = {"inference.weir.dev/router": "deployment"}
    return live(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": uid, "labels": labels, "ownerReferences": owners, **meta},
            "spec": {"serviceAccountName": account},
        },
        conditions=[{"type": "Ready", "status": "True"}],
    )


def deployment(name, *, ready=1, replicas=1):
    obj = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas},
    }
    return live(obj, readyReplicas=ready)


class Space:
    """One namespace through its walks. Nothing is written but what `keep` writes."""

    def __init__(self):
        self.cache = Cache()
        self.thinker = Thinker(max_routers=10)
        self.version = 1
        self.term = 0
        self.reports = {}
        self.put(router_pod())

    def put(self, obj):
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.cache.put(obj)

    def write(self, *objects, generation=1):
        for obj in objects:
            self.put(live(obj, generation=generation))

    def world(self):
        connected = [
            Connected(
                pod_uid=uid,
                pod_name=uid,
                sidecar=False,
                report=report,
                seen_s=NOW,
                alive=True,
            )
            for uid, report in self.reports.items()
        ]
        return gather(self.cache, SPACE, config_maps=[], connected=connected)

    def think(self, name="assistant", now_s=NOW):
        world = self.world()
        self.thinker.remember(world)
        compiled = self.thinker.compiled(world)
        return self.thinker.think(world, compiled, name, now_s=now_s)

    def walk(self, name="assistant", now_s=NOW):
        """Think, and take it as published and obeyed by the one router."""
        thought = self.think(name, now_s)
        memory = self.thinker.memories[name]
        memory.state = thought.state
        memory.resuming = False
        self.term += 1
        if thought.policy is not None:
            memory.told(thought.policy, (1, self.term))
        self.report(acks={f"{SPACE}/{name}": memory.version})
        return thought, thought.order

    def report(self, uid="uid-Pod-r1", **fields):
        known = self.reports.get(uid)
        merged = {
            "start": 1,
            "as_of_s": NOW,
            "acks": known.acks if known else {},
            "tallies": known.tallies if known else (),
            **fields,
        }
        self.reports[uid] = Report(**merged)

    def keep(self, name="assistant", *, status=True, uid=None):
        """Write what a walk writes: ModelRevisions, and the status unless it is to be lost."""
        obj = self.cache.get("ModelRoute", SPACE, name)
        memory = self.thinker.memories[name]
        for record in memory.state.records:
            made = route_revision(obj, name=record.revision.name, content=record.revision.content)
            made["metadata"]["labels"] |= labels_of(record)
            self.put(live(made) | ({"status": record_status(record)} if status else {}))
        if status:
            obj = {**obj, "status": {"rollout": stored(memory, memory.state)}}
            self.put(copy.deepcopy(obj))

    def restart(self):
        """Forget everything that is not written."""
        self.thinker = Thinker(max_routers=10)


def serving():
    """Return a space whose route serves its first revision from one ready replica."""
    space = Space()
    space.write(vllm(), route())
    first, _ = space.walk()
    (backend,) = {tier.backend.identity for tier in first.policy.stable.behaviour.tiers}
    space.put(deployment(backend))
    space.walk()
    return space


def edited(space, **fields):
    """Change the backend's image, which makes a new identity; return the thought and its name."""
    space.write(vllm(**{"image": "vllm:2", **fields}), generation=2)
    thought, _ = space.walk()
    (backend,) = {tier.backend.identity for tier in thought.policy.canary.behaviour.tiers}
    return thought, backend


def trip(policy, *, at_s=NOW):
    """Return a trip of a router's brake."""
    return Trip(
        route_uid=policy.uid,
        revision=policy.canary.name,
        attempt=policy.attempt,
        decided_by="router/r1",
        reason="Harm",
        suspect="errors",
        log_e=9.0,
        at_s=at_s,
    )
