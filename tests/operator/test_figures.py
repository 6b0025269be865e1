"""What metrics show of a namespace while the API server is slow, and of accelerators."""

import asyncio

from support.walking import SPACE, operators, trip_of, until

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
