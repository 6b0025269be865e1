"""Which backends are out, as the router tells it."""

import pytest

from support.routes import LARGE, SMALL
from weir_router.upstreams import EJECT_AFTER, Keys, Upstreams


@pytest.fixture
def upstreams() -> Upstreams:
    made = Upstreams(Keys(None))
    made.keep({one.identity: one for one in (SMALL, LARGE)}, {})
    return made


def fail(upstreams: Upstreams, *causes: str, from_s: float = 100.0) -> None:
    for at, cause in enumerate(causes):
        upstreams.get(SMALL).failed(cause, from_s + at)


def test_a_backend_that_fails_a_little_is_not_out(upstreams: Upstreams) -> None:
    fail(upstreams, *["Connect"] * (EJECT_AFTER - 1))
    assert upstreams.ejected() == ()


def test_an_ejection_tells_the_latest_cause_and_when_it_began(upstreams: Upstreams) -> None:
    fail(upstreams, *["Connect"] * EJECT_AFTER, "Timeout")
    (out,) = upstreams.ejected()
    assert (out.backend, out.cause, out.failures) == (SMALL, "Timeout", EJECT_AFTER + 1)
    assert out.since_s == 100.0 + EJECT_AFTER - 1


def test_a_caller_s_own_fault_is_no_cause(upstreams: Upstreams) -> None:
    fail(upstreams, *["Connect"] * EJECT_AFTER, "Overload")
    (out,) = upstreams.ejected()
    assert (out.cause, out.failures) == ("Connect", EJECT_AFTER)


def test_a_backend_that_answers_is_back(upstreams: Upstreams) -> None:
    fail(upstreams, *["Connect"] * EJECT_AFTER)
    upstreams.get(SMALL).succeeded()
    assert upstreams.ejected() == ()


def test_a_backend_that_nobody_calls_any_more_is_not_told(upstreams: Upstreams) -> None:
    fail(upstreams, *["Connect"] * EJECT_AFTER)
    upstreams.keep({LARGE.identity: LARGE}, {})
    assert upstreams.ejected() == ()
