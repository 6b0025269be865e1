"""The client of the API against a server of dictionaries: what it counts and what it tells."""

import asyncio

import pytest

from support.apiserver import serving
from weir_operator.kube import KubeError

ROUTE = {"kind": "ModelRoute", "metadata": {"namespace": "llm", "name": "gone"}, "status": {}}


def test_every_request_is_counted_by_verb_kind_and_code() -> None:
    async def scene() -> None:
        async with serving() as server:
            kube = server.kube()
            server.write("Pod", {"metadata": {"name": "a", "namespace": "llm"}})
            await kube.every("Pod")
            assert await kube.get("Pod", "llm", "b") is None
            async for type, _ in kube.watch("Pod", "llm", "", "0"):
                assert type == "ADDED"
                break
            server.hush()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await kube.every("Pod")
            await kube.close()

        gone = server.kube()
        with pytest.raises(KubeError):
            await gone.every("Pod")
        await gone.close()
        assert kube.calls == {
            ("GET", "Pod", 200): 1,
            ("GET", "Pod", 404): 1,
            ("WATCH", "Pod", 200): 1,
        }
        assert gone.calls == {("GET", "Pod", 0): 1}

    asyncio.run(scene())


def test_a_write_to_what_is_gone_is_told_by_kind() -> None:
    async def scene() -> None:
        async with serving() as server:
            kube, missing = server.kube(), []
            kube.on_missing = missing.append
            assert await kube.get("ModelRoute", "llm", "gone") is None
            with pytest.raises(KubeError):
                await kube.apply(ROUTE, sub="status")
            await kube.delete("ModelRevision", "llm", "gone")
            assert missing == ["ModelRoute", "ModelRevision"]
            await kube.close()

    asyncio.run(scene())
