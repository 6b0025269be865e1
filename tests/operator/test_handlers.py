"""What kopf tells reaches the cache, and what it cannot tell is found by lists."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from support.apiserver import ApiServer, serving
from support.objects import route
from support.walking import until
from weir_operator.cache import Cache
from weir_operator.handlers import follow, hear, knock, look_again, prime
from weir_operator.kube import Kube, KubeError
from weir_operator.readable import Readable

SPACE = "default"
MADE = {"app.kubernetes.io/managed-by": "weir"}


def placed(name: str) -> dict[str, Any]:
    made: dict[str, Any] = route(name)
    made["metadata"]["namespace"] = SPACE
    return made


def names(cache: Cache) -> list[str]:
    return [obj["metadata"]["name"] for obj in cache.of("ModelRoute", SPACE)]


async def looking(
    server: ApiServer, kube: Kube, scene: Callable[[Cache, asyncio.Event], Any], **paces: float
) -> None:
    cache, doubt = Cache(), asyncio.Event()
    readable = Readable(())
    await prime(kube, cache, readable)
    task = asyncio.create_task(look_again(kube, cache, readable, doubt, **paces))
    try:
        await scene(cache, doubt)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kube.close()


def test_an_object_that_went_unheard_is_found_by_the_next_list() -> None:
    async def run() -> None:
        async with serving() as server:
            server.write("ModelRoute", placed("ghost"))

            async def scene(cache: Cache, doubt: asyncio.Event) -> None:
                assert names(cache) == ["ghost"]
                server.drop("ModelRoute", SPACE, "ghost", tell=False)
                newer = server.write("ModelRoute", placed("newer"))
                newer = {**newer, "metadata": {**newer["metadata"], "resourceVersion": "1000"}}
                cache.put(newer)
                await until(lambda: names(cache) == ["newer"])
                kept = cache.get("ModelRoute", SPACE, "newer")
                assert kept is not None
                assert kept["metadata"]["resourceVersion"] == "1000"

            await looking(server, server.kube(), scene, every_s=0.1, least_s=0.0)

    asyncio.run(run())


def test_a_write_that_finds_nothing_brings_the_list_forward() -> None:
    async def run() -> None:
        async with serving() as server:
            made = server.write("ModelRoute", placed("ghost"))
            kube = server.kube()

            async def scene(cache: Cache, doubt: asyncio.Event) -> None:
                kube.on_missing = lambda kind: doubt.set()
                server.drop("ModelRoute", SPACE, "ghost", tell=False)
                with pytest.raises(KubeError):
                    await kube.apply({**made, "status": {}}, sub="status")
                await until(lambda: names(cache) == [])

            await looking(server, kube, scene, least_s=0.0)

    asyncio.run(run())


def test_doubts_that_never_end_are_lists_at_a_pace() -> None:
    async def run() -> None:
        async with serving() as server:

            async def scene(cache: Cache, doubt: asyncio.Event) -> None:
                before = len(server.asked)
                for _ in range(50):
                    doubt.set()
                    await asyncio.sleep(0.01)
                assert len(server.asked) - before <= 3 * 3

            await looking(server, server.kube(), scene, least_s=0.3)

    asyncio.run(run())


def test_kopf_tells_what_comes_and_what_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with serving() as server:
            monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
            server.write("ModelRoute", placed("first"))
            cache, doubt = Cache(), asyncio.Event()
            task = asyncio.create_task(hear(cache, Readable(()), doubt))
            await until(lambda: names(cache) == ["first"])
            assert doubt.is_set()
            server.write("ModelRoute", placed("second"))
            server.drop("ModelRoute", SPACE, "first")
            await until(lambda: names(cache) == ["second"])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def away(name: str) -> dict[str, Any]:
    made = placed(name)
    made["metadata"]["namespace"] = "away"
    return made


def test_what_was_known_of_a_namespace_stays_when_its_roles_go() -> None:
    """And what has changed meanwhile is read when they are back, of what Weir makes too."""

    async def run() -> None:
        async with serving() as server:
            server.write("ModelRoute", away("known"))
            server.write("ModelRoute", placed("here"))
            pod = {"metadata": {"name": "p", "namespace": "away", "labels": MADE}}
            server.write("Pod", pod)
            cache, doubt, kube = Cache(), asyncio.Event(), server.kube()
            readable = Readable((SPACE, "away"))
            versions = await prime(kube, cache, readable)
            doings = [
                look_again(kube, cache, readable, doubt, every_s=0.1, least_s=0.0),
                follow(kube, cache, "Pod", "away", versions["Pod", "away"], readable),
                knock(kube, cache, readable, every_s=0.1),
            ]
            tasks = [asyncio.create_task(one) for one in doings]
            server.shut = {"away"}
            await until(lambda: readable.open == (SPACE,))
            server.drop("ModelRoute", "away", "known", tell=False)
            server.drop("Pod", "away", "p", tell=False)
            server.write("ModelRoute", placed("more"))
            await until(lambda: names(cache) == ["here", "more"])
            assert [len(cache.of(kind, "away")) for kind in ("ModelRoute", "Pod")] == [1, 1]
            assert readable.serves("away")
            server.shut = set()
            await until(lambda: not cache.of("Pod", "away") and not cache.of("ModelRoute", "away"))
            server.write("Pod", pod | {"metadata": pod["metadata"] | {"name": "q"}})
            await until(lambda: cache.of("Pod", "away"))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await kube.close()

    asyncio.run(run())


def test_a_namespace_that_was_never_read_is_not_walked() -> None:
    """Nothing is known of its routes: whoever told its routers so would take them all away."""

    async def run() -> None:
        async with serving() as server:
            server.write("ModelRoute", away("there"))
            server.shut = {"away"}
            cache, kube, opened = Cache(), server.kube(), []
            readable = Readable((SPACE, "away"), opened=opened.append)
            versions = await prime(kube, cache, readable)
            assert versions["ModelRoute", "away"] == ""
            assert versions["ModelRoute", SPACE] != ""
            assert [readable.serves(one) for one in (SPACE, "away", "third")] == [
                True,
                False,
                False,
            ]
            task = asyncio.create_task(knock(kube, cache, readable, every_s=0.01))
            server.shut = set()
            await until(lambda: opened == ["away"])
            assert readable.serves("away")
            assert len(cache.of("ModelRoute", "away")) == 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await kube.close()

    asyncio.run(run())


def test_a_kind_that_is_not_there_yet_is_waited_for() -> None:
    """A CRD comes with the same install as the operator: no namespace is closed for it."""

    async def run() -> None:
        asked = []

        class Young:
            async def every(self, kind: str, namespace: str, selector: str) -> Any:
                asked.append(kind)
                if len(asked) == 1:
                    raise KubeError(404, "the server could not find the requested resource")
                return [], "7"

        readable, kube = Readable((SPACE,)), Young()
        versions = await prime(cast(Kube, kube), Cache(), readable)
        assert readable.open == (SPACE,)
        assert set(versions.values()) == {"7"}

    asyncio.run(run())


def test_a_watch_ends_at_whatever_moment_it_is_cancelled() -> None:
    """Also in the one in which a line came: `asyncio.wait_for` then says that all is well."""

    async def scene() -> None:
        async with serving() as server:
            kube = server.kube()
            for turns in range(60):
                pod = {"metadata": {"name": "p", "namespace": SPACE, "labels": MADE}}
                server.write("Pod", pod)
                following = follow(kube, Cache(), "Pod", SPACE, "0", Readable((SPACE,)))
                task = asyncio.create_task(following)
                await asyncio.sleep(0.005)
                server.write("Pod", pod)
                for _ in range(turns % 20):
                    await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=5)
                assert done, turns
            await kube.close()

    asyncio.run(scene())
