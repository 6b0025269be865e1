"""Who can be answered while backends are out."""

import pytest

from support.rollouts import Course, started
from support.routes import LARGE, SMALL, SPARE, behaviour
from weir_core.reach import gaps, outage
from weir_core.rollout import Command
from weir_core.snapshot import Revision, Tier

ALONE = (Tier(name="only", backend=SPARE),)
OUT = dict.fromkeys((SMALL.identity, LARGE.identity), "Connect")


def serving(*, canary_tiers=None, full=False, **changes):
    """A route of small and large; with a canary it stands at 5 %, in the bake at 90 %."""
    course = Course(bake_ms=3_600_000)
    course.tell(target=Revision(name="r-0000000001", behaviour=behaviour(**changes), content="1"))
    if canary_tiers:
        canary = Revision(name="r-0000000002", behaviour=behaviour(tiers=canary_tiers), content="2")
        course.tell(target=canary)
    if full:
        course.tell(
            command=Command(verb="promote", revision="r-0000000002", issued_s=1_002, full=True)
        )
    return course.state


def test_all_backends_out_is_an_outage():
    assert outage(serving(), OUT) == (
        "no healthy backend: tier small (small: Connect), tier large (large: Connect)"
    )


@pytest.mark.parametrize(
    ("state", "ejected"),
    [
        (serving(), {}),
        (serving(), {SMALL.identity: "Connect"}),
        (serving(fallback=(SPARE,)), OUT),
        (serving(canary_tiers=ALONE), {SPARE.identity: "Connect"}),
        (serving(canary_tiers=ALONE, full=True), OUT),
        (started().state, OUT),
        (Course().state, OUT),
    ],
    ids=[
        "all well",
        "a tier is left",
        "a fallback is left",
        "a canary's few",
        "stable's few",
        "no tiers",
        "no revision",
    ],
)
def test_while_most_can_be_answered_it_is_none(state, ejected):
    assert outage(state, ejected) == ""


def test_an_outage_of_most_names_whose_requests():
    state = serving(canary_tiers=ALONE, full=True)
    assert outage(state, {SPARE.identity: "Timeout"}) == (
        "no healthy backend for r-0000000002's 90% of the requests: tier only (spare: Timeout)"
    )


def test_parts_that_are_out_are_named_once():
    state = serving(canary_tiers=(Tier(name="small", backend=SMALL), *ALONE))
    assert gaps(state, {SMALL.identity: "Timeout"}) == "tier small (small: Timeout)"
    assert gaps(state, {}) == ""
