#!/usr/bin/env python3
"""Prints what the evidence does in numbers: python hack/bench/sequential/run.py [--quick]."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing import Pool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cost
import feedback
import tables
from world import Case, Run, run

Cell = tuple[str, str, int]


def work(job: tuple[Case, int]) -> Run:
    """Do one run; at module level, so that a process can be handed it."""
    case, seed = job
    return case.drive(seed) if isinstance(case, feedback.Labelled) else run(case, seed)


def done(jobs: list[tuple[Case, int]], pool: object) -> list[Run]:
    """Return the runs of a cell, in the order of their seeds."""
    if pool is None:
        return [work(job) for job in jobs]
    return pool.map(work, jobs, chunksize=8)  # type: ignore[attr-defined,no-any-return]


def lines(
    table: tables.Table, pool: object, kept: dict[str, list[dict[str, object]]], part: str
) -> Iterator[str]:
    """Yield the lines of one markdown table as they are known."""
    yield f"\n| {table.title} | " + " | ".join(table.columns) + " |"
    yield "|---" * (len(table.columns) + 1) + "|"
    for row in table.rows:
        if part not in row.name:
            continue
        cells = []
        for column, case in enumerate(row.cases):
            runs = done([(case, seed) for seed in range(row.runs)], pool)
            cells.append(row.tell(case, runs))
            kept[f"{table.name}/{row.name}/{column}"] = [
                {**asdict(one), "held": sorted(one.held)} for one in runs
            ]
        cells += [""] * (len(table.columns) - len(cells))
        yield f"| {row.name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tables, under a minute")
    parser.add_argument("--runs", type=int, default=0, help="runs a cell of the first table")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--only", default="", help="equal, detection, promotion, pairs, feedback or cost"
    )
    parser.add_argument("--row", default="", help="only rows whose name holds this")
    parser.add_argument("--json", type=Path, help="where to keep the raw results")
    given = parser.parse_args()
    runs = given.runs or (20 if given.quick else 2_000)
    kept: dict[str, list[dict[str, object]]] = {}
    began_s = time.monotonic()
    pool = Pool(given.jobs) if given.jobs > 1 else None
    size = 0.5 if given.quick else 1.0
    for table in (*tables.tables(runs, size), *feedback.tables(runs, size)):
        if given.only in ("", table.name):
            for line in lines(table, pool, kept, given.row):
                print(line, flush=True)
    if given.only in ("", "cost"):
        print("\n".join(cost.lines()))
    print(f"\n{runs} runs a cell of the first table, {time.monotonic() - began_s:,.0f} s.")
    if given.json:
        given.json.write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
