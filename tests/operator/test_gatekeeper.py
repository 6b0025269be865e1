"""Who may connect: one token, one verdict, in words that help."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.feeds import Api, token
from weir_operator.gatekeeper import BAD_S, GOOD_S, LEAST_S, Caller, Gatekeeper, Refusal


def admit(api: Api, *tokens: str, clock: Callable[[], float] | None = None) -> Any:
    """Return the verdicts on these tokens, asked one after the other."""

    async def asked() -> list[Caller | Refusal]:
        keeper = Gatekeeper(api, clock=clock) if clock else Gatekeeper(api)
        return [await keeper.admit(one) for one in tokens]

    return asyncio.run(asked())


def test_a_router_of_the_deployment_is_admitted_to_its_namespace() -> None:
    api = Api()
    (caller,) = admit(api, api.router("weir-router-5d8f9c7b6-aaaaa", namespace="llm"))

    assert (caller.namespace, caller.pod_name) == ("llm", "weir-router-5d8f9c7b6-aaaaa")
    assert caller.pod_uid == "uid-of-weir-router-5d8f9c7b6-aaaaa"
    assert not caller.sidecar
    assert api.asked == ["token_review", "pod"]


def test_a_sidecar_needs_the_verb_use() -> None:
    api = Api()
    made = api.router("app-1", label="sidecar", account="app", owner="app-6c")
    (refused,) = admit(api, made)
    api.users.add(("system:serviceaccount:llm:app", "llm"))
    (caller,) = admit(api, made)

    assert refused.code == "PERMISSION_DENIED"
    assert "ServiceAccount llm/app" in refused.why
    assert "`use`" in refused.why
    assert caller.sidecar


def _other_audience(api: Api) -> str:
    made = api.router()
    api.reviews[made]["audiences"] = ["somebody"]
    return made


def _of_no_pod(api: Api) -> str:
    made = api.router()
    api.reviews[made]["user"]["extra"] = {}
    return made


def _of_a_person(api: Api) -> str:
    made = api.router()
    api.reviews[made]["user"]["username"] = "jane"
    return made


def _pod_gone(api: Api) -> str:
    made = api.router()
    api.pods.clear()
    return made


def _pod_replaced(api: Api) -> str:
    made = api.router()
    for pod in api.pods.values():
        pod["metadata"]["uid"] = "uid-of-another"
    return made


REFUSED: list[Any] = [
    pytest.param(lambda api: "", "UNAUTHENTICATED", "no token", id="no token"),
    pytest.param(lambda api: "x" * 20_000, "UNAUTHENTICATED", "20,000", id="a token too long"),
    pytest.param(lambda api: token(), "UNAUTHENTICATED", "invalid bearer token", id="unknown"),
    pytest.param(_other_audience, "UNAUTHENTICATED", "audience", id="for another audience"),
    pytest.param(_of_a_person, "PERMISSION_DENIED", "jane is no Service", id="of a person"),
    pytest.param(_of_no_pod, "PERMISSION_DENIED", "bound to no pod", id="bound to no pod"),
    pytest.param(_pod_gone, "PERMISSION_DENIED", "gone", id="of a pod that is gone"),
    pytest.param(_pod_replaced, "PERMISSION_DENIED", "gone", id="of a pod's predecessor"),
    pytest.param(
        lambda api: api.router(label=""), "PERMISSION_DENIED", "is no router", id="of any pod"
    ),
    pytest.param(
        lambda api: api.router(owner="mine-5d8f"),
        "PERMISSION_DENIED",
        "only calls itself a router",
        id="of a pod with a router's label",
    ),
    pytest.param(
        lambda api: api.router(account="default"),
        "PERMISSION_DENIED",
        "only calls itself a router",
        id="of another account",
    ),
]


@pytest.mark.parametrize(("make", "code", "words"), REFUSED)
def test_refused(make: Callable[[Api], str], code: str, words: str) -> None:
    api = Api()
    (refused,) = admit(api, make(api))

    assert refused.code == code
    assert words in refused.why


def test_whether_a_token_has_expired_is_the_api_servers_to_judge() -> None:
    """With this clock an hour ahead every good token would seem over, and no trip be heard."""
    api = Api()
    now_s = time.time() + 3_600
    (caller,) = admit(api, api.router(expires_s=600), clock=lambda: now_s)

    assert caller.expires_s == now_s + LEAST_S


def test_no_refusal_repeats_the_token() -> None:
    api = Api()
    made = token()
    (refused,) = admit(api, made)

    assert made not in refused.why


def test_a_good_review_is_believed_for_ten_seconds() -> None:
    api, now = Api(), [1_000.0]
    made = api.router()

    async def scene() -> None:
        keeper = Gatekeeper(api, clock=lambda: now[0])
        for at in (0.0, GOOD_S - 0.1):
            now[0] = 1_000.0 + at
            assert isinstance(await keeper.admit(made), Caller)
        assert api.asked.count("token_review") == 1
        api.reviews.clear()
        now[0] = 1_000.0 + GOOD_S
        assert isinstance(await keeper.admit(made), Refusal)

    asyncio.run(scene())


def test_a_refusal_is_believed_for_two_seconds() -> None:
    api, now = Api(), [1_000.0]

    async def scene() -> None:
        keeper = Gatekeeper(api, clock=lambda: now[0])
        made = token()
        await keeper.admit(made)
        now[0] += BAD_S - 0.1
        await keeper.admit(made)
        assert api.asked.count("token_review") == 1
        now[0] += 0.1
        await keeper.admit(made)
        assert api.asked.count("token_review") == 2

    asyncio.run(scene())


def test_an_api_server_that_is_down_refuses_nobody_for_long() -> None:
    api = Api()
    made = api.router()
    api.down = True

    async def scene() -> None:
        keeper = Gatekeeper(api)
        refused = await keeper.admit(made)
        api.down = False
        admitted = await keeper.admit(made)

        assert isinstance(refused, Refusal)
        assert refused.code == "UNAVAILABLE"
        assert isinstance(admitted, Caller)

    asyncio.run(scene())


def test_many_routers_at_once_are_one_question_each() -> None:
    api = Api()
    tokens = [api.router(f"weir-router-5d8f9c7b6-{n:05}") for n in range(50)]

    async def scene() -> None:
        keeper = Gatekeeper(api)
        verdicts = await asyncio.gather(*(keeper.admit(one) for one in tokens * 3))

        assert all(isinstance(one, Caller) for one in verdicts)
        assert api.asked.count("token_review") == 50

    asyncio.run(scene())
