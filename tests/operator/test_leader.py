"""Who holds the Lease, by clocks that the tests turn."""

import asyncio
from typing import Any

import pytest

from support.walking import Api
from weir_operator.kube import KubeError
from weir_operator.leader import AHEAD, EPOCH_S, Leader, Pace

QUICK = Pace(duration=15, renew=0.01, answer=0.05, fresh=10.0)
LEASE = ("Lease", "weir", "weir-operator")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


NOW_S = 1_800_000_000.0


def leader(
    api: Any,
    identity: str = "op-0",
    clock: Clock | None = None,
    *,
    wall_s: float = NOW_S,
    **told: Any,
) -> Leader:
    return Leader(
        api,
        namespace="weir",
        name="weir-operator",
        identity=identity,
        clock=clock or Clock(),
        **{"wall": lambda: wall_s, "pace": QUICK, **told},
    )


def held(api: Api) -> dict[str, Any]:
    return dict(api.objects[LEASE]["spec"])


async def ended(task: "asyncio.Task[None]") -> None:
    await asyncio.wait_for(task, 5)


def test_each_lead_of_one_process_has_a_term_of_its_own() -> None:
    async def scene() -> None:
        api = Api()
        one = leader(api)
        await one.acquire()
        first = one.term
        await one.acquire()
        assert (one.term, held(api)["leaseTransitions"]) == (first + 1, first + 1)
        assert one.leads

    asyncio.run(scene())


def test_a_silent_api_ends_the_lead_when_the_lease_has_run_out() -> None:
    async def scene() -> None:
        api, clock = Api(), Clock()
        one = leader(api, clock=clock)
        await one.acquire()
        api.waits = lambda verb, kind, name: True
        keeping = asyncio.create_task(one.keep())
        await asyncio.sleep(0.2)
        assert one.leads
        assert not keeping.done()
        clock.now_s += QUICK.fresh
        assert not one.leads
        await asyncio.sleep(0.2)
        assert not keeping.done()
        clock.now_s += QUICK.duration
        await ended(keeping)

    asyncio.run(scene())


def test_a_lease_that_somebody_else_holds_ends_the_lead_at_once() -> None:
    async def scene() -> None:
        api = Api()
        one, other = leader(api), leader(api, "op-1")
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        api.objects[LEASE]["spec"]["holderIdentity"] = ""
        await other.acquire()
        await ended(keeping)
        assert not one.leads
        assert other.term == one.term + 1

    asyncio.run(scene())


def test_a_lease_that_was_deleted_ends_the_lead() -> None:
    async def scene() -> None:
        api = Api()
        api.objects.clear()
        one = leader(api)
        await one.acquire()
        await one.acquire()
        api.objects.clear()
        await ended(asyncio.create_task(one.keep()))
        assert not one.leads

    asyncio.run(scene())


def test_a_renewal_that_is_refused_for_a_moment_costs_nothing() -> None:
    async def scene() -> None:
        api = Api()
        one = leader(api)
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        api.fails = lambda verb, kind, name: 500
        await asyncio.sleep(0.1)
        api.fails = lambda verb, kind, name: 0
        await asyncio.sleep(0.1)
        assert one.leads
        assert not keeping.done()
        keeping.cancel()

    asyncio.run(scene())


@pytest.mark.parametrize("wait_s", [14.0, 16.0], ids=["before its time", "after its time"])
def test_a_lease_is_taken_over_by_this_processs_own_clock(wait_s: float) -> None:
    async def scene() -> None:
        api, clock = Api(), Clock()
        await leader(api, "op-1").acquire()
        # Whatever time the other one wrote there.
        api.objects[LEASE]["spec"]["renewTime"] = "2001-01-01T00:00:00.000000Z"
        one = leader(api, clock=clock)
        taking = asyncio.create_task(one.acquire())
        await asyncio.sleep(0.1)
        clock.now_s += wait_s
        await asyncio.sleep(0.1)
        assert taking.done() == (wait_s > QUICK.duration)
        taking.cancel()

    asyncio.run(scene())


def test_the_next_one_needs_not_wait_for_who_let_go() -> None:
    async def scene() -> None:
        api = Api()
        one = leader(api)
        await one.acquire()
        await one.release()
        assert held(api)["holderIdentity"] == ""
        other = leader(api, "op-1")
        await asyncio.wait_for(other.acquire(), 5)
        assert other.term == one.term + 1

    asyncio.run(scene())


