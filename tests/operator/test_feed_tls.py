"""Certificates change under the feed while routers are connected."""

import time

from support.feeds import NAMES, Api, Operator, line, operating
from support.http_wire import run
from support.routes import policy
from weir_operator.certs import DAY_S, TURN_DAYS, rotate

ONE = policy()


def renew(operator: Operator, data: dict[str, bytes]) -> None:
    operator.feed.renew(certificate=data["tls.crt"], key=data["tls.key"])


def test_a_stream_outlives_the_certificate_that_it_began_with() -> None:
    async def scene() -> None:
        async with operating() as operator:
            operator.publish(ONE)
            async with line(operator, operator.api.router()) as router:
                await router.push()
                data, bundle = rotate({}, names=NAMES, now_s=time.time())
                renew(operator, data)
                operator.publish(ONE)

                assert (await router.push()).routes
            async with line(operator, operator.api.router(), bundle=bundle) as router:
                assert (await router.push()).complete

    run(scene())


def test_a_router_with_last_weeks_bundle_connects_after_the_authority_has_turned() -> None:
    """The next authority is in the bundle before it signs, the last one stays until it expires."""

    async def scene() -> None:
        now_s = time.time()
        began_s = now_s - 295 * DAY_S
        secret, _ = rotate({}, names=NAMES, now_s=began_s)
        secret, old_bundle = rotate(secret, names=NAMES, now_s=began_s + 245 * DAY_S)
        turned_s = began_s + (361 - TURN_DAYS) * DAY_S
        turned, new_bundle = rotate(secret, names=NAMES, now_s=turned_s)
        assert turned["ca.crt"] == secret["next.crt"]
        operator = Operator(Api(), secret=secret)
        await operator.start()
        try:
            # Signed by the next authority; made now, so that it is valid now.
            renew(operator, rotate(_as_current(turned), names=NAMES, now_s=now_s)[0])
            operator.publish(ONE)
            for bundle in (old_bundle, new_bundle):
                async with line(operator, operator.api.router(), bundle=bundle) as router:
                    assert (await router.push()).complete
        finally:
            await operator.feed.stop(0.2)

    run(scene())


def _as_current(data: dict[str, bytes]) -> dict[str, bytes]:
    return {"ca.crt": data["ca.crt"], "ca.key": data["ca.key"]}


def test_a_certificate_for_another_name_is_not_accepted() -> None:
    async def scene() -> None:
        async with operating() as operator:
            data, bundle = rotate(operator.secret, names=("elsewhere.svc",), now_s=time.time())
            renew(operator, data)
            operator.publish(ONE)
            async with line(operator, operator.api.router(), bundle=bundle) as router:
                assert (await router.end())[0] == "UNAVAILABLE"

    run(scene())
