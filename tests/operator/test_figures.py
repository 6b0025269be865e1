"""What metrics show of a namespace while the API server is slow, and of accelerators."""

import asyncio

from support.objects import vllm
from support.thinking import live
from support.walking import SPACE, operators, trip_of, until
from weir_core.resources import from_object
from weir_operator.backends import Identity
from weir_operator.figures import kept

TRIPS, LATE = "weir_operator_trips_unpersisted", "weir_operator_routers_out_of_sync"


async def hanging_save():
    async with operators("r1", "r2") as ring:
        await ring.serving()
        before = await ring.canary()

        def shown(name):
            return ring.walker.figures()[name][1].get(SPACE)

        await until(lambda: shown(LATE) == 0)
        assert shown(TRIPS) == 0
        ring.api.waits = lambda verb, kind, name: True
        ring.routers["r2"].deaf = True
        ring.routers["r1"].trips = (trip_of(before),)
        ring.wake(SPACE)
        await until(lambda: shown(TRIPS) == 1)
        await until(lambda: shown(LATE) == 1)
        ring.routers["r2"].deaf = False
        ring.air.reach()
        ring.api.waits = lambda *call: False
        await until(lambda: shown(TRIPS) == 0)
        await until(lambda: shown(LATE) == 0)


def test_a_trip_that_is_not_written_is_shown_although_the_api_hangs():
    asyncio.run(hanging_save())


def server(name, **fields):
    gpus = {"resourceName": "nvidia.com/gpu", "count": 2}
    made = live(vllm(accelerator=gpus))
    made["spec"]["replicas"] = 2
    backend = from_object(made)
    return Identity(name=name, backend=backend, newest=True, routes=(), **fields)


def test_identities_and_the_accelerators_they_hold_are_shown():
    wanted = server("a"), server("b", replicas=1), server("c", replicas=0)
    assert kept(wanted) == {
        "weir_operator_identities": 3,
        "weir_operator_identity_devices": 4 + 2,
    }
