"""Does the demo come to the same verdicts whatever the traffic? Runs its changes with many seeds.

    .venv/bin/python hack/bench/demo/seeds.py --seeds 20 [--json FILE]

The model servers are shared; every seed has a product of its own, with an empty folder.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import uvloop

from weir_cli.demo import PER_S, staged
from weir_cli.demo_figures import Outcome, as_json
from weir_cli.demo_manifests import changes, facts
from weir_cli.demo_processes import Processes
from weir_cli.demo_rollout import Site
from weir_lab.questions import load

NEEDED = 0.95
"""Share of the seeds that must come to the expected verdict, of every change."""


def main() -> int:
    """Print the table; 1 when a change has too few right verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.seeds)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_all(seeds))
    print(table(found))
    if args.json is not None:
        told = [
            as_json(seed=seed, table=None, outcomes=outcomes, seconds=_seconds(outcomes))
            for seed, outcomes in zip(seeds, found, strict=True)
        ]
        args.json.write_text(json.dumps(told, indent=2) + "\n", "utf8")
    enough = NEEDED * len(seeds)
    return 0 if all(_right(column) >= enough for column in zip(*found, strict=True)) else 1


async def _all(seeds: Sequence[int]) -> list[list[Outcome]]:
    with tempfile.TemporaryDirectory(prefix="weir-seeds-") as folder:
        models = Processes(Path(folder))
        try:
            urls = await models.models()
            found = []
            for seed in seeds:
                own = Path(folder) / f"seed-{seed}"
                own.mkdir()
                found.append(await _one(seed, own, urls))
                print(f"seed {seed}: {_told(found[-1])}", file=sys.stderr, flush=True)
            return found
        finally:
            await models.end()


async def _one(seed: int, folder: Path, urls: dict[str, str]) -> list[Outcome]:
    async with staged(folder, urls) as scene:
        chance = random.Random(seed)
        site = Site(scene.folder, scene.clients, load(), per_s=PER_S, chance=chance)
        return [await site.attempt(change, lambda _: None) for change in changes(facts())]


def _told(outcomes: Sequence[Outcome]) -> str:
    told = ", ".join(f"{one.verdict} {one.suspect}".strip() for one in outcomes)
    return f"{told} in {_seconds(outcomes):.0f} s"


def _seconds(outcomes: Sequence[Outcome]) -> float:
    return sum(one.seconds for one in outcomes)


def _right(column: Sequence[Outcome]) -> int:
    return sum(one.as_expected for one in column)


def table(found: Sequence[Sequence[Outcome]]) -> str:
    """Return a line of Markdown a change: median (largest) over the seeds."""
    lines = [
        "| change | expected | as expected | because of | requests | to canary | wrong | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for column in zip(*found, strict=True):
        change = column[0].change
        causes = Counter(one.suspect or "proof" for one in column)
        cells = (
            change.name,
            change.expected,
            f"{_right(column)} of {len(column)}",
            ", ".join(f"{cause} {count}" for cause, count in causes.most_common()),
            _spread([one.requests for one in column]),
            _spread([one.canary_requests for one in column]),
            _spread([one.bad_served for one in column]),
            _spread([one.seconds for one in column], digits=1),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int = 0) -> str:
    return f"{median(values):,.{digits}f} ({max(values):,.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
