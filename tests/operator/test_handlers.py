"""What kopf tells reaches the cache, and what it cannot tell is found by lists."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.apiserver import ApiServer, serving
from support.objects import route
from support.walking import until
from weir_operator.cache import Cache
from weir_operator.handlers import hear, look_again, prime
from weir_operator.kube import Kube, KubeError

SPACE = "default"


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
    await prime(kube, cache, ())
    task = asyncio.create_task(look_again(kube, cache, (), doubt, **paces))
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
            task = asyncio.create_task(hear(cache, (), doubt))
            await until(lambda: names(cache) == ["first"])
            assert doubt.is_set()
            server.write("ModelRoute", placed("second"))
            server.drop("ModelRoute", SPACE, "first")
            await until(lambda: names(cache) == ["second"])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
