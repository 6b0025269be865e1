"""Which backends are out, as the router tells it."""

from pathlib import Path

import pytest
from msgspec.structs import replace

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


def test_a_backend_whose_key_is_missing_is_out_until_it_is_there(tmp_path: Path) -> None:
    told: list[str] = []
    upstreams = Upstreams(Keys(tmp_path, "Secret k"), lambda backend, why: told.append(why))
    hosted = replace(LARGE, key="hosted")
    one = upstreams.get(hosted)
    assert not one.available(0.0)
    assert one.back_in_s(0.0) > 0
    assert upstreams.out() == {hosted.identity: "no key 'hosted' in Secret k"}
    (tmp_path / "hosted").write_text("s3cret\n")
    assert one.available(0.0)
    assert one.headers() == [(b"authorization", b"Bearer s3cret")]
    assert upstreams.out() == {}
    (tmp_path / "hosted").unlink()
    assert not one.available(0.0)
    assert told == ["no key 'hosted'", "", "no key 'hosted'"]


def test_a_backend_that_wants_no_key_is_called_without() -> None:
    one = Upstreams(Keys(None)).get(SMALL)
    assert one.available(0.0)
    assert one.headers() == []
