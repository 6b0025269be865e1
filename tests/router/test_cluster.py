"""`python -m weir_router` as a pod runs it: a real process, its environment, its files."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.feeds import Operator, PodFiles, operating
from support.http_wire import Wire, post, until
from support.running import plain, two_tiers, with_canary
from support.upstream import Script, completion, upstream, whole
from weir_core.evidence import BAD, SETTLED
from weir_core.snapshot import RoutePolicy
from weir_router.cluster import from_environment
from weir_router.peers import mark_of

POD: dict[str, str] = {
    "WEIR_NAMESPACE": "llm",
    "WEIR_POD_NAME": "weir-router-5d8f9c7b6-aaaaa",
    "WEIR_POD_UID": "uid-1",
    "WEIR_FEED": "weir-operator.weir.svc:8443",
}
PEERS = {"WEIR_PEERS": "weir-router-pods:8081", "WEIR_POD_IP": "10.0.0.7"}


def test_the_environment_of_a_pod() -> None:
    settings = from_environment(POD | {"WEIR_STATE_DIR": "/elsewhere"})

    assert settings.feed == ("weir-operator.weir.svc", 8443)
    assert (settings.host, settings.port, settings.management_port) == ("0.0.0.0", 8080, 8081)
    assert settings.state_dir == Path("/elsewhere")
    assert settings.token == Path("/var/run/secrets/weir/token")
    assert not settings.sidecar


def test_a_sidecar_listens_to_its_own_pod_alone() -> None:
    settings = from_environment(POD | {"WEIR_SIDECAR": "1", "WEIR_MANAGEMENT_PORT": "8088"})

    assert (settings.host, settings.port, settings.management_port) == ("127.0.0.1", 8089, 8088)
    assert settings.sidecar
    assert (settings.peers, settings.mark) == (None, "")


def test_a_router_is_told_its_like_and_knows_its_own_mark() -> None:
    settings = from_environment(POD | PEERS)

    assert settings.peers == ("weir-router-pods", 8081)
    assert settings.mark == mark_of("10.0.0.7")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WEIR_NAMESPACE", "", "saw nothing"),
        ("WEIR_POD_UID", "", "saw nothing"),
        ("WEIR_FEED", "somewhere", "wanted host:port"),
        ("WEIR_FEED", "somewhere:0", "wanted host:port"),
        ("WEIR_PORT", "http", "wanted a port"),
        ("WEIR_MANAGEMENT_PORT", "70000", "wanted a port"),
        ("WEIR_PEERS", "weir-router-pods", "wanted host:port"),
        ("WEIR_POD_IP", "", "saw ''"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: .*{words}"):
        from_environment(POD | PEERS | {name: value})


class Process:
    """A router's process and the ports that it printed."""

    def __init__(self, process: asyncio.subprocess.Process, line: str) -> None:
        self.process = process
        self.port, self.management = (int(url.rstrip(",\n").rsplit(":")[-1]) for url in _urls(line))

    async def get(self, path: str, *, port: int = 0) -> tuple[int, str]:
        """Ask an address of the management port."""
        wire = await Wire.to(port or self.management)
        await wire.send(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        got = await wire.answer()
        await wire.close()
        return got.status, got.body.decode()

    async def ask(self) -> tuple[int, bytes]:
        """Ask the model."""
        body = {"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}
        wire = await Wire.to(self.port)
        await wire.send(post("/v1/chat/completions", json.dumps(body).encode()))
        got = await wire.answer()
        await wire.close()
        return got.status, got.body

    async def post(self, path: str, body: Any) -> tuple[int, str]:
        """Post to the management port."""
        wire = await Wire.to(self.management)
        header = "content-type: application/json"
        await wire.send(post(path, json.dumps(body).encode(), header))
        got = await wire.answer()
        await wire.close()
        return got.status, got.body.decode()


def _urls(line: str) -> list[str]:
    return [word for word in line.split() if word.startswith("http://")]


@contextlib.asynccontextmanager
async def process(
    folder: Path, operator: Operator | None = None, **environ: str
) -> AsyncIterator[Process]:
    """Run a router in a folder of its own; it is killed at the end if it still runs."""
    files = PodFiles(folder)
    port = 1
    if operator is not None:
        port = operator.port
        files.ca.write_bytes(operator.bundle)
        files.token.write_text(operator.api.router(POD["WEIR_POD_NAME"]))
    told = POD | {
        "WEIR_FEED": f"localhost:{port}",
        "WEIR_HOST": "127.0.0.1",
        "WEIR_PORT": "0",
        "WEIR_MANAGEMENT_PORT": "0",
        "WEIR_SNAPSHOT_DIR": str(folder),
        "WEIR_TOKEN_FILE": str(files.token),
        "WEIR_STATE_DIR": str(folder),
        "WEIR_KEYS_DIR": str(folder),
        "PYTHONWARNINGS": "error",
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "weir_router",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | told | environ,
    )
    assert child.stdout is not None
    try:
        yield Process(child, (await child.stdout.readline()).decode())
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


def run(scene: Any) -> None:
    """Run a scene with a bound that a busy machine keeps."""
    asyncio.run(asyncio.wait_for(scene, 60))


async def is_ready(router: Process) -> None:
    """Return when the router is ready."""
    while (await router.get("/readyz"))[0] != 200:
        await asyncio.sleep(0.02)


def state(folder: Path) -> Any:
    return json.loads((folder / "router.json").read_text())


def route(up: Any) -> RoutePolicy:
    return plain(two_tiers(up, up))


def hello(request: dict[str, Any]) -> Script:
    return whole(completion("hello"))


def test_a_pod_serves_what_the_operator_publishes(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating(names=("localhost",)) as operator, upstream(hello) as up:
            async with process(tmp_path, operator) as router:
                assert (await router.get("/healthz"))[0] == 200
                status, why = await router.get("/readyz")
                assert status == 503
                assert "no snapshot yet" in why
                routes = operator.publish(route(up))
                await is_ready(router)
                status, body = await router.ask()
                assert (status, b"hello" in body) == (200, True)
                await until(lambda: operator.feed.connected("llm"))
                wanted = {"llm/assistant": routes["llm/assistant"].version}
                await until(lambda: operator.feed.connected("llm")[0].report.acks == wanted)

    run(scene())


def test_the_management_address_explains_and_takes_no_commands(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating(names=("localhost",)) as operator, upstream(hello) as up:
            async with process(tmp_path, operator) as router:
                operator.publish(route(up))
                await is_ready(router)
                question = {"model": "assistant", "messages": [{"role": "user", "content": "x"}]}
                told = await router.post("/weir/v1/explain", {"body": json.dumps(question)})
                command = {"verb": "promote", "revision": "x"}
                path = "/weir/v1/routes/llm/assistant/command"

                assert json.loads(told[1])["route"] == "llm/assistant"
                assert (await router.post(path, command))[0] == 404
                assert (await router.get("/weir/v1/status"))[0] == 404
                assert "weir_feed_connected 1.0" in (await router.get("/metrics"))[1]
                assert (await router.get("/weir/v1/explain", port=router.port))[0] == 404

    run(scene())


def test_the_management_address_takes_no_endless_body(tmp_path: Path) -> None:
    async def scene() -> None:
        async with process(tmp_path) as router:
            wire = await Wire.to(router.management)
            await wire.send(b"POST /weir/v1/explain HTTP/1.1\r\nhost: a\r\n")
            await wire.send(b"content-length: 1000000000\r\n\r\n")
            assert (await wire.answer()).status == 413
            await wire.close()

    run(scene())


def test_labels_for_a_router_that_cannot_be_asked_are_told_to_come_back(tmp_path: Path) -> None:
    async def scene() -> None:
        told = {"WEIR_PEERS": "127.0.0.1:1", "WEIR_POD_IP": "10.0.0.7"}
        async with process(tmp_path, **told) as router:
            wire = await Wire.to(router.port)
            id = f"weir-{mark_of('127.0.0.1')}-{'0' * 24}"
            body = json.dumps({"id": id, "harm": True}).encode()
            await wire.send(post("/v1/feedback", body, "content-type: application/json"))
            assert (await wire.answer()).status == 503
            await wire.close()
            counted = 'weir_labels_elsewhere_total{result="unreachable"} 1.0'
            assert counted in (await router.get("/metrics"))[1]

    run(scene())


def test_terminated_it_turns_unready_finishes_and_says_farewell(tmp_path: Path) -> None:
    """Its last start ended in no order: only the last report can say that this one did."""

    async def scene() -> None:
        slow = lambda request: [0.8, *hello(request)]
        PodFiles(tmp_path).state.write_text('{"start": 1, "clean": false}')
        async with operating(names=("localhost",)) as operator, upstream(slow) as up:
            async with process(tmp_path, operator) as router:
                operator.publish(with_canary(two_tiers(up, up), two_tiers(up, up)))
                await is_ready(router)
                asking = asyncio.create_task(router.ask())
                await until(lambda: up.in_flight)
                router.process.send_signal(signal.SIGTERM)
                status = 200
                while status == 200:
                    status, why = await router.get("/readyz")
                assert (status, why) == (503, "draining\n")
                assert not asking.done()
                assert (await asking)[0] == 200
                assert await router.process.wait() == 0
                (seen,) = operator.feed.connected("llm")
                (tally,) = seen.report.tallies

                assert (seen.alive, seen.report.draining, seen.report.clean) == (False, True, True)
                assert sum(sum(cell.counts[SETTLED:BAD]) for cell in tally.cells) == 1
                assert state(tmp_path)["clean"]

    run(scene())


def test_killed_it_counts_an_unclean_end_and_serves_without_an_operator(tmp_path: Path) -> None:
    async def scene() -> None:
        async with upstream(hello) as up:
            async with operating(names=("localhost",)) as operator:
                routes = operator.publish(route(up))
                async with process(tmp_path, operator) as router:
                    await is_ready(router)
                    first = state(tmp_path)["start"]
                    router.process.kill()
                    await router.process.wait()
            PodFiles(tmp_path).mount(routes)
            async with process(tmp_path) as router:
                await is_ready(router)

                assert (await router.ask())[0] == 200
                assert (state(tmp_path)["start"], state(tmp_path)["unclean"]) == (first + 1, 1)

    run(scene())


def test_wrong_settings_end_it_with_a_sentence(tmp_path: Path) -> None:
    async def scene() -> None:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "weir_router",
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | POD | {"WEIR_FEED": "nowhere"},
        )
        _, told = await child.communicate()

        assert child.returncode == 2
        assert b"WEIR_FEED: saw 'nowhere', wanted host:port" in told

    run(scene())
