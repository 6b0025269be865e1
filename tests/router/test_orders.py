"""Which version of a route is held, whatever comes in which order."""

import msgspec
import pytest

from support.feeds import rolling
from support.routes import policy, revision
from weir_core.snapshot import Limits, RoutePolicy
from weir_core.wire import Nack, Packed, Push, Routed
from weir_router.orders import OldTermError, Orders
from weir_router.past import Obeyed


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


# What an earlier start obeyed.

KEY = "llm/assistant"


def again(later: RoutePolicy, number: int = 5) -> Orders:
    """Return the orders of a router that obeyed this before it started again."""
    before = orders()
    before.push(push({KEY: Routed(version=(1, number), policy=later)}, complete=True))
    return Orders(lambda policy: "", before.obeyed)


def mounted(held: Orders, number: int, route: RoutePolicy) -> int:
    """Return the canary's weight under a mounted snapshot."""
    held.mount(Packed(routes={KEY: Routed(version=(1, number), policy=route)}))
    (one,) = held.policies
    return one.weight_bp


LATER = [
    pytest.param(policy(latched=(("assistant-0000000002", 1),)), 0, id="rolled back"),
    pytest.param(policy(), 0, id="taken away undecided"),
    pytest.param(rolling(1_000), 1_000, id="lowered"),
    pytest.param(rolling(9_000), 5_000, id="raised"),
    pytest.param(rolling(9_000, attempt=2), 0, id="tried again since"),
    pytest.param(policy(stable=revision("assistant-0000000002")), 5_000, id="promoted"),
]


@pytest.mark.parametrize(("later", "weight_bp"), LATER)
def test_an_old_mount_raises_nothing_that_an_earlier_start_obeyed(
    later: RoutePolicy, weight_bp: int
) -> None:
    assert mounted(again(later), 4, rolling()) == weight_bp


@pytest.mark.parametrize("number", [5, 6])
def test_an_order_as_new_as_what_an_earlier_start_obeyed_counts_whole(number: int) -> None:
    held = again(policy())
    assert mounted(held, 4, rolling()) == 0
    assert mounted(held, number, rolling(attempt=2)) == 5_000
    assert held.acks == {KEY: (1, number)}


def test_an_old_push_is_capped_too_and_shows_what_is_obeyed() -> None:
    """A new operator begins with the snapshot as it obeyed: it hears that this one is behind."""
    held = again(policy())
    held.push(push({KEY: Routed(version=(1, 4), policy=rolling())}, complete=True))

    assert [one.weight_bp for one in held.policies] == [0]
    assert held.acks == {KEY: (1, 5)}


def test_under_an_old_mount_a_further_start_is_no_freer() -> None:
    held = again(policy())
    mounted(held, 4, rolling())
    third = Orders(lambda policy: "", held.obeyed)

    assert mounted(third, 4, rolling()) == 0


def test_what_an_earlier_start_obeyed_of_a_route_that_is_gone_is_forgotten() -> None:
    before = {KEY: Obeyed((1, 5), "a"), "llm/other": Obeyed((1, 6), "a")}
    held = Orders(lambda policy: "", before)
    held.push(push(routed(1, 4), complete=True))

    assert held.obeyed.keys() == {KEY}
    held.push(push({KEY: Routed(version=(1, 7))}))
    assert held.obeyed == {}


def test_under_an_old_mount_nobody_hears_that_a_later_stable_serves() -> None:
    promoted = policy(stable=rolling().canary)
    held = again(promoted)
    assert mounted(held, 4, rolling()) == 5_000
    assert held.policies[0].stable != promoted.stable
    assert held.acks == {KEY: (1, 4)}
