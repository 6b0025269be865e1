"""The client of the API against a server of dictionaries: what it counts and what it tells."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes.aio import client
from kubernetes.aio.config import kube_config

from support.apiserver import ApiServer, serving
from weir_operator.kube import Kube, KubeError, pause

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


def test_a_watch_brings_an_object_as_large_as_the_api_server_takes() -> None:
    """The snapshot of a namespace with many routes is one line of a watch."""

    async def scene() -> None:
        data = "x" * 1_500_000
        async with serving() as server:
            kube = server.kube()
            server.write("ConfigMap", {"metadata": {"name": "a", "namespace": "llm"}, "data": data})
            async for _, obj in kube.watch("ConfigMap", "llm", "", "0"):
                assert obj["data"] == data
                break
            await kube.close()

    asyncio.run(scene())


def test_a_page_is_no_answer() -> None:
    """As what a proxy says whose upstream is gone."""

    async def scene() -> None:
        async with serving() as server:
            kube = server.kube()
            server.page = "<html>it works</html>"
            for call in (kube.every("Pod"), kube.get("Lease", "weir", "weir-operator")):
                with pytest.raises(KubeError, match="wanted a JSON object"):
                    await call
            server.page = "[]"
            with pytest.raises(KubeError, match="saw 200 with"):
                await kube.every("Pod")
            await kube.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    "page", ["{}", "null", '{"kind": "Status"}', '{"type": "ADDED", "object": {"metadata": {}}}']
)
def test_a_line_that_is_no_event_ends_its_watch_alone(page: str) -> None:
    async def scene() -> None:
        async with serving() as server:
            kube = server.kube()
            server.page = page
            with pytest.raises(KubeError, match="wanted an event of a watch"):
                await anext(kube.watch("Pod", "llm", "", "0"))
            await kube.close()

    asyncio.run(scene())


def test_a_list_without_items_is_empty() -> None:
    async def scene() -> None:
        async with serving() as server:
            kube = server.kube()
            server.page = '{"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": null}'
            assert await kube.every("Pod") == ([], "5")
            await kube.close()

    asyncio.run(scene())


def test_a_token_that_is_refused_is_read_anew() -> None:
    """The client reads it by a wall clock, which may have been set back."""

    async def scene() -> None:
        async with serving() as server:
            server.token = "new"
            found = client.Configuration(host=f"http://127.0.0.1:{server.port}")
            found.api_key["BearerToken"] = "bearer old"
            read = {"BearerToken": "bearer new"}
            kube = Kube(client.ApiClient(found), lambda: found.api_key.update(read))
            with pytest.raises(KubeError, match="Unauthorized"):
                await kube.every("Pod")
            assert await kube.every("Pod") == ([], "0")
            await kube.close()

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


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ApiServer], None]:
    """Have a user with a token in a kubeconfig, and a netrc with other words for every host."""
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("KUBERNETES_SERVICE_HOST", "no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def sign_in(server: ApiServer) -> None:
        path = server.kubeconfig(tmp_path)
        path.write_text(path.read_text().replace('"user": {}', '"user": {"token": "sesame"}'))
        # KUBECONFIG was read when the client was imported.
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))

    return sign_in


def test_watches_of_many_namespaces_leave_a_connection_for_other_calls(
    at_home: Callable[[ApiServer], None],
) -> None:
    async def scene() -> None:
        async with serving() as server:
            at_home(server)
            kube = await Kube.connect()

            async def watch(namespace: str) -> None:
                async for _ in kube.watch("Pod", namespace, "", "0"):
                    pass

            watches = [asyncio.create_task(watch(f"n{number}")) for number in range(150)]
            async with asyncio.timeout(10):
                while len(server.asked) < len(watches):
                    await asyncio.sleep(0.05)
                assert await kube.get("Lease", "weir", "weir-operator") is None
            for one in watches:
                one.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            await kube.close()

    asyncio.run(scene())


def test_a_netrc_has_no_say_in_who_the_operator_is(at_home: Callable[[ApiServer], None]) -> None:
    async def scene() -> None:
        async with serving() as server:
            at_home(server)
            kube = await Kube.connect()
            assert await kube.every("Pod") == ([], "0")
            await kube.close()

    asyncio.run(scene())


def test_the_environment_says_which_proxy_leads_to_the_api_server(
    at_home: Callable[[ApiServer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked(server: ApiServer) -> int:
        kube = await Kube.connect()
        with contextlib.suppress(KubeError):
            await kube.every("Pod")
        await kube.close()
        return len(server.asked)

    async def scene() -> None:
        async with serving() as server:
            at_home(server)
            monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
            assert await asked(server) == 0
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert await asked(server) == 1

    asyncio.run(scene())


def test_a_pause_that_is_cancelled_as_its_event_comes_is_cancelled() -> None:
    """Else whoever pauses in a loop never ends."""

    async def scene(turns: int) -> None:
        event = asyncio.Event()

        async def work() -> None:
            while True:
                await pause(60, event)
                event.clear()

        task = asyncio.create_task(work())
        await asyncio.sleep(0.001)
        event.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, left = await asyncio.wait([task], timeout=1)
        for one in left:
            one.cancel()
        assert done, turns

    for turns in range(6):
        asyncio.run(scene(turns))
