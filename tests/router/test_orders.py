"""Which version of a route is held, whatever comes in which order."""

import msgspec
import pytest

from support.routes import policy
from weir_core.snapshot import Limits, RoutePolicy
from weir_core.wire import Nack, Packed, Push, Routed
from weir_router.orders import OldTermError, Orders


def orders() -> Orders:
    """Return orders that refuse a policy whose uid is "bad"."""
    return Orders(lambda policy: "cannot be compiled" if policy.uid == "bad" else "")


def routed(term: int, number: int, **changes: object) -> dict[str, Routed]:
    return {"llm/assistant": Routed(version=(term, number), policy=policy(**changes))}


def push(routes: dict[str, Routed], *, term: int = 1, complete: bool = False) -> Push:
    return Push(term=term, complete=complete, routes=routes)


def uid(held: Orders) -> str:
    (one,) = held.policies
    return one.uid


def test_only_a_greater_version_is_taken() -> None:
    held = orders()
    assert held.push(push(routed(1, 5, uid="five"), complete=True))
    for number in (4, 5):
        assert not held.push(push(routed(1, number, uid="other")))
    assert uid(held) == "five"
    assert held.push(push(routed(1, 6, uid="six")))
    assert (uid(held), held.acks) == ("six", {"llm/assistant": (1, 6)})


def test_a_later_term_counts_more_than_any_number() -> None:
    held = orders()
    held.push(push(routed(1, 99, uid="old"), complete=True))
    held.push(push(routed(2, 1, uid="new"), term=2))

    assert uid(held) == "new"


def test_a_deposed_operator_takes_nothing_away() -> None:
    held = orders()
    held.push(push(routed(2, 1), term=2, complete=True))
    with pytest.raises(OldTermError, match="term 1"):
        held.push(push({}, term=1, complete=True))

    assert len(held.policies) == 1


def test_a_complete_push_takes_away_what_it_does_not_name() -> None:
    held = orders()
    held.push(push(routed(1, 1), complete=True))
    assert held.push(push({}, complete=True))

    assert held.policies == ()
    assert held.any


def test_a_route_that_is_gone_comes_back_with_a_greater_version_only() -> None:
    held = orders()
    held.push(push(routed(1, 1), complete=True))
    assert held.push(push({"llm/assistant": Routed(version=(1, 1))}))
    assert not held.mount(Packed(routes=routed(1, 1)))
    assert held.policies == ()
    assert held.push(push(routed(1, 2)))
    assert len(held.policies) == 1


def test_a_bad_route_keeps_its_last_good_form_and_the_others_are_taken() -> None:
    held = orders()
    other = policy(name="other", uid="llm/other")
    held.push(push(routed(1, 1), complete=True))
    bad = routed(1, 2, uid="bad")
    held.push(push(bad | {"llm/other": Routed(version=(1, 3), policy=other)}))

    assert [one.uid for one in held.policies] == ["llm/assistant", "llm/other"]
    assert held.acks == {"llm/assistant": (1, 1), "llm/other": (1, 3)}
    assert held.nacks == {"llm/assistant": Nack((1, 2), "cannot be compiled")}


def test_an_unreadable_route_is_refused_in_the_readers_words() -> None:
    held = orders()
    held.push(push({"llm/assistant": Routed(version=(1, 1), unreadable="an unknown check")}))

    assert held.nacks == {"llm/assistant": Nack((1, 1), "an unknown check")}


def test_a_mended_route_is_refused_no_more() -> None:
    held = orders()
    held.push(push(routed(1, 1, uid="bad")))
    held.push(push(routed(1, 2)))

    assert (held.nacks, held.acks) == ({}, {"llm/assistant": (1, 2)})


def test_a_route_under_anothers_key_is_refused() -> None:
    held = orders()
    held.push(push({"llm/other": Routed(version=(1, 1), policy=policy())}))

    assert held.nacks["llm/other"].reason == "saw route llm/assistant, wanted llm/other"


def test_a_mounted_snapshot_brings_newer_routes_and_takes_none_away() -> None:
    held = orders()
    both = routed(1, 5) | {
        "llm/other": Routed(version=(1, 1), policy=policy(name="other", uid="llm/other"))
    }
    held.push(push(both, complete=True))
    old, new = routed(1, 4, uid="old"), routed(1, 6, uid="new")

    assert not held.mount(Packed(routes=old))
    assert held.mount(Packed(routes=new))
    assert [one.uid for one in held.policies] == ["new", "llm/other"]


def test_limits_stay_until_others_come() -> None:
    held = orders()
    held.mount(Packed(limits={"small-1": Limits(max_in_flight=1)}))
    assert held.limits["small-1"].max_in_flight == 1
    held.push(Push(term=1, complete=True))
    assert held.limits["small-1"].max_in_flight == 1
    held.push(Push(term=1, limits={}))
    assert held.limits == {}


def test_the_same_push_again_changes_nothing() -> None:
    held = orders()
    first = push(routed(1, 1), complete=True)
    assert held.push(first)
    assert not held.push(first)


def test_in_whatever_order_pushes_and_mounts_come_the_greatest_version_stays() -> None:
    versions = [(1, 2), (2, 1), (1, 9), (2, 3), (1, 1)]
    policies: list[RoutePolicy] = [policy(uid=f"{term}.{n}") for term, n in versions]
    for turn in range(len(versions)):
        held = orders()
        for version, one in [*zip(versions, policies, strict=True)][turn:] + [
            *zip(versions, policies, strict=True)
        ][:turn]:
            held.mount(Packed(routes={"llm/assistant": Routed(version=version, policy=one)}))

        assert uid(held) == "2.3"


def test_a_policy_that_only_looks_the_same_is_still_a_new_version() -> None:
    held = orders()
    one = policy()
    held.push(push({"llm/assistant": Routed(version=(1, 1), policy=one)}))
    held.push(push({"llm/assistant": Routed(version=(1, 2), policy=msgspec.structs.replace(one))}))

    assert held.acks == {"llm/assistant": (1, 2)}
