"""What happens to a ring at random: what people do, and what goes wrong."""

import asyncio
import random
import time
from collections.abc import Callable

from support.chance import ROUTE, Act, Ring
from support.chance_parts import Operator
from support.objects import backend
from support.walking import SPACE
from weir_operator.leader import EPOCH_S

LEASE = ("Lease", "weir", "weir-operator")


async def edit(ring: Ring) -> None:
    ring.people.write(ring.route())


async def command(ring: Ring) -> None:
    obj = ring.objects.get(ROUTE)
    about = ring.state.get("canary") or ring.state.get("stable")
    if obj is None or not about:
        return
    verb = ring.chance.choice(["promote", "abort", "pause", "resume", "retry"])
    text = {"inference.weir.dev/command": f"{verb}@{about}#{time.time():.3f}"}
    ring.people.write({**obj, "metadata": {**obj["metadata"], "annotations": text}})


async def make_anew(ring: Ring) -> None:
    ring.people.drop("ModelRoute", "assistant")
    await asyncio.sleep(ring.chance.choice([0.0, 0.3, 5.0]))
    ring.people.write(ring.route())
    ring.state = {}


async def lose_status(ring: Ring) -> None:
    """Lose the route's status, or every status, as a restore does."""
    kinds = ring.chance.choice([("ModelRoute",), ("ModelRoute", "ModelRevision")])
    for obj in [one for kind in kinds for one in ring.people.of(kind)]:
        ring.people._put({key: value for key, value in obj.items() if key != "status"})


async def lose_owners(ring: Ring) -> None:
    for obj in ring.people.of("ModelRevision"):
        meta = {key: value for key, value in obj["metadata"].items() if key != "ownerReferences"}
        ring.people._put({**obj, "metadata": meta})


async def lose_something(ring: Ring) -> None:
    kept = {name for name, _ in ring.dead}
    lost = [
        ("ConfigMap", "weir-router-snapshot", SPACE),
        ("ModelBackend", "small", SPACE),
    ]
    found = [one["metadata"]["name"] for one in ring.people.of("ModelRevision")]
    lost += [("ModelRevision", name, SPACE) for name in sorted(set(found) - kept)]
    lease = ring.objects.get(LEASE)
    # Terms count seconds: of a lead that began just now nobody else may know its term yet.
    if lease and lease["spec"]["leaseTransitions"] < time.time() - EPOCH_S - 1:
        lost.append(("Lease", "weir-operator", "weir"))
    ring.people.drop(*ring.chance.choice(lost))


async def name_nobody(ring: Ring) -> None:
    wrong = ring.route()
    wrong["spec"]["behaviour"]["tiers"][0]["backendRef"]["name"] = "nobody"
    ring.people.write(wrong)


async def make_backend(ring: Ring) -> None:
    ring.people.write(backend())


async def kill(ring: Ring) -> None:
    if ring.operators:
        operator = ring.chance.choice(ring.operators)
        ring.operators.remove(operator)
        await operator.kill()


async def another(ring: Ring) -> None:
    if len(ring.operators) < 2:
        ring.operators.append(Operator(ring))


def fail(chance: random.Random, operator: Operator) -> None:
    codes = chance.choice([(0, 409), (0, 0, 500), (403,), (422, 0), (409, 500, 0, 0)])
    what = chance.choice(["", "apply status", "create", "get", "replace"])
    operator.view.fails = lambda verb, *_: chance.choice(codes) * verb.startswith(what)


def hang(chance: random.Random, operator: Operator) -> None:
    what = chance.choice(["", "apply", "apply status", "create", "replace"])
    end_s = time.monotonic() + chance.uniform(0.5, 30)

    def hangs(verb: str, *_: str) -> bool:
        return verb.startswith(what) and time.monotonic() < end_s

    if chance.random() < 0.5:
        operator.view.waits = hangs
    else:
        operator.view.mute = hangs


def lose_answers(chance: random.Random, operator: Operator) -> None:
    operator.view.loses = lambda: chance.random() < 0.5


def lag(chance: random.Random, operator: Operator) -> None:
    if operator.watch is not None:
        operator.watch.lag_s = chance.choice([0.0, 0.2, 2.0, 10.0])


def freeze(chance: random.Random, operator: Operator) -> None:
    operator.frozen_s += chance.uniform(1, 30)


def part(chance: random.Random, operator: Operator) -> None:
    """Let it reach neither the API server nor a router."""
    end_s = time.monotonic() + chance.uniform(3, 40)
    operator.view.waits = lambda *call: time.monotonic() < end_s
    for router in list(operator.streams.joined.values()) if operator.streams else ():
        router.leave()


def at_one(fault: Callable[[random.Random, Operator], None]) -> Act:
    """Return what happens to one operator, if there is any."""

    async def happens(ring: Ring) -> None:
        if ring.operators:
            fault(ring.chance, ring.chance.choice(ring.operators))

    return happens


async def cut(ring: Ring) -> None:
    router = ring.chance.choice(ring.routers)
    router.leave()
    router.cut_until_s = time.monotonic() + ring.chance.uniform(1, 40)


async def restart(ring: Ring) -> None:
    """A router's container ends, and its next one may mount a snapshot that is old."""
    router = ring.chance.choice(ring.routers)
    router.restart()
    if ring.snapshots and ring.chance.random() < 0.7:
        router.mount(ring.chance.choice(ring.snapshots[-10:]))


async def replace_pod(ring: Ring) -> None:
    router = ring.chance.choice(ring.routers)
    router.leave()
    ring.routers.remove(router)
    ring.people.drop("Pod", router.uid)
    ring.add_router()


async def heal(ring: Ring) -> None:
    ring.heal()


PEOPLE: tuple[Act, ...] = (edit, command) * 6
LOSSES: tuple[Act, ...] = (
    make_anew,
    lose_status,
    lose_owners,
    lose_something,
    name_nobody,
    make_backend,
)
OPERATORS: tuple[Act, ...] = (
    kill,
    another,
    *map(at_one, (fail, hang, lose_answers, lag, freeze, part)),
)
ROUTERS: tuple[Act, ...] = (cut, restart, replace_pod)
EVERYTHING = (*PEOPLE, *LOSSES, *OPERATORS, *ROUTERS, heal, heal, heal)
