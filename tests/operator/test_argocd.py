"""What Argo CD, by the script of hack/argocd and a Lua if there is one, and kstatus make of it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from support.rollouts import Course, baking, rolled_back, started
from support.routes import behaviour
from weir_core.backend_status import BackendSeen, IdentitySeen, backend_status
from weir_core.errors import Problem
from weir_core.reach import LOADING, NOT_READY, backends_of
from weir_core.reasons import FOREIGN_OBJECT, NO_ROUTERS, NOT_APPLIED
from weir_core.revision_spec import record_status
from weir_core.snapshot import Revision
from weir_core.status import Observed, route_status

SCRIPT = Path(__file__).parents[2] / "hack" / "argocd" / "health.lua"
LUA = shutil.which("lua5.1") or shutil.which("lua") or ""
needs_lua = pytest.mark.skipif(not LUA, reason="no lua on this machine")


def lua(value):
    """Return JSON data as a Lua expression."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{lua(name)}] = {lua(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "{" + ", ".join(map(lua, value)) + "}"
    if isinstance(value, str):
        return '"' + "".join(f"\\{byte:03d}" for byte in value.encode()) + '"'
    if value is None or isinstance(value, bool):
        return {None: "nil", True: "true", False: "false"}[value]
    return repr(value)


def health(status, *, generation=1, **more):
    """Return what the script says of an object with this status."""
    obj = {"metadata": {"generation": generation}, "status": status, **more}
    text = f"obj = {lua(obj)}\nlocal hs = dofile({lua(str(SCRIPT))})\nprint(hs.status)"
    done = subprocess.run([LUA, "-"], input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def route(course, **told):
    obeyed = {"routers": 2, "routers_serving": 2, "routers_in_sync": 2}
    told = {"policy": course.policy, "generation": 1} | obeyed | told
    return route_status(course.state, Observed(**told), now_s=course.now_s)


def healthy():
    course = Course()
    course.tell()
    return course


def answered():
    """Return a route of two tiers that serves."""
    course = Course()
    course.tell(target=Revision(name="a-1", behaviour=behaviour(), content="a"))
    return course


def paused():
    course = started()
    course.order("pause")
    course.tell()
    return course


def problem(condition, reason="R"):
    return Problem(object="o", field="f", seen="s", wanted="w", reason=reason, condition=condition)


def foreign(condition):
    return problem(condition, FOREIGN_OBJECT)


def out(why):
    """Return every backend of `answered` as out, for one reason."""
    return {one.identity: why for _, one in backends_of(behaviour())}


ROUTES = {
    "one revision serves everything": (route(healthy()), "Healthy"),
    "a canary is under way": (route(started()), "Progressing"),
    "a canary bakes": (route(baking()), "Progressing"),
    "people paused it": (route(paused()), "Suspended"),
    "the change was rolled back": (route(rolled_back()), "Degraded"),
    "the spec is wrong": (route(healthy(), problems=(problem("Accepted"),)), "Degraded"),
    "a backend is missing": (route(healthy(), problems=(problem("ResolvedRefs"),)), "Degraded"),
    "every backend is out": (route(answered(), ejected=out("Connect")), "Degraded"),
    "the models load": (route(answered(), ejected=out(LOADING)), "Progressing"),
    "no server answers any more": (route(answered(), ejected=out(NOT_READY)), "Degraded"),
    "somebody else's object is in the way": (
        route(healthy(), problems=(problem("Programmed", NO_ROUTERS), foreign("Programmed"))),
        "Degraded",
    ),
    "an object fails for a while": (
        route(healthy(), problems=(problem("Programmed", NOT_APPLIED),)),
        "Progressing",
    ),
    "a router does not obey yet": (route(healthy(), routers_in_sync=1), "Progressing"),
    "no router is ready": (
        route(healthy(), routers=0, routers_serving=0, routers_in_sync=0),
        "Progressing",
    ),
    "the spec was not seen yet": (route(healthy(), generation=0), "Progressing"),
    "nothing was told yet": ({}, "Progressing"),
}


@needs_lua
@pytest.mark.parametrize("case", ROUTES)
def test_route(case):
    status, wanted = ROUTES[case]
    assert health(status) == wanted


def backend(**told):
    return backend_status(BackendSeen(generation=1, **told), now_s=0)


def identity(**told):
    return IdentitySeen(name="small-1", newest=True, routes=("a",), **told)


BACKENDS = {
    "somebody else runs it": (backend(external=True), "Healthy"),
    "all replicas are ready": (
        backend(identities=(identity(wanted=2, ready=2),), promoted=("a",)),
        "Healthy",
    ),
    "a replica is missing": (backend(identities=(identity(wanted=2, ready=1),)), "Progressing"),
    "it is scaled to zero": (backend(identities=(identity(wanted=0),)), "Suspended"),
    "a route rolled it back": (
        backend(identities=(identity(wanted=1, ready=1),), rolled_back=("a",)),
        "Degraded",
    ),
    "it found no room": (
        backend(identities=(identity(wanted=1, reason="NoCapacity", message="no room"),)),
        "Degraded",
    ),
    "somebody else's object is in the way": (
        backend(identities=(identity(wanted=1),), problems=(foreign("WorkloadReady"),)),
        "Degraded",
    ),
    "an edit waits for its server to end": (
        backend(
            identities=(identity(wanted=1, ready=1),),
            problems=(replace(problem("WorkloadReady"), reason="EditDeferred"),),
        ),
        "Healthy",
    ),
    "the spec is wrong": (backend(problems=(problem("Accepted"),)), "Degraded"),
}


@needs_lua
@pytest.mark.parametrize("case", BACKENDS)
def test_backend(case):
    status, wanted = BACKENDS[case]
    assert health(status) == wanted


def revision(outcome):
    course = rolled_back() if outcome == "RolledBack" else started()
    found = (record for record in course.state.records if record.outcome == outcome)
    return record_status(next(found))


REVISIONS = {
    "its canary is under way": ("Route", revision("Canary"), "Progressing"),
    "it serves": ("Route", revision("Stable"), "Healthy"),
    "it was rolled back": ("Route", revision("RolledBack"), "Degraded"),
    "nothing became of it yet": ("Route", {}, "Progressing"),
    "it is of a backend": ("Backend", {}, "Healthy"),
}


@needs_lua
@pytest.mark.parametrize("case", REVISIONS)
def test_revision(case):
    kind, status, wanted = REVISIONS[case]
    assert health(status, kind="ModelRevision", spec={"kind": kind}) == wanted


# kstatus, which Flux and others go by.


def kstatus(status, *, generation=1):
    """Return what kstatus makes of an object that it knows nothing of (its GetStandardConditions).

    Its rules for kinds of others: generation first, then Stalled, Reconciling, Ready.
    """
    if status.get("observedGeneration", 0) != generation:
        return "InProgress"
    truths = {one["type"]: one["status"] for one in status["conditions"]}
    if truths.get("Stalled") == "True":
        return "Failed"
    if truths.get("Reconciling") == "True" or truths.get("Ready") != "True":
        return "InProgress"
    return "Current"


SAME = {
    "Healthy": "Current",
    "Degraded": "Failed",
    "Progressing": "InProgress",
    "Suspended": "InProgress",
}


@pytest.mark.parametrize("case", [case for case in ROUTES if ROUTES[case][0]])
def test_kstatus_of_a_route_says_the_same(case):
    status, wanted = ROUTES[case]
    assert kstatus(status) == SAME[wanted]


@pytest.mark.parametrize("case", BACKENDS)
def test_kstatus_of_a_backend_says_the_same(case):
    status, wanted = BACKENDS[case]
    assert kstatus(status) == SAME[wanted]