def test_an_api_that_refuses_keeps_nobody_from_ending() -> None:
    async def scene() -> None:
        api = Api()
        one = leader(api)
        await one.acquire()
        api.fails = lambda verb, kind, name: 503
        await one.release()
        with pytest.raises(KubeError):
            await api.get(*LEASE)

    asyncio.run(scene())


def test_an_api_that_is_silent_keeps_nobody_from_ending() -> None:
    async def scene() -> None:
        api = Api()
        one = leader(api)
        await one.acquire()

        async def silent(*args: Any) -> Any:
            await asyncio.Event().wait()

        api.get = silent  # type: ignore[method-assign]
        await asyncio.wait_for(one.release(), 5)

    asyncio.run(scene())


def test_a_lease_that_was_deleted_a_second_ago_begins_a_later_term() -> None:
    async def scene() -> None:
        api = Api()
        one = leader(api)
        await one.acquire()
        api.objects.clear()
        other = leader(api, "op-1", wall_s=NOW_S + 1)
        await other.acquire()
        assert other.term > one.term

    asyncio.run(scene())


def test_who_stood_by_exceeds_the_term_of_a_lease_that_was_deleted() -> None:
    """Its clock alone would give the same term: another's was ahead, or surpassed a later one."""

    async def scene() -> None:
        api = Api()
        one, other = leader(api, wall_s=NOW_S + 60), leader(api, "op-1")
        await one.acquire()
        waiting = asyncio.create_task(other.acquire())
        await asyncio.sleep(0.05)
        api.drop("Lease", "weir-operator", "weir")
        await ended(waiting)
        assert other.term > one.term

    asyncio.run(scene())


def test_a_process_whose_clock_was_set_back_has_no_term_twice() -> None:
    async def scene() -> None:
        api = Api()
        walls = iter((NOW_S, NOW_S - 3_600))
        one = leader(api, wall=lambda: next(walls))
        await one.acquire()
        first = one.term
        api.objects.clear()
        await one.acquire()
        assert one.term > first

    asyncio.run(scene())


def test_terms_of_now_exceed_those_that_counted_minutes_since_1970() -> None:
    async def scene() -> None:
        one = leader(Api(), wall_s=1_790_000_000.0)
        await one.acquire()
        assert one.term > 1_900_000_000 // 60
        late = leader(Api(), wall_s=3_000_000_000.0)
        await late.acquire()
        assert late.term < 1 << 31

    asyncio.run(scene())


def test_a_later_term_that_was_obeyed_ends_the_lead_and_is_exceeded() -> None:
    """The Lease was deleted, and this clock is an hour behind that of who led before."""

    async def scene() -> None:
        before, one = leader(Api(), wall_s=NOW_S + 3_600), leader(Api())
        await before.acquire()
        await one.acquire()
        assert one.term < before.term
        keeping = asyncio.create_task(one.keep())
        one.surpass(before.term)
        await ended(keeping)
        assert not one.leads
        await one.acquire()
        assert one.term > before.term
        # Who tells of the next one, and the next, does not end every lead.
        keeping = asyncio.create_task(one.keep())
        one.surpass(one.term + 1)
        await asyncio.sleep(0.1)
        assert not keeping.done()
        keeping.cancel()

    asyncio.run(scene())


def test_a_term_that_none_can_have_had_ends_no_lead() -> None:
    async def scene() -> None:
        one = leader(Api())
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        one.surpass(one.term + AHEAD + 1)
        one.surpass(1 << 60)
        await asyncio.sleep(0.1)
        assert not keeping.done()
        assert one.leads
        keeping.cancel()

    asyncio.run(scene())


def test_who_forges_terms_as_time_goes_on_ends_one_lead() -> None:
    async def scene() -> None:
        wall = [NOW_S]
        one = leader(Api(), wall=lambda: wall[0])
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        one.surpass(one.term + AHEAD)
        await ended(keeping)
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        for _ in range(5):
            wall[0] += 60
            one.surpass(int(wall[0]) - EPOCH_S + AHEAD)
        await asyncio.sleep(0.1)
        assert not keeping.done()
        assert one.leads
        keeping.cancel()

    asyncio.run(scene())
