"""What a router cannot obey, told before it is obeyed."""

from typing import Any

import msgspec
import pytest

from support.routes import LARGE, SMALL, behaviour, policy
from weir_core.snapshot import (
    Calibration,
    Check,
    Monitoring,
    Revision,
    RoutePolicy,
    Rule,
    Tier,
)
from weir_router.trial import problem


def stable(**changes: Any) -> RoutePolicy:
    return policy(stable=Revision(name="r-1", behaviour=behaviour(**changes), content="r-1"))


def checked(check: Check) -> RoutePolicy:
    return stable(tiers=(Tier(name="small", backend=SMALL, accept=(check,)),))


def reached(url: str) -> RoutePolicy:
    return stable(tiers=(Tier(name="small", backend=msgspec.structs.replace(SMALL, url=url)),))


STRANGE = Calibration(method="Logprob", features=(("mood", 1.0),), intercept=0.0, digest="d")
BAD: list[Any] = [
    pytest.param(stable(tiers=()), "tiers: saw none", id="no tier"),
    pytest.param(
        stable(rules=(Rule(name="r", when="true", start=0, end=7),)), "0 to 7", id="a rule too far"
    ),
    pytest.param(
        stable(rules=(Rule(name="r", when="prompt_tokens <", start=0, end=1),)),
        "",
        id="a rule that is no CEL",
    ),
    pytest.param(checked(Check(name="p", type="Pattern", must_match="(")), "", id="no pattern"),
    pytest.param(
        policy(monitoring=Monitoring(monitors=(Check(name="p", type="Pattern", must_match="("),))),
        "",
        id="no pattern in a monitor",
    ),
    pytest.param(
        checked(Check(name="c", type="Confidence", calibration=STRANGE)), "mood", id="no feature"
    ),
    pytest.param(reached("ftp://somewhere"), "ftp://somewhere", id="no URL to call"),
    pytest.param(policy(weight_bp=10_001), "10001", id="a weight over all"),
]


@pytest.mark.parametrize(("bad", "words"), BAD)
def test_told(bad: RoutePolicy, words: str) -> None:
    told = problem(bad)

    assert told
    assert words in told


def test_a_good_route_has_no_problem() -> None:
    good = policy(
        canary=Revision(
            name="r-2",
            behaviour=behaviour(
                rules=(Rule(name="r", when="risk == 'legal'", start=1, end=1),),
                fallback=(LARGE,),
            ),
            content="r-2",
        ),
        attempt=1,
        weight_bp=10_000,
    )

    assert problem(good) == ""
