"""See it work here: what a cascade saves, a good revision promoted, bad ones rolled back.

Real processes on free loopback ports: three model servers and the product itself, which knows
of this demo as little as of any other client. Needs no network and no GPU; about a minute.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console

from weir_cli.demo_figures import Outcome, Table, as_json
from weir_cli.demo_manifests import (
    ASSISTANT,
    LARGE,
    SMALL,
    Facts,
    changes,
    facts,
    manifests,
    parameters,
)
from weir_cli.demo_processes import Processes, Weir
from weir_cli.demo_rollout import Site
from weir_cli.demo_screen import WIDEST, Screen
from weir_cli.demo_traffic import Clients, measure
from weir_cli.errors import CommandError
from weir_lab.questions import Question, load

PER_S = 250.0
"""Questions a second while changes are tried: what two cores answer and audit with ease."""
KEPT_PER_S = 50.0
TERMINATED = 143
"""Exit code of a command ended by SIGTERM, as shells have it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that runs, and what it runs on."""

    known: Facts
    urls: dict[str, str]
    weir: Weir
    clients: Clients
    folder: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options."""
    parser.add_argument(
        "--seed", type=int, default=1, help="draws the questions of the traffic (default: 1)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all numbers there")
    parser.add_argument(
        "--questions",
        metavar="N",
        type=_count,
        help="compare on this many questions, drawn by the seed (default: all 3,080)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave all running at the end, under traffic"
    )
    parser.add_argument("--no-color", action="store_true", help="print without colours")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"saw {text!r}, wanted a number from 1")
    return int(text)


def main(args: argparse.Namespace) -> int:
    """Run the demo; 1 when a change did not end as it should."""
    console = Console(no_color=args.no_color or None, highlight=False)
    if not console.is_terminal:
        console = Console(no_color=True, highlight=False, width=WIDEST)
    if args.json is not None and not args.json.parent.is_dir():
        raise CommandError(
            f"--json: saw {args.json}, wanted a file in a folder that is there", code=2
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_main(args, Screen(console)))
        except asyncio.CancelledError:
            return TERMINATED


async def _main(args: argparse.Namespace, screen: Screen) -> int:
    """Run the demo until it is done; SIGTERM ends it as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await _run(args, screen)


async def _run(args: argparse.Namespace, screen: Screen) -> int:
    chance = random.Random(args.seed)
    questions = load()
    compared = _drawn(questions, args.questions, chance)
    screen.head(len(questions), parameters())
    with tempfile.TemporaryDirectory(prefix="weir-demo-") as folder:
        async with staged(Path(folder)) as scene:
            screen.runs(scene.urls, scene.weir, str(scene.folder))
            began_s = time.monotonic()
            table = await _compare(scene, compared, chance, screen)
            outcomes = await _try_changes(scene, questions, chance, screen)
            seconds = time.monotonic() - began_s
            wrong = [one for one in outcomes if not one.as_expected]
            screen.summary(outcomes)
            if args.json is not None:
                told = as_json(seed=args.seed, table=table, outcomes=outcomes, seconds=seconds)
                args.json.write_text(json.dumps(told, indent=2) + "\n", "utf8")
            screen.end(wrong=wrong, seconds=seconds, json_file=str(args.json or ""))
            if args.keep:
                await _keep(scene, questions, chance, screen)
    return 1 if wrong else 0


def _drawn(
    questions: tuple[Question, ...], count: int | None, chance: random.Random
) -> tuple[Question, ...]:
    if count is None or count >= len(questions):
        return questions
    return tuple(chance.sample(questions, count))


@contextlib.asynccontextmanager
async def staged(folder: Path, urls: dict[str, str] | None = None) -> AsyncIterator[Scene]:
    """Start everything and end it again; `urls` are of model servers that already run."""
    known = facts()
    logs, config = folder / "logs", folder / "manifests"
    logs.mkdir()
    config.mkdir()
    processes = Processes(logs)
    try:
        urls = urls or await processes.models()
        for name, text in manifests(known, urls).items():
            (config / name).write_text(text, "utf8")
        weir = await processes.weir(config)
        clients = Clients(weir.public, weir.admin)
        try:
            yield Scene(known, urls, weir, clients, config)
        finally:
            await clients.close()
    finally:
        await processes.end()


async def _compare(
    scene: Scene, questions: tuple[Question, ...], chance: random.Random, screen: Screen
) -> Table:
    """Ask each route every question, and show what came of it."""
    routes = (SMALL, LARGE, ASSISTANT)
    screen.title("The same questions to three routes", f"{len(questions):,} each, all at once")
    with screen.counting(len(routes) * len(questions)) as done:
        found = await measure(scene.clients, routes, questions, chance=chance, done=done)
    table = Table(small=found[SMALL], large=found[LARGE], cascade=found[ASSISTANT])
    screen.table(table, scene.known)
    return table


async def _try_changes(
    scene: Scene, questions: tuple[Question, ...], chance: random.Random, screen: Screen
) -> list[Outcome]:
    """Make every change in turn, on live traffic."""
    site = Site(scene.folder, scene.clients, questions, per_s=PER_S, chance=chance)
    wanted = changes(scene.known)
    screen.title(
        f"{len(wanted)} changes on live traffic",
        f"{PER_S:.0f} questions a second, a quarter of them audited while a canary is out",
    )
    outcomes = []
    for number, change in enumerate(wanted, 1):
        with screen.rollout(number, change) as told:
            outcome = await site.attempt(change, told)
        screen.verdict(outcome)
        outcomes.append(outcome)
    return outcomes


async def _keep(
    scene: Scene, questions: tuple[Question, ...], chance: random.Random, screen: Screen
) -> None:
    """Go on with a little traffic until interrupted."""
    site = Site(scene.folder, scene.clients, questions, per_s=KEPT_PER_S, chance=chance)
    screen.kept(scene.weir, str(scene.folder))
    with contextlib.suppress(asyncio.CancelledError):
        async with site.flow(ASSISTANT):
            await asyncio.Event().wait()
    screen.stopped()
