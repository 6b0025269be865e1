"""One process that leads, loses the lead and leads again, with an API server on loopback."""

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.apiserver import ApiServer, serving
from support.objects import backend, route
from support.walking import until
from weir_operator.leader import Pace
from weir_operator.process import Operator
from weir_operator.settings import Settings

SYSTEM, SPACE = "weir-system", "default"
QUICK = Pace(duration=1, renew=0.2, answer=0.3, fresh=0.7)


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.asynccontextmanager
async def running(
    server: ApiServer, folder: Path, monkeypatch: Any, *, namespaces: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Operator, Settings]]:
    """Run the operator until the end of a test."""
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(folder)))
    pod = {"metadata": {"name": "op-0", "namespace": SYSTEM}}
    server.write("Pod", pod)
    server.write("ModelBackend", _placed(backend()))
    server.write("ModelRoute", _placed(route("assistant")))
    settings = Settings(
        namespace=SYSTEM,
        namespaces=namespaces,
        identity="op-0",
        router={"image": "weir:1", "feed": "weir-operator:8443"},
        server_names=("weir-operator.weir-system.svc",),
        feed_port=_free(),
        metrics_port=_free(),
        health_port=_free(),
    )
    kube = server.kube()
    operator = Operator(settings, kube, lease=QUICK, knock_s=0.1)
    task = asyncio.create_task(operator.run())
    try:
        yield operator, settings
    finally:
        operator.stop()
        await asyncio.wait_for(task, 20)
        await kube.close()


def _placed(obj: dict[str, Any]) -> dict[str, Any]:
    obj["metadata"].setdefault("namespace", SPACE)
    return obj


def holder(server: ApiServer) -> str:
    return str(server.objects["Lease", SYSTEM, "weir-operator"]["spec"]["holderIdentity"])


def term(server: ApiServer) -> int:
    return int(server.objects["Lease", SYSTEM, "weir-operator"]["spec"]["leaseTransitions"])


def is_open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


async def page(port: int, path: str = "/metrics") -> str:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


def told(server: ApiServer, name: str = "assistant") -> bool:
    obj = server.objects.get(("ModelRoute", SPACE, name), {})
    return bool((obj.get("status") or {}).get("conditions"))


@pytest.mark.parametrize("thief", [False, True], ids=["nobody", "another one"])
def test_a_lead_that_was_lost_is_taken_again_in_a_term_of_its_own(
    thief: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with serving() as server, running(server, tmp_path, monkeypatch) as (one, ports):
            await until(lambda: told(server) and is_open(ports.feed_port), 20)
            first, held = term(server), holder(server)
            server.hush()
            await until(lambda: not one.leader.leads, 5)
            await until(lambda: not is_open(ports.feed_port), 10)
            assert await page(ports.health_port) == "ok\n"
            assert "weir_operator_leader 0.0" in await page(ports.metrics_port)
            if thief:
                lease = server.objects["Lease", SYSTEM, "weir-operator"]
                lease["spec"] |= {"holderIdentity": "op-1_x", "leaseTransitions": first + 1}
                server.write("Lease", lease)
            # Written while nobody heard anything.
            server.write("ModelRoute", _placed(route("second", models=["second"])))
            server.silent = False
            await until(lambda: told(server, "second"), 20)
            await until(lambda: is_open(ports.feed_port), 10)
            assert one.leader.leads
            assert term(server) > first + thief
            assert holder(server) != held
            shown = ""
            while 'weir_operator_routes{namespace="default"} 2.0' not in shown:
                shown = await page(ports.metrics_port)
            assert shown.count("# TYPE weir_operator_walks_total") == 1
            assert float(re.search(r"(?m)^weir_operator_settles_total (\S+)", shown)[1]) >= 1
            assert float(re.search(r"(?m)^weir_operator_settle_seconds_total (\S+)", shown)[1]) > 0
            assert 'code="200",kind="Lease",verb="PUT"' in shown
        assert holder(server) == ""

    asyncio.run(scene())


def test_a_lease_that_runs_out_while_things_are_listed_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lead is kept from its first moment on, and what was begun is left when it is lost."""

    async def scene() -> None:
        async with serving() as server, running(server, tmp_path, monkeypatch) as (one, ports):
            await until(lambda: one.leader.leads, 5)
            first = term(server)
            server.hush()
            assert not is_open(ports.feed_port)
            await until(lambda: not one.leader.leads, 5)
            await asyncio.sleep(2 * QUICK.duration)
            server.silent = False
            await until(lambda: told(server), 20)
            assert term(server) > first

    asyncio.run(scene())


def test_a_named_namespace_whose_roles_are_gone_harms_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At start nothing is known of it, so nothing is told of it; with its Roles back all is."""

    async def scene() -> None:
        async with serving() as server:
            elsewhere = route("elsewhere")
            elsewhere["metadata"]["namespace"] = "gone"
            server.write("ModelRoute", elsewhere)
            server.shut = {"gone"}
            named = ("gone", SPACE)
            async with running(server, tmp_path, monkeypatch, namespaces=named) as (one, ports):
                await until(lambda: told(server) and is_open(ports.feed_port), 20)
                first = term(server)
                server.write("ModelRoute", _placed(route("second", models=["second"])))
                await until(lambda: told(server, "second"), 20)
                assert ("ServiceAccount", "gone", "weir-router") not in server.objects
                server.shut = set()
                await until(lambda: ("ServiceAccount", "gone", "weir-router") in server.objects, 20)
                assert one.leader.leads
                assert term(server) == first

    asyncio.run(scene())


STUCK = """
import asyncio
from weir_operator import process

async def deaf():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def main():
    tasks = [asyncio.create_task(one) for one in (deaf(), asyncio.sleep(0))]
    await asyncio.sleep(0)
    await process._ended(tasks, within_s=0.1)

asyncio.run(main())
"""


def test_a_lead_that_does_not_end_ends_the_process():
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, timeout=30)
    assert done.returncode == os.EX_SOFTWARE
    assert b"does not end" in done.stderr
